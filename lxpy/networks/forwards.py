"""Network forwards: ports of an address of this host, given to instances on a bridge. What they may say, and their
rules; no I/O.

A forward is kept in its network's document, so that both come and go together.
"""

import ipaddress
from typing import Any

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.objects import Config
from lxpy.networks import config as keys

Forward = dict[str, Any]  # description, config {target_address}, ports [{description, protocol, listen_port, ...}]
_PORT_KEYS = ("description", "protocol", "listen_port", "target_port", "target_address")


def api(listen: str, forward: Forward) -> dict[str, Any]:
    """LXD's shape."""
    return {
        "listen_address": listen,
        "description": forward["description"],
        "config": forward["config"],
        "ports": forward["ports"],
        "location": "none",
    }


def listen_address(value: str) -> str:
    """`value` in its canonical form; else `BadRequest`."""
    address = keys.ip_address("listen_address", value)
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local:
        raise BadRequest(f"Invalid listen_address {value!r}: give an address of this host, or one routed to it")
    return str(address)


def checked(listen: str, body: dict[str, Any], config: Config) -> Forward:
    """The forward of a request.

    Args:
        config: of the network, whose subnets the targets must be in.

    Raises:
        BadRequest: with the first fault.
    """
    version = ipaddress.ip_address(listen).version
    subnet = keys.subnet4(config) if version == 4 else keys.subnet6(config)
    if subnet is None:
        raise BadRequest(f"The forward {listen} is IPv{version}, and the network has no ipv{version}.address")

    def target(where: str, value: str) -> str:
        address = keys.ip_address(where, value, version)
        if address not in subnet:
            raise BadRequest(f"Invalid {where}: {value} is not inside {subnet}, the network's subnet")
        return str(address)

    given = body.get("config") or {}
    if not isinstance(given, dict):
        raise BadRequest("config must be a set of keys and values")
    settings: Config = {}
    for key, value in given.items():
        if key == "target_address":
            if value not in (None, ""):
                settings[key] = target("target_address", str(value))
        elif not str(key).startswith("user."):
            raise BadRequest(f"Invalid forward configuration key {key!r}: a forward has target_address and user.*")
        elif value not in (None, ""):
            settings[str(key)] = str(value)
    ports = body.get("ports") or []
    if not isinstance(ports, list):
        raise BadRequest("ports must be a list")
    taken: dict[str, set[int]] = {"tcp": set(), "udp": set()}
    result = []
    for number, port in enumerate(ports, 1):
        where = f"port {number} of the forward {listen}"
        if not isinstance(port, dict):
            raise BadRequest(f"Invalid {where}: it is not a set of keys and values")
        if unknown := next((key for key in port if key not in _PORT_KEYS), ""):
            raise BadRequest(f"Invalid {where}: unknown key {unknown!r}, there are {', '.join(_PORT_KEYS)}")
        protocol = str(port.get("protocol") or "").lower()
        if protocol not in taken:
            raise BadRequest(f"Invalid {where}: the protocol {protocol!r} is not tcp or udp")
        spans = port_spans(f"listen_port of {where}", str(port.get("listen_port") or ""))
        listening = [one for low, high in spans for one in range(low, high + 1)]
        if clash := next((one for one in listening if one in taken[protocol]), 0):
            raise BadRequest(f"Invalid {where}: {protocol} port {clash} is forwarded already")
        taken[protocol].update(listening)
        if len(set(listening)) != len(listening):
            raise BadRequest(f"Invalid {where}: listen_port names a port twice")
        target_port = str(port.get("target_port") or "")
        if target_port:
            targets = [
                one for low, high in port_spans(f"target_port of {where}", target_port) for one in range(low, high + 1)
            ]
            if len(targets) not in (1, len(listening)):
                raise BadRequest(
                    f"Invalid {where}: {len(listening)} listen ports cannot go to {len(targets)} target ports; "
                    "give as many, or one"
                )
        result.append({
            "description": str(port.get("description") or ""),
            "protocol": protocol,
            "listen_port": _without_spaces(port["listen_port"]),
            "target_port": _without_spaces(target_port),
            "target_address": target(f"target_address of {where}", str(port.get("target_address") or "")),
        })  # fmt: skip
    return {"description": str(body.get("description") or ""), "config": settings, "ports": result}


def _without_spaces(value: object) -> str:
    return "".join(str(value).split())


def port_spans(key: str, value: str) -> list[tuple[int, int]]:
    """First and last port of each part of ``80,8000-8010``; else `BadRequest`."""
    found = []
    for part in value.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isascii() or not first.isdigit() or (dash and not (last.isascii() and last.isdigit())):
            raise BadRequest(f"Invalid {key}: {part.strip()!r} is not a port or range (examples: 80, 8000-8010)")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 65535:
            raise BadRequest(f"Invalid {key}: {part.strip()!r} is not within 1 to 65535, or runs backwards")
        found.append((low, high))
    return found


def check_free(listen: str, name: str, networks: dict[str, dict[str, Any]]) -> None:
    """Raises `Conflict` when a forward has that address already, or it lies in one of the networks."""
    address = ipaddress.ip_address(listen)
    for other, document in networks.items():
        if listen in document.get("forwards", {}):
            where = "" if other == name else f" of network {other!r}"
            raise Conflict(f"A forward for {listen}{where} already exists")
        for subnet in (keys.subnet4(document["config"]), keys.subnet6(document["config"])):
            if subnet is not None and address in subnet:
                raise Conflict(f"The address {listen} belongs to network {other!r}: a forward listens outside of it")


def find(name: str, document: dict[str, Any], listen: str) -> tuple[str, Forward]:
    """Canonical address and forward. Raises `NotFound`."""
    try:
        canonical = str(ipaddress.ip_address(listen))
    except ValueError:
        canonical = listen
    found: Forward | None = document.get("forwards", {}).get(canonical)
    if found is None:
        raise NotFound(f"Network {name!r} has no forward for {listen!r}")
    return canonical, found


def check_targets(forwards: dict[str, Forward], config: Config) -> None:
    """The forwards of a network whose configuration changes. Raises `Conflict` when one would lead nowhere."""
    for listen, forward in forwards.items():
        try:
            checked(listen, forward, config)
        except BadRequest as error:
            raise Conflict(
                f"The forward {listen} stands against it ({error.message}): change or delete it first"
            ) from None


# -- rules ---------------------------------------------------------------------------------------------------------


def rules(forwards: dict[str, Forward]) -> list[str]:
    """What stands in the nat chains of prerouting and output: ports first, then the default target."""
    lines = []
    for listen, forward in sorted(forwards.items()):
        family = "ip6" if ":" in listen else "ip"
        for port in forward["ports"]:
            target = port["target_address"]
            line = f"{family} daddr {listen} {port['protocol']} dport {{ {port['listen_port']} }} dnat {family} to "
            lines.append(line + _destination(port, target))
        if target := forward["config"].get("target_address"):
            lines.append(f"{family} daddr {listen} dnat {family} to {target}")
    return lines


def _destination(port: dict[str, str], target: str) -> str:
    bare = f"[{target}]" if ":" in target else target
    if not port["target_port"] or port["target_port"] == port["listen_port"]:
        return target
    listening = [one for low, high in port_spans("", port["listen_port"]) for one in range(low, high + 1)]
    targets = [one for low, high in port_spans("", port["target_port"]) for one in range(low, high + 1)]
    if len(targets) == 1:
        return f"{bare}:{targets[0]}"
    pairs = ", ".join(f"{a} : {b}" for a, b in zip(listening, targets, strict=True))
    return f"{target} : {port['protocol']} dport map {{ {pairs} }}"

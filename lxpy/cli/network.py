"""network."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.acl import ACL
from lxpy.cli.args import Args, Command, Option
from lxpy.cli.context import Context, pairs
from lxpy.cli.forward import FORWARD
from lxpy.cli.objects import FORMAT, Kind, piped, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.cli.args import Run

NETWORK = Kind("network", "/1.0/networks")


def _create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    given = piped("network", ("config", "description", "type"))
    body = {
        "name": name,
        "type": given.get("type") or args.value("type"),
        "config": {**given.get("config", {}), **pairs(args.rest[1:])},
        "description": args.value("description") or given.get("description", ""),
    }
    context.wait(client, client.post(NETWORK.path, body))
    context.say(f"Network {name} created")


def _info(context: Context, args: Args) -> None:
    client, url = NETWORK.resolve(context, args.rest[0])
    state: dict[str, Any] = client.get(f"{url}/state")
    out = [
        f"Name: {args.rest[0].rpartition(':')[2]}",
        f"MAC address: {state.get('hwaddr', '')}",
        f"MTU: {state.get('mtu', '')}",
        f"State: {state.get('state', '')}",
        f"Type: {state.get('type', '')}",
    ]
    if state.get("addresses"):
        out += ["", "IP addresses:"]
        out += [f"  {one['family']}\t{one['address']}/{one['netmask']} ({one['scope']})" for one in state["addresses"]]
    counters = state.get("counters") or {}
    out += ["", "Network usage:"]
    out += [f"  Bytes received: {render.size(counters.get('bytes_received', 0))}"]
    out += [f"  Bytes sent: {render.size(counters.get('bytes_sent', 0))}"]
    out += [f"  Packets received: {counters.get('packets_received', 0)}"]
    out += [f"  Packets sent: {counters.get('packets_sent', 0)}"]
    if bridge := state.get("bridge"):
        out += ["", "Bridge:"]
        out += [f"  ID: {bridge['id']}", f"  STP: {str(bridge['stp']).lower()}"]
        out += [f"  Forward delay: {bridge['forward_delay']}", f"  Default VLAN ID: {bridge['vlan_default']}"]
        out += [f"  VLAN filtering: {str(bridge['vlan_filtering']).lower()}"]
        out += [f"  Upper devices: {', '.join(bridge['upper_devices'])}".rstrip()]
    if "leases" in state:  # ours; a server of LXD does not count them
        counted = state["leases"]
        out += ["", "Leases:"]
        out += [f"  Dynamic: {counted['dynamic']}", f"  Static: {counted['static']}"]
    sys.stdout.write("\n".join(out) + "\n")


def _attach(kind: str) -> Run:
    """``attach`` and ``attach-profile``: a nic device on an instance or profile."""

    def run(context: Context, args: Args) -> None:
        client, url = NETWORK.resolve(context, args.rest[0])
        network = client.get(url)
        name = network["name"]
        owner = f"/1.0/{kind}/{quote(args.rest[1])}"
        document, etag = client.get_etag(owner)
        device = args.at(2, name)
        if device in document["devices"]:
            raise ApiError(f"The device {device!r} already exists: give another name as the third argument")
        nic = {"type": "nic", "network": name} if network["managed"] else {
            "type": "nic", "nictype": "bridged" if network["type"] == "bridge" else "macvlan", "parent": name,
        }  # fmt: skip
        if guest := args.at(3):
            nic["name"] = guest
        document["devices"][device] = nic
        client.wait(client.put(owner, document, etag))

    return run


def _detach(kind: str) -> Run:
    """``detach`` and ``detach-profile``."""

    def run(context: Context, args: Args) -> None:
        client, name = context.resolve(args.rest[0])
        owner = f"/1.0/{kind}/{quote(args.rest[1])}"
        document, etag = client.get_etag(owner)
        on_it = [
            device
            for device, options in document["devices"].items()
            if options.get("type") == "nic" and name in (options.get("network"), options.get("parent"))
        ]
        device = args.at(2)
        if not device:
            if not on_it:
                where = " itself (a profile of it may be)" if kind == "instances" else ""
                raise ApiError(f"{args.rest[1]} is not attached to the network {name}{where}")
            if len(on_it) > 1:
                raise ApiError(f"More than one device matches, specify the device name: {', '.join(on_it)}")
            device = on_it[0]
        elif device not in on_it:
            raise ApiError(f"The device {device!r} of {args.rest[1]} is not on the network {name}")
        del document["devices"][device]
        client.wait(client.put(owner, document, etag))

    return run


def _leases(context: Context, args: Args) -> None:
    client, url = NETWORK.resolve(context, args.rest[0])
    found = client.get(f"{url}/leases")
    rows = sorted([one["hostname"], one["hwaddr"], one["address"], one["type"].upper()] for one in found)
    header = ["HOSTNAME", "MAC ADDRESS", "IP ADDRESS", "TYPE"]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _row(one: dict[str, Any]) -> list[str]:
    config = one.get("config") or {}
    return [
        one["name"],
        one["type"],
        "YES" if one["managed"] else "NO",
        config.get("ipv4.address", ""),
        config.get("ipv6.address", ""),
        one.get("description", ""),
        str(len(one.get("used_by") or ())),
        str(one.get("status", "")).upper(),
    ]


COMMANDS = {
    "network": {
        "acl": ACL,
        "attach": Command(
            _attach("instances"), f"{NETWORK.place} <instance> [<device name>] [<interface name>]",
            "Attach a network to an instance", (), 2, 4,
        ),
        "attach-profile": Command(
            _attach("profiles"), f"{NETWORK.place} <profile> [<device name>] [<interface name>]",
            "Attach a network to a profile", (), 2, 4,
        ),
        "create": Command(
            _create, "[<remote>:]<network> [key=value...]", "Create a network",
            (Option("-t --type", "TYPE", "Network type", "bridge"), Option("--description", "TEXT", "Description")),
            1, None,
        ),
        "delete": NETWORK.delete(),
        "detach": Command(
            _detach("instances"), f"{NETWORK.place} <instance> [<device name>]", "Detach a network from an instance",
            (), 2, 3,
        ),
        "detach-profile": Command(
            _detach("profiles"), f"{NETWORK.place} <profile> [<device name>]", "Detach a network from a profile",
            (), 2, 3,
        ),
        "edit": NETWORK.edit(),
        "forward": FORWARD,
        "get": NETWORK.get(),
        "info": Command(_info, NETWORK.place, "Get runtime information on a network", (), 1, 1),
        "list": NETWORK.list(
            ["NAME", "TYPE", "MANAGED", "IPV4", "IPV6", "DESCRIPTION", "USED BY", "STATE"], _row,
        ),
        "list-leases": Command(_leases, NETWORK.place, "List DHCP leases", (FORMAT,), 1, 1),
        "rename": NETWORK.rename(),
        "set": NETWORK.set(),
        "show": NETWORK.show(),
        "unset": NETWORK.unset(),
    }
}  # fmt: skip

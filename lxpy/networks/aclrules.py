"""The rules of network ACLs: what they may say, and how nftables says it. No I/O."""

import ipaddress
import re
from typing import Any, NamedTuple

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.networks.forwards import port_spans

Rule = dict[str, str]
DIRECTIONS = ("ingress", "egress")
FIELDS = (
    "action", "source", "destination", "protocol", "source_port", "destination_port", "icmp_type", "icmp_code",
    "description", "state",
)  # fmt: skip
_ACTIONS = ("drop", "reject", "allow")  # in the order in which they apply, as in LXD
_PROTOCOLS = ("icmp4", "icmp6", "tcp", "udp")
# NFLOG's prefix holds 127 characters. The limit keeps a flood of refused packets from becoming a flood of messages.
_LOG_LIMIT = "limit rate 50/second burst 100 packets"
# What a host needs to be told whatever the rules say (RFC 4890 for IPv6).
ICMP4_CORE = "destination-unreachable, time-exceeded, parameter-problem"
ICMP6_CORE = (
    "destination-unreachable, packet-too-big, time-exceeded, parameter-problem, nd-router-solicit, nd-router-advert, "
    "nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, mld-listener-report, mld2-listener-report"
)


def checked_rule(where: str, rule: Any) -> Rule:
    """The rule of a request, empty fields left out. Raises `BadRequest` with the first fault."""
    if not isinstance(rule, dict):
        raise BadRequest(f"Invalid {where}: it is not a set of keys and values")
    if unknown := next((key for key in rule if key not in FIELDS), ""):
        raise BadRequest(f"Invalid {where}: unknown key {unknown!r}, a rule has {', '.join(FIELDS)}")
    found = {key: str(rule[key]).strip() for key in FIELDS if rule.get(key) not in (None, "")}
    action, state = found.get("action", ""), found.setdefault("state", "enabled")
    if action == "allow-stateless":
        raise BadRequest(f"Invalid {where}: allow-stateless is not supported, lxpy tracks connections: use allow")
    if action not in _ACTIONS:
        raise BadRequest(f"Invalid {where}: the action {action!r} is not one of allow, drop, reject")
    if state not in ("enabled", "disabled", "logged"):
        raise BadRequest(f"Invalid {where}: the state {state!r} is not one of enabled, disabled, logged")
    protocol = found.get("protocol", "")
    if protocol and protocol not in _PROTOCOLS:
        raise BadRequest(f"Invalid {where}: the protocol {protocol!r} is not one of {', '.join(_PROTOCOLS)}")
    for key in ("source_port", "destination_port"):
        if key in found:
            if protocol not in ("tcp", "udp"):
                raise BadRequest(f"Invalid {where}: {key} needs the protocol tcp or udp")
            port_spans(f"{key} of {where}", found[key])
            found[key] = "".join(found[key].split())
    for key in ("icmp_type", "icmp_code"):
        if key in found:
            if not protocol.startswith("icmp"):
                raise BadRequest(f"Invalid {where}: {key} needs the protocol icmp4 or icmp6")
            if not found[key].isdigit() or int(found[key]) > 255:
                raise BadRequest(f"Invalid {where}: {key} {found[key]!r} is not a number from 0 to 255")
    if "icmp_code" in found and "icmp_type" not in found:
        raise BadRequest(f"Invalid {where}: icmp_code needs icmp_type")
    for key in ("source", "destination"):
        if key in found:
            found[key] = ",".join(text for _, text in _subjects(f"{key} of {where}", found[key]))
    if not _families(found):
        raise BadRequest(f"Invalid {where}: source, destination and protocol are of different address families")
    return found


def _subjects(where: str, value: str) -> list[tuple[int, str]]:
    """Version and nft's text of each part of ``10.0.0.0/8,10.1.1.1-10.1.1.9,fd42::1``."""
    found: list[tuple[int, str]] = []
    for part in (one.strip() for one in value.split(",")):
        try:
            if "-" in part:
                first, last = (ipaddress.ip_address(one.strip()) for one in part.split("-"))
                if first.version != last.version or int(first) > int(last):
                    raise ValueError
                found.append((first.version, f"{first}-{last}"))
            elif "/" in part:
                network = ipaddress.ip_network(part, strict=False)
                found.append((network.version, str(network)))
            else:
                address = ipaddress.ip_address(part)
                found.append((address.version, str(address)))
        except ValueError:
            hint = ": names of ACLs, @internal and @external need OVN" if re.match(r"[@A-Za-z]", part) else ""
            raise BadRequest(
                f"Invalid {where}: {part!r} is not an address, subnet or range"
                f"{hint or ' (examples: 10.1.2.3, 10.0.0.0/8, 10.1.2.3-10.1.2.9)'}"
            ) from None
    return found


def _families(rule: Rule) -> set[int]:
    families = {4, 6}
    for key in ("source", "destination"):
        if key in rule:
            families &= {version for version, _ in _subjects(key, rule[key])}
    return families & {"icmp4": {4}, "icmp6": {6}}.get(rule.get("protocol", ""), {4, 6})


def matches(rule: Rule) -> list[str]:
    """The conditions of a rule, one line for each address family, or one for both."""
    protocol = rule.get("protocol", "")
    rest = []
    if protocol in ("tcp", "udp"):
        for key, word in (("source_port", "sport"), ("destination_port", "dport")):
            if key in rule:
                rest.append(f"{protocol} {word} {{ {rule[key]} }}")
        if not rest:
            rest.append(f"meta l4proto {protocol}")
    elif protocol:
        word = "icmp" if protocol == "icmp4" else "icmpv6"
        kinds = [f"{word} {what} {rule[f'icmp_{what}']}" for what in ("type", "code") if f"icmp_{what}" in rule]
        rest += kinds or [f"meta l4proto {'icmp' if word == 'icmp' else 'ipv6-icmp'}"]
    if "source" not in rule and "destination" not in rule:
        return [" ".join(rest)]
    lines = []
    for version in sorted(_families(rule)):
        family = "ip" if version == 4 else "ip6"
        line = [
            f"{family} {word} {{ {', '.join(text for v, text in _subjects(key, rule[key]) if v == version)} }}"
            for key, word in (("source", "saddr"), ("destination", "daddr"))
            if key in rule
        ]
        lines.append(" ".join(line + rest))
    return lines


class Statement(NamedTuple):
    """One decision: its condition ("" for always), what becomes of the packet, and the prefix of its log ("": none)."""

    match: str
    action: str
    log: str


def statements(names: list[str], acls: dict[str, dict[str, Any]], config: dict[str, str], direction: str,
               subject: str) -> list[Statement]:  # fmt: skip
    """All of one direction in the order in which they apply: drops, rejects, allows, and the default.

    Args:
        names: of the ACLs.
        config: has security.acls.default.DIRECTION.action and .logged.
        subject: of the log: network or instance and device.
    """
    found: list[Statement] = []
    for action in _ACTIONS:
        for name in names:
            for number, rule in enumerate(acls.get(name, {}).get(direction, [])):
                if rule["action"] == action and rule["state"] != "disabled":
                    log = f"{name}|{direction}.{number}|{action}|{subject}" if rule["state"] == "logged" else ""
                    found += [Statement(match, action, log[:127]) for match in matches(rule)]
    default = config.get(f"security.acls.default.{direction}.action") or "reject"
    logged = values.boolean("", config.get(f"security.acls.default.{direction}.logged", ""))
    log = f"{','.join(names)}|{direction}|{default}|{subject}" if logged else ""
    return [*found, Statement("", default, log[:127])]


def inet_lines(found: list[Statement], group: int) -> list[str]:
    """As rules of a chain of family inet.

    Args:
        group: of NFLOG.
    """
    lines = []
    for one in found:
        if one.log:
            lines.append(log_line(one, group))
        verdict = {"allow": "accept", "drop": "drop", "reject": "reject"}[one.action]
        lines.append(f"{one.match} {verdict}".strip())
    return lines


def log_line(one: Statement, group: int) -> str:
    """The rule that logs what the rule after it decides."""
    return f'{one.match} {_LOG_LIMIT} log prefix "{one.log}" group {group}'.strip()

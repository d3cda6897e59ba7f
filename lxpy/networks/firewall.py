"""The nftables rules of all our bridges: one table, replaced whole in one transaction, forked for only on a change."""

import asyncio
import json
import re
from typing import Any

from lxpy.api.errors import InternalError
from lxpy.api.objects import Config
from lxpy.networks import aclrules
from lxpy.networks import config as keys
from lxpy.networks import forwards as forward_rules

Document = dict[str, Any]
Documents = dict[str, Document]

_COMMENT = "lxpy"
_ICMP = "destination-unreachable, time-exceeded, parameter-problem"
_ICMPV6 = (
    "destination-unreachable, packet-too-big, time-exceeded, parameter-problem, "
    "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report"
)


def ruleset(table: str, networks: Documents, acls: Documents, group: int) -> str:
    """The whole table as ``nft -f`` reads it: it replaces what was there, atomically.

    Args:
        table: of family ``inet``.
        networks: the document of each bridge; its ``config`` and ``forwards`` count.
        acls: by name; those that a network's ``security.acls`` names count.
        group: of NFLOG, for what is to be logged.
    """
    lines = [f"add table inet {table}", f"delete table inet {table}"]
    if not networks:
        return "\n".join(lines) + "\n"
    lines.append(f"table inet {table} {{")
    for name, document in sorted(networks.items()):
        for prefix, hook, rules in [*_acl_chains(name, document["config"], acls, group), *_chains(name, document)]:
            if rules:
                lines.append(f"  chain {prefix}.{name} {{")
                lines += [f"    {line}" for line in ([hook] if hook else []) + rules]
                lines.append("  }")
    return "\n".join([*lines, "}", ""])


def _chains(name: str, document: Document) -> list[tuple[str, str, list[str]]]:
    """Prefix, hook and rules of each chain of a bridge."""
    config: Config = document["config"]
    forwards = document.get("forwards", {})
    bridge = f'"{name}"'
    inputs: list[str] = []
    passing: list[str] = []
    nats: dict[str, list[str]] = {"before": [], "after": []}
    hairpins: list[str] = []
    for version, interface in ((4, keys.interface4(config)), (6, keys.interface6(config))):
        if interface is None:
            continue
        family, subnet = ("ip", "ip6")[version == 6], interface.network
        if keys.enabled(config, f"ipv{version}.firewall", True):
            this = f"meta nfproto ipv{version}"
            inputs += [
                f"iifname {bridge} {this} tcp dport 53 accept",
                f"iifname {bridge} {this} udp dport {{ 53, {67 if version == 4 else 547} }} accept",
                f"iifname {bridge} icmp type {{ {_ICMP} }} accept"
                if version == 4
                else f"iifname {bridge} icmpv6 type {{ {_ICMPV6} }} accept",
            ]
            verdict = "accept" if keys.enabled(config, f"ipv{version}.routing", True) else "drop"
            passing += [
                f"iifname {bridge} oifname {bridge} {this} accept",
                f"iifname {bridge} {this} {verdict}",
                f"oifname {bridge} {this} {verdict}",
            ]
        if any((":" in listen) == (version == 6) for listen in forwards):
            # An instance that asks for the forward's address is answered by the host, else the answer would come
            # straight from the target, from another address than was asked.
            hairpins.append(f"ct status dnat {family} saddr {subnet} {family} daddr {subnet} masquerade")
        if keys.enabled(config, f"ipv{version}.nat", False):
            outside = config.get(f"ipv{version}.nat.address")
            order = config.get(f"ipv{version}.nat.order") or "before"
            how = f"snat {family} to {outside}" if outside else "masquerade"
            nats[order].append(f"{family} saddr {subnet} {family} daddr != {subnet} {how}")
    targets = forward_rules.rules(forwards)
    return [
        ("in", "type filter hook input priority 0; policy accept;", inputs),
        ("fwd", "type filter hook forward priority 0; policy accept;", passing),
        ("fwdprert", "type nat hook prerouting priority -100; policy accept;", targets),
        ("fwdout", "type nat hook output priority -100; policy accept;", targets),
        # Docker and others stand at 100; who comes first decides.
        ("pstrt", "type nat hook postrouting priority 99; policy accept;", hairpins + nats["before"]),
        ("pstrtlate", "type nat hook postrouting priority 101; policy accept;", nats["after"]),
    ]


def _acl_chains(name: str, config: Config, acls: Documents, group: int) -> list[tuple[str, str, list[str]]]:
    """What `_chains` gives, of the network's ACLs. They stand at the bridge's border: what passes it is routed."""
    names = keys.words(config, "security.acls")
    if not names:
        return []
    bridge = f'"{name}"'
    known = ["ct state established,related accept"]
    core = [f"icmp type {{ {aclrules.ICMP4_CORE} }} accept", f"icmpv6 type {{ {aclrules.ICMP6_CORE} }} accept"]
    # First the chains of rules, then those that lead there.
    chains = [
        (f"acl.{direction}", "",
         aclrules.inet_lines(aclrules.statements(names, acls, config, direction, f"network {name}"), group))
        for direction in aclrules.DIRECTIONS
    ]  # fmt: skip
    return [
        *chains,
        ("aclin", "type filter hook input priority -1; policy accept;", [
            f"iifname != {bridge} accept", *known,
            "udp dport { 53, 67, 547 } accept", "tcp dport 53 accept", *core, f"goto acl.egress.{name}",
        ]),
        ("aclout", "type filter hook output priority -1; policy accept;", [
            f"oifname != {bridge} accept", *known, "udp sport { 67, 547 } accept", *core, f"goto acl.ingress.{name}",
        ]),
        ("aclfwd", "type filter hook forward priority -1; policy accept;", [
            f"iifname {bridge} oifname {bridge} accept", *known,
            f"iifname {bridge} goto acl.egress.{name}", f"oifname {bridge} goto acl.ingress.{name}",
        ]),
    ]  # fmt: skip


async def apply(table: str, networks: Documents, acls: Documents, group: int) -> int:
    """Loads the rules of all networks, and lets their traffic through Docker's FORWARD policy where Docker runs.

    Returns:
        How many transactions that took.

    Raises:
        InternalError: nft is missing or refused.
    """
    await _nft(ruleset(table, networks, acls, group), "-f", "-")
    return 1 + await docker(table, networks)


async def docker(table: str, networks: Documents) -> int:
    """The part of `apply` that concerns Docker."""
    # Docker sets FORWARD to drop; an accept in our own table cannot overrule a drop in another, so the exception has
    # to stand in the chain Docker keeps for its neighbours. Docker started after us: the guard hears of the chain.
    transactions = 0
    for family in ("ip", "ip6"):
        try:
            listing = await _nft("", "-j", "-a", "list", "chain", family, "filter", "DOCKER-USER")
        except InternalError:
            continue
        ours = f"{_COMMENT}:{table}:"
        script = [
            f"delete rule {family} filter DOCKER-USER handle {rule['handle']}"
            for rule in (one.get("rule", {}) for one in json.loads(listing)["nftables"])
            if re.sub(r"[^:]*$", "", rule.get("comment", "")) == ours
        ]
        for name, document in sorted(networks.items()):
            config = document["config"]
            version = "ipv4" if family == "ip" else "ipv6"
            if keys.enabled(config, f"{version}.firewall", True) and keys.enabled(config, f"{version}.routing", True):
                script += [
                    f'insert rule {family} filter DOCKER-USER {side} "{name}" counter accept comment "{ours}{name}"'
                    for side in ("iifname", "oifname")
                ]
        if script:
            await _nft("\n".join(script) + "\n", "-f", "-")
            transactions += 1
    return transactions


async def run(script: str) -> None:
    """One transaction of a script. Raises `InternalError` with nft's reason; nothing has changed then."""
    await _nft(script, "-f", "-")


async def listing(*what: str) -> str:
    """JSON of what ``nft list`` shows. Raises `InternalError` when there is no such thing."""
    return await _nft("", "-j", "list", *what)


async def _nft(script: str, *arguments: str) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            "nft", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError:
        raise InternalError("nft was not found: install the package nftables, or the instances have no NAT") from None
    out, err = await process.communicate(script.encode())
    if process.returncode:
        lines = err.decode(errors="replace").strip().splitlines()
        raise InternalError(f"Loading the firewall rules failed: {lines[0] if lines else 'nft gave no reason'}")
    return out.decode(errors="replace")

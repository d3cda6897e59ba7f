"""The nftables rules of all our bridges: one table, replaced whole in one transaction, forked for only on a change."""

import asyncio
import json
import re

from lxpy.api.errors import InternalError
from lxpy.api.objects import Config
from lxpy.networks import config as keys

_COMMENT = "lxpy"
_ICMPV6 = (
    "destination-unreachable, packet-too-big, time-exceeded, parameter-problem, "
    "nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report"
)


def ruleset(table: str, networks: dict[str, Config]) -> str:
    """The whole table as ``nft -f`` reads it: it replaces what was there, atomically.

    Args:
        table: of family ``inet``.
        networks: configuration of each bridge.
    """
    lines = [f"add table inet {table}", f"delete table inet {table}"]
    if not networks:
        return "\n".join(lines) + "\n"
    lines.append(f"table inet {table} {{")
    for name, config in sorted(networks.items()):
        lines += _chains(name, config)
    return "\n".join([*lines, "}", ""])


def _chains(name: str, config: Config) -> list[str]:
    bridge = f'"{name}"'
    inputs: list[str] = []
    forwards: list[str] = []
    nats: list[str] = []
    four, six = keys.interface4(config), keys.interface6(config)
    if four and keys.enabled(config, "ipv4.firewall", True):
        inputs += [
            f"iifname {bridge} meta nfproto ipv4 tcp dport 53 accept",
            f"iifname {bridge} meta nfproto ipv4 udp dport {{ 53, 67 }} accept",
            f"iifname {bridge} icmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept",
        ]
        verdict = "accept" if keys.enabled(config, "ipv4.routing", True) else "drop"
        forwards += [
            f"iifname {bridge} oifname {bridge} meta nfproto ipv4 accept",
            f"iifname {bridge} meta nfproto ipv4 {verdict}",
            f"oifname {bridge} meta nfproto ipv4 {verdict}",
        ]
    if six and keys.enabled(config, "ipv6.firewall", True):
        inputs += [
            f"iifname {bridge} meta nfproto ipv6 tcp dport 53 accept",
            f"iifname {bridge} meta nfproto ipv6 udp dport {{ 53, 547 }} accept",
            f"iifname {bridge} icmpv6 type {{ {_ICMPV6} }} accept",
        ]
        verdict = "accept" if keys.enabled(config, "ipv6.routing", True) else "drop"
        forwards += [
            f"iifname {bridge} oifname {bridge} meta nfproto ipv6 accept",
            f"iifname {bridge} meta nfproto ipv6 {verdict}",
            f"oifname {bridge} meta nfproto ipv6 {verdict}",
        ]
    if four and keys.enabled(config, "ipv4.nat", False):
        nats.append(f"ip saddr {four.network} ip daddr != {four.network} masquerade")
    if six and keys.enabled(config, "ipv6.nat", False):
        nats.append(f"ip6 saddr {six.network} ip6 daddr != {six.network} masquerade")
    result = []
    for prefix, hook, rules in (
        ("in", "type filter hook input priority 0; policy accept;", inputs),
        ("fwd", "type filter hook forward priority 0; policy accept;", forwards),
        ("pstrt", "type nat hook postrouting priority 100; policy accept;", nats),
    ):
        if rules:
            result.append(f"  chain {prefix}.{name} {{")
            result += [f"    {line}" for line in (hook, *rules)]
            result.append("  }")
    return result


async def apply(table: str, networks: dict[str, Config]) -> None:
    """Loads the rules of all networks, and lets their traffic through Docker's FORWARD policy where Docker runs.

    Raises:
        InternalError: nft is missing or refused.
    """
    await _nft(ruleset(table, networks), "-f", "-")
    await _docker(table, networks)


async def _docker(table: str, networks: dict[str, Config]) -> None:
    # Docker sets FORWARD to drop; an accept in our own table cannot overrule a drop in another, so the exception has
    # to stand in the chain Docker keeps for its neighbours. Docker started after us: seen at the next change or start.
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
        for name, config in sorted(networks.items()):
            version = "ipv4" if family == "ip" else "ipv6"
            if keys.enabled(config, f"{version}.firewall", True) and keys.enabled(config, f"{version}.routing", True):
                script += [
                    f'insert rule {family} filter DOCKER-USER {side} "{name}" counter accept comment "{ours}{name}"'
                    for side in ("iifname", "oifname")
                ]
        if script:
            await _nft("\n".join(script) + "\n", "-f", "-")


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

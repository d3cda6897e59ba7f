"""Network ACLs on single nics: chains for each host end of a veth pair, in a table of family bridge.

There frames between neighbours on one bridge are filtered too, which the border of the bridge never sees. Many kernels
track no connections in that family, so flows that a rule has allowed are kept in sets of our own, one pair for each
nic: answers pass, by either address family, until the flow has been silent (TCP 3 hours, UDP 3 minutes, one minute
after FIN or RST). A set holds 65535 flows; changing rules keeps them.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from lxpy.api.errors import InternalError
from lxpy.api.notices import ACLS, Notice
from lxpy.networks import aclrules, firewall

_OUT4 = "ip saddr . ip daddr . meta l4proto . th sport . th dport"
_IN4 = "ip daddr . ip saddr . meta l4proto . th dport . th sport"
_DIRECTIONS = {"egress": ("out", (_OUT4, _OUT4.replace("ip ", "ip6 "))), "ingress": ("in", (_IN4, _IN4.replace("ip ", "ip6 ")))}  # fmt: skip  # noqa: E501


class Nic(NamedTuple):
    """A nic with ACLs.

    Attributes:
        config: ``security.acls*`` of the nic, over those of its network.
        gateways: addresses of the bridge itself; DHCP and DNS are theirs.
        subject: of the log: instance and device.
    """

    names: list[str]
    config: dict[str, str]
    gateways: list[str]
    subject: str


class NicAcls:
    """The nics of running instances that have ACLs.

    Args:
        table: of family bridge.
        acls: the documents of all ACLs.
        change: around every change of the rules; takes how many transactions it was.
        warn: told when this kernel cannot reject frames.
    """

    def __init__(
        self,
        table: str,
        group: int,
        acls: Callable[[], dict[str, dict[str, Any]]],
        change: Callable[[], contextlib.AbstractContextManager[list[int]]],
        warn: Callable[[str], None],
    ) -> None:
        self._table, self._group, self._acls, self._change, self._warn = table, group, acls, change, warn
        self._nics: dict[str, Nic] = {}
        self._rejects = True
        self._lock = asyncio.Lock()  # the last one takes the table away: not while another is being put into it

    async def attach(self, host_name: str, nic: Nic) -> None:
        """Filters a nic from now on, whether the interface is there already or not; idempotent.

        Raises:
            InternalError: nft refused.
        """
        async with self._lock:
            with self._change() as count:
                count.append(await self._load({host_name: nic}, self._acls()))
            self._nics[host_name] = nic

    async def detach(self, host_name: str) -> None:
        """Takes the rules of a nic away, with those of the last one the table; nothing happens for one without."""
        async with self._lock:
            if self._nics.pop(host_name, None) is not None:
                with self._change() as count:
                    await firewall.run(_removal(self._table, host_name) if self._nics else self._end())
                    count.append(1)

    async def load(self, acls: dict[str, dict[str, Any]]) -> int:
        """Brings all nics to the given ACLs. Gives the number of transactions."""
        async with self._lock:
            return await self._load(self._nics, acls) if self._nics else 0

    async def sweep(self, present: set[str]) -> None:
        """Removes the rules of interfaces that are not `present`: of instances that ended while no daemon ran."""
        async with self._lock:
            try:
                listing = await firewall.listing("table", "bridge", self._table)
            except InternalError:
                return  # there is no such table
            chains = (one.get("chain", {}).get("name", "") for one in json.loads(listing)["nftables"])
            there = {name.removeprefix("out.") for name in chains if name.startswith("out.")}
            if not there & present and not self._nics:
                await firewall.run(self._end())
            elif gone := there - present:
                await firewall.run("".join(_removal(self._table, name) for name in gone))

    def _end(self) -> str:
        return f"add table bridge {self._table}\ndelete table bridge {self._table}\n"

    async def _load(self, nics: dict[str, Nic], acls: dict[str, dict[str, Any]]) -> int:
        def script() -> str:
            return _base(self._table) + "".join(self._nic(name, nic, acls) for name, nic in nics.items())

        try:
            await firewall.run(script())
        except InternalError:
            if not self._rejects or " reject\n" not in script():
                raise
            self._rejects = False  # CONFIG_NFT_BRIDGE_REJECT is missing
            await firewall.run(script())
            self._warn(
                Notice("This kernel cannot reject frames on a bridge: ACLs of nics drop what they should reject", ACLS)
            )
        return 1

    def _nic(self, name: str, nic: Nic, acls: dict[str, dict[str, Any]]) -> str:
        table = f"bridge {self._table}"
        lines = [
            f"add set {table} f4.{name} {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service . inet_service; "
            "flags dynamic,timeout; size 65535; }",
            f"add set {table} f6.{name} {{ type ipv6_addr . ipv6_addr . inet_proto . inet_service . inet_service; "
            "flags dynamic,timeout; size 65535; }",
        ]
        for direction, (short, flows) in _DIRECTIONS.items():
            chain = f"{table} {short}.{name}"
            lines += [f"add chain {chain}", f"flush chain {chain}"]
            rules = ["ether type arp accept"]
            for key, own in zip(flows, (f"@f4.{name}", f"@f6.{name}"), strict=True):
                rules += [
                    f"{key} {own} tcp flags & (fin|rst) != 0 update {own} {{ {key} timeout 1m }} accept",
                    f"{key} {own} tcp flags & psh == psh update {own} {{ {key} timeout 3h }} accept",
                    f"{key} {own} meta l4proto udp update {own} {{ {key} timeout 3m }} accept",
                    f"{key} {own} accept",
                ]
            rules += [
                f"icmp type {{ echo-reply, {aclrules.ICMP4_CORE} }} accept",
                f"icmpv6 type {{ echo-reply, {aclrules.ICMP6_CORE} }} accept",
            ]
            far, end = ("daddr", "dport") if direction == "egress" else ("saddr", "sport")
            rules.append(f"udp {end} {{ 67, 547 }} accept")
            for gateway in nic.gateways:
                family = "ip6" if ":" in gateway else "ip"
                rules += [f"{family} {far} {gateway} {protocol} {end} 53 accept" for protocol in ("tcp", "udp")]
            for one in aclrules.statements(nic.names, acls, nic.config, direction, nic.subject):
                if one.log:
                    rules.append(aclrules.log_line(one, self._group))
                if one.action == "allow":
                    rules += _tracked(one.match, name, flows)
                # The kernel rejects in prerouting only, so what comes to the nic is dropped.
                reject = one.action == "reject" and direction == "egress" and self._rejects
                rules.append(
                    f"{one.match} {'accept' if one.action == 'allow' else 'reject' if reject else 'drop'}".strip()
                )
            lines += [f"add rule {chain} {rule}" for rule in rules]
            lines.append(f'add element {table} {direction} {{ "{name}" : jump {short}.{name} }}')
        return "\n".join(lines) + "\n"


def _tracked(match: str, name: str, flows: tuple[str, str]) -> list[str]:
    """What is allowed is remembered first. A full set lets the packet fall through to the bare accept."""
    found = []
    for version, key, own in zip((4, 6), flows, (f"@f4.{name}", f"@f6.{name}"), strict=True):
        other = "ip6 " if version == 4 else "ip "
        if "icmp" in match or match.startswith(other):
            continue
        for protocol, seconds in (("tcp", "3h"), ("udp", "3m")):
            # `meta l4proto tcp` beside `udp dport` is a conflict that nft refuses.
            if {"tcp": "udp", "udp": "tcp"}[protocol] not in match:
                found.append(
                    f"{match} meta l4proto {protocol} update {own} {{ {key} timeout {seconds} }} accept".strip()
                )
    return found


def _base(table: str) -> str:
    lines = [f"add table bridge {table}"]
    for direction, hook, word in (("egress", "prerouting", "iifname"), ("ingress", "postrouting", "oifname")):
        lines += [
            f"add map bridge {table} {direction} {{ type ifname : verdict; }}",
            f"add chain bridge {table} {hook} {{ type filter hook {hook} priority -200; policy accept; }}",
            f"flush chain bridge {table} {hook}",
            f"add rule bridge {table} {hook} {word} vmap @{direction}",
        ]
    return "\n".join(lines) + "\n"


def _removal(table: str, name: str) -> str:
    lines = []
    for direction, (short, _) in _DIRECTIONS.items():
        element = f'bridge {table} {direction} {{ "{name}" : jump {short}.{name} }}'
        # Adding first makes it safe to repeat: deleting what is not there is an error.
        lines += [
            f"add chain bridge {table} {short}.{name}", f"add element {element}", f"delete element {element}",
            f"flush chain bridge {table} {short}.{name}", f"delete chain bridge {table} {short}.{name}",
        ]  # fmt: skip
    for version in (4, 6):
        kind = f"ipv{version}_addr . ipv{version}_addr . inet_proto . inet_service . inet_service"
        lines += [
            f"add set bridge {table} f{version}.{name} {{ type {kind}; flags dynamic,timeout; size 65535; }}",
            f"delete set bridge {table} f{version}.{name}",
        ]
    return _base(table) + "\n".join(lines) + "\n"

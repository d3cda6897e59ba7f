"""What a bridged nic has beyond its cable: filters, limits, isolation, routes.

What a guest sends meets one nft chain of its own at the ingress hook of the host's end (a netdev chain costs other nics
nothing, and needs no tc classifier, which many kernels lack): filters, `limits.egress`, `limits.priority`. What it gets
is shaped by a token bucket on that end. A chain and a route outlive the interface: both are written down in a file
first, so that the next daemon finds what this one did not take away. A nic without such keys costs nothing here.
"""

import contextlib
import ipaddress
import json
import os
from collections.abc import Callable
from typing import TypedDict

from lxpy.api import values
from lxpy.api.errors import ApiError, BadRequest, InternalError
from lxpy.api.objects import Config
from lxpy.linux import rtnetlink, traffic
from lxpy.networks import config as keys
from lxpy.networks import firewall, host, routed, vlans

KEYS = frozenset(
    {
        "security.mac_filtering", "security.ipv4_filtering", "security.ipv6_filtering", "security.port_isolation",
        "limits.ingress", "limits.egress", "limits.max", "limits.priority", "ipv4.routes", "ipv6.routes",
        "queue.tx.length", "vlan", "vlan.tagged",
    }
)  # fmt: skip

# What changes without taking the nic away from the guest.
IN_PLACE = KEYS - {"queue.tx.length", "vlan", "vlan.tagged"}


class _Traces(TypedDict):
    """What outlives the interface: whether there is a chain; device, destination and prefix of each route; device and
    address of what the host answers for."""

    chain: bool
    routes: list[tuple[str, str, int]]
    proxies: list[tuple[str, str]]


class Extras:
    """The extras of all nics of one daemon.

    Args:
        table: of family netdev; it is there only while a nic has a chain.
        path: the file that remembers what outlives an interface.
        change: around every change of the rules; takes how many transactions it was.
        managed: whether a bridge is ours.
    """

    def __init__(
        self,
        table: str,
        path: str,
        change: Callable[[], contextlib.AbstractContextManager[list[int]]],
        managed: Callable[[str], bool],
    ) -> None:
        self._table, self._path, self._change, self._managed = table, path, change, managed
        self._traces: dict[str, _Traces] = {}
        self._nics: dict[str, tuple[Config, str, str]] = {}  # nic, device and bridge, by host name
        with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="utf-8") as file:
            self._traces = json.load(file)

    async def sweep(self, links: set[str]) -> None:
        """Takes away what is left of nics whose interface is none of `links`."""
        for host_name in set(self._traces) - links:
            await self.remove(host_name)

    async def apply(self, nic: Config, device: str, bridge: str, host_name: str) -> None:
        """Gives an interface that is there what its nic asks for, in place of what it had; safe to repeat.

        Raises:
            BadRequest: keys that do not go together, or lack an address.
            InternalError: nft refused.
            OSError: the kernel refused.
        """
        nictype = nic.get("nictype", "bridged")
        if not KEYS.intersection(nic) and nictype != "routed" and host_name not in self._traces:
            return
        rules = chain_rules(nic, device)
        proxies = routed.proxies(nic) if nictype == "routed" else []
        routes = (
            []
            if nictype == "routed"
            else [
                (bridge or host_name, str(one.network_address), one.prefixlen)
                for version in (4, 6)
                for one in keys.routed(f"ipv{version}.routes", nic.get(f"ipv{version}.routes", ""), version)
            ]
        )
        old = self._traces.get(host_name) or _Traces(chain=False, routes=[], proxies=[])
        before = [(link, destination, prefix) for link, destination, prefix in old["routes"]]
        answered = [(link, address) for link, address in old["proxies"]]
        self._remember(
            host_name,
            _Traces(chain=bool(rules) or old["chain"], routes=[*{*routes, *before}], proxies=[*{*proxies, *answered}]),
        )
        if rules or old["chain"]:
            # One transaction: a guest never runs without the rules it had or gets.
            await self._run(self._script(host_name, rules) if rules else self._removal(host_name))
        _set_link(host_name, nic)
        vlans.join(nic, device, bridge, host_name, ours=self._managed(bridge))
        _change_routes([route for route in before if route not in routes], added=False)
        _change_routes(routes, added=True)
        routed.answer([one for one in answered if one not in proxies], on=False)
        routed.answer(proxies, on=True)
        self._remember(host_name, _Traces(chain=bool(rules), routes=routes, proxies=proxies))
        self._nics[host_name] = (nic, device, bridge)

    async def reapply(self, bridge: str) -> None:
        """Gives the ports of a bridge that was made anew what went with the old one: isolation, VLANs, routes."""
        for host_name, (nic, device, on) in list(self._nics.items()):
            if on == bridge:
                with contextlib.suppress(ApiError, OSError):
                    await self.apply(nic, device, bridge, host_name)

    def answer_again(self, parent: str) -> None:
        """Has the host answer on an interface ("": on all) as it did: without carrier kernels before 2025 forget it."""
        lost = [
            (link, address)
            for traces in self._traces.values()
            for link, address in traces["proxies"]
            if parent in ("", link)
        ]
        with contextlib.suppress(OSError):
            routed.answer(lost, on=True)

    async def mend(self) -> bool:
        """Loads chains that somebody took away or changed; whether there were any. Raises `InternalError`."""
        try:
            listing = json.loads(await firewall.listing("table", "netdev", self._table))["nftables"]
        except InternalError:
            listing = []  # no such table any more
        present = [one["rule"]["chain"] for one in listing if "rule" in one]
        mended = False
        for host_name, (nic, device, _) in list(self._nics.items()):
            rules = chain_rules(nic, device)
            if present.count(f"nic.{host_name}") != len(rules) and host.link_exists(host_name):
                await self._run(self._script(host_name, rules))
                mended = True
        return mended

    async def _run(self, script: str) -> None:
        with self._change() as count:
            await firewall.run(script)
            count.append(1)

    async def remove(self, host_name: str) -> None:
        """Takes away what outlives the interface; idempotent. Raises `InternalError`."""
        self._nics.pop(host_name, None)
        traces = self._traces.get(host_name)
        if traces is None:
            return
        _change_routes(traces["routes"], added=False)
        routed.answer(traces["proxies"], on=False)
        if traces["chain"]:
            await self._run(self._removal(host_name))
        self._remember(host_name, None)

    def _chain(self, host_name: str) -> str:
        return f"netdev {self._table} nic.{host_name}"

    def _script(self, host_name: str, rules: list[str]) -> str:
        # -500: before everything that others may hang on the interface.
        hook = f'{{ type filter hook ingress device "{host_name}" priority -500; policy accept; }}'
        lines = [f"add table netdev {self._table}", f"add chain {self._chain(host_name)} {hook}"]
        lines.append(f"flush chain {self._chain(host_name)}")
        return "\n".join([*lines, *(f"add rule {self._chain(host_name)} {rule}" for rule in rules), ""])

    def _removal(self, host_name: str) -> str:
        # Adding first makes it safe to repeat: deleting what is not there is an error.
        if not any(one["chain"] for name, one in self._traces.items() if name != host_name):
            return f"add table netdev {self._table}\ndelete table netdev {self._table}\n"
        chain = self._chain(host_name)
        return f"add table netdev {self._table}\nadd chain {chain}\nflush chain {chain}\ndelete chain {chain}\n"

    def _remember(self, host_name: str, traces: _Traces | None) -> None:
        if traces is not None and any(traces.values()):
            if self._traces.get(host_name) == traces:
                return
            self._traces[host_name] = traces
        elif self._traces.pop(host_name, None) is None:
            return
        with open(f"{self._path}.new", "w", encoding="utf-8") as file:
            json.dump(self._traces, file, indent=1)
        os.rename(f"{self._path}.new", self._path)


def chain_rules(nic: Config, device: str) -> list[str]:
    """The nft rules for what a guest sends.

    Raises:
        BadRequest: keys that do not go together, or lack an address.
    """
    on = {
        name: values.boolean(f"security.{name} of the nic {device}", nic.get(f"security.{name}", ""))
        for name in ("mac_filtering", "ipv4_filtering", "ipv6_filtering")
    }
    rules: list[str] = []
    hwaddr = nic.get("hwaddr", "").lower()
    if any(on.values()):  # an address filter that another MAC address gets around would be none, as in LXD
        packed = "0x" + hwaddr.replace(":", "")
        rules += [
            f"ether saddr != {hwaddr} drop",
            f"arp saddr ether != {hwaddr} drop",
            # The link-layer address option of a neighbour advertisement: 48 bits after 40 + 24 + 2 bytes.
            f"icmpv6 type nd-neighbor-advert @nh,528,48 != {packed} drop",
        ]
    if on["ipv4_filtering"] or on["ipv6_filtering"]:
        rules.append("ether type != { ip, arp, ip6 } drop")
    if on["ipv4_filtering"]:
        address = _address(nic, device, 4)
        if address:
            own = ", ".join([address, *_routed(nic, 4)])
            rules += [
                f"arp saddr ip != {{ 0.0.0.0, {own} }} drop",
                f"ip saddr != {{ 0.0.0.0, {own} }} drop",
                "ip saddr 0.0.0.0 meta l4proto != udp drop",
                "ip saddr 0.0.0.0 udp dport != 67 drop",  # who has no address yet may ask for one, and nothing else
            ]
        else:
            rules += ["ether type ip drop", "ether type arp drop"]
    if on["ipv6_filtering"]:
        address = _address(nic, device, 6)
        if address:
            mac = rtnetlink.mac_bytes(hwaddr)
            local = b"\xfe\x80" + b"\0" * 6 + bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
            own = ", ".join([address, str(ipaddress.IPv6Address(local)), *_routed(nic, 6)])
            targets = " ".join(
                f"@nh,384,128 != 0x{raw.hex()}" for raw in (local, ipaddress.IPv6Address(address).packed)
            )
            rules += [
                f"ip6 saddr != {{ ::, {own} }} drop",
                "ip6 saddr :: meta l4proto != { icmpv6, 0 } drop",
                "icmpv6 type nd-router-advert drop",
                f"icmpv6 type nd-neighbor-advert {targets} drop",
            ]
        else:
            rules.append("ether type ip6 drop")
    if rate := _rate(nic, device, "limits.egress"):
        rules.append(f"limit rate over {rate} bytes/second burst {_burst(rate)} bytes drop")
    if priority := nic.get("limits.priority", ""):
        rules.append(f"meta priority set 0:{int(priority):x}")
    return rules


def _address(nic: Config, device: str, version: int) -> str:
    """The address a guest may use; "" for none at all."""
    address = nic.get(f"ipv{version}.address", "")
    if not address:
        raise BadRequest(
            f"security.ipv{version}_filtering of the nic {device} needs ipv{version}.address: the one address it may "
            "use, or none"
        )
    return "" if address == "none" else address


def _routed(nic: Config, version: int) -> list[str]:
    return [str(one) for one in keys.routed(f"ipv{version}.routes", nic.get(f"ipv{version}.routes", ""), version)]


def _rate(nic: Config, device: str, key: str) -> int:
    """Bytes per second; 0 without a limit."""
    if nic.get("limits.max") and nic.get(key):
        raise BadRequest(f"Both limits.max and {key} of the nic {device}: limits.max stands for both directions")
    value = nic.get("limits.max") or nic.get(key, "")
    return values.bit_rate(f"{key} of the nic {device}", value) if value else 0


def _burst(rate: int) -> int:
    # Twice the 64 KiB that one GSO packet may have, and a twentieth of a second for fast links. nft's own bucket holds
    # a second's worth more (nft_limit.c): only the mean of limits.egress is exact.
    return min(max(131072, rate // 20), 0x3FFFFFFF)


def _set_link(host_name: str, nic: Config) -> None:
    """Brings the interface itself to what the nic asks for."""
    with rtnetlink.Rtnetlink() as netlink:
        link = netlink.link(host_name)
        if link is None:
            raise InternalError(f"The interface {host_name!r} is gone: restart the instance")
        messages = []
        if rate := _rate(nic, host_name, "limits.ingress"):
            messages.append(traffic.limit_sending(link.ifindex, rate, _burst(rate)))
        if link.master:
            isolated = values.boolean("security.port_isolation", nic.get("security.port_isolation", ""))
            messages.append(traffic.isolate_port(link.ifindex, isolated))
        if length := nic.get("queue.tx.length", ""):
            messages.append(traffic.queue_length(link.ifindex, int(length)))
        if messages:
            netlink.call(f"interface {host_name}", *messages)
        if not rate:
            with contextlib.suppress(OSError):
                netlink.call(f"interface {host_name}", traffic.unlimit_sending(link.ifindex))


def _change_routes(routes: "list[tuple[str, str, int]]", *, added: bool) -> None:
    if not routes:
        return
    with rtnetlink.Rtnetlink() as netlink:
        for device, destination, prefix in routes:
            link = netlink.link(device)
            if link is None and not added:
                continue
            index = link.ifindex if link else 0
            make = rtnetlink.new_route if added else rtnetlink.delete_route
            try:
                netlink.call(f"route {destination}/{prefix}", make(index, destination, prefix, rtnetlink.RTPROT_STATIC))
            except OSError:
                if added:
                    raise

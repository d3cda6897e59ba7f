"""What the interfaces inside a running instance are, kept current by the kernel's own notifications.

A netlink socket made inside the instance's network namespace reports every change; nothing is polled and an idle
instance costs one descriptor. The socket keeps the namespace alive, so close the watch when the instance has ended.
"""

import asyncio
import socket
from collections.abc import Callable, Iterable

from lxpy.api.objects import Address, NetworkState
from lxpy.linux import rtnetlink

Changed = Callable[[dict[str, NetworkState]], None]

_GROUPS = rtnetlink.RTMGRP_LINK | rtnetlink.RTMGRP_IPV4_IFADDR | rtnetlink.RTMGRP_IPV6_IFADDR
_SCOPES = {0: "global", 200: "global", 253: "link", 254: "local"}
_COUNTERS = (
    "packets_received", "packets_sent", "bytes_received", "bytes_sent",
    "errors_received", "errors_sent", "packets_dropped_inbound", "packets_dropped_outbound",
)  # fmt: skip


def open_socket() -> rtnetlink.Rtnetlink:
    """The socket of a `Watch`, of the calling thread's network namespace."""
    return rtnetlink.Rtnetlink(_GROUPS)


class Watch:
    """The interfaces of one network namespace.

    Args:
        netlink: from `open_socket`; the watch owns it.
        changed: called on the event loop when anything but a counter has changed.

    Attributes:
        state: by interface name. `host_name` is empty: only the host's side knows it. Counters are those of the
            last `refresh`.
    """

    def __init__(self, netlink: rtnetlink.Rtnetlink, changed: Changed) -> None:
        self._netlink = netlink
        self._changed = changed
        self._links: dict[int, rtnetlink.Link] = {}
        self._addresses: dict[int, dict[tuple[str, int], rtnetlink.Address]] = {}
        self._loop = asyncio.get_running_loop()
        self.state: dict[str, NetworkState] = {}
        self._dump()
        self._loop.add_reader(netlink.socket, self._read)

    @property
    def closed(self) -> bool:
        return self._netlink.socket.fileno() < 0

    def close(self) -> None:
        """Stops watching and lets go of the namespace; `state` stays readable."""
        if not self.closed:
            self._loop.remove_reader(self._netlink.socket)
            self._netlink.close()

    def refresh(self) -> None:
        """Brings `state` up to date, counters included, at once."""
        if not self.closed:
            before = _without_counters(self.state)
            self._dump()
            if _without_counters(self.state) != before:
                self._changed(self.state)

    def _read(self) -> None:
        before = _without_counters(self.state)
        try:
            for kind, body in self._netlink.notifications():
                self._take(kind, body)
            self._build()
        except rtnetlink.Overrun:
            self._dump()
        if _without_counters(self.state) != before:
            self._changed(self.state)

    def _dump(self) -> None:
        while True:
            try:
                links = self._netlink.links()
                addresses = self._netlink.addresses()
                # What was notified meanwhile is older than, or part of, the dump of its kind; links may lag behind.
                self._links = {link.ifindex: link for link in links}
                self._addresses = {}
                for address in addresses:
                    self._addresses.setdefault(address.ifindex, {})[_key(address)] = address
                for kind, body in self._netlink.notifications():
                    self._take(kind, body)
                break
            except rtnetlink.Overrun:
                continue
        self._build()

    def _take(self, kind: int, body: bytes) -> None:
        if kind == rtnetlink.RTM_NEWLINK:
            link = rtnetlink.parse_link(body)
            self._links[link.ifindex] = link
        elif kind == rtnetlink.RTM_DELLINK:
            link = rtnetlink.parse_link(body)
            self._links.pop(link.ifindex, None)
            self._addresses.pop(link.ifindex, None)
        elif kind in (rtnetlink.RTM_NEWADDR, rtnetlink.RTM_DELADDR):
            address = rtnetlink.parse_address(body)
            of_link = self._addresses.setdefault(address.ifindex, {})
            if kind == rtnetlink.RTM_NEWADDR:
                of_link[_key(address)] = address
            else:
                of_link.pop(_key(address), None)

    def _build(self) -> None:
        self.state = {
            link.name: network_state(link, self._addresses.get(link.ifindex, {}).values())
            for link in sorted(self._links.values())
        }


def _key(address: rtnetlink.Address) -> tuple[str, int]:
    return address.address, address.prefix


def _without_counters(state: dict[str, NetworkState]) -> dict[str, tuple[object, ...]]:
    return {
        name: (one["addresses"], one["hwaddr"], one["mtu"], one["state"], one["type"]) for name, one in state.items()
    }


def network_state(link: rtnetlink.Link, addresses: Iterable[rtnetlink.Address]) -> NetworkState:
    """LXD's shape of one interface."""
    return {
        "addresses": api_addresses(addresses),
        "counters": dict(zip(_COUNTERS, link.counters or (0,) * 8, strict=True)),
        "hwaddr": "" if link.flags & rtnetlink.IFF_LOOPBACK else link.hwaddr,
        "host_name": "",
        "mtu": link.mtu,
        "state": "up" if link.up else "down",
        "type": link_type(link),
    }


def link_type(link: rtnetlink.Link) -> str:
    """``broadcast``, ``loopback``, ``point-to-point`` or ``unknown``."""
    for flag, text in (
        (rtnetlink.IFF_LOOPBACK, "loopback"),
        (rtnetlink.IFF_POINTOPOINT, "point-to-point"),
        (rtnetlink.IFF_BROADCAST, "broadcast"),
    ):
        if link.flags & flag:
            return text
    return "unknown"


def api_addresses(addresses: Iterable[rtnetlink.Address]) -> list[Address]:
    """LXD's shape, IPv4 first, in the kernel's order otherwise."""
    return [
        {
            "family": "inet6" if address.family == socket.AF_INET6 else "inet",
            "address": address.address,
            "netmask": str(address.prefix),
            "scope": _SCOPES.get(address.scope, "global"),
        }
        for address in sorted(addresses, key=lambda address: address.family)
    ]

"""Hears of it when somebody else takes away what is ours: bridges and their addresses, nftables rules.

Two netlink sockets on the event loop; nothing is polled. What to do about it is the manager's: under its lock it looks
what is really missing, so that its own changes, which are heard here as well, never count.

Numbers: linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.
"""

import asyncio
import contextlib
import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator

from lxpy.linux import rtnetlink
from lxpy.networks.firewalld import TABLE as FIREWALLD

_LINKS = rtnetlink.RTMGRP_LINK | rtnetlink.RTMGRP_IPV4_IFADDR | rtnetlink.RTMGRP_IPV6_IFADDR
_AF_BRIDGE = 7
_TOGETHER = 1.0  # seconds between the release of a bridge's ports and its end: one event for us

_NETLINK_NETFILTER, _GROUP_NFTABLES, _SUBSYSTEM_NFTABLES = 12, 1 << 6, 10
_NEWCHAIN, _NEWRULE, _DELRULE, _NEWGEN = 3, 6, 8, 15
_HEADER = struct.Struct("=IHHII")


class LinkGuard:
    """Tells of bridges that vanish and addresses that go.

    Args:
        lost: called with the bridge's name and the indexes of the ports it had; or with "" when notifications were
            lost and everything has to be looked at.
        address_gone: called with the bridge's name.
        carrier: called with the name of any interface that has got its carrier, or "" as above.
    """

    def __init__(
        self,
        lost: Callable[[str, list[int]], None],
        address_gone: Callable[[str], None],
        carrier: Callable[[str], None],
    ) -> None:
        self._lost, self._address_gone, self._carrier = lost, address_gone, carrier
        self._running: set[int] = set()
        self._netlink = rtnetlink.Rtnetlink(_LINKS)
        self._bridges: dict[int, str] = {}
        self._masters: dict[int, int] = {}
        self._orphans: dict[int, dict[int, float]] = {}
        self._dump()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._netlink.socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._netlink.socket)
        self._netlink.close()

    def _dump(self) -> None:
        with contextlib.suppress(rtnetlink.Overrun):
            for link in self._netlink.links(counters=False):
                self._take(link)

    def _take(self, link: rtnetlink.Link) -> None:
        (self._running.add if link.flags & rtnetlink.IFF_RUNNING else self._running.discard)(link.ifindex)
        if link.kind == "bridge":
            self._bridges[link.ifindex] = link.name
        before = self._masters.get(link.ifindex, 0)
        if before and not link.master:
            self._orphans.setdefault(before, {})[link.ifindex] = time.monotonic()
        if link.master:
            self._masters[link.ifindex] = link.master
        else:
            self._masters.pop(link.ifindex, None)

    def _read(self) -> None:
        try:
            for kind, body in self._netlink.notifications():
                if kind in (rtnetlink.RTM_NEWLINK, rtnetlink.RTM_DELLINK):
                    # A bridge tells of its ports in messages of its own family: the link itself has not gone.
                    if body[0] == _AF_BRIDGE:
                        continue
                    link = rtnetlink.parse_link(body)
                    if kind == rtnetlink.RTM_NEWLINK:
                        before = link.ifindex in self._running
                        self._take(link)
                        if not before and link.ifindex in self._running:
                            self._carrier(link.name)
                        continue
                    self._running.discard(link.ifindex)
                    self._masters.pop(link.ifindex, None)
                    orphans = self._orphans.pop(link.ifindex, {})
                    if name := self._bridges.pop(link.ifindex, ""):
                        recent = time.monotonic() - _TOGETHER
                        self._lost(name, [port for port, when in orphans.items() if when >= recent])
                elif kind == rtnetlink.RTM_DELADDR:
                    index = rtnetlink.parse_address(body).ifindex
                    if name := self._bridges.get(index, ""):
                        self._address_gone(name)
        except rtnetlink.Overrun:
            self._dump()
            self._lost("", [])
            self._carrier("")


class RulesGuard:
    """Tells of changes of our nftables table, and of Docker's chain, that others make.

    Args:
        tables: names of ours.
        changed: called when one of them was changed or deleted; with False when that is only likely.
        docker: called when the chain DOCKER-USER came or changed.
        nics: another table of ours, of which the kernel itself takes chains away with their interfaces.
        look: called when that was changed.
        firewalld: called when its table was changed.
    """

    def __init__(
        self,
        tables: set[str],
        changed: Callable[[bool], None],
        docker: Callable[[], None],
        nics: str,
        look: Callable[[], None],
        firewalld: Callable[[], None],
    ) -> None:
        self._tables, self._changed, self._docker, self._nics, self._look = tables, changed, docker, nics, look
        self._firewalld = firewalld
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
        self._socket.bind((0, _GROUP_NFTABLES))
        self._socket.setblocking(False)
        self._busy, self._expected, self._seen = 0, 0, 0
        self._hit: set[str] = set()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._read)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def begin(self) -> None:
        """A change of our own begins: what is heard until `end` is it. Several may overlap."""
        if not self._busy:
            self._expected, self._seen, self._hit = 0, 0, set()
        self._busy += 1

    def end(self, transactions: int) -> None:
        """Our own change has ended, after so many transactions; one more among them was somebody else's."""
        generations, hit = self._drain()
        self._expected += transactions
        self._seen += generations
        self._hit |= hit
        self._busy -= 1
        if not self._busy and self._seen > self._expected:
            self._tell(self._hit, certain=False)

    def _read(self) -> None:
        if not self._busy:
            self._tell(self._drain()[1], certain=True)

    def _tell(self, hit: set[str], *, certain: bool) -> None:
        if "ours" in hit:
            self._changed(certain)
        elif "docker" in hit:
            self._docker()
        if "nics" in hit:
            self._look()
        if FIREWALLD in hit:
            self._firewalld()

    def _drain(self) -> tuple[int, set[str]]:
        """How many transactions there were, and what they changed."""
        generations, hit = 0, set[str]()
        try:
            for kind, body in self._messages():
                if kind == _NEWGEN:
                    generations += 1
                    continue
                found = rtnetlink.attributes(body, 4)
                table = found.get(1, b"").rstrip(b"\0").decode(errors="replace")
                if table in self._tables:
                    hit.add("ours")
                elif table == self._nics:
                    hit.add("nics")
                elif table == FIREWALLD:
                    hit.add(FIREWALLD)
                elif table == "filter" and kind in (_NEWCHAIN, _NEWRULE, _DELRULE):
                    name = found.get(3 if kind == _NEWCHAIN else 2, b"")
                    if name.rstrip(b"\0") == b"DOCKER-USER":
                        hit.add("docker")
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            hit |= {"ours", "nics"}  # some were lost, perhaps about us
        return generations, hit

    def _messages(self) -> Iterator[tuple[int, bytes]]:
        while True:
            try:
                data = self._socket.recv(1 << 18)
            except BlockingIOError:
                return
            offset = 0
            while offset + _HEADER.size <= len(data):
                length, kind, _flags, _sequence, _port = _HEADER.unpack_from(data, offset)
                if length < _HEADER.size:
                    return
                if kind >> 8 == _SUBSYSTEM_NFTABLES:
                    yield kind & 0xFF, data[offset + _HEADER.size : offset + length]
                offset += (length + 3) & ~3

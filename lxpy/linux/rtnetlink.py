"""Our own small NETLINK_ROUTE client: links, addresses, routes and their notifications.

Why not pyroute2 (0.9.7, measured on kernel 6.18, Python 3.11): not for its speed, a veth pair takes it 1.1 to 1.6 ms
and this module 0.8; but its import is 85 ms and 10.5 MB PSS, of a daemon that may have 45 MB in all and 120 ms for a
launch. What the daemon needs of rtnetlink is this page. The tests check with pyroute2 and iproute2 what it makes.

Layouts and numbers: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h. All in host byte order.
"""

import errno
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 0x1, 0x10, 0x100

IFF_UP, IFF_BROADCAST, IFF_LOOPBACK, IFF_POINTOPOINT, IFF_RUNNING = 0x1, 0x2, 0x8, 0x10, 0x40
IFA_F_NODAD, IFA_F_TENTATIVE = 0x02, 0x40
RT_TABLE_LOCAL, RT_TABLE_MAIN = 255, 254
RTPROT_STATIC = 4
RTPROT_LXPY = 0x6C  # marks the routes that are ours to take away; nobody in iproute2's rt_protos has it

_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE, _NLM_F_REPLACE = 0x1, 0x4, 0x200, 0x400, 0x100
_NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x300, 0x10
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_NLA_F_NESTED, _NLA_TYPE = 0x8000, 0x3FFF

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_OPERSTATE, _IFLA_LINKINFO, _IFLA_STATS64 = 16, 18, 23
_IFLA_AF_SPEC, _IFLA_NET_NS_FD, _IFLA_EXT_MASK, _IFLA_LINK_NETNSID, _IFLA_PERM_ADDRESS = 26, 28, 29, 37, 54
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFLA_INET6_ADDR_GEN_MODE, _IN6_ADDR_GEN_MODE_NONE = 8, 1
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_IFLA_BR_FORWARD_DELAY, _IFLA_BR_STP_STATE, _IFLA_BR_VLAN_FILTERING = 1, 5, 7
_IFLA_BR_BRIDGE_ID, _IFLA_BR_VLAN_DEFAULT_PVID = 11, 39
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_RTA_DST, _RTA_OIF, _RTA_TABLE = 1, 4, 15

_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFINFO = struct.Struct("=BxHiII")  # family, ARP type, index, flags, change mask
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags
_ATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")


class Link(NamedTuple):
    """One network interface.

    Attributes:
        flags: IFF_*.
        arptype: ARPHRD_* (1 Ethernet, 772 loopback).
        operstate: IF_OPER_* (6 up, 0 unknown).
        master: index of the bridge or bond it belongs to, 0 for none.
        peer: index of the other end of a veth (in the namespace `peer_netns`), else 0.
        kind: "bridge", "veth" ...; "" for hardware and loopback.
        counters: rx packets, tx packets, rx bytes, tx bytes, rx errors, tx errors, rx dropped, tx dropped; or empty.
        data: the kind's own attributes, by number, undecoded.
        permanent: the MAC address that is built in; "" for most virtual interfaces.
    """

    ifindex: int
    name: str
    flags: int
    arptype: int
    mtu: int
    hwaddr: str
    operstate: int
    master: int
    peer: int
    peer_netns: int | None
    kind: str
    counters: tuple[int, ...]
    data: dict[int, bytes]
    permanent: str = ""

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)


class Address(NamedTuple):
    """One address of an interface; `scope` is RT_SCOPE_* (0 global, 253 link, 254 host), `flags` IFA_F_*."""

    ifindex: int
    family: int
    address: str
    prefix: int
    scope: int
    flags: int


class Route(NamedTuple):
    """One route; `prefix` 0 is a default route, `type` is RTN_* (1 unicast), `protocol` RTPROT_* (who made it)."""

    family: int
    destination: str
    prefix: int
    table: int
    interface: int
    type: int
    protocol: int


class Overrun(OSError):
    """The kernel had more notifications than the socket holds: some are lost, dump again."""


# -- messages -----------------------------------------------------------------------------------------------------


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes of a message or of a nested attribute, by number (flags removed)."""
    found: dict[int, bytes] = {}
    end = len(data)
    while offset + 4 <= end:
        length, number = _ATTR.unpack_from(data, offset)
        if length < 4 or offset + length > end:
            break
        found[number & _NLA_TYPE] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attr(number: int, value: bytes | int | str) -> bytes:
    """An attribute: bytes as they are, a number as 32 bits, text with its NUL."""
    if isinstance(value, int):
        value = _U32.pack(value)
    elif isinstance(value, str):
        value = value.encode() + b"\0"
    return _ATTR.pack(len(value) + 4, number) + value + b"\0" * (-len(value) % 4)


def nest(number: int, *parts: bytes) -> bytes:
    """An attribute of attributes."""
    return attr(number | _NLA_F_NESTED, b"".join(parts))


def message(kind: int, flags: int, body: bytes) -> bytes:
    """A message for `Rtnetlink.call`; `flags` beyond NLM_F_REQUEST."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | _NLM_F_REQUEST, 0, 0) + body


def mac_bytes(text: str) -> bytes:
    """The six bytes of ``00:16:3e:..``. Raises `ValueError`."""
    raw = bytes.fromhex(text.replace(":", ""))
    if len(raw) != 6 or len(text) != 17:
        raise ValueError(f"{text!r} is not a MAC address")
    return raw


def parse_link(data: bytes) -> Link:
    """The `Link` of the body of an RTM_NEWLINK or RTM_DELLINK."""
    _family, arptype, index, flags, _change = _IFINFO.unpack_from(data)
    found = attributes(data, _IFINFO.size)
    info = attributes(found.get(_IFLA_LINKINFO, b""))
    stats = found.get(_IFLA_STATS64, b"")
    netns = found.get(_IFLA_LINK_NETNSID)

    def number(attribute: int) -> int:
        return int.from_bytes(found.get(attribute, b""), "little" if _LITTLE else "big")

    return Link(
        ifindex=index,
        name=_text(found.get(_IFLA_IFNAME, b"")),
        flags=flags,
        arptype=arptype,
        mtu=number(_IFLA_MTU),
        hwaddr=found.get(_IFLA_ADDRESS, b"").hex(":"),
        operstate=number(_IFLA_OPERSTATE),
        master=number(_IFLA_MASTER),
        peer=number(_IFLA_LINK),
        peer_netns=None if netns is None else struct.unpack("=i", netns)[0],
        kind=_text(info.get(_IFLA_INFO_KIND, b"")),
        counters=struct.unpack_from("=8Q", stats) if len(stats) >= 64 else (),
        data=attributes(info.get(_IFLA_INFO_DATA, b"")),
        permanent=found.get(_IFLA_PERM_ADDRESS, b"").hex(":"),
    )


def parse_address(data: bytes) -> Address:
    """The `Address` of the body of an RTM_NEWADDR or RTM_DELADDR."""
    family, prefix, flags, scope, index = _IFADDR.unpack_from(data)
    found = attributes(data, _IFADDR.size)
    if _IFA_FLAGS in found:
        flags = _U32.unpack(found[_IFA_FLAGS])[0]
    raw = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS) or b""
    return Address(index, family, _ip(family, raw), prefix, scope, flags)


def parse_route(data: bytes) -> Route:
    """The `Route` of the body of an RTM_NEWROUTE."""
    family, prefix, _src, _tos, table, protocol, _scope, kind, _flags = _RTMSG.unpack_from(data)
    found = attributes(data, _RTMSG.size)
    if _RTA_TABLE in found:
        table = _U32.unpack(found[_RTA_TABLE])[0]
    oif = _U32.unpack(found[_RTA_OIF])[0] if _RTA_OIF in found else 0
    raw = found.get(_RTA_DST) or (b"\0" * (4 if family == socket.AF_INET else 16))
    return Route(family, _ip(family, raw), prefix, table, oif, kind, protocol)


_LITTLE = struct.pack("=H", 1) == b"\1\0"


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def _ip(family: int, raw: bytes) -> str:
    return socket.inet_ntop(family, raw) if len(raw) == (4 if family == socket.AF_INET else 16) else ""


# -- the socket ---------------------------------------------------------------------------------------------------


class Rtnetlink:
    """One NETLINK_ROUTE socket, of the network namespace of the thread that makes it. Not for two threads at once.

    Args:
        groups: RTMGRP_* to be notified of; such a socket does not block and is read with `notifications`.
    """

    def __init__(self, groups: int = 0) -> None:
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        try:
            self.socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
            self.socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
            self.socket.bind((0, groups))
            # An answer is queued before send() returns; the time-out only guards against a kernel that is stuck.
            self.socket.settimeout(0 if groups else 30)
        except BaseException:
            self.socket.close()
            raise
        self._sequence = itertools.count(1)
        self._pending: list[tuple[int, bytes]] = []

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> "Rtnetlink":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, what: str, *messages: bytes) -> None:
        """Sends the messages in one go and waits for all acknowledgements; later ones are tried although one failed.

        Raises:
            OSError: of the first that failed; `filename` is `what` and the kernel's own explanation, if it gave one.
        """
        if not messages:
            return  # the kernel answers nothing with an error
        waiting, stream = set(), b""
        for message in messages:
            sequence = next(self._sequence)
            length, kind, flags, _, _ = _HEADER.unpack_from(message)
            stream += _HEADER.pack(length, kind, flags | _NLM_F_ACK, sequence, 0) + message[_HEADER.size :]
            waiting.add(sequence)
        self.socket.send(stream)
        failure: OSError | None = None
        while waiting:
            for kind, flags, sequence, body in self._receive():
                if sequence not in waiting:
                    self._keep(kind, sequence, body)
                elif kind == _NLMSG_ERROR:
                    waiting.discard(sequence)
                    failure = failure or _error(what, flags, body)
        if failure:
            raise failure

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of everything of one kind (RTM_GET*). Dumps again when it changed meanwhile."""
        for attempt in itertools.count():
            sequence, found, torn, done = next(self._sequence), [], False, False
            self.socket.send(
                _HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_DUMP, sequence, 0) + body
            )
            while not done:
                for answer, flags, number, data in self._receive():
                    if number != sequence:
                        self._keep(answer, number, data)
                        continue
                    torn |= bool(flags & _NLM_F_DUMP_INTR)
                    if answer == _NLMSG_DONE:
                        done = True
                    elif answer == _NLMSG_ERROR:
                        error = _error("dump", flags, data)
                        if error:
                            raise error
                    else:
                        found.append(data)
            if not torn or attempt >= 5:
                return found
        raise AssertionError  # not reached

    def notifications(self) -> Iterator[tuple[int, bytes]]:
        """Type and body of every notification waiting, without blocking.

        Raises:
            Overrun: some were lost.
        """
        yield from self._pending
        self._pending.clear()
        while True:
            try:
                for kind, _flags, _sequence, body in self._receive():
                    yield kind, body
            except BlockingIOError:
                return

    def _keep(self, kind: int, sequence: int, body: bytes) -> None:
        if sequence == 0 and kind >= RTM_NEWLINK:
            self._pending.append((kind, body))

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            data = self.socket.recv(1 << 18)
        except OSError as error:
            if error.errno == errno.ENOBUFS:
                raise Overrun(error.errno, error.strerror) from None
            raise
        offset = 0
        while offset + _HEADER.size <= len(data):
            length, kind, flags, sequence, _port = _HEADER.unpack_from(data, offset)
            if length < _HEADER.size:
                return
            yield kind, flags, sequence, data[offset + _HEADER.size : offset + length]
            offset += (length + 3) & ~3

    # -- reading ----------------------------------------------------------------------------------------------------

    def links(self, *, counters: bool = True) -> list[Link]:
        mask = b"" if counters else attr(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
        return [parse_link(body) for body in self.dump(RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0) + mask)]

    def link(self, name: str) -> Link | None:
        """The interface of that name, or None."""
        try:
            return parse_link(self._get(RTM_GETLINK, name, _IFINFO.pack(0, 0, 0, 0, 0) + attr(_IFLA_IFNAME, name)))
        except OSError as error:
            if error.errno == errno.ENODEV:
                return None
            raise

    def _get(self, kind: int, what: str, body: bytes) -> bytes:
        sequence = next(self._sequence)
        self.socket.send(_HEADER.pack(_HEADER.size + len(body), kind, _NLM_F_REQUEST, sequence, 0) + body)
        while True:
            for answer, flags, number, data in self._receive():
                if number != sequence:
                    self._keep(answer, number, data)
                elif answer != _NLMSG_ERROR:
                    return data
                elif error := _error(what, flags, data):
                    raise error

    def addresses(self) -> list[Address]:
        return [parse_address(body) for body in self.dump(RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0))]

    def routes(self) -> list[Route]:
        """Every route of every table, IPv4 and IPv6."""
        return [parse_route(body) for body in self.dump(RTM_GETROUTE, _RTMSG.pack(0, 0, 0, 0, 0, 0, 0, 0, 0))]


def _error(what: str, flags: int, body: bytes) -> OSError | None:
    number = -struct.unpack_from("=i", body)[0]
    if not number:
        return None
    # With NETLINK_CAP_ACK only the header of our message comes back; what follows are attributes, 1 is the text.
    text = _text(attributes(body, 4 + _HEADER.size).get(1, b"")) if flags & 0x200 else ""
    return OSError(number, os.strerror(number), f"{what}: {text}" if text else what)


# -- what is asked of the kernel ----------------------------------------------------------------------------------


def new_bridge(name: str, hwaddr: str, mtu: int = 0) -> bytes:
    """A bridge that is up. The address is fixed, so that it does not change with the ports that come and go."""
    return message(
        RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL,
        _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP)
        + attr(_IFLA_IFNAME, name)
        + attr(_IFLA_ADDRESS, mac_bytes(hwaddr))
        + (attr(_IFLA_MTU, mtu) if mtu else b"")
        + nest(_IFLA_LINKINFO, attr(_IFLA_INFO_KIND, "bridge")),
    )  # fmt: skip


def new_veth(
    name: str, hwaddr: str, master: int, mtu: int, guest_name: str, guest_hwaddr: str, netns_fd: int, *, ipv6: bool
) -> tuple[bytes, bytes]:
    """A veth pair: the host end in a bridge and up, the other in a network namespace, down. For one `call`.

    The guest's end cannot be born up (ENOTCONN: the kernel ties the pair together last), nor brought up from here
    (IFLA_TARGET_NETNSID would move it): that takes a socket of the guest's namespace and `link_up`.

    Args:
        master: index of the bridge, 0 for none.
        mtu: bytes, of both ends.
        netns_fd: the guest's network namespace.
        ipv6: the kernel has IPv6; the host end then gets no link-local address: it only forwards frames.
    """
    peer = (
        _IFINFO.pack(0, 0, 0, 0, 0)
        + attr(_IFLA_IFNAME, guest_name)
        + attr(_IFLA_ADDRESS, mac_bytes(guest_hwaddr))
        + attr(_IFLA_MTU, mtu)
        + attr(_IFLA_NET_NS_FD, netns_fd)
    )
    create = message(
        RTM_NEWLINK, _NLM_F_CREATE | _NLM_F_EXCL,
        _IFINFO.pack(0, 0, 0, 0, 0)
        + attr(_IFLA_IFNAME, name)
        + attr(_IFLA_ADDRESS, mac_bytes(hwaddr))
        + attr(_IFLA_MTU, mtu)
        + (attr(_IFLA_MASTER, master) if master else b"")
        + nest(
            _IFLA_LINKINFO,
            attr(_IFLA_INFO_KIND, "veth"),
            nest(_IFLA_INFO_DATA, attr(_VETH_INFO_PEER | _NLA_F_NESTED, peer)),
        ),
    )  # fmt: skip
    # The address mode counts when a link comes up, and RTM_NEWLINK ignores it for a link it makes: hence the second.
    quiet = nest(
        _IFLA_AF_SPEC,
        nest(socket.AF_INET6, attr(_IFLA_INET6_ADDR_GEN_MODE, bytes([_IN6_ADDR_GEN_MODE_NONE]))),
    )
    up = message(
        RTM_SETLINK, 0,
        _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + attr(_IFLA_IFNAME, name) + (quiet if ipv6 else b""),
    )  # fmt: skip
    return create, up


def set_link(index: int, *, up: bool | None = None, hwaddr: str = "", mtu: int = 0) -> bytes:
    """Changes what is given of one interface."""
    return message(
        RTM_SETLINK, 0,
        _IFINFO.pack(0, 0, index, IFF_UP if up else 0, 0 if up is None else IFF_UP)
        + (attr(_IFLA_ADDRESS, mac_bytes(hwaddr)) if hwaddr else b"")
        + (attr(_IFLA_MTU, mtu) if mtu else b""),
    )  # fmt: skip


def link_up(name: str) -> bytes:
    """Brings an interface of the socket's own namespace up."""
    return message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP) + attr(_IFLA_IFNAME, name))


def delete_link(name: str) -> bytes:
    return message(RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + attr(_IFLA_IFNAME, name))


def new_address(index: int, address: str, prefix: int) -> bytes:
    """Adds an address, or keeps it; IPv6 without duplicate address detection, which never ends on an empty bridge."""
    return _address(RTM_NEWADDR, _NLM_F_CREATE | _NLM_F_REPLACE, index, address, prefix)


def delete_address(index: int, address: str, prefix: int) -> bytes:
    return _address(RTM_DELADDR, 0, index, address, prefix)


def _address(kind: int, message_flags: int, index: int, address: str, prefix: int) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    raw = socket.inet_pton(family, address)
    flags = IFA_F_NODAD if family == socket.AF_INET6 else 0
    scope = 253 if address.startswith("fe80:") else 0
    return message(
        kind, message_flags,
        _IFADDR.pack(family, prefix, flags, scope, index) + attr(_IFA_LOCAL, raw) + attr(_IFA_ADDRESS, raw),
    )  # fmt: skip


def set_master(index: int, master: int) -> bytes:
    """Makes an interface the port of a bridge and brings it up; `master` 0 takes it out and leaves it as it is."""
    up = IFF_UP if master else 0
    return message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, up, up) + attr(_IFLA_MASTER, master))


def new_route(index: int, destination: str, prefix: int, protocol: int = RTPROT_LXPY) -> bytes:
    """Adds a route to what is directly behind an interface, or keeps it; `protocol` says whose it is."""
    return _route(RTM_NEWROUTE, _NLM_F_CREATE | _NLM_F_REPLACE, index, destination, prefix, protocol)


def delete_route(index: int, destination: str, prefix: int, protocol: int = RTPROT_LXPY) -> bytes:
    return _route(RTM_DELROUTE, 0, index, destination, prefix, protocol)


def _route(kind: int, message_flags: int, index: int, destination: str, prefix: int, protocol: int) -> bytes:
    family = socket.AF_INET6 if ":" in destination else socket.AF_INET
    scope = 0 if family == socket.AF_INET6 else 253
    return message(
        kind, message_flags,
        _RTMSG.pack(family, prefix, 0, 0, RT_TABLE_MAIN, protocol, scope, 1, 0)
        + attr(_RTA_DST, socket.inet_pton(family, destination)) + attr(_RTA_OIF, index),
    )  # fmt: skip


def bridge_details(link: Link) -> dict[str, object]:
    """What LXD's network state says of a bridge: id, stp, forward_delay (hundredths of a second), VLAN settings."""

    def number(attribute: int) -> int:
        return int.from_bytes(link.data.get(attribute, b""), "little" if _LITTLE else "big")

    identity = link.data.get(_IFLA_BR_BRIDGE_ID, b"").hex()
    return {
        "id": f"{identity[:4]}.{identity[4:]}",
        "stp": bool(number(_IFLA_BR_STP_STATE)),
        "forward_delay": number(_IFLA_BR_FORWARD_DELAY),
        "vlan_default": number(_IFLA_BR_VLAN_DEFAULT_PVID),
        "vlan_filtering": bool(number(_IFLA_BR_VLAN_FILTERING)),
    }

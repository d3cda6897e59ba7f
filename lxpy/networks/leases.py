"""dnsmasq's lease file and reservations, in LXD's shape; and how a lease is given back."""

import os
import re
import socket
import struct
from typing import NamedTuple

from lxpy.api.layout import qualified
from lxpy.api.objects import Lease

_SO_BINDTODEVICE = 25


class Held(NamedTuple):
    """One line of a lease file.

    Attributes:
        expires: seconds since 1970, 0 for never.
        hwaddr: of the client; for DHCPv6 taken from its DUID, or "" when that does not tell.
        client_id: as dnsmasq writes it, hexadecimal with colons, or "*".
    """

    expires: int
    hwaddr: str
    address: str
    hostname: str
    client_id: str


class Reservation(NamedTuple):
    """What `Dnsmasq.reserve` wrote for one nic."""

    hwaddr: str
    ipv4: str
    ipv6: str
    name: str


class LeaseFile:
    """The leases of one dnsmasq; the file is parsed again only when it has changed."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._held: list[Held] = []

    def read(self) -> list[Held]:
        try:
            status = os.stat(self._path)
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                with open(self._path, encoding="utf-8", errors="replace") as file:
                    self._held = parse(file.read())
                self._stamp = stamp
        except FileNotFoundError:
            return []
        return self._held


def parse(text: str) -> list[Held]:
    """Lines are ``expiry hwaddr address name client-id``; after a ``duid`` line DHCPv6's: IAID instead of hwaddr."""
    held = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) != 5 or not fields[0].isdigit():
            continue
        expires, hwaddr, address, hostname, client_id = fields
        if ":" in address:
            hwaddr = _mac_of_duid(client_id)
        elif "-" in hwaddr:  # "06-.." : a hardware type other than Ethernet
            hwaddr = hwaddr.partition("-")[2]
        held.append(Held(int(expires), hwaddr.lower(), address, "" if hostname == "*" else hostname, client_id))
    return held


def _mac_of_duid(duid: str) -> str:
    # DUID-LLT is 00:01, hardware type, four bytes of time, MAC; DUID-LL 00:03, hardware type, MAC.
    parts = duid.split(":")
    if parts[:4] == ["00", "01", "00", "01"] and len(parts) == 14:
        return ":".join(parts[8:])
    if parts[:4] == ["00", "03", "00", "01"] and len(parts) == 10:
        return ":".join(parts[4:])
    return ""


def holder(project: str, instance: str) -> str:
    """Under which name the reservations of an instance lie: one called so in another project has its own. No dots."""
    return qualified(project.replace(".", "%"), instance)


def bare(name: str) -> str:
    """The instance's name in a `holder`; no instance has an underscore in it."""
    return name.rpartition("_")[2]


def parse_reservation(line: str) -> Reservation | None:
    """A line of a hosts file: ``hwaddr[,ipv4][,[ipv6]][,name]``."""
    hwaddr, *rest = line.strip().split(",")
    if not hwaddr:
        return None
    ipv4 = ipv6 = name = ""
    for part in rest:
        if part.startswith("["):
            ipv6 = part.strip("[]")
        elif re.fullmatch(r"[0-9.]+", part) and part.count(".") == 3:
            ipv4 = part
        else:
            name = part
    return Reservation(hwaddr, ipv4, ipv6, name)


def table(held: list[Held], reserved: dict[str, list[Reservation]], gateway: list[tuple[str, str, str]]) -> list[Lease]:
    """LXD's list: the gateway, then each address once, static before dynamic.

    Args:
        reserved: by `holder`.
        gateway: host name, hwaddr and address of the bridge itself.
    """
    result: list[Lease] = [_lease(name, hwaddr, address, "gateway") for name, hwaddr, address in gateway]
    owner: dict[str, str] = {}
    for instance, reservations in ((bare(name), found) for name, found in reserved.items()):
        for one in reservations:
            owner[one.hwaddr] = instance
            result += [_lease(instance, one.hwaddr, address, "static") for address in (one.ipv4, one.ipv6) if address]
    known = {lease["address"] for lease in result}
    for lease in held:
        if lease.address not in known:
            hostname = lease.hostname or owner.get(lease.hwaddr, "")
            result.append(_lease(hostname, lease.hwaddr, lease.address, "dynamic"))
    return result


def _lease(hostname: str, hwaddr: str, address: str, kind: str) -> Lease:
    return {"hostname": hostname, "hwaddr": hwaddr, "address": address, "type": kind, "location": "none"}


def send_release(bridge: str, server: str, lease: Held) -> None:
    """Gives an IPv4 lease back in the name of a client that is gone (RFC 2131, DHCPRELEASE).

    Without it, a /24 would be used up after 250 short-lived instances within one lease time. The packet goes from the
    host to its own address on the bridge and never leaves it.

    Raises:
        OSError: the bridge or its address is gone.
    """
    identity = bytes.fromhex(lease.client_id.replace(":", "")) if lease.client_id != "*" else b""
    client, dhcp = socket.inet_aton(lease.address), socket.inet_aton(server)
    options = b"\x63\x82\x53\x63" + b"\x35\x01\x07" + b"\x36\x04" + dhcp
    if identity:
        options += bytes([61, len(identity)]) + identity
    packet = struct.pack(
        "!BBBBIHH4s4s4s4s16s192x",
        1, 1, 6, 0, int.from_bytes(os.urandom(4)), 0, 0, client, b"", b"", b"",
        bytes.fromhex(lease.hwaddr.replace(":", "")),
    ) + options + b"\xff"  # fmt: skip
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        # dnsmasq goes by the interface a request came in on: this makes it the bridge rather than lo.
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, bridge.encode() + b"\0")
        sock.sendto(packet.ljust(300, b"\0"), (server, 67))

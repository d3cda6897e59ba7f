"""What may be written on a proxy device, and what its addresses mean. Names and syntax: LXD's."""

import ipaddress
from dataclasses import dataclass

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.api.objects import Devices

KEYS = frozenset(
    {"type", "listen", "connect", "bind", "nat", "proxy_protocol", "uid", "gid", "mode", "security.uid", "security.gid"}
)
_MOST_ID = 0xFFFFFFFE
_SUN_PATH = 107  # bytes; struct sockaddr_un has 108


@dataclass(frozen=True)
class Address:
    """``tcp:127.0.0.1:80-82,90`` or ``unix:/path`` or ``unix:@abstract``.

    Attributes:
        kind: tcp, udp or unix.
        host: the IP address, or the path.
        spans: first and last port of each part; empty for unix.
    """

    kind: str
    host: str
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def ports(self) -> list[int]:
        return [port for low, high in self.spans for port in range(low, high + 1)]

    @property
    def path(self) -> str:
        """Of a unix socket that is a file; else empty."""
        return self.host if self.kind == "unix" and not self.host.startswith("@") else ""

    @property
    def ip(self) -> "ipaddress.IPv4Address | ipaddress.IPv6Address":
        return ipaddress.ip_address(self.host)

    def port_text(self) -> str:
        """The ports as nftables writes them."""
        return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in self.spans)


def address(key: str, where: str, value: str) -> Address:
    """The address in a key. Raises `BadRequest`."""
    kind, colon, rest = value.partition(":")
    if kind not in ("tcp", "udp", "unix") or not colon:
        raise BadRequest(f"Invalid {key} {value!r} on {where}: tcp:IP:PORT, udp:IP:PORT, unix:/PATH or unix:@NAME")
    if kind == "unix":
        if not (rest.startswith("@") and len(rest) > 1) and not (rest.startswith("/") and rest.strip("/")):
            raise BadRequest(f"Invalid {key} {value!r} on {where}: an absolute path, or @ and a name")
        if len(rest.encode()) > _SUN_PATH or "\0" in rest or ".." in rest.split("/"):
            raise BadRequest(f"Invalid {key} on {where}: a path without .. of at most {_SUN_PATH} bytes")
        return Address(kind, rest)
    host, colon, ports = rest.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ip = ipaddress.ip_address(bare)
    except ValueError:
        ip = None
    if ip is None or not colon or (ip.version == 6) != (bare != host):
        raise BadRequest(
            f"Invalid {key} {value!r} on {where}: {kind}:IP:PORT with an IP address, not a name; IPv6 in brackets"
        )
    if getattr(ip, "scope_id", None):
        raise BadRequest(f"Invalid {key} {value!r} on {where}: an address without a zone")
    return Address(kind, str(ip), _spans(key, where, ports))


def _spans(key: str, where: str, value: str) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for part in value.split(","):
        first, dash, last = part.partition("-")
        if not all(one.isascii() and one.isdigit() and len(one) < 6 for one in ([first, last] if dash else [first])):
            raise BadRequest(f"Invalid {key} on {where}: {part!r} is not a port or range (examples: 80, 8000-8010)")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 65535:
            raise BadRequest(f"Invalid {key} on {where}: {part!r} is not within 1 to 65535, or runs backwards")
        if any(low <= b and a <= high for a, b in found):
            raise BadRequest(f"Invalid {key} on {where}: a port is named twice")
        found.append((low, high))
    return tuple(found)


def check(where: str, device: dict[str, str]) -> None:
    """Raises `BadRequest` for a value that cannot be honoured; that the keys are known has been checked."""
    for key in ("listen", "connect"):  # what is there before what is missing: somebody may be writing it
        if device.get(key):
            address(key, where, device[key])
    for key in ("listen", "connect"):
        if not device.get(key):
            raise BadRequest(f"Missing {key} on {where}: such as tcp:127.0.0.1:80 or unix:/run/x.sock")
    listen, connect = addresses(where, device)
    if device.get("bind", "host") not in ("host", "instance", "guest", "container"):
        raise BadRequest(f"Invalid bind {device['bind']!r} on {where}: host or instance")
    if len(connect.ports) not in (0, 1, len(listen.ports)):
        raise BadRequest(
            f"{len(listen.ports) or 'No'} ports on {where} cannot be led to {len(connect.ports)}: give as many, or one"
        )
    for key in ("nat", "proxy_protocol"):
        if key in device:
            values.boolean(f"{key} on {where}", device[key])
    for key in ("uid", "gid", "security.uid", "security.gid"):
        value = device.get(key, "")
        if value and not (value.isascii() and value.isdigit() and len(value) < 11 and int(value) <= _MOST_ID):
            raise BadRequest(f"Invalid {key} {value!r} on {where}: a whole number up to {_MOST_ID}")
    mode = device.get("mode", "")
    if mode and not (len(mode.lstrip("0")) in (1, 2, 3) and all(c in "01234567" for c in mode) and len(mode) <= 4):
        raise BadRequest(f"Invalid mode {mode!r} on {where}: three octal digits such as 0660")
    if owner := next((key for key in ("uid", "gid", "mode") if device.get(key)), ""):
        if not listen.path:
            raise BadRequest(f"{owner} on {where} is for a listen that is a unix socket with a path")
    if proxy_protocol(device) and (connect.kind != "tcp" or listen.kind == "udp" or nat(device)):
        raise BadRequest(f"proxy_protocol on {where} is for connections that are led on to tcp, without nat")
    if nat(device):
        _check_nat(where, device, listen, connect)


def _check_nat(where: str, device: dict[str, str], listen: Address, connect: Address) -> None:
    if listen.kind != connect.kind or listen.kind == "unix":
        raise BadRequest(f"nat on {where} is for tcp to tcp and udp to udp")
    if in_instance(device):
        raise BadRequest(f"nat on {where} is for bind=host only")
    if listen.ip.is_unspecified:
        raise BadRequest(f"nat on {where} needs the address that is listened on: {listen.host} is any")
    if listen.ip.is_loopback:
        raise BadRequest(f"nat on {where} cannot listen on {listen.host}: the kernel routes nothing from there")
    if listen.ip.version != connect.ip.version:
        raise BadRequest(f"nat on {where} cannot lead from IPv{listen.ip.version} to IPv{connect.ip.version}")
    if any(device.get(key) for key in ("security.uid", "security.gid")):
        raise BadRequest(f"security.uid and security.gid on {where} are for a process, and nat needs none")


def addresses(where: str, device: dict[str, str]) -> tuple[Address, Address]:
    """Listen and connect. Raises `BadRequest`."""
    return address("listen", where, device["listen"]), address("connect", where, device["connect"])


def in_instance(device: dict[str, str]) -> bool:
    """Whether it listens inside and connects to the host, instead of the other way."""
    return device.get("bind", "host") != "host"


def nat(device: dict[str, str]) -> bool:
    return values.boolean("nat", device.get("nat") or "false")


def proxy_protocol(device: dict[str, str]) -> bool:
    return values.boolean("proxy_protocol", device.get("proxy_protocol") or "false")


def nat_target(where: str, device: dict[str, str], devices: Devices) -> str:
    """The address of the instance that a proxy with nat leads to: a static one of a nic.

    Raises:
        BadRequest: no nic has it.
    """
    _, connect = addresses(where, device)
    key = f"ipv{connect.ip.version}.address"
    fixed = [
        part.strip()
        for nic in devices.values()
        if nic.get("type") == "nic"
        for part in nic.get(key, "").split(",")
        if part.strip() not in ("", "none", "auto")
    ]
    known = [str(ipaddress.ip_address(one.partition("/")[0])) for one in fixed]
    if connect.ip.is_unspecified and known:
        return known[0]
    if connect.host in known:
        return connect.host
    have = f"it has {', '.join(known)}" if known else f"no nic has a static {key}"
    raise BadRequest(f"nat on {where} needs the static address of a nic to lead to, and {have}")


def check_together(devices: Devices) -> None:
    """Raises `BadRequest` for proxies that cannot be on one instance together, or with its nics."""
    taken: dict[tuple[bool, str, str, int], str] = {}
    for name, device in devices.items():
        if device.get("type") != "proxy":
            continue
        where = f"device {name!r}"
        listen, _ = addresses(where, device)
        if nat(device):
            nat_target(where, device, devices)
        for port in listen.ports or [0]:
            place = (in_instance(device), listen.kind, listen.host, port)
            if place in taken:
                raise BadRequest(f"The devices {taken[place]!r} and {name!r} would both listen on {device['listen']}")
            taken[place] = name

"""The configuration keys of a bridge: which there are, what they may say, what is filled in. No I/O."""

import difflib
import ipaddress
import random
import re
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict
from lxpy.api.objects import Config

Subnet = IPv4Network | IPv6Network
DEFAULT_DOMAIN = "lxpy"
OUI = "00:16:3e"

# IFNAMSIZ is 16 with the final zero. A colon starts an alias label, a slash is no file name under /sys.
_INTERFACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}\Z")
_DOMAIN = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*\Z")  # fmt: skip  # noqa: E501
_EXPIRY = re.compile(r"(?:\d+[smhdw]?|infinite)\Z")
_MAC = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){5}\Z")


def interface_name(what: str, value: str) -> str:
    """`value` if the kernel can call an interface so, else `BadRequest`."""
    if not _INTERFACE.match(value) or value in ("all", "default", "lo"):
        raise BadRequest(
            f"Invalid {what} {value!r}: use 1 to 15 letters, digits, dots, dashes and underscores, "
            "not starting with a dot or dash"
        )
    return value


def mac_address(key: str, value: str) -> str:
    """`value` in lower case if it is a unicast MAC address, else `BadRequest`."""
    if not _MAC.match(value) or int(value[:2], 16) & 1:
        raise BadRequest(
            f"Invalid value for {key}: {value!r} is not a unicast MAC address (example: 00:16:3e:12:34:56)"
        )
    return value.lower()


def _boolean(key: str, value: str) -> None:
    values.boolean(key, value)


def _cidr(version: int) -> Callable[[str, str], None]:
    example = "10.1.2.1/24" if version == 4 else "fd42:1:2:3::1/64"

    def check(key: str, value: str) -> None:
        if value in ("", "none", "auto"):
            return
        fault = f"Invalid value for {key}: {value!r} is not an address with prefix (examples: {example}, auto, none)"
        try:
            interface = ipaddress.ip_interface(value)
        except ValueError:
            raise BadRequest(fault) from None
        if interface.version != version or "/" not in value:
            raise BadRequest(fault)
        if interface.ip.is_multicast or interface.ip.is_loopback or interface.ip.is_unspecified:
            raise BadRequest(f"Invalid value for {key}: {value!r} cannot be the address of an interface")
        if interface.network.prefixlen > (30 if version == 4 else 126):
            raise BadRequest(f"Invalid value for {key}: {value!r} leaves no room for an instance")
        if interface.ip == interface.network.network_address or (
            version == 4 and interface.ip == interface.network.broadcast_address
        ):
            raise BadRequest(
                f"Invalid value for {key}: {interface.ip} is the network's own or broadcast address; "
                f"give the bridge's address, for example {interface.network[1]}/{interface.network.prefixlen}"
            )

    return check


def _expiry(key: str, value: str) -> None:
    if not _EXPIRY.match(value):
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a lease time (examples: 1h, 30m, infinite)")


def _ranges(key: str, value: str) -> None:
    dhcp_ranges(key, value)


def _ranges6(key: str, value: str) -> None:
    dhcp6_ranges(key, value)


def _subnets(version: int) -> Callable[[str, str], None]:
    def check(key: str, value: str) -> None:
        routed(key, value, version)

    return check


def _address(version: int) -> Callable[[str, str], None]:
    def check(key: str, value: str) -> None:
        ip_address(key, value, version)

    return check


def _servers(key: str, value: str) -> None:
    for part in value.split(","):
        ip_address(key, part.strip())


def _one_of(*words: str, why: str = "") -> Callable[[str, str], None]:
    def check(key: str, value: str) -> None:
        if value not in words:
            reason = f": {why}" if why else ""
            raise BadRequest(f"Invalid value for {key}: {value!r} is not one of {', '.join(words)}{reason}")

    return check


def _interfaces(key: str, value: str) -> None:
    for part in value.split(","):
        interface_name(f"interface in {key}", part.strip())


def _acls(key: str, value: str) -> None:
    for part in value.split(","):
        values.object_name("network ACL", part.strip())


def _mtu(key: str, value: str) -> None:
    if not value.isdigit() or not 1280 <= int(value) <= 65535:
        raise BadRequest(f"Invalid value for {key}: {value!r} is not an MTU of 1280 to 65535 bytes")


def _mac(key: str, value: str) -> None:
    mac_address(key, value)


def _domain(key: str, value: str) -> None:
    if not _DOMAIN.match(value):
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a domain name")


def _search(key: str, value: str) -> None:
    for domain in value.split(","):
        _domain(key, domain.strip())


def _anything(_key: str, _value: str) -> None:
    return


_ACTION = _one_of("allow", "reject", "drop")

KEYS: dict[str, Callable[[str, str], None]] = {
    "bridge.driver": _one_of("native", why="lxpy makes bridges of the kernel only"),
    "bridge.external_interfaces": _interfaces,
    "bridge.hwaddr": _mac,
    "bridge.mode": _one_of("standard", why="the fan needs kernel patches that only Ubuntu had"),
    "bridge.mtu": _mtu,
    "dns.domain": _domain,
    "dns.mode": _one_of("managed", "dynamic", "none"),
    "dns.nameservers": _servers,
    "dns.search": _search,
    "ipv4.address": _cidr(4),
    "ipv4.dhcp": _boolean,
    "ipv4.dhcp.expiry": _expiry,
    "ipv4.dhcp.gateway": _address(4),
    "ipv4.dhcp.ranges": _ranges,
    "ipv4.firewall": _boolean,
    "ipv4.nat": _boolean,
    "ipv4.nat.address": _address(4),
    "ipv4.nat.order": _one_of("before", "after"),
    "ipv4.routes": _subnets(4),
    "ipv4.routing": _boolean,
    "ipv6.address": _cidr(6),
    "ipv6.dhcp": _boolean,
    "ipv6.dhcp.expiry": _expiry,
    "ipv6.dhcp.ranges": _ranges6,
    "ipv6.dhcp.stateful": _boolean,
    "ipv6.firewall": _boolean,
    "ipv6.nat": _boolean,
    "ipv6.nat.address": _address(6),
    "ipv6.nat.order": _one_of("before", "after"),
    "ipv6.routes": _subnets(6),
    "ipv6.routing": _boolean,
    "raw.dnsmasq": _anything,
    "security.acls": _acls,
    "security.acls.default.egress.action": _ACTION,
    "security.acls.default.egress.logged": _boolean,
    "security.acls.default.ingress.action": _ACTION,
    "security.acls.default.ingress.logged": _boolean,
}

# What LXD has and this does not: refused with the reason, never accepted and ignored.
_REFUSED = {
    "bgp.": "lxpy announces no routes: use a routing daemon of the host",
    "dns.zone.": "lxpy serves no zone transfers",
    "fan.": "the fan needs kernel patches that only Ubuntu had",
    "ipv4.ovn.": "lxpy makes no OVN networks",
    "ipv6.ovn.": "lxpy makes no OVN networks",
    "maas.": "lxpy does not talk to MAAS",
    "tunnel.": "lxpy makes no tunnels: make one on the host and name it in bridge.external_interfaces",
}


def validate(config: Config) -> None:
    """Raises `BadRequest` for the first key that does not exist or value that cannot be."""
    for key, value in config.items():
        if not isinstance(value, str):
            raise BadRequest(f"Invalid value for {key}: {value!r} is not a string")
        check = KEYS.get(key)
        if check is None:
            if key.startswith("user."):
                continue
            for prefix, reason in _REFUSED.items():
                if key.startswith(prefix):
                    raise BadRequest(f"The network configuration key {key!r} is not supported: {reason}")
            near = difflib.get_close_matches(key, KEYS, n=1, cutoff=0.6)
            hint = f"did you mean {near[0]!r}?" if near else "docs/networks.md has those of a bridge"
            raise BadRequest(f"Invalid network configuration key {key!r}: {hint}")
        if value != "":
            check(key, value)
    for version, subnet, found in (
        (4, subnet4(config), dhcp_ranges("ipv4.dhcp.ranges", config.get("ipv4.dhcp.ranges", ""))),
        (6, subnet6(config), dhcp6_ranges("ipv6.dhcp.ranges", config.get("ipv6.dhcp.ranges", ""))),
    ):
        for first, last in found:
            if subnet is not None and (first not in subnet or last not in subnet):
                raise BadRequest(f"Invalid value for ipv{version}.dhcp.ranges: {first}-{last} is not inside {subnet}")
    gateway, four = config.get("ipv4.dhcp.gateway"), subnet4(config)
    if gateway and four and ipaddress.IPv4Address(gateway) not in four:
        raise BadRequest(f"Invalid value for ipv4.dhcp.gateway: {gateway} is not inside {four}")


def check_key(key: str, value: str) -> None:
    """Raises `BadRequest` when a key of a bridge cannot have that value; nics share some of them."""
    if value != "":
        KEYS[key](key, value)


def ip_address(key: str, value: str, version: int = 0) -> "ipaddress.IPv4Address | ipaddress.IPv6Address":
    """An address without a prefix, of any version with 0; else `BadRequest`."""
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        address = None
    if address is None or (version and address.version != version):
        family = f"IPv{version} address" if version else "address"
        raise BadRequest(f"Invalid value for {key}: {value!r} is not an {family} (without a prefix)")
    return address


def routed(key: str, value: str, version: int) -> list[Subnet]:
    """The subnets of ``ipv4.routes`` or ``ipv6.routes``."""
    found: list[Subnet] = []
    for part in filter(None, (one.strip() for one in value.split(","))):
        try:
            subnet = ipaddress.ip_network(part)
        except ValueError:
            raise BadRequest(
                f"Invalid value for {key}: {part!r} is not a subnet (example: "
                f"{'192.0.2.0/24' if version == 4 else '2001:db8:1::/64'})"
            ) from None
        if subnet.version != version or not subnet.prefixlen:
            raise BadRequest(f"Invalid value for {key}: {part!r} is not an IPv{version} subnet that could be routed")
        found.append(subnet)
    return found


def words(config: Config, key: str) -> list[str]:
    """The parts of a value separated by commas."""
    return [part for part in (one.strip() for one in config.get(key, "").split(",")) if part]


def dhcp6_ranges(key: str, value: str) -> list[tuple[ipaddress.IPv6Address, ipaddress.IPv6Address]]:
    """As `dhcp_ranges`, of IPv6."""
    found = []
    for part in filter(None, value.split(",")):
        try:
            first, last = (ipaddress.IPv6Address(one.strip()) for one in part.split("-"))
        except ValueError:
            raise BadRequest(
                f"Invalid value for {key}: {part.strip()!r} is not a range (example: fd42::10-fd42::99)"
            ) from None
        if last < first:
            raise BadRequest(f"Invalid value for {key}: {part.strip()!r} runs backwards")
        found.append((first, last))
    return found


def dhcp_ranges(key: str, value: str) -> list[tuple[ipaddress.IPv4Address, ipaddress.IPv4Address]]:
    """The ranges of ``10.0.0.10-10.0.0.20,10.0.0.30-10.0.0.40``."""
    found = []
    for part in filter(None, value.split(",")):
        try:
            first, last = (ipaddress.IPv4Address(one.strip()) for one in part.split("-"))
        except ValueError:
            raise BadRequest(
                f"Invalid value for {key}: {part.strip()!r} is not a range (example: 10.1.2.10-10.1.2.99)"
            ) from None
        if last < first:
            raise BadRequest(f"Invalid value for {key}: {part.strip()!r} runs backwards")
        found.append((first, last))
    return found


def enabled(config: Config, key: str, default: bool) -> bool:
    value = config.get(key, "")
    return values.boolean(key, value) if value else default


def interface4(config: Config) -> ipaddress.IPv4Interface | None:
    """The bridge's IPv4 address with its prefix; None without IPv4."""
    value = config.get("ipv4.address", "")
    return None if value in ("", "none", "auto") else ipaddress.IPv4Interface(value)


def interface6(config: Config) -> ipaddress.IPv6Interface | None:
    value = config.get("ipv6.address", "")
    return None if value in ("", "none", "auto") else ipaddress.IPv6Interface(value)


def subnet4(config: Config) -> IPv4Network | None:
    interface = interface4(config)
    return interface.network if interface else None


def subnet6(config: Config) -> IPv6Network | None:
    interface = interface6(config)
    return interface.network if interface else None


def filled(config: Config, taken: Iterable[Subnet], *, creating: bool, ipv6: bool) -> Config:
    """`config` with ``auto`` made concrete and, when creating, missing addresses filled in.

    Args:
        taken: subnets that must not be overlapped: of routes, addresses and other networks.
        creating: no address given means ``auto`` (and NAT on), as LXD does it; later it means none.
        ipv6: the host has IPv6.

    Raises:
        Conflict: no free subnet was found.
    """
    result = {key: value for key, value in config.items() if value != ""}
    if creating:
        result.setdefault("ipv4.address", "auto")
        result.setdefault("ipv6.address", "auto" if ipv6 else "none")
    busy = list(taken)
    if result.get("ipv4.address") == "auto":
        result["ipv4.address"] = _free4([one for one in busy if isinstance(one, IPv4Network)])
        result.setdefault("ipv4.nat", "true")
    if result.get("ipv6.address") == "auto":
        result["ipv6.address"] = _free6([one for one in busy if isinstance(one, IPv6Network)])
        result.setdefault("ipv6.nat", "true")
    return result


def _free4(taken: list[IPv4Network]) -> str:
    # LXD picks from 10/8 and then sends packets to see who answers; the routing table knows without.
    choose = random.SystemRandom()
    for _ in range(500):
        candidate = IPv4Network((f"10.{choose.randrange(256)}.{choose.randrange(256)}.0", 24))
        if not any(candidate.overlaps(one) for one in taken):
            return f"{candidate[1]}/24"
    # A company network may route all of 10/8; go through everything private then.
    for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"):
        inside = [one for one in taken if one.overlaps(IPv4Network(block))]
        if any(one.supernet_of(IPv4Network(block)) for one in inside):
            continue
        for candidate in IPv4Network(block).subnets(new_prefix=24):
            if not any(candidate.overlaps(one) for one in inside):
                return f"{candidate[1]}/24"
    raise Conflict("Every private IPv4 subnet is routed somewhere already: choose one by setting ipv4.address")


def _free6(taken: list[IPv6Network]) -> str:
    choose = random.SystemRandom()
    for _ in range(100):
        high = (0xFD42 << 48) | choose.getrandbits(48)
        candidate = IPv6Network((high << 64, 64))
        if not any(candidate.overlaps(one) for one in taken):
            return f"{candidate[1]}/64"
    raise Conflict("Every local IPv6 subnet tried is routed somewhere already: choose one by setting ipv6.address")


def random_mac() -> str:
    """A MAC address of the Xen range that LXD uses too."""
    return OUI + "".join(f":{byte:02x}" for byte in random.SystemRandom().randbytes(3))

"""The host's side of the networks: bridges, veth pairs, what is routed where, the kernel's switches."""

import contextlib
import ipaddress
import json
import os
import random
import socket
from collections.abc import Callable, Collection

from lxpy.api.errors import ApiError, Conflict, InternalError, NotFound
from lxpy.api.notices import FORWARDING, Notice
from lxpy.api.objects import Config
from lxpy.linux import rtnetlink
from lxpy.networks import config as keys

_CONF6 = "/proc/sys/net/ipv6/conf"


def has_ipv6() -> bool:
    return os.path.isdir(_CONF6)


def ensure_bridge(name: str, config: Config, hwaddr: str) -> bool:
    """Makes the bridge, or brings an existing one to its configuration. Gives whether it was made.

    Raises:
        Conflict: another kind of interface has the name.
        OSError: the kernel refused.
    """
    with rtnetlink.Rtnetlink() as netlink:
        mtu = int(config.get("bridge.mtu", "") or 0)
        link = netlink.link(name)
        made = link is None
        if link is None:
            netlink.call(f"bridge {name}", rtnetlink.new_bridge(name, hwaddr, mtu))
            link = netlink.link(name)
            assert link is not None
        elif link.kind != "bridge":
            raise Conflict(f"The interface {name!r} exists already and is no bridge: choose another network name")
        _switch_ipv6(name, config)
        wanted = _addresses(config, hwaddr)
        present = {
            (one.address, one.prefix) for one in netlink.addresses() if one.ifindex == link.ifindex and one.scope != 254
        }
        messages = [rtnetlink.new_address(link.ifindex, *one) for one in wanted if one not in present]
        messages += [rtnetlink.delete_address(link.ifindex, *one) for one in present - set(wanted)]
        if not made:
            messages.insert(0, rtnetlink.set_link(link.ifindex, up=True, hwaddr=hwaddr, mtu=mtu or 1500))
        routes = {
            (str(one.network_address), one.prefixlen)
            for version in (4, 6)
            for one in keys.routed(f"ipv{version}.routes", config.get(f"ipv{version}.routes", ""), version)
        }
        present_routes = {
            (one.destination, one.prefix)
            for one in netlink.routes()
            if one.interface == link.ifindex and one.protocol == rtnetlink.RTPROT_LXPY
        }
        messages += [rtnetlink.delete_route(link.ifindex, *one) for one in present_routes - routes]
        messages += [rtnetlink.new_route(link.ifindex, *one) for one in routes - present_routes]
        try:
            netlink.call(f"bridge {name}", *messages)
            _ports(netlink, name, link.ifindex, keys.words(config, "bridge.external_interfaces"))
        except (OSError, ApiError):
            if made:
                netlink.call(f"bridge {name}", rtnetlink.delete_link(name))
            raise
    return made


def intact(name: str, config: Config, hwaddr: str) -> bool:
    """Whether the bridge is there with all its addresses."""
    with rtnetlink.Rtnetlink() as netlink:
        link = netlink.link(name)
        if link is None:
            return False
        present = {(one.address, one.prefix) for one in netlink.addresses() if one.ifindex == link.ifindex}
        return present.issuperset(_addresses(config, hwaddr))


def _ports(netlink: rtnetlink.Rtnetlink, name: str, index: int, wanted: list[str]) -> None:
    """Makes interfaces of the host ports of a bridge: those that carry nothing of the host's own."""
    if not wanted:
        return
    links = {link.name: link for link in netlink.links(counters=False)}
    addressed = {one.ifindex for one in netlink.addresses() if one.scope < 253}
    for port in wanted:
        link = links.get(port)
        if link is None:
            raise NotFound(f"bridge.external_interfaces: there is no interface {port!r} on this host")
        if link.master == index:
            continue
        if link.master:
            owner = next((other.name for other in links.values() if other.ifindex == link.master), "another interface")
            raise Conflict(f"bridge.external_interfaces: {port!r} belongs to {owner!r} already")
        if link.ifindex in addressed:
            raise Conflict(
                f"bridge.external_interfaces: {port!r} has addresses of the host: take them away first, "
                f"a port of a bridge has none"
            )
        netlink.call(f"interface {port}", rtnetlink.set_master(link.ifindex, index))


def release_ports(name: str, ports: list[str]) -> None:
    """Takes interfaces of the host out of a bridge; idempotent."""
    with rtnetlink.Rtnetlink() as netlink:
        bridge = netlink.link(name)
        for port in ports:
            link = netlink.link(port)
            if bridge is not None and link is not None and link.master == bridge.ifindex:
                netlink.call(f"interface {port}", rtnetlink.set_master(link.ifindex, 0))


def adopt_ports(name: str, ports: Collection[int | str]) -> None:
    """Makes interfaces (index or name) that have no master ports of a bridge again after it was lost."""
    with rtnetlink.Rtnetlink() as netlink:
        bridge = netlink.link(name)
        names = {port for port in ports if isinstance(port, str)}
        links = [netlink.link(port) for port in names]
        if len(names) < len(ports):
            links += [link for link in netlink.links(counters=False) if link.ifindex in ports]
        for link in links:
            if bridge is not None and link is not None and not link.master:
                with contextlib.suppress(OSError):
                    netlink.call(f"interface {link.name}", rtnetlink.set_master(link.ifindex, bridge.ifindex))


def _addresses(config: Config, hwaddr: str) -> list[tuple[str, int]]:
    wanted = [(str(one.ip), one.network.prefixlen) for one in (keys.interface4(config), keys.interface6(config)) if one]
    if keys.interface6(config):
        # The kernel would add it with the first port; router advertisements need it, so that port need not wait.
        mac = rtnetlink.mac_bytes(hwaddr)
        identity = bytes([mac[0] ^ 2]) + mac[1:3] + b"\xff\xfe" + mac[3:]
        wanted.append((socket.inet_ntop(socket.AF_INET6, b"\xfe\x80" + b"\0" * 6 + identity), 64))
    return wanted


def _switch_ipv6(name: str, config: Config) -> None:
    if has_ipv6():
        wanted = "0" if keys.interface6(config) else "1"
        for key, value in (("disable_ipv6", wanted), ("accept_ra", "0"), ("autoconf", "0")):
            with contextlib.suppress(OSError):
                _set(f"{_CONF6}/{name}/{key}", value)


def delete_link(name: str) -> None:
    """Takes an interface away; idempotent."""
    with rtnetlink.Rtnetlink() as netlink:
        try:
            netlink.call(f"interface {name}", rtnetlink.delete_link(name))
        except OSError:
            if netlink.link(name) is not None:
                raise


def create_veth(
    parent: str, host_name: str, guest_name: str, hwaddr: str, mtu: int, netns_fd: int, *, quiet: bool = True
) -> None:
    """A veth pair from a bridge, or from the host itself, into a network namespace; the guest's end is still down.

    Args:
        parent: the bridge; "" for none.
        quiet: the host's end gets no link-local address.

    Raises:
        NotFound: there is no such bridge.
        Conflict: `parent` is no bridge, or a name is taken.
    """
    with rtnetlink.Rtnetlink() as netlink:
        bridge = netlink.link(parent) if parent else None
        if parent and bridge is None:
            raise NotFound(f"The bridge {parent!r} does not exist on this host")
        if bridge is not None and bridge.kind not in ("bridge", "openvswitch"):
            raise Conflict(f"The interface {parent!r} is no bridge: nictype=bridged needs one as its parent")
        index, mtu = (bridge.ifindex, mtu or bridge.mtu) if bridge else (0, mtu or 1500)
        # The first byte is high, so that no bridge takes this address for its own (it takes the lowest).
        host_hwaddr = "fe:" + random.SystemRandom().randbytes(5).hex(":")
        messages = rtnetlink.new_veth(
            host_name, host_hwaddr, index, mtu, guest_name, hwaddr, netns_fd, ipv6=quiet and has_ipv6()
        )
        try:
            netlink.call(f"veth {host_name}", *messages)
        except FileExistsError:
            where = f"{host_name!r} on the host" if netlink.link(host_name) else f"{guest_name!r} in the instance"
            raise Conflict(f"An interface {where} exists already: choose another name for the nic") from None
        except OSError:
            with contextlib.suppress(OSError):
                netlink.call(f"veth {host_name}", rtnetlink.delete_link(host_name))
            raise


def link_exists(name: str) -> bool:
    with rtnetlink.Rtnetlink() as netlink:
        return bool(name) and netlink.link(name) is not None


def up_here(name: str) -> None:
    """Brings an interface of the calling thread's network namespace up."""
    with rtnetlink.Rtnetlink() as netlink:
        netlink.call(f"interface {name}", rtnetlink.link_up(name))


def taken_subnets(apart_from: str = "") -> list[keys.Subnet]:
    """What this host routes or has addresses in: from the kernel's tables, no packet is sent.

    Args:
        apart_from: a bridge whose own addresses and routes do not count.
    """
    found: set[keys.Subnet] = set()
    with rtnetlink.Rtnetlink() as netlink:
        link = netlink.link(apart_from) if apart_from else None
        own = link.ifindex if link else -1
        for route in netlink.routes():
            if route.prefix and route.interface != own and route.type <= 8:
                found.add(_network(route.destination, route.prefix))
        for address in netlink.addresses():
            if address.ifindex != own:
                found.add(_network(address.address, address.prefix))
    return list(found)


def _network(address: str, prefix: int) -> keys.Subnet:
    return ipaddress.ip_network((address, prefix), strict=False)


def snapshot() -> tuple[list[rtnetlink.Link], list[rtnetlink.Address]]:
    """Every interface and address of the host."""
    with rtnetlink.Rtnetlink() as netlink:
        return netlink.links(), netlink.addresses()


def enable_forwarding(configs: list[Config], record: str, warn: Callable[[str], None]) -> None:
    """Switches routing on where a bridge wants it. What was set before is written down, and never set back: others
    may rely on it by then.

    Args:
        record: a JSON file of the values found before the first change.
    """
    wanted: dict[str, str] = {}
    for config in configs:
        if keys.interface4(config) and keys.enabled(config, "ipv4.routing", True):
            wanted["/proc/sys/net/ipv4/ip_forward"] = "1"
        if keys.interface6(config) and keys.enabled(config, "ipv6.routing", True) and has_ipv6():
            # A router ignores router advertisements unless told 2: the host must not lose its own IPv6 by this.
            for interface in os.listdir(_CONF6):
                with contextlib.suppress(OSError):
                    if _get(f"{_CONF6}/{interface}/accept_ra") == "1":
                        wanted[f"{_CONF6}/{interface}/accept_ra"] = "2"
            wanted[f"{_CONF6}/all/forwarding"] = "1"
    before: dict[str, str] = {}
    for path, value in wanted.items():
        try:
            if (old := _get(path)) != value:
                _set(path, value)
                before[path] = old
        except OSError as error:
            warn(
                Notice(
                    f"Could not set {path} to {value} ({error.strerror}): instances may not reach other networks",
                    FORWARDING,
                )
            )
    if before:
        with contextlib.suppress(FileNotFoundError, ValueError), open(record, encoding="utf-8") as file:
            before = {**before, **json.load(file)}
        with open(f"{record}.new", "w", encoding="utf-8") as file:
            json.dump(before, file, indent=1)
        os.rename(f"{record}.new", record)


def _get(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read().strip()


def _set(path: str, value: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(value)


def explained(what: str, error: OSError) -> InternalError:
    """A kernel's refusal as one line for the user."""
    detail = f" ({error.filename})" if error.filename else ""
    return InternalError(f"{what} failed: {error.strerror or error}{detail}")

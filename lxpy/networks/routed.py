"""Nics of type routed: no bridge, the host routes single addresses to the nic and answers for them on its parent.

Layouts and numbers: linux/neighbour.h, linux/rtnetlink.h.
"""

import contextlib
import os
import socket
import struct

from lxpy.api.errors import BadRequest, NotFound
from lxpy.api.objects import Config
from lxpy.linux import rtnetlink
from lxpy.linux.rtnetlink import attr, message
from lxpy.networks import config as keys

HOST_ADDRESSES = {4: "169.254.0.1", 6: "fe80::1"}  # LXD's defaults of ipv4.host_address and ipv6.host_address
_RTM_NEWNEIGH, _RTM_DELNEIGH, _NTF_PROXY, _NDA_DST, _NUD_PERMANENT = 28, 29, 8, 1, 0x80
_NDMSG = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_RTMSG = struct.Struct("=BBBBBBBBI")
_RTA_DST, _RTA_OIF, _RTA_GATEWAY = 1, 4, 5
_CREATE_OR_REPLACE = 0x400 | 0x100


def addresses(nic: Config, version: int) -> list[str]:
    """The guest's addresses of one family."""
    return [one for one in keys.words(nic, f"ipv{version}.address") if one != "none"]


def proxies(nic: Config) -> list[tuple[str, str]]:
    """Interface and address of everything the host answers for."""
    parent = nic.get("parent", "")
    return [(parent, one) for version in (4, 6) for one in addresses(nic, version)] if parent else []


def check_host(nic: Config, device: str) -> None:
    """Raises `NotFound` without the parent, `BadRequest` when the kernel would not route between it and the nic."""
    parent = nic.get("parent", "")
    if not parent:
        return
    if not os.path.isdir(f"/sys/class/net/{parent}"):
        raise NotFound(f"The parent {parent!r} of the nic {device} does not exist on this host")
    needed = [(4, "forwarding")] if addresses(nic, 4) else []
    needed += [(6, "forwarding"), (6, "proxy_ndp")] if addresses(nic, 6) else []
    for version, name in needed:
        base = f"/proc/sys/net/ipv{version}/conf"
        if not any(_read(f"{base}/{where}/{name}") == "1" for where in (parent, *(("all",) if "ndp" in name else ()))):
            raise BadRequest(
                f"The nic {device} is routed, which needs the host's sysctl net.ipv{version}.conf.{parent}.{name}=1"
            )


def set_up_host(nic: Config, host_name: str) -> None:
    """The host's half: its address, routes to the guest's, forwarding. It goes with the interface.

    Raises:
        OSError: the kernel refused.
    """
    with rtnetlink.Rtnetlink() as netlink:
        link = netlink.link(host_name)
        assert link is not None
        for version, bits in ((4, 32), (6, 128)):
            own = addresses(nic, version)
            if not own:
                continue
            with open(f"/proc/sys/net/ipv{version}/conf/{host_name}/forwarding", "w", encoding="ascii") as file:
                file.write("1")
            here = nic.get(f"ipv{version}.host_address") or HOST_ADDRESSES[version]
            messages = [rtnetlink.new_address(link.ifindex, here, bits)]
            messages += [rtnetlink.new_route(link.ifindex, one, bits, rtnetlink.RTPROT_STATIC) for one in own]
            for subnet in keys.routed(f"ipv{version}.routes", nic.get(f"ipv{version}.routes", ""), version):
                messages.append(_via(link.ifindex, str(subnet.network_address), subnet.prefixlen, own[0]))
            netlink.call(f"interface {host_name}", *messages)


def set_up_guest(nic: Config, guest_name: str) -> None:
    """The guest's half, in the calling thread's namespace: its addresses and a default route by the host's.

    Raises:
        OSError: the kernel refused.
    """
    with rtnetlink.Rtnetlink() as netlink:
        netlink.call(f"interface {guest_name}", rtnetlink.link_up(guest_name))
        link = netlink.link(guest_name)
        assert link is not None
        for version, bits in ((4, 32), (6, 128)):
            own = addresses(nic, version)
            messages = [rtnetlink.new_address(link.ifindex, one, bits) for one in own]
            if own and nic.get(f"ipv{version}.gateway", "auto") == "auto":
                gateway = nic.get(f"ipv{version}.host_address") or HOST_ADDRESSES[version]
                messages.append(rtnetlink.new_route(link.ifindex, gateway, bits, rtnetlink.RTPROT_STATIC))
                messages.append(_via(link.ifindex, "", 0, gateway))
            if messages:
                netlink.call(f"interface {guest_name}", *messages)


def answer(proxy: list[tuple[str, str]], *, on: bool) -> None:
    """Has the host answer ARP and neighbour solicitations for addresses on interfaces, or not any more; idempotent.

    It answers at once: what the kernel would delay, by up to 0.8 s for other proxies' sake, it throws away as soon as
    any interface of the host goes down (`pneigh_queue_purge` in net/core/neighbour.c), which ends of veth pairs do all
    the time. Entries are permanent: kernels since 2025 keep those without carrier, see `Extras.answer_again`.

    Raises:
        OSError: the kernel refused.
    """
    if not proxy:
        return
    with rtnetlink.Rtnetlink() as netlink:
        for parent, address in proxy:
            link = netlink.link(parent)
            if link is None:
                continue
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            body = _NDMSG.pack(family, link.ifindex, _NUD_PERMANENT, _NTF_PROXY, 0)
            body += attr(_NDA_DST, socket.inet_pton(family, address))
            if on:
                _undelay(parent, 6 if ":" in address else 4)
                netlink.call(f"proxy {address}", message(_RTM_NEWNEIGH, _CREATE_OR_REPLACE, body))
            else:
                with contextlib.suppress(OSError):
                    netlink.call(f"proxy {address}", message(_RTM_DELNEIGH, 0, body))


def _undelay(interface: str, version: int) -> None:
    # Without the right to it, answers are late: better than none.
    with (
        contextlib.suppress(OSError),
        open(f"/proc/sys/net/ipv{version}/neigh/{interface}/proxy_delay", "w", encoding="ascii") as file,
    ):
        file.write("0")


def _via(index: int, destination: str, prefix: int, gateway: str) -> bytes:
    family = socket.AF_INET6 if ":" in gateway else socket.AF_INET
    body = _RTMSG.pack(family, prefix, 0, 0, rtnetlink.RT_TABLE_MAIN, rtnetlink.RTPROT_STATIC, 0, 1, 0)
    if destination:
        body += attr(_RTA_DST, socket.inet_pton(family, destination))
    body += attr(_RTA_GATEWAY, socket.inet_pton(family, gateway)) + attr(_RTA_OIF, index)
    return message(rtnetlink.RTM_NEWROUTE, _CREATE_OR_REPLACE, body)


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""

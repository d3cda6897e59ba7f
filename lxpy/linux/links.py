"""rtnetlink messages about links that stand on others, and about links that change their network namespace.

For `Rtnetlink.call`. Layouts and numbers: linux/if_link.h, linux/if_bridge.h, linux/if_vlan.h.
"""

import socket
import struct

from lxpy.linux.rtnetlink import IFF_UP, RTM_DELLINK, RTM_NEWLINK, RTM_SETLINK, attr, mac_bytes, message, nest

_CREATE = 0x400 | 0x200  # NLM_F_CREATE | NLM_F_EXCL
_IFINFO = struct.Struct("=BxHiII")  # family, ARP type, index, flags, change mask
_VLAN_INFO = struct.Struct("=HH")  # flags, VLAN
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_LINKINFO = 1, 3, 4, 5, 18
_IFLA_NET_NS_FD, _IFLA_AF_SPEC = 28, 26
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_MACVLAN_MODE, _IFLA_VLAN_ID = 1, 1
_IFLA_BR_VLAN_FILTERING, _IFLA_BRIDGE_VLAN_INFO = 7, 2
_PVID_UNTAGGED = 2 | 4

MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}


def new_macvlan(parent: int, name: str, hwaddr: str, mtu: int, mode: str, netns_fd: int) -> bytes:
    """A macvlan of an interface of the socket's namespace, born in another one, down."""
    return message(
        RTM_NEWLINK, _CREATE,
        _IFINFO.pack(0, 0, 0, 0, 0)
        + attr(_IFLA_IFNAME, name)
        + attr(_IFLA_ADDRESS, mac_bytes(hwaddr))
        + (attr(_IFLA_MTU, mtu) if mtu else b"")
        + attr(_IFLA_LINK, parent)
        + attr(_IFLA_NET_NS_FD, netns_fd)
        + nest(
            _IFLA_LINKINFO,
            attr(_IFLA_INFO_KIND, "macvlan"),
            nest(_IFLA_INFO_DATA, attr(_IFLA_MACVLAN_MODE, MACVLAN_MODES[mode])),
        ),
    )  # fmt: skip


def new_vlan(parent: int, name: str, vlan: int) -> bytes:
    """A VLAN (802.1q) of an interface, up."""
    return message(
        RTM_NEWLINK, _CREATE,
        _IFINFO.pack(0, 0, 0, IFF_UP, IFF_UP)
        + attr(_IFLA_IFNAME, name)
        + attr(_IFLA_LINK, parent)
        + nest(
            _IFLA_LINKINFO,
            attr(_IFLA_INFO_KIND, "vlan"),
            nest(_IFLA_INFO_DATA, attr(_IFLA_VLAN_ID, struct.pack("=H", vlan))),
        ),
    )  # fmt: skip


def rename(index: int, name: str) -> bytes:
    """A new name for an interface that is down (kernels before 6.2 rename no other)."""
    return message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + attr(_IFLA_IFNAME, name))


def move(index: int, netns_fd: int) -> bytes:
    """Into another network namespace, where it is down and without addresses; EEXIST when its name is taken there."""
    return message(RTM_SETLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + attr(_IFLA_NET_NS_FD, netns_fd))


def filter_vlans(index: int) -> bytes:
    """Has a bridge look at VLANs. Kernels without CONFIG_BRIDGE_VLAN_FILTERING refuse it or ignore it."""
    info = attr(_IFLA_INFO_KIND, "bridge") + nest(_IFLA_INFO_DATA, attr(_IFLA_BR_VLAN_FILTERING, b"\1"))
    return message(RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, 0, 0) + nest(_IFLA_LINKINFO, info))


def port_vlan(index: int, vlan: int, *, untagged: bool = False, member: bool = True) -> bytes:
    """Makes a bridge's port a member of a VLAN or takes it out; `untagged`: of what has no tag, both ways."""
    info = _VLAN_INFO.pack(_PVID_UNTAGGED if untagged else 0, vlan)
    return message(
        RTM_SETLINK if member else RTM_DELLINK, 0,
        _IFINFO.pack(socket.AF_BRIDGE, 0, index, 0, 0) + nest(_IFLA_AF_SPEC, attr(_IFLA_BRIDGE_VLAN_INFO, info)),
    )  # fmt: skip

"""VLANs of bridged nics: which of them a port of a bridge belongs to."""

import contextlib

from lxpy.api.errors import BadRequest, InternalError
from lxpy.api.objects import Config
from lxpy.linux import links, rtnetlink
from lxpy.networks import config as keys

_LAST = 4094  # 4095 is reserved (IEEE 802.1Q)


def number(what: str, text: str) -> int:
    """A VLAN. Raises `BadRequest`."""
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _LAST):
        raise BadRequest(f"Invalid {what}: {text!r} is not a VLAN, 1 to {_LAST}")
    return int(text)


def tagged(what: str, nic: Config) -> list[int]:
    """The VLANs of ``vlan.tagged``, such as ``5,10-12``. Raises `BadRequest`."""
    found: list[int] = []
    for part in keys.words(nic, "vlan.tagged"):
        first, dash, last = part.partition("-")
        ends = number(what, first), number(what, last if dash else first)
        if ends[1] < ends[0]:
            raise BadRequest(f"Invalid {what}: {part!r} runs backwards")
        found += range(ends[0], ends[1] + 1)
    return found


def check(where: str, nic: Config) -> None:
    """Raises `BadRequest` for values that cannot be."""
    own, among = nic.get("vlan", ""), tagged(f"vlan.tagged on {where}", nic)
    if own and own != "none" and number(f"vlan on {where}", own) in among:
        raise BadRequest(f"Both vlan and vlan.tagged on {where} name {own}: frames of a VLAN have a tag or have none")


def join(nic: Config, device: str, bridge: str, host_name: str, *, ours: bool) -> None:
    """Makes the port of a nic a member of its VLANs; nothing for a nic without. Safe to repeat.

    Args:
        ours: a bridge that may be told to look at VLANs. Its other ports stay in its own VLAN, 1, and notice nothing.

    Raises:
        BadRequest: bridge or kernel look at no VLANs.
        OSError: the kernel refused.
    """
    own, among = nic.get("vlan", ""), tagged(f"vlan.tagged of the nic {device}", nic)
    if not own and not among:
        return
    with rtnetlink.Rtnetlink() as netlink:
        base = netlink.link(bridge)
        if base is not None and ours and not rtnetlink.bridge_details(base)["vlan_filtering"]:
            with contextlib.suppress(OSError):  # said below
                netlink.call(f"bridge {bridge}", links.filter_vlans(base.ifindex))
            base = netlink.link(bridge)
        port = netlink.link(host_name)
        if base is None or port is None:
            raise InternalError(f"The bridge {bridge!r} or its port {host_name!r} is gone: restart the instance")
        details = rtnetlink.bridge_details(base)
        if not details["vlan_filtering"]:
            raise BadRequest(
                f"vlan of the nic {device}: "
                + (
                    "this kernel has no VLANs in bridges (CONFIG_BRIDGE_VLAN_FILTERING)"
                    if ours
                    else f"the bridge {bridge!r} looks at no VLANs: `ip link set {bridge} type bridge vlan_filtering 1`"
                )
            )
        default, index = details["vlan_default"], port.ifindex
        assert isinstance(default, int)
        messages = [links.port_vlan(index, one) for one in among]
        if own and own != "none":
            messages.append(links.port_vlan(index, int(own), untagged=True))
        if own and own != str(default) and default not in among:
            # A port born into the bridge is in its default VLAN; a second removal does no harm.
            messages.append(links.port_vlan(index, default, member=False))
        netlink.call(f"VLANs of {host_name}", *messages)

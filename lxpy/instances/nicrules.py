"""What may be written on a nic: the keys lxpy honours, and why others of LXD's are refused."""

import ipaddress

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.linux.links import MACVLAN_MODES
from lxpy.networks import config as keys
from lxpy.networks import nicextras, uplinks, vlans

KEYS = nicextras.KEYS | {"boot.priority"}
# LXD has these; why they are refused here.
NOT_YET = {
    "gvrp": "lxpy announces no VLANs; set them up on the switch",
    "ipv4.routes.external": "it is for OVN networks; use ipv4.routes",
    "ipv6.routes.external": "it is for OVN networks; use ipv6.routes",
    "ipv4.host_table": "routes go into the main table",
    "ipv6.host_table": "routes go into the main table",
    "ipv4.neighbor_probe": "addresses are not probed for",
    "ipv6.neighbor_probe": "addresses are not probed for",
    "maas.subnet.ipv4": "there is no MAAS integration",
    "maas.subnet.ipv6": "there is no MAAS integration",
}
_CABLE = frozenset(
    {"type", "nictype", "name", "hwaddr", "host_name", "mtu", "boot.priority", "queue.tx.length", "limits.ingress",
     "limits.egress", "limits.max", "limits.priority", "ipv4.routes", "ipv6.routes"}
)  # fmt: skip
_FAMILY = ("address", "gateway", "host_address")
_UPLINK = frozenset({"type", "nictype", "parent", "name", "hwaddr", "mtu", "vlan", "boot.priority"})
# The keys of the types that need no bridge.
UNBRIDGED = {
    "macvlan": _UPLINK | {"mode"},
    "physical": _UPLINK,
    "p2p": _CABLE,
    "routed": _CABLE | {"parent"} | {f"ipv{version}.{key}" for version in (4, 6) for key in _FAMILY},
}
_NICTYPES = {
    "ipvlan": "lxpy has no ipvlan; use macvlan or routed",
    "sriov": "lxpy does not manage SR-IOV cards; a virtual function is given by nictype=physical",
    "ovn": "lxpy has no OVN networks; use bridged",
}


def check(where: str, nic: dict[str, str]) -> None:
    """Raises `BadRequest` for a type of nic, key or value that cannot be honoured."""
    nictype = nic.get("nictype", "bridged")
    if nictype != "bridged" and nictype not in UNBRIDGED:
        raise BadRequest(
            f"Unsupported nictype {nictype!r} on {where}: "
            f"{_NICTYPES.get(nictype, 'use bridged, macvlan, physical, p2p or routed')}"
        )
    for key, why in NOT_YET.items():
        if key in nic:
            raise BadRequest(f"{key} on {where} is not supported: {why}")
    for key in ("limits.ingress", "limits.egress", "limits.max"):
        if nic.get(key):
            values.bit_rate(f"{key} on {where}", nic[key])
    for key, most in (("limits.priority", 0xFFFF), ("queue.tx.length", 0x7FFFFFFF), ("boot.priority", 0xFFFFFFFF)):
        if (value := nic.get(key, "")) and not (value.isascii() and value.isdigit() and int(value) <= most):
            raise BadRequest(f"Invalid {key} {value!r} on {where}: a whole number up to {most}")
    for version in (4, 6):
        keys.routed(f"ipv{version}.routes", nic.get(f"ipv{version}.routes", ""), version)
    values.boolean(f"security.port_isolation on {where}", nic.get("security.port_isolation", ""))
    if nictype == "bridged":
        vlans.check(where, nic)
    if nictype == "routed":
        _check_routed(where, nic)
    if nictype in uplinks.NICTYPES:
        _check_uplink(where, nic)
    # The MAC address is known when it starts; what the rules need otherwise is checked by making them.
    nicextras.chain_rules({"hwaddr": "00:16:3e:00:00:01", **nic}, where)
    if nic.get("limits.max") and nic.get("limits.ingress"):
        raise BadRequest(f"Both limits.max and limits.ingress on {where}: limits.max stands for both directions")


def _check_uplink(where: str, nic: dict[str, str]) -> None:
    if not nic.get("parent"):
        raise BadRequest(f"Missing parent on {where}: nictype={nic['nictype']} needs an interface of the host")
    if nic["parent"] == "lo":
        raise BadRequest(f"Invalid parent 'lo' on {where}: the loopback interface stays where it is")
    keys.interface_name(f"parent on {where}", nic["parent"])
    if nic.get("vlan"):
        vlans.number(f"vlan on {where}", nic["vlan"])
    if nic.get("mode", "bridge") not in MACVLAN_MODES:
        raise BadRequest(f"Invalid mode {nic['mode']!r} on {where}: {', '.join(MACVLAN_MODES)}")


def _check_routed(where: str, nic: dict[str, str]) -> None:
    found = 0
    for version, parse in ((4, ipaddress.IPv4Address), (6, ipaddress.IPv6Address)):
        own = [one for one in keys.words(nic, f"ipv{version}.address") if one != "none"]
        found += len(own)
        here = nic.get(f"ipv{version}.host_address", "")
        for key, one in [("address", one) for one in own] + ([("host_address", here)] if here else []):
            try:
                parse(one)
            except ValueError:
                raise BadRequest(f"Invalid ipv{version}.{key} {one!r} on {where}: an address without prefix") from None
        if nic.get(f"ipv{version}.gateway", "auto") not in ("auto", "none"):
            raise BadRequest(f"Invalid ipv{version}.gateway on {where}: auto or none")
        if nic.get(f"ipv{version}.routes") and not own:
            raise BadRequest(f"ipv{version}.routes on {where} needs ipv{version}.address: the routes go by it")
    if not found:
        raise BadRequest(f"Missing ipv4.address or ipv6.address on {where}: a routed nic has nothing else")

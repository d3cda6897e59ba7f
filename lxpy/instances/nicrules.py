"""What may be written on a nic: the keys lxpy honours, and why others of LXD's are refused."""

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.networks import config as keys
from lxpy.networks import nicextras

KEYS = nicextras.KEYS | {"boot.priority"}
# LXD has these; why they are refused here.
NOT_YET = {
    "vlan": "VLANs of nics are not supported by this version of lxpy",
    "vlan.tagged": "VLANs of nics are not supported by this version of lxpy",
    "gvrp": "VLANs of nics are not supported by this version of lxpy",
    "ipv4.routes.external": "it is for OVN networks; use ipv4.routes",
    "ipv6.routes.external": "it is for OVN networks; use ipv6.routes",
    "maas.subnet.ipv4": "there is no MAAS integration",
    "maas.subnet.ipv6": "there is no MAAS integration",
}
_NICTYPES = {
    "macvlan": "this version of lxpy knows bridged",
    "physical": "this version of lxpy knows bridged",
    "routed": "this version of lxpy knows bridged",
    "p2p": "this version of lxpy knows bridged",
    "ipvlan": "use a bridge; lxpy has no ipvlan",
    "sriov": "lxpy does not manage SR-IOV cards",
    "ovn": "lxpy has no OVN networks",
}


def check(where: str, nic: dict[str, str]) -> None:
    """Raises `BadRequest` for a type of nic, key or value that cannot be honoured."""
    nictype = nic.get("nictype", "bridged")
    if nictype != "bridged":
        raise BadRequest(f"Unsupported nictype {nictype!r} on {where}: {_NICTYPES.get(nictype, 'use bridged')}")
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
    # The MAC address is known when it starts; what the rules need otherwise is checked by making them.
    nicextras.chain_rules({"hwaddr": "00:16:3e:00:00:01", **nic}, where)
    if nic.get("limits.max") and nic.get("limits.ingress"):
        raise BadRequest(f"Both limits.max and limits.ingress on {where}: limits.max stands for both directions")

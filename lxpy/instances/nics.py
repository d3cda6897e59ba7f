"""The nics of an instance: names, MAC addresses, reservations."""

import contextlib
import random
from collections.abc import Collection

from lxpy.api.errors import Conflict
from lxpy.api.objects import Config, Devices
from lxpy.instances.records import Records, underscored
from lxpy.networks import uplinks
from lxpy.networks.leases import holder
from lxpy.networks.manager import NetworkManager
from lxpy.networks.nics import random_host_name
from lxpy.state.store import InstanceRow


def prepare(
    records: Records,
    networks: NetworkManager,
    row: InstanceRow,
    devices: Devices,
    taken: Collection[str] = (),
    *,
    starting: bool = False,
    adopting: bool = False,
) -> tuple[InstanceRow, dict[str, dict[str, str]]]:
    """The nics with name and hwaddr filled in (remembered in volatile keys) and their addresses reserved.

    Args:
        taken: names that interfaces of the guest have already.
        starting: a name on the host is chosen, too, and remembered: a daemon killed before the instance is on record as
            running is followed by one that knows it.
        adopting: it runs already, and goes on also where another has an address of its.
    """
    nics: dict[str, dict[str, str]] = {}
    used = {device["name"] for device in devices.values() if device.get("type") == "nic" and device.get("name")} | set(
        taken
    )
    volatile: dict[str, str | None] = {}
    # boot.priority: the highest is connected first.
    for name, device in sorted(devices.items(), key=lambda one: -int(one[1].get("boot.priority") or 0)):
        if device.get("type") != "nic":
            continue
        nic = dict(device)
        if not nic.get("name"):
            known = row.doc["config"].get(f"volatile.{name}.name", "")
            number = 0
            while f"eth{number}" in used:
                number += 1
            free = f"eth{number}"
            nic["name"] = (
                known if known and known not in used else name if name.startswith("eth") and name not in used else free
            )
            used.add(nic["name"])
        if nic.get("nictype") in uplinks.NICTYPES:
            # Known before anything is done: it names what is to be given back.
            key = f"volatile.{name}.host_name"
            known = row.doc["config"].get(key, "")
            nic["host_name"] = known if uplinks.is_handle(known) else uplinks.new_handle(nic["nictype"])
            volatile[f"{name}.host_name"] = nic["host_name"]
        elif starting:
            nic.setdefault("host_name", random_host_name())
            volatile[f"{name}.host_name"] = nic["host_name"]
        if not nic.get("hwaddr") and nic.get("nictype") != "physical":  # that has its own
            key = f"volatile.{name}.hwaddr"
            nic["hwaddr"] = row.doc["config"].get(key) or _random_mac()
            volatile[f"{name}.hwaddr"] = nic["hwaddr"]
        nics[name] = nic
        if network := nic.get("network"):
            addresses = (nic.get("ipv4.address", ""), nic.get("ipv6.address", ""))
            who, own = holder(row.project, row.name), not device.get("hwaddr")  # one of chance: nobody else has it
            with contextlib.suppress(*((Conflict,) if adopting else ())):
                networks.nics.reserve(network, who, nic["hwaddr"], *addresses, device=name, alone=own)
    if volatile:
        row = records.set_volatile(row, **underscored(volatile))
    return row, nics


# The types with a chain of their own, which is where priorities are given.
_WEIGHED = ("bridged", "p2p", "routed")


def weighed(config: Config, devices: Devices) -> Devices:
    """Devices in which ``limits.network.priority`` holds for every nic that has no ``limits.priority`` of its own."""
    priority = config.get("limits.network.priority", "")
    if not priority:
        return devices
    return {
        name: {"limits.priority": priority, **one}
        if one.get("type") == "nic" and one.get("nictype", "bridged") in _WEIGHED
        else one
        for name, one in devices.items()
    }


def unweighed(config: Config, devices: Devices) -> list[str]:
    """What to say of nics for which a ``limits.network.priority`` can do nothing."""
    if not config.get("limits.network.priority"):
        return []
    return [
        f"limits.network.priority of {name!r} (packets of a {one['nictype']} nic do not pass this host's rules)"
        for name, one in devices.items()
        if one.get("type") == "nic" and one.get("nictype", "bridged") not in _WEIGHED
    ]


def _random_mac() -> str:
    # 00:16:3e is the prefix Xen's vendor id lends to virtual machines and LXD uses for containers.
    return "00:16:3e:" + ":".join(f"{random.randrange(256):02x}" for _ in range(3))

"""What a project limits and forbids: its ``limits.*`` and ``restricted.*`` keys, LXD's names and rules.

Pure functions over what a project holds (`Member`). A limit of memory, CPUs, processes or disk can only be kept when
every instance says how much of it it may take: a project with such a limit takes no instance without.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from lxpy.api import values
from lxpy.api.errors import BadRequest, Forbidden
from lxpy.api.objects import Config, Devices

# Limits that sum up what instances are given, with the key of an instance that says it.
SUMS = ("limits.cpu", "limits.memory", "limits.processes", "limits.disk")
COUNTS = ("limits.instances", "limits.containers", "limits.virtual-machines", "limits.networks")
_BYTES = frozenset({"limits.memory", "limits.disk"})

# What a restricted project may not have unless its key says otherwise: the possible answers, LXD's default first.
RESTRICTIONS: dict[str, tuple[str, ...]] = {
    "restricted.backups": ("block", "allow"),
    "restricted.containers.lowlevel": ("block", "allow"),
    "restricted.containers.nesting": ("block", "allow"),
    "restricted.containers.privilege": ("unprivileged", "isolated", "allow"),
    "restricted.devices.disk": ("managed", "block", "allow"),
    "restricted.devices.gpu": ("block", "allow"),
    "restricted.devices.infiniband": ("block", "allow"),
    "restricted.devices.nic": ("managed", "block", "allow"),
    "restricted.devices.pci": ("block", "allow"),
    "restricted.devices.proxy": ("block", "allow"),
    "restricted.devices.unix-block": ("block", "allow"),
    "restricted.devices.unix-char": ("block", "allow"),
    "restricted.devices.unix-hotplug": ("block", "allow"),
    "restricted.devices.usb": ("block", "allow"),
    "restricted.snapshots": ("block", "allow"),
}
_LISTS = ("restricted.devices.disk.paths", "restricted.networks.access")
# Host ids that a raw.idmap may reach although lowlevel options are blocked.
_IDS = ("restricted.idmap.uid", "restricted.idmap.gid")
# Doors that LXD opens and lxpy does not have: always "block", and any other value is refused with the reason.
_SHUT = {
    "restricted.cluster.target": "there are no clusters",
    "restricted.containers.interception": "no system calls are intercepted",
    "restricted.virtual-machines.lowlevel": "there are no virtual machines",
}
# LXD has these; why they are refused here. A key ending in a dot stands for all below it.
_NOT_HERE = {
    "restricted.cluster.": "there are no clusters",
    "restricted.networks.": "there are no OVN networks",
}
# Options that reach past what keeps a container in: LXD's low-level ones.
_LOWLEVEL = frozenset(
    {"boot.host_shutdown_timeout", "limits.memory.swap", "limits.memory.swap.priority", "linux.kernel_modules",
     "security.idmap.base", "security.idmap.size"}
)  # fmt: skip
_LOWLEVEL_PREFIXES = ("raw.", "limits.kernel.", "security.syscalls.")


@dataclass(frozen=True)
class Member:
    """An instance or profile of a project.

    Attributes:
        config, devices: expanded for an instance, its own for a profile.
        kind: ``instance`` or ``profile``.
        ids: the host ids that its ``raw.idmap`` reaches: uid or gid, the first, the last.
    """

    name: str
    config: Config
    devices: Devices
    kind: str = "instance"
    ids: tuple[tuple[str, int, int], ...] = ()

    @property
    def label(self) -> str:
        """As messages name it."""
        return f"{self.kind} {self.name!r}"


@dataclass
class Holding:
    """What a project holds: instances, profiles of its own, sizes in bytes of custom volumes by ``POOL/NAME``, and how
    many networks."""

    instances: list[Member] = field(default_factory=list)
    profiles: list[Member] = field(default_factory=list)
    volumes: dict[str, int | None] = field(default_factory=dict)
    networks: int = 0


def check_key(key: str, value: str) -> bool:
    """Whether it is one of the keys of this module. Raises `BadRequest` for a bad value or a key refused."""
    if key in RESTRICTIONS:
        if value not in RESTRICTIONS[key]:
            raise BadRequest(f"Invalid value for {key}: {value!r} is none of {', '.join(RESTRICTIONS[key])}")
    elif key in _SHUT:
        if value != "block":
            raise BadRequest(f"Invalid value for {key}: only block is possible, {_SHUT[key]}")
    elif key == "restricted":
        values.boolean(key, value)
    elif key == "restricted.devices.disk.paths":
        for path in _listed(value):
            if not path.startswith("/") or ".." in path.split("/"):
                raise BadRequest(f"Invalid value for {key}: {path!r} is not an absolute path without ..")
    elif key in _LISTS:
        pass
    elif key in _IDS:
        _id_ranges(key, value)
    elif key in _BYTES:
        values.size_bytes(key, value)
    elif key in SUMS or key in COUNTS:
        if not (value.isascii() and value.isdigit()):
            raise BadRequest(f"Invalid value for {key}: {value!r} is not a whole number")
    else:
        for name, why in _NOT_HERE.items():
            if key == name or (name.endswith(".") and key.startswith(name)):
                raise BadRequest(f"{key} is not supported: {why}")
        return False
    return True


def known() -> list[str]:
    """Every key of this module."""
    return [*COUNTS, *SUMS, "restricted", *RESTRICTIONS, *_LISTS, *_IDS, *_SHUT]


def check(project: str, config: Config, holding: Holding, asks: str = "") -> None:
    """Whether a project's limits and restrictions are kept by what it holds.

    Args:
        holding: as it would be after a change.
        asks: what the change is of, as labels in `Holding` name it (``instance 'c1'``); "" for the project itself.

    Raises:
        Forbidden: for the first that is not kept, with its key, the sum of the others and what is asked.
    """
    for member in (*holding.instances, *holding.profiles):
        check_restrictions(project, config, member)
    count = len(holding.instances)
    for key in ("limits.instances", "limits.containers"):
        if config.get(key) and count > int(config[key]):
            had = count - (asks in (one.label for one in holding.instances))
            raise Forbidden(f"Project {project!r} has {key}={config[key]} and holds {had} instances")
    if not asks:
        check_networks(config, holding.networks)
    for key in SUMS:
        if config.get(key):
            _check_sum(project, key, config[key], holding, asks)


def check_networks(config: Config, count: int) -> None:
    """Whether the server may have so many networks: they are the project ``default``'s. Raises `Forbidden`."""
    if config.get("limits.networks") and count > int(config["limits.networks"]):
        limit = config["limits.networks"]
        raise Forbidden(f"Project 'default' has limits.networks={limit}: there would be {count} networks")


def _check_sum(project: str, key: str, limit: str, holding: Holding, asks: str) -> None:
    amounts = {one.label: amount(key, one) for one in holding.instances}
    if key == "limits.disk":
        amounts |= {f"volume {name!r}": size for name, size in holding.volumes.items()}
    for label, each in amounts.items():
        if each is None:
            raise Forbidden(f"Project {project!r} has {key}={limit}: {label} needs {_wanted(key, label)}")
    total, asked = sum(each or 0 for each in amounts.values()), amounts.get(asks)
    if total <= _number(key, limit):
        return
    if asked is None:
        raise Forbidden(f"Project {project!r} cannot have {key}={limit}: {_shown(key, total)} are given already")
    raise Forbidden(
        f"Project {project!r} has {key}={limit}: {_shown(key, total - asked)} are given already "
        f"and {asks} asks for {_shown(key, asked)}"
    )


def _wanted(key: str, label: str) -> str:
    if key == "limits.disk":
        return "a size" + (" on its root disk" if label.startswith("instance") else "")
    form = {"limits.memory": " as a size, not a percentage", "limits.cpu": " as a number of CPUs, not a set"}
    return f"a {key} of its own or by a profile{form.get(key, '')}"


def _shown(key: str, number: int) -> str:
    return values.human_bytes(number) if key in _BYTES else str(number)


def amount(key: str, member: Member) -> int | None:
    """How much of a summed limit an instance may take; None when nothing says so."""
    if key == "limits.disk":
        for device in member.devices.values():
            if _is_root(device) and device.get("size"):
                return values.size_bytes("size", device["size"])
        return None
    value = member.config.get(key, "")
    if not value or value.endswith("%") or not (key in _BYTES or value.isdigit()):
        return None
    return _number(key, value)


def _number(key: str, value: str) -> int:
    return values.size_bytes(key, value) if key in _BYTES else int(value)


def usage(config: Config, holding: Holding) -> dict[str, dict[str, int]]:
    """LXD's state of a project: ``{resource: {"Limit", "Usage"}}``, bytes or numbers; a limit of -1 is none."""
    count = len(holding.instances)
    used = {"instances": count, "containers": count, "virtual-machines": 0, "networks": holding.networks}
    for key in SUMS:
        used[key.removeprefix("limits.")] = sum(amount(key, one) or 0 for one in holding.instances)
    used["disk"] += sum(size or 0 for size in holding.volumes.values())
    found = {}
    for name, number in sorted(used.items()):
        limit = config.get(f"limits.{name}")
        found[name] = {"Limit": _number(f"limits.{name}", limit) if limit else -1, "Usage": number}
    return found


# -- restrictions ------------------------------------------------------------------------------------------------------


def restricted(config: Config) -> bool:
    """Whether the project's ``restricted.*`` keys count at all."""
    return values.boolean("restricted", config.get("restricted", "false"))


def answer(config: Config, key: str) -> str:
    """What a restricted project says of a key of `RESTRICTIONS`."""
    return config.get(key) or RESTRICTIONS[key][0]


def refusal(project: str, config: Config, what: str, member: Member, key: str) -> Forbidden:
    """The error for something of an instance or profile that a key of a restricted project forbids."""
    if how := config.get(key, ""):
        reason = f"{key} is {how}"
    elif key in RESTRICTIONS:
        reason = f"{key} is {RESTRICTIONS[key][0]} where nothing else is set"
    else:
        reason = "no key allows it"
    return Forbidden(f"{what} of {member.label} is forbidden in project {project!r}: {reason}")


def check_restrictions(project: str, config: Config, member: Member) -> None:
    """Raises `Forbidden` for what a restricted project does not let an instance or profile have."""
    if not restricted(config):
        return

    def refuse(what: str, key: str) -> Forbidden:
        return refusal(project, config, what, member, key)

    def true(key: str) -> bool:
        return values.boolean(key, member.config.get(key) or "false")

    if true("security.nesting") and answer(config, "restricted.containers.nesting") == "block":
        raise refuse("security.nesting", "restricted.containers.nesting")
    # Every unprivileged instance has an id map of its own here: all of them are isolated in LXD's sense.
    if true("security.privileged") and answer(config, "restricted.containers.privilege") != "allow":
        raise refuse("security.privileged", "restricted.containers.privilege")
    if answer(config, "restricted.containers.lowlevel") == "block":
        for key in member.config:
            if key == "raw.idmap" and any(config.get(one) for one in _IDS):
                _check_ids(config, member, refuse)
            elif key in _LOWLEVEL or key.startswith(_LOWLEVEL_PREFIXES):
                raise refuse(key, "restricted.containers.lowlevel")
    for name, device in member.devices.items():
        kind = device.get("type", "none")
        if kind == "disk":
            _check_disk(config, name, device, refuse)
        elif kind == "nic":
            _check_nic(config, name, device, refuse)
        elif kind != "none":
            # A type that no key is for is forbidden as well: nobody has thought of what it gives away.
            key = f"restricted.devices.{kind}"
            if key not in RESTRICTIONS or answer(config, key) != "allow":
                raise refuse(f"Device {name!r}", key)


_Refuse = Callable[[str, str], Forbidden]


def _id_ranges(key: str, value: str) -> list[tuple[int, int]]:
    """Ranges of ids such as ``1000,2000-2999``. Raises `BadRequest`."""
    found = []
    for part in _listed(value):
        first, dash, last = part.partition("-")
        if not all(one.isascii() and one.isdigit() and len(one) < 11 for one in ((first, last) if dash else (first,))):
            raise BadRequest(f"Invalid value for {key}: {part!r} is no id and no range of ids (1000, 2000-2999)")
        ends = int(first), int(last if dash else first)
        if ends[1] < ends[0]:
            raise BadRequest(f"Invalid value for {key}: {part!r} runs backwards")
        found.append(ends)
    return found


def _check_ids(config: Config, member: Member, refuse: _Refuse) -> None:
    for kind, first, last in member.ids:
        key = f"restricted.idmap.{kind}"
        if not any(low <= first and last <= high for low, high in _id_ranges(key, config.get(key, ""))):
            raise refuse(f"raw.idmap to the {kind}s {first}-{last} of the host", key)


def _check_disk(config: Config, name: str, device: dict[str, str], refuse: _Refuse) -> None:
    key = "restricted.devices.disk"
    allowed = answer(config, key)
    if _is_root(device):
        return
    if allowed == "block" or (allowed == "managed" and not device.get("pool")):
        raise refuse(f"Disk {name!r}", key)
    paths, source = disk_paths(config), device.get("source", "")
    # By the path alone; that no link in it leads elsewhere is seen to when it is mounted.
    if not device.get("pool") and paths and not any(below(source, top) for top in paths):
        raise refuse(f"Disk {name!r} ({source})", f"{key}.paths")


def _check_nic(config: Config, name: str, device: dict[str, str], refuse: _Refuse) -> None:
    key = "restricted.devices.nic"
    allowed = answer(config, key)
    if allowed == "block" or (allowed == "managed" and not device.get("network")):
        raise refuse(f"Network card {name!r}", key)
    networks = _listed(config.get("restricted.networks.access", ""))
    if networks and (used := device.get("network") or device.get("parent")) and used not in networks:
        raise refuse(f"Network {used!r}", "restricted.networks.access")


def _is_root(device: dict[str, str]) -> bool:
    return device.get("type") == "disk" and device.get("path") == "/" and "source" not in device


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def disk_paths(config: Config) -> list[str]:
    """Directories of the host that the disks of a restricted project have to lie in; none: anywhere."""
    key = "restricted.devices.disk"
    if not restricted(config) or answer(config, key) != "allow":
        return []
    return [os.path.normpath(path) for path in _listed(config.get(f"{key}.paths", ""))]


def below(path: str, top: str) -> bool:
    """Whether an absolute path is `top` or lies in it, by its text."""
    return ".." not in path.split("/") and (path == top or path.startswith(top.rstrip("/") + "/"))

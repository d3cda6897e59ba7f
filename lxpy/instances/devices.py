"""The devices lxpy honours, and how their keys are checked. Names and meaning: LXD's devices."""

import difflib
import ipaddress
import re

from lxpy.api import values
from lxpy.api.errors import BadRequest, InternalError
from lxpy.api.objects import Devices
from lxpy.instances import limits, nicrules, noderules, proxyrules
from lxpy.networks.config import check_key as check_network_key

_NIC_KEYS = frozenset(
    {
        "type",
        "network",
        "nictype",
        "parent",
        "name",
        "hwaddr",
        "host_name",
        "mtu",
        "ipv4.address",
        "ipv6.address",
        "security.acls",
        "security.acls.default.egress.action",
        "security.acls.default.egress.logged",
        "security.acls.default.ingress.action",
        "security.acls.default.ingress.logged",
        *nicrules.KEYS,
    }
)
_DISK_KEYS = frozenset(
    {
        "type",
        "path",
        "source",
        "pool",
        "readonly",
        "recursive",
        "required",
        "shift",
        "propagation",
        "owner",
        "raw.mount.options",
        "limits.read",
        "limits.write",
        "limits.max",
    }
)
_DISK_LIMITS = ("limits.read", "limits.write", "limits.max")
_MOUNT_OPTIONS = ("ro", "nosuid", "nodev", "noexec")
# LXD has these; why they are refused here.
_DISK_NOT_YET = {
    "size": "only a custom volume has a size: set it on the volume (storage volume set POOL VOLUME size=...)",
    "boot.priority": "it is for virtual machines",
    "io.cache": "it is for virtual machines",
    "io.bus": "it is for virtual machines",
    "ceph.cluster_name": "there is no Ceph driver",
    "ceph.user_name": "there is no Ceph driver",
}
_PROPAGATION = {
    **dict.fromkeys(
        ("shared", "rshared"), "what an instance mounts never appears on the host; slave goes the other way"
    ),
    **dict.fromkeys(("unbindable", "runbindable"), "an instance may mount again what it has"),
}
_KNOWN_DEVICES = f"nic, disk, {', '.join(noderules.KEYS)}, proxy, none"
_IFNAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}\Z")
_MAC = re.compile(r"(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\Z")


def validate(devices: Devices, *, expanded: bool = False) -> None:
    """Raises `BadRequest` for a faulty device; with `expanded` also when there is no root disk, or two."""
    if not isinstance(devices, dict):
        raise BadRequest("Devices must be an object of device name to device keys")
    for name, device in devices.items():
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise BadRequest(f"Invalid device name {name!r}: use letters, digits, dots, dashes and underscores")
        if not isinstance(device, dict) or not all(isinstance(v, str) for v in device.values()):
            raise BadRequest(f"Device {name!r} must be an object of key to text")
        _validate_device(name, device)
    if expanded:
        roots = [name for name, device in devices.items() if is_root(device)]
        if not roots:
            raise BadRequest(
                "No root device could be found: give a storage pool with -s POOL, or run `lxpy init --auto` "
                "so that the default profile has one"
            )
        if len(roots) > 1:
            raise BadRequest(f"More than one root disk: {', '.join(roots)}")
        proxyrules.check_together(devices)
        places: dict[str, str] = {}
        for name, device in devices.items():
            if path := _place(device):
                place = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
                if place in places:
                    raise BadRequest(f"The devices {places[place]!r} and {name!r} would both be mounted at {place}")
                places[place] = name


def _place(device: dict[str, str]) -> str:
    """Where in the instance something is mounted for a device, as far as its keys say; else empty."""
    if device.get("type") in ("unix-char", "unix-block"):
        return noderules.path(device)
    return device["path"] if device.get("type") == "disk" else ""


def is_root(device: dict[str, str]) -> bool:
    """Whether this is the root disk (``type=disk path=/`` with a pool)."""
    return device.get("type") == "disk" and device.get("path") == "/" and "source" not in device


def _validate_device(name: str, device: dict[str, str]) -> None:
    kind = device.get("type", "")
    where = f"device {name!r}"
    if kind == "none":
        _only(where, device, frozenset({"type"}))
    elif kind == "nic":
        _validate_nic(where, device)
    elif kind == "disk":
        _validate_disk(where, device)
    elif kind in noderules.KEYS:
        noderules.refused_keys(where, device)
        _only(where, device, noderules.KEYS[kind])
        noderules.check(where, device)
    elif kind == "proxy":
        _only(where, device, proxyrules.KEYS)
        proxyrules.check(where, device)
    elif kind in noderules.REFUSED:
        raise BadRequest(f"type={kind} on {where} is not supported: {noderules.REFUSED[kind]}")
    elif not kind:
        raise BadRequest(f"Missing type on {where}: one of {_KNOWN_DEVICES}")
    else:
        raise BadRequest(f"Unsupported type {kind!r} on {where}: this version of lxpy knows {_KNOWN_DEVICES}")


def _only(where: str, device: dict[str, str], known: frozenset[str]) -> None:
    for key in device:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1, cutoff=0.75)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(sorted(known))}"
            raise BadRequest(f"Unknown key {key!r} on {where}{hint}")


def _validate_nic(where: str, nic: dict[str, str]) -> None:
    nicrules.check(where, nic)
    unbridged = nicrules.UNBRIDGED.get(nic.get("nictype", ""))
    _only(where, nic, unbridged or _NIC_KEYS)
    if not unbridged and "network" not in nic and "parent" not in nic:
        raise BadRequest(f"Missing network (or nictype=bridged with parent) on {where}")
    if "network" in nic and "parent" in nic:
        raise BadRequest(f"Both network and parent on {where}: give one of them")
    for key in ("name", "host_name"):
        if key in nic and not _IFNAME.match(nic[key]):
            raise BadRequest(f"Invalid {key} {nic[key]!r} on {where}: an interface name has 1 to 15 characters")
    if "hwaddr" in nic and (not _MAC.match(nic["hwaddr"]) or int(nic["hwaddr"][:2], 16) & 1):
        raise BadRequest(f"Invalid hwaddr {nic['hwaddr']!r} on {where}: a unicast MAC such as 00:16:3e:12:34:56")
    for key, value in nic.items():
        if key.startswith("security.acls"):
            check_network_key(key, value)
    if "mtu" in nic and not (nic["mtu"].isdigit() and 68 <= int(nic["mtu"]) <= 65535):
        raise BadRequest(f"Invalid mtu {nic['mtu']!r} on {where}: 68 to 65535")
    if unbridged:
        return
    for key, parse in (("ipv4.address", ipaddress.IPv4Address), ("ipv6.address", ipaddress.IPv6Address)):
        if nic.get(key, "none") not in ("none", ""):
            try:
                parse(nic[key])
            except ValueError:
                raise BadRequest(f"Invalid {key} {nic[key]!r} on {where}: an address without prefix") from None


def _validate_disk(where: str, disk: dict[str, str]) -> None:
    path = disk.get("path", "")
    for key, why in _DISK_NOT_YET.items():
        if key in disk and not (key == "size" and is_root(disk)):
            raise BadRequest(f"{key} on {where} is not supported: {why}")
    _only(where, disk, _DISK_KEYS | {"size"})
    for key in _DISK_LIMITS:
        if disk.get(key):
            limits.check_disk_limit(f"{key} on {where}", disk[key])
    if disk.get("limits.max") and (disk.get("limits.read") or disk.get("limits.write")):
        raise BadRequest(f"Both limits.max and limits.read or limits.write on {where}: limits.max stands for both")
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise BadRequest(f"Invalid path {path!r} on {where}: an absolute path inside the instance, without ..")
    if is_root(disk):
        if not disk.get("pool"):
            raise BadRequest(f"Missing pool on {where}: the root disk needs a storage pool")
        for key in _DISK_KEYS - {"type", "path", "pool", *_DISK_LIMITS}:
            if key in disk:
                raise BadRequest(f"{key} on {where} is not supported: this is the root disk")
        if "size" in disk:
            values.size_bytes(f"size on {where}", disk["size"])
        return
    source = disk.get("source", "")
    if not path.strip("/"):
        raise BadRequest(f"{where} would cover the root: its path cannot be /")
    if source == "cloud-init:config":
        raise BadRequest(
            f"source={source} on {where} is for virtual machines: a container finds its seed in /var/lib/cloud/seed, "
            "set cloud-init.user-data"
        )
    if source.startswith(("tmpfs:", "cloud-init:", "ceph:", "cephfs:")):
        raise BadRequest(f"source={source} on {where} is not supported: give pool=POOL source=VOLUME or a host path")
    if disk.get("pool"):
        if not source or "/" in source:
            raise BadRequest(f"Invalid source {source!r} on {where}: the name of a custom volume on {disk['pool']!r}")
        for key in ("recursive", "shift", "owner", "propagation"):
            if key in disk:
                raise BadRequest(
                    f"{key} on {where} is for host paths only: a volume always goes through the id map, whole and alone"
                )
    elif not source.startswith("/"):
        raise BadRequest(
            f"Invalid source {source!r} on {where}: an absolute path on the host (or pool=POOL source=VOLUME)"
        )
    if (propagation := disk.get("propagation") or "private") not in ("private", "rprivate", "slave", "rslave"):
        why = _PROPAGATION.get(propagation, "private, rprivate, slave or rslave")
        raise BadRequest(f"propagation={propagation} on {where} is not supported: {why}")
    if disk.get("owner"):
        owner(f"owner on {where}", disk["owner"])
        if disk.get("shift") and not values.boolean(f"shift on {where}", disk["shift"]):
            raise BadRequest(f"Both owner and shift=false on {where}: owner is a way of shifting")
    for option in disk.get("raw.mount.options", "").replace(",", " ").split():
        if option not in _MOUNT_OPTIONS:
            raise BadRequest(
                f"raw.mount.options={option} on {where} is not supported: the disk is a clone of what the host has "
                f"mounted and takes {', '.join(_MOUNT_OPTIONS)} only"
            )
    for key in ("readonly", "recursive", "required", "shift"):
        if key in disk:
            values.boolean(f"{key} on {where}", disk[key])


def owner(key: str, text: str) -> list[int]:
    """uid and gid of ``UID[:GID]``. Raises `BadRequest`."""
    uid, colon, gid = text.partition(":")
    parts = [uid, gid if colon else uid]
    if not all(re.fullmatch(r"[0-9]{1,5}", part) and int(part) < 65536 for part in parts):
        raise BadRequest(f"Invalid {key} {text!r}: UID or UID:GID inside the instance, each below 65536")
    return [int(part) for part in parts]


def root_pool(devices: Devices) -> str:
    """The pool of the root disk of checked, expanded devices."""
    for device in devices.values():
        if is_root(device):
            return device["pool"]
    raise InternalError("the devices were not checked for a root disk")

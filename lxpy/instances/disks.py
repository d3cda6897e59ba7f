"""The disks of an instance besides its root: custom volumes and paths of the host, mounted at its start or later."""

import os
from collections.abc import Callable

from lxpy.api import values
from lxpy.api.errors import ApiError, Conflict, InternalError, NotFound
from lxpy.api.notices import DISK, Notice
from lxpy.api.objects import Devices
from lxpy.instances import devices as device_rules
from lxpy.instances.hotplug import Device, Running
from lxpy.instances.live import Live
from lxpy.instances.records import Records, underscored
from lxpy.runtime.attach import guest_path
from lxpy.runtime.spawner_client import Spawner
from lxpy.runtime.spec import Mount
from lxpy.state.store import InstanceRow
from lxpy.state.volumes import VolumeRow
from lxpy.storage.volumes import VolumeManager


class Disks:
    """What the disks of expanded devices mean; a kind of `hotplug`.

    Args:
        beneath: the directories of the host that a project's disks have to lie in; none: anywhere.
    """

    def __init__(
        self, records: Records, volumes: VolumeManager, spawner: Spawner, warn: Callable[[str], None],
        beneath: Callable[[str], list[str]],
    ) -> None:  # fmt: skip
        self._records, self._volumes, self._spawner, self._warn = records, volumes, spawner, warn
        self._beneath = beneath

    def check(self, project: str, devices: Devices) -> None:
        """Raises `NotFound` for a volume that is not there, and `Conflict` for one that is on its way out."""
        for device in devices.values():
            if is_volume(device) and _required(device):
                self._volumes.path(device["pool"], self._volumes.home(project), device["source"])

    def mounts(self, project: str, devices: Devices) -> list[Mount]:
        """What the runtime is to mount. Raises `NotFound` for a required source that is not there."""
        return [self._mount(project, device) for device in devices.values() if is_disk(device)]

    def source(self, project: str, device: Device) -> str:
        """The path of the host that a disk is mounted from; "" when it is not there and need not be."""
        return self._mount(project, device)["source"]

    def _mount(self, project: str, device: Device) -> Mount:
        source, required = device["source"], _required(device)
        if is_volume(device):
            try:
                source = self._volumes.path(device["pool"], self._volumes.home(project), source)
            except ApiError:
                if required:
                    raise
                source = ""  # found by nobody, and skipped
        elif required and not os.path.exists(source):
            raise NotFound(f"Missing source path {source!r} for the disk at {device['path']}")
        mount: Mount = {
            "beneath": [] if is_volume(device) else self._beneath(project),
            "source": source,
            "target": device["path"],
            "readonly": _flag(device, "readonly", "false"),
            "recursive": _flag(device, "recursive", "false"),
            "required": required,
            "shift": _flag(device, "shift", "true"),
            "options": device.get("raw.mount.options", "").replace(",", " ").split(),
        }
        if device.get("owner"):
            mount["owner"] = device_rules.owner("owner", device["owner"])
        if device.get("propagation", "").endswith("slave"):
            mount["propagation"] = "slave"
        return mount

    # -- who uses a volume -------------------------------------------------------------------------------------

    def users(self, volume: VolumeRow) -> list[InstanceRow]:
        """The instances a volume is attached to, by their own devices or a profile's."""
        return [
            row for row in self._records
            if self._volumes.home(row.project) == volume.project
            and any(names(device, volume) for device in self._records.expanded(row)[1].values())
        ]  # fmt: skip

    # -- while the instance runs -------------------------------------------------------------------------------

    async def plug(self, running: Running, name: str, device: Device) -> None:
        if not is_disk(device):
            return
        row = self._records.current(running.row) or running.row
        mount = self._mount(row.project, device)
        # Written down first: killed at any moment, the next daemon knows what may be mounted without a device.
        running.row = self._note(row, name, device["path"])
        try:
            await self._spawner.plug_disk(running.live.supervisor, mount)
        except BaseException:
            running.row = self._note(running.row, name, None)
            raise

    async def unplug(self, running: Running, name: str, device: Device) -> None:
        if not is_disk(device):
            return
        row = self._records.current(running.row) or running.row
        place = device["path"].rstrip("/") + "/"
        below = [
            n for n, one in running.live.devices.items()
            if is_disk(one) and one["path"].startswith(place) and running.wanted.get(n) == one  # it stays
        ]  # fmt: skip
        if below:
            raise Conflict(f"The disk {name!r} cannot go: {below[0]!r} is mounted below it; remove that first")
        mount = self._mount(row.project, {**device, "required": "false"})
        if await self._spawner.unplug_disk(running.live.supervisor, mount) == "busy":
            self._warn(
                Notice(
                    f"The disk {name!r} of instance {row.name!r} was in use when it was taken away: "
                    "processes inside keep the files they have open",
                    DISK,
                    f"/1.0/instances/{row.name}",
                    row.project,
                )
            )
        running.row = self._note(row, name, None)

    def _note(self, row: InstanceRow, name: str, path: str | None) -> InstanceRow:
        return self._records.set_volatile(self._records.current(row) or row, **underscored({f"{name}.mount": path}))

    def forget(self, row: InstanceRow) -> InstanceRow:
        """At a start nothing is plugged in by hand any more."""
        stale = {f"{name}.mount" for name in _noted(row)}
        return self._records.set_volatile(row, **underscored(dict.fromkeys(stale)))

    async def adopt(self, row: InstanceRow, live: Live) -> InstanceRow:
        """After a restart of the daemon: a change cut off before it was written down is taken back.

        Takes disks away that no device has, and out of ``live.devices`` those that are not mounted, so that they are
        plugged in again.
        """
        missing = {name for name, one in live.devices.items() if is_disk(one) and not _is_mounted(live, one["path"])}
        live.devices = {name: one for name, one in live.devices.items() if name not in missing}
        for name, path in _noted(row).items():
            if live.devices.get(name, {}).get("path") == path:
                continue
            stray: Mount = {
                "source": "", "target": path, "readonly": False, "recursive": False, "required": False, "shift": True,
            }  # fmt: skip
            try:
                await self._spawner.unplug_disk(live.supervisor, stray)
            except ApiError as error:
                self._warn(Notice(str(error), DISK, f"/1.0/instances/{row.name}", row.project))
            row = self._note(row, name, None)
        return row


def _noted(row: InstanceRow) -> dict[str, str]:
    """Where disks were plugged in while the instance ran, by device."""
    found = {key.removeprefix("volatile.").removesuffix(".mount"): path for key, path in row.doc["config"].items()}
    return {name: path for name, path in found.items() if f"volatile.{name}.mount" in row.doc["config"]}


def is_disk(device: Device) -> bool:
    """Whether it is a disk other than the root."""
    return device.get("type") == "disk" and not device_rules.is_root(device)


def is_volume(device: Device) -> bool:
    """Whether it is a disk from a custom volume."""
    return is_disk(device) and bool(device.get("pool"))


def names(device: Device, volume: VolumeRow) -> bool:
    """Whether a device is that volume, projects aside."""
    return is_volume(device) and (device["pool"], device.get("source")) == (volume.pool, volume.name)


def _flag(device: Device, key: str, default: str) -> bool:
    return values.boolean(key, device.get(key) or default)


def _required(device: Device) -> bool:
    return _flag(device, "required", "true")


def _is_mounted(live: Live, path: str) -> bool:
    """Whether anything is mounted at a path of the guest; what cannot be looked at counts as mounted."""
    try:
        with guest_path(live.supervisor, path) as fd:
            inside = os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return False
    except (InternalError, OSError):
        return True
    with open(f"/proc/{live.supervisor.init_pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        points = {line.split(" ")[4] for line in file}
    escaped = inside.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    return escaped in points

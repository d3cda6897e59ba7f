"""The device nodes of instances (unix-char, unix-block, unix-hotplug, usb, gpu), at their start and while they run.

A node is made anew for the guest, with the owner and mode that it asks for; a rule of its cgroup lets it be opened.
"""

import json
import os
from collections.abc import Callable, Iterable
from typing import TypedDict

from lxpy.api.errors import ApiError, BadRequest, InternalError, NotFound
from lxpy.api.notices import DEVICE, Notice
from lxpy.api.objects import Devices
from lxpy.host import hardware
from lxpy.instances import noderules
from lxpy.instances.hotplug import Device, Running
from lxpy.instances.live import Live
from lxpy.instances.records import Records
from lxpy.linux.devices import ALLOWED
from lxpy.linux.devices import Device as Rule
from lxpy.runtime.spawner_client import Spawner
from lxpy.runtime.spec import Node
from lxpy.state.store import InstanceRow

KINDS = frozenset(noderules.KEYS)


class _Note(TypedDict):
    """What a running instance has of a device; `pending`: or may not have, a change was cut off."""

    nodes: list[Node]
    pending: bool


class Nodes:
    """What devices that are nodes mean; a kind of `hotplug`. Its caller holds the instance's lock."""

    def __init__(self, records: Records, spawner: Spawner, warn: Callable[[str], None]) -> None:
        self._records, self._spawner, self._warn = records, spawner, warn

    # -- at the start ------------------------------------------------------------------------------------------

    def at_start(self, row: InstanceRow, devices: Devices) -> tuple[InstanceRow, list[Node]]:
        """The nodes to start with, written down.

        Raises:
            NotFound: a required device is not there.
            BadRequest: it is of the other kind, or its owner is outside the instance's id map.
        """
        found = {name: _wanted(row, name, one) for name, one in devices.items() if one.get("type") in KINDS}
        notes: dict[str, str | None] = dict.fromkeys(_noted(row))
        row = self._set(row, notes | {name: _text(nodes) for name, nodes in found.items() if nodes})
        return row, [node for nodes in found.values() for node in nodes]

    def forget(self, row: InstanceRow) -> InstanceRow:
        """It has ended, and its nodes with it."""
        return self._set(row, dict.fromkeys(_noted(row)))

    # -- while the instance runs -------------------------------------------------------------------------------

    async def plug(self, running: Running, name: str, device: Device) -> None:
        row = self._records.current(running.row) or running.row
        running.row = await self._sync(row, running.live, name, _wanted(row, name, device))

    async def unplug(self, running: Running, name: str, device: Device) -> None:
        row = self._records.current(running.row) or running.row
        running.row = await self._sync(row, running.live, name, [])

    async def refresh(self, row: InstanceRow, live: Live) -> InstanceRow:
        """The host's devices may have changed: the instance has those that are there now."""
        for name, device in live.devices.items():
            if not comes_and_goes(device):
                continue
            try:
                row = await self._sync(row, live, name, _wanted(row, name, {**device, "required": "false"}))
            except ApiError as error:
                self._tell(row, str(error))
        return row

    async def adopt(self, row: InstanceRow, live: Live) -> InstanceRow:
        """After a restart of the daemon: changes cut off are taken back, devices that came meanwhile are given."""
        wanted: dict[str, list[Node]] = {}
        for name, device in live.devices.items():
            if device.get("type") in KINDS:
                try:
                    wanted[name] = _wanted(row, name, device)
                except ApiError as error:
                    self._tell(row, str(error))
        for name in _noted(row).keys() | wanted.keys():
            keeps = name in live.devices and name not in wanted  # not to be found on the host: it stays as it is
            try:
                if not keeps:
                    row = await self._sync(row, live, name, wanted.get(name, []))
            except ApiError as error:
                self._tell(row, str(error))
        try:
            live.cgroup.allow_devices(_rules(row, live.devices))
        except OSError as error:
            self._tell(row, f"The device rules of {row.name!r} could not be set: {error.strerror}")
        return row

    async def _sync(self, row: InstanceRow, live: Live, name: str, wanted: list[Node]) -> InstanceRow:
        """The instance has exactly these nodes of the device `name` afterwards, or those that it had.

        Written down before and after: killed at any moment, the next daemon knows what there may be.
        """
        note = _noted(row).get(name)
        have = note["nodes"] if note else []
        pending = bool(note and note["pending"])
        others = {node["path"] for other, one in _noted(row).items() if other != name for node in one["nodes"]}
        plug = [node for node in wanted if pending or node not in have]
        unplug = [node for node in have if (pending or node not in wanted) and node["path"] not in others]
        if not plug and not unplug and have == wanted:
            return row
        row = self._note(row, name, _text([*have, *(node for node in plug if node not in have)], pending=True))
        try:
            self._allow(row, live)
            await self._spawner.change_nodes(live.supervisor, plug, unplug)
        except BaseException:
            if not pending:
                row = self._note(row, name, _text(have) if note else None)
                self._allow(row, live)
            raise
        row = self._note(row, name, _text(wanted) if wanted else None)
        self._allow(row, live)
        return row

    def _allow(self, row: InstanceRow, live: Live) -> None:
        try:
            live.cgroup.allow_devices(_rules(row, live.devices))
        except FileNotFoundError:
            pass  # it is ending
        except OSError as error:
            raise InternalError(f"Cannot change the device rules of {row.name!r}: {error.strerror}") from error

    def _note(self, row: InstanceRow, name: str, text: str | None) -> InstanceRow:
        return self._set(self._records.current(row) or row, {name: text})

    def _set(self, row: InstanceRow, notes: "dict[str, str | None]") -> InstanceRow:
        return self._records.set_keys(row, {f"volatile.{name}.nodes": text for name, text in notes.items()})

    def _tell(self, row: InstanceRow, text: str) -> None:
        self._warn(Notice(text, DEVICE, f"/1.0/instances/{row.name}", row.project))


def comes_and_goes(device: Device) -> bool:
    """Whether the host may give it, or take it away, while the instance runs."""
    if device.get("type") in ("unix-char", "unix-block"):
        return not noderules.required(device) and not device.get("major")
    return device.get("type") in ("unix-hotplug", "usb")


def waits_in(devices: Iterable[Device]) -> set[str]:
    """The directories in which nodes of these devices may appear."""
    unix = (one for one in devices if comes_and_goes(one) and one["type"] in ("unix-char", "unix-block"))
    return {os.path.dirname(noderules.source(one)) for one in unix}


def _wanted(row: InstanceRow, name: str, device: Device) -> list[Node]:
    """The nodes that the host has for a device now. Raises as `Nodes.at_start`."""
    where = f"device {name!r}"
    uid, gid = int(device.get("uid") or 0), int(device.get("gid") or 0)
    for key, number in (("uid", uid), ("gid", gid)):
        if row.idmap_base is not None and number >= 65536:
            raise BadRequest(f"Invalid {key} {number} on {where}: {row.name!r} has the ids 0 to 65535")
    mode = int(device.get("mode") or "0660", 8)
    found = _unix(where, device) if device["type"] in ("unix-char", "unix-block") else _by_match(device)
    if not found and noderules.required(device):
        if device["type"] in ("unix-char", "unix-block"):
            raise NotFound(
                f"Missing {noderules.source(device)} on the host for {where}: "
                "with required=false the instance gets it once it is there"
            )
        raise NotFound(f"No {_WORDS[device['type']]} of this host is what {where} asks for")
    return [
        {"path": path, "source": source, "kind": one.kind, "major": one.major, "minor": one.minor,
         "uid": uid, "gid": gid, "mode": mode, "event": one.event}
        for path, source, one in found
    ]  # fmt: skip


_WORDS = {"unix-hotplug": "device", "usb": "USB device", "gpu": "graphics card"}


def _unix(where: str, device: Device) -> list[tuple[str, str, hardware.HostNode]]:
    source, path, kind = noderules.source(device), noderules.path(device), device["type"][5]
    if device.get("major"):
        major, minor = int(device["major"]), int(device["minor"])
        return [(path, "", hardware.HostNode(source, kind, major, minor))]
    try:
        one = hardware.numbers(source)
    except OSError as error:
        raise BadRequest(f"{source} for {where} cannot be used: {error.strerror}") from None
    if one is None:
        return []
    if one.kind != kind:
        other = "unix-block" if kind == "c" else "unix-char"
        raise BadRequest(f"{source} for {where} is of the other kind: use type={other}")
    return [(path, source, one)]


def _by_match(device: Device) -> list[tuple[str, str, hardware.HostNode]]:
    def key(name: str) -> str:
        return device.get(name, "")

    vendor, product = key("vendorid"), key("productid")
    if device["type"] == "usb":
        found = hardware.usb(vendor, product, key("serial"), key("busnum"), key("devnum"))
    elif device["type"] == "gpu":
        found = hardware.gpus(key("id"), key("pci"), vendor, product)
    else:
        found = hardware.by_ids(vendor, product, key("subsystem"))
    return [(f"/dev/{one.name}", f"/dev/{one.name}", one) for one in found]


def _rules(row: InstanceRow, devices: Devices) -> tuple[Rule, ...]:
    """What the cgroup allows: what every guest may use, its nodes, and nodes that it has as disks."""
    rules: list[Rule] = [
        (node["kind"], node["major"], node["minor"]) for note in _noted(row).values() for node in note["nodes"]
    ]
    for one in devices.values():
        if one.get("type") == "disk" and one.get("source", "").startswith("/"):
            try:
                disk = hardware.numbers(one["source"])
            except OSError:
                continue
            if disk:
                rules.append((disk.kind, disk.major, disk.minor))
    return ALLOWED + tuple(rules)


def _text(nodes: list[Node], pending: bool = False) -> str:
    return json.dumps({"nodes": nodes, "pending": pending})


def _noted(row: InstanceRow) -> dict[str, _Note]:
    """The nodes that a running instance has, by device."""
    found: dict[str, _Note] = {}
    for key, text in row.doc["config"].items():
        if key.startswith("volatile.") and key.endswith(".nodes"):
            try:
                found[key.removeprefix("volatile.").removesuffix(".nodes")] = json.loads(text)
            except ValueError:
                continue
    return found

"""Making an instance of a backup, while it comes in: nothing of it is kept anywhere but where it belongs."""

import contextlib
import platform
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from lxpy.api import expiry, values
from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.layout import qualified
from lxpy.api.objects import Config, Devices
from lxpy.images import architectures, metadata
from lxpy.images.architectures import kernel_name
from lxpy.images.metadata import Archive
from lxpy.instances import changes, keys, rootsize
from lxpy.instances import devices as device_rules
from lxpy.instances.backupindex import Described
from lxpy.instances.devices import is_root
from lxpy.instances.parts import Parts
from lxpy.instances.snapshots import KEPT
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import backupfiles, files
from lxpy.storage.backupreader import BackupReader
from lxpy.storage.owners import Owners
from lxpy.storage.pool import Pool

_CONTAINER = "backup/container/rootfs"
_SNAPSHOTS = "backup/snapshots/"
TREES = (_CONTAINER, f"{_SNAPSHOTS}*/rootfs")


@dataclass(frozen=True)
class Overrides:
    """What an instance is to be, other than its backup says.

    Attributes:
        name: "" for the one that it has in the backup. pool: "" for the one it was on, or the default.
        config, devices: over its own; an empty value takes a key away, a device has its keys over those it had.
        profiles, ephemeral: None for as it was.
        fresh: whether it gets addresses and an identity of its own, as a copy does.
    """

    name: str = ""
    pool: str = ""
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    profiles: list[str] | None = None
    ephemeral: bool | None = None
    fresh: bool = False


class Imports:
    """Makes instances of backups."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def validate(self, project: str, asked: Overrides) -> None:
        """What can be told before anything has come. Raises `BadRequest`, `Conflict`, `NotFound`."""
        if asked.name:
            values.instance_name(asked.name)
            self._free(project, asked.name)
        if asked.pool:
            self._parts.storage.pool(asked.pool)

    def _free(self, project: str, name: str) -> None:
        if self._parts.creation.taken(project, name):
            raise Conflict(f"Instance {name!r} already exists: import it under another name")

    async def receive(
        self, project: str, asked: Overrides, source: int, start: bytes, named: Callable[[str], None],
        note: Callable[[str], None],
    ) -> InstanceRow:  # fmt: skip
        """An instance of the backup that comes in on a descriptor. Undone whole when it fails or is cancelled.

        Args:
            source, start: see `storage.unpack.plain`; whoever writes ends a cancelled import by closing its end.
            named: told the instance's name as soon as it is known.
            note: told what of the backup the pool cannot keep.

        Raises:
            BadRequest: the backup is damaged, or asks for what is not possible here.
        """
        reader = BackupReader(source, start, "Import backup", TREES)
        # A thread of its own: it may wait for a slow client for hours.
        with ThreadPoolExecutor(1, "import") as thread:
            blocking = backupfiles.blocking_in(thread)
            try:
                await blocking(reader.begin)
                plan = self._plan(project, asked, reader)
                named(plan.name)
                if plan.note:
                    note(plan.note)
                return await self._make(project, plan, reader, blocking)
            finally:
                reader.close()

    # -- what is to be made ----------------------------------------------------------------------------------------

    def _plan(self, project: str, asked: Overrides, reader: BackupReader) -> "_Plan":
        index = reader.index
        kind = str(index.get("type") or "container")
        if kind != "container":
            raise reader.fault(
                "it is of a virtual machine: lxpy runs containers" if kind == "virtual-machine"
                else "it is of a storage volume: lxpy storage volume import" if kind == "custom"
                else f"unknown type {kind!r}"
            )  # fmt: skip
        config = index.get("config")
        if not isinstance(config, dict):
            raise reader.fault("its index.yaml has no configuration: it was made by a version of LXD before 4.0")
        given = config.get("container") or config.get("instance")
        found = Described("Import backup", given)
        name = asked.name or found.name or str(index.get("name") or "")
        values.instance_name(name)
        self._free(project, name)
        if index.get("optimized"):
            raise reader.fault(
                f"it was made with --optimized-storage on {index.get('backend')}: export it again without"
            )
        architecture = found.doc["architecture"] or platform.machine()
        if kernel_name(architecture) not in architectures.native():
            raise reader.fault(f"it is of a machine of the architecture {architecture}: this is {platform.machine()}")
        store = self._pool(project, asked.pool, str(index.get("pool") or ""))
        plan = _Plan(name, store.name, found, name != found.name)
        self._override(project, found.doc, asked)
        self._check(project, plan, found.doc, asked.devices)
        self._distinguish(plan, asked.fresh)
        for given in config.get("snapshots") or ():
            self._add_snapshot(project, plan, Described("Import backup", given))
        if plan.snapshots:
            self._parts.rules.check_snapshot(project)
        return plan

    def _override(self, project: str, doc: Document, asked: Overrides) -> None:
        if asked.profiles is not None:
            doc["profiles"] = asked.profiles
        if asked.ephemeral is not None:
            doc["ephemeral"] = asked.ephemeral
        merged = doc["config"] | asked.config
        doc["config"] = {key: value for key, value in merged.items() if value != ""}
        if asked.devices:
            had = self._expanded_of_backup(project, doc)[1]
            given = {name: {**had.get(name, {}), **device} for name, device in asked.devices.items()}
            doc["devices"] = doc["devices"] | values.stated(given)

    def _add_snapshot(self, project: str, plan: "_Plan", found: Described) -> None:
        name = found.name.rpartition("/")[2]
        values.object_name("snapshot", name)
        if name in plan.snapshots:
            raise BadRequest(f"Import backup: its index.yaml tells of the snapshot {name!r} twice")
        # What it was configured like is looked at when it is restored: profiles may come again until then.
        if set(found.doc["profiles"]) <= set(self._parts.profiles.names(project)):
            self._root_disk(project, plan.pool, found.doc, {})
        keep = (*KEPT, "created_at", "expires_at")
        found.doc = {key: found.doc[key] for key in keep} | {"expires_at": expiry.moment(found.doc["expires_at"])}
        plan.snapshots[name] = found

    def _pool(self, project: str, asked: str, old: str) -> Pool:
        if asked:
            return self._parts.storage.pool(asked)
        with contextlib.suppress(NotFound):
            return self._parts.storage.pool(old)
        devices = self._parts.profiles.expand(project, ["default"], {}, {})[1]
        if not any(is_root(device) for device in devices.values()):
            raise BadRequest("Import backup: no pool to put it on: name one with --storage")
        return self._parts.storage.pool(device_rules.root_pool(devices))

    def _check(self, project: str, plan: "_Plan", doc: Document, asked: Devices) -> None:
        """Whether an instance can be so; its root disk comes to be on the plan's pool."""
        changes.check_profiles(doc["profiles"])
        plan.note = self._root_disk(project, plan.pool, doc, asked)
        keys.validate_config(doc["config"])
        device_rules.validate(doc["devices"])
        config, devices = self._expanded(project, doc)
        device_rules.validate(devices, expanded=True)
        self._parts.check_references(devices, project)
        self._parts.rules.check(project, plan.name, config, devices)
        rootsize.check(self._parts.storage, plan.pool, devices)

    def _expanded(self, project: str, doc: Document) -> tuple[Config, Devices]:
        return self._parts.profiles.expand(project, doc["profiles"], doc["config"], doc["devices"])

    def _expanded_of_backup(self, project: str, doc: Document) -> tuple[Config, Devices]:
        try:
            return self._expanded(project, doc)
        except NotFound as error:
            raise NotFound(f"Import backup: {error}: create it first (it may be empty)") from None

    def _root_disk(self, project: str, pool: str, doc: Document, asked: Devices) -> str:
        """Have the root disk on the pool. What of it had to be left out for that, and was not `asked` for, is said."""
        devices = self._expanded_of_backup(project, doc)[1]
        name = next((n for n, device in devices.items() if is_root(device)), "root")
        had = devices.get(name, {"type": "disk", "path": "/"})
        root, note = {**had, "pool": pool}, ""
        try:
            rootsize.check(self._parts.storage, pool, {name: root})
        except BadRequest as error:
            if asked.get(name, {}).get("size"):
                raise
            # Where it comes from sizes may be kept; the pool it goes to may be the only one there is.
            note = f"The root disk's size, {root.pop('size')}, is left out: {error}"
        if root != had:
            doc["devices"] = doc["devices"] | {name: root}
        return note

    def _distinguish(self, plan: "_Plan", fresh: bool) -> None:
        """Two instances of one backup must not have one address, nor one identity: not even on different servers."""
        config = plan.found.doc["config"]
        if fresh:
            for key in [key for key in config if key.startswith("volatile.") and key != "volatile.base_image"]:
                del config[key]
        taken = {
            value for row in self._parts.records for key, value in row.doc["config"].items()
            if key.endswith(".hwaddr") or key == "volatile.uuid"
        }  # fmt: skip
        for key in [key for key in config if key.startswith("volatile.") and config[key] in taken]:
            del config[key]
        config.setdefault("volatile.uuid", str(uuid.uuid4()))
        if plan.renamed:
            config.pop("volatile.cloud-init.instance-id", None)
        config.setdefault("volatile.cloud-init.instance-id", str(uuid.uuid4()))
        config["volatile.last_state.power"] = "STOPPED"

    # -- making it -------------------------------------------------------------------------------------------------

    async def _make(self, project: str, plan: "_Plan", reader: BackupReader, blocking: Any) -> InstanceRow:
        parts = self._parts
        pool, volume = parts.storage.pool(plan.pool), qualified(project, plan.name)
        doc = {key: value for key, value in plan.found.doc.items() if key != "expires_at"}
        async with contextlib.AsyncExitStack() as undo:
            row = parts.creation.insert(project, plan.name, plan.pool, doc | {"creating": True})
            undo.callback(self._forget, row)
            undo.push_async_callback(pool.delete_instance, volume)
            await pool.create_instance(volume, None)
            whole, there = False, set()
            with files.disk_errors("Import backup", pool.name, pool.source):
                while tree := await blocking(reader.tree):
                    if whole:
                        raise reader.fault(f"{tree} comes after the instance itself")
                    whole = tree == _CONTAINER
                    snapshot = "" if whole else tree.split("/")[2]
                    if snapshot and snapshot not in plan.snapshots:
                        raise reader.fault(f"its index.yaml does not tell of the snapshot {snapshot!r}")
                    described = plan.snapshots[snapshot] if snapshot else plan.found
                    await blocking(reader.fill, pool.root(volume)["path"], Owners(described.idmap))
                    if snapshot:
                        await pool.set_aside_instance(volume, snapshot)
                        there.add(snapshot)
            if not whole:
                raise reader.fault(f"it holds no {_CONTAINER}")
            if missing := plan.snapshots.keys() - there:
                raise reader.fault(f"it does not hold the snapshot {min(missing)!r}")
            for snapshot, described in plan.snapshots.items():
                parts.snapshots.put(row, snapshot, described.doc)
            for snapshot in ("", *plan.snapshots):
                place = f"backup/snapshots/{snapshot}" if snapshot else "backup/container"
                if archive := read_metadata(reader.files(place)):
                    parts.templates.save(row, archive, snapshot)
            await rootsize.apply(parts.storage, row, self._expanded(project, doc)[1])
            if plan.renamed:
                # LXD's images list only create and copy; a renamed guest should know its name all the same.
                parts.templates.apply(row, "copy", "rename")
            row = parts.records.change(row, creating=False)
            undo.pop_all()
        parts.save(row)
        parts.snapshots.changed()
        parts.emit("instance-created", f"/1.0/instances/{row.name}", project, None)
        return row

    def _forget(self, row: InstanceRow) -> None:
        self._parts.records.delete(row)
        self._parts.snapshots.forget(row)


class _Plan:
    """Attributes:
    renamed: whether the instance has another name than in the backup.
    note: what of it is left out.
    snapshots: by name, oldest first.
    """

    def __init__(self, name: str, pool: str, found: Described, renamed: bool) -> None:
        self.name, self.pool, self.found, self.renamed = name, pool, found, renamed
        self.snapshots: dict[str, Described] = {}
        self.note = ""


def read_metadata(found: dict[str, bytes]) -> Archive | None:
    """What ``metadata.yaml`` and the templates beside a root say; None without them.

    Raises:
        BadRequest: they are damaged.
    """
    if "metadata.yaml" not in found:
        return None
    document = metadata.parse_yaml(found["metadata.yaml"])
    # An empty instance of LXD's has none of it.
    document.setdefault("architecture", platform.machine())
    document["creation_date"] = document.get("creation_date") or 1
    templates = {
        name.removeprefix("templates/"): text.decode(errors="replace")
        for name, text in found.items() if name.startswith("templates/")
    }  # fmt: skip
    return Archive(metadata.validate(document), templates)

"""Backups of custom volumes in LXD's layout: made, kept, streamed, and made volumes of again."""

import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

from lxpy.api import expiry, values
from lxpy.api.errors import InternalError
from lxpy.api.layout import Layout, qualified
from lxpy.state.store import Document, Store
from lxpy.state.volumes import VolumeRow
from lxpy.storage import backupfiles, files, tarwriter, volumekeys
from lxpy.storage.backupfiles import BackupFiles
from lxpy.storage.backupreader import BackupReader
from lxpy.storage.backupyaml import dump, moment, text
from lxpy.storage.manager import StorageManager
from lxpy.storage.owners import Owners
from lxpy.storage.tarwriter import File, Tree
from lxpy.storage.trees import open_directory
from lxpy.storage.volumerefresh import StillVolumes
from lxpy.storage.volumes import VolumeManager, now, url

_VOLUME, _SNAPSHOTS = "backup/volume", "backup/volume-snapshots/"
_TREES = (_VOLUME, f"{_SNAPSHOTS}*")
_DISK_IDMAP = "volatile.idmap.last"  # what the owners on LXD's disk are shifted by

Progress = Callable[[str, str], None]
Place = tuple[str, str, str]


class VolumeBackups:
    """Backups of custom volumes. A `Place` is pool, home project and name.

    Attributes:
        allow: takes a project; raises `Forbidden` when it makes no backups.
    """

    def __init__(
        self, store: Store, layout: Layout, storage: StorageManager, volumes: VolumeManager,
        still: StillVolumes, allow: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._store, self._storage, self._volumes, self._still, self._allow = store, storage, volumes, still, allow
        volumes.forgotten = lambda row: self._files.forget(row.id)
        self._files = BackupFiles(
            f"{layout.backups}/custom", self._ids, self._read, self._write, store.config, ("volume_only",)
        )

    def start(self) -> None:
        self._files.start()

    def close(self) -> None:
        self._files.close()

    def _row(self, owner: int) -> VolumeRow | None:
        return next((row for row in self._store.volumes.all() if row.id == owner), None)

    def _ids(self) -> list[int]:
        return [row.id for row in self._store.volumes.all()]

    def _read(self, owner: int) -> dict[str, Document]:
        row = self._row(owner)
        return dict(row.doc.get("exports") or {}) if row else {}

    def _write(self, owner: int, names: dict[str, Document]) -> None:
        if row := self._row(owner):
            self._volumes.note(row, exports=names)

    # -- what there is ---------------------------------------------------------------------------------------------

    def all(self, place: Place) -> list[dict[str, Any]]:
        """As the API has them. Raises `NotFound`."""
        row = self._volumes.row(*place)
        return [self._files.rendered(row.id, row.name, backup) for backup in self._files.of(row.id)]

    def get(self, place: Place, backup: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        row = self._volumes.row(*place)
        return self._files.rendered(row.id, row.name, backup)

    def path(self, place: Place, backup: str) -> tuple[str, str]:
        """The file of a backup, and the name to save it under. Raises `NotFound`."""
        row = self._volumes.row(*place)
        doc = self._files.get(row.id, backup)
        return self._files.path(row.id, backup), backupfiles.file_name(row.name, doc["compression"])

    def rename(self, place: Place, backup: str, new: str) -> None:
        """Raises `NotFound`, `BadRequest`, `Conflict`."""
        row = self._volumes.row(*place)
        self._files.rename(row.id, backup, new)
        self._volumes.emit("storage-volume-backup-renamed", _url(row, new), row.project, {"old_name": backup})

    def delete(self, place: Place, backup: str) -> None:
        """Raises `NotFound`."""
        row = self._volumes.row(*place)
        self._files.delete(row.id, backup)
        self._volumes.emit("storage-volume-backup-deleted", _url(row, backup), row.project, None)

    # -- making one ------------------------------------------------------------------------------------------------

    def validate(self, place: Place, body: dict[str, Any]) -> str:
        """The name of the backup that a request asks for.

        Raises:
            NotFound, BadRequest, Conflict, Forbidden: what can be told before any work.
        """
        row = self._volumes.row(*place)
        self._allow(row.project)
        return self._files.asked(row.id, body)

    def file_name(self, place: Place, body: dict[str, Any]) -> str:
        """What to save a streamed backup as. Raises as `validate`."""
        self.validate(place, body)
        return backupfiles.file_name(place[2], self._files.compression(body))

    async def create(self, place: Place, body: dict[str, Any], progress: Progress) -> None:
        """Make a backup that is kept; see `validate` for the request. Nothing is left of one that fails."""
        backup = self.validate(place, body)
        row = self._volumes.row(*place)

        async def write(fd: int) -> None:
            await self._pack(row, body, fd, progress)

        await self._files.make(row.id, backup, body, _doing(row), write)
        self._volumes.emit("storage-volume-backup-created", _url(row, backup), row.project, None)

    async def stream(self, place: Place, body: dict[str, Any], output: int, progress: Progress) -> None:
        """Write a backup to a pipe, and keep nothing of it."""
        self.validate(place, body)
        row = self._volumes.row(*place)
        try:
            await self._pack(row, body, output, progress)
        except OSError as error:
            raise InternalError(f"{_doing(row)}: {error.strerror}") from None

    async def _pack(self, row: VolumeRow, body: dict[str, Any], output: int, progress: Progress) -> None:
        pool, volume = self._storage.pool(row.pool), qualified(row.project, row.name)
        async with contextlib.AsyncExitStack() as stack:
            row, still = await stack.enter_async_context(self._still.held(row))
            path = pool.volume_snapshot_path(volume, still) if still else pool.volume_path(volume)
            data = stack.enter_context(open_directory(path))
            kept = {} if backupfiles.record(body)["only"] else self._volumes.kept_snapshots(row)
            trees = []
            for name in kept:
                opened = open_directory(pool.volume_snapshot_path(volume, name))
                trees.append(Tree(stack.enter_context(opened), f"{_SNAPSHOTS}{name}"))
            trees.append(Tree(data, _VOLUME))
            index = File("backup/index.yaml", dump(_index(row, kept, pool.driver)))
            compress, tell = self._files.compression(body), backupfiles.telling(progress)
            await tarwriter.write(_doing(row), [index], trees, output, compress, tell)

    def validate_import(self, pool: str, project: str, name: str) -> None:
        """What can be told before anything has come. Raises `BadRequest`, `Conflict`, `NotFound`."""
        self._storage.pool(pool)
        if name:
            values.object_name("storage volume", name)
            self._volumes.free(pool, project, name)

    # -- making a volume of one ------------------------------------------------------------------------------------

    async def receive(
        self, pool: str, project: str, name: str, source: int, start: bytes, named: Callable[[str], None],
        note: Callable[[str], None],
    ) -> None:  # fmt: skip
        """A volume of the backup that comes in on a descriptor; as `instances.imports.Imports.receive`."""
        reader = BackupReader(source, start, "Import volume", _TREES)
        with ThreadPoolExecutor(1, "import") as thread:
            blocking = backupfiles.blocking_in(thread)
            try:
                await blocking(reader.begin)
                plan = _Plan(reader, name)
                named(plan.name)
                plan.config = volumekeys.fitting(plan.config, self._storage.pool(pool), note)
                await self._make(pool, project, plan, reader, blocking)
            finally:
                reader.close()

    async def _make(self, pool: str, project: str, plan: "_Plan", reader: BackupReader, blocking: Any) -> None:
        async with self._volumes.making(pool, project, plan.name, plan.config, plan.description) as (row, store):
            volume, whole, there = qualified(project, plan.name), False, set()
            await store.create_volume(volume)
            with files.disk_errors("Import volume", store.name, store.source):
                while tree := await blocking(reader.tree):
                    if whole:
                        raise reader.fault(f"{tree} comes after the volume itself")
                    whole = tree == _VOLUME
                    snapshot = "" if whole else tree.removeprefix(_SNAPSHOTS)
                    if snapshot and snapshot not in plan.snapshots:
                        raise reader.fault(f"its index.yaml does not tell of the snapshot {snapshot!r}")
                    await blocking(reader.fill, store.volume_path(volume), plan.owners)
                    if snapshot:
                        await store.set_aside_volume(volume, snapshot)
                        there.add(snapshot)
            if not whole:
                raise reader.fault(f"it holds no {_VOLUME}")
            if missing := plan.snapshots.keys() - there:
                raise reader.fault(f"it does not hold the snapshot {min(missing)!r}")
            if size := volumekeys.size(plan.config):
                await store.set_volume_size(volume, size)
            for snapshot, doc in plan.snapshots.items():
                self._store.volumes.put_snapshot(row, snapshot, doc)
        self._volumes.changed()
        self._volumes.emit("storage-volume-created", url(row), project, None)


class _Plan:
    """What an index asks for. Raises `BadRequest`."""

    def __init__(self, reader: BackupReader, name: str) -> None:
        kind, config = reader.index.get("type"), reader.index.get("config")
        if kind != "custom":
            raise reader.fault("it is of an instance: lxpy import" if kind == "container" else f"unknown type {kind!r}")
        given = config.get("volume") if isinstance(config, dict) else None
        if not isinstance(config, dict) or not isinstance(given, dict):
            raise reader.fault("its index.yaml does not describe the volume")
        if given.get("content_type") not in (None, "", "filesystem"):
            raise reader.fault("it is of a block volume: containers use filesystem volumes")
        if reader.index.get("optimized"):
            raise reader.fault(
                f"it was made with --optimized-storage on {reader.index.get('backend')}: export it again without"
            )
        self.name = name or str(given.get("name") or reader.index.get("name") or "")
        values.object_name("storage volume", self.name)
        keys = _texts(reader, given.get("config"))
        self.owners = Owners(keys.get(_DISK_IDMAP, ""))
        self.config = volumekeys.checked({k: v for k, v in keys.items() if not k.startswith("volatile.")})
        self.description = str(given.get("description") or "")
        self.snapshots: dict[str, Document] = {}
        for one in config.get("volume_snapshots") or ():
            self._add(reader, one)

    def _add(self, reader: BackupReader, one: Any) -> None:
        if not isinstance(one, dict):
            raise reader.fault("its index.yaml does not describe a snapshot")
        name = str(one.get("name") or "").rpartition("/")[2]
        values.object_name("snapshot", name)
        keys = _texts(reader, one.get("config"))
        created = moment(one.get("created_at"))
        self.snapshots[name] = {
            "description": str(one.get("description") or ""),
            "created_at": created if created != expiry.NEVER else now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "expires_at": expiry.moment(moment(one.get("expires_at"))),
            "config": {k: v for k, v in keys.items() if not k.startswith("volatile.")},
        }


def _texts(reader: BackupReader, config: Any) -> dict[str, str]:
    if not isinstance(config or {}, dict):
        raise reader.fault("its index.yaml has a config of a wrong type")
    return {str(key): text(value) for key, value in (config or {}).items()}


def _index(row: VolumeRow, snapshots: dict[str, Document], driver: str) -> Document:
    volume = {
        "name": row.name, "type": "custom", "content_type": "filesystem", "description": row.doc["description"],
        "config": row.doc["config"], "used_by": [], "location": "none", "project": row.project,
        "created_at": row.doc["created_at"],
    }  # fmt: skip
    index: Document = {"name": row.name, "backend": driver, "pool": row.pool}
    if snapshots:
        index["snapshots"] = list(snapshots)
    config: Document = {"volume": volume}
    if snapshots:
        config["volume_snapshots"] = [
            {"name": name, "description": doc["description"], "expires_at": doc["expires_at"], "config": doc["config"],
             "content_type": "filesystem", "created_at": doc["created_at"]} for name, doc in snapshots.items()
        ]  # fmt: skip
    return index | {"optimized": False, "optimized_header": False, "type": "custom", "config": config}


def _doing(row: VolumeRow) -> str:
    return f"Export volume {row.name}"


def _url(row: VolumeRow, backup: str) -> str:
    return f"{url(row).partition('?')[0]}/backups/{quote(backup)}"

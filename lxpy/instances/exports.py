"""Backups of instances in LXD's layout: kept here until they are fetched, or streamed to whoever asks."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from lxpy.api import expiry
from lxpy.api.errors import InternalError
from lxpy.api.layout import qualified
from lxpy.images.manager import Progress
from lxpy.images.metadata import Archive
from lxpy.instances import backupindex, idmaps
from lxpy.instances.parts import Parts
from lxpy.instances.publish import image_files
from lxpy.instances.records import now
from lxpy.instances.snapshots import KEPT
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import backupfiles, tarwriter
from lxpy.storage.backupfiles import BackupFiles
from lxpy.storage.backupyaml import dump
from lxpy.storage.tarwriter import File, Tree


class Exports:
    """Makes, keeps and drops the backups of instances."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._files = BackupFiles(
            f"{parts.layout.backups}/instances", self._ids, self._read, self._write, parts.store.config,
            ("instance_only", "container_only"),
        )  # fmt: skip

    def start(self) -> None:
        self._files.start()

    def close(self) -> None:
        self._files.close()

    def forget(self, row: InstanceRow) -> None:
        """The instance goes, and its backups with it."""
        self._files.forget(row.id)

    def _ids(self) -> list[int]:
        return [row.id for row in self._parts.records]

    def _read(self, owner: int) -> dict[str, Document]:
        row = self._parts.records.by_id(owner)
        return dict(row.doc.get("exports") or {}) if row else {}

    def _write(self, owner: int, names: dict[str, Document]) -> None:
        if row := self._parts.records.by_id(owner):
            self._parts.records.change(row, exports=names)

    # -- what there is ---------------------------------------------------------------------------------------------

    def all(self, project: str, name: str) -> list[dict[str, Any]]:
        """As the API has them. Raises `NotFound`."""
        row = self._parts.records.get(project, name)
        return [self._files.rendered(row.id, row.name, backup) for backup in self._files.of(row.id)]

    def get(self, project: str, name: str, backup: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        row = self._parts.records.get(project, name)
        return self._files.rendered(row.id, row.name, backup)

    def path(self, project: str, name: str, backup: str) -> tuple[str, str]:
        """The file of a backup, and the name to save it under. Raises `NotFound`."""
        row = self._parts.records.get(project, name)
        doc = self._files.get(row.id, backup)
        return self._files.path(row.id, backup), backupfiles.file_name(name, doc["compression"])

    def rename(self, project: str, name: str, backup: str, new: str) -> None:
        """Raises `NotFound`, `BadRequest`, `Conflict`."""
        row = self._parts.records.get(project, name)
        self._files.rename(row.id, backup, new)
        self._parts.emit("instance-backup-renamed", _url(row, new), project, {"old_name": backup})

    def delete(self, project: str, name: str, backup: str) -> None:
        """Raises `NotFound`."""
        row = self._parts.records.get(project, name)
        self._files.delete(row.id, backup)
        self._parts.emit("instance-backup-deleted", _url(row, backup), project, None)

    # -- making one ------------------------------------------------------------------------------------------------

    def validate(self, project: str, name: str, body: dict[str, Any]) -> str:
        """The name of the backup that a request asks for.

        Raises:
            NotFound, BadRequest, Conflict, Forbidden: what can be told before any work.
        """
        row = self._parts.records.get(project, name)
        self._parts.rules.check_backup(project)
        return self._files.asked(row.id, body)

    async def create(self, project: str, name: str, body: dict[str, Any], progress: Progress) -> None:
        """Make a backup that is kept; see `validate` for the request. Nothing is left of one that fails."""
        backup = self.validate(project, name, body)
        row = self._parts.records.get(project, name)

        async def write(fd: int) -> None:
            await self._pack(row, body, fd, progress)

        await self._files.make(row.id, backup, body, _doing(row), write)
        self._parts.emit("instance-backup-created", _url(row, backup), project, None)

    async def stream(self, project: str, name: str, body: dict[str, Any], output: int, progress: Progress) -> None:
        """Write a backup to a pipe, and keep nothing of it."""
        self.validate(project, name, body)
        row = self._parts.records.get(project, name)
        try:
            await self._pack(row, body, output, progress)
        except BrokenPipeError:
            raise InternalError(f"{_doing(row)}: the client has gone") from None
        except OSError as error:
            raise InternalError(f"{_doing(row)}: {error.strerror}") from None
        self._parts.emit("instance-backup-retrieved", _url(row, "stream"), project, None)

    def file_name(self, project: str, name: str, body: dict[str, Any]) -> str:
        """What to save a streamed backup as. Raises as `validate`."""
        self.validate(project, name, body)
        return backupfiles.file_name(name, self._files.compression(body))

    async def _pack(self, row: InstanceRow, body: dict[str, Any], output: int, progress: Progress) -> None:
        only = bool(backupfiles.record(body)["only"])
        async with contextlib.AsyncExitStack() as stack:
            row, root = await stack.enter_async_context(self._root(row))
            snapshots = {} if only else self._parts.snapshots.of(row)
            files = self._head(row, snapshots)
            trees = []
            pool, volume = self._parts.storage.pool(row.pool), qualified(row.project, row.name)
            for name in snapshots:
                # LXD's order. A snapshot that is deleted meanwhile makes the export fail.
                opened = stack.enter_context(pool.open_snapshot(volume, name))
                trees.append(Tree(opened, f"backup/snapshots/{name}/rootfs"))
            trees.append(Tree(root, "backup/container/rootfs"))
            privileged = idmaps.privileged(self._parts.records.expanded(row)[0])
            compress, tell = self._files.compression(body), backupfiles.telling(progress)
            await tarwriter.write(_doing(row), files, trees, output, compress, tell, devices=privileged)

    @contextlib.asynccontextmanager
    async def _root(self, row: InstanceRow) -> AsyncIterator[tuple[InstanceRow, int]]:
        """The instance and a descriptor of its root, that does not change while the body runs.

        A stopped instance cannot be started meanwhile. A running one goes on; what is read is a snapshot of it, which
        nobody else sees.
        """
        parts = self._parts
        pool, volume = parts.storage.pool(row.pool), qualified(row.project, row.name)
        async with contextlib.AsyncExitStack() as stack:
            why = f"Instance {row.name!r} is being exported: wait for it, or cancel it (lxpy operation list)"
            async with parts.life.lock(row).held_long(why):
                row = parts.records.get(row.project, row.name)
                live = parts.life.live(row)
                if live is None:
                    await parts.life.release(row)
                    with pool.open_root(volume) as root:
                        yield row, root
                    return
                name = f"export-{secrets.token_hex(8)}"
                # With the mark of one that is being made it is hidden, and the next start of a daemon removes it.
                doc = {key: row.doc[key] for key in KEPT} | {
                    "creating": True, "created_at": now(), "expires_at": expiry.NEVER,
                }  # fmt: skip
                parts.snapshots.put(row, name, doc)
                stack.push_async_callback(self._drop, row, name)
                async with parts.snapshots.standing_still(row):
                    await pool.snapshot_instance(volume, name)
            yield row, stack.enter_context(pool.open_snapshot(volume, name))

    async def _drop(self, row: InstanceRow, snapshot: str) -> None:
        current = self._parts.records.current(row)
        if current is not None:
            pool = self._parts.storage.pool(current.pool)
            await pool.delete_instance_snapshot(qualified(current.project, current.name), snapshot)
            self._parts.snapshots.drop(current, snapshot)

    def _head(self, row: InstanceRow, snapshots: dict[str, Document]) -> list[File]:
        parts = self._parts
        home = parts.profiles.home(row.project)
        profiles = {name: parts.store.profiles.get(home, name) or {} for name in row.doc["profiles"]}
        both = {name: (doc, parts.snapshots.expanded(row, doc)) for name, doc in snapshots.items()}
        pool = parts.store.pools.get(row.pool) or {}
        index = backupindex.build(row, parts.records.expanded(row), both, pool, profiles)
        files = [File("backup/index.yaml", dump(index))]
        config = dump(index["config"])
        for name, doc in snapshots.items():
            files += _beside(f"backup/snapshots/{name}", config, parts.templates.metadata(row, name, doc))
        return files + _beside("backup/container", config, parts.templates.metadata(row))


def _beside(place: str, config: bytes, archive: Archive) -> list[File]:
    """What lies beside a root file system on LXD's disks."""
    found = [File(place, None, 0o100), File(f"{place}/backup.yaml", config, 0o400)]
    return found + [File(f"{place}/{file.place}", file.content, file.mode) for file in image_files(archive)]


def _doing(row: InstanceRow) -> str:
    return f"Export instance {row.name}"


def _url(row: InstanceRow, backup: str) -> str:
    return f"/1.0/instances/{quote(row.name)}/backups/{quote(backup)}"

"""The volume manager: custom volumes on the pools, and their snapshots.

A row is written before anything happens on the disk and says what is under way: ``creating``, ``deleting``,
``renaming`` (to what). A daemon that was killed in between finds the mark at its next start: volumesettle.py.
"""

import asyncio
import builtins
import contextlib
import datetime
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from lxpy.api import expiry, values
from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.layout import qualified
from lxpy.api.notices import BACKUP_FILE, Notice
from lxpy.state.store import Document, Store
from lxpy.state.volumes import VolumeRow
from lxpy.storage import files, retention, volumekeys
from lxpy.storage.manager import StorageManager
from lxpy.storage.pool import Pool
from lxpy.storage.retention import Plan

Emit = Callable[[str, str, str, Document | None], None]
Allow = Callable[[str, str, str, int | None, VolumeRow | None], None]
TRANSIENT = ("creating", "deleting", "renaming")


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def url(row: VolumeRow, snapshot: str = "") -> str:
    """The volume's (or a snapshot's) path in the API."""
    path = f"/1.0/storage-pools/{quote(row.pool)}/volumes/custom/{quote(row.name)}"
    path += f"/snapshots/{quote(snapshot)}" if snapshot else ""
    return path if row.project == "default" else f"{path}?project={quote(row.project)}"


class VolumeManager:
    """Custom volumes by pool, project and name. `project` is always the volumes' home, see `home`.

    Attributes:
        users: the instances and profiles that a volume is attached to, as URLs; set by the daemon.
        running: names of the running instances among them.
        changed: called when snapshots or schedules are others than before.
        forgotten: told of a volume that has gone.
        allow: takes project, pool, name and size of a volume that is to be, and the one it takes the place of; raises
            `Forbidden` when the project has no room for it.
    """

    def __init__(self, store: Store, storage: StorageManager, emit: Emit, warn: Callable[[str], None]) -> None:
        self._store, self._storage, self.emit, self._warn = store, storage, emit, warn
        self.users: Callable[[VolumeRow], list[str]] = lambda row: []
        self.running: Callable[[VolumeRow], list[str]] = lambda row: []
        self.allow: Allow = lambda project, pool, name, size, instead_of: None
        self.forgotten: Callable[[VolumeRow], None] = lambda row: None
        self._locks: dict[int, asyncio.Lock] = {}
        self._restoring: set[int] = set()
        self.changed: Callable[[], None] = lambda: None

    # -- reading -----------------------------------------------------------------------------------------------

    def home(self, project: str) -> str:
        """The project whose volumes `project` uses: ``default`` where ``features.storage.volumes`` is off."""
        if project == "default":
            return project
        config = (self._store.projects.get(project) or {}).get("config", {})
        key = "features.storage.volumes"
        return project if values.boolean(key, config.get(key, "false")) else "default"

    def list(self, pool: str, project: str | None) -> "builtins.list[dict[str, Any]]":
        """The volumes of a pool and, as LXD lists them, their snapshots: objects named ``VOLUME/SNAPSHOT``."""
        self._storage.pool(pool)
        found = []
        for row in self._store.volumes.all(pool, project):
            if row.doc.get("creating"):
                continue
            found.append(self._render(row))
            for name, doc in self.kept_snapshots(row).items():
                shown = _render_snapshot(row, name, doc)
                found.append({**found[-1], "used_by": [], **shown, "name": f"{row.name}/{name}"})
        return found

    def row(self, pool: str, project: str, name: str) -> VolumeRow:
        """Raises `NotFound`."""
        self._storage.pool(pool)
        row = self._store.volumes.get(pool, project, name)
        if row is None or row.doc.get("creating"):
            raise NotFound(f"Storage volume {name!r} not found on pool {pool!r}")
        return row

    def get(self, pool: str, project: str, name: str) -> dict[str, Any]:
        """The volume as the API has it. Raises `NotFound`."""
        return self._render(self.row(pool, project, name))

    def path(self, pool: str, project: str, name: str) -> str:
        """The directory to mount into instances. Raises `NotFound`, and `Conflict` while it is on its way out."""
        row = self.row(pool, project, name)
        if row.doc.get("deleting") or row.doc.get("renaming") or row.id in self._restoring:
            raise Conflict(f"Storage volume {name!r} on pool {pool!r} is being deleted, moved or restored")
        return self._storage.pool(pool).volume_path(qualified(project, name))

    async def state(self, pool: str, project: str, name: str) -> dict[str, Any]:
        """``{"usage": {"used", "total"}}`` in bytes; a total of 0 is the whole pool."""
        row = self.row(pool, project, name)
        store, volume = self._storage.pool(pool), qualified(project, name)
        used = await store.volume_usage(volume)
        if used is None:
            with files.disk_errors(f"Measure volume {name}", pool, store.source):
                used = await asyncio.to_thread(files.disk_usage, store.volume_path(volume))
        return {"usage": {"used": used, "total": volumekeys.size(row.doc["config"]) or 0}}

    def _render(self, row: VolumeRow) -> dict[str, Any]:
        return {
            "name": row.name,
            "type": "custom",
            "content_type": row.doc["content_type"],
            "project": row.project,
            "pool": row.pool,
            "description": row.doc["description"],
            "location": "none",
            "created_at": row.doc["created_at"],
            "config": row.doc["config"],
            "used_by": self.users(row),
        }

    # -- create, change, delete --------------------------------------------------------------------------------

    async def create(
        self, pool: str, project: str, name: str, config: dict[str, str], description: str, content_type: str
    ) -> None:
        """Make an empty volume. What `config` does not say, the pool's ``volume.*`` keys do.

        Raises:
            BadRequest: a bad name, key or content type. Conflict: the name is taken.
        """
        config = volumekeys.checked({**self._storage.defaults(pool), **volumekeys.plain(config)})
        if content_type not in ("", "filesystem"):
            raise BadRequest(f"Content type {content_type!r} is not supported: containers use filesystem volumes")
        async with self.making(pool, project, name, config, description) as (row, store):
            await store.create_volume(qualified(project, name), volumekeys.size(config))
        self.emit("storage-volume-created", url(row), project, None)

    @contextlib.asynccontextmanager
    async def making(
        self, pool: str, project: str, name: str, config: dict[str, str], description: str,
        instead_of: VolumeRow | None = None,
    ) -> Any:  # fmt: skip
        """A new row, marked until the body has made the volume; all undone when the body fails.

        Args:
            instead_of: a volume that is to be deleted from the same moment on.
        """
        values.object_name("storage volume", name)
        store = self._storage.pool(pool)
        self._storage.need(pool)
        self.free(pool, project, name)
        self.allow(project, pool, name, volumekeys.size(config), instead_of)
        doc: Document = {
            "creating": True,
            "description": description,
            "content_type": "filesystem",
            "created_at": now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "config": config,
        }
        row = self._store.volumes.insert(pool, project, name, doc)
        try:
            yield row, store
        except BaseException:
            await store.delete_volume(qualified(project, name))
            self._store.volumes.delete(row)
            raise
        with self._store.transaction():
            row = self._store.volumes.update(replace(row, doc=without(doc, "creating")))
            if instead_of is not None:
                self._store.volumes.update(replace(instead_of, doc={**instead_of.doc, "deleting": True}))
        await self.save(row)

    def free(self, pool: str, project: str, name: str) -> None:
        """Raises `Conflict` when the name, or the directory that follows from it, is another volume's."""
        for row in self._store.volumes.all(pool):
            if qualified(row.project, row.name) == qualified(project, name):
                where = "" if row.project == project else f" (as {row.name!r} of project {row.project!r})"
                raise Conflict(f"Storage volume {name!r} already exists on pool {pool!r}{where}")

    async def update(
        self, pool: str, project: str, name: str, config: dict[str, str], description: str
    ) -> None:  # fmt: skip
        """Replace configuration and description; a new size acts at once."""
        row = self.row(pool, project, name)
        config = volumekeys.checked(config)
        async with self.lock(row):
            row = self.row(pool, project, name)
            if volumekeys.size(config) != volumekeys.size(row.doc["config"]):
                self.allow(project, pool, name, volumekeys.size(config), row)
                await self._storage.pool(pool).set_volume_size(qualified(project, name), volumekeys.size(config))
            row = self._store.volumes.update(
                replace(row, doc={**row.doc, "config": config, "description": description})
            )
            await self.save(row)
        self.changed()
        self.emit("storage-volume-updated", url(row), project, None)

    async def rename(self, pool: str, project: str, name: str, new: str, to_project: str = "") -> None:
        """Another name, or another project.

        Raises:
            Conflict: it is attached to something, or the new name is taken.
        """
        row = self.row(pool, project, name)
        values.object_name("storage volume", new)
        to_project = to_project or project
        async with self.lock(row):
            row = self.row(pool, project, name)
            self._refuse_if_used(row, "renamed" if to_project == project else "moved")
            self.free(pool, to_project, new)
            self.allow(to_project, pool, new, volumekeys.size(row.doc["config"]), row)
            place = {"project": to_project, "name": new}
            marked = self._store.volumes.update(replace(row, doc={**row.doc, "renaming": place}))
            try:
                await self._storage.pool(pool).rename_volume(qualified(project, name), qualified(to_project, new))
            except BaseException:
                self._store.volumes.update(row)
                raise
            moved = self._store.volumes.update(
                replace(marked, project=to_project, name=new, doc=without(marked.doc, "renaming"))
            )
            await self.save(moved)
        self.emit("storage-volume-renamed", url(moved), to_project, {"old_name": name})

    async def delete(self, pool: str, project: str, name: str) -> None:
        """Delete a volume with its snapshots. Raises `Conflict` while it is attached to something."""
        row = self.row(pool, project, name)
        async with self.lock(row):
            row = self.row(pool, project, name)
            self._refuse_if_used(row, "deleted")
            await self._remove(row)
        self.emit("storage-volume-deleted", url(row), project, None)

    async def _remove(self, row: VolumeRow) -> None:
        self._storage.need(row.pool)
        self._store.volumes.update(replace(row, doc={**row.doc, "deleting": True}))
        await self._storage.pool(row.pool).delete_volume(qualified(row.project, row.name))
        self._store.volumes.delete(row)
        self._locks.pop(row.id, None)
        self.forgotten(row)

    # -- copy, move --------------------------------------------------------------------------------------------

    async def copy(
        self, source: VolumeRow, snapshot: str, pool: str, project: str, name: str, *,
        snapshots: bool, changes: dict[str, str] | None = None, description: str = "", note: Callable[[str], None],
    ) -> VolumeRow:  # fmt: skip
        """A second volume with the content of `source`, or of a snapshot of it, on any pool and in any project.

        Args:
            snapshots: take the snapshots along, too.
            changes: configuration over that of the source.
            note: told what the pool cannot keep of it.
        """
        config = volumekeys.fitting(volumekeys.checked(source.doc["config"]), self._storage.pool(pool), note)
        config = volumekeys.checked({**config, **(changes or {})})
        async with self.lock(source):
            source = self.row(source.pool, source.project, source.name)
            row = await self._copy(source, snapshot, pool, project, name, snapshots, config, description)
        self.emit("storage-volume-created", url(row), project, None)
        return row

    async def _copy(
        self, source: VolumeRow, snapshot: str, pool: str, project: str, name: str,
        snapshots: bool, config: dict[str, str], description: str, instead_of: VolumeRow | None = None,
    ) -> VolumeRow:  # fmt: skip
        old, old_name = self._storage.pool(source.pool), qualified(source.project, source.name)
        kept = {n: d for n, d in self.kept_snapshots(source).items() if snapshots and not snapshot}
        description = description or source.doc["description"]
        async with self.making(pool, project, name, config, description, instead_of) as (row, store):
            volume = qualified(project, name)
            if snapshot:
                if snapshot not in self.kept_snapshots(source):
                    raise NotFound(f"Snapshot {snapshot!r} of storage volume {source.name!r} not found")
                await store.receive_volume(volume, _OneTree(old, snapshot), old_name, snapshots=False)
            elif source.pool == pool:
                await store.copy_volume(old_name, volume, snapshots=bool(kept))
            else:
                await store.receive_volume(volume, old, old_name, snapshots=bool(kept))
            if size := volumekeys.size(config):
                await store.set_volume_size(volume, size)
            for n, d in kept.items():
                self._store.volumes.put_snapshot(row, n, d)
        self.changed()
        return self.row(pool, project, name)

    async def move(
        self, source: VolumeRow, pool: str, project: str, name: str, note: Callable[[str], None]
    ) -> None:  # fmt: skip
        """To another pool, project or name; `note` as of `copy`. Raises `Conflict` while it is attached."""
        if pool == source.pool:
            await self.rename(pool, source.project, source.name, name, project)
            return
        async with self.lock(source):
            source = self.row(source.pool, source.project, source.name)
            self._refuse_if_used(source, "moved")
            config = volumekeys.fitting(volumekeys.checked(source.doc["config"]), self._storage.pool(pool), note)
            description = source.doc["description"]
            row = await self._copy(source, "", pool, project, name, True, config, description, source)
            await self._remove(source)
        self.emit("storage-volume-renamed", url(row), project, {"old_name": source.name, "old_pool": source.pool})

    # -- snapshots ---------------------------------------------------------------------------------------------

    def kept_snapshots(self, row: VolumeRow) -> "dict[str, Document]":
        return {n: d for n, d in self._store.volumes.snapshots(row).items() if not d.get("creating")}

    def snapshots(self, pool: str, project: str, name: str) -> "builtins.list[dict[str, Any]]":
        """Oldest first, named ``VOLUME/SNAPSHOT`` as LXD lists them."""
        row = self.row(pool, project, name)
        return [
            {**_render_snapshot(row, n, d), "name": f"{row.name}/{n}"} for n, d in self.kept_snapshots(row).items()
        ]  # fmt: skip

    def snapshot(self, pool: str, project: str, name: str, snapshot: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        row = self.row(pool, project, name)
        return _render_snapshot(row, snapshot, self._snapshot(row, snapshot))

    def _snapshot(self, row: VolumeRow, snapshot: str) -> Document:
        doc = self.kept_snapshots(row).get(snapshot)
        if doc is None:
            raise NotFound(f"Snapshot {snapshot!r} of storage volume {row.name!r} not found on pool {row.pool!r}")
        return doc

    async def create_snapshot(
        self, pool: str, project: str, name: str, snapshot: str, expires_at: str | None, plan: Plan | None = None
    ) -> str:  # fmt: skip
        """Keep what a volume holds now; the snapshot's name.

        Args:
            snapshot: "" for the next one by ``snapshots.pattern``.
            expires_at: RFC 3339; None for what ``snapshots.expiry`` says, `expiry.NEVER` for ever.
            plan: what name and expiry follow from, of a snapshot that is made as planned.
        """
        row = self.row(pool, project, name)
        self._storage.need(pool)
        async with self.lock(row):
            row = self.row(pool, project, name)
            config, at, taken = row.doc["config"], now(), self._store.volumes.snapshots(row)
            pattern = plan.pattern if plan else config.get("snapshots.pattern", "")
            kept = plan.expiry if plan else config.get("snapshots.expiry", "")
            snapshot = snapshot or retention.snapshot_name(pattern, taken, at)
            values.object_name("snapshot", snapshot)
            if snapshot in taken:
                raise Conflict(f"Snapshot {snapshot!r} of storage volume {name!r} already exists")
            if expires_at is None:
                expires_at = expiry.expires("snapshots.expiry", kept, at)
            doc: Document = {
                "creating": True,
                "description": "",
                "created_at": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "expires_at": expiry.moment(expires_at),
                "config": config,
            } | ({"schedule": plan.name} if plan else {})
            self._store.volumes.put_snapshot(row, snapshot, doc)
            try:
                await self._storage.pool(pool).snapshot_volume(qualified(project, name), snapshot)
            except BaseException:
                await self._storage.pool(pool).delete_volume_snapshot(qualified(project, name), snapshot)
                self._store.volumes.delete_snapshot(row, snapshot)
                raise
            self._store.volumes.put_snapshot(row, snapshot, without(doc, "creating"))
            await self.save(row)
        self.changed()
        self.emit("storage-volume-snapshot-created", url(row, snapshot), project, None)
        return snapshot

    async def update_snapshot(
        self, pool: str, project: str, name: str, snapshot: str, description: str | None, expires_at: str | None
    ) -> None:
        """Change description or expiry; None leaves it."""
        row = self.row(pool, project, name)
        doc = self._snapshot(row, snapshot)
        if description is not None:
            doc["description"] = description
        if expires_at is not None:
            doc["expires_at"] = expiry.moment(expires_at)
        self._store.volumes.put_snapshot(row, snapshot, doc)
        await self.save(row)
        self.changed()
        self.emit("storage-volume-snapshot-updated", url(row, snapshot), project, None)

    async def rename_snapshot(self, pool: str, project: str, name: str, old: str, new: str) -> None:
        """Raises `Conflict` when the new name is taken."""
        row = self.row(pool, project, name)
        values.object_name("snapshot", new)
        async with self.lock(row):
            doc = self._snapshot(row, old)
            if new in self._store.volumes.snapshots(row):
                raise Conflict(f"Snapshot {new!r} of storage volume {name!r} already exists")
            self._store.volumes.put_snapshot(row, old, {**doc, "renaming": new})
            try:
                await self._storage.pool(pool).rename_volume_snapshot(qualified(project, name), old, new)
            except BaseException:
                self._store.volumes.put_snapshot(row, old, doc)
                raise
            self._store.volumes.rename_snapshot(row, old, new, doc)
            await self.save(row)
        self.emit("storage-volume-snapshot-renamed", url(row, new), project, {"old_name": old})

    async def delete_snapshot(self, pool: str, project: str, name: str, snapshot: str) -> None:
        row = self.row(pool, project, name)
        self._storage.need(pool)
        async with self.lock(row):
            doc = self._snapshot(row, snapshot)
            self._store.volumes.put_snapshot(row, snapshot, {**doc, "deleting": True})
            await self._storage.pool(pool).delete_volume_snapshot(qualified(project, name), snapshot)
            self._store.volumes.delete_snapshot(row, snapshot)
            await self.save(row)
        self.emit("storage-volume-snapshot-deleted", url(row, snapshot), project, None)

    async def restore(self, pool: str, project: str, name: str, snapshot: str) -> None:
        """Make a volume what it was. Raises `Conflict` while a running instance uses it."""
        row = self.row(pool, project, name)
        async with self.lock(row):
            self._snapshot(row, snapshot)
            # The pool exchanges the trees in one step: a crash leaves the one or the other.
            with self.exchanging(row, "restoring"):
                await self._storage.pool(pool).restore_volume(qualified(project, name), snapshot)
                if size := volumekeys.size(row.doc["config"]):
                    await self._storage.pool(pool).set_volume_size(qualified(project, name), size)
        self.emit("storage-volume-restored", url(row), project, {"snapshot": snapshot})

    @contextlib.contextmanager
    def exchanging(self, row: VolumeRow, doing: str) -> Iterator[None]:
        """While the body runs no instance starts with it. Raises `Conflict` while one that runs uses it."""
        self.refuse_if_running(row, doing)
        self._restoring.add(row.id)
        try:
            yield
        finally:
            self._restoring.discard(row.id)

    def refuse_if_running(self, row: VolumeRow, doing: str) -> None:
        """Raises `Conflict` while a running instance uses it."""
        if running := self.running(row):
            raise Conflict(
                f"Storage volume {row.name!r} is in use by the running {_some(running)}: stop "
                f"{'it' if len(running) == 1 else 'them'}, or detach the volume, before {doing}"
            )

    async def recovered(self, row: VolumeRow) -> None:
        """A row has come into the store by itself, with its snapshots."""
        self.changed()
        await self.save(row)
        self.emit("storage-volume-created", url(row), row.project, None)

    # -- helpers -----------------------------------------------------------------------------------------------

    def lock(self, row: VolumeRow) -> asyncio.Lock:
        return self._locks.setdefault(row.id, asyncio.Lock())

    def note(self, row: VolumeRow, **doc: Any) -> VolumeRow:
        """Write keys of the row's document that are of no interest to the pool."""
        return self._store.volumes.update(replace(row, doc={**row.doc, **doc}))

    def _refuse_if_used(self, row: VolumeRow, doing: str) -> None:
        if users := self.users(row):
            raise Conflict(f"Storage volume {row.name!r} cannot be {doing}: it is in use by {_some(users)}")

    async def save(self, row: VolumeRow) -> None:
        """Write ``backup.yaml`` beside the data: what a re-scan of the pool needs to bring the volume back."""
        content = {
            "volume": {"name": row.name, "project": row.project, "type": "custom"}
            | without(row.doc, "exports", *TRANSIENT),
            "snapshots": [{"name": n} | without(d, *TRANSIENT) for n, d in self.kept_snapshots(row).items()],
            "pool": {"name": row.pool} | (self._store.pools.get(row.pool) or {}),
            "project": self._store.projects.get(row.project) or {},
        }  # fmt: skip
        try:
            directory = self._storage.pool(row.pool).volume_dir(qualified(row.project, row.name))
            await asyncio.to_thread(files.write_yaml, f"{directory}/backup.yaml", content, durable=True)
        except FileNotFoundError:
            pass  # deleted or renamed meanwhile
        except OSError as error:
            self._warn(
                Notice(
                    f"backup.yaml of storage volume {row.name!r} could not be written: {error.strerror}",
                    BACKUP_FILE,
                    url(row),
                    row.project,
                )
            )


class _OneTree:
    """A snapshot as a volume of its own, to be copied."""

    def __init__(self, pool: Pool, snapshot: str) -> None:
        self._pool, self._snapshot = pool, snapshot

    def volume_path(self, volume: str) -> str:
        return self._pool.volume_snapshot_path(volume, self._snapshot)

    def volume_snapshots(self, volume: str) -> list[str]:
        return []

    def volume_snapshot_path(self, volume: str, snapshot: str) -> str:
        raise NotFound(f"Snapshot {snapshot!r} of volume {volume!r} not found")


def without(doc: Document, *keys: str) -> Document:
    """A document without some of its keys."""
    return {key: value for key, value in doc.items() if key not in keys}


def _some(users: list[str]) -> str:
    names = ", ".join(user.removeprefix("/1.0/").replace("instances/", "instance ") for user in users[:3])
    names = names.replace("profiles/", "profile ")
    return names + (f" and {len(users) - 3} more" if len(users) > 3 else "")


def _render_snapshot(row: VolumeRow, name: str, doc: Document) -> dict[str, Any]:
    return {
        "name": name,
        "description": doc["description"],
        "content_type": row.doc["content_type"],
        "created_at": doc["created_at"],
        "expires_at": doc["expires_at"],
        "config": doc["config"],
    }

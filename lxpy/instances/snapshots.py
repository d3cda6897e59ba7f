"""Snapshots of instances: taking, restoring, renaming, deleting them.

A record is written before anything happens on the disk and says what is under way: ``creating``, ``deleting``,
``renaming`` (to what); on the instance ``restoring``. A daemon that was killed in between undoes or finishes it at its
next start.
"""

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import quote

from lxpy.api import expiry, values
from lxpy.api.errors import ApiError, BadRequest, Conflict, InternalError, NotFound
from lxpy.api.layout import qualified
from lxpy.api.objects import Config, Devices
from lxpy.instances import devices as device_rules
from lxpy.instances import idmaps, keys, lineage, render, rootsize
from lxpy.instances.backups import TRANSIENT, Backups
from lxpy.instances.lifecycle import Emit, Lifecycle
from lxpy.instances.projectrules import ProjectRules
from lxpy.instances.records import Records
from lxpy.profiles.manager import ProfileManager
from lxpy.state.store import Document, InstanceRow, Store
from lxpy.storage import retention
from lxpy.storage.manager import StorageManager
from lxpy.storage.retention import Plan

KEPT = ("architecture", "config", "devices", "ephemeral", "profiles", "last_used_at")  # of an instance, as it was
# Of its volatile keys an instance keeps these when it is restored: they are of its present, not of what it was.
_PRESENT = ("volatile.last_state.", "volatile.uuid")


def url(row: InstanceRow, snapshot: str) -> str:
    """A snapshot's path in the API, as events name it."""
    return f"/1.0/instances/{quote(row.name)}/snapshots/{quote(snapshot)}"


class Snapshots:
    """Snapshots by instance and name.

    Args:
        check_references: takes expanded devices and the project; raises `NotFound` for what they name and is not there.
        changed: called when a snapshot has come, gone or got another expiry.
    """

    PASSING = ".passing-"  # begins the names of snapshots that are only taken to be copied; no user can give it

    def __init__(
        self, records: Records, store: Store, storage: StorageManager, profiles: ProfileManager, lifecycle: Lifecycle,
        rules: ProjectRules, backups: Backups, check_references: Callable[[Devices, str], None], emit: Emit,
    ) -> None:  # fmt: skip
        self._records, self._store, self._storage, self._profiles = records, store, storage, profiles
        self._table = store.snapshots
        self._life, self._rules, self._backups, self._emit = lifecycle, rules, backups, emit
        self._check_references = check_references
        self._all = self._table.all()
        self.changed: Callable[[], None] = lambda: None

    # -- reading -------------------------------------------------------------------------------------------------

    def of(self, row: InstanceRow) -> dict[str, Document]:
        """Documents by name, oldest first."""
        return {name: doc for name, doc in self._all.get(row.id, {}).items() if not doc.get("creating")}

    def document(self, row: InstanceRow, snapshot: str) -> Document:
        """Raises `NotFound`."""
        doc = self.of(row).get(snapshot)
        if doc is None:
            raise NotFound(f"Snapshot {snapshot!r} of instance {row.name!r} not found")
        return doc

    def full(self, project: str, name: str) -> list[dict[str, Any]]:
        """As the API has them. Raises `NotFound`."""
        row = self._records.get(project, name)
        return [self._object(row, snapshot, doc) for snapshot, doc in self.of(row).items()]

    def brief(self, project: str, name: str) -> list[dict[str, Any]]:
        """Names and times only, for lists that count them."""
        return [
            {"name": snapshot, "created_at": doc["created_at"], "expires_at": doc["expires_at"], "stateful": False}
            for snapshot, doc in self.of(self._records.get(project, name)).items()
        ]

    def get(self, project: str, name: str, snapshot: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        row = self._records.get(project, name)
        return self._object(row, snapshot, self.document(row, snapshot))

    def _object(self, row: InstanceRow, snapshot: str, doc: Document) -> dict[str, Any]:
        size = None
        with contextlib.suppress(ApiError, OSError):  # a pool that is away
            size = self._storage.pool(row.pool).snapshot_usage(qualified(row.project, row.name), snapshot)
        return render.snapshot(snapshot, doc, self.expanded(row, doc), size)

    def expanded(self, row: InstanceRow, doc: Document) -> tuple[Config, Devices]:
        """Configuration and devices of a snapshot with its profiles merged in, as far as they are still there."""
        there = self._profiles.names(row.project)
        profiles = [name for name in doc["profiles"] if name in there]
        return self._profiles.expand(row.project, profiles, doc["config"], doc["devices"])

    # -- taking ----------------------------------------------------------------------------------------------------

    def validate_create(self, project: str, name: str, body: dict[str, Any]) -> None:
        """The faults of a request that can be told before any work.

        Raises:
            BadRequest, Conflict, NotFound, Forbidden: it cannot succeed.
        """
        row = self._records.get(project, name)
        self._rules.check_snapshot(project)
        if body.get("stateful"):
            raise BadRequest(
                "Saving the memory of a running instance is not supported by lxpy: snapshot it without --stateful"
            )
        if snapshot := str(body.get("name") or ""):
            values.object_name("snapshot", snapshot)
            if snapshot in self._all.get(row.id, {}):
                raise Conflict(f"Snapshot {snapshot!r} of instance {name!r} already exists")
        if body.get("expires_at") is not None:
            expiry.moment(str(body["expires_at"]))

    async def create(
        self, project: str, name: str, snapshot: str = "", expires_at: str | None = None, plan: Plan | None = None
    ) -> tuple[str, float]:
        """Keep what an instance is now. A running one stands still while its root is copied, no longer.

        Args:
            snapshot: "" for the next name by ``snapshots.pattern``.
            expires_at: RFC 3339; None for what ``snapshots.expiry`` says, `expiry.NEVER` for ever.
            plan: what name and expiry follow from, of a snapshot that is made as planned.

        Returns:
            The snapshot's name, and the seconds the instance stood still (0.0: it was not running).
        """
        row = self._records.get(project, name)
        async with self._life.lock(row):
            row = self._records.get(project, name)
            config, at = self._records.expanded(row)[0], datetime.datetime.now(datetime.UTC)
            taken = self._all.get(row.id, {})
            pattern = plan.pattern if plan else config.get("snapshots.pattern", "")
            kept = plan.expiry if plan else config.get("snapshots.expiry", "")
            snapshot = snapshot or retention.snapshot_name(pattern, taken, at)
            self.validate_create(project, name, {"name": snapshot, "expires_at": expires_at})
            if expires_at is None:
                expires_at = expiry.expires("snapshots.expiry", kept, at)
            doc: Document = {
                **{key: row.doc[key] for key in KEPT},
                "creating": True,
                "of": row.name,
                "created_at": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "expires_at": expiry.moment(expires_at),
            } | ({"schedule": plan.name} if plan else {})
            pool, volume = self._storage.pool(row.pool), qualified(project, name)
            self.put(row, snapshot, doc)
            try:
                stood = await self.keep(row, snapshot)
            except BaseException:
                await pool.delete_instance_snapshot(volume, snapshot)
                self.drop(row, snapshot)
                raise
            with self._store.transaction():
                self.put(row, snapshot, without_marks(doc))
                row = self._records.set_keys(self._records.get(project, name), {lineage.BASE: snapshot})
            self._backups.save(row)
        self.changed()
        self._emit("instance-snapshot-created", url(row, snapshot), project, None)
        return snapshot, stood

    async def keep(self, row: InstanceRow, snapshot: str) -> float:
        """Has the pool make a snapshot of an instance whose lock is held; the seconds it stood still."""
        pool, volume, stood = self._storage.pool(row.pool), qualified(row.project, row.name), [0.0]

        @contextlib.asynccontextmanager
        async def still() -> AsyncIterator[None]:
            async with self.standing_still(row) as seconds:
                yield
            stood[0] = seconds[0]

        await pool.snapshot_instance(volume, snapshot, still=still if self.stands_still(row) else None)
        return stood[0]

    def stands_still(self, row: InstanceRow) -> bool:
        """Whether an instance has to be frozen to be copied."""
        live = self._life.live(row)
        return live is not None and not live.frozen

    @contextlib.asynccontextmanager
    async def standing_still(self, row: InstanceRow) -> AsyncIterator[list[float]]:
        """A running instance is frozen while the body runs; the list then has the seconds.

        Nothing has to be flushed: whoever copies reads the same page cache that the guest writes to, and a btrfs writes
        out what belongs to a subvolume before it makes a snapshot of it.

        Raises:
            InternalError: a process of it cannot be stopped.
        """
        stood = [0.0]
        if not self.stands_still(row):
            yield stood
            return
        self._records.change(self._records.get(row.project, row.name), freezing=True)
        cgroup, began = self._life.cgroup(row), time.monotonic()
        try:
            try:
                await asyncio.to_thread(cgroup.freeze)
            except OSError as error:
                raise InternalError(
                    f"Instance {row.name!r} cannot be frozen ({error.strerror}): try again, or stop it first"
                ) from None
            yield stood
        finally:
            with contextlib.suppress(OSError):  # it was killed meanwhile
                await asyncio.shield(asyncio.to_thread(cgroup.thaw))
            stood[0] = time.monotonic() - began
            if current := self._records.current(row):
                self._records.change(current, freezing=None)

    # -- changing --------------------------------------------------------------------------------------------------

    def update(self, project: str, name: str, snapshot: str, expires_at: str) -> None:
        """Give a snapshot another expiry."""
        row = self._records.get(project, name)
        self.put(row, snapshot, self.document(row, snapshot) | {"expires_at": expiry.moment(expires_at)})
        self._backups.save(row)
        self.changed()
        self._emit("instance-snapshot-updated", url(row, snapshot), project, None)

    def validate_rename(self, project: str, name: str, old: str, new: str) -> None:
        """Raises `BadRequest`, `NotFound`, `Conflict`."""
        row = self._records.get(project, name)
        self.document(row, old)
        values.object_name("snapshot", new)
        if new in self._all[row.id]:
            raise Conflict(f"Snapshot {new!r} of instance {name!r} already exists")

    async def rename(self, project: str, name: str, old: str, new: str) -> None:
        """Raises as `validate_rename`."""
        row = self._records.get(project, name)
        async with self._life.lock(row):
            self.validate_rename(project, name, old, new)
            doc = self.document(row, old)
            self.put(row, old, doc | {"renaming": new})
            try:
                await self._storage.pool(row.pool).rename_instance_snapshot(qualified(project, name), old, new)
            except BaseException:
                self.put(row, old, doc)
                raise
            row = self._renamed(row, old, new, doc)
            self._backups.save(row)
        self._emit("instance-snapshot-renamed", url(row, new), project, {"old_name": old})

    async def delete(self, project: str, name: str, snapshot: str) -> None:
        """Raises `NotFound`."""
        row = self._records.get(project, name)
        async with self._life.lock(row):
            row = await self.remove(row, snapshot)
            self._backups.save(row)
        self.changed()
        self._emit("instance-snapshot-deleted", url(row, snapshot), project, None)

    async def remove(self, row: InstanceRow, snapshot: str) -> InstanceRow:
        """As `delete`, of an instance whose lock is held, and of a snapshot that may be half made."""
        self.put(row, snapshot, self._all[row.id][snapshot] | {"deleting": True})
        await self._storage.pool(row.pool).delete_instance_snapshot(qualified(row.project, row.name), snapshot)
        return self._forgotten(row, snapshot)

    # -- restoring -------------------------------------------------------------------------------------------------

    def validate_restore(self, project: str, name: str, snapshot: str, stateful: bool = False) -> InstanceRow:
        """The instance, if it can become what it was.

        Raises:
            BadRequest, NotFound, Forbidden: it cannot: its old configuration means what is not there, or not allowed.
        """
        row = self._records.get(project, name)
        doc = self.document(row, snapshot)
        if stateful:
            raise BadRequest(f"Snapshot {snapshot!r} of instance {name!r} holds no memory: restore without --stateful")
        for profile in doc["profiles"]:
            if profile not in self._profiles.names(project):
                raise NotFound(f"Instance {name!r} had the profile {profile!r} then: make a profile of that name first")
        config, devices = self.expanded(row, doc)
        keys.validate_config(config)
        device_rules.validate(devices, expanded=True)
        if device_rules.root_pool(devices) != row.pool:
            raise BadRequest(f"The root disk of {name!r} was on another pool then: it lies on {row.pool!r} now")
        self._check_references(devices, project)
        self._rules.check(project, name, config, devices)
        return row

    async def restore(self, project: str, name: str, snapshot: str, stateful: bool = False) -> None:
        """Make an instance what it was, root and configuration. A running one is ended first, and started again."""
        row = self._records.get(project, name)
        async with self._life.lock(row):
            row = self.validate_restore(project, name, snapshot, stateful)
            running = self._life.live(row) is not None
            row = self._records.change(row, restoring={"snapshot": snapshot, "start": running})
            try:
                if running:
                    await self._life.stop(row, 0, force=True, why="restart")
                    row = self._records.get(project, name)
                await self._life.release(row)
                row = await self._restore(row, snapshot, start=running)
            except asyncio.CancelledError:
                raise  # the daemon ends; the next one goes on from the mark
            except BaseException:
                self._records.change(self._records.get(project, name), restoring=None)
                if running and not self._life.live(row):
                    with contextlib.suppress(ApiError, OSError):
                        await self._life.start(self._records.get(project, name))
                raise
            if running:
                try:
                    await self._life.start(row)
                finally:
                    self._records.change(self._records.get(project, name), restoring=None)
        self._backups.save(row)
        self._emit("instance-restored", f"/1.0/instances/{name}", project, {"snapshot": snapshot})

    async def _restore(self, row: InstanceRow, snapshot: str, *, start: bool) -> InstanceRow:
        """Of a stopped instance; safe to repeat. With `start` the mark stays, for what is still to be done."""
        doc = self.document(row, snapshot)
        await self._storage.pool(row.pool).restore_instance(qualified(row.project, row.name), snapshot)
        present = {key: value for key, value in row.doc["config"].items() if key.startswith(_PRESENT)}
        past = {key: value for key, value in doc["config"].items() if not key.startswith(_PRESENT)}
        if doc.get("of", row.name) != row.name:  # the guest has to learn its name
            past.setdefault("volatile.apply_template", "copy")
        config, devices = self.expanded(row, doc)
        past = self._own(row, past, devices)
        await rootsize.apply(self._storage, row, devices)
        row = self._records.set_privileged(row, idmaps.privileged(config))
        changed = {key: doc[key] for key in KEPT if key != "last_used_at"}
        return self._records.change(
            row,
            **changed
            | {
                "config": past | present | {lineage.BASE: snapshot},
                "restoring": {"start": True} if start else None,
            },
        )

    def _own(self, row: InstanceRow, past: Config, devices: Devices) -> Config:
        """What tells an instance from others, without what another has: a copy's snapshots tell of its source."""
        marks = {f"volatile.{name}.hwaddr" for name in devices} | {"volatile.cloud-init.instance-id"}
        others = {
            value for other in self._records if other.id != row.id for key, value in other.doc["config"].items()
            if key.endswith(".hwaddr") or key in marks
        }  # fmt: skip
        own = {key: value for key, value in row.doc["config"].items() if key in marks}
        return own | {key: value for key, value in past.items() if key not in marks or value not in others}

    # -- after a crash ---------------------------------------------------------------------------------------------

    async def settle(self, row: InstanceRow) -> InstanceRow:
        """Finish or undo what a daemon that was killed had begun, but for a restore."""
        pool, volume = self._storage.pool(row.pool), qualified(row.project, row.name)
        if row.doc.get("freezing"):
            with contextlib.suppress(OSError):  # it has ended since
                await asyncio.to_thread(self._life.cgroup(row).thaw)
            row = self._records.change(row, freezing=None)
        with contextlib.suppress(ApiError):  # a pool that is away
            for name in pool.instance_snapshots(volume):
                if name.startswith(self.PASSING):
                    await pool.delete_instance_snapshot(volume, name)
        for name, doc in list(self._all.get(row.id, {}).items()):
            if doc.get("creating") or doc.get("deleting"):
                await pool.delete_instance_snapshot(volume, name)
                row = self._forgotten(row, name)
            elif new := doc.get("renaming"):
                there = pool.instance_snapshots(volume)
                row = self._renamed(row, name, new if new in there else name, without_marks(doc))
            else:
                continue
            self._backups.save(row)
        return row

    async def settle_restore(self, row: InstanceRow) -> tuple[InstanceRow, bool]:
        """The same of a restore, once it is known whether the instance runs.

        Returns:
            The instance, and whether it has to be started: it ran before it was restored.
        """
        if not (restoring := row.doc.get("restoring")):
            return row, False
        if "snapshot" in restoring:
            if self._life.live(row):
                await self._life.stop(row, 0, force=True, why="restart")
                row = self._records.get(row.project, row.name)
            row = await self._restore(row, restoring["snapshot"], start=False)
            self._backups.save(row)
        return self._records.change(row, restoring=None), bool(restoring["start"])

    # -- records ---------------------------------------------------------------------------------------------------

    def put(self, row: InstanceRow, snapshot: str, doc: Document) -> None:
        """Write a snapshot's record."""
        self._table.put(row.id, snapshot, doc)
        self._all.setdefault(row.id, {})[snapshot] = doc

    def drop(self, row: InstanceRow, snapshot: str) -> None:
        self._table.delete(row.id, snapshot)
        self._all.get(row.id, {}).pop(snapshot, None)

    def recovered(self, row: InstanceRow) -> None:
        """An instance has come into the store by itself, and its snapshots with it."""
        self._all[row.id] = self._table.of(row.id)
        self.changed()

    def forget(self, row: InstanceRow) -> None:
        """The instance has gone, and in the store its snapshots with it."""
        self._all.pop(row.id, None)

    def _renamed(self, row: InstanceRow, old: str, new: str, doc: Document) -> InstanceRow:
        with self._store.transaction():
            self._table.rename(row.id, old, new, doc)
            self._all[row.id] = {new if n == old else n: doc if n == old else d for n, d in self._all[row.id].items()}
            return self._rebase(row, old, new)

    def _forgotten(self, row: InstanceRow, snapshot: str) -> InstanceRow:
        """A snapshot that is no more; what went on from it goes on from the one before."""
        before = lineage.base(self._all[row.id][snapshot]["config"])
        with self._store.transaction():
            self.drop(row, snapshot)
            return self._rebase(row, snapshot, before)

    def _rebase(self, row: InstanceRow, old: str, new: str) -> InstanceRow:
        for name, doc in list(self._all.get(row.id, {}).items()):
            if (config := lineage.rebased(doc["config"], old, new)) is not None:
                self.put(row, name, doc | {"config": config})
        current = self._records.current(row) or row
        config = lineage.rebased(current.doc["config"], old, new)
        return current if config is None else self._records.change(current, config=config)


def without_marks(doc: Document) -> Document:
    return {key: value for key, value in doc.items() if key not in TRANSIENT}

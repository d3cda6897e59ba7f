"""Volumes that are read while others may write to them, and copies that are brought up to date from them."""

import contextlib
import secrets
from collections.abc import AsyncIterator

from lxpy.api import expiry
from lxpy.api.errors import BadRequest
from lxpy.api.layout import qualified
from lxpy.state.store import Document, Store
from lxpy.state.volumes import VolumeRow
from lxpy.storage import volumekeys
from lxpy.storage.manager import StorageManager
from lxpy.storage.volumes import VolumeManager, now, url


class StillVolumes:
    """What volumes hold at one moment."""

    def __init__(self, store: Store, storage: StorageManager, volumes: VolumeManager) -> None:
        self._store, self._storage, self._volumes = store, storage, volumes

    @contextlib.asynccontextmanager
    async def held(self, row: VolumeRow) -> AsyncIterator[tuple[VolumeRow, str]]:
        """The volume, and the snapshot of it that does not change while the body runs: "" for itself.

        While running instances use it that is a snapshot which nobody else sees.
        """
        async with contextlib.AsyncExitStack() as stack:
            async with self._volumes.lock(row):
                row = self._volumes.row(row.pool, row.project, row.name)
                name = await self.snapshot(row, stack)
                if not name:
                    yield row, ""
                    return
            yield row, name

    async def snapshot(self, row: VolumeRow, stack: contextlib.AsyncExitStack) -> str:
        """As `held`, of a volume whose lock the caller has; the snapshot goes with the stack."""
        if not self._volumes.running(row):
            return ""
        name = f"still-{secrets.token_hex(8)}"
        at = now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        # With the mark of one that is being made it is hidden, and the next start of a daemon removes it.
        doc: Document = {
            "creating": True, "description": "", "created_at": at, "expires_at": expiry.NEVER, "config": {},
        }  # fmt: skip
        self._store.volumes.put_snapshot(row, name, doc)
        stack.push_async_callback(self._drop, row.id, name)
        await self._storage.pool(row.pool).snapshot_volume(qualified(row.project, row.name), name)
        return name

    async def _drop(self, owner: int, snapshot: str) -> None:
        if current := next((row for row in self._store.volumes.all() if row.id == owner), None):
            await self._storage.pool(current.pool).delete_volume_snapshot(
                qualified(current.project, current.name), snapshot
            )
            self._store.volumes.delete_snapshot(current, snapshot)


class VolumeRefreshes:
    """Brings copies of volumes up to date."""

    def __init__(self, store: Store, storage: StorageManager, volumes: VolumeManager, still: StillVolumes) -> None:
        self._store, self._storage, self._volumes, self._still = store, storage, volumes, still

    def validate(self, source: VolumeRow, target: VolumeRow) -> None:
        """Raises `BadRequest`: they are the same. `Conflict`: a running instance uses the target."""
        if source.id == target.id:
            raise BadRequest(f"Storage volume {target.name!r} cannot be refreshed from itself")
        self._volumes.refuse_if_running(target, "it is refreshed")

    async def refresh(self, source: VolumeRow, snapshot: str, target: VolumeRow, *, snapshots: bool) -> None:
        """Make `target` hold what `source`, or a snapshot of it, holds; what is the same in both is not copied again.

        The configuration stays. A crash leaves the old or the new content, and whole snapshots.

        Args:
            snapshots: whether its snapshots become those of the source, too.

        Raises:
            NotFound: the snapshot. And as `validate`.
        """
        self.validate(source, target)
        have = self._volumes.kept_snapshots(target)
        taken = self._volumes.kept_snapshots(source) if snapshots and not snapshot else {}
        if snapshots and not snapshot:
            for one, doc in have.items():
                if one not in taken or doc["created_at"] != taken[one]["created_at"]:
                    await self._volumes.delete_snapshot(target.pool, target.project, target.name, one)
        async with contextlib.AsyncExitStack() as stack:
            # In the order of their numbers: two refreshes the other way round must not wait for each other.
            for row in sorted((source, target), key=lambda row: row.id):
                await stack.enter_async_context(self._volumes.lock(row))
            source = self._volumes.row(source.pool, source.project, source.name)
            target = self._volumes.row(target.pool, target.project, target.name)
            stack.enter_context(self._volumes.exchanging(target, "it is refreshed"))
            await self._work(stack, source, snapshot, target, taken)
        self._volumes.changed()
        self._volumes.emit("storage-volume-updated", url(target), target.project, None)

    async def _work(
        self, stack: contextlib.AsyncExitStack, source: VolumeRow, snapshot: str, target: VolumeRow,
        taken: dict[str, Document],
    ) -> None:  # fmt: skip
        old, old_volume = self._storage.pool(source.pool), qualified(source.project, source.name)
        pool, volume = self._storage.pool(target.pool), qualified(target.project, target.name)
        have = self._volumes.kept_snapshots(target)
        for one, doc in taken.items():
            if one in have:
                continue
            self._store.volumes.put_snapshot(target, one, doc | {"creating": True})
            try:
                await pool.receive_volume_snapshot(volume, old, old_volume, one)
            except BaseException:
                await pool.delete_volume_snapshot(volume, one)
                self._store.volumes.delete_snapshot(target, one)
                raise
            self._store.volumes.put_snapshot(target, one, doc)
        at = snapshot or await self._still.snapshot(source, stack)
        await pool.refresh_volume(volume, old, old_volume, at)
        if size := volumekeys.size(target.doc["config"]):
            await pool.set_volume_size(volume, size)
        await self._volumes.save(target)

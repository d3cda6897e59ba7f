"""Custom volumes that a crash left half made, half deleted or half renamed: finished or undone at the next start."""

from collections.abc import Callable
from dataclasses import replace

from lxpy.api.errors import ApiError, NotFound, Unavailable
from lxpy.api.layout import qualified
from lxpy.api.notices import CUSTOM_ORPHANS, LEFTOVERS, VOLUME, Notice
from lxpy.state.store import Store
from lxpy.state.volumes import VolumeRow
from lxpy.storage.manager import StorageManager
from lxpy.storage.volumes import TRANSIENT, VolumeManager, url, without


class VolumeSettler:
    """Reads the marks of rows, see volumes.py; and names the volumes nobody has a record of."""

    def __init__(
        self, store: Store, storage: StorageManager, volumes: VolumeManager, warn: Callable[[str], None]
    ) -> None:  # fmt: skip
        self._store, self._storage, self._volumes, self._warn = store, storage, volumes, warn

    async def settle(self, only: str | None) -> None:
        """Of all pools, or of one that is back."""
        for row in self._store.volumes.all(only):
            try:
                await self._settle(row)
            except Unavailable:
                continue  # and it is told that the pool is away
            except (ApiError, OSError) as error:
                self._warn(
                    Notice(
                        f"Storage volume {row.name!r} on pool {row.pool!r} could not be put in order: {error}",
                        VOLUME,
                        url(row),
                        row.project,
                    )
                )
        owned: dict[str, set[str]] = {}
        for row in self._store.volumes.all(only):
            owned.setdefault(row.pool, set()).add(qualified(row.project, row.name))
        for name in self._storage.pools() if only is None else [only]:
            if orphans := set(self._storage.pool(name).custom_volumes()) - owned.get(name, set()):
                self._warn(
                    Notice(
                        f"Pool {name}: custom volumes without a record: {', '.join(sorted(orphans))}; see lxpy recover",
                        CUSTOM_ORPHANS,
                        f"/1.0/storage-pools/{name}",
                    )
                )

    async def _settle(self, row: VolumeRow) -> None:
        pool, volume = self._storage.pool(row.pool), qualified(row.project, row.name)
        if row.doc.get("creating") or row.doc.get("deleting"):
            word = "created" if row.doc.get("creating") else "deleted"
            await pool.delete_volume(volume)
            self._store.volumes.delete(row)
            self._warn(
                Notice(
                    f"Storage volume {row.name!r} on pool {row.pool!r} was being {word} when the daemon ended; "
                    "what was left of it is removed",
                    LEFTOVERS,
                    url(row),
                    row.project,
                )
            )
            return
        if place := row.doc.get("renaming"):
            try:
                pool.volume_dir(qualified(place["project"], place["name"]))
            except NotFound:
                place = {}  # it did not come to it (a pool that is away raises Unavailable: nothing is known)
            row = replace(row, **place, doc=without(row.doc, "renaming"))
            await self._volumes.save(self._store.volumes.update(row))
            volume = qualified(row.project, row.name)
        snapshots = self._store.volumes.snapshots(row)
        for name, doc in snapshots.items():
            if doc.get("creating") or doc.get("deleting"):
                await pool.delete_volume_snapshot(volume, name)
                self._store.volumes.delete_snapshot(row, name)
            elif new := doc.get("renaming"):
                done: str = new if new in pool.volume_snapshots(volume) else name
                self._store.volumes.rename_snapshot(row, name, done, without(doc, "renaming"))
        if any(mark in doc for doc in snapshots.values() for mark in TRANSIENT):
            await self._volumes.save(row)

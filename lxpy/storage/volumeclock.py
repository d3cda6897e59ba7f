"""Schedules and expiry of the snapshots of custom volumes, as `SnapshotClock` asks for them."""

from collections.abc import Iterator

from lxpy.api.errors import NotFound
from lxpy.state.store import Store
from lxpy.state.volumes import VolumeRow
from lxpy.storage import retention
from lxpy.storage.retention import Plan
from lxpy.storage.volumes import VolumeManager, url


class VolumeKeeper:
    """A `Keeper`; volumes go by their numbers."""

    def __init__(self, volumes: VolumeManager, store: Store) -> None:
        self._volumes, self._store = volumes, store

    def expiring(self) -> list[tuple[str, tuple[int, str]]]:
        return [(when, (volume, name)) for when, volume, name in self._store.volumes.expiring()]

    def scheduled(self) -> Iterator[tuple[int, dict[str, str]]]:
        for row in self._store.volumes.all():
            if not row.doc.get("creating"):
                yield row.id, row.doc["config"]

    async def expire(self, which: tuple[int, str]) -> None:
        row = self._row(which[0])
        await self._volumes.delete_snapshot(row.pool, row.project, row.name, which[1])

    async def take(self, what: int, plan: Plan) -> None:
        row = self._row(what)
        await self._volumes.create_snapshot(row.pool, row.project, row.name, "", None, plan)
        for name in retention.surplus(plan, self._store.volumes.snapshots(row)):
            await self._volumes.delete_snapshot(row.pool, row.project, row.name, name)

    def place(self, what: int | tuple[int, str]) -> tuple[str, str, str]:
        row = self._row(what[0] if isinstance(what, tuple) else what)
        name = f"Snapshot {row.name}/{what[1]}" if isinstance(what, tuple) else f"Storage volume {row.name!r}"
        return name, url(row), row.project

    def _row(self, number: int) -> VolumeRow:
        for row in self._store.volumes.all():
            if row.id == number:
                return row
        raise NotFound("The storage volume has gone")

"""Schedules and expiry of the snapshots of instances, as `SnapshotClock` asks for them."""

import asyncio
from collections.abc import Callable, Iterator

from lxpy.api import values
from lxpy.api.errors import ApiError, NotFound
from lxpy.api.notices import SCHEDULE, Notice
from lxpy.instances.lifecycle import Lifecycle
from lxpy.instances.records import Records
from lxpy.instances.snapshots import Snapshots, url
from lxpy.state.store import InstanceRow, Store
from lxpy.storage import retention
from lxpy.storage.retention import Plan

_STOPPED = "snapshots.schedule.stopped"


class SnapshotKeeper:
    """A `Keeper`; instances go by their numbers.

    Args:
        warn: told of a snapshot at a start that could not be made.
    """

    def __init__(
        self, records: Records, store: Store, lifecycle: Lifecycle, snapshots: Snapshots, warn: Callable[[str], None]
    ) -> None:
        self._records, self._table, self._life, self._snapshots = records, store.snapshots, lifecycle, snapshots
        self._warn = warn
        self._tasks: set[asyncio.Task[None]] = set()

    def expiring(self) -> list[tuple[str, tuple[int, str]]]:
        return [(when, (number, name)) for when, number, name in self._table.expiring()]

    def scheduled(self) -> Iterator[tuple[int, dict[str, str]]]:
        for row in self._records:
            if not row.doc.get("creating"):
                yield row.id, self._records.expanded(row)[0]

    async def expire(self, which: tuple[int, str]) -> None:
        row = self._row(which[0])
        await self._snapshots.delete(row.project, row.name, which[1])

    async def take(self, what: int, plan: Plan) -> None:
        row = self._row(what)
        config = self._records.expanded(row)[0]
        if self._life.live(row) or values.boolean(_STOPPED, config.get(_STOPPED) or "false"):
            await self._take(row, plan)

    async def _take(self, row: InstanceRow, plan: Plan) -> None:
        await self._snapshots.create(row.project, row.name, plan=plan)
        for name in retention.surplus(plan, self._snapshots.of(row)):
            await self._snapshots.delete(row.project, row.name, name)

    def started(self, row: InstanceRow) -> None:
        """An instance has been started: ``@startup``."""
        for plan in retention.plans(self._records.expanded(row)[0]):
            if plan.schedule.startup:
                task = asyncio.get_running_loop().create_task(self._at_start(row, plan))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _at_start(self, row: InstanceRow, plan: Plan) -> None:
        try:
            await self._take(row, plan)
        except NotFound:
            pass
        except (ApiError, OSError) as error:
            text = f"Instance {row.name!r} could not be snapshotted at its start: {error}"
            self._warn(Notice(text, SCHEDULE, f"/1.0/instances/{row.name}", row.project))

    def place(self, what: int | tuple[int, str]) -> tuple[str, str, str]:
        row = self._row(what[0] if isinstance(what, tuple) else what)
        if isinstance(what, tuple):
            return f"Snapshot {row.name}/{what[1]}", url(row, what[1]), row.project
        return f"Instance {row.name!r}", f"/1.0/instances/{row.name}", row.project

    def _row(self, number: int) -> InstanceRow:
        if (row := self._records.by_id(number)) is None:
            raise NotFound("The instance has gone")
        return row

"""Instances whose pool was away when the daemon started: what is done for them when it is back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from lxpy.instances.moves import Moves
from lxpy.instances.parts import Parts
from lxpy.instances.snapshots import Snapshots
from lxpy.state.store import InstanceRow


class Waiting:
    """Remembers who would have been started.

    Args:
        undo: takes away an instance that was half made or half deleted.
        start: starts instances in their order.
    """

    def __init__(
        self,
        parts: Parts,
        undo: Callable[[InstanceRow], Awaitable[None]],
        moves: Moves,
        snapshots: Snapshots,
        start: Callable[[Iterable[InstanceRow]], Awaitable[None]],
    ) -> None:
        self._records, self._storage, self._life = parts.records, parts.storage, parts.life
        self._undo, self._moves, self._snapshots, self._start = undo, moves, snapshots, start
        self._wanted: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, rows: Iterable[InstanceRow]) -> None:
        """These are to be started now; those whose pool is away cannot be."""
        self._wanted |= {row.id for row in rows if self._storage.away(row.pool)}

    async def pool_returned(self, pool: str) -> None:
        """Put in order what is on it, and start what would run if the pool had been there (which is not waited for)."""
        for row in [row for row in self._records if row.pool == pool]:
            if row.doc.get("creating") or row.doc.get("deleting"):
                await self._undo(row)
                continue
            row = await self._snapshots.settle(await self._moves.settle(row))
            row, again = await self._snapshots.settle_restore(row)
            self._wanted |= {row.id} if again else set()
        rows = [row for row in self._records if row.pool == pool and row.id in self._wanted]
        self._wanted -= {row.id for row in rows}
        if rows := [row for row in rows if not self._life.live(row)]:
            task = asyncio.get_running_loop().create_task(_run(self._start(rows)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


async def _run(work: Awaitable[None]) -> None:
    await work

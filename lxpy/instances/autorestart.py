"""``boot.autorestart``: an instance that ended by itself is started again, later each time, until it is given up.

By itself means: nobody asked lxpy to stop it. A shutdown from inside counts, a reboot does not (that is one anyway).
The first restart comes after ``boot.autorestart.delay`` seconds (1), each further one after twice the time of the one
before, at most `LONGEST`. After ``boot.autorestart.limit`` (10; 0: without end) in a row it is given up with a
warning. One that has run for `STEADY` seconds begins anew. What is counted and when the next is due stand in
``volatile.autorestart.*``: a daemon that ends meanwhile goes on from there.
"""

import asyncio
import datetime
import time
from collections.abc import Awaitable, Callable

from lxpy.api import values
from lxpy.api.errors import ApiError
from lxpy.api.notices import AUTORESTART, Notice
from lxpy.instances.lifecycle import Lifecycle
from lxpy.instances.records import Records
from lxpy.runtime.spawner_client import Exit
from lxpy.state.store import InstanceRow

DELAY, LIMIT = 1, 10
LONGEST, STEADY = 60.0, 60.0


class AutoRestart:
    """Restarts.

    Args:
        start: the whole way to a running instance.
        warn: told of one that is given up.
    """

    def __init__(
        self,
        records: Records,
        life: Lifecycle,
        start: Callable[[InstanceRow], Awaitable[str]],
        warn: Callable[[str], None],
    ) -> None:
        self._records, self._life, self._start, self._warn = records, life, start, warn
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def close(self) -> None:
        """What is due stays written down for the next daemon."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    def ended(self, row: InstanceRow, exit_: Exit) -> None:
        """An instance has ended by itself."""
        started = row.doc.get("started", 0.0)
        self._again(row, fresh=exit_.at - started >= STEADY)

    def _again(self, row: InstanceRow, fresh: bool = False) -> None:
        config, _ = self._records.expanded(row)
        if not values.boolean("boot.autorestart", config.get("boot.autorestart") or "false"):
            self.forget(row)
            return
        limit, delay = (
            int(config.get(f"boot.autorestart.{key}") or d) for key, d in (("limit", LIMIT), ("delay", DELAY))
        )
        count = 0 if fresh else int(row.doc["config"].get("volatile.autorestart.count") or 0)
        if limit and count >= limit:
            self._records.set_volatile(row, autorestart__due=None)
            text = f"Instance {row.name!r} ended by itself {count + 1} times in a row and is not started again"
            self._warn(Notice(text, AUTORESTART, f"/1.0/instances/{row.name}", row.project))
            return
        wait = datetime.timedelta(seconds=min(LONGEST, delay * 2.0 ** min(count, 10)))
        due = (datetime.datetime.now(datetime.UTC) + wait).isoformat().replace("+00:00", "Z")
        self._schedule(self._records.set_volatile(row, autorestart__count=str(count + 1), autorestart__due=due))

    def resume(self, row: InstanceRow) -> None:
        """The daemon has come: a restart that is due is waited for."""
        if "volatile.autorestart.due" in row.doc["config"]:
            self._schedule(row)

    def _schedule(self, row: InstanceRow) -> None:
        self._tasks[row.id] = task = asyncio.get_running_loop().create_task(self._wait(row))
        task.add_done_callback(lambda _: self._tasks.pop(row.id, None) if self._tasks.get(row.id) is task else None)

    async def _wait(self, row: InstanceRow) -> None:
        due = datetime.datetime.fromisoformat(row.doc["config"]["volatile.autorestart.due"])
        await asyncio.sleep(max(0.0, due.timestamp() - time.time()))
        current = self._records.current(row)
        if current is None or self._life.live(current):
            return
        try:
            await self._start(self._records.set_volatile(current, autorestart__due=None))
        except (ApiError, OSError) as error:
            current = self._records.current(row)
            if current is not None and self._life.live(current) is None:
                text = f"Instance {row.name!r} ended by itself and could not be started again: {error}"
                self._warn(Notice(text, AUTORESTART, f"/1.0/instances/{row.name}", row.project))
                self._again(current)

    def cancel(self, row: InstanceRow) -> bool:
        """No restart any more; whether one was due."""
        if task := self._tasks.pop(row.id, None):
            task.cancel()
        return self.forget(row)

    def forget(self, row: InstanceRow) -> bool:
        """Somebody has started or stopped it: counting begins anew. Whether a restart was due."""
        due = "volatile.autorestart.due" in row.doc["config"]
        self._records.set_volatile(row, autorestart__count=None, autorestart__due=None)
        return due

"""Work on many objects at once: each has a result of its own, the others go on where one fails, the rest can be left.

No Textual in it. `screens/results.py` shows a `Batch`; whoever starts one gives what is to be done to one object.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lxpy.tui.gateway import Cancelled, explain

AT_ONCE = 8  # so many objects are worked on at the same time; the daemon does the ordering among them

WAITING, RUNNING, DONE, FAILED, SKIPPED, LEFT = "waiting", "running", "done", "failed", "skipped", "left"
ENDED = (DONE, FAILED, SKIPPED, LEFT)


class Skipped(Exception):
    """There was nothing to do to an object; the text says why."""


class Item:
    """One object of a batch.

    Attributes:
        state: one of those above.
        text: its result: what came of it, or why it failed.
        more: a longer result, such as what a command has written; "" for none.
    """

    __slots__ = ("began", "key", "more", "name", "row", "seconds", "state", "task", "text")

    def __init__(self, row: Any) -> None:
        self.row = row
        self.key: str = row.key
        self.name: str = getattr(row, "name", "") or row.title
        self.state, self.text, self.more = WAITING, "", ""
        self.began = self.seconds = 0.0
        self.task: asyncio.Task[Any] | None = None


class Batch:
    """What is done to several objects.

    Args:
        title: what is done, such as "Stop 12 instances".
        one: does it to one row; what it gives is the result's text, what it raises the reason. It may give a pair:
            the text and a longer one.
        interruptible: whether what is under way may be broken off; otherwise only what has not begun is left.
        keep: whether the results are what it is done for, and are shown in any case.

    Attributes:
        changed: called when something has changed.
    """

    def __init__(
        self, title: str, rows: Sequence[Any], one: Callable[[Any], Awaitable[Any]], *,
        interruptible: bool = False, keep: bool = False,
    ) -> None:  # fmt: skip
        self.title, self.interruptible, self.keep = title, interruptible, keep
        self.changed: Callable[[], None] = lambda: None
        self.items = [Item(row) for row in rows]
        self.stopped = False
        self._one = one

    def count(self, *states: str) -> int:
        """How many objects are in one of the states."""
        return sum(item.state in states for item in self.items)

    @property
    def ended(self) -> bool:
        return self.count(*ENDED) == len(self.items)

    @property
    def failed(self) -> list[Item]:
        return [item for item in self.items if item.state == FAILED]

    def summary(self) -> str:
        """``9 done, 2 failed, 1 left``."""
        words = {DONE: "done", FAILED: "failed", SKIPPED: "skipped", LEFT: "left out", RUNNING: "running"}
        words |= {WAITING: "waiting"}
        counts = {word: self.count(state) for state, word in words.items()}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count)

    async def run(self) -> None:
        """Does everything; never raises but when it is cancelled itself."""
        self.stopped = False
        waiting = iter([item for item in self.items if item.state == WAITING])
        await asyncio.gather(*(self._some(waiting) for _ in range(min(AT_ONCE, len(self.items)))))
        self.changed()

    async def _some(self, waiting: Any) -> None:
        for item in waiting:
            if item.state == WAITING and not self.stopped:
                await self._do(item)

    async def _do(self, item: Item) -> None:
        item.state, item.text, item.more, item.began = RUNNING, "", "", time.monotonic()
        self.changed()
        task = item.task = asyncio.ensure_future(self._one(item.row))
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()  # the app closes
            raise
        item.seconds, item.task = time.monotonic() - item.began, None
        if task.cancelled():
            item.state, item.text = LEFT, "broken off"
        elif (error := task.exception()) is None:
            found = task.result()
            item.text, item.more = found if isinstance(found, tuple) else (str(found or ""), "")
            item.state = DONE
        elif isinstance(error, Skipped):
            item.state, item.text = SKIPPED, str(error)
        elif isinstance(error, Cancelled):
            item.state, item.text = LEFT, "cancelled"
        else:
            item.state, item.text = FAILED, explain(error)
        self.changed()

    def stop(self) -> None:
        """Begins no more; breaks off what may be broken off."""
        self.stopped = True
        for item in self.items:
            if item.state == WAITING:
                item.state, item.text = LEFT, "not begun"
            elif self.interruptible and item.task is not None:
                item.task.cancel()
        self.changed()

    def again(self) -> bool:
        """Makes those that failed or were left wait again; whether there are any."""
        some = [item for item in self.items if item.state in (FAILED, LEFT)]
        for item in some:
            item.state, item.text, item.more = WAITING, "", ""
        return bool(some)

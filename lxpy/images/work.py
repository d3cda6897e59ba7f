"""One piece of work, many waiters: the download or build that several launches ask for at the same moment."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

Progress = Callable[[str, str], None]


@dataclass
class _Job:
    task: asyncio.Task[str]
    waiters: set[Progress] = field(default_factory=set)
    last: tuple[str, str] | None = None


class SharedWork:
    """Runs at most one task per key; every caller gets its result and its progress.

    A cancelled caller just leaves; when the last one leaves, the task is cancelled and waited for, so that what it
    holds (processes, temporary files) is gone when `run` returns.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, _Job] = {}

    async def run(self, key: str, work: Callable[[Progress], Awaitable[str]], progress: Progress) -> str:
        """The result of ``work(report)``, started here unless the same key is already under way."""
        job = self._jobs.get(key)
        if job is None:

            async def body() -> str:
                return await work(report)

            def report(name: str, text: str) -> None:
                started.last = (name, text)
                for waiter in tuple(started.waiters):
                    waiter(name, text)

            started = job = _Job(asyncio.create_task(body(), name=f"images:{key}"))
            self._jobs[key] = job
            job.task.add_done_callback(lambda _: self._jobs.pop(key, None) if self._jobs.get(key) is started else None)

        # A callable of its own per waiter: two waiters may well hand in the same function.
        def waiter(name: str, text: str) -> None:
            progress(name, text)

        job.waiters.add(waiter)
        if job.last:
            waiter(*job.last)
        try:
            return await asyncio.shield(job.task)
        except asyncio.CancelledError:
            job.waiters.discard(waiter)
            if not job.waiters and not job.task.done():
                # From here on a new caller starts afresh instead of joining a dying task.
                if self._jobs.get(key) is job:
                    del self._jobs[key]
                job.task.cancel()
                await asyncio.wait([job.task])
            raise
        finally:
            job.waiters.discard(waiter)
            if job.task.done() and not job.task.cancelled():
                job.task.exception()  # retrieved, even if every waiter was cancelled meanwhile

    async def close(self) -> None:
        """Cancels what still runs and waits for it."""
        tasks = [job.task for job in self._jobs.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

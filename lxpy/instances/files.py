"""Files of instances, running and stopped: each user gets a process of its own for them (runtime/filework.py)."""

import asyncio
import contextlib
import os
import socket
from contextlib import AbstractContextManager

from lxpy.api.errors import ApiError, Conflict, InternalError
from lxpy.api.layout import qualified
from lxpy.instances.lifecycle import Lifecycle
from lxpy.instances.records import Records
from lxpy.runtime import wire
from lxpy.runtime.spawner_client import FileWorker, Spawner
from lxpy.state.store import InstanceRow
from lxpy.storage.manager import StorageManager


class Files:
    """Opens the files of instances.

    A stopped root is opened once for all who want it, since an overlay cannot be mounted twice. Whoever needs it, or
    the instance's mounts, to be free (a start, a deletion) calls `release`.
    """

    def __init__(self, records: Records, life: Lifecycle, storage: StorageManager, spawner: Spawner) -> None:
        self._records, self._life, self._storage, self._spawner = records, life, storage, spawner
        self._workers: dict[int, set[FileWorker]] = {}
        self._roots: dict[int, tuple[AbstractContextManager[int], int]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        life.release = self.release

    async def session(self, project: str, name: str) -> socket.socket:
        """The user's end of a SEQPACKET socket to a new file process. Closing it is enough to end that.

        Raises:
            NotFound: no such instance.
            InternalError: its files could not be reached.
        """
        ours, theirs = wire.pair()
        with theirs:
            try:
                await self.serve(project, name, theirs.fileno())
            except BaseException:
                ours.close()
                raise
        return ours

    async def serve(self, project: str, name: str, fd: int, *, sftp: bool = False) -> None:
        """Has a new file process answer on the socket `fd` (a stream when it is to speak SFTP), the caller's still.

        Raises as `session`.
        """
        row = self._present(project, name)
        if live := self._life.live(row):
            try:
                self._watch(row, await self._spawner.files(live.supervisor, fd, sftp=sftp))
                return
            except InternalError:
                if self._life.live(row) is live and not live.supervisor.exited.done():
                    raise
        # Stopped, or just stopping: who holds the lock decides.
        async with self._life.lock(row):
            row = self._present(project, name)
            if live := self._life.live(row):
                self._watch(row, await self._spawner.files(live.supervisor, fd, sftp=sftp))
                return
            root = await self._root(row)
            try:
                self._watch(row, await self._spawner.files(root, fd, sftp=sftp))
            finally:
                await self._close_unused(row.id)

    def _present(self, project: str, name: str) -> InstanceRow:
        row = self._records.get(project, name)
        if row.doc.get("creating") or row.doc.get("deleting"):
            word = "created" if row.doc.get("creating") else "deleted"
            raise Conflict(f"Instance {name!r} is being {word}")
        return row

    async def _root(self, row: InstanceRow) -> int:
        if row.id not in self._roots:
            context = self._storage.pool(row.pool).open_root(qualified(row.project, row.name))
            try:
                self._roots[row.id] = context, await asyncio.to_thread(context.__enter__)
            except OSError as error:
                raise InternalError(f"Open the root of {row.name!r}: {error.strerror}") from None
        return self._roots[row.id][1]

    def _watch(self, row: InstanceRow, worker: FileWorker) -> None:
        self._workers.setdefault(row.id, set()).add(worker)

        def ended(_future: "asyncio.Future[None]") -> None:
            workers = self._workers.get(row.id, set())
            workers.discard(worker)
            if not workers:
                self._workers.pop(row.id, None)
                task = asyncio.get_running_loop().create_task(self._tidy(row))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

        worker.ended.add_done_callback(ended)

    async def _tidy(self, row: InstanceRow) -> None:
        if row.id not in self._roots:
            return
        async with self._life.lock(row):
            await self._close_unused(row.id)

    async def _close_unused(self, number: int) -> None:
        if number not in self._workers and (opened := self._roots.pop(number, None)):
            with contextlib.suppress(ApiError, OSError):
                await asyncio.to_thread(opened[0].__exit__, None, None, None)

    async def release(self, row: InstanceRow) -> None:
        """Ends everybody's work on the files of an instance whose lock is held, and lets go of its root.

        What is being written at that moment does not count; its writer is told so.
        """
        workers = list(self._workers.get(row.id, ()))
        for worker in workers:
            worker.kill()
        for worker in workers:
            await worker.ended
        self._workers.pop(row.id, None)
        await self._close_unused(row.id)

    async def close(self) -> None:
        """The daemon ends: those who use running instances go on, those who use a stopped root end with us."""
        for task in self._tasks:
            task.cancel()
        for context, fd in self._roots.values():
            with contextlib.suppress(OSError):
                os.fstat(fd)
                context.__exit__(None, None, None)
        self._roots.clear()

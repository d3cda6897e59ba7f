"""Pools that go from under us and come back: noticed by what the kernel tells, and whenever one is used.

Nothing is polled. The kernel tells of every change of our mounts (poll(2) of /proc/self/mountinfo, see proc(5)) and of
disks that come and go (uevents, NETLINK_KOBJECT_UEVENT). Of what no event tells, a file that was put back, for example:
a pool that is away is tried again before anything is changed through the API, and every five minutes.
"""

import asyncio
import contextlib
import os
import select
import socket
import time
from collections.abc import Awaitable, Callable, Mapping

from lxpy.storage.pool import DirectoryPool

_NETLINK_KOBJECT_UEVENT = 15
_SETTLE = 0.3  # seconds: mounts come in swarms
_RARELY = 300.0


class PoolWatch:
    """Watches the pools.

    Args:
        pools: by name; whoever owns them changes it.
        returned: awaited with the name of a pool that is back.
    """

    def __init__(self, pools: Mapping[str, DirectoryPool], returned: Callable[[str], Awaitable[None]]) -> None:
        self._pools, self._returned = pools, returned
        self._lock = asyncio.Lock()
        self._tried: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closers = contextlib.ExitStack()

    def start(self) -> None:
        """Listen. `close` ends it."""
        loop = asyncio.get_running_loop()
        mounts = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        self._closers.callback(os.close, mounts)
        # The file can always be read; what tells of a change is POLLPRI, for which asyncio has no word.
        events = select.epoll()
        self._closers.callback(events.close)
        events.register(mounts, select.EPOLLPRI)
        loop.add_reader(events.fileno(), self._mounts_changed, events)
        self._closers.callback(loop.remove_reader, events.fileno())
        with contextlib.suppress(OSError):  # not for everybody; then pools come back when they are used
            disks = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                _NETLINK_KOBJECT_UEVENT,
            )
            self._closers.callback(disks.close)
            disks.bind((0, 1))
            loop.add_reader(disks, self._disks_changed, disks)
            self._closers.callback(loop.remove_reader, disks)
        self._again()

    async def close(self) -> None:
        """Hear no more, and let what is being tried come to its end."""
        self._closers.close()
        for timer in self._timers.values():
            timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def revive(self) -> None:
        """Something is about to be changed: have every pool there that can be."""
        if not any(pool.away() for pool in list(self._pools.values())):
            return
        asked = time.monotonic()  # of many who ask at once, one tries
        await self._try(lambda pool: self._tried.get(pool.name, 0.0) < asked)

    # -- what is heard -------------------------------------------------------------------------------------------

    def _mounts_changed(self, events: select.epoll) -> None:
        events.poll(0)
        self._soon("mounts", _SETTLE)

    def _disks_changed(self, disks: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    message, (sender, _) = disks.recvfrom(8192)
                except BlockingIOError:
                    raise
                except OSError:  # some were lost
                    message, sender = b"add@\0SUBSYSTEM=block", 0
                if sender == 0 and b"\0SUBSYSTEM=block" in message and message.startswith((b"add@", b"change@")):
                    self._soon("disks", _SETTLE)

    def _again(self) -> None:
        self._soon("rarely", _RARELY)

    def _soon(self, what: str, seconds: float) -> None:
        if what not in self._timers:
            self._timers[what] = asyncio.get_running_loop().call_later(seconds, self._heard, what)

    def _heard(self, what: str) -> None:
        del self._timers[what]
        if what == "rarely":
            self._again()
        if any(pool.away() for pool in list(self._pools.values())):
            # What somebody has unmounted on purpose stays so until it is used.
            task = asyncio.get_running_loop().create_task(self._try(lambda pool: pool.returns_by_itself()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    # -- trying --------------------------------------------------------------------------------------------------

    async def _try(self, wanted: Callable[[DirectoryPool], bool]) -> None:
        async with self._lock:
            for name, pool in list(self._pools.items()):
                if not (pool.away() and wanted(pool)):
                    continue
                self._tried[name] = time.monotonic()
                await pool.start()
                if not pool.away():
                    await self._returned(name)

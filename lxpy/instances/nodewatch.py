"""Devices of the host that come and go, and the running instances that are to have them.

The kernel tells by uevents, udev when its links are made, inotify of nodes that were made by hand. What was told is
not believed: each event only means another look at what there is.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable

from lxpy.instances.live import Live
from lxpy.instances.nodes import Nodes, comes_and_goes, waits_in
from lxpy.linux import uevents
from lxpy.linux.inotify import Watches
from lxpy.state.store import InstanceRow

log = logging.getLogger("lxpy.instances")

_SWARM = 0.05  # seconds; events come in swarms
_TELLING = frozenset({"add", "remove", "bind", "unbind", "move", "online", "offline", "udev"})

Running = Callable[[], Iterable[tuple[InstanceRow, Live]]]


class NodeWatch:
    """Looks again at the nodes of running instances when the host's devices may have changed.

    Args:
        running: all running instances.
        lock: of one of them.
        current: its row now; None when it is gone.
    """

    def __init__(
        self, nodes: Nodes, running: Running, lock: Callable[[InstanceRow], asyncio.Lock],
        current: Callable[[InstanceRow], InstanceRow | None],
    ) -> None:  # fmt: skip
        self._nodes, self._running, self._lock, self._current = nodes, running, lock, current
        self._events: socket.socket | None = None
        self._watches: Watches | None = None
        self._task: asyncio.Task[None] | None = None
        self._again = False

    def follow(self) -> None:
        """The devices of an instance have changed: listen for what they wait for, or no longer."""
        devices = [one for _, live in self._running() for one in live.devices.values() if comes_and_goes(one)]
        if devices and self._events is None:
            try:
                self._events = uevents.listen()
                self._watches = Watches()
            except OSError as error:
                log.warning("devices that come and go cannot be watched: %s", error)
                self.close()
                return
            loop = asyncio.get_running_loop()
            loop.add_reader(self._events.fileno(), self._heard)
            loop.add_reader(self._watches.fd, self._seen)
        elif not devices:
            self._deaf()
        if self._watches is not None:
            self._watches.set(waits_in(devices))

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._deaf()

    def _deaf(self) -> None:
        loop = asyncio.get_running_loop()
        if self._events is not None:
            loop.remove_reader(self._events.fileno())
            self._events.close()
        if self._watches is not None:
            loop.remove_reader(self._watches.fd)
            self._watches.close()
        self._events = self._watches = None

    def _heard(self) -> None:
        assert self._events is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._events.recv(1 << 16)
                except BlockingIOError:
                    raise
                except OSError:  # ENOBUFS: some were lost
                    self._look()
                    continue
                if uevents.parse(data).get("ACTION") in _TELLING:
                    self._look()

    def _seen(self) -> None:
        assert self._watches is not None
        self._watches.drain()
        self._look()

    def _look(self) -> None:
        self._again = True
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._refresh())

    async def _refresh(self) -> None:
        while self._again:
            await asyncio.sleep(_SWARM)
            self._again = False
            for row, live in list(self._running()):
                if not any(comes_and_goes(one) for one in live.devices.values()):
                    continue
                async with self._lock(row):
                    current = self._current(row)
                    if current is None or live.stopping or live.ended.done():
                        continue
                    try:
                        await self._nodes.refresh(current, live)
                    except Exception:
                        log.exception("the devices of %s", row.name)
            self.follow()  # a directory may have come that something waits in

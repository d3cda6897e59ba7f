"""The daemon's side of a supervisor: a live connection, and finding supervisors again after a restart."""

import asyncio
import collections
import functools
import json
import os
import signal
import socket
import time
from typing import Any, NamedTuple

from lxpy.api.errors import InternalError
from lxpy.linux import apparmor, pidfd
from lxpy.runtime import wire
from lxpy.runtime.cgroup import InstanceCgroup


class Exit(NamedTuple):
    """How an instance ended.

    Attributes:
        reason: ``halt``, ``reboot``, ``exit`` (`code`: status), ``signal`` (`code`: number), ``oom``, or ``lost``:
            its supervisor was killed, nobody saw the end, and what was left of the instance has been killed.
        code: status or signal.
        at: seconds since the epoch.
    """

    reason: str
    code: int
    at: float


class Channel:
    """A SEQPACKET socket on the event loop: messages with descriptors, in order."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, message: wire.Message, fds: list[int] | tuple[int, ...] = ()) -> bool:
        """Sends, waiting while the other end's queue is full; False when nobody is there."""
        while True:
            try:
                return wire.send(self.sock, message, fds)
            except BlockingIOError:
                writable = self._loop.create_future()
                self._loop.add_writer(self.sock, _settle, writable)
                try:
                    await writable
                finally:
                    self._loop.remove_writer(self.sock)

    async def receive(self) -> tuple[wire.Message | None, list[int]]:
        """The next message; None at the end."""
        while True:
            try:
                return wire.receive(self.sock)
            except BlockingIOError:
                readable = self._loop.create_future()
                self._loop.add_reader(self.sock, _settle, readable)
                try:
                    await readable
                finally:
                    self._loop.remove_reader(self.sock)

    def close(self) -> None:
        self._loop.remove_reader(self.sock)
        self.sock.close()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Supervisor:
    """A live connection to one instance's supervisor.

    Attributes:
        init_pid, init_pidfd: of the guest's init; the pidfd is closed by `close`, after `exited`.
        started_at: seconds since the epoch.
        exited: resolved when init has ended.
        name, prefix, idmap_base: as in the spec.
    """

    def __init__(self, channel: Channel, state: wire.Message, init_pidfd: int, run_dir: str) -> None:
        self.init_pid: int = state["init"]
        self.init_pidfd = init_pidfd
        self.started_at: float = state["started_at"]
        self.name: str = state["name"]
        self.prefix: str = state["prefix"]
        self.idmap_base: int | None = state["base"]
        self.run_dir = run_dir
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._state = state
        self._channel = channel
        self._answers: collections.deque[asyncio.Future[tuple[wire.Message, list[int]]]] = collections.deque()
        self._reader = asyncio.get_running_loop().create_task(self._read())

    @functools.cached_property
    def apparmor(self) -> str:
        """The AppArmor profile its init runs under; empty: none. What is executed inside later gets the same."""
        return apparmor.label(self.init_pid)

    @functools.cached_property
    def confine(self) -> dict[str, Any]:
        """What it was started with as its `Confine`, for commands executed inside."""
        return _read_json(f"{self.run_dir}/confine.json") or {}

    async def halt_signal(self) -> int:
        """What asks its init to shut down: SIGRTMIN+3 if PID 1 blocks or catches it (systemd), else SIGPWR."""
        wanted = signal.SIGRTMIN + 3
        try:
            with open(f"/proc/{self.init_pid}/status", encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, _, value = line.partition(":")
                    if key in ("SigBlk", "SigCgt") and int(value, 16) >> (wanted - 1) & 1:
                        return wanted
        except OSError:
            pass
        return signal.SIGPWR

    def signal(self, number: int) -> None:
        """Sends a signal to init; one that has ended takes none."""
        if self.init_pidfd >= 0:
            pidfd.send(self.init_pidfd, number)

    async def kill(self) -> None:
        """SIGKILL to every process of the guest; unlike a kill from elsewhere never taken for want of memory."""
        await self._ask({"op": "stop"})

    async def console(self) -> socket.socket:
        """A stream socket of the console: the last 64 KiB first, then live; what is written there is typed."""
        _, fds = await self._ask({"op": "console"})
        return socket.socket(fileno=fds[0])

    async def resize_console(self, width: int, height: int) -> None:
        await self._ask({"op": "resize", "width": width, "height": height})

    async def close(self) -> None:
        """Lets go of the connection; the instance runs on."""
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        self._forget()

    async def _ask(self, message: wire.Message) -> tuple[wire.Message, list[int]]:
        answer: asyncio.Future[tuple[wire.Message, list[int]]] = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        if self.exited.done() or not await self._channel.send(message):
            raise InternalError(f"Instance {self.name} has just stopped")
        reply, fds = await answer
        if "error" in reply:
            raise InternalError(f"The supervisor of {self.name} refused: {reply['error']}")
        return reply, fds

    async def _read(self) -> None:
        while True:
            message, fds = await self._channel.receive()
            if message is None:
                break
            if message.get("event") == "exit":
                self._end(Exit(message["reason"], message["code"], message["at"]))
                return
            if self._answers:
                answer = self._answers.popleft()
                if not answer.done():
                    answer.set_result((message, fds))
                    continue
            for fd in fds:
                os.close(fd)
        self._end(read_exit(self.run_dir) or await clear_up(self.run_dir, self._state))

    def _end(self, result: Exit) -> None:
        if not self.exited.done():
            self.exited.set_result(result)
        self._forget()

    def _forget(self) -> None:
        self._channel.close()
        if self.init_pidfd >= 0:
            os.close(self.init_pidfd)
            self.init_pidfd = -1
        for answer in self._answers:
            if not answer.done():
                answer.set_exception(InternalError(f"Instance {self.name} has just stopped"))
        self._answers.clear()


def read_exit(run_dir: str) -> Exit | None:
    """The exit record, if there is one."""
    record = _read_json(f"{run_dir}/exit.json")
    return Exit(record["reason"], record["code"], record["at"]) if record else None


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            record = json.loads(file.read())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


async def clear_up(run_dir: str, state: dict[str, Any]) -> Exit:
    """After a killed supervisor: kills what is left of the instance, removes its cgroups, records ``lost``."""
    cgroup = InstanceCgroup(state["prefix"], state["name"])
    cgroup.kill()
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        same_boot = file.read().strip() == state.get("boot")
    init = pidfd.open_verified(state["init"], state["start"]) if same_boot else -1
    if init >= 0:
        pidfd.send(init, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while (init >= 0 and pidfd.alive(init)) or not cgroup.remove(0, supervisor=True):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.005)
    if init >= 0:
        os.close(init)
    result = Exit("lost", 0, time.time())
    path = f"{run_dir}/exit.json"
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(json.dumps(result._asdict()))
        file.flush()
        os.fsync(file.fileno())
    os.rename(f"{path}.new", path)
    try:
        os.unlink(f"{run_dir}/supervisor.sock")
    except FileNotFoundError:
        pass
    return result


async def adopt(run_dir: str) -> Supervisor | Exit | None:
    """What became of the instance of `run_dir`: it runs, it ended while nobody watched, or there is nothing."""
    for attempt in range(3):
        if result := read_exit(run_dir):
            return result
        if supervisor := await _connect(run_dir):
            return supervisor
        if attempt < 2:
            await asyncio.sleep(0.005 * attempt)  # it may have ended between the two looks
    if result := read_exit(run_dir):
        return result
    state = _read_json(f"{run_dir}/state.json")
    return await clear_up(run_dir, state) if state else None


async def _connect(run_dir: str) -> Supervisor | None:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        directory = os.open(run_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{directory}/supervisor.sock")
        finally:
            os.close(directory)
    except OSError:
        sock.close()
        return None
    channel = Channel(sock)
    try:
        await channel.send({"op": "hello", "v": wire.VERSION})
        state, fds = await asyncio.wait_for(channel.receive(), 10)
    except TimeoutError:
        state, fds = None, []
    if state is None or "init" not in state or not fds:
        channel.close()
        return None
    return Supervisor(channel, state, fds[0], run_dir)

"""The websockets of one exec or console operation, and the pumps between them and file descriptors.

A client opens ``/1.0/operations/ID/websocket?secret=S`` once per stream: ``0`` (and ``1``, ``2``) carry data in
binary frames, ``control`` JSON. An empty text frame says end of input. The server closes all sockets at the end.
"""

import asyncio
import contextlib
import fcntl
import hmac
import json
import os
import secrets
import signal
import struct
import termios
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.daemon.lean import web

CONNECT_TIMEOUT = 5.0  # seconds for the required sockets to appear (LXD's rule)
_CHUNK = 1 << 17
PTY_GRACE = 0.1  # seconds the line discipline may need to hand out what a dead process wrote last
_AFTER_END = 1 << 20  # bytes still taken once the command has ended: a pipe holds no more, the rest is another's


class Streams:
    """The named websockets of one operation."""

    def __init__(self, names: list[str]) -> None:
        self.fds = {name: secrets.token_hex(32) for name in names}
        loop = asyncio.get_running_loop()
        self._sockets: dict[str, asyncio.Future[web.WebSocketResponse]] = {n: loop.create_future() for n in names}
        self._finished = asyncio.Event()

    async def serve(self, request: web.Request, secret: str) -> web.StreamResponse:
        """Take in one websocket and hold its request until the work is over."""
        name = next((n for n, s in self.fds.items() if hmac.compare_digest(s, secret)), None)
        if name is None or self._finished.is_set():
            raise NotFound("No such websocket, or its operation has ended")
        if self._sockets[name].done():
            raise BadRequest(f"Websocket {name!r} is connected already")
        websocket = web.WebSocketResponse(compress=False, max_msg_size=0, autoping=True, timeout=2.0)
        await websocket.prepare(request)
        self._sockets[name].set_result(websocket)
        await self._finished.wait()
        with contextlib.suppress(Exception):
            await websocket.close()
        return websocket

    async def connected(self, names: list[str]) -> None:
        """Wait for these sockets; raises `BadRequest` after `CONNECT_TIMEOUT`."""
        waiting = [self._sockets[name] for name in names]
        _, pending = await asyncio.wait(waiting, timeout=CONNECT_TIMEOUT)
        if pending:
            raise BadRequest(f"No websocket was connected within {CONNECT_TIMEOUT:.0f} seconds")

    async def socket(self, name: str) -> web.WebSocketResponse:
        """The socket, as soon as it is there."""
        return await asyncio.shield(self._sockets[name])

    def finish(self) -> None:
        """Close every socket."""
        self._finished.set()
        for future in self._sockets.values():
            if not future.done():
                future.cancel()


async def send_all(
    queue: "asyncio.Queue[str | None]", request: web.BaseRequest, **options: Any
) -> web.WebSocketResponse:
    """A websocket of events: sends what comes into `queue` until None does, or until the client has gone.

    Args:
        options: of aiohttp's WebSocketResponse.
    """
    websocket = web.WebSocketResponse(compress=False, timeout=1.0, **options)
    await websocket.prepare(request)

    async def watch() -> None:
        async for _ in websocket:  # clients say nothing; this notices when they go
            pass
        queue.put_nowait(None)

    watcher = asyncio.create_task(watch())
    try:
        while (frame := await queue.get()) is not None:
            await websocket.send_str(frame)
    except ConnectionError:
        pass
    finally:
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
    await websocket.close()
    return websocket


async def readable(fd: int) -> None:
    """Wait until `fd` has something to read."""
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_reader, loop.remove_reader, loop.create_future())


async def writable(fd: int) -> None:
    """Wait until `fd` takes more."""
    loop = asyncio.get_running_loop()
    await _ready(fd, loop.add_writer, loop.remove_writer, loop.create_future())


async def _ready(
    fd: int, add: Callable[..., Any], remove: Callable[[int], Any], future: "asyncio.Future[None]"
) -> None:

    def wake() -> None:
        if not future.done():
            future.set_result(None)

    add(fd, wake)
    try:
        await future
    finally:
        remove(fd)


class Ended:
    """That the command has ended; wakes the readers that wait for its output."""

    def __init__(self) -> None:
        self.happened = False
        self.waiters: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        self.happened = True
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


async def read_chunk(fd: int, ended: Ended | None = None, grace: float = 0.0) -> bytes:
    """Up to 128 KiB from a non-blocking descriptor; b"" at its end.

    A background process may hold the write end open for ever, so once the command has `ended` an empty pipe counts
    as its end too (after `grace` seconds).
    """
    while True:
        try:
            return os.read(fd, _CHUNK)
        except BlockingIOError:
            pass
        except OSError:  # EIO: the last slave of the pty is closed
            return b""
        if ended is None:
            await readable(fd)
        elif not ended.happened:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[None] = loop.create_future()
            ended.waiters.add(future)
            try:
                await _ready(fd, loop.add_reader, loop.remove_reader, future)
            finally:
                ended.waiters.discard(future)
        elif not grace:
            return b""
        else:
            try:
                await asyncio.wait_for(readable(fd), grace)
            except TimeoutError:
                return b""


async def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write everything to a non-blocking descriptor; BrokenPipeError or OSError when nobody reads any more."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await writable(fd)


async def pump_out(fd: int, sink: Callable[[bytes], Awaitable[None]], ended: Ended, grace: float) -> None:
    """From a descriptor to a websocket (or file) until the end."""
    left = _AFTER_END
    while left > 0 and (chunk := await read_chunk(fd, ended, grace)):
        with contextlib.suppress(ConnectionError):  # the client is gone: drain, so that the command does not block
            await sink(chunk)
        if ended.happened:
            left -= len(chunk)


async def pump_in(websocket: web.WebSocketResponse, fd: int) -> None:
    """From a websocket to a descriptor until an empty text frame or the socket's end."""
    async for message in websocket:
        if message.type.name == "BINARY":
            try:
                await write_all(fd, message.data)
            except OSError:  # nobody reads the command's input any more
                return
        elif message.type.name == "TEXT" and not message.data:
            return


async def control(websocket: web.WebSocketResponse, handle: Callable[[dict[str, Any]], Awaitable[None]]) -> None:
    """Hand every JSON frame to `handle`; returns when the socket has gone."""
    async for message in websocket:
        if message.type.name not in ("TEXT", "BINARY"):
            continue
        with contextlib.suppress(ValueError, TypeError, KeyError, OSError):
            await handle(json.loads(message.data))


def resize(pty: int, width: int, height: int) -> None:
    """Set the window size; the kernel sends SIGWINCH inside."""
    fcntl.ioctl(pty, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


async def exit_status(status_fd: int) -> tuple[int, str]:
    """(exit code as a shell shows it, error) from the spawner's status pipe; signals are 128 + number."""
    os.set_blocking(status_fd, False)
    data = b""
    while chunk := await read_chunk(status_fd):
        data += chunk
    try:
        report = json.loads(data)
    except ValueError:
        return 255, "The command's exit status was lost: its spawner ended"
    if "error" in report:
        return int(report.get("exit", 126)), str(report["error"])
    if "signal" in report:
        return 128 + int(report["signal"]), ""
    return int(report["exit"]), ""


def kill(pidfd: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)

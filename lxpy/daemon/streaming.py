"""Bytes between a request or answer and a pipe, at the pace of the slower of the two."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from lxpy.api.errors import BadRequest, from_status
from lxpy.daemon import envelope
from lxpy.daemon.call import Call
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.storage.compression import MAGIC_LENGTH

if TYPE_CHECKING:
    from aiohttp import StreamReader

_BLOCK = 1 << 20
_LOOK_EVERY = 1.0  # seconds
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031


def pipe() -> tuple[int, int]:
    """A pipe that holds a megabyte, where the kernel lets it."""
    import fcntl

    reads, writes = os.pipe()
    with contextlib.suppress(OSError):
        fcntl.fcntl(writes, _F_SETPIPE_SZ, _PIPE_SIZE)
    return reads, writes


async def feed(content: "StreamReader", start: bytes, fd: int) -> None:
    """Writes `start` and the rest of a request's body to a pipe, and closes it. Ends when nobody reads it any more."""
    try:
        os.set_blocking(fd, False)
        data = start
        while data:
            await _write(fd, data)
            data = await content.readany()
    except BrokenPipeError:
        pass
    finally:
        os.close(fd)


async def _write(fd: int, data: bytes) -> None:
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            room = asyncio.Event()
            loop.add_writer(fd, room.set)
            try:
                await room.wait()
            finally:
                loop.remove_writer(fd)


async def _block(call: Call, reader: asyncio.StreamReader) -> bytes:
    """What comes next, b"" at the end. A compressor may think for minutes: a client that leaves meanwhile is noticed.

    Raises:
        ConnectionResetError: it has left.
    """
    task = asyncio.ensure_future(reader.read(_BLOCK))
    try:
        while not (await asyncio.wait([task], timeout=_LOOK_EVERY))[0]:
            transport = call.request.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client has gone")
        return task.result()
    finally:
        task.cancel()


async def answer(call: Call, name: str, operation: Operation, source: int) -> web.StreamResponse:
    """An answer whose body is what comes out of a pipe, which is closed.

    The body ends properly only when the operation that fills the pipe has succeeded; else the connection is cut, and
    whoever asks for the operation named in ``X-LXPY-Operation`` hears why.
    """
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_BLOCK)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", buffering=0)
    )
    try:
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{name}"',
                "X-LXPY-Operation": operation.url,
            }
        )
        block = await _block(call, reader)
        if not block:
            # It failed before its first byte: then there is still room for a proper error.
            await operation.done.wait()
            if operation.error:
                raise from_status(operation.error_status or 500, operation.error)
        response.enable_chunked_encoding()
        await response.prepare(call.request)
        while block:
            await response.write(block)
            block = await _block(call, reader)
        await operation.done.wait()
        if operation.error:
            response.force_close()
            if call.request.transport is not None:
                call.request.transport.abort()
            return response
        await response.write_eof()
        return response
    finally:
        transport.close()
        if operation.task is not None and not operation.done.is_set():
            operation.task.cancel()


async def offer(
    call: Call, description: str, name: str, file_name: str, fill: Callable[[Operation, int], Awaitable[None]]
) -> web.StreamResponse:
    """An answer that is a file called `file_name`, written by `fill` into the pipe it is given, as an operation."""
    reads, writes = pipe()

    async def work(op: Operation) -> None:
        try:
            await fill(op, writes)
        finally:
            os.close(writes)

    operation = call.start(description, "instances" if name else "", [name] if name else [], work, may_cancel=True)
    return await answer(call, file_name, operation, reads)


async def take(
    call: Call, description: str, empty: str, make: Callable[[Operation, int, bytes], Awaitable[None]]
) -> web.StreamResponse:
    """Has `make` make something of the request's body while that comes in, as an operation.

    Args:
        empty: the error for an empty body.
        make: takes the operation, the end of a pipe, and the first bytes that come from it.
    """
    content = call.request.content
    start = b""
    while len(start) < MAGIC_LENGTH and (more := await content.readany()):
        start += more
    if not start:
        raise BadRequest(empty)
    reads, writes = pipe()
    feeding = asyncio.create_task(feed(content, start, writes))

    async def work(op: Operation) -> None:
        try:
            await make(op, reads, start[:MAGIC_LENGTH])
        finally:
            os.close(reads)

    def stop() -> None:
        feeding.cancel()

    operation = call.start(description, "", [], work, may_cancel=True)
    operation.on_cancel = stop  # whoever reads the other end waits for nothing more
    try:
        await operation.done.wait()
    except asyncio.CancelledError:
        stop()
        if operation.task is not None:
            operation.task.cancel()
        raise
    finally:
        stop()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await feeding
    if operation.error:
        raise from_status(operation.error_status or 400, operation.error)
    return envelope.accepted(operation)

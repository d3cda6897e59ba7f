"""Exec and console through the API's websockets: the work of their operations. (`local.py` is the quick way.)"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest
from lxpy.daemon.operations import Operation
from lxpy.daemon.streams import (
    PTY_GRACE,
    Ended,
    Streams,
    control,
    exit_status,
    kill,
    pump_in,
    pump_out,
    read_chunk,
    resize,
    write_all,
)

if TYPE_CHECKING:
    from lxpy.instances.manager import InstanceManager
    from lxpy.runtime.spawner_client import ExecFiles, ExecRequest


def exec_request(body: dict[str, Any]) -> "ExecRequest":
    """The runtime's request from the API's (or the local socket's); null and missing fields take defaults.

    Raises:
        BadRequest: a field has the wrong type.
    """
    command = body.get("command")
    if not isinstance(command, list) or not command or not all(isinstance(word, str) for word in command):
        raise BadRequest("command must be a list of words")
    environment = body.get("environment") or {}
    if not isinstance(environment, dict):
        raise BadRequest("environment must be a set of names and values")
    try:
        return {
            "command": command,
            "environment": {str(key): str(value) for key, value in environment.items()},
            "cwd": str(body.get("cwd") or ""),
            "user": int(body.get("user") or 0),
            "group": int(body.get("group") or 0),
            "interactive": bool(body.get("interactive")),
            "width": int(body.get("width") or 0),
            "height": int(body.get("height") or 0),
        }
    except (TypeError, ValueError):
        raise BadRequest("user, group, width and height must be numbers") from None


async def run_exec(
    instances: "InstanceManager", project: str, name: str, request: "ExecRequest", streams: Streams, op: Operation
) -> None:
    """Wait for the sockets, run the command, pump until it has ended; metadata gets ``return``."""
    interactive = request["interactive"]
    try:
        # pylxd never opens control when the command is not interactive.
        await streams.connected(["0"] if interactive else ["0", "1", "2"])
        files = await instances.exec(project, name, request)
        try:
            await _pump(files, streams, op)
        except asyncio.CancelledError:
            kill(files.pidfd)
            raise
        finally:
            close_files(files)
    finally:
        streams.finish()


async def _pump(files: "ExecFiles", streams: Streams, op: Operation) -> None:
    ended = Ended()
    for fd in files[:4]:
        if fd >= 0:
            os.set_blocking(fd, False)
    helpers: list[asyncio.Task[None]] = []
    outputs: list[asyncio.Task[None]] = []

    async def send_input() -> None:
        await pump_in(await streams.socket("0"), files.pty if files.pty >= 0 else files.stdin)
        if files.pty < 0:
            os.dup2(files.status, files.stdin, inheritable=False)  # ends the input and keeps the number taken

    async def handle(message: dict[str, Any]) -> None:
        if message.get("command") == "signal":
            kill(files.pidfd, int(message["signal"]))
        elif message.get("command") == "window-resize" and files.pty >= 0:
            resize(files.pty, int(message["args"]["width"]), int(message["args"]["height"]))

    async def watch_control() -> None:
        await control(await streams.socket("control"), handle)
        if not ended.happened:
            kill(files.pidfd)  # the client has gone: so goes its command (LXD's rule)

    async def output(fd: int, name: str) -> None:
        websocket = await streams.socket(name)
        await pump_out(fd, websocket.send_bytes, ended, PTY_GRACE if files.pty >= 0 else 0.0)

    helpers.append(asyncio.create_task(send_input()))
    helpers.append(asyncio.create_task(watch_control()))
    if files.pty >= 0:
        outputs.append(asyncio.create_task(output(files.pty, "0")))
    else:
        outputs += [asyncio.create_task(output(files.stdout, "1")), asyncio.create_task(output(files.stderr, "2"))]
    try:
        await _finish(files, ended, outputs, op)
    finally:
        for task in helpers + outputs:
            task.cancel()
        await asyncio.gather(*helpers, *outputs, return_exceptions=True)


async def _finish(files: "ExecFiles", ended: Ended, outputs: list[asyncio.Task[None]], op: Operation) -> None:
    code, error = await exit_status(files.status)
    ended.set()
    await asyncio.gather(*outputs)
    op.metadata["return"] = code
    if error:
        op.metadata["error"] = error


async def run_recorded(
    instances: "InstanceManager",
    project: str,
    name: str,
    request: "ExecRequest",
    directory: str | None,
    op: Operation,
) -> None:
    """Run a command nobody is connected to; with `directory` its output goes to files there."""
    request["interactive"] = False
    files = await instances.exec(project, name, request)
    ended = Ended()
    outputs: list[asyncio.Task[None]] = []
    with contextlib.ExitStack() as stack:
        stack.callback(close_files, files)
        os.dup2(files.status, files.stdin, inheritable=False)
        urls: dict[str, str] = {}
        for number, fd in (("1", files.stdout), ("2", files.stderr)):
            os.set_blocking(fd, False)
            sink: Callable[[bytes], Awaitable[None]] = _discard
            if directory is not None:
                file_name = f"exec_{op.id}.{'stdout' if number == '1' else 'stderr'}"
                os.makedirs(directory, mode=0o700, exist_ok=True)
                file = stack.enter_context(open(f"{directory}/{file_name}", "wb"))
                sink = _file_sink(file.fileno())
                urls[number] = f"/1.0/instances/{name}/logs/exec-output/{file_name}"
            outputs.append(asyncio.create_task(pump_out(fd, sink, ended, 0.0)))
        try:
            await _finish(files, ended, outputs, op)
        except asyncio.CancelledError:
            kill(files.pidfd)
            raise
        finally:
            for task in outputs:
                task.cancel()
            await asyncio.gather(*outputs, return_exceptions=True)
        if urls:
            op.metadata["output"] = urls


async def _discard(data: bytes) -> None:
    pass


def _file_sink(fd: int) -> Callable[[bytes], Awaitable[None]]:
    async def write(data: bytes) -> None:
        await write_all(fd, data)

    return write


def close_files(files: "ExecFiles") -> None:
    for fd in files:
        if fd >= 0:
            os.close(fd)


async def run_console(
    instances: "InstanceManager", project: str, name: str, size: tuple[int, int], streams: Streams, op: Operation
) -> None:
    """Join the console with websockets ``0`` and ``control`` until the client or the instance ends it."""
    console: socket.socket | None = None
    tasks: list[asyncio.Task[None]] = []
    try:
        await streams.connected(["0"])
        console = await instances.console(project, name)
        console.setblocking(False)
        websocket, fd = await streams.socket("0"), console.fileno()
        if all(size):
            await instances.resize_console(project, name, *size)

        async def handle(message: dict[str, Any]) -> None:
            if message.get("command") == "window-resize":
                args = message["args"]
                await instances.resize_console(project, name, int(args["width"]), int(args["height"]))

        async def watch_control() -> None:
            await control(await streams.socket("control"), handle)

        async def output() -> None:
            while chunk := await read_chunk(fd):
                await websocket.send_bytes(chunk)

        tasks = [asyncio.create_task(pump_in(websocket, fd)), asyncio.create_task(output())]
        tasks.append(asyncio.create_task(watch_control()))
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if console is not None:
            console.close()
        streams.finish()

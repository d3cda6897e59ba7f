"""Exec, console and logs of an instance."""

import os
import re

from lxpy.api import status
from lxpy.api.errors import BadRequest, NotFound
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.execs import exec_request, run_console, run_exec, run_recorded
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.daemon.streams import Streams

_LOG_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")


async def exec_(call: Call) -> web.StreamResponse:
    daemon, project, name = call.daemon, call.project, call.part("name")
    if daemon.instances.get(project, name)["status_code"] not in status.RUNS:
        raise BadRequest("Instance is not running")
    body = await call.body()
    request = exec_request(body)
    if not body.get("wait-for-websocket"):
        record = f"{daemon.layout.instance_log(project, name)}/exec-output" if body.get("record-output") else None

        async def detached(op: Operation) -> None:
            await run_recorded(daemon.instances, project, name, request, record, op)

        return call.run("Executing command", "instances", [name], detached, may_cancel=True)
    if body.get("record-output"):
        raise BadRequest("record-output and wait-for-websocket exclude each other")
    streams = Streams(["0", "control"] if request["interactive"] else ["0", "1", "2", "control"])

    async def work(op: Operation) -> None:
        await run_exec(daemon.instances, project, name, request, streams, op)

    return _with_streams(call, "Executing command", streams, work)


def _with_streams(call: Call, description: str, streams: Streams, work: "object") -> web.StreamResponse:
    operation = call.start(
        description, "instances", [call.part("name")], work,  # type: ignore[arg-type]
        may_cancel=True, class_="websocket", metadata={"fds": streams.fds},
    )  # fmt: skip
    operation.streams = streams
    return envelope.accepted(operation)


async def console(call: Call) -> web.StreamResponse:
    daemon, project, name = call.daemon, call.project, call.part("name")
    if daemon.instances.get(project, name)["status_code"] not in status.RUNS:
        raise BadRequest("Instance is not running")
    body = await call.body()
    if body.get("type") not in (None, "", "console"):
        raise BadRequest(f"Console type {body['type']!r} needs a virtual machine: a container has a text console")
    try:
        size = int(body.get("width") or 0), int(body.get("height") or 0)
    except (TypeError, ValueError):
        raise BadRequest("width and height must be numbers") from None
    streams = Streams(["0", "control"])

    async def work(op: Operation) -> None:
        await run_console(daemon.instances, project, name, size, streams, op)

    return _with_streams(call, "Showing console", streams, work)


async def console_log(call: Call) -> web.StreamResponse:
    """The whole log, or with ``Range`` a part: a log may be long, and who looks at it wants the end first."""
    try:
        return _send(_open(_directory(call), "console.log"))
    except NotFound:
        call.daemon.instances.get(call.project, call.part("name"))
        return web.Response(body=b"", content_type="application/octet-stream")


def _send(path: str) -> web.StreamResponse:
    return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})


async def clear_console_log(call: Call) -> web.StreamResponse:
    call.daemon.instances.clear_console_log(call.project, call.part("name"))
    return envelope.sync({})


def _directory(call: Call, below: str = "") -> str:
    project, name = call.project, call.part("name")
    call.daemon.instances.get(project, name)
    return call.daemon.layout.instance_log(project, name) + below


def _list(directory: str, base: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return sorted(f"{base}/{entry.name}" for entry in entries if entry.is_file(follow_symlinks=False))
    except FileNotFoundError:
        return []


def _open(directory: str, name: str) -> str:
    path = f"{directory}/{name}"
    if not _LOG_NAME.match(name) or not os.path.isfile(path) or os.path.islink(path):
        raise NotFound(f"Log file {name!r} not found")
    return path


async def logs(call: Call) -> web.StreamResponse:
    return envelope.sync(_list(_directory(call), f"/1.0/instances/{call.part('name')}/logs"))


async def log_file(call: Call) -> web.StreamResponse:
    return _send(_open(_directory(call), call.part("file")))


async def delete_log(call: Call) -> web.StreamResponse:
    name = call.part("file")
    if name == "console.log":
        raise BadRequest("The console log is emptied by DELETE on /console")
    os.unlink(_open(_directory(call), name))
    return envelope.sync({})


async def outputs(call: Call) -> web.StreamResponse:
    base = f"/1.0/instances/{call.part('name')}/logs/exec-output"
    return envelope.sync(_list(_directory(call, "/exec-output"), base))


async def output_file(call: Call) -> web.StreamResponse:
    return _send(_open(_directory(call, "/exec-output"), call.part("file")))


async def delete_output(call: Call) -> web.StreamResponse:
    os.unlink(_open(_directory(call, "/exec-output"), call.part("file")))
    return envelope.sync({})


def _routes() -> list[Route]:
    routes: list[Route] = []
    for base in ("/1.0/instances/{name}", "/1.0/containers/{name}"):
        routes += [
            ("POST", base + "/exec", exec_),
            ("GET", base + "/console", console_log),
            ("POST", base + "/console", console),
            ("DELETE", base + "/console", clear_console_log),
            ("GET", base + "/logs", logs),
            ("GET", base + "/logs/exec-output", outputs),
            ("GET", base + "/logs/exec-output/{file}", output_file),
            ("DELETE", base + "/logs/exec-output/{file}", delete_output),
            ("GET", base + "/logs/{file}", log_file),
            ("DELETE", base + "/logs/{file}", delete_log),
        ]
    return routes


ROUTES = _routes()

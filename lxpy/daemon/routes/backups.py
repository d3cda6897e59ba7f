"""``/1.0/instances/{name}/backups``, and instances made of backups."""

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote

from lxpy.api.errors import BadRequest
from lxpy.daemon import envelope, shapes, streaming
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation

if TYPE_CHECKING:
    from lxpy.instances.exports import Exports
    from lxpy.instances.imports import Overrides

_OVERRIDES = "X-LXPY-Overrides"  # JSON: config, profiles, ephemeral, fresh of `imports.Overrides`


async def list_backups(call: Call) -> web.StreamResponse:
    found = call.daemon.instances.exports.all(call.project, call.part("name"))
    if call.recursion:
        return envelope.sync(found)
    base = f"instances/{quote(call.part('name'))}/backups"
    return envelope.sync([url(base, one["name"].partition("/")[2], call.project) for one in found])


async def get(call: Call) -> web.StreamResponse:
    return envelope.sync(call.daemon.instances.exports.get(call.project, call.part("name"), call.part("backup")))


async def create(call: Call) -> web.StreamResponse:
    """Make a backup that is kept; for a client that accepts ``application/octet-stream`` (ours) the backup itself."""
    exports, project, name = call.daemon.instances.exports, call.project, call.part("name")
    body = await call.body()
    if call.request.headers.get("Accept") == "application/octet-stream":
        return await _stream(call, body)
    backup = exports.validate(project, name, body)

    async def work(op: Operation) -> None:
        await exports.create(project, name, {**body, "name": backup}, op.progress)

    operation = call.start("Backing up instance", "instances", [name], work, may_cancel=True)
    # The stock client takes the backup's name from a URL of just this form.
    operation.resources["backups"] = [f"/1.0/backups/{quote(backup)}"]
    return envelope.accepted(operation)


async def _stream(call: Call, body: dict[str, Any]) -> web.StreamResponse:
    exports, project, name = call.daemon.instances.exports, call.project, call.part("name")
    file_name = exports.file_name(project, name, body)

    async def fill(op: Operation, output: int) -> None:
        await exports.stream(project, name, body, output, op.progress)

    return await streaming.offer(call, "Exporting instance", name, file_name, fill)


async def rename(call: Call) -> web.StreamResponse:
    exports, project, name, backup = _place(call)
    new = str((await call.body()).get("name") or "")
    exports.get(project, name, backup)
    if not new:
        raise BadRequest("No new name given")

    async def work(op: Operation) -> None:
        exports.rename(project, name, backup, new)

    return call.run("Renaming instance backup", "instances", [name], work)


async def delete(call: Call) -> web.StreamResponse:
    exports, project, name, backup = _place(call)
    exports.get(project, name, backup)

    async def work(op: Operation) -> None:
        exports.delete(project, name, backup)

    return call.run("Removing instance backup", "instances", [name], work)


async def export(call: Call) -> web.StreamResponse:
    exports, project, name, backup = _place(call)
    path, file_name = exports.path(project, name, backup)
    headers = {"Content-Disposition": f'attachment; filename="{file_name}"', "Content-Type": "application/octet-stream"}
    return web.FileResponse(path, headers=headers)


def _place(call: Call) -> "tuple[Exports, str, str, str]":
    return call.daemon.instances.exports, call.project, call.part("name"), call.part("backup")


async def receive(call: Call) -> web.StreamResponse:
    """An instance of the backup that is the request's body. It is made while it comes."""
    imports, project = call.daemon.instances.imports, call.project
    asked = _overrides(call)
    imports.validate(project, asked)

    async def make(op: Operation, source: int, start: bytes) -> None:
        def named(name: str) -> None:
            op.resources["instances"] = op.resources["containers"] = [url("instances", name, project)]

        await imports.receive(project, asked, source, start, named, lambda text: op.metadata.update(note=text))

    return await streaming.take(call, "Restoring instance", "Import backup: it is empty", make)


def _overrides(call: Call) -> "Overrides":
    """What the instance is to be other than its backup says: by LXD's headers, and by ours (`_OVERRIDES`).

    Raises:
        BadRequest: a header is not of its form.
    """
    from lxpy.instances.imports import Overrides

    devices = {
        name: dict(parse_qsl(properties, keep_blank_values=True))
        for name, properties in parse_qsl(call.header("devices"))
    }
    try:
        more = json.loads(call.request.headers.get(_OVERRIDES) or "{}")
    except ValueError as error:
        raise BadRequest(f"The header {_OVERRIDES} is not JSON: {error}") from None
    if not isinstance(more, dict):
        raise BadRequest(f"The header {_OVERRIDES} must be a JSON object")
    shapes.check(more)
    if not all(isinstance(value, str) for value in (more.get("config") or {}).values()):
        raise BadRequest("config must be a set of keys and values, all text")
    return Overrides(
        call.header("name"), call.header("pool"), more.get("config") or {}, devices, more.get("profiles"),
        more.get("ephemeral"), more.get("fresh") is True,
    )  # fmt: skip


def _routes() -> list[Route]:
    routes: list[Route] = []
    for base in ("/1.0/instances", "/1.0/containers"):
        one = base + "/{name}/backups/{backup}"
        routes += [
            ("GET", base + "/{name}/backups", list_backups),
            ("POST", base + "/{name}/backups", create),
            ("GET", one, get),
            ("POST", one, rename),
            ("DELETE", one, delete),
            ("GET", one + "/export", export),
        ]
    return routes


ROUTES = _routes()

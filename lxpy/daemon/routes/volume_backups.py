"""``/1.0/storage-pools/{pool}/volumes/custom/{name}/backups``, and volumes made of backups."""

from typing import Any
from urllib.parse import quote

from lxpy.api.errors import BadRequest
from lxpy.daemon import envelope, streaming
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.daemon.routes.storage_volumes import any_volume, custom_place


async def list_backups(call: Call) -> web.StreamResponse:
    if call.part("type") != "custom":
        any_volume(call)
        return envelope.sync([])  # those of an instance are in its own list
    where = custom_place(call)
    listed = call.daemon.volume_backups.all(where)
    if call.recursion:
        return envelope.sync(listed)
    base = f"storage-pools/{where[0]}/volumes/custom/{where[2]}/backups"
    return envelope.sync([url(base, one["name"].partition("/")[2], where[1]) for one in listed])


async def get(call: Call) -> web.StreamResponse:
    return envelope.sync(call.daemon.volume_backups.get(custom_place(call), call.part("backup")))


async def create(call: Call) -> web.StreamResponse:
    """As that of instances (`backups.py`)."""
    where, backups = custom_place(call), call.daemon.volume_backups
    body = await call.body()
    call.daemon.instances.rules.check_backup(call.project)
    if call.request.headers.get("Accept") == "application/octet-stream":
        return await _stream(call, body)
    backup = backups.validate(where, body)

    async def work(op: Operation) -> None:
        await backups.create(where, {**body, "name": backup}, op.progress)

    operation = call.start("Backing up storage volume", "", [], work, may_cancel=True)
    # The stock client takes the backup's name from a URL of just this form.
    operation.resources["backups"] = [f"/1.0/backups/{quote(backup)}"]
    return envelope.accepted(operation)


async def _stream(call: Call, body: dict[str, Any]) -> web.StreamResponse:
    where, backups = custom_place(call), call.daemon.volume_backups

    async def fill(op: Operation, output: int) -> None:
        await backups.stream(where, body, output, op.progress)

    return await streaming.offer(call, "Exporting storage volume", "", backups.file_name(where, body), fill)


async def rename(call: Call) -> web.StreamResponse:
    where, backup, backups = custom_place(call), call.part("backup"), call.daemon.volume_backups
    new = str((await call.body()).get("name") or "")
    backups.get(where, backup)
    if not new:
        raise BadRequest("No new name given")

    async def work(op: Operation) -> None:
        backups.rename(where, backup, new)

    return call.run("Renaming storage volume backup", "", [], work)


async def delete(call: Call) -> web.StreamResponse:
    where, backup, backups = custom_place(call), call.part("backup"), call.daemon.volume_backups
    backups.get(where, backup)

    async def work(op: Operation) -> None:
        backups.delete(where, backup)

    return call.run("Removing storage volume backup", "", [], work)


async def export(call: Call) -> web.StreamResponse:
    path, file_name = call.daemon.volume_backups.path(custom_place(call), call.part("backup"))
    headers = {"Content-Disposition": f'attachment; filename="{file_name}"', "Content-Type": "application/octet-stream"}
    return web.FileResponse(path, headers=headers)


_BACKUPS = "/1.0/storage-pools/{pool}/volumes/{type}/{name}/backups"
ROUTES: list[Route] = [
    ("GET", _BACKUPS, list_backups),
    ("POST", _BACKUPS, create),
    ("GET", _BACKUPS + "/{backup}", get),
    ("POST", _BACKUPS + "/{backup}", rename),
    ("DELETE", _BACKUPS + "/{backup}", delete),
    ("GET", _BACKUPS + "/{backup}/export", export),
]

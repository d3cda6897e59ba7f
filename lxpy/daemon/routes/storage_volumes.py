"""``/1.0/storage-pools/{pool}/volumes``: custom volumes and snapshots; others to be seen."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.daemon import envelope, filter, streaming
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import CONFIGURED, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation, Work
from lxpy.state.volumes import VolumeRow

_SNAPSHOT = ("description", "expires_at")


def _home(call: Call, project: str = "") -> str:
    return call.daemon.volumes.home(project or call.project)


def custom_place(call: Call) -> tuple[str, str, str]:
    """Pool, home project and name of the custom volume of the request."""
    if call.part("type") != "custom":
        kind = call.part("type")
        if kind not in ("container", "image", "virtual-machine"):
            raise BadRequest(f"Unknown volume type {kind!r}: custom, container or image")
        raise BadRequest(f"A volume of type {kind} belongs to its {'image' if kind == 'image' else 'instance'}")
    return call.part("pool"), _home(call), call.part("name")


# -- reading -------------------------------------------------------------------------------------------------------


def _all(call: Call) -> Iterator[dict[str, Any]]:
    """Instances' volumes, images, then custom volumes and their snapshots."""
    from lxpy.instances.devices import is_root

    pool = call.part("pool")
    doc = call.daemon.storage.pools().get(pool)
    if doc is None:
        raise NotFound(f"Storage pool {pool!r} not found")
    plain = {"content_type": "filesystem", "pool": pool, "description": "", "location": "none", "config": {}}
    for one in call.daemon.instances.list(call.project, call.all_projects):
        if not any(is_root(device) and device["pool"] == pool for device in one["expanded_devices"].values()):
            continue
        users = [url("instances", one["name"], one["project"])]
        yield {**plain, "name": one["name"], "type": "container", "project": one["project"],
               "created_at": one["created_at"], "used_by": users}  # fmt: skip
    for fingerprint in sorted(call.daemon.storage.images(pool)):
        yield {**plain, "name": fingerprint, "type": "image", "project": "default",
               "created_at": "0001-01-01T00:00:00Z", "used_by": [url("images", fingerprint)]}  # fmt: skip
    yield from call.daemon.volumes.list(pool, None if call.all_projects else _home(call))


async def list_volumes(call: Call) -> web.StreamResponse:
    wanted = call.request.match_info.get("type")
    holds = filter.parse(call.request.query.get("filter", ""))
    found = [one for one in _all(call) if wanted in (None, one["type"]) and call.may_see(one["project"])]
    found = [one for one in found if holds is None or holds(one)]
    if call.recursion:
        return envelope.sync(found)
    return envelope.sync([_url(call.part("pool"), one) for one in found])


def _url(pool: str, one: dict[str, Any]) -> str:
    name, _, snapshot = one["name"].partition("/")
    if snapshot:
        return url(f"storage-pools/{pool}/volumes/{one['type']}/{name}/snapshots", snapshot, one["project"])
    return url(f"storage-pools/{pool}/volumes/{one['type']}", name, one["project"])


def any_volume(call: Call) -> dict[str, Any]:
    if call.part("type") == "custom":
        return call.daemon.volumes.get(*custom_place(call))
    for one in _all(call):
        if (one["type"], one["name"]) == (call.part("type"), call.part("name")):
            return one
    raise NotFound(f"Storage volume {call.part('name')!r} not found on pool {call.part('pool')!r}")


async def get(call: Call) -> web.StreamResponse:
    found = any_volume(call)
    return envelope.sync(found, etag=etag(found, CONFIGURED))


async def state(call: Call) -> web.StreamResponse:
    if call.part("type") == "custom":
        return envelope.sync(await call.daemon.volumes.state(*custom_place(call)))
    any_volume(call)
    return envelope.sync({"usage": None})


# -- custom volumes ------------------------------------------------------------------------------------------------


def _config(body: dict[str, Any]) -> dict[str, Any]:
    config = body.get("config") or {}
    if not isinstance(config, dict):
        raise BadRequest("config must be a set of keys and values")
    return config


async def receive(call: Call) -> web.StreamResponse:
    """A volume of the backup that is the request's body. It is made while it comes."""
    pool, home, name = call.part("pool"), _home(call), call.header("name")
    backups = call.daemon.volume_backups
    backups.validate_import(pool, home, name)

    async def make(op: Operation, source: int, start: bytes) -> None:
        def named(name: str) -> None:
            op.resources["storage_volumes"] = [url(f"storage-pools/{pool}/volumes/custom", name, home)]

        await backups.receive(pool, home, name, source, start, named, _noting(op))

    return await streaming.take(call, "Restoring storage volume", "Import volume: it is empty", make)


async def create(call: Call) -> web.StreamResponse:
    if call.request.content_type == "application/octet-stream":
        return await receive(call)
    body = await call.body()
    if call.request.match_info.get("type", body.get("type") or "custom") != "custom":
        raise BadRequest("Only volumes of type custom can be created: those of instances and images come with them")
    volumes, pool, home = call.daemon.volumes, call.part("pool"), _home(call)
    name, description = str(body.get("name") or ""), str(body.get("description") or "")
    source = body.get("source") or {}
    if source.get("type") in (None, "", "none") and not source.get("name"):
        await volumes.create(pool, home, name, _config(body), description, str(body.get("content_type") or ""))
        return envelope.sync({}, location=url(f"storage-pools/{pool}/volumes/custom", name, home))
    if source.get("type") != "copy":
        raise BadRequest(
            f"Volume source type {source.get('type')!r} is not supported: copy within one server, with type copy"
        )
    original, _, snapshot = str(source.get("name") or "").partition("/")
    row = volumes.row(str(source.get("pool") or pool), _home(call, str(source.get("project") or "")), original)

    if source.get("refresh"):
        with contextlib.suppress(NotFound):  # then it is a copy
            target = volumes.row(pool, home, name)
            return _refresh(call, row, snapshot, target, snapshots=not source.get("volume_only"))

    async def work(op: Operation) -> None:
        await volumes.copy(
            row, snapshot, pool, home, name, snapshots=not source.get("volume_only"),
            changes={key: str(value) for key, value in _config(body).items()}, description=description,
            note=_noting(op),
        )  # fmt: skip

    return _run(call, "Copying storage volume", name, work)


def _refresh(call: Call, source: VolumeRow, snapshot: str, target: VolumeRow, *, snapshots: bool) -> web.StreamResponse:
    refreshes = call.daemon.volume_refreshes
    refreshes.validate(source, target)

    async def work(op: Operation) -> None:
        await refreshes.refresh(source, snapshot, target, snapshots=snapshots)

    return _run(call, "Refreshing storage volume", target.name, work)


def _noting(op: Operation) -> Callable[[str], None]:
    return lambda text: op.metadata.update(note=text)


def _run(call: Call, doing: str, name: str, work: Work) -> web.StreamResponse:
    return call.run(doing, f"storage-pools/{call.part('pool')}/volumes/custom", [name], work)


async def put(call: Call) -> web.StreamResponse:
    place = custom_place(call)
    old = call.daemon.volumes.get(*place)
    check(call.if_match, old, CONFIGURED)
    body = await call.body()
    if snapshot := body.get("restore"):
        await call.daemon.volumes.restore(*place, str(snapshot))
        return envelope.sync({})
    patch = call.request.method == "PATCH"
    config = {**old["config"], **_config(body)} if patch else _config(body)
    description = str(body.get("description", old["description"] if patch else "") or "")
    await call.daemon.volumes.update(*place, config, description)
    return envelope.sync({})


async def post(call: Call) -> web.StreamResponse:
    """Rename; with ``pool`` or ``project`` in the body, move."""
    pool, home, name = custom_place(call)
    body = await call.body()
    if body.get("migration"):
        raise BadRequest("lxpy does not take part in LXD's migration: use lxpy storage volume move")
    volumes, new = call.daemon.volumes, str(body.get("name") or "")
    asked = str(body.get("project") or "")
    if asked and asked != "default" and not call.daemon.projects.exists(asked):
        raise NotFound(f"Project {asked!r} not found")
    to_pool, to_project = str(body.get("pool") or pool), _home(call, asked)
    row = volumes.row(pool, home, name)
    call.daemon.storage.pool(to_pool)
    if (to_pool, to_project) == (pool, home) and not body.get("pool"):
        await volumes.rename(pool, home, name, new)
        return envelope.sync({}, location=url(f"storage-pools/{pool}/volumes/custom", new, home))

    async def work(op: Operation) -> None:
        await volumes.move(row, to_pool, to_project, new, _noting(op))

    return _run(call, "Moving storage volume", name, work)


async def delete(call: Call) -> web.StreamResponse:
    await call.daemon.volumes.delete(*custom_place(call))
    return envelope.sync({})


# -- snapshots -----------------------------------------------------------------------------------------------------


async def snapshots(call: Call) -> web.StreamResponse:
    if call.part("type") != "custom":
        any_volume(call)
        return envelope.sync([])
    place = custom_place(call)
    found = call.daemon.volumes.snapshots(*place)
    if call.recursion:
        return envelope.sync(found)
    base = f"storage-pools/{place[0]}/volumes/custom/{place[2]}/snapshots"
    return envelope.sync([url(base, one["name"].partition("/")[2], place[1]) for one in found])


async def create_snapshot(call: Call) -> web.StreamResponse:
    place = custom_place(call)
    body = await call.body()
    volumes, name = call.daemon.volumes, str(body.get("name") or "")
    volumes.row(*place)
    for project in {call.project, place[1]}:
        call.daemon.instances.rules.check_snapshot(project)
    expires = body.get("expires_at")

    async def work(op: Operation) -> None:
        await volumes.create_snapshot(*place, name, None if expires is None else str(expires))

    return _run(call, "Creating storage volume snapshot", place[2], work)


async def get_snapshot(call: Call) -> web.StreamResponse:
    found = call.daemon.volumes.snapshot(*custom_place(call), call.part("snapshot"))
    return envelope.sync(found, etag=etag(found, _SNAPSHOT))


async def put_snapshot(call: Call) -> web.StreamResponse:
    place, snapshot = custom_place(call), call.part("snapshot")
    volumes = call.daemon.volumes
    check(call.if_match, volumes.snapshot(*place, snapshot), _SNAPSHOT)
    body = await call.body()
    patch = call.request.method == "PATCH"
    description = body.get("description", None if patch else "")
    expires = body.get("expires_at")

    async def work(op: Operation) -> None:
        await volumes.update_snapshot(*place, snapshot, description, None if expires is None else str(expires))

    return _run(call, "Updating storage volume snapshot", place[2], work)


async def rename_snapshot(call: Call) -> web.StreamResponse:
    place, snapshot = custom_place(call), call.part("snapshot")
    volumes, new = call.daemon.volumes, str((await call.body()).get("name") or "").rpartition("/")[2]
    volumes.snapshot(*place, snapshot)

    async def work(op: Operation) -> None:
        await volumes.rename_snapshot(*place, snapshot, new)

    return _run(call, "Renaming storage volume snapshot", place[2], work)


async def delete_snapshot(call: Call) -> web.StreamResponse:
    place, snapshot = custom_place(call), call.part("snapshot")
    volumes = call.daemon.volumes
    volumes.snapshot(*place, snapshot)

    async def work(op: Operation) -> None:
        await volumes.delete_snapshot(*place, snapshot)

    return _run(call, "Deleting storage volume snapshot", place[2], work)


_VOLUMES = "/1.0/storage-pools/{pool}/volumes"
_ONE = _VOLUMES + "/{type}/{name}"
ROUTES: list[Route] = [
    ("GET", _VOLUMES, list_volumes),
    ("POST", _VOLUMES, create),
    ("GET", _VOLUMES + "/{type}", list_volumes),
    ("POST", _VOLUMES + "/{type}", create),
    ("GET", _ONE, get),
    ("PUT", _ONE, put),
    ("PATCH", _ONE, put),
    ("POST", _ONE, post),
    ("DELETE", _ONE, delete),
    ("GET", _ONE + "/state", state),
    ("GET", _ONE + "/snapshots", snapshots),
    ("POST", _ONE + "/snapshots", create_snapshot),
    ("GET", _ONE + "/snapshots/{snapshot}", get_snapshot),
    ("PUT", _ONE + "/snapshots/{snapshot}", put_snapshot),
    ("PATCH", _ONE + "/snapshots/{snapshot}", put_snapshot),
    ("POST", _ONE + "/snapshots/{snapshot}", rename_snapshot),
    ("DELETE", _ONE + "/snapshots/{snapshot}", delete_snapshot),
]

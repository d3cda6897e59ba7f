"""``/1.0/storage-pools`` and the volumes in them (read only)."""

from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.daemon import envelope
from lxpy.daemon.app import Call, Route
from lxpy.daemon.etag import CONFIGURED, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing, url, with_users


def _pool(call: Call) -> dict[str, Any]:
    name = call.part("pool")
    doc = call.daemon.storage.pools().get(name)
    if doc is None:
        raise NotFound(f"Storage pool {name!r} not found")
    return _render(name, doc)


def _render(name: str, doc: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "driver": doc["driver"],
        "description": doc.get("description", ""),
        "status": "Created",
        "locations": ["none"],
        "config": doc["config"],
        "used_by": [],
    }


async def list_pools(call: Call) -> web.StreamResponse:
    found = [_render(name, doc) for name, doc in call.daemon.storage.pools().items()]
    if call.recursion:
        found = [with_users(call, "storage-pool", one) for one in found]
    return listing(call, "storage-pools", found)


async def create(call: Call) -> web.StreamResponse:
    body = await call.body()
    name = values.object_name("storage pool", str(body.get("name") or ""))
    if name in call.daemon.storage.pools():
        raise Conflict(f"Storage pool {name!r} already exists")
    driver = str(body.get("driver") or "")
    if not driver:
        raise BadRequest("No storage driver given")
    config = {str(key): str(value) for key, value in (body.get("config") or {}).items() if value not in (None, "")}
    await call.daemon.storage.create_pool(name, driver, config, str(body.get("description") or ""))
    call.daemon.events.lifecycle("storage-pool-created", f"/1.0/storage-pools/{name}", "default", None)
    return envelope.sync({}, location=url("storage-pools", name))


async def get(call: Call) -> web.StreamResponse:
    pool = with_users(call, "storage-pool", _pool(call))
    return envelope.sync(pool, etag=etag(pool, CONFIGURED))


async def put(call: Call) -> web.StreamResponse:
    pool = _pool(call)
    check(call.if_match, pool, CONFIGURED)
    body = await call.body()
    patch = call.request.method == "PATCH"
    config = {str(key): str(value) for key, value in (body.get("config") or {}).items() if value is not None}
    if patch:
        config = {**pool["config"], **config}
    config = {key: value for key, value in config.items() if value != ""}
    description = str(body.get("description", pool["description"] if patch else "") or "")
    await call.daemon.storage.update_pool(pool["name"], config, description)
    call.daemon.events.lifecycle("storage-pool-updated", f"/1.0/storage-pools/{pool['name']}", "default", None)
    return envelope.sync({})


async def delete(call: Call) -> web.StreamResponse:
    pool = with_users(call, "storage-pool", _pool(call))
    if pool["used_by"]:
        raise BadRequest(f"Storage pool {pool['name']!r} is in use by {pool['used_by'][0].removeprefix('/1.0/')}")
    await call.daemon.storage.delete_pool(pool["name"])
    call.daemon.events.lifecycle("storage-pool-deleted", f"/1.0/storage-pools/{pool['name']}", "default", None)
    return envelope.sync({})


async def resources(call: Call) -> web.StreamResponse:
    return envelope.sync(await call.daemon.storage.resources(_pool(call)["name"]))


def _volumes(call: Call) -> list[dict[str, Any]]:
    pool = _pool(call)["name"]
    return [
        {
            "name": one["name"],
            "type": "container",
            "content_type": "filesystem",
            "project": one["project"],
            "pool": pool,
            "description": "",
            "location": "none",
            "created_at": one["created_at"],
            "config": {},
            "used_by": [url("instances", one["name"], one["project"])],
        }
        for one in call.daemon.instances.list(call.project, call.all_projects)
        if any(d.get("type") == "disk" and d.get("pool") == pool for d in one["expanded_devices"].values())
    ]


async def volumes(call: Call) -> web.StreamResponse:
    found = _volumes(call)
    if wanted := call.request.match_info.get("type"):
        found = [one for one in found if one["type"] == wanted]
    if call.recursion:
        return envelope.sync(found)
    pool = call.part("pool")
    return envelope.sync([url(f"storage-pools/{pool}/volumes/{v['type']}", v["name"], v["project"]) for v in found])


async def volume(call: Call) -> web.StreamResponse:
    for one in _volumes(call):
        if (one["type"], one["name"]) == (call.part("type"), call.part("name")):
            return envelope.sync(one)
    raise NotFound("Storage volume not found")


async def no_volumes_yet(call: Call) -> web.StreamResponse:
    raise BadRequest("Custom storage volumes are not supported by this version of lxpy")


_POOL = "/1.0/storage-pools/{pool}"
ROUTES: list[Route] = [
    ("GET", "/1.0/storage-pools", list_pools),
    ("POST", "/1.0/storage-pools", create),
    ("GET", _POOL, get),
    ("PUT", _POOL, put),
    ("PATCH", _POOL, put),
    ("DELETE", _POOL, delete),
    ("GET", _POOL + "/resources", resources),
    ("GET", _POOL + "/volumes", volumes),
    ("POST", _POOL + "/volumes", no_volumes_yet),
    ("GET", _POOL + "/volumes/{type}", volumes),
    ("POST", _POOL + "/volumes/{type}", no_volumes_yet),
    ("GET", _POOL + "/volumes/{type}/{name}", volume),
]

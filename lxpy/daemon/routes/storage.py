"""``/1.0/storage-pools``; the volumes in them are in ``storage_volumes.py``."""

from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import CONFIGURED, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing, texts, with_users


def _pool(call: Call) -> dict[str, Any]:
    name = call.part("pool")
    doc = call.daemon.storage.pools().get(name)
    if doc is None:
        raise NotFound(f"Storage pool {name!r} not found")
    return _render(call, name, doc)


def _render(call: Call, name: str, doc: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "driver": doc["driver"],
        "description": doc.get("description", ""),
        "status": "Unavailable" if call.daemon.storage.away(name) else "Created",
        "locations": ["none"],
        "config": doc["config"],
        "used_by": [],
    }


async def list_pools(call: Call) -> web.StreamResponse:
    found = [_render(call, name, doc) for name, doc in call.daemon.storage.pools().items()]
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
    config = {key: value for key, value in texts("config", body.get("config") or {}).items() if value}
    await call.daemon.storage.create_pool(name, driver, config, str(body.get("description") or ""))
    call.daemon.happened("storage-pool-created", f"/1.0/storage-pools/{name}", "default", None)
    return envelope.sync({}, location=url("storage-pools", name))


async def get(call: Call) -> web.StreamResponse:
    pool = with_users(call, "storage-pool", _pool(call))
    return envelope.sync(pool, etag=etag(pool, CONFIGURED))


async def put(call: Call) -> web.StreamResponse:
    pool = _pool(call)
    check(call.if_match, pool, CONFIGURED)
    body = await call.body()
    patch = call.request.method == "PATCH"
    config = texts("config", body.get("config") or {})
    if patch:
        config = {**pool["config"], **config}
    config = {key: value for key, value in config.items() if value != ""}
    description = str(body.get("description", pool["description"] if patch else "") or "")
    await call.daemon.storage.update_pool(pool["name"], config, description)
    call.daemon.happened("storage-pool-updated", f"/1.0/storage-pools/{pool['name']}", "default", None)
    return envelope.sync({})


async def delete(call: Call) -> web.StreamResponse:
    pool = with_users(call, "storage-pool", _pool(call))
    if pool["used_by"]:
        raise BadRequest(f"Storage pool {pool['name']!r} is in use by {pool['used_by'][0].removeprefix('/1.0/')}")
    await call.daemon.storage.delete_pool(pool["name"])
    call.daemon.happened("storage-pool-deleted", f"/1.0/storage-pools/{pool['name']}", "default", None)
    return envelope.sync({})


async def resources(call: Call) -> web.StreamResponse:
    await call.daemon.storage.watch.revive()
    return envelope.sync(await call.daemon.storage.resources(_pool(call)["name"]))


_POOL = "/1.0/storage-pools/{pool}"
ROUTES: list[Route] = [
    ("GET", "/1.0/storage-pools", list_pools),
    ("POST", "/1.0/storage-pools", create),
    ("GET", _POOL, get),
    ("PUT", _POOL, put),
    ("PATCH", _POOL, put),
    ("DELETE", _POOL, delete),
    ("GET", _POOL + "/resources", resources),
]

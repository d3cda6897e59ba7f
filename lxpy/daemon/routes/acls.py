"""``/1.0/network-acls``."""

from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing

_WRITABLE = ("config", "description", "egress", "ingress")


async def list_acls(call: Call) -> web.StreamResponse:
    return listing(call, "network-acls", call.daemon.networks.acls.list())


async def create(call: Call) -> web.StreamResponse:
    name = await call.daemon.networks.acls.create(await call.body())
    return envelope.sync({}, location=url("network-acls", name))


async def get(call: Call) -> web.StreamResponse:
    acl = call.daemon.networks.acls.get(call.part("name"))
    return envelope.sync(acl, etag=etag(acl, _WRITABLE))


async def put(call: Call) -> web.StreamResponse:
    name = call.part("name")
    acl = call.daemon.networks.acls.get(name)
    check(call.if_match, acl, _WRITABLE)
    body = await call.body()
    if call.request.method == "PATCH":
        config = {**acl["config"], **(body.get("config") or {})}
        body = {**{key: acl[key] for key in _WRITABLE}, **body, "config": config}
    await call.daemon.networks.acls.update(name, body)
    return envelope.sync({})


async def rename(call: Call) -> web.StreamResponse:
    new = str((await call.body()).get("name") or "")
    await call.daemon.networks.acls.rename(call.part("name"), new)
    return envelope.sync({}, location=url("network-acls", new))


async def delete(call: Call) -> web.StreamResponse:
    await call.daemon.networks.acls.delete(call.part("name"))
    return envelope.sync({})


async def log(call: Call) -> web.StreamResponse:
    name = call.part("name")
    call.daemon.networks.acls.get(name)
    from lxpy.networks.acllog import of_acl

    return web.Response(text=of_acl(call.daemon.layout.acl_log, name), content_type="application/octet-stream")


ROUTES: list[Route] = [
    ("GET", "/1.0/network-acls", list_acls),
    ("POST", "/1.0/network-acls", create),
    ("GET", "/1.0/network-acls/{name}", get),
    ("PUT", "/1.0/network-acls/{name}", put),
    ("PATCH", "/1.0/network-acls/{name}", put),
    ("POST", "/1.0/network-acls/{name}", rename),
    ("DELETE", "/1.0/network-acls/{name}", delete),
    ("GET", "/1.0/network-acls/{name}/log", log),
]

"""``/1.0/networks``."""

from typing import Any

from lxpy.api.errors import BadRequest
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import CONFIGURED, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing, texts, with_users


async def list_networks(call: Call) -> web.StreamResponse:
    found: Any = call.daemon.networks.list()
    if call.recursion:
        found = [with_users(call, "network", one) for one in found]
    return listing(call, "networks", found)


async def create(call: Call) -> web.StreamResponse:
    body = await call.body()
    name, config = str(body.get("name") or ""), texts("config", body.get("config") or {})
    await call.daemon.networks.create(
        name, str(body.get("type") or "bridge"), config, str(body.get("description") or "")
    )
    return envelope.sync({}, location=url("networks", name))


async def get(call: Call) -> web.StreamResponse:
    network = call.daemon.networks.get(call.part("name"))
    return envelope.sync(with_users(call, "network", network), etag=etag(network, CONFIGURED))


async def put(call: Call) -> web.StreamResponse:
    name = call.part("name")
    network = call.daemon.networks.get(name)
    check(call.if_match, network, CONFIGURED)
    body = await call.body()
    patch = call.request.method == "PATCH"
    config = texts("config", body.get("config") or {})
    if patch:
        config = {**network["config"], **config}
    config = {key: value for key, value in config.items() if value != ""}
    description = str(body.get("description", network["description"] if patch else "") or "")
    await call.daemon.networks.update(name, config, description)
    return envelope.sync({})


async def rename(call: Call) -> web.StreamResponse:
    name = call.part("name")
    network = with_users(call, "network", call.daemon.networks.get(name))
    if network["used_by"]:
        user = network["used_by"][0].removeprefix("/1.0/")
        raise BadRequest(f"Network {name!r} is in use by {user}: only an unused one can be renamed")
    new = str((await call.body()).get("name") or "")
    await call.daemon.networks.rename(name, new)
    return envelope.sync({}, location=url("networks", new))


async def delete(call: Call) -> web.StreamResponse:
    name = call.part("name")
    network = with_users(call, "network", call.daemon.networks.get(name))
    if network["used_by"]:
        raise BadRequest(f"Network {name!r} is in use by {network['used_by'][0].removeprefix('/1.0/')}")
    await call.daemon.networks.delete(name)
    return envelope.sync({})


async def state(call: Call) -> web.StreamResponse:
    return envelope.sync(call.daemon.networks.state(call.part("name")))


async def leases(call: Call) -> web.StreamResponse:
    return envelope.sync(call.daemon.networks.leases(call.part("name")))


# -- forwards ------------------------------------------------------------------------------------------------------

_FORWARD = ("config", "description", "ports")


async def list_forwards(call: Call) -> web.StreamResponse:
    name = call.part("name")
    found = call.daemon.networks.list_forwards(name)
    base = url("networks", name)
    return envelope.sync(found if call.recursion else [f"{base}/forwards/{one['listen_address']}" for one in found])


async def create_forward(call: Call) -> web.StreamResponse:
    name = call.part("name")
    listen = await call.daemon.networks.create_forward(name, await call.body())
    return envelope.sync({}, location=f"{url('networks', name)}/forwards/{listen}")


async def get_forward(call: Call) -> web.StreamResponse:
    forward = call.daemon.networks.get_forward(call.part("name"), call.part("listen"))
    return envelope.sync(forward, etag=etag(forward, _FORWARD))


async def put_forward(call: Call) -> web.StreamResponse:
    name, listen = call.part("name"), call.part("listen")
    forward = call.daemon.networks.get_forward(name, listen)
    check(call.if_match, forward, _FORWARD)
    body = await call.body()
    if call.request.method == "PATCH":
        config = {**forward["config"], **(body.get("config") or {})}
        body = {**{key: forward[key] for key in _FORWARD}, **body, "config": config}
    await call.daemon.networks.update_forward(name, listen, body)
    return envelope.sync({})


async def delete_forward(call: Call) -> web.StreamResponse:
    await call.daemon.networks.delete_forward(call.part("name"), call.part("listen"))
    return envelope.sync({})


ROUTES: list[Route] = [
    ("GET", "/1.0/networks/{name}/forwards", list_forwards),
    ("POST", "/1.0/networks/{name}/forwards", create_forward),
    ("GET", "/1.0/networks/{name}/forwards/{listen}", get_forward),
    ("PUT", "/1.0/networks/{name}/forwards/{listen}", put_forward),
    ("PATCH", "/1.0/networks/{name}/forwards/{listen}", put_forward),
    ("DELETE", "/1.0/networks/{name}/forwards/{listen}", delete_forward),
    ("GET", "/1.0/networks", list_networks),
    ("POST", "/1.0/networks", create),
    ("GET", "/1.0/networks/{name}", get),
    ("PUT", "/1.0/networks/{name}", put),
    ("PATCH", "/1.0/networks/{name}", put),
    ("POST", "/1.0/networks/{name}", rename),
    ("DELETE", "/1.0/networks/{name}", delete),
    ("GET", "/1.0/networks/{name}/state", state),
    ("GET", "/1.0/networks/{name}/leases", leases),
]

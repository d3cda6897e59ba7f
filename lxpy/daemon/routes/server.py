"""``/``, ``/1.0``, events, resources, cluster."""

import asyncio
from typing import Any

from lxpy.api.errors import BadRequest
from lxpy.daemon import config as keys
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.environment import EXTENSIONS, environment, resources
from lxpy.daemon.etag import check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.daemon.streams import send_all
from lxpy.daemon.trust import hash_password


async def root(call: Call) -> web.StreamResponse:
    return envelope.sync(["/1.0"])


def _config(call: Call) -> dict[str, str]:
    config = call.daemon.store.config.all()
    if "core.trust_password" in config:
        config["core.trust_password"] = "true"  # that there is one, not which
    return config


async def server(call: Call) -> web.StreamResponse:
    public: dict[str, Any] = {
        "api_extensions": EXTENSIONS,
        "api_status": "stable",
        "api_version": "1.0",
        "auth": "trusted" if call.trusted else "untrusted",
        "auth_methods": ["tls"],
        "public": False,
    }
    if not call.trusted:
        return envelope.sync(public)
    config = _config(call)
    drivers = _drivers()
    daemon = call.daemon
    public["environment"] = environment(await daemon.addresses(), daemon.certificate(), daemon.fingerprint(), drivers)
    public["environment"]["project"] = call.project
    if call.allowed is not None:
        config = {}  # there must be one: lxc dies without it
    public["config"] = config
    return envelope.sync(public, etag=etag({"config": config}, ("config",)))


def _drivers() -> list[str]:
    from lxpy.storage.drivers import usable  # late: the sockets listen before the managers are imported

    return usable()


async def put_server(call: Call) -> web.StreamResponse:
    """PUT replaces the configuration, PATCH merges into it."""
    daemon = call.daemon
    check(call.if_match, {"config": _config(call)}, ("config",))
    body = await call.body()
    old = daemon.store.config.all()
    new = keys.checked(body.get("config") or {})
    password = new.get("core.trust_password")
    if password in ("true", None) and "core.trust_password" in old and (password or call.request.method == "PATCH"):
        new["core.trust_password"] = old["core.trust_password"]  # written back as it was read
    elif password:
        new["core.trust_password"] = await asyncio.to_thread(hash_password, password)
    if call.request.method == "PATCH":
        new = {**old, **new}
    new = {key: value for key, value in new.items() if value != ""}
    if new.get("core.https_address") != old.get("core.https_address"):
        await daemon.listen_https(new.get("core.https_address", ""))
    daemon.store.config.replace(new)
    daemon.images.upkeep.configured()
    daemon.happened("config-updated", "/1.0", "default", None)
    return envelope.sync({})


async def preseed(call: Call) -> web.StreamResponse:
    """``{"preseed": {...}, "raise_limits": bool}``: the set-up of ``lxpy init``, all or nothing."""
    body = await call.body()
    document, limits = body.get("preseed"), bool(body.get("raise_limits"))

    async def work(operation: Operation) -> None:
        await call.daemon.setup.apply(operation, document or {}, limits)

    return call.run("Setting up the server", "", [], work, may_cancel=True)


async def events(call: Call) -> web.StreamResponse:
    projects = call.allowed if call.all_projects else frozenset({call.project})
    types = call.request.query.get("type", "")
    with call.daemon.events.subscribe(types, projects, server=call.allowed is None) as listener:
        return await send_all(listener.queue, call.request, heartbeat=30.0 if call.der else None)


async def host_resources(call: Call) -> web.StreamResponse:
    return envelope.sync(resources())


async def cluster(call: Call) -> web.StreamResponse:
    return envelope.sync({"server_name": "", "enabled": False, "member_config": []})


async def put_cluster(call: Call) -> web.StreamResponse:
    raise BadRequest("Clustering is not supported by this version of lxpy")


async def no_members(call: Call) -> web.StreamResponse:
    raise BadRequest("This server is not clustered")


ROUTES: list[Route] = [
    ("GET", "/", root),
    ("GET", "/1.0", server),
    ("PUT", "/1.0", put_server),
    ("PATCH", "/1.0", put_server),
    ("GET", "/1.0/events", events),
    ("POST", "/1.0/preseed", preseed),
    ("GET", "/1.0/resources", host_resources),
    ("GET", "/1.0/cluster", cluster),
    ("PUT", "/1.0/cluster", put_cluster),
    ("GET", "/1.0/cluster/members", no_members),
]

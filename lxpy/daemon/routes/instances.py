"""``/1.0/instances`` and what belongs to one instance, but its running commands (``processes.py``)."""

import asyncio
from typing import Any, cast

from lxpy.api.errors import ApiError, BadRequest, InternalError
from lxpy.api.objects import Instance
from lxpy.daemon import envelope, filter
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import INSTANCE, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.daemon.routes import copies, snapshots
from lxpy.daemon.routes.backups import receive

_ACTIONS = {
    "start": "Starting instance",
    "stop": "Stopping instance",
    "restart": "Restarting instance",
    "freeze": "Freezing instance",
    "unfreeze": "Unfreezing instance",
}
# What `fields=` may ask for; all of them without it.
_STATE_FIELDS = {"cpu", "memory", "disk", "network", "processes"}


def _fields(call: Call) -> set[str] | None:
    asked = call.request.query.get("fields")
    if asked is None:
        return None
    chosen = {word.removeprefix("state.") for word in asked.split(",") if word and word != "state"}
    if not chosen <= _STATE_FIELDS:
        raise BadRequest(f"Unknown state field in {asked!r}: choose from {', '.join(sorted(_STATE_FIELDS))}")
    return chosen


def _full(call: Call, instance: Instance, fields: set[str] | None) -> Instance:
    state = call.daemon.instances.render_state(instance["project"], instance["name"], fields)
    kept = call.daemon.instances.snapshots
    # Who asks for some fields only wants a list: what snapshots were configured like is not in it.
    found = (kept.full if fields is None else kept.brief)(instance["project"], instance["name"])
    backups = call.daemon.instances.exports.all(instance["project"], instance["name"])
    return {**instance, "state": state, "snapshots": found or None, "backups": backups or None}


async def list_instances(call: Call) -> web.StreamResponse:
    found = [one for one in call.daemon.instances.list(call.project, call.all_projects) if call.may_see(one["project"])]
    holds = filter.parse(call.request.query.get("filter", ""))
    if holds is not None:
        found = [one for one in found if holds(one)]
    if type_ := call.request.query.get("instance-type"):
        found = [one for one in found if one["type"] == type_]
    if call.recursion == 0:
        return envelope.sync([url("instances", one["name"], one["project"]) for one in found])
    if call.recursion == 2:
        fields = _fields(call)
        return envelope.sync([_full(call, one, fields) for one in found])
    return envelope.sync(found)


async def no_machines(call: Call) -> web.StreamResponse:
    return envelope.sync([])


async def create(call: Call) -> web.StreamResponse:
    daemon, project = call.daemon, call.project
    if call.request.content_type == "application/octet-stream":
        return await receive(call)
    body = await call.body()
    if isinstance(body.get("source"), dict) and body["source"].get("type") in ("copy", "migration"):
        return copies.copy(call, body)
    daemon.instances.validate_create(project, body)

    async def work(op: Operation) -> None:
        await daemon.instances.create(project, body, op.progress)

    return call.run("Creating instance", "instances", [body["name"]], work, may_cancel=True)


async def bulk_state(call: Call) -> web.StreamResponse:
    """One action on all instances of the project; those already there are left alone."""
    daemon, project = call.daemon, call.project
    action, timeout, force = _change((await call.body()).get("state"))
    wanted = {"start": ("Stopped", "Frozen"), "unfreeze": ("Frozen",)}.get(action, ("Running", "Ready", "Frozen"))
    names = [one["name"] for one in daemon.instances.list(project) if one["status"] in wanted]

    async def work(op: Operation) -> None:
        results = await asyncio.gather(
            *(daemon.instances.set_state(project, name, action, timeout, force) for name in names),
            return_exceptions=True,
        )
        faults = [f"{n}: {e}" for n, e in zip(names, results, strict=True) if isinstance(e, (ApiError, OSError))]
        bugs = [error for error in results if isinstance(error, BaseException)]
        if faults:
            raise InternalError("; ".join(faults))
        if bugs:
            raise bugs[0]

    return call.run(f"{_ACTIONS[action]}s", "instances", names, work)


async def get(call: Call) -> web.StreamResponse:
    instance = call.daemon.instances.get(call.project, call.part("name"))
    tag = etag(instance, INSTANCE)
    return envelope.sync(_full(call, instance, _fields(call)) if call.recursion else instance, etag=tag)


async def put(call: Call) -> web.StreamResponse:
    daemon, project, name = call.daemon, call.project, call.part("name")
    body = await call.body()
    check(call.if_match, daemon.instances.get(project, name), INSTANCE)
    if body.get("restore"):
        return snapshots.restore(call, name, body)
    read = daemon.instances.validate_update(project, name, body)

    async def work(op: Operation) -> None:
        await daemon.instances.update(project, name, body, read, alone=bool(call.if_match))

    return call.run("Updating instance", "instances", [name], work)


async def patch(call: Call) -> web.StreamResponse:
    daemon, project, name = call.daemon, call.project, call.part("name")
    body = await call.body()
    check(call.if_match, daemon.instances.get(project, name), INSTANCE)
    read = daemon.instances.validate_update(project, name, body, patch=True)
    await daemon.instances.update(project, name, body, read, patch=True, alone=bool(call.if_match))
    return envelope.sync({})


async def delete(call: Call) -> web.StreamResponse:
    daemon, project, name = call.daemon, call.project, call.part("name")
    # Ours: one request instead of stop, wait, delete.
    force = call.request.query.get("force", "") in ("1", "true")
    daemon.instances.validate_delete(project, name, force)

    async def work(op: Operation) -> None:
        await daemon.instances.delete(project, name, force)

    return call.run("Deleting instance", "instances", [name], work)


async def state(call: Call) -> web.StreamResponse:
    return envelope.sync(call.daemon.instances.render_state(call.project, call.part("name"), _fields(call)))


def _change(body: Any) -> tuple[str, int, bool]:
    """action, timeout in seconds (-1: none), force."""
    if not isinstance(body, dict) or body.get("action") not in _ACTIONS:
        raise BadRequest(f"action must be one of {', '.join(_ACTIONS)}")
    if body.get("stateful"):
        raise BadRequest("Saving the memory of a running instance is not supported by lxpy: stop it without --stateful")
    try:
        timeout = -1 if body.get("timeout") is None else int(body["timeout"])
    except (TypeError, ValueError):
        raise BadRequest("timeout must be a number of seconds") from None
    return body["action"], timeout, bool(body.get("force"))


async def put_state(call: Call) -> web.StreamResponse:
    daemon, project, name = call.daemon, call.project, call.part("name")
    daemon.instances.get(project, name)
    action, timeout, force = _change(await call.body())

    async def work(op: Operation) -> None:
        # A stop that had to escalate says so; the manager returns that line.
        note = cast(Any, await daemon.instances.set_state(project, name, action, timeout, force))
        if note:
            op.metadata["note"] = note

    return call.run(_ACTIONS[action], "instances", [name], work)


def _routes() -> list[Route]:
    routes: list[Route] = [("GET", "/1.0/virtual-machines", no_machines)]
    for base in ("/1.0/instances", "/1.0/containers"):
        routes += [
            ("GET", base, list_instances),
            ("POST", base, create),
            ("PUT", base, bulk_state),
            ("GET", base + "/{name}", get),
            ("PUT", base + "/{name}", put),
            ("PATCH", base + "/{name}", patch),
            ("POST", base + "/{name}", copies.move),
            ("DELETE", base + "/{name}", delete),
            ("GET", base + "/{name}/state", state),
            ("PUT", base + "/{name}/state", put_state),
        ]
    return routes


ROUTES = _routes()

"""``/1.0/instances/{name}/snapshots``, and restoring them (a PUT of the instance)."""

from typing import Any

from lxpy.api import expiry
from lxpy.api.errors import BadRequest
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import SNAPSHOT, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation


async def list_snapshots(call: Call) -> web.StreamResponse:
    name = call.part("name")
    found = call.daemon.instances.snapshots.full(call.project, name)
    if call.recursion:
        return envelope.sync(found)
    return envelope.sync([url(f"instances/{name}/snapshots", one["name"], call.project) for one in found])


async def create(call: Call) -> web.StreamResponse:
    snapshots, project, name = call.daemon.instances.snapshots, call.project, call.part("name")
    body = await call.body()
    snapshots.validate_create(project, name, body)
    expires = body.get("expires_at")

    async def work(op: Operation) -> None:
        made, stood = await snapshots.create(
            project, name, str(body.get("name") or ""), None if expires is None else str(expires)
        )
        # Ours: how it is called, and for how long a running instance stood still.
        op.metadata["name"] = made
        if stood:
            op.metadata["frozen_ms"] = round(stood * 1000, 1)

    return call.run("Snapshotting instance", "instances", [name], work)


async def get(call: Call) -> web.StreamResponse:
    found = call.daemon.instances.snapshots.get(call.project, call.part("name"), call.part("snapshot"))
    return envelope.sync(found, etag=etag(found, SNAPSHOT))


async def put(call: Call) -> web.StreamResponse:
    snapshots, project = call.daemon.instances.snapshots, call.project
    name, snapshot = call.part("name"), call.part("snapshot")
    check(call.if_match, snapshots.get(project, name, snapshot), SNAPSHOT)
    body = await call.body()
    expires = body.get("expires_at")
    if expires is None and call.request.method == "PUT":
        expires = expiry.NEVER
    if expires is not None:
        expiry.moment(str(expires))

    async def work(op: Operation) -> None:
        if expires is not None:
            snapshots.update(project, name, snapshot, str(expires))

    return call.run("Updating snapshot", "instances", [name], work)


async def rename(call: Call) -> web.StreamResponse:
    snapshots, project = call.daemon.instances.snapshots, call.project
    name, old = call.part("name"), call.part("snapshot")
    body = await call.body()
    if body.get("migration"):
        raise BadRequest("A snapshot cannot move to another server by itself: copy it (lxpy copy NAME/SNAPSHOT ...)")
    new = str(body.get("name") or "")
    snapshots.validate_rename(project, name, old, new)

    async def work(op: Operation) -> None:
        await snapshots.rename(project, name, old, new)

    return call.run("Renaming snapshot", "instances", [name], work)


async def delete(call: Call) -> web.StreamResponse:
    snapshots, project = call.daemon.instances.snapshots, call.project
    name, snapshot = call.part("name"), call.part("snapshot")
    snapshots.get(project, name, snapshot)

    async def work(op: Operation) -> None:
        await snapshots.delete(project, name, snapshot)

    return call.run("Deleting snapshot", "instances", [name], work)


def restore(call: Call, name: str, body: dict[str, Any]) -> web.StreamResponse:
    """What a PUT of an instance with ``restore`` in it is answered with."""
    snapshots, project = call.daemon.instances.snapshots, call.project
    owner, _, snapshot = str(body["restore"]).rpartition("/")
    if owner not in ("", name):
        raise BadRequest(f"{body['restore']!r} is no snapshot of {name!r}: copy it to make an instance of it")
    stateful = bool(body.get("stateful"))
    snapshots.validate_restore(project, name, snapshot, stateful)

    async def work(op: Operation) -> None:
        await snapshots.restore(project, name, snapshot, stateful)

    return call.run("Restoring snapshot", "instances", [name], work)


ROUTES: list[Route] = []
for base in ("/1.0/instances/{name}/snapshots", "/1.0/containers/{name}/snapshots"):
    ROUTES += [
        ("GET", base, list_snapshots),
        ("POST", base, create),
        ("GET", base + "/{snapshot}", get),
        ("PUT", base + "/{snapshot}", put),
        ("PATCH", base + "/{snapshot}", put),
        ("POST", base + "/{snapshot}", rename),
        ("DELETE", base + "/{snapshot}", delete),
    ]

"""Copying instances (a POST of ``/1.0/instances``), renaming and moving them (a POST of ``/1.0/instances/{name}``)."""

from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.daemon.call import Call
from lxpy.daemon.envelope import url
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation


def copy(call: Call, body: dict[str, Any]) -> web.StreamResponse:
    """What the request for an instance is answered with whose source is another."""
    if body["source"]["type"] == "migration":
        raise BadRequest(
            "lxpy does not take part in LXD's migration: use lxpy copy, which goes by way of the client, "
            "or export it there and import it here"
        )
    copies, project = call.daemon.instances.copies, call.project
    name = copies.validate(project, body)

    async def work(op: Operation) -> None:
        op.metadata.update(await copies.copy(project, body, op.progress))

    refreshes = bool(body["source"].get("refresh"))
    return call.run(
        "Refreshing instance" if refreshes else "Creating instance", "instances", [name], work, may_cancel=not refreshes
    )


async def move(call: Call) -> web.StreamResponse:
    """Another name; with ``pool`` or ``project`` in the body another place."""
    daemon, project, name = call.daemon, call.project, call.part("name")
    daemon.instances.get(project, name)
    body = await call.body()
    asked = str(body.get("project") or "")
    if asked and asked != "default" and not daemon.projects.exists(asked):
        raise NotFound(f"Project {asked!r} not found")
    if body.get("target") or call.request.query.get("target"):
        raise BadRequest("There is no cluster: leave the target away")
    if body.get("migration") and not (asked or body.get("pool")):
        raise BadRequest("lxpy does not take part in LXD's migration: use lxpy move, or export it, and import it there")
    moves = daemon.instances.moves
    moves.validate(project, name, body)
    new = str(body.get("name") or name)

    async def work(op: Operation) -> None:
        await moves.move(project, name, body)
        op.metadata["url"] = url("instances", new, asked or project)

    moving = body.get("pool") or asked not in ("", project)
    return call.run("Moving instance" if moving else "Renaming instance", "instances", [name], work)

"""``/1.0/warnings``."""

from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.etag import check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing

_STATUS = ("status",)


async def list_warnings(call: Call) -> web.StreamResponse:
    """All of them; with ``project=`` those of that project and of none."""
    project = call.project if call.query.get("project") else None
    found = [doc for doc in call.daemon.warnings.all() if project is None or doc["project"] in ("", project)]
    return listing(call, "warnings", found, key="uuid")


async def get(call: Call) -> web.StreamResponse:
    found = call.daemon.warnings.get(call.part("uuid"))
    return envelope.sync(found, etag=etag(found, _STATUS))


async def put(call: Call) -> web.StreamResponse:
    found, body = call.daemon.warnings.get(call.part("uuid")), await call.body()
    check(call.if_match, found, _STATUS)
    call.daemon.warnings.set_status(found["uuid"], str(body.get("status") or ""))
    action = {"acknowledged": "warning-acknowledged"}.get(str(body["status"]), "warning-reset")
    call.daemon.happened(action, f"/1.0/warnings/{found['uuid']}", found["project"])
    return envelope.sync({})


async def delete(call: Call) -> web.StreamResponse:
    found = call.daemon.warnings.get(call.part("uuid"))
    call.daemon.warnings.delete(found["uuid"])
    call.daemon.happened("warning-deleted", f"/1.0/warnings/{found['uuid']}", found["project"])
    return envelope.sync({})


ROUTES: list[Route] = [
    ("GET", "/1.0/warnings", list_warnings),
    ("GET", "/1.0/warnings/{uuid}", get),
    ("PUT", "/1.0/warnings/{uuid}", put),
    ("PATCH", "/1.0/warnings/{uuid}", put),
    ("DELETE", "/1.0/warnings/{uuid}", delete),
]

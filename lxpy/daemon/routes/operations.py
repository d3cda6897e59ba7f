"""``/1.0/operations``."""

import asyncio
import hmac
from typing import Any

from lxpy.api import status
from lxpy.api.errors import BadRequest, Forbidden, NotFound
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation


def _visible(call: Call, operation: Operation) -> bool:
    """A restricted client sees its projects' operations, and no tokens: their secrets are worth more than that."""
    return call.allowed is None or (call.may_see(operation.project) and operation.class_ != "token")


def _operation(call: Call) -> Operation:
    operation = call.daemon.operations.get(call.part("id"))
    if not _visible(call, operation):
        raise NotFound("Operation not found")
    return operation


async def list_operations(call: Call) -> web.StreamResponse:
    """Grouped by status, as LXD has it: ``{"running": [...], "success": [...]}``."""
    groups: dict[str, list[Any]] = {}
    for operation in call.daemon.operations.all(None if call.all_projects else call.project):
        if not _visible(call, operation):
            continue
        group = groups.setdefault(status.TEXT[operation.status_code].lower(), [])
        group.append(operation.render() if call.recursion else operation.url)
    return envelope.sync(groups)


async def get(call: Call) -> web.StreamResponse:
    return envelope.sync(_operation(call).render())


async def cancel(call: Call) -> web.StreamResponse:
    call.daemon.operations.cancel(_operation(call).id)
    return envelope.sync({})


async def wait(call: Call) -> web.StreamResponse:
    """Answers when the operation has ended, or after ``timeout`` seconds (-1: never) with what it is then."""
    operation = _operation(call)
    given, secret = call.request.query.get("secret", ""), str(operation.metadata.get("secret") or "")
    if not call.trusted and not (secret and hmac.compare_digest(given.encode(), secret.encode())):
        raise Forbidden("not authorized: this client's certificate is not trusted by the server")
    try:
        seconds = float(call.request.query.get("timeout") or -1)
    except ValueError:
        raise BadRequest("timeout must be a number of seconds") from None
    if not operation.done.is_set():
        try:
            await asyncio.wait_for(operation.done.wait(), None if seconds < 0 else seconds)
        except TimeoutError:
            pass
    return envelope.sync(operation.render())


async def websocket(call: Call) -> web.StreamResponse:
    operation = _operation(call)
    if operation.streams is None:
        raise NotFound("This operation has no websockets")
    return await operation.streams.serve(call.request, call.request.query.get("secret", ""))  # type: ignore[no-any-return]


ROUTES: list[Route] = [
    ("GET", "/1.0/operations", list_operations),
    ("GET", "/1.0/operations/{id}", get),
    ("DELETE", "/1.0/operations/{id}", cancel),
    ("GET", "/1.0/operations/{id}/wait", wait),
    ("GET", "/1.0/operations/{id}/websocket", websocket),
]

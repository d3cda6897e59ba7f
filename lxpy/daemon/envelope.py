"""The envelope of every answer, and the middleware that turns exceptions into it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation, explain

_SYNC = {
    "type": "sync", "status": "Success", "status_code": 200, "operation": "", "error_code": 0, "error": "",
}  # fmt: skip
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _response(body: dict[str, Any], status: int, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=json.dumps(body, separators=(",", ":")).encode() + b"\n",
        status=status,
        content_type="application/json",
        headers=headers,
    )


def sync(metadata: Any = None, *, etag: str = "", location: str = "") -> web.Response:
    """200 with `metadata`; with `location` (of a created object) 201."""
    headers = {}
    if etag:
        headers["ETag"] = etag
    if location:
        headers["Location"] = location
    return _response({**_SYNC, "metadata": metadata}, 201 if location else 200, headers)


def ready(metadata: bytes) -> web.Response:
    """200 with what is JSON already."""
    body = _response({**_SYNC, "metadata": "@"}, 200).body
    assert isinstance(body, bytes)
    head, _, tail = body.rpartition(b'"@"')
    return web.Response(body=head + metadata + tail, content_type="application/json")


def accepted(operation: Operation) -> web.Response:
    """202 with the operation."""
    body = {
        "type": "async",
        "status": "Operation created",
        "status_code": 100,
        "operation": operation.url,
        "error_code": 0,
        "error": "",
        "metadata": operation.render(),
    }
    return _response(body, 202, {"Location": operation.url})


def failed(status: int, message: str) -> web.Response:
    """An error; clients look at ``type`` and use the HTTP status, so both say the same."""
    body = {"type": "error", "status": "", "status_code": 0, "operation": "",
            "error_code": status, "error": message, "metadata": None}  # fmt: skip
    return _response(body, status)


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Outermost middleware: whatever is raised becomes the error envelope."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status == 404:
            return failed(404, f"No such resource: {request.method} {request.path}")
        if error.status == 405:
            return failed(405, f"{request.method} is not possible on {request.path}")
        return failed(error.status, error.reason)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if isinstance(error, ConnectionResetError) and (request.transport is None or request.transport.is_closing()):
            return web.Response(status=499)  # the client went away: nobody reads it, and nothing is wrong here
        return failed(*explain(error, f"{request.method} {request.path}"))


def url(kind: str, name: str, project: str = "default") -> str:
    """``/1.0/kind/name``, with the project unless it is the default one."""
    suffix = "" if project == "default" else f"?project={quote(project)}"
    return f"/1.0/{kind}/{quote(name, safe='')}{suffix}"

"""``/1.0/instances/NAME/files`` and ``/sftp``: the files of an instance, running or stopped."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote

from lxpy.api.errors import BadRequest
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.filesession import FileSession
from lxpy.daemon.lean import web

_MAX_ID = 1 << 32
_MAX_LINK = 4096  # PATH_MAX


def _path(call: Call) -> str:
    """The path asked for; bytes that are no UTF-8 stay what they are. Pulls come without the leading slash."""
    query = parse_qs(call.request.rel_url.raw_query_string, keep_blank_values=True, errors="surrogateescape")
    path = query.get("path", [""])[-1]
    if not path:
        raise BadRequest("Missing path argument")
    return path if path.startswith("/") else f"/{path}"


def _headers(entry: dict[str, Any]) -> dict[str, str]:
    modified = datetime.fromtimestamp(entry["mtime"] / 1e9, UTC)
    values = {
        "uid": str(entry["uid"]), "gid": str(entry["gid"]), "mode": f"{entry['mode']:04o}", "type": entry["type"],
        "modified": modified.strftime("%Y-%m-%d %H:%M:%S.%f +0000 UTC"),
    }  # fmt: skip
    found = {f"X-{who}-{key}": value for who in ("LXD", "Incus") for key, value in values.items()}
    if "target" in entry:
        found["X-Lxpy-target"] = quote(entry["target"], errors="surrogateescape")  # as it is; LXD resolves it
    return found


def _tell(call: Call, action: str, path: str) -> None:
    name = call.part("name")
    call.daemon.happened(f"instance-file-{action}", f"/1.0/instances/{name}/files", call.project, {"path": path})


async def get(call: Call) -> web.StreamResponse:
    path = _path(call)
    async with FileSession.open(call.daemon.instances, call.project, call.part("name")) as files:
        entry = await files.ask("stat", path)
        _tell(call, "retrieved", path)
        if entry["type"] == "directory":
            found = await files.list(path)  # recursion: ours, one request for all there is to know
            response: web.StreamResponse = envelope.sync(found if call.recursion else [one["name"] for one in found])
            response.headers.update(_headers(entry))
            return response
        if entry["type"] == "symlink":
            # Where it leads, from the root: clients ask for that path next.
            target = os.path.normpath(f"{path.rpartition('/')[0]}/{entry['target']}")
            body = os.fsencode(target)
            return web.Response(body=body, headers=_headers(entry), content_type="application/octet-stream")
        async with files.read(path) as (entry, pieces):
            response = web.StreamResponse(headers=_headers(entry))
            response.content_type = "application/octet-stream"
            left = entry["size"] if entry["size"] else 1 << 62  # files of /proc say 0
            if entry["size"]:
                response.content_length = entry["size"]
            await response.prepare(call.request)
            async for piece in pieces:
                await response.write(piece[:left])
                if not (left := left - len(piece[:left])):
                    break  # it grows: what was there when asked
            await response.write_eof()
            return response


async def head(call: Call) -> web.StreamResponse:
    async with FileSession.open(call.daemon.instances, call.project, call.part("name")) as files:
        entry = await files.ask("stat", _path(call))
    response = web.Response(headers=_headers(entry))
    if entry["type"] == "file":
        response.headers["Content-Length"] = str(entry["size"])
    return response


def _number(call: Call, key: str, low: int, high: int) -> int:
    text = call.header(key)
    if not text:
        return -1
    try:
        number = int(text, 8) if key == "mode" and text.startswith("0") else int(text)
    except ValueError:
        raise BadRequest(f"Invalid {key} {text!r}: a number") from None
    if key == "mode":
        return number & 0o7777
    if not low <= number < high:
        if number == -1:
            return -1
        raise BadRequest(f"Invalid {key} {text!r}: {low} to {high - 1}")
    return number


def _owner(call: Call) -> dict[str, Any]:
    given = {key: _number(call, key, 0, _MAX_ID - 1) for key in ("uid", "gid", "mode")}
    always = {key for key in call.header("modify-perm").replace(" ", "").split(",") if key}
    if not always <= set(given):
        raise BadRequest(f"Invalid modify-perm {call.header('modify-perm')!r}: some of uid, gid, mode")
    return {"new": given, **{key: given[key] for key in always}}


async def post(call: Call) -> web.StreamResponse:
    path, owner, kind = _path(call), _owner(call), call.header("type") or "file"
    how = call.header("write") or "overwrite"
    if how not in ("overwrite", "append"):
        raise BadRequest(f"Invalid write mode {how!r}: overwrite or append")
    if kind not in ("file", "directory", "symlink"):
        raise BadRequest(f"Invalid type {kind!r}: file, directory or symlink")
    async with FileSession.open(call.daemon.instances, call.project, call.part("name")) as files:
        if kind == "directory":
            parents = call.request.query.get("parents", "") in ("1", "true")  # ours
            await files.ask("mkdir", path, parents=parents, **owner)
        elif kind == "symlink":
            target = await call.request.content.read(_MAX_LINK + 1)
            if not target or len(target) > _MAX_LINK or b"\0" in target:
                raise BadRequest("The body of a symbolic link is the path that it leads to")
            await files.ask("symlink", path, target=os.fsdecode(target), **owner)
        else:
            await files.write(path, _body(call), append=how == "append", **owner)
    _tell(call, "pushed", path)
    return envelope.sync({})


async def _body(call: Call) -> AsyncIterator[bytes]:
    async for piece in call.request.content.iter_any():
        yield piece


async def delete(call: Call) -> web.StreamResponse:
    path = _path(call)
    recursive = call.request.query.get("recursive", "") in ("1", "true") or call.header("force") == "true"  # ours
    async with FileSession.open(call.daemon.instances, call.project, call.part("name")) as files:
        await files.ask("delete", path, recursive=recursive)
    _tell(call, "deleted", path)
    return envelope.sync({})


_SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sftp\r\nConnection: Upgrade\r\n\r\n"


class _HandedOver(web.StreamResponse):
    """The answer of a connection that is no longer aiohttp's."""

    async def prepare(self, request: web.BaseRequest) -> None:
        self.force_close()

    async def write_eof(self, data: bytes = b"") -> None:
        pass


async def sftp(call: Call) -> web.StreamResponse:
    """SFTP on this very connection: the file process gets the socket; over TLS the daemon passes the bytes on."""
    request = call.request
    if request.headers.get("Upgrade", "").lower() != "sftp":
        raise BadRequest("Missing or invalid upgrade header: this resource speaks SFTP after Upgrade: sftp")
    transport = request.transport
    assert isinstance(transport, asyncio.Transport)
    if transport.get_extra_info("ssl_object") is not None:
        return await _sftp_by_us(call, transport)
    transport.pause_reading()
    connection = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
    with connection:
        try:
            # What the process says waits in the socket until the client has read this answer: it speaks second.
            await call.daemon.instances.files.serve(call.project, call.part("name"), connection.fileno(), sftp=True)
        except BaseException:
            transport.resume_reading()
            raise
    transport.write(_SWITCH)
    transport.close()  # our copy of it
    return _HandedOver(status=101)


class _Relay(asyncio.Protocol):
    """What comes over TLS goes to a socket of ours; `ended` once that is over."""

    def __init__(self, transport: asyncio.Transport, target: socket.socket, before: asyncio.BaseProtocol) -> None:
        self._transport, self._target, self._before = transport, target, before
        self._loop = asyncio.get_running_loop()
        self._writable = asyncio.Event()
        self._writable.set()
        self._tasks = [self._loop.create_task(self._back())]
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def data_received(self, data: bytes) -> None:
        self._transport.pause_reading()  # one piece at a time: what is not taken waits in the kernel
        self._tasks[1:] = [self._loop.create_task(self._forth(data))]

    async def _forth(self, data: bytes) -> None:
        try:
            await self._loop.sock_sendall(self._target, data)
            self._transport.resume_reading()
        except OSError:
            self._transport.close()

    async def _back(self) -> None:
        try:
            while data := await self._loop.sock_recv(self._target, 1 << 16):
                await self._writable.wait()
                self._transport.write(data)
        except OSError:
            pass
        self._transport.close()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        for task in self._tasks:
            task.cancel()
        self._before.connection_lost(exc)
        if not self.ended.done():
            self.ended.set_result(None)


async def _sftp_by_us(call: Call, transport: asyncio.Transport) -> web.StreamResponse:
    """Over TLS: the bytes are ours to encrypt."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await call.daemon.instances.files.serve(call.project, call.part("name"), theirs.fileno(), sftp=True)
        ours.setblocking(False)
        transport.pause_reading()
        relay = _Relay(transport, ours, transport.get_protocol())
        transport.set_protocol(relay)
        transport.write(_SWITCH)
        transport.resume_reading()
        await relay.ended
    return _HandedOver(status=101)


def _routes() -> list[Route]:
    routes: list[Route] = []
    for base in ("/1.0/instances/{name}", "/1.0/containers/{name}"):
        routes += [
            ("GET", base + "/files", get),
            ("HEAD", base + "/files", head),
            ("POST", base + "/files", post),
            ("DELETE", base + "/files", delete),
            ("GET", base + "/sftp", sftp),
        ]
    return routes


ROUTES = _routes()

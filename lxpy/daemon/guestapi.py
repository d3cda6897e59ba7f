"""The guest API: HTTP on a socket in each running instance, for the guest's own root. Shapes: LXD's dev-lxd API.

Answers carry no envelope: JSON, or the plain text of a key. An error is its text with a status. Who asks is a guest, so
everything is bounded: connections, headers, bodies, events that nobody fetches.
"""

import asyncio
import contextlib
import functools
import json
import logging
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError, BadRequest, Forbidden, NotFound
from lxpy.api.objects import Config, Devices
from lxpy.daemon import sockets
from lxpy.daemon.events import timestamp
from lxpy.daemon.lean import web
from lxpy.daemon.operations import explain
from lxpy.daemon.streams import send_all
from lxpy.state.store import InstanceRow

if TYPE_CHECKING:
    from aiohttp.web_protocol import RequestHandler

    from lxpy.daemon.daemon import Daemon

log = logging.getLogger("lxpyd")

_CONNECTIONS = 32  # of one guest at a time
_BODY = 4096  # bytes of a request
_BACKLOG = 256  # events a listener may lag behind before it is cut off
_TYPES = frozenset({"config", "device"})


class _Listener:
    def __init__(self, types: frozenset[str]) -> None:
        self.types = types
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()


class _Refused(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        transport.close()


class _Http(web.Server):
    """Counts its connections from the moment they are accepted: many come in one turn of the loop."""

    open = 0

    def __call__(self) -> "RequestHandler":
        self.open += 1
        return super().__call__()

    def connection_lost(self, handler: "RequestHandler", exc: BaseException | None = None) -> None:
        self.open -= 1
        super().connection_lost(handler, exc)


class _Door:
    """The socket of one instance."""

    def __init__(self, row: InstanceRow, handle: Callable[[web.BaseRequest], Any]) -> None:
        self.row = row
        self.http = _Http(handle, handler_cancellation=True, access_log=None, keepalive_timeout=30)
        self.socket: asyncio.Server | None = None
        self.listeners: set[_Listener] = set()
        self.seen: tuple[Config, Devices] = ({}, {})

    async def open(self, directory: str) -> None:
        listener = sockets.listen(f"{directory}/sock", socket.SOCK_STREAM, 0, mode=0o666)
        try:
            self.socket = await asyncio.get_running_loop().create_unix_server(self._protocol, sock=listener)
        except BaseException:
            listener.close()
            raise

    def _protocol(self) -> asyncio.BaseProtocol:
        return self.http() if self.http.open < _CONNECTIONS else _Refused()

    async def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        for listener in self.listeners:
            listener.queue.put_nowait(None)
        await self.http.shutdown(0.5)


class GuestServer:
    """All doors, and what is behind them."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon, self._guests = daemon, daemon.instances.guests
        self._running: dict[int, tuple[InstanceRow, str]] = {}  # with their directories
        self._doors: dict[int, _Door] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._guests.listen, self._guests.leave = self.came, self.left

    async def came(self, row: InstanceRow, directory: str) -> None:
        """An instance runs, or is about to."""
        self._running[row.id] = (row, directory)
        if self._guests.serves(row):
            await self._open(row, directory)

    def left(self, instance_id: int) -> None:
        """An instance has ended; its connections do, too."""
        self._running.pop(instance_id, None)
        self._shut(instance_id)

    async def _open(self, row: InstanceRow, directory: str) -> None:
        if row.id in self._doors:
            return
        door = self._doors[row.id] = _Door(row, functools.partial(self._handle, row.id))
        try:
            await door.open(directory)
        except BaseException:
            self._doors.pop(row.id, None)
            raise

    def _shut(self, instance_id: int) -> None:
        if door := self._doors.pop(instance_id, None):
            self._keep(door.close())

    def _keep(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """The daemon goes; the sockets' files stay for the next one to replace."""
        for instance_id in list(self._doors):
            self._shut(instance_id)
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- events ------------------------------------------------------------------------------------------------

    def happened(self, action: str, source: str, project: str) -> None:
        """A lifecycle event: instances or profiles may have changed under guests that listen."""
        if action == "instance-updated":
            name = source.rpartition("/")[2]
            changed = [one for one in self._running.values() if (one[0].project, one[0].name) == (project, name)]
        elif action.startswith("profile-"):
            changed = list(self._running.values())
        else:
            return
        for row, directory in changed:
            with contextlib.suppress(NotFound):
                door = self._doors.get(row.id)
                if not self._guests.serves(self._guests.current(row)):
                    self._shut(row.id)
                elif door is None:
                    self._keep(self._open(row, directory))
                elif door.listeners:
                    self._tell(door)

    def _look(self, door: _Door) -> tuple[Config, Devices]:
        row = self._guests.current(door.row)
        return dict(self._guests.config(row)), {name: dict(one) for name, one in self._guests.devices(row).items()}

    def _tell(self, door: _Door) -> None:
        (old_config, old_devices), door.seen = door.seen, self._look(door)
        config, devices = door.seen
        for key in sorted(old_config.keys() | config.keys()):
            before, after = old_config.get(key, ""), config.get(key, "")
            if before != after:
                self._send(door, "config", {"key": key, "old_value": before, "value": after})
        for name in sorted(old_devices.keys() | devices.keys()):
            before_device, after_device = old_devices.get(name), devices.get(name)
            if before_device != after_device:
                action = "added" if before_device is None else "removed" if after_device is None else "updated"
                self._send(door, "device", {"name": name, "action": action, "config": after_device or before_device})

    def _send(self, door: _Door, type_: str, metadata: dict[str, Any]) -> None:
        event = json.dumps({"timestamp": timestamp(), "type": type_, "metadata": metadata}, separators=(",", ":"))
        for listener in door.listeners:
            if type_ not in listener.types:
                continue
            if listener.queue.qsize() >= _BACKLOG:  # it has stopped reading
                listener.types = frozenset()
                listener.queue.put_nowait(None)
            else:
                listener.queue.put_nowait(event)

    # -- requests ----------------------------------------------------------------------------------------------

    async def _handle(self, instance_id: int, request: web.BaseRequest) -> web.StreamResponse:
        try:
            door = self._doors.get(instance_id)
            if door is None:
                raise Forbidden("not authorized: security.devlxd is false")
            row = self._guests.current(door.row)
            if _peer(request) != (row.idmap_base or 0):
                return web.Response(status=401, text="Access denied for non-root user\n")
            return await self._answer(door, row, request)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except Exception as error:
            if isinstance(error, ApiError) or not isinstance(error, web.HTTPException):
                status, text = explain(error, f"guest API: {request.method} {request.path}")
            else:
                status, text = error.status, error.reason
            return web.Response(status=status, text=text + "\n")

    async def _answer(self, door: _Door, row: InstanceRow, request: web.BaseRequest) -> web.StreamResponse:
        guests, path, method = self._guests, request.path.rstrip("/") or "/", request.method
        if method == "PATCH" and path == "/1.0":
            guests.set_state(row, (await _body(request)).get("state"))
            return web.json_response({})
        if method != "GET":
            return web.Response(status=405, text=f"{method} is not possible on {path}\n")
        if path == "/":
            return web.json_response(["/1.0"])
        if path == "/1.0":
            return web.json_response(
                {"api_version": "1.0", "location": "none", "instance_type": "container", "state": guests.state(row)}
            )
        if path == "/1.0/config":
            return web.json_response([f"/1.0/config/{key}" for key in sorted(guests.config(row))])
        if path.startswith("/1.0/config/"):
            return web.Response(text=guests.value(row, path.removeprefix("/1.0/config/")))
        if path == "/1.0/meta-data":
            return web.Response(text=guests.metadata(row))
        if path == "/1.0/devices":
            return web.json_response(guests.devices(row))
        if path == "/1.0/events":
            return await self._events(door, request)
        if path.startswith("/1.0/images/") and path.endswith("/export"):
            return await self._image(row, path.removeprefix("/1.0/images/").removesuffix("/export"), request)
        raise NotFound(f"No such resource: {path}")

    async def _events(self, door: _Door, request: web.BaseRequest) -> web.StreamResponse:
        """A websocket; or, asked for plainly, an answer without an end, one event on a line."""
        asked = request.query.get("type", "")
        types = frozenset(asked.split(",")) if asked else _TYPES
        if not types <= _TYPES:
            raise BadRequest(f"Invalid event type {asked!r}: choose from {', '.join(sorted(_TYPES))}")
        listener = _Listener(types)
        if not door.listeners:
            door.seen = self._look(door)
        door.listeners.add(listener)
        try:
            if "websocket" in request.headers.get("Upgrade", "").lower():
                return await send_all(listener.queue, request, max_msg_size=_BODY)
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            while (event := await listener.queue.get()) is not None:
                await response.write(event.encode() + b"\n")
            await response.write_eof()
            return response
        finally:
            door.listeners.discard(listener)

    async def _image(self, row: InstanceRow, fingerprint: str, request: web.BaseRequest) -> web.StreamResponse:
        from lxpy.daemon.delivery import deliver

        if not self._guests.may_export(row):
            raise Forbidden("not authorized: security.devlxd.images is not set")
        image = self._daemon.images.get(row.project, fingerprint)
        if not (image["public"] or image["cached"]):
            raise NotFound("Image not found")
        return await deliver(self._daemon, row.project, image, request)


def _peer(request: web.BaseRequest) -> int:
    """The user, as the host counts, who connected; -1 when he has gone."""
    transport = request.transport
    connection = transport.get_extra_info("socket") if transport is not None else None
    if connection is None:
        return -1
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


async def _body(request: web.BaseRequest) -> dict[str, Any]:
    data = bytearray()
    async for block in request.content.iter_chunked(_BODY):
        data += block
        if len(data) > _BODY:
            raise BadRequest(f"The request's body is longer than {_BODY} bytes")
    try:
        body = json.loads(data or b"{}")
    except ValueError as error:
        raise BadRequest(f"The request's body is not JSON: {error}") from None
    if not isinstance(body, dict):
        raise BadRequest("The request's body must be a JSON object")
    return body

"""Exec and console over websockets: for HTTPS remotes, and for every console."""

from __future__ import annotations

import os
import select

from lxpy.api.errors import ApiError
from lxpy.client import terminal, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client
    from lxpy.client.websocket import WebSocket

ESCAPE = b"\x01"  # Ctrl-a, then q


def _open(client: Client, operation: dict[str, Any], name: str) -> WebSocket:
    secret = operation["metadata"]["fds"][name]
    return client.websocket(f"/1.0/operations/{operation['id']}/websocket", secret=secret)


def exec_remote(client: Client, name: str, request: dict[str, Any]) -> int:
    """Run a command over websockets; its exit status."""
    interactive = bool(request["interactive"])
    body = dict(request)
    body["wait-for-websocket"] = True
    operation = client.post(f"/1.0/instances/{wire.quote(name)}/exec", body)
    control = _open(client, operation, "control")
    if interactive:
        sockets = {0: _open(client, operation, "0")}
        out = {sockets[0].fileno(): (sockets[0], 1)}
    else:
        sockets = {n: _open(client, operation, str(n)) for n in (0, 1, 2)}
        out = {sockets[n].fileno(): (sockets[n], n) for n in (1, 2)}
    _shuttle(sockets[0], out, control, interactive, escape=False)
    for socket in (*sockets.values(), control):
        socket.close()
    ended = client.wait(operation)
    metadata = ended.get("metadata") or {}
    return int(metadata.get("return", 0))


def console(client: Client, name: str, joined: Callable[[], None]) -> None:
    """The console until the user leaves (Ctrl-a q) or the instance ends; `joined` is called once it is there."""
    width, height = terminal.size()
    operation = client.post(
        f"/1.0/instances/{wire.quote(name)}/console",
        {"width": width or 80, "height": height or 24, "type": "console"},
    )
    data = _open(client, operation, "0")
    control = _open(client, operation, "control")
    joined()
    try:
        _shuttle(data, {data.fileno(): (data, 1)}, control, True, escape=True)
    finally:
        data.close()
        control.close()


def _shuttle(
    into: WebSocket, out: dict[int, tuple[WebSocket, int]], control: WebSocket, raw: bool, escape: bool
) -> None:
    def resized(*_: object) -> None:
        width, height = terminal.size()
        if width and not control.closed:
            args = {"width": str(width), "height": str(height)}
            try:
                control.send_text(wire.dumps({"command": "window-resize", "args": args}))
            except OSError:
                pass

    guard: Any = terminal.Raw(0) if raw else _Nothing()
    with guard, terminal.OnResize(resized):
        if raw:
            resized()
        reading, escaped = True, False
        while out:
            poll = select.poll()
            for fd in out:
                poll.register(fd, select.POLLIN)
            if reading:
                poll.register(0, select.POLLIN)
            ready = [fd for fd, (socket, _) in out.items() if socket.pending()] or [fd for fd, _ in poll.poll()]
            for fd in ready:
                if fd in out:
                    socket, target = out[fd]
                    message = socket.receive()
                    if message is None or (message[0] == 1 and not message[1]):
                        del out[fd]
                        continue
                    view = memoryview(message[1])
                    while view:
                        view = view[os.write(target, view) :]
                elif fd == 0:
                    data = os.read(0, 1 << 16)
                    if escape and data:
                        if escaped and data[:1] in (b"q", b"Q"):
                            return
                        at = data.find(ESCAPE)
                        if at >= 0 and data[at + 1 : at + 2] in (b"q", b"Q"):
                            return
                        if escaped:
                            data = ESCAPE + data.removeprefix(ESCAPE)
                            escaped = False
                        elif data.endswith(ESCAPE):
                            escaped, data = True, data[:-1]
                    if data:
                        into.send_bytes(data)
                    elif not escaped:
                        reading = False
                        try:
                            into.send_text("")
                        except OSError as error:
                            raise ApiError(f"The connection broke: {error.strerror}") from None


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

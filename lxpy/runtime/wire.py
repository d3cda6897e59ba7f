"""Messages between daemon, spawner and supervisors: one JSON object a datagram (SEQPACKET), descriptors beside it."""

import array
import json
import os
import socket

VERSION = 1
_MAX_BYTES = 1 << 20
_MAX_FDS = 16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Message = dict[str, Any]
else:
    Message = dict


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; room for a large spec."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_BYTES)
    return ends


def send(sock: socket.socket, message: "Message", fds: "list[int] | tuple[int, ...]" = ()) -> bool:
    """Sends; False when nobody is there any more."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([json.dumps(message).encode()], ancillary, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive(sock: socket.socket) -> "tuple[Message | None, list[int]]":
    """The next message and its descriptors (close-on-exec, now ours); None at the end.

    Raises:
        BlockingIOError: none yet, on a non-blocking socket.
    """
    numbers = array.array("i")
    try:
        data, ancillary, _, _ = sock.recvmsg(
            _MAX_BYTES, socket.CMSG_SPACE(_MAX_FDS * numbers.itemsize), socket.MSG_CMSG_CLOEXEC
        )
    except ConnectionResetError:
        return None, []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    if not data:
        return None, list(numbers)
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        for fd in numbers:
            os.close(fd)
        return {}, []
    return message, list(numbers)

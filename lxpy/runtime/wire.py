"""Messages between daemon, spawner and supervisors: one JSON object a datagram (SEQPACKET), descriptors beside it."""

import array
import json
import os
import socket

VERSION = 1
_MAX_BYTES = 1 << 18
_MAX_FDS = 16
_SO_SNDBUFFORCE = 32  # include/uapi/asm-generic/socket.h; beyond net.core.wmem_max

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    Message = dict[str, Any]
else:
    Message = dict


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends; room for a large spec."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, 2 * _MAX_BYTES)
    return ends


def send(sock: socket.socket, message: "Message", fds: "list[int] | tuple[int, ...]" = ()) -> bool:
    """Sends; False when nobody is there any more."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        sock.sendmsg([json.dumps(message).encode()], ancillary, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


def receive_raw(sock: socket.socket) -> "tuple[bytes, list[int]]":
    """The next message unparsed; empty at the end."""
    numbers = array.array("i")
    space = socket.CMSG_SPACE(_MAX_FDS * numbers.itemsize)
    try:
        data, ancillary, _, _ = sock.recvmsg(_MAX_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # Told once, and before what the other end had still sent: it left with something of ours unread.
        try:
            data, ancillary, _, _ = sock.recvmsg(_MAX_BYTES, space, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return b"", []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
    return data, list(numbers)


def receive(sock: socket.socket) -> "tuple[Message | None, list[int]]":
    """The next message and its descriptors (close-on-exec, now ours); None at the end.

    Raises:
        BlockingIOError: none yet, on a non-blocking socket.
    """
    data, fds = receive_raw(sock)
    if not data:
        return None, fds
    try:
        message = json.loads(data)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        for fd in fds:
            os.close(fd)
        return {}, []
    return message, fds


def reason(error: BaseException) -> str:
    """Why something failed, in one line: what the kernel says, and of which file."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({os.fsdecode(error.filename)})" if error.filename else error.strerror
    return str(error) or type(error).__name__


def answer(reply: socket.socket, work: "Callable[[], Message | None]") -> "NoReturn":
    """Ends this process with an answer: what `work` gives (``{}`` for None), or why it failed as ``{"error": …}``."""
    try:
        send(reply, work() or {})
    except BaseException as error:
        send(reply, {"error": reason(error)})
    finally:
        os._exit(0)

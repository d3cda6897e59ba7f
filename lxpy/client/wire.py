"""JSON without the json package, and sockets without the socket module.

``import json`` and ``import socket`` cost 12 ms together (they pull in re, enum and selectors), more than the
interpreter's own start. The C modules beneath them cost nothing and have kept their shape since Python 3.3; should
that ever change, the packages take over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Any


class _Context:
    """What the C scanner asks of a JSONDecoder."""

    strict = False
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float
    memo: dict[str, str] = {}


def _codec() -> tuple[Callable[[str], Any], Callable[[Any], str]]:
    try:
        import _json

        scan = _json.make_scanner(_Context())  # type: ignore[arg-type]
        encode = _json.make_encoder(None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, True)  # type: ignore[call-arg,arg-type,unused-ignore]

        def load(text: str) -> Any:
            text = text.strip()
            try:
                value, end = scan(text, 0)
            except (StopIteration, SystemError):  # SystemError: how the C code fails without json.decoder imported
                raise ValueError("not JSON") from None
            if end != len(text):
                raise ValueError("more than one JSON value")
            return value

        def dump(value: Any) -> str:
            return "".join(encode(value, 0))

        load('{"a": [1.5]}')
        dump({"a": [1]})
    except (ImportError, TypeError, AttributeError):
        import json

        return json.loads, lambda value: json.dumps(value, separators=(",", ":"))
    return load, dump


def _refuse(value: object) -> object:
    raise TypeError(f"{type(value).__name__} has no JSON form")


loads, dumps = _codec()


def pretty(value: Any) -> str:
    """Indented JSON, for people."""
    import json

    return json.dumps(value, indent=4)


def unix_socket(path: str, seqpacket: bool = False) -> socket.socket:
    """A connected Unix socket.

    Raises:
        OSError: as connect(2) gives it; `path` may be longer than the 108 bytes of ``sun_path``.
    """
    import os

    try:
        import _socket
    except ImportError:
        import socket as _socket  # type: ignore[no-redef]

    kind = _socket.SOCK_SEQPACKET if seqpacket else _socket.SOCK_STREAM
    sock = _socket.socket(_socket.AF_UNIX, kind | _socket.SOCK_CLOEXEC)
    folder = -1
    try:
        address = path
        if len(path.encode()) > 107:
            folder = os.open(os.path.dirname(path), os.O_PATH | os.O_CLOEXEC)
            address = f"/proc/self/fd/{folder}/{os.path.basename(path)}"
        sock.connect(address)
    except BaseException:
        sock.close()
        raise
    finally:
        if folder >= 0:
            os.close(folder)
    return sock  # type: ignore[return-value]


def receive_fds(sock: socket.socket, size: int, count: int) -> tuple[bytes, list[int]]:
    """One message and the descriptors that came with it (close-on-exec)."""
    import _socket
    import sys

    space = _socket.CMSG_SPACE(4 * count)
    data, ancillary, _, _ = sock.recvmsg(size, space, _socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            for at in range(0, len(payload) - len(payload) % 4, 4):
                fds.append(int.from_bytes(payload[at : at + 4], sys.byteorder))
    return data, fds


def quote(text: str) -> str:
    """Percent-encoding of one path segment or query value (``urllib`` costs 8 ms)."""
    safe = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    return "".join(
        c if c in safe else "".join(f"%{byte:02X}" for byte in c.encode("utf-8", "surrogateescape")) for c in text
    )


def unquote(text: str) -> str:
    """The text that `quote` was given."""
    head, *rest = text.split("%")
    data = bytearray(head.encode())
    for piece in rest:
        data += bytes.fromhex(piece[:2]) + piece[2:].encode()
    return data.decode("utf-8", "surrogateescape")


def query_string(query: dict[str, str]) -> str:
    """``?a=b&c=d``, or "" when nothing is asked."""
    return "?" + "&".join(f"{key}={quote(value)}" for key, value in query.items()) if query else ""

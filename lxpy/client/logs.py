"""Log files of instances and network ACLs, read piece by piece: a log may be far larger than what one looks at."""

import re
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from lxpy.api.errors import ApiError

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)\Z")


class Asks(Protocol):
    """What is used of `lxpy.client.client.Client`."""

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None) -> Any: ...

    def get(self, path: str, **query: str) -> Any: ...


class Piece(NamedTuple):
    """`data` begins at byte `start` of the `total` bytes the log has now."""

    data: bytes
    start: int
    total: int


def console(name: str) -> str:
    """The path of an instance's console log."""
    return f"/1.0/instances/{quote(name)}/console"


def acl(name: str) -> str:
    """The path of a network ACL's log."""
    return f"/1.0/network-acls/{quote(name)}/log"


def names(client: Asks, name: str) -> dict[str, str]:
    """The instance's other log files, path by name: what it keeps, and recorded output of commands."""
    base = f"/1.0/instances/{quote(name)}/logs"
    found: dict[str, str] = {}
    for path in (base, f"{base}/exec-output"):
        try:
            listed = client.get(path)
        except ApiError:  # servers without recorded output
            continue
        for url in listed or []:
            file = str(url).partition("?")[0].rpartition("/")[2]
            if file not in ("console.log", "exec-output"):
                found[file] = f"{path}/{quote(file)}"
    return found


def tail(client: Asks, path: str, limit: int) -> Piece:
    """The last `limit` bytes."""
    return _read(client, path, f"-{limit}", limit)


def between(client: Asks, path: str, start: int, stop: int) -> Piece:
    """The bytes from `start` to before `stop`, as far as they are there; none where the log ends before `start`."""
    piece = _read(client, path, f"{start}-{stop - 1}", 0)
    if piece.start < start:  # the server gave all it has
        data = piece.data[start - piece.start : stop - piece.start]
        return Piece(data, start, piece.total)
    return piece


def _read(client: Asks, path: str, wanted: str, limit: int) -> Piece:
    try:
        response = client.request("GET", path, headers={"Range": f"bytes={wanted}"})
    except ApiError as error:
        if error.status == 416:  # RFC 9110: nothing of it is there
            return Piece(b"", 0, 0)
        raise
    data: bytes = response.body
    if response.status == 206 and (found := _RANGE.match(response.headers.get("content-range", ""))):
        return Piece(data, int(found[1]), int(found[2]))
    start = max(0, len(data) - limit) if limit else 0  # a server without ranges
    return Piece(data[start:], start, len(data))

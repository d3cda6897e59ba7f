"""A client of the guest API, as the guest's root or another of its users: what a program inside would do."""

import contextlib
import http.client
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.daemon import Lxpyd


def base(pid: int) -> int:
    """The host's id of the root of that process."""
    return int(pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()[1])


@contextlib.contextmanager
def connected(
    lxpyd: Lxpyd, name: str, *, user: int = 0, place: str = "/dev/lxd/sock", pid: int = 0
) -> Iterator[http.client.HTTPConnection]:
    """A connection that was made by `user` of the guest, through the guest's own file system.

    Args:
        pid: of the guest's init, where it is known.
    """
    pid = pid or lxpyd.init_pid(name)
    directory, file = os.path.split(place)
    fd = os.open(f"/proc/{pid}/root{directory}", os.O_PATH | os.O_DIRECTORY)
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(20)
    connection = http.client.HTTPConnection("lxd")
    try:
        os.seteuid(base(pid) + user)
        try:
            stream.connect(f"/proc/self/fd/{fd}/{file}")
        finally:
            os.seteuid(0)
        connection.sock = stream
        yield connection
    finally:
        connection.close()
        stream.close()
        os.close(fd)


def ask(lxpyd: Lxpyd, name: str, path: str, method: str = "GET", body: Any = None, **options: Any) -> tuple[int, str]:
    """One request; status and text."""
    with connected(lxpyd, name, **options) as connection:
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
        connection.request(method, path, data)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")


def get(lxpyd: Lxpyd, name: str, path: str) -> Any:
    """The JSON at `path`."""
    status, text = ask(lxpyd, name, path)
    assert status == 200, text
    return json.loads(text)

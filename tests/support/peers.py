"""Programs inside an instance to talk to through a proxy: run by the host's Python inside its network namespace."""

import os
import socket
from collections.abc import Callable
from typing import TypeVar

from lxpy.linux import libc

_T = TypeVar("_T")


def inside(pid: int, work: Callable[[], _T]) -> _T:
    """Runs `work` with the network of a process; for a moment this whole (single) thread is there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        libc.setns(there, libc.CLONE_NEWNET)
        try:
            return work()
        finally:
            libc.setns(home, libc.CLONE_NEWNET)
    finally:
        os.close(home)
        os.close(there)


def listener(host: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """A socket bound to an address, listening where it is a stream."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    sock.settimeout(10)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    if kind == socket.SOCK_STREAM:
        sock.listen(4096)
    return sock


def connect(host: str, port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    """Raises what `connect` raises, with the socket closed."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind | socket.SOCK_CLOEXEC)
    sock.settimeout(10)
    try:
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def accept(server: socket.socket) -> socket.socket:
    """The next connection, which waits for ten seconds at most."""
    sock, _ = server.accept()
    sock.settimeout(10)
    return sock


def everything(sock: socket.socket) -> bytes:
    """What comes until the end; then it is closed."""
    data = b""
    with sock:
        while part := sock.recv(1 << 16):
            data += part
    return data

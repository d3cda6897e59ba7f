"""A stream that speaks SFTP with an instance's files, and what can be done with it: mounting, serving over SSH."""

from __future__ import annotations

import socket
import threading

from lxpy.api.errors import ApiError, from_status
from lxpy.client import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.client import Client

_SOME = 1 << 16


def connect(client: Client, name: str) -> socket.socket:
    """A plain socket to an SFTP server (version 3, without SSH) for the files of an instance.

    On this machine it leads straight to the process that has the files; over TLS a thread passes the bytes on.

    Raises:
        NotFound: no such instance.
    """
    return _local(client, name) if client.local else _upgraded(client, name)


def _local(client: Client, name: str) -> socket.socket:
    from lxpy.api.layout import Layout
    from lxpy.client.local import dial

    layout = Layout()
    sock = dial(layout.local_socket, seqpacket=True, layout=layout)
    try:
        request = {"project": client.project or "default", "name": name, "sftp": True}
        sock.sendall(wire.dumps({"v": 1, "files": request}).encode())
        data, fds = wire.receive_fds(sock, _SOME, 1)
    finally:
        sock.close()
    answer = wire.loads(data.decode()) if data else {}
    if not answer.get("ok"):
        raise from_status(int(answer.get("status", 503)), str(answer.get("error", "lxpyd ended: try again")))
    return socket.socket(fileno=fds[0])


def _upgraded(client: Client, name: str) -> socket.socket:
    stream = client.upgrade(f"/1.0/instances/{wire.quote(name)}/sftp", "sftp")
    if not hasattr(stream, "cipher"):
        return socket.socket(fileno=stream.detach())
    ours, theirs = socket.socketpair()

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(_SOME):
                target.sendall(data)
        except OSError:
            pass
        finally:
            for one in (source, target):
                try:
                    one.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    for ends in ((stream, theirs), (theirs, stream)):
        threading.Thread(target=pass_on, args=ends, daemon=True).start()
    return ours


def mount(client: Client, name: str, path: str, target: str) -> int:
    """Mounts the files of an instance by sshfs until it is unmounted or we are interrupted; sshfs's status.

    Raises:
        ApiError: there is no sshfs.
    """
    import shutil
    import signal
    import subprocess

    program = shutil.which("sshfs")
    if program is None:
        raise ApiError("sshfs is not installed (apt install sshfs); without a target path, files are served over SSH")
    with connect(client, name) as sock:
        process = subprocess.Popen(
            [program, "-f", "-o", "slave,fsname=lxpy,subtype=sshfs", f"{name}:{path}", target],
            stdin=sock.fileno(),
            stdout=sock.fileno(),
        )
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: process.send_signal(number))
    while True:
        try:
            return int(process.wait())
        except KeyboardInterrupt:
            continue  # sshfs has been told as well, and unmounts


def find_path(client: Client, name: str, path: str) -> None:
    """Raises `ApiError` when there is no directory at that path."""
    from lxpy.client.files import open_files

    files = open_files(client, name)
    try:
        if files.stat(path, follow=True).type != "directory":
            raise ApiError(f"{name}{path} is no directory: only directories can be mounted")
    finally:
        files.close()

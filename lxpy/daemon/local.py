"""The local socket: exec without websockets. One SEQPACKET message in, one out with descriptors, and we are out of it.

``{"v":1,"exec":{"project","name",...}}`` is answered by ``{"ok":true}`` with the command's ends of pty or pipes,
its status pipe and its pidfd (``-1`` ends are left out), or by ``{"error","status"}``. The caller splices. As
long as it keeps the connection, ``{"v":1,"signal":15}`` signals the command: who is not root may not do so itself.

``{"v":1,"files":{"project","name"}}`` is answered by a SEQPACKET socket to a process that works on the instance's files
(`lxpy.runtime.filework` says in what words); with ``"sftp": true`` by a stream that speaks SFTP.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest
from lxpy.daemon.execs import close_files, exec_request
from lxpy.daemon.operations import explain

if TYPE_CHECKING:
    from lxpy.instances.manager import InstanceManager

log = logging.getLogger("lxpyd")
_MESSAGE = 1 << 18  # bytes; a command line and environment beyond that do not fit one SEQPACKET message anyway


class LocalServer:
    """Serves `listener`. Who may connect is the socket file's mode and group."""

    def __init__(self, listener: socket.socket, instances: "InstanceManager") -> None:
        self._listener = listener
        self._instances = instances
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        listener.setblocking(False)
        self._loop.add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop listening. Commands that run go on: they have nothing to do with us any more."""
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            task = self._loop.create_task(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        with connection:
            try:
                message = await self._loop.sock_recv(connection, _MESSAGE)
                if not message:
                    return
                try:
                    await self._answer(connection, message)
                except Exception as error:
                    status, text = explain(error, "local socket")
                    _reply(connection, {"error": text, "status": status})
            except OSError:
                pass  # the client went away

    async def _answer(self, connection: socket.socket, message: bytes) -> None:
        try:
            request = json.loads(message)
            kind = "files" if "files" in request else "exec"
            body: dict[str, Any] = request[kind]
            project, name = str(body.get("project") or "default"), str(body["name"])
            version = request["v"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise BadRequest("The request on the local socket is not understood") from None
        if version != 1:
            raise BadRequest(f"The local socket speaks version 1, not {version}: client and daemon do not match")
        if kind == "files":
            await self._files(connection, project, name, bool(body.get("sftp")))
        else:
            await self._exec(connection, project, name, body)

    async def _files(self, connection: socket.socket, project: str, name: str, sftp: bool) -> None:
        if sftp:
            ours, theirs = socket.socketpair()
            with ours, theirs:
                await self._instances.files.serve(project, name, theirs.fileno(), sftp=True)
                _reply(connection, {"ok": True}, [ours.fileno()])
            return
        with await self._instances.files.session(project, name) as session:
            _reply(connection, {"ok": True}, [session.fileno()])

    async def _exec(self, connection: socket.socket, project: str, name: str, body: dict[str, Any]) -> None:
        files = await self._instances.exec(project, name, exec_request(body))
        pidfd = os.dup(files.pidfd)
        try:
            try:
                _reply(connection, {"ok": True}, [fd for fd in files if fd >= 0])
            finally:
                close_files(files)
            await self._signals(connection, pidfd)
        finally:
            os.close(pidfd)

    async def _signals(self, connection: socket.socket, pidfd: int) -> None:
        """Until the client hangs up, send the command what it may not send itself: the client need not be root."""
        while message := await self._loop.sock_recv(connection, _MESSAGE):
            with contextlib.suppress(ProcessLookupError, ValueError, KeyError, TypeError):
                signal.pidfd_send_signal(pidfd, int(json.loads(message)["signal"]))


def _reply(connection: socket.socket, answer: dict[str, Any], fds: list[int] | None = None) -> None:
    socket.send_fds(connection, [json.dumps(answer).encode()], fds or [])

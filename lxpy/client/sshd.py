"""The SFTP of an instance behind SSH, for clients that know nothing else. Wants asyncssh, which is loaded here only."""

from __future__ import annotations

import asyncio
import hmac
import importlib
import importlib.util
import socket

from lxpy.api.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_SOME = 1 << 16


def available() -> bool:
    """Whether asyncssh is installed."""
    return importlib.util.find_spec("asyncssh") is not None


def serve(
    connect: Callable[[], socket.socket], host: str, port: int, user: str, password: str | None,
    ready: Callable[[int], None],
) -> None:  # fmt: skip
    """Serves until interrupted.

    Args:
        connect: opens an SFTP stream for one session.
        port: 0 is any.
        password: None lets everybody in, under every name.
        ready: told of the port once it listens.

    Raises:
        ApiError: asyncssh is missing, or the address cannot be used.
    """
    if not available():
        raise ApiError(
            "Serving files over SSH needs the Python package asyncssh beside lxpy (pip install asyncssh); "
            "with a target path they are mounted by sshfs"
        )
    try:
        asyncio.run(_serve(importlib.import_module("asyncssh"), connect, host, port, user, password, ready))
    except KeyboardInterrupt:
        pass


async def _serve(
    asyncssh: Any, connect: Callable[[], socket.socket], host: str, port: int, user: str, password: str | None,
    ready: Callable[[int], None],
) -> None:  # fmt: skip
    class Session(asyncssh.SSHServerSession):  # type: ignore[misc]
        """One channel: what comes goes to a stream of its own, a piece at a time, and the reverse."""

        def __init__(self) -> None:
            self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
            self._writable = asyncio.Event()
            self._writable.set()

        def connection_made(self, chan: Any) -> None:
            self._channel = chan

        def subsystem_requested(self, subsystem: str) -> bool:
            return subsystem == "sftp"

        def session_started(self) -> None:
            self._task = asyncio.get_running_loop().create_task(self._run())

        def data_received(self, data: bytes, datatype: object) -> None:
            self._channel.pause_reading()
            self._pieces.put_nowait(data)

        def eof_received(self) -> bool:
            self._pieces.put_nowait(b"")
            return False

        def connection_lost(self, exc: Exception | None) -> None:
            self._pieces.put_nowait(b"")
            self._writable.set()

        def pause_writing(self) -> None:
            self._writable.clear()

        def resume_writing(self) -> None:
            self._writable.set()

        async def _run(self) -> None:
            try:
                sock = await asyncio.to_thread(connect)
                reader, writer = await asyncio.open_connection(sock=sock)
            except (ApiError, OSError):
                self._channel.exit(1)
                return
            forth = asyncio.get_running_loop().create_task(self._forth(writer))
            try:
                while data := await reader.read(_SOME):
                    await self._writable.wait()
                    self._channel.write(data)
            except OSError:
                pass
            finally:
                forth.cancel()
                writer.close()
                self._channel.exit(0)

        async def _forth(self, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await self._pieces.get():
                    writer.write(data)
                    await writer.drain()
                    self._channel.resume_reading()
            except OSError:
                pass
            writer.close()

    class Server(asyncssh.SSHServer):  # type: ignore[misc]
        def session_requested(self) -> Any:
            return Session()

        def begin_auth(self, username: str) -> bool:
            return password is not None

        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, given: str) -> bool:
            expected = f"{user}\0{password}".encode()
            return hmac.compare_digest(f"{username}\0{given}".encode(), expected)

    try:
        server = await asyncssh.listen(
            host, port, server_factory=Server, encoding=None,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
        )  # fmt: skip
    except OSError as error:
        raise ApiError(f"Cannot listen on {host}:{port}: {error.strerror or error}") from None
    ready(server.sockets[0].getsockname()[1])
    await server.wait_closed()

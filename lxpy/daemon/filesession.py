"""The daemon's own talk with a file process: what HTTP asks, in its messages, and bytes through pipes."""

import contextlib
import errno
import json
import os
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest, Unavailable
from lxpy.api.files import fault
from lxpy.daemon.streams import read_chunk, write_all
from lxpy.runtime.supervisor_client import Channel

if TYPE_CHECKING:
    from lxpy.instances.manager import InstanceManager

_DOING = {
    "stat": "look at", "get": "pull", "put": "push", "commit": "push", "mkdir": "make", "symlink": "make",
}  # fmt: skip
_LISTING = 64 << 20  # bytes of a directory's list that the daemon takes in


class FileSession:
    """One instance's files for one request.

    Args:
        name: of the instance, for errors.
    """

    def __init__(self, channel: Channel, name: str) -> None:
        self._channel, self._name = channel, name

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, instances: "InstanceManager", project: str, name: str) -> AsyncIterator["FileSession"]:
        """Raises `NotFound` for an instance that is not there."""
        channel = Channel(await instances.files.session(project, name))
        try:
            yield cls(channel, name)
        finally:
            channel.close()

    async def ask(self, op: str, path: str, fds: tuple[int, ...] = (), **more: Any) -> dict[str, Any]:
        """One request, one answer; raises the `ApiError` of a failure."""
        await self._channel.send({"op": op, "path": path, **more}, fds)
        return await self.answer(op, path)

    async def answer(self, op: str, path: str) -> dict[str, Any]:
        """The next answer."""
        message, _ = await self._channel.receive()
        if message is None:
            raise Unavailable(f"The files of {self._name} are out of reach: it has just been started or stopped")
        if "error" in message:
            raise fault(message, f"Failed to {_DOING.get(op, op)} {self._name}{path}")
        return message

    async def list(self, path: str) -> "list[dict[str, Any]]":
        """The entries of a directory."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        data = bytearray()
        try:
            os.set_blocking(read_end, False)
            try:
                await self.ask("list", path, (write_end,))
            finally:
                os.close(write_end)
            while chunk := await read_chunk(read_end):
                data += chunk
                if len(data) > _LISTING:
                    raise BadRequest(f"The directory {path!r} in {self._name} has too many entries to be listed")
        finally:
            os.close(read_end)
        await self.answer("list", path)
        found: list[dict[str, Any]] = json.loads(data)
        return found

    @contextlib.asynccontextmanager
    async def read(self, path: str) -> AsyncIterator[tuple[dict[str, Any], AsyncIterator[bytes]]]:
        """What a file is, and its bytes as they come. Raises before anything has come, or in the middle."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(read_end, False)
            try:
                entry = await self.ask("get", path, (write_end,))
            finally:
                os.close(write_end)
            yield entry, self._pieces(read_end, path)
        finally:
            os.close(read_end)

    async def _pieces(self, fd: int, path: str) -> AsyncIterator[bytes]:
        while chunk := await read_chunk(fd):
            yield chunk
        await self.answer("get", path)

    async def write(self, path: str, content: AsyncIterator[bytes], **more: Any) -> None:
        """A file, whole or not at all: an error of `content` takes it back."""
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            os.set_blocking(write_end, False)
            try:
                await self.ask("put", path, (read_end,), **more)
            finally:
                os.close(read_end)
            try:
                async for chunk in content:
                    await write_all(write_end, chunk)
            except BrokenPipeError:
                await self.answer("put", path)  # says why
                raise fault({"errno": errno.EIO, "error": "it was cut off"}, f"Failed to push {path}") from None
        finally:
            os.close(write_end)
        await self.ask("commit", path)

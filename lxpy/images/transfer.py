"""Whole images from LXD-style servers and from addresses: into temporary files, going on where the line was cut.

A unified image is one file, of which a server sends the rest when it is asked for that. A split one comes as a
multipart body, which LXD cannot send in part: it starts anew.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

from lxpy.api.errors import BadRequest, NotFound, Unavailable
from lxpy.images import files
from lxpy.images.http import speed
from lxpy.images.work import Progress

if TYPE_CHECKING:
    import aiohttp

_CHUNK = 1 << 20
_ATTEMPTS = 5  # in a row without a byte more

Ask = Callable[[dict[str, str]], "AbstractAsyncContextManager[aiohttp.ClientResponse]"]


class Arrived(NamedTuple):
    """Temporary files of an image that was fetched; they are the caller's. `rootfs` is None for a unified image."""

    metadata: str
    rootfs: str | None
    filename: str


class Wrong(Unavailable):
    """What the server sends is no image, or another one than it said: asking again is of no use."""


class Sending:
    """Progress of `total` bytes on their way, as LXD words it; at most five times a second."""

    def __init__(self, total: int, progress: Progress, label: str = "rootfs") -> None:
        self._total, self._progress, self._label = total, progress, label
        self._started = self._told = time.monotonic()

    def report(self, count: int) -> None:
        now = time.monotonic()
        if now - self._told < 0.2:
            return
        self._told = now
        done = f"{min(count * 100 // self._total, 100)}% " if self._total else f"{count >> 20}MiB "
        rate = speed(count / max(now - self._started, 1e-3))
        self._progress("download_progress", f"{self._label}: {done}({rate}/s)")


async def fetch(ask: Ask, directory: str, total: int, progress: Progress, backoff: float) -> Arrived:
    """Downloads an image into temporary files of `directory`. Nothing of them has been checked yet.

    Args:
        ask: begins a request, given further headers of it; raises `ApiError` for an answer that is a refusal.
        total: the size of the image in bytes, 0 where it is not known before the answer.
        backoff: seconds before the second attempt; doubles.

    Raises:
        BadRequest: a virtual machine's. Unavailable: the server or the disk fails.
    """
    os.makedirs(directory, mode=0o700, exist_ok=True)
    coming = _Coming(directory, total, progress)
    failures, pause = 0, backoff
    cut: Unavailable | None = None
    try:
        while True:
            before = coming.done
            headers = {"Range": f"bytes={before}-", "Accept-Encoding": "identity"} if before else {}
            try:
                async with ask(headers) as response:
                    return await coming.receive(response)
            except Wrong:
                raise
            except NotFound:
                raise cut or NotFound("it is not there") from None  # a secret may have ended meanwhile
            except Unavailable as error:
                cut = error
                if coming.done > before:
                    failures, pause = 0, backoff
                failures += 1
                if failures >= _ATTEMPTS:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)
    except BaseException as error:
        coming.drop()
        if isinstance(error, OSError) and (full := files.disk_full(error, "Fetching the image", directory)):
            raise full from None
        raise


class _Coming:
    """An image on its way.

    Attributes:
        done: bytes that are there and need not be sent again.
    """

    def __init__(self, directory: str, total: int, progress: Progress) -> None:
        self._directory, self._total, self._progress = directory, total, progress
        self._sending = Sending(total, progress)
        self._paths: list[str] = []
        self.done = 0

    def drop(self) -> None:
        """Takes what has come away."""
        for path in self._paths:
            files.unlink(path)
        self._paths, self.done = [], 0

    async def receive(self, response: "aiohttp.ClientResponse") -> Arrived:
        """The files of an exported image: one, or the ``metadata`` and ``rootfs`` of a multipart body."""
        import aiohttp

        if response.status == 416:
            self.drop()
            raise Unavailable("the server refuses to go on in the middle")
        if response.status != 206:
            self.drop()
            self._total = self._total or int(response.headers.get("Content-Length") or 0)
            self._sending = Sending(self._total, self._progress)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {self.done}-"):
            raise Wrong("the server sent another part than asked for")
        if not response.content_type.startswith("multipart/"):
            if not self._paths:
                self._paths.append(self._temporary())
            self.done = await self._save(self._paths[0], response.content.read, self.done, keep=True)
            disposition = response.content_disposition
            return Arrived(self._paths[0], None, os.path.basename((disposition and disposition.filename) or ""))
        names: list[str] = []
        count = 0
        try:
            async for part in aiohttp.MultipartReader.from_response(response):
                names.append(getattr(part, "name", None) or "")
                if names[-1] == "rootfs.img":
                    raise BadRequest("This is the image of a virtual machine: lxpy runs containers")
                self._paths.append(self._temporary())
                count = await self._save(self._paths[-1], part.read_chunk, count)  # type: ignore[union-attr]
        except ValueError:  # aiohttp's word for a multipart body that ends too early
            raise Unavailable("the connection ended early") from None
        if names != ["metadata", "rootfs"]:
            raise Wrong(f"the image has the parts {', '.join(names) or 'none'}, expected are metadata and rootfs")
        return Arrived(self._paths[0], self._paths[1], "")

    def _temporary(self) -> str:
        fd, path = tempfile.mkstemp(prefix=".upload-", dir=self._directory)
        os.close(fd)
        return path

    async def _save(self, path: str, read: Any, count: int, *, keep: bool = False) -> int:
        """Appends what is read to a file; `count` and what follows are bytes of the whole image.

        Args:
            keep: what has been written counts as done, should the line be cut.
        """
        with open(path, "ab", buffering=0) as file:
            buffer = bytearray()
            try:
                while chunk := await read(_CHUNK):
                    buffer += chunk
                    if self._total and count + len(buffer) > self._total:
                        raise Wrong("the server sends more than it promised")
                    self._sending.report(count + len(buffer))
                    if len(buffer) >= _CHUNK:
                        count = await self._write(file.fileno(), buffer, count, keep)
            finally:
                if keep:  # cut or not: what has come need not come again
                    _write(file.fileno(), bytes(buffer))
                    self.done, count = count + len(buffer), count + len(buffer)
                    buffer.clear()
            return await self._write(file.fileno(), buffer, count, keep)

    async def _write(self, fd: int, buffer: bytearray, count: int, keep: bool) -> int:
        await asyncio.to_thread(_write, fd, bytes(buffer))
        count += len(buffer)
        buffer.clear()
        if keep:
            self.done = count
        return count


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

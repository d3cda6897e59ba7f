"""Simplestreams servers: their lists, and fetching one image of them, checked, into the download directory."""

import asyncio
import os
import shutil
import time
from typing import NamedTuple

from lxpy.api.errors import ApiError, BadRequest, NotFound, Unavailable
from lxpy.api.layout import Layout
from lxpy.api.values import human_bytes
from lxpy.images import files, streams, tools
from lxpy.images.http import Http
from lxpy.images.streams import StreamImage
from lxpy.images.work import Progress


class Fetched(NamedTuple):
    """A downloaded image's files, verified; they are the caller's to move."""

    metadata: str
    rootfs: str | None
    hashes: files.Hashes


PROBE_SECONDS = 8.0  # that a server gets to answer when somebody asks whether it does


class Probed(NamedTuple):
    """How a server answered: after how many milliseconds its index was here, and how many products that names."""

    milliseconds: float
    products: int


class Servers:
    """Args:
    builtin: names of the built-in images, offered when a server is away.
    """

    def __init__(self, layout: Layout, http: Http, builtin: list[str]) -> None:
        self._layout, self._http, self._builtin = layout, http, builtin

    async def images(self, server: str) -> list[StreamImage]:
        """Every usable image of a server.

        Raises:
            Unavailable: it is away and its list was never fetched.
            BadRequest: it is no simplestreams server.
        """
        base = server.rstrip("/")
        try:
            index = await self._http.document(base, "streams/v1/index.json")
            found: list[StreamImage] = []
            for path in streams.product_paths(index):
                data = await self._http.document(base, path)
                found += await asyncio.to_thread(streams.parse_products, data)
            return found
        except NotFound:
            raise BadRequest(f"{base} is no simplestreams server: it has no streams/v1/index.json") from None
        except Unavailable as error:
            offer = f'; without it, "builtin:" offers: {", ".join(self._builtin)}' if self._builtin else ""
            raise Unavailable(f"Image server {base} cannot be reached: {error}{offer}") from None
        except BadRequest as error:
            raise BadRequest(f"Image server {base}: {error}") from None

    async def probe(self, server: str) -> Probed:
        """Asks a server for its index, now: nothing that is kept is used.

        Raises:
            Unavailable: it is away, or does not answer in time. BadRequest: it is no simplestreams server.
        """
        url = f"{server.rstrip('/')}/streams/v1/index.json"
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                began = time.monotonic()
                index = await self._http.fresh(url)
                milliseconds = (time.monotonic() - began) * 1000
        except TimeoutError:
            raise Unavailable(f"{server} did not answer within {PROBE_SECONDS:.0f} seconds") from None
        except NotFound:
            raise BadRequest(f"{server} is no simplestreams server: it has no streams/v1/index.json") from None
        streams.product_paths(index)
        products = (entry.get("products") for entry in index["index"].values() if isinstance(entry, dict))
        return Probed(round(milliseconds, 3), sum(len(names) for names in products if isinstance(names, list)))

    async def resolve(self, server: str, wanted: str) -> StreamImage:
        """The image an alias or fingerprint prefix means there."""
        return await asyncio.to_thread(streams.resolve, await self.images(server), wanted, server.rstrip("/"))

    async def _patch(self, base: str, image: StreamImage, rootfs: str, progress: Progress) -> bool:
        """Makes the root file system of an earlier version that is here and the difference, where the server has one.

        False where it has to be downloaded whole: no base, no ``xdelta3`` on this host, or not what was promised.
        """
        if os.path.exists(rootfs) or image.rootfs is None or shutil.which("xdelta3") is None:
            return False
        for fingerprint, delta in image.deltas:
            old = f"{self._layout.images}/{fingerprint}.rootfs"
            if delta.size >= image.rootfs.size or not os.path.exists(old):
                continue
            part, new = f"{rootfs.removesuffix('.rootfs.part')}.vcdiff.part", f"{rootfs}.new"
            try:
                await self._http.download(base, delta, part, "delta", progress)
                # A hostile difference must not fill the disk.
                command = ["prlimit", f"--fsize={image.rootfs.size}", "xdelta3", "-d", "-f", "-s", old, part, new]
                await tools.run("Applying a delta", [*tools.WALLS, *command], {}, lambda text: None)
                made = await asyncio.to_thread(files.hash_image, new, None)
                if made.fingerprint == image.rootfs.sha256:
                    os.rename(new, rootfs)
                    return True
            except (ApiError, OSError):
                pass  # the whole file is there, too
            finally:
                files.unlink(part)
                files.unlink(new)
        return False

    async def fetch(self, server: str, image: StreamImage, progress: Progress) -> Fetched:
        """Downloads an image; nothing of it is used before both hashes and the fingerprint are right.

        Raises:
            Unavailable: the server fails, sends something else than it lists, or the disk is full.
        """
        base = server.rstrip("/")
        directory = f"{self._layout.cache}/downloads"
        os.makedirs(directory, mode=0o700, exist_ok=True)
        metadata = f"{directory}/{image.fingerprint}.part"
        rootfs = f"{directory}/{image.fingerprint}.rootfs.part" if image.rootfs else None
        there = sum(os.stat(path).st_size for path in (metadata, rootfs) if path and os.path.exists(path))
        free = shutil.disk_usage(directory).free
        if image.size - there > free:
            raise Unavailable(
                f"Downloading {image.aliases[0] if image.aliases else image.fingerprint[:12]} takes "
                f"{human_bytes(image.size)}, and {directory} has {human_bytes(free)} free: make room and try again"
            )
        await self._http.download(base, image.metadata, metadata, "metadata" if rootfs else "rootfs", progress)
        if rootfs and image.rootfs and not await self._patch(base, image, rootfs, progress):
            await self._http.download(base, image.rootfs, rootfs, "rootfs", progress)
        try:
            hashes = await asyncio.to_thread(files.hash_image, metadata, rootfs)
            if hashes.fingerprint != image.fingerprint:
                raise Unavailable(
                    f"Image server {base} contradicts itself: the files of {image.fingerprint[:12]} "
                    f"make the fingerprint {hashes.fingerprint[:12]}"
                )
        except ApiError:
            for path in (metadata, rootfs):
                if path:
                    files.unlink(path)
            raise
        return Fetched(metadata, rootfs, hashes)

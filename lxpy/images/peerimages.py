"""Images that come into the store from another server by its API (protocol ``lxd``) or from an address (``direct``)."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest, InternalError, NotFound, Unavailable
from lxpy.images import files, metadata, transfer, uploads
from lxpy.images.architectures import check_runs, native
from lxpy.images.http import Http
from lxpy.images.index import Index, document
from lxpy.images.peers import Peer
from lxpy.images.work import Progress
from lxpy.state.store import Document

if TYPE_CHECKING:
    import aiohttp

Fetch = Callable[[Progress], Awaitable[str]]
Obtain = Callable[[str, str, Fetch, Progress, Document], Awaitable[str]]


class PeerImages:
    """Args:
    obtain: brings an image into a project: (project, fingerprint, how to fetch it, progress, fields of its record).
    """

    def __init__(self, index: Index, http: Http, obtain: Obtain) -> None:
        self._index, self._http, self._obtain = index, http, obtain

    async def ensure(
        self, source: dict[str, Any], project: str, progress: Progress, flags: Document, strict: bool = False
    ) -> str:
        """An image of an LXD-style server; see `ImageManager.ensure`.

        Args:
            source: beside ``alias`` or ``fingerprint``: ``server``, ``certificate``, ``secret``, ``project``.
            strict: refuse an update in the background that cannot be; without it, it is left off.
        """
        server, alias = str(source["server"]).rstrip("/"), str(source.get("alias") or "")
        secret, certificate = str(source.get("secret") or ""), str(source.get("certificate") or "")
        if flags["auto_update"] and (secret or not alias):
            if strict:
                raise BadRequest("Updating an image by itself needs a public image, named by an alias")
            flags = flags | {"auto_update": False}
        known = self._index.from_server(project, server, alias) if alias else None
        # As with image servers: what updates itself in the background need not be asked after at each launch.
        if known and self._index.all(project)[known]["auto_update"]:
            return known
        peer = self._peer(source)
        image = await peer.image(alias, str(source.get("fingerprint") or ""), secret)
        if flags.get("cached"):
            check_runs(str(image.get("architecture")))
        if alias and not secret:
            flags = flags | {
                "update_source": {
                    "server": server, "protocol": "lxd", "alias": alias, "certificate": certificate,
                    "image_type": "container",
                }
            }  # fmt: skip
        return await self._fetch(peer, image, secret, project, progress, flags)

    def _peer(self, source: dict[str, Any]) -> Peer:
        certificate, project = (str(source.get(key) or "") for key in ("certificate", "project"))
        return Peer(self._http, str(source["server"]), certificate, project)

    async def aliases(self, source: dict[str, Any]) -> list[dict[str, str]]:
        """The aliases of an image there: ``[{"name", "description"}]``."""
        alias, fingerprint, secret = (str(source.get(key) or "") for key in ("alias", "fingerprint", "secret"))
        image = await self._peer(source).image(alias, fingerprint, secret)
        return [{"name": str(one["name"]), "description": str(one.get("description") or "")}
                for one in image.get("aliases") or ()]  # fmt: skip

    async def _fetch(
        self, peer: Peer, image: dict[str, Any], secret: str, project: str, progress: Progress, flags: Document
    ) -> str:
        fingerprint = str(image["fingerprint"])

        async def fetch(report: Progress) -> str:
            arrived = await peer.fetch(image, secret, self._index.directory, report)
            try:
                hashes = await asyncio.to_thread(files.hash_image, arrived.metadata, arrived.rootfs)
                if hashes.fingerprint != fingerprint:
                    raise Unavailable(
                        f"Image {fingerprint[:12]} came with the fingerprint {hashes.fingerprint[:12]}: "
                        "the download is damaged"
                    )
                kind, archive = await asyncio.to_thread(uploads.inspect, arrived.metadata, arrived.rootfs)
                properties = {str(key): str(value) for key, value in (image.get("properties") or {}).items()}
                doc = document(archive, kind, hashes, {}, flags)
                doc["properties"] = properties
                doc["filename"] = os.path.basename(str(image.get("filename") or arrived.filename))
                expires = str(image.get("expires_at") or "")
                doc["expires_at"] = expires if metadata.parse_utc(expires) else doc["expires_at"]
                await self._index.install(project, fingerprint, arrived.metadata, arrived.rootfs, archive, doc)
            except OSError as error:
                full = files.disk_full(error, "Copying the image", self._index.directory)
                raise full or InternalError(f"Copying the image: {error.strerror}: {error.filename}") from None
            finally:
                for path in arrived[:2]:
                    if path:
                        files.unlink(path)
            return fingerprint

        return await self._obtain(project, fingerprint, fetch, progress, flags)

    async def latest(
        self, fingerprint: str, origin: dict[str, str], project: str, progress: Progress, flags: Document
    ) -> str:
        """The image that is now where one came from; see `Fetcher.latest`."""
        if origin["protocol"] == "direct":
            expected, address = await self._direct(origin["server"])
            if expected in ("", fingerprint):
                return fingerprint
            return await self._download(origin["server"], expected, address, project, {}, flags, progress)
        peer = Peer(self._http, origin["server"], origin["certificate"])
        image = await peer.image(origin["alias"], "")
        if image["fingerprint"] == fingerprint:
            return fingerprint
        return await self._fetch(peer, image, "", project, progress, flags)

    # -- by address ----------------------------------------------------------------------------------------------------

    async def by_address(
        self, url: str, project: str, progress: Progress, flags: Document, properties: dict[str, str]
    ) -> str:
        """A unified image at an https address.

        LXD's protocol: the answer to a HEAD has ``LXD-Image-Hash`` and ``LXD-Image-URL``. Beyond it, an address that
        has neither is the image itself.

        Raises:
            BadRequest: no https address, or what is there is no image. NotFound, Unavailable.
        """
        if not url.startswith("https://"):
            raise BadRequest(f"Images are imported from https addresses only, not from {url}")
        expected, address = await self._direct(url)
        if expected and self._index.get(project, expected):
            return expected
        return await self._download(url, expected, address, project, properties, flags, progress)

    async def _direct(self, url: str) -> tuple[str, str]:
        """(fingerprint or "", address of the image) for an address of the protocol ``direct``."""
        headers = {"LXD-Server-Architectures": ", ".join(native()), "LXD-Server-Version": "5.0"}
        try:
            async with self._http.get(url, headers, method="HEAD") as response:
                expected = response.headers.get("LXD-Image-Hash", "").lower()
                address = response.headers.get("LXD-Image-URL", "") or url
        except Unavailable as error:
            raise Unavailable(f"Importing {url} failed: {error}") from None
        if not address.startswith("https://"):
            raise BadRequest(f"{url} names no https address for its image: {address}")
        return expected, address

    async def _download(
        self,
        url: str,
        expected: str,
        address: str,
        project: str,
        properties: dict[str, str],
        flags: Document,
        progress: Progress,
    ) -> str:
        from urllib.parse import urlencode

        def ask(headers: dict[str, str]) -> "AbstractAsyncContextManager[aiohttp.ClientResponse]":
            return self._http.get(address, headers)

        try:
            arrived = await transfer.fetch(ask, self._index.directory, 0, progress, self._http.backoff)
        except Unavailable as error:
            raise Unavailable(f"Importing {url} failed: {error}") from None
        except NotFound:
            raise NotFound(f"{address} does not exist") from None
        source = {"server": url, "protocol": "direct", "alias": url, "certificate": "", "image_type": "container"}
        headers = {
            "X-LXD-filename": arrived.filename or os.path.basename(address.partition("?")[0]),
            "X-LXD-fingerprint": expected,
            "X-LXD-properties": urlencode(properties),
        }
        more = flags | ({"update_source": source} if expected else {"auto_update": False})
        return await uploads.take_in(self._index, project, arrived.metadata, arrived.rootfs, headers, progress, more)

"""Images of other LXD-style servers: looked up, fetched and pushed over their API, as a client they need not trust.

Public images anybody may read. A private one is read, or pushed, with a secret that its server (or the target) gave to
a client it trusts; the secret is good for that one image.
"""

import os
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from lxpy.api.errors import ApiError, BadRequest, NotFound, Unavailable, from_status
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.values import human_bytes
from lxpy.images import transfer
from lxpy.images.http import Http
from lxpy.images.multipart import framed
from lxpy.images.transfer import Arrived
from lxpy.images.work import Progress

if TYPE_CHECKING:
    import aiohttp

_CHUNK = 1 << 20
_ANSWER_LIMIT = 16 << 20


class Peer:
    """One server.

    Args:
        server: ``https://host:port``.
        certificate: the one it has to show, PEM; "" where an authority vouches for it.
        project: whose images.
    """

    def __init__(self, http: Http, server: str, certificate: str = "", project: str = "") -> None:
        self._http, self._server, self._certificate = http, server.rstrip("/"), certificate
        self._project = "" if project == "default" else project
        if not self._server.startswith("https://"):
            raise BadRequest(f"{server or 'The source'} is not the https address of a server")

    async def image(self, alias: str, fingerprint: str, secret: str = "") -> dict[str, Any]:
        """The image object of an alias, or of a fingerprint (its beginning will do).

        Raises:
            NotFound: there is none of that name, or it is private and `secret` is not its own.
            Unavailable: the server is away.
        """
        wanted = alias or fingerprint
        try:
            if alias:
                found = await self._get(f"/1.0/images/aliases/{quote(alias)}")
                fingerprint = str(found.get("target", ""))
            image: dict[str, Any] = await self._get(f"/1.0/images/{quote(fingerprint)}", secret=secret)
        except NotFound:
            raise NotFound(f"Image {wanted!r} not found on {self._server} (or it is not public there)") from None
        if image.get("type") not in (None, "", "container"):
            raise BadRequest(f"Image {wanted!r} of {self._server} is a virtual machine's: lxpy runs containers")
        if not _sensible(image):
            raise Unavailable(f"{self._server} does not describe its image as LXD, Incus and lxpy do")
        return image

    async def fetch(self, image: dict[str, Any], secret: str, directory: str, progress: Progress) -> Arrived:
        """Downloads an image into temporary files of `directory`. Nothing of them has been checked yet.

        Raises:
            Unavailable: the server fails, or the disk is full.
        """
        path = self._path(f"/1.0/images/{image['fingerprint']}/export", {"secret": secret})
        total = image["size"]
        os.makedirs(directory, mode=0o700, exist_ok=True)
        free = shutil.disk_usage(directory).free
        if total > free:
            raise Unavailable(
                f"The image takes {human_bytes(total)}, and {directory} has {human_bytes(free)} free: "
                "make room and try again"
            )

        @asynccontextmanager
        async def ask(headers: dict[str, str]) -> "AsyncIterator[aiohttp.ClientResponse]":
            async with self._http.open("GET", self._server + path, headers, self._certificate) as response:
                if response.status >= 400 and response.status != 416:
                    raise await self._refusal(response)
                yield response

        try:
            return await transfer.fetch(ask, directory, total, progress, self._http.backoff)
        except Unavailable as error:
            raise Unavailable(f"Fetching the image from {self._server} failed: {error}") from None

    async def push(
        self, image: ImageFiles, document: dict[str, Any], secret: str, profiles: list[str], progress: Progress
    ) -> None:
        """Uploads an image to a server that expects it and gave `secret` for it; returns when it has it.

        Raises:
            ApiError: what the server says.
        """
        body = framed(image)
        headers = {
            "Content-Type": body.content_type, "Content-Length": str(body.length),
            "X-LXD-fingerprint": image.fingerprint, "X-LXD-secret": secret,
            "X-LXD-filename": str(document.get("filename") or image.fingerprint),
            "X-LXD-properties": urlencode(document["properties"]),
        }  # fmt: skip
        if profiles:
            headers["X-LXD-profiles"] = urlencode([("profile", name) for name in profiles])

        async def blocks() -> Any:
            sent, count = transfer.Sending(body.length, progress), 0
            async for block in body.blocks():
                yield block
                count += len(block)
                sent.report(count)

        operation = await self._ask("POST", "/1.0/images", headers=headers, data=blocks())
        given = str((operation.get("metadata") or {}).get("secret") or "")
        ended = await self._ask("GET", f"/1.0/operations/{operation['id']}/wait", {"timeout": "-1", "secret": given})
        if ended.get("status_code") != 200:
            raise ApiError(f"{self._server}: {ended.get('err') or ended.get('status') or 'the upload failed'}")

    # -- requests ------------------------------------------------------------------------------------------------------

    def _path(self, path: str, query: dict[str, str] | None = None) -> str:
        asked = {key: value for key, value in {"project": self._project, **(query or {})}.items() if value}
        return path + ("?" + urlencode(asked) if asked else "")

    async def _get(self, path: str, secret: str = "") -> dict[str, Any]:
        try:
            return await self._ask("GET", path, {"secret": secret})
        except Unavailable as error:
            raise Unavailable(f"Image server {self._server} cannot be reached: {error}") from None

    async def _ask(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> dict[str, Any]:
        """The metadata of an answer; the server's error otherwise."""
        url = self._server + self._path(path, query)
        async with self._http.open(method, url, headers, self._certificate, data) as response:
            if response.status >= 400:
                raise await self._refusal(response)
            body = await _json(response)
        metadata = body.get("metadata")
        if not isinstance(metadata, dict):
            raise Unavailable(f"{self._server} does not answer as LXD, Incus or lxpy do")
        return metadata

    async def _refusal(self, response: "aiohttp.ClientResponse") -> ApiError:
        reason = (await _json(response)).get("error") or f"HTTP {response.status} {response.reason or ''}".rstrip()
        return from_status(response.status, f"{self._server}: {reason}")


def _sensible(image: dict[str, Any]) -> bool:
    """Whether what is used of an image object has the form it should; it comes from a stranger."""
    aliases, properties, size = image.get("aliases") or [], image.get("properties") or {}, image.get("size")
    return (
        re.fullmatch(r"[0-9a-f]{64}", str(image.get("fingerprint"))) is not None
        and isinstance(size, int)
        and size > 0
        and isinstance(properties, dict)
        and isinstance(aliases, list)
        and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in aliases)
    )


async def _json(response: "aiohttp.ClientResponse") -> dict[str, Any]:
    import json

    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > _ANSWER_LIMIT:
            break
    try:
        found = json.loads(body)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}

"""HTTP for images: one session with the host's proxies and certificates, documents with a cache, files that resume."""

import asyncio
import errno
import hashlib
import json
import os
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lxpy.api.errors import ApiError, BadRequest, NotFound, Unavailable
from lxpy.api.layout import Layout
from lxpy.api.notices import IMAGE_SERVER, Notice, Over
from lxpy.images import files
from lxpy.images.streams import FileRef
from lxpy.images.work import Progress

if TYPE_CHECKING:
    import aiohttp

FRESH_SECONDS = 3600  # LXD's own age limit of a cached stream
_DOCUMENT_LIMIT = 64 << 20
_ATTEMPTS = 5  # in a row without a single byte of progress
_CHUNK = 1 << 18


class Http:
    """Everything images fetch goes through here.

    Args:
        config: the server's configuration as it is now; ``core.proxy_http``, ``core.proxy_https`` and
            ``core.proxy_ignore_hosts`` win over the environment.
        warn: told when an old copy has to do.
    """

    def __init__(self, layout: Layout, config: Callable[[], dict[str, str]], warn: Callable[[str], None]) -> None:
        self._layout, self._config, self._warn = layout, config, warn
        self._session: aiohttp.ClientSession | None = None
        self._failing: set[str] = set()
        self._context: tuple[tuple[int, int, int], ssl.SSLContext] | None = None
        self.backoff = 0.5  # seconds before the second attempt; doubles

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @asynccontextmanager
    async def get(
        self, url: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> "AsyncIterator[aiohttp.ClientResponse]":
        """A GET under way; its errors are `Unavailable` with one line, ``HTTP 404`` is `NotFound`."""
        async with self.open(method, url, headers) as response:
            if response.status in (404, 410):
                raise NotFound(f"{url} does not exist")
            if response.status >= 400 and response.status != 416:
                raise Unavailable(f"{url} answered HTTP {response.status} {response.reason or ''}".rstrip())
            yield response

    @asynccontextmanager
    async def open(
        self, method: str, url: str, headers: dict[str, str] | None = None, certificate: str = "", data: Any = None
    ) -> "AsyncIterator[aiohttp.ClientResponse]":
        """A request under way, whatever its status.

        Args:
            certificate: PEM; the server has to show this one, and need not have any other merit.
            data: the body: bytes, or an asynchronous iterator of them.

        Raises:
            Unavailable: the server is away, or shows a certificate that is not trusted.
            BadRequest: the address or `certificate` makes no sense.
        """
        import aiohttp

        if urlsplit(url).scheme not in ("http", "https"):
            raise BadRequest(f"{url} is no http or https address")
        trust = _pinned(certificate) if certificate else self._ssl()
        try:
            async with self._connected().request(
                method, url, headers=headers, proxy=self._proxy(url), data=data, ssl=trust
            ) as response:
                yield response
        except aiohttp.InvalidURL:
            raise BadRequest(f"{url} is no usable address") from None
        except aiohttp.ServerFingerprintMismatch:
            raise Unavailable("it shows another certificate than the one known") from None
        except (aiohttp.ClientError, TimeoutError, ssl.SSLError) as error:
            raise Unavailable(_reason(error)) from None

    def _connected(self) -> "aiohttp.ClientSession":
        import aiohttp

        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                connector=aiohttp.TCPConnector(limit_per_host=4),
                # No limit on the whole: a slow line may take hours; a dead one is noticed by its silence.
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=30),
                headers={"User-Agent": "lxpy"},
            )
        return self._session

    def _proxy(self, url: str) -> str | None:
        from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]

        config, parts, environment = self._config(), urlsplit(url), getproxies_environment()
        ignored = config.get("core.proxy_ignore_hosts") or environment.get("no", "")
        ignored = ",".join(name.strip().removeprefix("*.") for name in ignored.split(","))
        if proxy_bypass_environment(parts.netloc.rpartition("@")[2], {"no": ignored}):
            return None
        proxy = config.get(f"core.proxy_{parts.scheme}") or environment.get(parts.scheme)
        return f"http://{proxy}" if proxy and "://" not in proxy else proxy

    def _ssl(self) -> ssl.SSLContext:
        """OpenSSL's own rules (SSL_CERT_FILE and SSL_CERT_DIR, else the system's certificates), and ``ca.pem``.

        Made again when the administrator has changed that file: no restart is needed.
        """
        own = f"{self._layout.root}/ca.pem"
        try:
            status = os.stat(own)
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
        except FileNotFoundError:
            stamp = (0, 0, 0)
        if self._context is None or self._context[0] != stamp:
            context = ssl.create_default_context()
            if any(stamp):
                try:
                    context.load_verify_locations(own)
                except (OSError, ssl.SSLError) as error:
                    self._warn(f"The certificates in {own} cannot be used: {error.strerror or error}")
            self._context = (stamp, context)
        return self._context[1]

    # -- documents -------------------------------------------------------------------------------------------------

    def kept(self, base: str) -> str:
        """The directory in which the documents of a server are kept."""
        return f"{self._layout.cache}/streams/{hashlib.sha256(base.encode()).hexdigest()[:24]}"

    async def document(self, base: str, path: str) -> Any:
        """A JSON document of a server: from the cache while fresh; stale, with a warning, if the server is away.

        Raises:
            Unavailable: the server is away and nothing is cached.
            BadRequest: what it sends is no JSON.
        """
        directory = self.kept(base)
        name = f"{directory}/{hashlib.sha256(path.encode()).hexdigest()[:24]}"
        kept = await asyncio.to_thread(_read_kept, name)
        if kept is not None and 0 <= time.time() - kept["checked"] < FRESH_SECONDS:
            return kept["data"]
        headers = {"Accept-Encoding": "gzip"}
        if kept is not None and kept.get("etag"):
            headers["If-None-Match"] = kept["etag"]
        if kept is not None and kept.get("modified"):
            headers["If-Modified-Since"] = kept["modified"]
        try:
            fresh = await self._fetch_document(f"{base}/{path}", headers, kept)
        except (Unavailable, NotFound) as error:
            if kept is None:
                raise
            age = (time.time() - kept["checked"]) / 3600
            self._failing.add(base)
            self._warn(
                Notice(f"Image server {base}: using its list of {age:.0f} hours ago, as {error}", IMAGE_SERVER, base)
            )
            return kept["data"]
        if base in self._failing:
            self._failing.discard(base)
            self._warn(Over(IMAGE_SERVER, base))
        os.makedirs(directory, mode=0o700, exist_ok=True)
        try:
            await asyncio.to_thread(files.write_atomically, name, json.dumps(fresh).encode())
        except OSError as error:
            self._warn(
                Notice(
                    f"The list of image server {base} cannot be kept in {directory}: {error.strerror}",
                    IMAGE_SERVER,
                    base,
                )
            )
        return fresh["data"]

    async def fresh(self, url: str) -> Any:
        """A JSON document as it is now. Raises `Unavailable`, `NotFound` and `BadRequest` as `document` does."""
        async with self.get(url) as response:
            body = bytearray()
            async for chunk in response.content.iter_chunked(_CHUNK):
                body += chunk
                if len(body) > _DOCUMENT_LIMIT:
                    raise BadRequest(f"{url} is longer than {_DOCUMENT_LIMIT >> 20} MiB")
        return await asyncio.to_thread(_parse, url, bytes(body), False)

    async def _fetch_document(self, url: str, headers: dict[str, str], kept: dict[str, Any] | None) -> dict[str, Any]:
        for attempt in (1, 2):
            try:
                async with self.get(url, headers) as response:
                    if response.status == 304 and kept is not None:
                        return kept | {"checked": time.time()}
                    body = bytearray()
                    async for chunk in response.content.iter_chunked(_CHUNK):
                        body += chunk
                        if len(body) > _DOCUMENT_LIMIT:
                            raise BadRequest(f"{url} is longer than {_DOCUMENT_LIMIT >> 20} MiB")
                    packed = response.headers.get("Content-Encoding", "") == "gzip"
                    data = await asyncio.to_thread(_parse, url, bytes(body), packed)
                    return {
                        "url": url, "checked": time.time(), "etag": response.headers.get("ETag", ""),
                        "modified": response.headers.get("Last-Modified", ""), "data": data,
                    }  # fmt: skip
            except Unavailable:
                if attempt == 2:
                    raise
                await asyncio.sleep(self.backoff)
        raise AssertionError("unreachable")

    # -- files -----------------------------------------------------------------------------------------------------

    async def download(self, base: str, ref: FileRef, path: str, label: str, progress: Progress) -> None:
        """Fetches a file to `path`, going on where an earlier attempt stopped; its hash is checked before this returns.

        Args:
            path: grows while the transfer runs and stays, for the next attempt, when the server fails. It is removed
                when the disk is full or what came is not what was promised.
            label: ``metadata`` or ``rootfs``, for the progress text.

        Raises:
            Unavailable: the server is away or keeps failing, sends something else, or the disk is full.
        """
        url = f"{base}/{ref.path}"
        transfer = _Transfer(path, ref, label, progress)
        failures, pause = 0, self.backoff
        fresh_start = False
        while True:
            before = await asyncio.to_thread(transfer.prepare)
            try:
                if before < ref.size:
                    headers = {"Range": f"bytes={before}-"} if before else {}
                    headers["Accept-Encoding"] = "identity"
                    async with self.get(url, headers) as response:
                        await transfer.receive(response)
            except NotFound:
                files.unlink(path)
                raise NotFound(f"{url} does not exist: the server's list is newer or older than its files") from None
            except Unavailable as error:
                reason: ApiError = error
            except OSError as error:
                files.unlink(path)
                full = files.disk_full(error, f"Downloading {url}", os.path.dirname(path))
                if full is None:
                    raise
                raise full from None
            else:
                reason = Unavailable("the connection ended early")
            if transfer.done == ref.size:
                found = transfer.hexdigest()
                if found == ref.sha256:
                    transfer.report(force=True)
                    return
                files.unlink(path)
                # A part of an earlier attempt may be the rotten one: once more from the start.
                if before and not fresh_start:
                    fresh_start = True
                    continue
                raise Unavailable(f"{url} is damaged: its sha256 is {found[:12]}…, promised was {ref.sha256[:12]}…")
            if transfer.done > before:
                failures, pause = 0, self.backoff
            failures += 1
            if failures >= _ATTEMPTS:
                raise Unavailable(f"Downloading {url} failed {failures} times: {reason}")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)


class _Transfer:
    """One file on its way to the disk: its running hash, place and speed."""

    def __init__(self, path: str, ref: FileRef, label: str, progress: Progress) -> None:
        self.path, self.ref, self.label, self.progress = path, ref, label, progress
        self.done = 0
        self._hash = hashlib.sha256()
        self._started, self._from, self._told = time.monotonic(), -1, 0.0

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def prepare(self) -> int:
        """Hashes what is there already and returns its length; blocking."""
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        try:
            size = os.stat(self.path).st_size
        except FileNotFoundError:
            size = 0
        if size > self.ref.size:
            files.unlink(self.path)
            size = 0
        if size != self.done or not size:
            self._hash, self.done = hashlib.sha256(), 0
            if size:
                with open(self.path, "rb", buffering=0) as file:
                    while chunk := file.read(1 << 20):
                        self._hash.update(chunk)
                        self.done += len(chunk)
        if self._from < 0:
            self._from = self.done
        return self.done

    async def receive(self, response: "aiohttp.ClientResponse") -> None:
        """Appends the body; starts over when the server does not do ranges."""
        if response.status == 416:
            raise Unavailable("the server refuses to go on in the middle")
        if response.status == 206:
            sent = response.headers.get("Content-Range", "")
            if not sent.startswith(f"bytes {self.done}-"):
                raise Unavailable(f"the server sent another part than asked for ({sent or 'it does not say which'})")
        elif self.done:
            self._hash, self.done, self._from = hashlib.sha256(), 0, 0
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if self.done else os.O_TRUNC)
        fd = os.open(self.path, flags, 0o600)
        try:
            os.lseek(fd, self.done, os.SEEK_SET)
            async for chunk in response.content.iter_chunked(_CHUNK):
                if self.done + len(chunk) > self.ref.size:
                    raise Unavailable("the server sends more than it promised")
                view = memoryview(chunk)
                while view:
                    view = view[os.write(fd, view) :]
                self._hash.update(chunk)
                self.done += len(chunk)
                self.report()
        finally:
            os.close(fd)

    def report(self, force: bool = False) -> None:
        """LXD's text: ``rootfs: 45% (12.30MB/s)``; at most five times a second."""
        now = time.monotonic()
        if not force and now - self._told < 0.2:
            return
        self._told = now
        rate = (self.done - max(self._from, 0)) / max(now - self._started, 1e-3)
        percent = self.done * 100 // self.ref.size
        self.progress("download_progress", f"{self.label}: {percent}% ({speed(rate)}/s)")


def speed(count: float) -> str:
    """Bytes per second as LXD prints them, without the ``/s``."""
    # LXD prints decimal units here.
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.2f}{unit}"


def _pinned(certificate: str) -> "aiohttp.Fingerprint":
    import aiohttp

    try:
        return aiohttp.Fingerprint(hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.strip())).digest())
    except ValueError:
        raise BadRequest("The server's certificate is not PEM") from None


def _read_kept(name: str) -> dict[str, Any] | None:
    try:
        with open(name, "rb") as file:
            kept = json.load(file)
        return kept if isinstance(kept, dict) and isinstance(kept["checked"], float) and "data" in kept else None
    except (OSError, ValueError, KeyError):
        return None


def _parse(url: str, body: bytes, packed: bool) -> Any:
    try:
        if packed:
            import zlib

            unpacker = zlib.decompressobj(31)
            body = unpacker.decompress(body, _DOCUMENT_LIMIT)
            if unpacker.unconsumed_tail:
                raise BadRequest(f"{url} is longer than {_DOCUMENT_LIMIT >> 20} MiB")
        return json.loads(body)
    except BadRequest:
        raise
    except Exception:
        raise BadRequest(f"{url} is no JSON document: is this the address of an image server?") from None


def _reason(error: BaseException) -> str:
    cause = getattr(error, "os_error", None) or error
    if isinstance(error, TimeoutError):
        return "it does not answer"
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number in errno.errorcode and not isinstance(cause, ssl.SSLError):
        return os.strerror(number)  # asyncio's own text shows the address as Python has it
    text = getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    return str(text).splitlines()[0]

"""A simplestreams server for tests: a generated tree, and faults on demand. Real HTTP on the loopback."""

import asyncio
import contextlib
import hashlib
import json
import pathlib
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Faults:
    """What goes wrong: each counts down."""

    cut: int = 0  # connections to larger files that are cut in the middle
    wrong: int = 0  # files sent with a byte changed
    missing: bool = False  # files answer 404
    error: int = 0  # documents answer 500
    no_ranges: bool = False
    slow: float = 0.0  # seconds before each 64 KiB of a file
    longer: bool = False  # a file has more bytes than listed


@dataclass
class StreamServer:
    """Serves `products`; `add` fills it."""

    files: dict[str, bytes] = field(default_factory=dict)
    products: dict[str, Any] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    headers: dict[str, dict[str, str]] = field(default_factory=dict)  # path -> more headers of the answer
    requests: list[tuple[str, str]] = field(default_factory=list)  # (path, Range)
    url: str = ""
    _runner: web.AppRunner | None = None

    def add(
        self,
        os: str,
        release: str,
        metadata: bytes,
        rootfs: bytes | None,
        *,
        serial: str = "20260102_03:04",
        arch: str = "amd64",
        variant: str = "default",
        aliases: str | None = None,
        prefix: str = "lxd",
        ftype: str = "squashfs",
        **fields: Any,
    ) -> str:
        """Adds one version of a product; returns its fingerprint."""
        key = f"{os.lower()}:{release}:{arch}:{variant}"
        if aliases is None:
            aliases = f"{os.lower()}/{release}/{variant}" + (f",{os.lower()}/{release}" if variant == "default" else "")
        product = self.products.setdefault(
            key, {"aliases": aliases, "arch": arch, "os": os, "release": release, "variant": variant, "versions": {}}
        )
        product.update(fields)
        base = f"images/{key.replace(':', '/')}/{serial.replace(':', '')}"
        fingerprint = hashlib.sha256(metadata + (rootfs or b"")).hexdigest()

        def item(name: str, data: bytes, kind: str) -> dict[str, Any]:
            self.files[f"/{base}/{name}"] = data
            sha256 = hashlib.sha256(data).hexdigest()
            return {"ftype": kind, "path": f"{base}/{name}", "size": len(data), "sha256": sha256}

        items: dict[str, Any]
        if rootfs is None:
            items = {"c": item("combined.tar.gz", metadata, f"{prefix}_combined.tar.gz")}
        else:
            combined = "combined_squashfs_sha256" if ftype == "squashfs" else "combined_rootxz_sha256"
            meta = item(f"{prefix}.tar.xz", metadata, f"{prefix}.tar.xz") | {combined: fingerprint}
            items = {"m": meta, "r": item(f"rootfs.{ftype}", rootfs, ftype)}
        product["versions"].setdefault(serial, {"items": {}})["items"].update(items)
        return fingerprint

    async def start(self, tls: ssl.SSLContext | None = None) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, keepalive_timeout=0.0 if tls else 75.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=tls)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"{'https' if tls else 'http'}://{host}:{port}"

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        self.requests.append((path, request.headers.get("Range", "")))
        if path.startswith("/streams/"):
            return self._document(request, path)
        if request.method == "HEAD" and path in self.headers:
            return web.Response(headers=self.headers[path])
        data = self.files.get(path)
        if data is None or self.faults.missing:
            raise web.HTTPNotFound
        if self.faults.longer:
            data += b"more"
        if self.faults.wrong:
            self.faults.wrong -= 1
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = 0
        if request.headers.get("Range") and not self.faults.no_ranges:
            start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
        response = web.StreamResponse(status=206 if start else 200)
        response.content_length = len(data) - start
        if start:
            response.headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        await response.prepare(request)
        end = len(data)
        cut = self.faults.cut > 0 and len(data) > 1 << 16
        if cut:
            self.faults.cut -= 1
            end = start + (len(data) - start) // 2
        for at in range(start, end, 1 << 16):
            if self.faults.slow:
                await asyncio.sleep(self.faults.slow)
            await response.write(data[at : min(at + (1 << 16), end)])
        if cut:
            assert request.transport is not None
            await asyncio.sleep(0.05)
            request.transport.abort()
        return response

    def _document(self, request: web.Request, path: str) -> web.StreamResponse:
        if self.faults.error:
            self.faults.error -= 1
            raise web.HTTPInternalServerError
        if path.endswith("index.json"):
            entry = {"datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0"}
            data: Any = {"format": "index:1.0", "index": {"images": entry | {"products": list(self.products)}}}
        elif path.endswith("images.json"):
            data = {"datatype": "image-downloads", "format": "products:1.0", "products": self.products}
        else:
            raise web.HTTPNotFound
        body = json.dumps(data).encode()
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.Response(body=body, content_type="application/json", headers={"ETag": etag})


def age_documents(cache: pathlib.Path, seconds: float) -> None:
    """Makes what the client keeps of a server's lists older."""
    for path in (cache / "streams").glob("*/[!l]*"):  # hashes, and not the list made of them
        kept = json.loads(path.read_text())
        kept["checked"] -= seconds
        path.write_text(json.dumps(kept))


@contextlib.contextmanager
def serving(server: StreamServer, tls: ssl.SSLContext | None = None) -> Iterator[StreamServer]:
    """`server` answering from a thread of its own, for tests that run commands."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(server.start(tls), loop).result(10)
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result(10)  # TLS says goodbye
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

"""Publishing the local images as a simplestreams server, over HTTP or HTTPS: other machines' remotes, air-gapped sites.

The tree exists only as answers: ``/streams/v1/index.json`` and ``images.json`` are made from the records, files come
straight from the store (sendfile, ranges, ETags by aiohttp).
"""

import asyncio
import hashlib
import json
import os
import shutil
import ssl
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest, InternalError, NotFound, Unavailable
from lxpy.api.objects import Image
from lxpy.images import files
from lxpy.images.architectures import debian_name

if TYPE_CHECKING:
    from aiohttp import web

    from lxpy.images.manager import ImageManager

_SUFFIX = {"gz": "tar.gz", "xz": "tar.xz", "zst": "tar.zst", "bz2": "tar.bz2", "lzma": "tar.lzma", "tar": "tar"}


class ImageServer:
    """Serves the images of one project until stopped.

    Args:
        manager: whose images.
        directory: where a certificate made here is kept (``LXPY_DIR``).
        public_only: leave out images that are not marked public.
    """

    def __init__(
        self, manager: "ImageManager", directory: str, project: str = "default", public_only: bool = False
    ) -> None:
        self._manager, self._directory, self._project, self._public = manager, directory, project, public_only
        self._runner: web.AppRunner | None = None
        self._kinds: dict[str, str] = {}
        self.url = ""

    async def start(self, address: str, port: int, tls: bool = True, certificate: str = "", key: str = "") -> str:
        """Listens; returns the URL to add as a remote.

        Args:
            port: 0 takes a free one.
            tls: without `certificate` and `key` (PEM files), by a self-signed certificate made once.

        Raises:
            BadRequest: a certificate that cannot be read. Unavailable: the address is taken or not ours.
        """
        from aiohttp import web

        context = await self._context(address, certificate, key) if tls else None
        app = web.Application()
        app.router.add_get("/streams/v1/index.json", self._index)
        app.router.add_get("/streams/v1/images.json", self._images)
        app.router.add_get("/images/{fingerprint:[0-9a-f]{64}}/{name}", self._file)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address, port, ssl_context=context)
            await site.start()
        except OSError as error:
            await runner.cleanup()
            raise Unavailable(f"Images cannot be served on {address}:{port}: {error.strerror or error}") from None
        self._runner = runner
        host, bound = runner.addresses[0][:2]
        self.url = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{bound}"
        return self.url

    async def stop(self) -> None:
        """Stops listening; transfers under way are cut."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def serve(self, address: str, port: int, tls: bool = True) -> None:
        """`start`, then on until cancelled, then `stop`: the body of an operation."""
        await self.start(address, port, tls)
        try:
            await asyncio.Event().wait()
        finally:
            await self.stop()

    # -- the tree ------------------------------------------------------------------------------------------------------

    def tree(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """``index.json`` and ``images.json``."""
        products: dict[str, Any] = {}
        for image in sorted(self._manager.list(self._project), key=lambda item: item["uploaded_at"]):
            if self._public and not image["public"]:
                continue
            items = self._items(image)
            if not items:
                continue
            properties = image["properties"]
            system = properties.get("os") or "Unknown"
            release, variant = properties.get("release") or "unknown", properties.get("variant") or "default"
            architecture = debian_name(image["architecture"])
            key = f"{system.lower()}:{release}:{architecture}:{variant}"
            product = products.setdefault(
                key,
                {
                    "aliases": "", "arch": architecture, "os": system, "release": release,
                    "release_title": properties.get("version") or release, "version": properties.get("version", ""),
                    "variant": variant, "lxd_requirements": {}, "requirements": {}, "versions": {},
                },
            )  # fmt: skip
            names = [name for name in product["aliases"].split(",") if name]
            names += [alias["name"] for alias in image["aliases"] if "," not in alias["name"]]
            product["aliases"] = ",".join(dict.fromkeys(names))
            # One product may well have two images of the same minute.
            serial = base = image["uploaded_at"][:16].replace("-", "").replace("T", "_")
            number = 1
            while serial in product["versions"]:
                number += 1
                serial = f"{base}.{number}"
            product["versions"][serial] = {"items": items}
        for key, product in products.items():
            if not product["aliases"]:
                product["aliases"] = "/".join(key.split(":")[:2])
        images = {"content_id": "images", "datatype": "image-downloads", "format": "products:1.0", "products": products}
        entry = {"datatype": "image-downloads", "path": "streams/v1/images.json", "format": "products:1.0",
                 "products": sorted(products)}  # fmt: skip
        return {"format": "index:1.0", "index": {"images": entry}}, images

    def _items(self, image: Image) -> dict[str, Any]:
        """The files of one image as stream items; empty when the protocol has no name for what it is.

        Clients tell compressions by the content, but ``lxd.tar.xz`` and ``root.tar.xz`` promise xz; that is kept.
        """
        fingerprint = image["fingerprint"]
        stored = self._manager.files(self._project, fingerprint)
        hashes = self._manager.hashes(self._project, fingerprint)
        size = os.stat(stored.metadata).st_size
        compression = self._kind(stored.metadata)
        base = f"images/{fingerprint}"
        if stored.kind == "unified":
            path = f"{base}/lxd_combined.{_SUFFIX.get(compression, 'tar')}"
            item = {"ftype": "lxd_combined.tar.gz", "path": path, "size": size, "sha256": fingerprint}
            return {"lxd_combined.tar.gz": item, "incus_combined.tar.gz": item | {"ftype": "incus_combined.tar.gz"}}
        if compression != "xz" or (stored.kind == "tar" and self._kind(stored.rootfs) != "xz"):
            return {}
        root = "squashfs" if stored.kind == "squashfs" else "root.tar.xz"
        combined = "combined_squashfs_sha256" if root == "squashfs" else "combined_rootxz_sha256"
        meta = {"path": f"{base}/lxd.tar.xz", "size": size, "sha256": hashes["metadata"],
                combined: fingerprint, "combined_sha256": fingerprint}  # fmt: skip
        name = "rootfs.squashfs" if root == "squashfs" else root
        rootfs = {"ftype": root, "path": f"{base}/{name}", "size": os.stat(stored.rootfs).st_size,
                  "sha256": hashes["rootfs"]}  # fmt: skip
        return {f"{kind}.tar.xz": meta | {"ftype": f"{kind}.tar.xz"} for kind in ("lxd", "incus")} | {root: rootfs}

    def _kind(self, path: str) -> str:
        if path not in self._kinds:
            self._kinds[path] = files.sniff(path)
        return self._kinds[path]

    async def _index(self, request: "web.Request") -> "web.StreamResponse":
        return _json(request, self.tree()[0])

    async def _images(self, request: "web.Request") -> "web.StreamResponse":
        return _json(request, self.tree()[1])

    async def _file(self, request: "web.Request") -> "web.StreamResponse":
        from aiohttp import web

        fingerprint = request.match_info["fingerprint"]
        try:
            image = self._manager.get(self._project, fingerprint)
            stored = self._manager.files(self._project, fingerprint)
        except NotFound:
            raise web.HTTPNotFound from None
        wanted = f"images/{fingerprint}/{request.match_info['name']}"
        if (self._public and not image["public"]) or wanted not in [i["path"] for i in self._items(image).values()]:
            raise web.HTTPNotFound
        whole = stored.kind == "unified" or wanted.endswith("/lxd.tar.xz")
        return web.FileResponse(
            stored.metadata if whole else stored.rootfs,
            headers={"Content-Type": "application/octet-stream", "Cache-Control": "public, max-age=86400, immutable"},
        )

    async def _context(self, address: str, certificate: str, key: str) -> ssl.SSLContext:
        if not certificate:
            certificate, key = f"{self._directory}/image-server.crt", f"{self._directory}/image-server.key"
            if not (os.path.exists(certificate) and os.path.exists(key)):
                await _self_signed(address, certificate, key)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(certificate, key or None)
        except (OSError, ssl.SSLError) as error:
            raise BadRequest(f"The certificate {certificate} cannot be used: {error.strerror or error}") from None
        return context


def _json(request: "web.Request", data: Any) -> "web.Response":
    from aiohttp import web

    body = json.dumps(data, sort_keys=True).encode()
    etag = hashlib.sha256(body).hexdigest()[:32]
    if any(tag.value in (etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers={"ETag": f'"{etag}"'})
    response = web.Response(body=body, content_type="application/json", headers={"ETag": f'"{etag}"'})
    response.enable_compression()
    return response


async def _self_signed(address: str, certificate: str, key: str) -> None:
    """A certificate for this host's name and `address`, for ten years; its key is never readable by others."""
    import socket

    program = shutil.which("openssl")
    if program is None:
        raise Unavailable("Serving images over HTTPS needs openssl to make a certificate: install the package openssl")
    import ipaddress

    names = {f"DNS:{socket.gethostname()}", "DNS:localhost", "IP:127.0.0.1", "IP:::1"}
    try:
        names.add(f"IP:{ipaddress.ip_address(address)}")
    except ValueError:
        names.add(f"DNS:{address}")
    process = await asyncio.create_subprocess_exec(
        program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "3650",
        "-subj", "/O=lxpy/CN=image server", "-addext", f"subjectAltName={','.join(sorted(names))}",
        "-keyout", f"{key}.new", "-out", f"{certificate}.new",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        umask=0o077,
    )  # fmt: skip
    _, said = await process.communicate()
    if process.returncode:
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        raise InternalError(f"openssl could not make a certificate: {last[0] if last else 'it said nothing'}")
    os.chmod(f"{certificate}.new", 0o644)
    os.rename(f"{key}.new", key)
    os.rename(f"{certificate}.new", certificate)

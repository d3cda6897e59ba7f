"""``/1.0/images``, aliases, and the catalogues of image servers."""

import asyncio
import contextlib
import json
import os
import secrets
import tempfile
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, Forbidden, NotFound
from lxpy.daemon import delivery, envelope, filter
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import ALIAS, IMAGE, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.daemon.routes.common import listing, texts

if TYPE_CHECKING:
    from lxpy.api.objects import Image
    from lxpy.daemon.daemon import Daemon

_BLOCK = 1 << 20


def _home(call: Call) -> str:
    """The project whose images the request's project uses."""
    return call.daemon.projects.home(call.project, "images")


def _visible(call: Call, prefix: str) -> "Image":
    """The image asked for. Whoever is not trusted finds public ones, and the one whose secret he has."""
    image = call.daemon.images.get(_home(call), prefix)
    secret = call.request.query.get("secret", "")
    if not call.trusted and not image["public"]:
        from lxpy.daemon import imagetokens

        if not secret or imagetokens.find(secret, _home(call), image["fingerprint"]) is None:
            raise NotFound("Image not found")
    return image


async def list_images(call: Call) -> web.StreamResponse:
    found = [one for one in call.daemon.images.list(_home(call)) if call.trusted or one["public"]]
    return listing(call, "images", found, key="fingerprint", project=_home(call))


async def create(call: Call) -> web.StreamResponse:
    """A download, a build of a recipe, or an upload."""
    kind = call.request.content_type
    if kind in ("application/octet-stream", "multipart/form-data"):
        return await _upload(call, kind)
    if not call.trusted:
        raise Forbidden("not authorized: this client's certificate is not trusted by the server")
    daemon, project, body = call.daemon, _home(call), await call.body()
    source = body.get("source")
    if not isinstance(source, dict):
        raise BadRequest("No source of the image given")
    aliases = _aliases(body)
    type_ = source.get("type")
    if source.get("mode") == "push":
        return _expect(call, project, str(source.get("fingerprint") or ""), body)
    properties = texts("properties", body.get("properties") or {})
    _check_profiles(call, body)
    if type_ in ("instance", "container", "snapshot", "virtual-machine"):
        return await _publish(call, project, body, aliases)
    if type_ not in ("image", "recipe", "url"):
        raise BadRequest(f"Image source type {type_!r} is not supported: use image, url or recipe")

    async def work(op: Operation) -> None:
        if type_ == "recipe":
            names = [str(one["name"]) for one in aliases]
            fingerprint = await daemon.images.build(str(source.get("name") or ""), project, op.progress, names)
        elif type_ == "url":
            public, update = bool(body.get("public")), bool(body.get("auto_update"))
            address = str(source.get("url") or "")
            fingerprint = await daemon.images.import_address(address, project, op.progress, public, update, properties)
            _give(daemon, project, fingerprint, aliases)
        else:
            fingerprint = await daemon.images.ensure(
                source,
                project,
                op.progress,
                cached=False,
                auto_update=body.get("auto_update"),
                public=bool(body.get("public")),
            )
            kept = daemon.images.get(project, fingerprint)
            changes: dict[str, Any] = {"properties": {**kept["properties"], **properties}} if properties else {}
            if body.get("profiles"):
                changes["profiles"] = body["profiles"]
            if changes:
                daemon.images.update(project, fingerprint, **changes)
            copied = (
                await daemon.images.source_aliases(source, project)
                if source.get("copy_aliases") or body.get("copy_aliases")
                else []
            )
            _give(daemon, project, fingerprint, [*copied, *aliases])
        op.metadata.update(fingerprint=fingerprint, size=daemon.images.get(project, fingerprint)["size"])

    description = "Building image" if type_ == "recipe" else "Downloading image"
    return call.run(description, "images", [], work, may_cancel=True)


async def _publish(call: Call, home: str, body: dict[str, Any], aliases: list[Any]) -> web.StreamResponse:
    """An image of an instance or a snapshot. ``reuse`` is ours: without it an alias that is taken is refused."""
    daemon, project = call.daemon, call.project
    publishing = daemon.instances.publishing
    publishing.check(project, body)
    old = {}
    for alias in aliases:
        with contextlib.suppress(NotFound):
            old[alias["name"]] = daemon.images.get_alias(home, str(alias["name"]))["target"]
    if old and not body.get("reuse"):
        raise Conflict(f"Image alias {next(iter(old))!r} already exists: --reuse takes it from the image that has it")

    async def work(op: Operation) -> None:
        fingerprint = await publishing.publish(project, home, body, op.progress)
        _give(daemon, home, fingerprint, aliases)
        for target in set(old.values()):
            # LXD deletes the image whose alias is taken; ours stays while it has another.
            with contextlib.suppress(NotFound):
                if not daemon.images.get(home, target)["aliases"]:
                    await daemon.images.delete(home, target)
        op.metadata.update(fingerprint=fingerprint, size=daemon.images.get(home, fingerprint)["size"])

    return call.run("Publishing instance", "instances", [body["source"]["name"]], work, may_cancel=True)


def _check_profiles(call: Call, body: dict[str, Any]) -> None:
    """Raises `NotFound` for a profile that is to go with an image and is not there."""
    for name in body.get("profiles") or ():
        call.daemon.profiles.get(call.project, name)


def _aliases(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Those that an image is to have. Raises `BadRequest`, before there is an image, for what none can be called."""
    found = [one for one in body.get("aliases") or () if isinstance(one, dict) and one.get("name")]
    for one in found:
        values.image_alias(str(one["name"]))
    return found


def _give(daemon: "Daemon", project: str, fingerprint: str, aliases: list[Any]) -> None:
    """Lets `aliases` stand for an image, taking them from those that have them."""
    for alias in aliases:
        daemon.images.aliases.give(project, str(alias["name"]), fingerprint, str(alias.get("description") or ""))


def _expect(call: Call, project: str, fingerprint: str, body: dict[str, Any]) -> web.StreamResponse:
    """A secret with which another server may bring an image; what is to become of it is in `body`."""
    from lxpy.daemon import imagetokens

    if len(fingerprint) != 64:
        raise BadRequest("An image that is to be pushed here is named by its whole fingerprint")
    if fingerprint in {image["fingerprint"] for image in call.daemon.images.list(project)}:
        raise Conflict("Image with same fingerprint already exists")
    return envelope.accepted(imagetokens.issue(call, project, fingerprint, "Image upload token", body))


async def _upload(call: Call, kind: str) -> web.StreamResponse:
    """Stream the files to disk beside the store, then let the store take them over."""
    daemon, project = call.daemon, _home(call)
    headers = dict(call.request.headers)
    request: dict[str, Any] | None = None
    if call.header("secret") or not call.trusted:
        from lxpy.daemon import imagetokens

        token = imagetokens.find(call.header("secret"), project, call.header("fingerprint"), upload=True)
        if token is None or token.used.is_set():
            raise Forbidden("not authorized: this image is not expected, or its secret has been used")
        token.used.set()
        token.served.set()  # whatever becomes of this upload, there is no second one
        request = token.request or {}
    os.makedirs(daemon.layout.images, mode=0o700, exist_ok=True)
    given = [{"name": values.image_alias(name)} for _, name in parse_qsl(call.header("aliases"))]
    if request is not None:
        given = _aliases(request)
    paths: list[str] = []
    try:
        if kind == "application/octet-stream":
            paths.append(await _save(daemon.layout.images, call.request.content))
        else:
            async for part in await call.request.multipart():
                if getattr(part, "name", None) in ("metadata", "rootfs"):
                    paths.append(await _save(daemon.layout.images, part))
                elif getattr(part, "name", None) == "rootfs.img":
                    raise BadRequest("This is the image of a virtual machine: lxpy runs containers")
            if len(paths) != 2:
                raise BadRequest("A split image has the parts metadata and rootfs, in this order")
    except BaseException:
        for path in paths:
            os.unlink(path)
        raise
    metadata, rootfs = paths[0], paths[1] if len(paths) == 2 else None

    more = {} if request is None else {"public": bool(request.get("public"))}

    async def work(op: Operation) -> None:
        fingerprint = await daemon.images.import_upload(project, metadata, rootfs, headers, op.progress, more)
        _give(daemon, project, fingerprint, given)
        op.metadata.update(fingerprint=fingerprint, size=daemon.images.get(project, fingerprint)["size"])

    # Whoever brings an image without being trusted waits for its end by a secret of the operation's own.
    secret = {} if call.trusted else {"secret": secrets.token_hex(32)}
    return envelope.accepted(call.start("Importing image", "images", [], work, metadata=secret))


async def _save(directory: str, source: Any) -> str:
    """Write a request body or one of its parts to a temporary file; its path."""
    fd, path = tempfile.mkstemp(prefix=".upload-", dir=directory)
    read = source.read_chunk if hasattr(source, "read_chunk") else source.read
    try:
        with open(fd, "wb", buffering=0) as file:
            # Small reads are gathered: writing is done in a thread, and a switch costs more than a read.
            buffer = bytearray()
            while chunk := await read(_BLOCK):
                buffer += chunk
                if len(buffer) >= _BLOCK:
                    await asyncio.to_thread(file.write, bytes(buffer))
                    buffer.clear()
            if buffer:
                await asyncio.to_thread(file.write, bytes(buffer))
    except BaseException:
        os.unlink(path)
        raise
    return path


async def get(call: Call) -> web.StreamResponse:
    image = _visible(call, call.part("fingerprint"))
    return envelope.sync(image, etag=etag(image, IMAGE))


async def put(call: Call) -> web.StreamResponse:
    project, images = _home(call), call.daemon.images
    image = images.get(project, call.part("fingerprint"))
    check(call.if_match, image, IMAGE)
    body = await call.body()
    properties = body.get("properties")
    if properties is not None and call.request.method == "PATCH":
        properties = {**image["properties"], **properties}
    if properties is not None:
        properties = {key: value for key, value in texts("properties", properties).items() if value}
    _check_profiles(call, body)
    images.update(
        project,
        image["fingerprint"],
        public=body.get("public"),
        auto_update=body.get("auto_update"),
        properties=properties,
        expires_at=body.get("expires_at"),
        profiles=body.get("profiles"),
    )
    return envelope.sync({})


async def delete(call: Call) -> web.StreamResponse:
    daemon, project = call.daemon, _home(call)
    fingerprint = daemon.images.get(project, call.part("fingerprint"))["fingerprint"]

    async def work(op: Operation) -> None:
        await daemon.images.delete(project, fingerprint)

    return call.run("Deleting image", "images", [fingerprint], work)


async def export(call: Call) -> web.StreamResponse:
    """Unified: the file. Split: multipart with metadata and rootfs. Both by sendfile's cousin, in big pieces."""
    project = _home(call)
    image = _visible(call, call.part("fingerprint"))
    token = None
    if secret := call.request.query.get("secret", ""):
        from lxpy.daemon import imagetokens

        token = imagetokens.find(secret, project, image["fingerprint"])
    with token.serving() if token else contextlib.nullcontext():
        response = await delivery.deliver(call.daemon, project, image, call.request, whole=token is not None)
    if token is not None:
        token.served.set()
    return response


async def refresh(call: Call) -> web.StreamResponse:
    daemon, project = call.daemon, _home(call)
    fingerprint = daemon.images.get(project, call.part("fingerprint"))["fingerprint"]

    async def work(op: Operation) -> None:
        new = await daemon.images.refresh(project, fingerprint, op.progress)
        op.metadata.update(refreshed=new != fingerprint, fingerprint=new)

    return call.run("Refreshing image", "images", [fingerprint], work, may_cancel=True)


async def secret(call: Call) -> web.StreamResponse:
    """A secret with which another server may fetch a private image, once."""
    from lxpy.daemon import imagetokens

    fingerprint = call.daemon.images.get(_home(call), call.part("fingerprint"))["fingerprint"]
    return envelope.accepted(imagetokens.issue(call, _home(call), fingerprint, "Image download token"))


async def push(call: Call) -> web.StreamResponse:
    """Upload an image to another server that gave a secret for it. Body: see `ImageManager.push`."""
    daemon, project, body = call.daemon, _home(call), await call.body()
    fingerprint = daemon.images.get(project, call.part("fingerprint"))["fingerprint"]

    async def work(op: Operation) -> None:
        await daemon.images.push(project, fingerprint, body, op.progress)

    return call.run("Pushing image", "images", [fingerprint], work, may_cancel=True)


def _known_aliases(call: Call) -> list[Any]:
    project, images = _home(call), call.daemon.images
    found = images.list_aliases(project)
    if call.trusted:
        return list(found)
    public = {image["fingerprint"] for image in images.list(project) if image["public"]}
    return [one for one in found if one["target"] in public]


async def list_aliases(call: Call) -> web.StreamResponse:
    found = _known_aliases(call)
    if call.recursion:
        return listing(call, "images/aliases", found)
    holds = filter.parse(call.request.query.get("filter", ""))
    names = [one["name"] for one in found if holds is None or holds(one)]
    return envelope.sync([f"/1.0/images/aliases/{name}" for name in names])


async def create_alias(call: Call) -> web.StreamResponse:
    body = await call.body()
    name, target = str(body.get("name") or ""), str(body.get("target") or "")
    if not target:
        raise BadRequest("No target given: an alias needs the fingerprint of an image")
    call.daemon.images.create_alias(_home(call), name, target, str(body.get("description") or ""))
    return envelope.sync({}, location=url("images/aliases", name))


async def get_alias(call: Call) -> web.StreamResponse:
    alias = call.daemon.images.get_alias(_home(call), call.part("name"))
    if not call.trusted and not call.daemon.images.get(_home(call), alias["target"])["public"]:
        raise NotFound("Image alias not found")
    return envelope.sync(alias, etag=etag(alias, ALIAS))


async def put_alias(call: Call) -> web.StreamResponse:
    project, name = _home(call), call.part("name")
    check(call.if_match, call.daemon.images.get_alias(project, name), ALIAS)
    body = await call.body()
    patch = call.request.method == "PATCH"
    if not patch and not body.get("target"):
        raise BadRequest("No target given: an alias needs the fingerprint of an image")
    description = body.get("description", None if patch else "")
    call.daemon.images.update_alias(project, name, target=body.get("target"), description=description)
    return envelope.sync({})


async def rename_alias(call: Call) -> web.StreamResponse:
    new = str((await call.body()).get("name") or "")
    call.daemon.images.rename_alias(_home(call), call.part("name"), new)
    return envelope.sync({}, location=url("images/aliases", new))


async def delete_alias(call: Call) -> web.StreamResponse:
    call.daemon.images.delete_alias(_home(call), call.part("name"))
    return envelope.sync({})


async def catalogue(call: Call) -> web.StreamResponse:
    """Ours: what an image server or the built-in recipes offer, as image objects."""
    query = call.request.query
    protocol = query.get("protocol", "simplestreams")
    found = await call.daemon.images.catalogue_json(query.get("server", ""), protocol, _home(call))
    holds = filter.parse(query.get("filter", ""))
    if holds is None:
        return envelope.ready(found)
    return envelope.sync([one for one in json.loads(found) if holds(one)])


async def probe(call: Call) -> web.StreamResponse:
    """Ours: whether an image server answers this one, and after how many milliseconds. Nothing kept is used."""
    found = await call.daemon.images.probe(call.request.query.get("server", ""))
    return envelope.sync({"milliseconds": found.milliseconds, "products": found.products})


async def serve(call: Call) -> web.StreamResponse:
    """Ours: publish the project's images as a simplestreams server until the operation is cancelled.

    Body: ``address`` (default every one), ``port`` (default 8444; 0 takes a free one), ``tls`` (default true),
    ``public_only``. The operation's metadata has the ``url``.
    """
    from lxpy.images.serve import ImageServer

    daemon, project, body = call.daemon, _home(call), await call.body()
    port = body.get("port", 8444)
    if not isinstance(port, int) or not 0 <= port < 65536:
        raise BadRequest("port must be a number from 0 to 65535")
    server = ImageServer(daemon.images, daemon.layout.root, project, bool(body.get("public_only")))
    # Started before the answer: a taken port is this request's error.
    address = str(body.get("address") or "0.0.0.0")
    server_url = await server.start(address, port, bool(body.get("tls", True)))

    async def work(op: Operation) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()

    operation = call.start("Serving images", "images", [], work, may_cancel=True, metadata={"url": server_url})
    return envelope.accepted(operation)


_IMAGE, _ALIAS = "/1.0/images/{fingerprint}", "/1.0/images/aliases/{name:.+}"
ROUTES: list[Route] = [
    ("GET", "/1.0/images", list_images),
    ("POST", "/1.0/images", create),
    ("GET", "/1.0/images/aliases", list_aliases),
    ("POST", "/1.0/images/aliases", create_alias),
    ("GET", _ALIAS, get_alias),
    ("PUT", _ALIAS, put_alias),
    ("PATCH", _ALIAS, put_alias),
    ("POST", _ALIAS, rename_alias),
    ("DELETE", _ALIAS, delete_alias),
    ("GET", _IMAGE, get),
    ("PUT", _IMAGE, put),
    ("PATCH", _IMAGE, put),
    ("DELETE", _IMAGE, delete),
    ("GET", _IMAGE + "/export", export),
    ("POST", _IMAGE + "/export", push),
    ("POST", _IMAGE + "/refresh", refresh),
    ("POST", _IMAGE + "/secret", secret),
    ("GET", "/1.0/image-servers/catalogue", catalogue),
    ("GET", "/1.0/image-servers/probe", probe),
    ("POST", "/1.0/image-servers/serve", serve),
]

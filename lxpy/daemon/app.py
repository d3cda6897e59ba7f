"""The daemon's parts and how they are wired; the web application over them."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from lxpy.api import certificates as x509
from lxpy.api.errors import BadRequest, Conflict, Forbidden, NotFound
from lxpy.api.layout import Layout
from lxpy.api.notices import HTTPS, Notice
from lxpy.daemon import access, config, envelope, shapes
from lxpy.daemon.events import Events
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation, Operations, Work
from lxpy.daemon.tokens import Tokens
from lxpy.daemon.trust import TrustStore
from lxpy.daemon.warnings import Warnings, host_notices
from lxpy.profiles.manager import ProfileManager
from lxpy.projects.manager import ProjectManager
from lxpy.state.store import Store

if TYPE_CHECKING:
    from lxpy.daemon.guestapi import GuestServer
    from lxpy.daemon.setup import Setup
    from lxpy.images.manager import ImageManager
    from lxpy.instances.manager import InstanceManager
    from lxpy.networks.manager import NetworkManager
    from lxpy.runtime.spawner_client import Spawner
    from lxpy.storage.manager import StorageManager
    from lxpy.storage.snapshotclock import SnapshotClock
    from lxpy.storage.volumebackups import VolumeBackups
    from lxpy.storage.volumes import VolumeManager

_MAX_BODY = 16 << 20  # bytes of a JSON body; uploads are streamed and have no limit


class Daemon:
    """Everything the routes use. `start` builds it in the order of need, `close` takes it down."""

    store: Store
    warnings: Warnings
    setup: "Setup"
    trust: TrustStore
    tokens: Tokens
    profiles: ProfileManager
    projects: ProjectManager
    spawner: "Spawner"
    storage: "StorageManager"
    volumes: "VolumeManager"
    volume_backups: "VolumeBackups"
    images: "ImageManager"
    networks: "NetworkManager"
    instances: "InstanceManager"
    guests: "GuestServer | None" = None

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.events = Events()
        self.operations = Operations(self.events)
        self.runner = web.AppRunner(build(self), access_log=None, shutdown_timeout=0.5, keepalive_timeout=300)
        self.stopping = asyncio.Event()
        self.shutting_down = False
        self.clock: SnapshotClock | None = None
        self._https: web.TCPSite | None = None
        self._closers = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Open the store, start the managers, adopt what runs."""
        # Imported late: the sockets listen already, and a client that activated us waits.
        from lxpy.daemon.guestapi import GuestServer
        from lxpy.daemon.routes import storage_volumes
        from lxpy.daemon.setup import Setup
        from lxpy.images.manager import ImageManager
        from lxpy.instances.manager import InstanceManager
        from lxpy.networks.manager import NetworkManager
        from lxpy.runtime.spawner_client import Spawner
        from lxpy.storage.manager import StorageManager
        from lxpy.storage.snapshotclock import SnapshotClock
        from lxpy.storage.volumebackups import VolumeBackups
        from lxpy.storage.volumeclock import VolumeKeeper
        from lxpy.storage.volumes import VolumeManager

        emit = self.happened
        self.store = Store(self.layout.database)
        self._closers.callback(self.store.close)
        self.warnings = Warnings(self.store)
        self._closers.callback(self.warnings.close)
        warn = self.warnings.tell
        self.trust = TrustStore(self.store, f"{self.layout.root}/trust.json")
        self.setup = Setup(self)
        self.tokens = Tokens(self.operations, self.trust)
        self.profiles = ProfileManager(self.store, emit)
        self.projects = ProjectManager(self.store, emit)
        self.spawner = await Spawner.start()
        self._closers.push_async_callback(self.spawner.close)
        self.storage = StorageManager(self.store, self.layout, warn)
        self.images = ImageManager(
            self.store, self.layout, emit, warn, lambda project: self.projects.home(project, "images")
        )
        self.networks = NetworkManager(self.store, self.layout, emit, warn)
        self._closers.push_async_callback(_close, self.storage)
        self._closers.push_async_callback(_close, self.images)
        self._closers.push_async_callback(_close, self.networks)
        # They are strangers to each other: bridges come up while pools are mounted.
        await asyncio.gather(self.storage.start(), self.images.start(), self.networks.start())
        await self._drop_unknown_images()
        self.volumes = VolumeManager(self.store, self.storage, emit, warn)
        self._closers.push_async_callback(_close, self.volumes)
        await self.volumes.start()
        self.instances = InstanceManager(
            self.store, self.layout, self.spawner,
            self.images, self.networks, self.storage, self.volumes, self.profiles,
            emit, warn,
        )  # fmt: skip
        self.volumes.users = lambda row: storage_volumes.users(self, row)
        self.volumes.running = lambda row: [one.name for one in self.instances.using_volume(row, running=True)]
        self.profiles.validate = self.instances.validate_config
        self.profiles.allow = self.instances.rules.check_profile
        self.networks.allow = self.instances.rules.check_networks
        self.projects.validate = self.instances.rules.check_project
        self.volumes.allow = self.instances.rules.check_volume
        self.volume_backups = VolumeBackups(
            self.store, self.layout, self.storage, self.volumes, self.instances.rules.check_backup
        )
        self._closers.callback(self.volume_backups.close)
        self.volume_backups.start()
        self.profiles.checks.append(self.instances.check_profile)
        self.profiles.on_change.append(self.instances.profile_changed)
        self.profiles.on_back.append(self.instances.profile_restored)
        self.images.on_delete.append(self._drop_image)
        self._closers.push_async_callback(self.instances.close)
        self.guests = GuestServer(self)
        self._closers.push_async_callback(self.guests.close)
        await self.instances.start()
        self.clock = SnapshotClock([self.instances.keeper, VolumeKeeper(self.volumes, self.store)], warn)
        self._closers.callback(self.clock.close)
        self.volumes.changed = self.instances.snapshots.changed = self.clock.changed
        self.clock.changed()
        self.storage.on_return += [
            self._drop_unknown_images, self.volumes.settle, self.instances.backups.pool_returned,
            self.instances.waiting.pool_returned,
        ]  # fmt: skip
        self.storage.watch.start()
        await self.runner.setup()
        if address := self.store.config.all().get("core.https_address"):
            try:
                await self.listen_https(address)
            except Exception as error:  # the local socket must work whatever the address is
                warn(Notice(f"core.https_address {address} could not be opened: {error}", HTTPS, "/1.0"))
        for notice in host_notices():
            warn(notice)
        self.warnings.started()

    async def close(self) -> None:
        """Stop serving, let go of everything; instances run on."""
        self.events.close()
        for operation in self.operations.running():
            if operation.task is not None:
                operation.task.cancel()
        if tasks := [op.task for op in self.operations.running() if op.task is not None]:
            await asyncio.wait(tasks, timeout=2)
        await self.runner.cleanup()
        await self._closers.aclose()

    async def _drop_unknown_images(self, only: str | None = None) -> None:
        """A daemon that ended between deleting an image's record and telling the pools left it on them."""
        for name in self.storage.pools() if only is None else [only]:
            for fingerprint in self.storage.images(name):
                if not self.images.known(fingerprint):
                    await self.storage.pool(name).drop_image(fingerprint)

    async def _drop_image(self, fingerprint: str) -> None:
        for name in self.storage.pools():
            await self.storage.pool(name).drop_image(fingerprint)

    # -- HTTPS -------------------------------------------------------------------------------------------------

    async def listen_https(self, address: str) -> None:
        """Serve on `address` ("" stops); the old listener stays when the new one cannot be opened."""
        old, self._https = self._https, None
        if old is not None:
            await old.stop()
        if not address:
            return
        from lxpy.daemon.https import ensure_certificate, server_context

        crt, key = await asyncio.to_thread(ensure_certificate, self.layout.root)
        host, port = config.address("core.https_address", address)
        site = web.TCPSite(self.runner, host or None, port, ssl_context=server_context(crt, key), reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            if old is not None and (previous := self.store.config.all().get("core.https_address")):
                await self.listen_https(previous)
            raise BadRequest(f"Cannot listen on {address}: {error.strerror or error}") from None
        self._https = site

    def fingerprint(self) -> str:
        """Of the server's certificate; empty before it has one."""
        return x509.fingerprint(ssl.PEM_cert_to_DER_cert(pem)) if (pem := self.certificate()) else ""

    def certificate(self) -> str:
        """The server's certificate, PEM; empty before it has one."""
        try:
            with open(f"{self.layout.root}/server.crt", encoding="ascii") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    async def addresses(self) -> list[str]:
        """Where clients reach the HTTPS listener, ``host:port``; for a wildcard the host's global addresses."""
        if not (address := self.store.config.all().get("core.https_address")):
            return []
        from lxpy.daemon.https import reachable

        return await asyncio.to_thread(reachable, *config.address("core.https_address", address))

    # -- what happens ------------------------------------------------------------------------------------------

    def happened(self, action: str, source: str, project: str, context: dict[str, Any] | None = None) -> None:
        """A lifecycle event: listeners hear of it, and warnings that it ends are over. This is the managers' `Emit`."""
        self.events.lifecycle(action, source, project, context)
        self.warnings.happened(action, source, project)
        self.trust.happened(action, source, context)
        if action.startswith(("instance-", "profile-")) and self.clock is not None:
            self.clock.changed()
        if self.guests is not None:
            self.guests.happened(action, source, project)


async def _close(manager: object) -> None:
    """Managers that hold nothing have no `close`; some are coroutines, some are not."""
    close = getattr(manager, "close", None)
    if close is not None:
        result = close()
        if asyncio.iscoroutine(result):
            await result


class Call:
    """One request, as the routes see it."""

    def __init__(self, daemon: Daemon, request: web.Request, client: dict[str, Any] | None, der: bytes | None) -> None:
        self.daemon = daemon
        self.request = request
        self.der = der  # the client's certificate, over HTTPS
        self.client = client  # the record of that certificate, if it is trusted
        self.trusted = client is not None or not _is_https(request)
        self.allowed = access.projects_of(client)  # the projects of a restricted client; None: everything

    def may_see(self, project: str) -> bool:
        return self.allowed is None or project in self.allowed

    @property
    def query(self) -> "dict[str, str]":
        return self.request.query  # type: ignore[return-value]

    @property
    def project(self) -> str:
        """The project asked for. Raises `NotFound` when there is none of that name."""
        name = self.request.query.get("project") or "default"
        if name != "default" and not self.daemon.projects.exists(name):
            raise NotFound(f"Project {name!r} not found")
        return name

    @property
    def all_projects(self) -> bool:
        return self.request.query.get("all-projects", "").lower() in ("true", "1", "yes")

    @property
    def recursion(self) -> int:
        try:
            return int(self.request.query.get("recursion") or 0)
        except ValueError:
            raise BadRequest("recursion must be 0, 1 or 2") from None

    @property
    def if_match(self) -> str | None:
        return self.request.headers.get("If-Match")

    def part(self, name: str) -> str:
        """A variable part of the path."""
        return self.request.match_info[name]

    def header(self, name: str) -> str:
        """``X-LXD-{name}`` or ``X-Incus-{name}``."""
        headers = self.request.headers
        return headers.get(f"X-LXD-{name}") or headers.get(f"X-Incus-{name}") or ""

    async def body(self) -> dict[str, Any]:
        """The JSON object of the request; an empty body of a POST is an empty object.

        Raises:
            BadRequest: it is none, a field is of another kind than it always is (`shapes`), or a PUT or PATCH says
                nothing: that would empty the object, or do nothing and look as if it had.
        """
        data = await self.request.read()
        if not data.strip():
            if self.request.method in ("PUT", "PATCH"):
                raise BadRequest(f"The request has no body: {self.request.method} needs the object as JSON")
            return {}
        try:
            body = json.loads(data)
        except ValueError as error:
            raise BadRequest(f"The request's body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadRequest("The request's body must be a JSON object")
        shapes.check(body)
        access.check_body(self, body)
        return body

    def run(
        self, description: str, kind: str, names: list[str], work: Work, *, may_cancel: bool = False
    ) -> web.Response:
        """Start an operation on objects of a kind and answer 202."""
        return envelope.accepted(self.start(description, kind, names, work, may_cancel=may_cancel))

    def start(
        self, description: str, kind: str, names: list[str], work: Work, *, may_cancel: bool = False, **more: Any
    ) -> Operation:
        """Start an operation; `class_` and `metadata` may be among `more`."""
        suffix = "" if self.project == "default" else f"?project={self.project}"
        resources = {kind: [f"/1.0/{kind}/{name}{suffix}" for name in names]} if names else {}
        if kind == "instances":  # older clients look for these
            resources["containers"] = [url.replace("/instances/", "/containers/") for url in resources["instances"]]
        class_ = more.pop("class_", "task")
        return self.daemon.operations.run(
            class_, description, resources, work, self.project, may_cancel=may_cancel, **more
        )


Route = tuple[str, str, Callable[[Call], Awaitable[web.StreamResponse]]]
# Without a trusted certificate. The handlers of images then show public ones only, or want a secret.
_PUBLIC = {
    ("GET", "/"), ("GET", "/1.0"), ("POST", "/1.0/certificates"), ("GET", "/1.0/operations/{id}/wait"),
    ("GET", "/1.0/images"), ("POST", "/1.0/images"), ("GET", "/1.0/images/{fingerprint}"),
    ("GET", "/1.0/images/{fingerprint}/export"), ("GET", "/1.0/images/aliases"),
    ("GET", "/1.0/images/aliases/{name:.+}"),
}  # fmt: skip


def build(daemon: Daemon) -> web.Application:
    """The application: every route table, behind errors and authentication."""
    from lxpy.daemon.routes import (
        acls,
        backups,
        certificates,
        files,
        images,
        insight,
        instances,
        networks,
        operations,
        processes,
        profiles,
        rebuilds,
        recover,
        server,
        snapshots,
        storage,
        storage_volumes,
        volume_backups,
        warnings,
    )

    app = web.Application(middlewares=[envelope.errors], client_max_size=_MAX_BODY)
    modules = (
        server,
        instances,
        snapshots,
        backups,
        rebuilds,
        processes,
        files,
        insight,
        images,
        networks,
        acls,
        storage,
        storage_volumes,
        volume_backups,
        profiles,
        operations,
        certificates,
        warnings,
        recover,
    )
    for module in modules:
        for method, path, handler in module.ROUTES:
            public = (method, path) in _PUBLIC
            app.router.add_route(method, path, _bound(daemon, handler, public))
    return app


def _bound(
    daemon: Daemon, handler: Callable[[Call], Awaitable[web.StreamResponse]], public: bool
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        client, der = None, None
        if _is_https(request):
            assert request.transport is not None
            der = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            client = daemon.trust.client(der)
        call = Call(daemon, request, client, der)
        if not call.trusted and not public:
            raise Forbidden("not authorized: this client's certificate is not trusted by the server")
        if daemon.shutting_down and request.method in ("POST", "PUT"):
            raise Conflict("The server is shutting down")
        access.check(call)
        if request.method not in access.READS:
            await daemon.storage.watch.revive()
        return await handler(call)

    return serve


def _is_https(request: web.Request) -> bool:
    transport = request.transport
    return transport is not None and transport.get_extra_info("ssl_object") is not None

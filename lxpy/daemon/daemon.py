"""The daemon's parts and how they are wired."""

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lxpy.api import certificates as x509
from lxpy.api.errors import BadRequest
from lxpy.api.layout import Layout
from lxpy.api.notices import HTTPS, Notice
from lxpy.daemon import config, users
from lxpy.daemon.events import Events
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operations
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
    from lxpy.storage.volumerefresh import VolumeRefreshes
    from lxpy.storage.volumes import VolumeManager

_LARGEST_HEADER = 64 << 10  # bytes: what an import is to be other than its backup says comes in one


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
    volume_refreshes: "VolumeRefreshes"
    images: "ImageManager"
    networks: "NetworkManager"
    instances: "InstanceManager"
    guests: "GuestServer | None" = None

    def __init__(self, layout: Layout, application: "Callable[[Daemon], web.Application]") -> None:
        self.layout = layout
        self.events = Events()
        self.operations = Operations(self.events)
        self.runner = web.AppRunner(
            application(self), access_log=None, shutdown_timeout=0.5, keepalive_timeout=300,
            max_field_size=_LARGEST_HEADER,
        )  # fmt: skip
        self.stopping = asyncio.Event()
        self.shutting_down = False
        self.clock: SnapshotClock | None = None
        self._https: web.TCPSite | None = None
        self._closers = contextlib.AsyncExitStack()

    async def start(self) -> None:
        """Open the store, start the managers, adopt what runs."""
        # Imported late: the sockets listen already, and a client that activated us waits.
        from lxpy.daemon.guestapi import GuestServer
        from lxpy.daemon.setup import Setup
        from lxpy.images.manager import ImageManager
        from lxpy.instances.manager import InstanceManager
        from lxpy.networks.manager import NetworkManager
        from lxpy.runtime.spawner_client import Spawner
        from lxpy.storage.manager import StorageManager
        from lxpy.storage.snapshotclock import SnapshotClock
        from lxpy.storage.volumebackups import VolumeBackups
        from lxpy.storage.volumeclock import VolumeKeeper
        from lxpy.storage.volumerefresh import StillVolumes, VolumeRefreshes
        from lxpy.storage.volumes import VolumeManager
        from lxpy.storage.volumesettle import VolumeSettler

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
        settler = VolumeSettler(self.store, self.storage, self.volumes, warn)
        await settler.settle(None)
        self.instances = InstanceManager(
            self.store, self.layout, self.spawner,
            self.images, self.networks, self.storage, self.volumes, self.profiles,
            emit, warn,
        )  # fmt: skip
        self.volumes.users = lambda row: users.of_volume(self, row)
        self.volumes.running = lambda row: [one.name for one in self.instances.using_volume(row, running=True)]
        self.profiles.validate = self.instances.validate_config
        self.profiles.allow = self.instances.rules.check_profile
        self.networks.allow = self.instances.rules.check_networks
        self.projects.validate = self.instances.rules.check_project
        self.volumes.allow = self.instances.rules.check_volume
        still = StillVolumes(self.store, self.storage, self.volumes)
        self.volume_refreshes = VolumeRefreshes(self.store, self.storage, self.volumes, still)
        self.volume_backups = VolumeBackups(
            self.store, self.layout, self.storage, self.volumes, still, self.instances.rules.check_backup
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
            self._drop_unknown_images, settler.settle, self.instances.backups.pool_returned,
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

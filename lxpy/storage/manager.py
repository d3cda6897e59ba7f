"""The storage manager: which pools there are, and their configuration.

A row is written before anything happens on the disk and says what is under way: ``creating``, ``deleting``. A daemon
that was killed in between finds the mark at its next start, and takes away what is left of the pool.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from lxpy.api.errors import ApiError, BadRequest, Conflict, NotFound
from lxpy.api.layout import Layout, qualified
from lxpy.api.notices import LEFTOVERS, ORPHANS, POOL_UNAVAILABLE, Notice
from lxpy.api.values import object_name
from lxpy.linux import mounts
from lxpy.state.store import Document, Store
from lxpy.storage import drivers, files, volumekeys
from lxpy.storage.lostpools import MARK, LostPools
from lxpy.storage.pool import DirectoryPool, Pool
from lxpy.storage.poolwatch import PoolWatch


class StorageManager:
    """Pools by name.

    Args:
        warn: told, in one line, of what an administrator should look at.

    Attributes:
        lost: what the database does not know, to be recovered.
        watch: has pools that went away back; whoever wants that starts it.
        on_return: awaited with the name of a pool that is back.
    """

    def __init__(self, store: Store, layout: Layout, warn: Callable[[str], None]) -> None:
        self._store, self._layout, self._warn = store, layout, warn
        self._pools: dict[str, DirectoryPool] = {}
        self._lock = asyncio.Lock()
        self.watch = PoolWatch(self._pools, self._returned)
        self.on_return: list[Callable[[str], Awaitable[None]]] = []
        self.lost = LostPools(store, layout, warn, self._pools, self._lock)

    async def start(self) -> None:
        """Mount what a reboot has unmounted, delete what a crash has left, and name the volumes nobody owns."""
        owned: dict[str, set[str]] = {}
        for row in self._store.instances.all():
            owned.setdefault(row.pool, set()).add(qualified(row.project, row.name))
        for name, doc in self._store.pools.all().items():
            pool = drivers.DRIVERS[doc["driver"]].of(name, doc["config"], self._layout, self._warn)
            if _mark(doc):
                await self._take_back(pool, doc)
                continue
            self._pools[name] = pool
            try:
                await pool.start()
            except OSError as error:
                self._warn(
                    Notice(
                        f"Pool {name}: {error.strerror}: {error.filename or pool.source}",
                        POOL_UNAVAILABLE,
                        f"/1.0/storage-pools/{name}",
                    )
                )
                continue
            orphans = set(pool.volumes()) - owned.get(name, set())
            if orphans:
                self._warn(
                    Notice(
                        f"Pool {name}: volumes without an instance: {', '.join(sorted(orphans))}; see lxpy recover",
                        ORPHANS,
                        f"/1.0/storage-pools/{name}",
                    )
                )

    async def _returned(self, name: str) -> None:
        for hook in self.on_return:
            try:
                await hook(name)
            except (ApiError, OSError) as error:
                self._warn(f"Storage pool {name!r} is back, but not all that is on it: {error}")

    async def _take_back(self, pool: DirectoryPool, doc: Document) -> None:
        try:
            if doc.get(MARK):
                await pool.release()
                self._store.pools.delete(pool.name)
                text = f"Storage pool {pool.name!r} was being recovered when the daemon ended: recover it again"
                self._warn(Notice(text, LEFTOVERS, f"/1.0/storage-pools/{pool.name}"))
                return
            await self._destroy(pool)
        except (ApiError, OSError) as error:
            text = f"Storage pool {pool.name!r} was being {_mark(doc)} and cannot be removed: {error}"
            self._warn(Notice(text, LEFTOVERS, f"/1.0/storage-pools/{pool.name}"))
            return
        self._store.pools.delete(pool.name)
        text = (
            f"Storage pool {pool.name!r} was being {_mark(doc)} when the daemon ended; what was left of it is removed"
        )
        self._warn(Notice(text, LEFTOVERS, f"/1.0/storage-pools/{pool.name}"))

    async def _destroy(self, pool: DirectoryPool) -> None:
        await pool.destroy(keep_source=pool.source != f"{self._layout.pools}/{pool.name}")

    async def close(self) -> None:
        """Lets deletions in the background come to their end."""
        await self.watch.close()
        for pool in self._pools.values():
            await pool.close()

    def planned(self, name: str, driver: str, config: dict[str, str]) -> DirectoryPool:
        """The pool that `create_pool` would make; nothing is made. Raises what that would say of it."""
        object_name("storage pool", name)
        kind = drivers.known(driver)
        drivers.check_keys(kind, config)
        if doc := self._store.pools.get(name):
            left = f": it is being {_mark(doc)}" if _mark(doc) else ""
            raise Conflict(f"Storage pool {name!r} already exists{left}")
        config = {key: value for key, value in config.items() if value}
        pool = kind.of(name, kind.plan(name, config, self._layout), self._layout, self._warn)
        if pool.source != f"{self._layout.pools}/{name}":
            self._check_source(config["source"])
        elif mounts.is_mounted(pool.source) or _has_volumes(pool.source):
            raise Conflict(f"{pool.source} holds an earlier pool: move it away first")
        return pool

    async def create_pool(self, name: str, driver: str, config: dict[str, str], description: str) -> None:
        """Make a pool.

        Args:
            config: ``source``, an existing empty directory; without it one below the daemon's directory is made.

        Raises:
            BadRequest: unknown driver or key, or a source that will not do. Conflict: the name is taken.
        """
        async with self._lock:
            pool = self.planned(name, driver, config)
            config = {key: value for key, value in config.items() if value}
            doc = {"driver": driver, "config": pool.config, "description": description}
            async with contextlib.AsyncExitStack() as undo:
                self._store.pools.put(name, doc | {"creating": True})
                undo.callback(self._store.pools.delete, name)
                undo.push_async_callback(self._destroy, pool)
                with files.disk_errors("Create", name, pool.source):
                    await asyncio.to_thread(pool.prepare, config)
                    await asyncio.to_thread(drivers.probe, pool)
                await pool.start()
                pool._here()
                pool.check_size(volumekeys.size(volumekeys.defaults(config)))
                self._store.pools.put(name, doc)
                undo.pop_all()
            self._pools[name] = pool

    async def delete_pool(self, name: str) -> None:
        """Delete a pool and the images on it.

        Raises:
            Conflict: an instance or a profile uses it, or an image is being put on it for one.
        """
        async with self._lock:
            pool = self._pool(name)
            users = self._users(name) or [f"volume {v}" for v in [*pool.volumes(), *pool.custom_volumes()]]
            if users:
                more = f" and {len(users) - 3} more" if len(users) > 3 else ""
                raise Conflict(f"Storage pool {name!r} is in use by {', '.join(users[:3])}{more}")
            if coming := pool.images.coming():
                raise Conflict(f"Storage pool {name!r} is in use: image {coming[0][:12]} is being put on it")
            self._store.pools.put(name, self.pools()[name] | {"deleting": True})
            del self._pools[name]  # first: nothing may be made on it from here on
            try:
                await self._destroy(pool)
            except BaseException:
                self._pools[name] = pool
                raise
            self._store.pools.delete(name)

    def changed(self, name: str, config: dict[str, str]) -> dict[str, str]:
        """The configuration that `update_pool` would give a pool. Raises what that would raise of it."""
        pool = self._pool(name)
        new = {key: value for key, value in config.items() if value}
        # What was chosen once stays, whatever a client sends back.
        new |= {key: value for key, value in pool.config.items() if key == "source" or key.startswith("volatile.")}
        drivers.check_keys(type(pool), config)
        if config.get("source", new["source"]) != new["source"]:
            raise BadRequest(f"The source of storage pool {name!r} cannot be changed: create another pool")
        pool.check_change(new)
        return new

    async def update_pool(self, name: str, config: dict[str, str], description: str) -> None:
        """Replace configuration and description.

        Raises:
            BadRequest: a key is unknown, or would change where the pool lies.
        """
        async with self._lock:
            pool, new = self._pool(name), self.changed(name, config)
            old = self.pools()[name]
            # Written down first: a change that is cut off is finished by the next start.
            self._store.pools.put(name, {"driver": pool.driver, "config": new, "description": description})
            try:
                await asyncio.to_thread(pool.change, new)
            except BaseException:
                self._store.pools.put(name, old)
                raise

    def pool(self, name: str) -> Pool:
        """Raises `NotFound`."""
        return self._pool(name)

    def defaults(self, name: str) -> dict[str, str]:
        """The configuration that new volumes of a pool begin with. Raises `NotFound`."""
        return volumekeys.defaults(self._pool(name).config)

    def away(self, name: str) -> str:
        """Why a pool cannot be used; empty when it can. Raises `NotFound`."""
        return self._pool(name).away()

    def need(self, name: str) -> None:
        """Raises `Unavailable` when a pool is away: before anything is written down that needs it."""
        self._pool(name)._here()

    def images(self, name: str) -> Collection[str]:
        """Fingerprints of the images that lie on a pool. Raises `NotFound`."""
        return self._pool(name).images.list()

    def pools(self) -> dict[str, Document]:
        """The documents (driver, config, description) by name."""
        return {name: doc for name, doc in self._store.pools.all().items() if name in self._pools}

    async def resources(self, name: str) -> dict[str, Any]:
        """``{"space": {"used", "total"}, "inodes": {"used", "total"}}`` of the pool's file system; bytes."""
        pool = self._pool(name)
        pool._here()
        with files.disk_errors("Measure", name, pool.source):
            found = await asyncio.to_thread(os.statvfs, pool.source)
        return {
            "space": {
                "used": (found.f_blocks - found.f_bfree) * found.f_frsize,
                "total": found.f_blocks * found.f_frsize,
            },
            "inodes": {"used": found.f_files - found.f_ffree, "total": found.f_files},
        }

    async def drop_image(self, fingerprint: str) -> None:
        """The image store has deleted an image: every pool lets go of it."""
        for pool in list(self._pools.values()):
            await pool.drop_image(fingerprint)

    def _pool(self, name: str) -> DirectoryPool:
        pool = self._pools.get(name)
        if pool is None:
            raise NotFound(f"Storage pool {name!r} not found")
        return pool

    def _check_source(self, source: str) -> None:
        if not source.startswith("/"):
            raise BadRequest(f"Invalid source {source!r}: an absolute path is expected")
        if not os.path.isdir(source):
            raise BadRequest(f"Invalid source {source!r}: it has to be an existing, empty directory")
        # A file system just made has this one, and it is not in the way.
        if set(os.listdir(source)) - {"lost+found"}:
            raise BadRequest(f"Invalid source {source!r}: the directory is not empty")
        real = os.path.realpath(source)
        for name, pool in self._pools.items():
            if os.path.commonpath([real, os.path.realpath(pool.source)]) == os.path.realpath(pool.source):
                raise BadRequest(f"Invalid source {source!r}: it lies inside storage pool {name!r}")

    def _users(self, name: str) -> list[str]:
        users = [f"instance {row.name}" for row in self._store.instances.all() if row.pool == name]
        for project in self._store.projects.all():
            for profile, doc in self._store.profiles.all(project).items():
                if any(device.get("pool") == name for device in doc.get("devices", {}).values()):
                    users.append(f"profile {profile}")
        return users


def _mark(doc: Document) -> str:
    words = {"creating": "created", "deleting": "deleted", MARK: "recovered"}
    return next((word for mark, word in words.items() if doc.get(mark)), "")


def _has_volumes(source: str) -> bool:
    return any(os.path.isdir(f"{source}/{part}") and os.listdir(f"{source}/{part}") for part in ("instances", "custom"))

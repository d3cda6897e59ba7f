"""The storage manager: which pools there are, and their configuration."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Collection
from typing import Any

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.layout import Layout, qualified
from lxpy.api.values import object_name
from lxpy.linux import idmap
from lxpy.state.store import Document, Store
from lxpy.storage import files
from lxpy.storage.dirdriver import DirPool
from lxpy.storage.overlaydriver import OverlayPool, mount_overlay
from lxpy.storage.pool import DirectoryPool, Pool

DRIVERS: dict[str, type[DirectoryPool]] = {"overlay": OverlayPool, "dir": DirPool}
_KNOWN_KEYS = ("source",)
# What clients keep for themselves, and what LXD's own clients send back of a pool they have read.
_FREE_PREFIXES = ("user.", "volatile.")


class StorageManager:
    """Pools by name.

    Args:
        warn: told, in one line, of what an administrator should look at.
    """

    def __init__(self, store: Store, layout: Layout, warn: Callable[[str], None]) -> None:
        self._store, self._layout, self._warn = store, layout, warn
        self._pools: dict[str, DirectoryPool] = {}
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Mount what a reboot has unmounted, delete what a crash has left, and name the volumes nobody owns."""
        owned: dict[str, set[str]] = {}
        for row in self._store.instances.all():
            owned.setdefault(row.pool, set()).add(qualified(row.project, row.name))
        for name, doc in self._store.pools.all().items():
            pool = DRIVERS[doc["driver"]](name, doc["config"]["source"], self._warn)
            self._pools[name] = pool
            try:
                await pool.start()
            except OSError as error:
                self._warn(f"Pool {name}: {error.strerror}: {error.filename or pool.source}")
                continue
            orphans = set(pool.volumes()) - owned.get(name, set())
            if orphans:
                self._warn(f"Pool {name}: volumes without an instance: {', '.join(sorted(orphans))}")

    async def close(self) -> None:
        """Lets deletions in the background come to their end."""
        for pool in self._pools.values():
            await pool.close()

    async def create_pool(self, name: str, driver: str, config: dict[str, str], description: str) -> None:
        """Make a pool.

        Args:
            config: ``source``, an existing empty directory; without it one below the daemon's directory is made.

        Raises:
            BadRequest: unknown driver or key, or a source that will not do. Conflict: the name is taken.
        """
        object_name("storage pool", name)
        if driver not in DRIVERS:
            raise BadRequest(
                f"Storage driver {driver!r} is not supported{' yet' if driver in ('btrfs', 'zfs', 'lvm') else ''}; "
                f"drivers: {', '.join(DRIVERS)}"
            )
        _check_keys(driver, config)
        async with self._lock:
            if name in self._pools:
                raise Conflict(f"Storage pool {name!r} already exists")
            given = config.get("source", "")
            source = given or f"{self._layout.pools}/{name}"
            if given:
                self._check_source(given)
            elif os.path.isdir(f"{source}/instances") and os.listdir(f"{source}/instances"):
                raise Conflict(f"{source} holds the volumes of an earlier pool: move it away first")
            pool = DRIVERS[driver](name, os.path.normpath(source), self._warn)
            async with contextlib.AsyncExitStack() as undo:
                undo.push_async_callback(pool.destroy, keep_source=bool(given))
                with files.disk_errors("Create", name, source):
                    await asyncio.to_thread(pool.prepare)
                    await asyncio.to_thread(_probe, pool)
                await pool.start()
                kept = {key: value for key, value in config.items() if value} | {"source": pool.source}
                self._store.pools.put(name, {"driver": driver, "config": kept, "description": description})
                undo.pop_all()
            self._pools[name] = pool

    async def delete_pool(self, name: str) -> None:
        """Delete a pool and the images on it.

        Raises:
            Conflict: an instance or a profile uses it.
        """
        async with self._lock:
            pool = self._pool(name)
            users = self._users(name) or [f"volume {v}" for v in [*pool.volumes(), *pool.custom_volumes()]]
            if users:
                more = f" and {len(users) - 3} more" if len(users) > 3 else ""
                raise Conflict(f"Storage pool {name!r} is in use by {', '.join(users[:3])}{more}")
            doc = self.pools()[name]
            # The row first: cut off after it, what is left is a directory to be reused; the other way round a
            # pool that cannot start.
            self._store.pools.delete(name)
            del self._pools[name]
            default = f"{self._layout.pools}/{name}"
            with contextlib.suppress(FileNotFoundError):
                await pool.destroy(keep_source=doc["config"]["source"] != default)

    async def update_pool(self, name: str, config: dict[str, str], description: str) -> None:
        """Replace configuration and description.

        Raises:
            BadRequest: a key is unknown, or would change where the pool lies.
        """
        pool = self._pool(name)
        _check_keys(pool.driver, config)
        if config.get("source", pool.source) != pool.source:
            raise BadRequest(f"The source of storage pool {name!r} cannot be changed: create another pool")
        kept = {key: value for key, value in config.items() if value} | {"source": pool.source}
        self._store.pools.put(name, {"driver": pool.driver, "config": kept, "description": description})

    def pool(self, name: str) -> Pool:
        """Raises `NotFound`."""
        return self._pool(name)

    def images(self, name: str) -> Collection[str]:
        """Fingerprints of the images that lie on a pool. Raises `NotFound`."""
        return self._pool(name).images.list()

    def pools(self) -> dict[str, Document]:
        """The documents (driver, config, description) by name."""
        return self._store.pools.all()

    async def resources(self, name: str) -> dict[str, Any]:
        """``{"space": {"used", "total"}, "inodes": {"used", "total"}}`` of the pool's file system; bytes."""
        pool = self._pool(name)
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


def _check_keys(driver: str, config: dict[str, str]) -> None:
    for key in config:
        if key == "size":
            raise BadRequest(
                f"size cannot be set on a {driver} pool: it shares the file system its source lies on; "
                "make a file system of that size and give its mount point as source"
            )
        if key not in _KNOWN_KEYS and not key.startswith(_FREE_PREFIXES):
            raise BadRequest(f"Unknown key {key!r} of a {driver} pool; known: {', '.join(_KNOWN_KEYS)}, user.*")


def _probe(pool: DirectoryPool) -> None:
    """Refuses a file system on which no instance could start. Blocks; 20 ms the first time per file system."""
    if not idmap.supports_idmap(pool.source):
        raise BadRequest(
            f"{pool.source} will not do for a storage pool: this kernel cannot mount its file system id-mapped; "
            "use a directory on ext4, xfs or btrfs as source"
        )
    if not isinstance(pool, OverlayPool):
        return
    layers = f"{pool.source}/tmp/probe"
    try:
        for part in ("lower", "upper", "work"):
            os.makedirs(f"{layers}/{part}", mode=0o700, exist_ok=True)
        os.close(mount_overlay(f"{layers}/lower", layers))
    except OSError as error:
        raise BadRequest(
            f"{pool.source} will not do for an overlay pool: the kernel says {error.strerror!r}; "
            "use the driver dir, or a directory on ext4, xfs or btrfs as source"
        ) from None
    finally:
        files.remove_tree(layers, f"{pool.source}/tmp")

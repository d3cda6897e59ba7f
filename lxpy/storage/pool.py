"""What a storage pool is: the driver interface, and what drivers that keep plain directories share.

On the disk, below the pool's source (0711; what is inside is the host administrator's alone)::

    images/     one read-only tree per image, see imagecache.py
    instances/  VOLUME/{upper,work,lower | rootfs, snapshots/NAME, backup.yaml}, see instancetrees.py
    custom/     VOLUME/{data, snapshots/NAME, backup.yaml}, see customvolumes.py
    tmp/        what is being made or deleted; whatever a crash leaves here, the next start deletes

A volume is made in tmp/ and renamed into its place, and renamed back into tmp/ to be deleted, so its name is there
wholly or not at all, and free again at once.
"""

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, Self

from lxpy.api.errors import BadRequest, Unavailable
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.api.notices import POOL_UNAVAILABLE, Notice, Over
from lxpy.runtime.spec import Root
from lxpy.storage import files, volumekeys
from lxpy.storage.customvolumes import CustomVolumes, VolumeSource
from lxpy.storage.imagecache import ImageCache
from lxpy.storage.instancetrees import InstanceSource, InstanceTrees, Still

_DELETE_ATTEMPTS = 50
_PARTS = ("images", "instances", "custom", "tmp")


class Pool(Protocol):
    """One storage pool. Volumes are named ``qualified(project, name)``."""

    name: str
    driver: str
    source: str
    copies_slowly: bool  # a root is copied file by file, all of it

    async def ensure_image(self, image: ImageFiles) -> None:
        """Have the image mounted or unpacked here. Many may wait; the work is done once."""

    async def drop_image(self, fingerprint: str) -> None:
        """The image store has deleted it. It goes when its last user goes; this does not wait for that."""

    async def create_instance(self, volume: str, fingerprint: str | None) -> None:
        """Make a volume from an image that `ensure_image` has put here, or an empty one.

        Raises:
            Conflict: the name is taken. NotFound: the image is not here.
        """

    async def delete_instance(self, volume: str) -> None:
        """Delete a volume; none of that name is fine. The name is free when this returns, the space soon after."""

    async def rename_instance(self, old: str, new: str) -> None: ...

    def root(self, volume: str) -> Root:
        """What the runtime needs to make the root file system."""

    def open_root(self, volume: str) -> AbstractContextManager[int]:
        """A directory descriptor of a stopped instance's root, owners 0-based.

        Raises:
            Conflict: it is in use by a running instance.
        """

    def instance_dir(self, volume: str) -> str:
        """The host's own directory of the volume; ``backup.yaml`` lies in it."""

    def check_size(self, size: int | None) -> None:
        """Raises `BadRequest` where nothing can be limited to `size` bytes. None is fine everywhere."""

    def instance_limit(self, volume: str) -> int | None:
        """Bytes the root of a volume is limited to. Raises `NotFound`."""

    async def limit_instance(self, volume: str, size: int | None) -> None:
        """Limit what the root of a volume may hold, at once; None lifts the limit.

        Raises:
            BadRequest: the pool cannot, or the root holds more already.
        """

    def usage(self, volume: str) -> int | None:
        """Bytes the volume itself takes, None where the driver cannot tell without walking the tree."""

    def volumes(self) -> list[str]: ...

    # Snapshots and copies of instances: the documentation is InstanceTrees'.

    def instance_snapshots(self, volume: str) -> list[str]: ...

    def instance_image(self, volume: str, snapshot: str = "") -> str | None: ...

    def instance_layers(self, volume: str, snapshot: str = "") -> str: ...

    def snapshot_usage(self, volume: str, snapshot: str) -> int | None: ...

    def open_snapshot(self, volume: str, snapshot: str) -> AbstractContextManager[int]: ...

    async def snapshot_instance(self, volume: str, snapshot: str, *, still: Still | None = None) -> None: ...

    async def rebuild_instance(self, volume: str, fingerprint: str | None) -> None: ...

    async def set_aside_instance(self, volume: str, snapshot: str) -> None: ...

    async def delete_instance_snapshot(self, volume: str, snapshot: str) -> None: ...

    async def rename_instance_snapshot(self, volume: str, old: str, new: str) -> None: ...

    async def restore_instance(self, volume: str, snapshot: str) -> None: ...

    async def copy_instance(
        self, source: str, target: str, *, snapshots: bool | list[str] = True, from_snapshot: str | None = None
    ) -> None: ...

    async def receive_instance(
        self,
        volume: str,
        source: InstanceSource,
        source_volume: str,
        *,
        snapshots: bool | list[str] = True,
        from_snapshot: str | None = None,
    ) -> None: ...

    async def receive_instance_snapshot(
        self, volume: str, source: InstanceSource, source_volume: str, snapshot: str
    ) -> None: ...

    async def refresh_instance(
        self, volume: str, source: InstanceSource, source_volume: str, *, from_snapshot: str | None = None
    ) -> None: ...

    # Custom volumes: the documentation is CustomVolumes'.

    def custom_volumes(self) -> list[str]: ...

    def volume_snapshots(self, volume: str) -> list[str]: ...

    def volume_dir(self, volume: str) -> str: ...

    def volume_path(self, volume: str) -> str: ...

    def volume_snapshot_path(self, volume: str, snapshot: str) -> str: ...

    def open_volume(self, volume: str) -> AbstractContextManager[int]: ...

    async def volume_usage(self, volume: str) -> int | None: ...

    async def create_volume(self, volume: str, size: int | None = None) -> None: ...

    async def copy_volume(self, source: str, target: str, *, snapshots: bool = True) -> None: ...

    async def receive_volume(
        self, volume: str, source: VolumeSource, source_volume: str, *, snapshots: bool = True
    ) -> None: ...

    async def delete_volume(self, volume: str) -> None: ...

    async def rename_volume(self, old: str, new: str) -> None: ...

    async def set_volume_size(self, volume: str, size: int | None) -> None: ...

    async def snapshot_volume(self, volume: str, snapshot: str) -> None: ...

    async def set_aside_volume(self, volume: str, snapshot: str) -> None: ...

    async def delete_volume_snapshot(self, volume: str, snapshot: str) -> None: ...

    async def rename_volume_snapshot(self, volume: str, old: str, new: str) -> None: ...

    async def restore_volume(self, volume: str, snapshot: str) -> None: ...

    async def receive_volume_snapshot(
        self, volume: str, source: VolumeSource, source_volume: str, snapshot: str
    ) -> None: ...

    async def refresh_volume(
        self, volume: str, source: VolumeSource, source_volume: str, snapshot: str = ""
    ) -> None: ...


class DirectoryPool(CustomVolumes, InstanceTrees):
    """The common part of all drivers: a directory with what lies where the top of this file says.

    Args:
        source: absolute path of the pool's directory, made by `prepare`.
        config: complete, see `plan`.
    """

    driver = ""
    mounts_images = False
    keeps_sizes = False
    keys: tuple[str, ...] = ("source",)  # of its configuration

    def __init__(self, name: str, source: str, warn: Callable[[str], None], config: dict[str, str]) -> None:
        self.name = name
        self.source = source
        self.config = config
        self.description = ""  # of a pool that is being recovered
        self._warn = warn
        self.images = ImageCache(name, source, self.mounts_images, self, self._discard_later, self._warn_later)
        self._image_of = {}
        self._away = f"Pool {name} has not been started"
        self._told = ""  # the last warning that it is away
        self._identity = (0, 0)  # of its directory: device and inode
        self._loop: asyncio.AbstractEventLoop | None = None
        self._deleting: set[asyncio.Future[None]] = set()

    # Which pool a configuration means.

    @classmethod
    def plan(cls, name: str, config: dict[str, str], layout: Layout) -> dict[str, str]:
        """The configuration of a new pool, complete: with its `source` and what else is chosen once.

        Raises:
            BadRequest: it asks for what the driver cannot do. Conflict: something is in the way.
        """
        return {"source": f"{layout.pools}/{name}", **config}

    @classmethod
    def of(cls, name: str, config: dict[str, str], layout: Layout, warn: Callable[[str], None]) -> Self:
        """The pool of a complete configuration."""
        return cls(name, os.path.normpath(config["source"]), warn, config)

    @classmethod
    def plan_recovered(cls, name: str, config: dict[str, str], layout: Layout) -> dict[str, str]:
        """As `plan`, for a pool that was made by an earlier daemon and lies at its `source`. Blocks.

        Raises:
            BadRequest: it cannot be there.
        """
        if not os.path.isdir(config["source"]):
            raise BadRequest(f"Invalid source {config['source']!r}: a pool of the driver {cls.driver} is a directory")
        return config

    def look(self) -> AbstractContextManager[str]:
        """A path to what is in the pool, for as long as the block runs, whether it has been started or not. Blocks.

        Raises:
            OSError: it is not to be had.
        """
        return contextlib.nullcontext(self.source)

    def damage(self, place: str, volume: str) -> str:
        """Why the root of a volume below `place` (of `look`) cannot be used; empty when it can. Blocks.

        Args:
            volume: ``VOLUME``, or ``VOLUME/snapshots/NAME``.
        """
        directory = f"{place}/instances/{volume}"
        if not (fingerprint := self._uses_image(directory)):
            return "" if os.path.isdir(f"{directory}/rootfs") else "its root file system is missing"
        if not (os.path.isdir(f"{directory}/upper") and os.path.isdir(f"{directory}/work")):
            return "its root file system is missing"
        tree = f"{place}/images/{fingerprint}"
        if os.path.isfile(f"{tree}.squashfs") or (os.path.isdir(tree) and os.listdir(tree)):
            return ""
        return f"the image {fingerprint[:12]}, which its root is a layer over, is missing on the pool"

    # The life of the pool.

    def prepare(self, given: dict[str, str]) -> None:
        """Make the pool's directories; those that are there stay. Blocks.

        Args:
            given: the configuration as the user wrote it, with what is only for this moment.
        """
        os.makedirs(self.source, mode=0o711, exist_ok=True)
        os.chmod(self.source, 0o711)
        for part in _PARTS:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self.source}/{part}", 0o700)

    def _attach(self) -> None:
        """Have the file system there that the pool lies on. Blocks.

        Raises:
            OSError: it is not to be had.
        """

    def check_change(self, new: dict[str, str]) -> None:
        """Raises `BadRequest`: the pool cannot come to have that configuration."""
        self.check_size(volumekeys.size(volumekeys.defaults(new)))

    def change(self, new: dict[str, str]) -> None:
        """Have a (checked) new configuration take effect. Blocks; safe to repeat after a crash."""
        self.config = new

    async def start(self) -> None:
        """Mount, reconcile, and delete what a crash has left in ``tmp`` (in the background)."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._attach)
        except OSError as error:
            self._lose(f"{error.strerror}: {self.config['source']}", self._warn)
            return
        if not all(os.path.isdir(f"{self.source}/{part}") for part in ("images", "instances", "tmp")):
            self._lose(f"{self.source} holds no pool (is its file system mounted?)", self._warn)
            return
        found = os.stat(self.source)
        self._identity = (found.st_dev, found.st_ino)
        self._away = ""
        if self._told:
            self._told = ""
            self._warn(Over(POOL_UNAVAILABLE, f"/1.0/storage-pools/{self.name}"))
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{self.source}/custom", 0o700)  # pools of the first version have none
        leftovers = os.listdir(f"{self.source}/tmp")
        await asyncio.to_thread(self._load)
        for name in leftovers:
            self._delete_later(f"{self.source}/tmp/{name}")

    def away(self) -> str:
        """Why the pool cannot be used; empty when it can. Notices that it has gone from under us, for 2 µs."""
        if not self._away:
            try:
                found = os.stat(self.source)
                there = (found.st_dev, found.st_ino) == self._identity
            except OSError:
                there = False
            if not there:
                self._lose(f"{self.source} is not there any more (was its file system unmounted?)", self._warn_later)
        return self._away

    def returns_by_itself(self) -> bool:
        """Whether an attempt to have it back, for which nobody has asked, is right."""
        return True

    def _lose(self, why: str, warn: Callable[[str], None]) -> None:
        self._away = f"Storage pool {self.name!r} is away: {why}"
        if self._away != self._told:
            self._told = self._away
            warn(Notice(self._away, POOL_UNAVAILABLE, f"/1.0/storage-pools/{self.name}"))

    def _load(self) -> None:
        self._image_of.clear()
        users: dict[str, set[str]] = {}
        for volume in os.listdir(f"{self.source}/instances"):
            self._swap(f"{self.source}/instances/{volume}")
            self._image_of[volume] = self._uses_image(f"{self.source}/instances/{volume}")
            for user, fingerprint in self._users(volume).items():
                users.setdefault(fingerprint, set()).add(user)
        self.images.start(users)

    async def close(self) -> None:
        """Returns when everything being deleted is gone. What is not finished then, the next start finishes."""
        while self._deleting:
            await asyncio.wait(self._deleting)

    async def release(self) -> None:
        """Let go of the pool and leave what is on it alone."""
        await self.close()
        with files.disk_errors("Unmount", self.name, self.source):
            await asyncio.to_thread(self._release)

    def _release(self) -> None:
        self.images.unmount()
        files.remove_tree(f"{self.source}/tmp/probe", f"{self.source}/tmp")

    async def adopt(self, volume: str) -> None:
        """Take in a volume of an instance, and its images, that came to their places without us. Safe to repeat."""
        self._image_of[volume] = self._uses_image(self._path(volume))
        for user, fingerprint in self._users(volume).items():
            self.images.use(fingerprint, user)
            with files.disk_errors(f"Mount image {fingerprint[:12]}", self.name, self.source):
                await self.images.find(fingerprint)

    async def destroy(self, keep_source: bool) -> None:
        """Unmount and delete everything.

        Args:
            keep_source: leave the directory itself, which was the user's.
        """
        await self.close()

        with files.disk_errors("Delete", self.name, self.source):
            await asyncio.to_thread(self._clear, keep_source)

    def _clear(self, keep_source: bool) -> None:
        self.images.unmount()
        for part in _PARTS:
            self._tree_remove(f"{self.source}/{part}", self.source)
        if not keep_source:
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(self.source)

    # Images.

    async def ensure_image(self, image: ImageFiles) -> None:
        self._here()
        await self.images.ensure(image)

    async def drop_image(self, fingerprint: str) -> None:
        if not self._away:
            await self.images.drop(fingerprint)

    # Helpers.

    def _here(self) -> None:
        if why := self.away():
            raise Unavailable(why)

    def _discard_later(self, path: str) -> None:
        """From any thread: the path is free at once, its files go in the background."""
        gone = self._gone()
        self._tree_thaw(path)
        os.rename(path, gone)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._delete_later, gone)

    def _delete_later(self, path: str) -> None:
        future = asyncio.get_running_loop().run_in_executor(None, self._delete, path)
        self._deleting.add(future)
        future.add_done_callback(self._deleting.discard)

    def _delete(self, path: str) -> None:
        for attempt in range(_DELETE_ATTEMPTS):
            try:
                self._tree_remove(path)
                return
            except OSError as error:
                # A cp of a daemon that was killed goes on for a moment, and fills what we empty.
                if error.errno != errno.ENOTEMPTY or attempt == _DELETE_ATTEMPTS - 1:
                    self._warn_later(f"Pool {self.name}: {path} cannot be deleted: {error.strerror}")
                    return
            time.sleep(0.1)

    def _warn_later(self, message: str) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._warn, message)

"""What a storage pool is: the driver interface, and what drivers that keep plain directories share.

On the disk, below the pool's source (0711; what is inside is the host administrator's alone)::

    images/     one read-only tree per image, see imagecache.py
    instances/  VOLUME/{upper,work,lower -> ../../images/FINGERPRINT | rootfs, backup.yaml}
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

from lxpy.api.errors import BadRequest, Conflict, NotFound, Unavailable
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.api.notices import POOL_UNAVAILABLE, Notice
from lxpy.runtime.spec import Root
from lxpy.storage import files
from lxpy.storage.customvolumes import CustomVolumes, VolumeSource, finish
from lxpy.storage.imagecache import ImageCache

_DELETE_ATTEMPTS = 50
_PARTS = ("images", "instances", "custom", "tmp")


class Pool(Protocol):
    """One storage pool. Volumes are named ``qualified(project, name)``."""

    name: str
    driver: str
    source: str

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

    async def delete_volume_snapshot(self, volume: str, snapshot: str) -> None: ...

    async def rename_volume_snapshot(self, volume: str, old: str, new: str) -> None: ...

    async def restore_volume(self, volume: str, snapshot: str) -> None: ...


class DirectoryPool(CustomVolumes):
    """The common part of all drivers: a directory with what lies where the top of this file says.

    Args:
        source: absolute path of the pool's directory, made by `prepare`.
        config: complete, see `plan`.
    """

    driver = ""
    mounts_images = False
    keys: tuple[str, ...] = ("source",)  # of its configuration

    def __init__(self, name: str, source: str, warn: Callable[[str], None], config: dict[str, str]) -> None:
        self.name = name
        self.source = source
        self.config = config
        self._warn = warn
        self.images = ImageCache(name, source, self.mounts_images, self, self._discard_later, self._warn_later)
        self._image_of: dict[str, str | None] = {}
        self._away = f"Pool {name} has not been started"
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

    # What a driver adds.

    def _build(self, directory: str, fingerprint: str | None) -> None:
        """Fill the new, empty directory of a volume. Blocks."""
        raise NotImplementedError

    def root(self, volume: str) -> Root:
        raise NotImplementedError

    def open_root(self, volume: str) -> AbstractContextManager[int]:
        raise NotImplementedError

    def _uses_image(self, directory: str) -> str | None:
        """The fingerprint a volume's directory names as its lower layer."""
        return None

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

    def change(self, new: dict[str, str]) -> None:
        """Have a (checked) new configuration take effect. Blocks; safe to repeat after a crash."""
        self.config = new

    async def start(self) -> None:
        """Mount, reconcile, and delete what a crash has left in ``tmp`` (in the background)."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._attach)
        except OSError as error:
            self._away = f"Storage pool {self.name!r} is away: {error.strerror}: {self.config['source']}"
            self._warn(Notice(self._away, POOL_UNAVAILABLE, f"/1.0/storage-pools/{self.name}"))
            return
        if not all(os.path.isdir(f"{self.source}/{part}") for part in ("images", "instances", "tmp")):
            self._away = (
                f"Storage pool {self.name!r} is away: {self.source} holds no pool (is its file system mounted?)"
            )
            self._warn(Notice(self._away, POOL_UNAVAILABLE, f"/1.0/storage-pools/{self.name}"))
            return
        self._away = ""
        with contextlib.suppress(FileExistsError):
            os.mkdir(f"{self.source}/custom", 0o700)  # pools of the first version have none
        leftovers = os.listdir(f"{self.source}/tmp")
        await asyncio.to_thread(self._load)
        for name in leftovers:
            self._delete_later(f"{self.source}/tmp/{name}")

    def _load(self) -> None:
        users: dict[str, set[str]] = {}
        for volume in os.listdir(f"{self.source}/instances"):
            fingerprint = self._uses_image(f"{self.source}/instances/{volume}")
            self._image_of[volume] = fingerprint
            if fingerprint:
                users.setdefault(fingerprint, set()).add(volume)
        self.images.start(users)

    async def close(self) -> None:
        """Returns when everything being deleted is gone. What is not finished then, the next start finishes."""
        while self._deleting:
            await asyncio.wait(self._deleting)

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

    # Volumes.

    async def create_instance(self, volume: str, fingerprint: str | None) -> None:
        target = self._path(volume)
        if volume in self._image_of:
            raise Conflict(f"Volume {volume!r} already exists on pool {self.name!r}")
        if fingerprint:
            self.images.tree(fingerprint)
            self.images.use(fingerprint, volume)
        self._image_of[volume] = fingerprint
        try:
            # Shielded: a cancelled caller must not leave a thread behind that makes the volume after all.
            await finish(asyncio.to_thread(self._create, volume, target, fingerprint))
        except asyncio.CancelledError:
            await self.delete_instance(volume)
            raise
        except BaseException:
            await self._forget(volume)
            raise
        if not self._uses_image(target):
            await self._unuse(volume)

    def _create(self, volume: str, target: str, fingerprint: str | None) -> None:
        temporary = self._temporary()
        with (
            files.disk_errors(f"Create volume {volume}", self.name, self.source),
            contextlib.ExitStack() as undo,
        ):
            os.mkdir(temporary, 0o700)
            undo.callback(self._tree_remove, temporary)
            self._build(temporary, fingerprint)
            try:
                os.rename(temporary, target)
            except OSError as error:
                if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                    raise Conflict(f"Volume {volume!r} already exists on pool {self.name!r}") from None
                raise
            undo.pop_all()

    async def delete_instance(self, volume: str) -> None:
        path = self._path(volume)
        gone = self._gone()
        with files.disk_errors(f"Delete volume {volume}", self.name, self.source):
            try:
                os.rename(path, gone)
                self._delete_later(gone)
            except FileNotFoundError:
                pass
        await self._forget(volume)

    async def _forget(self, volume: str) -> None:
        await self._unuse(volume)
        self._image_of.pop(volume, None)

    async def _unuse(self, volume: str) -> None:
        fingerprint = self._image_of.get(volume)
        if fingerprint:
            self._image_of[volume] = None
            last = self.images.unuse(fingerprint, volume)
            if last is not None:
                await last

    async def rename_instance(self, old: str, new: str) -> None:
        source, target = self._existing(old), self._path(new)
        if new in self._image_of:
            raise Conflict(f"Volume {new!r} already exists on pool {self.name!r}")
        with files.disk_errors(f"Rename volume {old}", self.name, self.source):
            os.rename(source, target)
        fingerprint = self._image_of.pop(old)
        self._image_of[new] = fingerprint
        if fingerprint:
            self.images.use(fingerprint, new)
            self.images.unuse(fingerprint, old)

    def instance_dir(self, volume: str) -> str:
        return self._path(volume)

    def volumes(self) -> list[str]:
        return sorted(self._image_of)

    def instance_limit(self, volume: str) -> int | None:
        self._existing(volume)
        return None

    async def limit_instance(self, volume: str, size: int | None) -> None:
        path = f"{self._existing(volume)}/rootfs"
        with files.disk_errors(f"Limit volume {volume}", self.name, self.source):
            await asyncio.to_thread(self._tree_limit, path, size)

    def usage(self, volume: str) -> int | None:
        return None

    async def measure(self, volume: str) -> int:
        """Bytes the volume takes, by walking it: for the page of one instance, never for a list."""
        with files.disk_errors(f"Measure volume {volume}", self.name, self.source):
            return await asyncio.to_thread(files.disk_usage, self._existing(volume))

    # Helpers.

    def _here(self) -> None:
        if self._away:
            raise Unavailable(self._away)

    def _path(self, volume: str) -> str:
        self._here()
        if "/" in volume or "\0" in volume or volume in ("", ".", "..") or len(os.fsencode(volume)) > 255:
            raise BadRequest(f"Invalid volume name {volume!r}")
        return f"{self.source}/instances/{volume}"

    def _existing(self, volume: str) -> str:
        path = self._path(volume)
        if volume not in self._image_of:
            raise NotFound(f"Volume {volume!r} not found on pool {self.name!r}")
        return path

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


def plain_root(path: str) -> Root:
    return {"kind": "dir", "lower": "", "upper": "", "work": "", "path": path}

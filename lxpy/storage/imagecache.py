"""The images a pool holds: each mounted from its squashfs, or unpacked, once, for all instances made from it.

What is on the disk is the record; nothing else remembers::

    images/FINGERPRINT/            the tree: a mount of the file below, or the unpacked files
    images/FINGERPRINT.squashfs    the pool's own name (a hard link where it can be) for the image's file
    images/FINGERPRINT.dropped     the image store has deleted the image; this goes with its last user

An instance on an overlay needs its image for as long as it lives, so deleting the image from the store cannot take
it away here, and need not wait for it either.
"""

import asyncio
import contextlib
import errno
import os
import re
import secrets
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from lxpy.api.errors import BadRequest, NotFound
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.notices import IMAGE_LOST, Notice, Over
from lxpy.linux import idmap, libc, loop, mounts
from lxpy.storage import files, unpack

_FINGERPRINT = re.compile(r"[0-9a-f]{64}\Z")
# No instance runs from this mount itself: an overlay takes its flags from its own. So nothing of a stranger's image
# can be run set-uid through it, should a host user ever reach it past the 0700 directory above.
_MOUNT_FLAGS = libc.MS_RDONLY | libc.MS_NODEV | libc.MS_NOSUID

# Whether this kernel mounts a squashfs id-mapped (Linux 6.2); None: not asked yet.
_squashfs_idmaps: bool | None = None


class Trees(Protocol):
    """How the pool makes, freezes and removes a tree; see CustomVolumes."""

    def _tree_make(self, path: str) -> None: ...

    def _tree_freeze(self, path: str) -> None: ...

    def _tree_remove(self, path: str, spare: str = "") -> None: ...


class ImageCache:
    """The ``images`` directory of one pool.

    Args:
        mounts: whether a squashfs may stay packed and be mounted; else everything is unpacked.
        trees: the pool.
        discard: takes a path off the pool: rename into ``tmp``, delete in the background.
    """

    def __init__(
        self,
        pool: str,
        source: str,
        mounts: bool,
        trees: Trees,
        discard: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self._pool, self._source, self._mounts, self._trees = pool, source, mounts, trees
        self._discard, self._warn = discard, warn
        self._directory = f"{source}/images"
        self._ready: set[str] = set()
        self._dropped: set[str] = set()
        self._users: dict[str, set[str]] = {}
        self._work: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def tree(self, fingerprint: str) -> str:
        """The directory of an image that is there.

        Raises:
            NotFound: it is not on this pool.
        """
        if fingerprint not in self._ready:
            raise NotFound(f"Image {fingerprint[:12]} is not on pool {self._pool}: its files are missing")
        path = f"{self._directory}/{fingerprint}"
        if os.path.exists(self._squashfs(fingerprint)) and not self._apart(path):
            try:
                self._mount(fingerprint)  # somebody has unmounted it
            except OSError as error:
                raise NotFound(
                    f"Image {fingerprint[:12]} is not on pool {self._pool}: it cannot be mounted ({error.strerror})"
                ) from None
        return path

    def _apart(self, path: str) -> bool:
        """Whether the image of a squashfs is mounted; 3 µs."""
        try:
            return os.stat(path).st_dev != os.stat(self._directory).st_dev
        except FileNotFoundError:
            return False

    def list(self) -> dict[str, dict[str, Any]]:
        """By fingerprint: ``form`` (mounted, unpacked), ``users`` (volume names), ``dropped``."""
        return {
            fingerprint: {
                "form": "mounted" if os.path.exists(self._squashfs(fingerprint)) else "unpacked",
                "users": sorted(self._users.get(fingerprint, ())),
                "dropped": fingerprint in self._dropped,
            }
            for fingerprint in sorted(self._ready)
        }

    def coming(self) -> tuple[str, ...]:
        """Fingerprints of those that are being mounted or unpacked."""
        return tuple(sorted(self._work))

    async def ensure(self, image: ImageFiles) -> None:
        """The image is there when this returns. However many wait for it, the work is done once."""
        fingerprint = image.fingerprint
        if not _FINGERPRINT.match(fingerprint):
            raise BadRequest(f"Invalid image fingerprint {fingerprint!r}: 64 hex digits are expected")
        if fingerprint in self._ready and fingerprint not in self._dropped:
            return
        task = self._work.get(fingerprint)
        if task is None:
            task = asyncio.create_task(self._ensure(image))
            self._work[fingerprint] = task
            task.add_done_callback(lambda done: self._ended(fingerprint, done))
        # One who gives up waiting must not take the work from the others.
        await asyncio.shield(task)

    def _ended(self, fingerprint: str, task: asyncio.Task[None]) -> None:
        del self._work[fingerprint]
        if not task.cancelled():
            task.exception()  # seen, even where every waiter has gone

    async def _ensure(self, image: ImageFiles) -> None:
        fingerprint = image.fingerprint
        async with self._lock(fingerprint):
            if fingerprint in self._dropped:
                os.unlink(self._marker(fingerprint))
                self._dropped.discard(fingerprint)
            if fingerprint not in self._ready:
                await asyncio.to_thread(self._make, image)
                self._ready.add(fingerprint)

    async def find(self, fingerprint: str) -> None:
        """Take in an image that came to its place without us.

        Raises:
            OSError: it cannot be mounted.
        """
        async with self._lock(fingerprint):
            if fingerprint in self._ready:
                return
            if os.path.exists(self._squashfs(fingerprint)):
                await asyncio.to_thread(self._mount, fingerprint)
            if os.path.isdir(f"{self._directory}/{fingerprint}"):
                self._ready.add(fingerprint)
                self._warn(Over(IMAGE_LOST, f"/1.0/images/{fingerprint}"))

    async def drop(self, fingerprint: str) -> None:
        """The image store has deleted it: gone at once if nobody uses it, else with its last user."""
        async with self._lock(fingerprint):
            if fingerprint not in self._ready:
                return
            with open(self._marker(fingerprint), "w", encoding="utf-8"):
                self._dropped.add(fingerprint)
            if not self._users.get(fingerprint):
                await asyncio.to_thread(self._remove, fingerprint)

    def use(self, fingerprint: str, volume: str) -> None:
        self._users.setdefault(fingerprint, set()).add(volume)

    def unuse(self, fingerprint: str, volume: str) -> Coroutine[Any, Any, None] | None:
        """One user less. What has to be run, where that was the last one of a dropped image."""
        users = self._users.get(fingerprint, set())
        users.discard(volume)
        return self.drop(fingerprint) if not users and fingerprint in self._dropped else None

    def start(self, users: dict[str, set[str]]) -> None:
        """Finds what is there and mounts what a reboot has unmounted. Blocks.

        Args:
            users: the volumes of each image.
        """
        self._users = users
        self._ready.clear()
        self._dropped.clear()
        names = set(os.listdir(self._directory))
        for name in names:
            if name.endswith(".squashfs"):
                fingerprint = name.removesuffix(".squashfs")
                try:
                    self._mount(fingerprint)
                except OSError as error:
                    self._warn(
                        Notice(
                            f"Pool {self._pool}: image {fingerprint[:12]} cannot be mounted ({error.strerror}): "
                            f"{len(users.get(fingerprint, ()))} instances cannot start",
                            IMAGE_LOST,
                            f"/1.0/images/{fingerprint}",
                        )
                    )
                    continue
                self._ready.add(fingerprint)
            elif _FINGERPRINT.match(name) and f"{name}.squashfs" not in names:
                if os.listdir(f"{self._directory}/{name}"):
                    self._ready.add(name)
                else:
                    # Half-made or half-removed: a mount point without its file.
                    os.rmdir(f"{self._directory}/{name}")
        for name in names:
            if name.endswith(".dropped"):
                fingerprint = name.removesuffix(".dropped")
                self._dropped.add(fingerprint)
                if not users.get(fingerprint):
                    self._remove(fingerprint)
        for fingerprint in set(users) - self._ready:
            if f"{fingerprint}.squashfs" not in names:
                self._warn(
                    Notice(
                        f"Pool {self._pool}: image {fingerprint[:12]} of {sorted(users[fingerprint])} is missing",
                        IMAGE_LOST,
                        f"/1.0/images/{fingerprint}",
                    )
                )

    def unmount(self) -> None:
        """Takes every mount off, for a pool that goes. Blocks."""
        with contextlib.suppress(FileNotFoundError):
            # All that are there: the daemon that mounted them may have been another.
            for name in filter(_FINGERPRINT.match, os.listdir(self._directory)):
                self._unmount(name)
                with contextlib.suppress(OSError):
                    os.rmdir(f"{self._directory}/{name}")  # where a daemon that was killed was about to mount one
        self._ready.clear()

    def _make(self, image: ImageFiles) -> None:
        fingerprint, short = image.fingerprint, image.fingerprint[:12]
        with files.disk_errors(f"Put image {short}", self._pool, self._source):
            if image.kind == "squashfs" and self._mounts and self._make_mount(image):
                return
            temporary = f"{self._source}/tmp/image-{secrets.token_hex(8)}"
            os.mkdir(temporary, 0o700)
            # In a directory of its own, so that the image's own mode does not open the door while it fills.
            tree = f"{temporary}/tree"
            try:
                self._trees._tree_make(tree)
                what = f"Cannot unpack image {short}"
                if image.kind == "squashfs":
                    unpack.unpack_squashfs(image.rootfs, tree, what)
                else:
                    unpack.unpack_tar(image.rootfs, tree, what, "rootfs" if image.kind == "unified" else "")
                files.sync(tree)
                os.rename(tree, f"{self._directory}/{fingerprint}")
                self._trees._tree_freeze(f"{self._directory}/{fingerprint}")
            finally:
                self._trees._tree_remove(temporary)

    def _make_mount(self, image: ImageFiles) -> bool:
        """False where it has to be unpacked: no loop device, a compression or id maps this kernel cannot do."""
        global _squashfs_idmaps
        if _squashfs_idmaps is False:
            return False
        fingerprint = image.fingerprint
        temporary = f"{self._source}/tmp/image-{secrets.token_hex(8)}"
        with contextlib.ExitStack() as undo:
            files.link_or_copy(image.rootfs, temporary)
            os.rename(temporary, self._squashfs(fingerprint))
            undo.callback(os.unlink, self._squashfs(fingerprint))
            try:
                self._mount(fingerprint)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                with contextlib.suppress(FileNotFoundError):
                    os.rmdir(f"{self._directory}/{fingerprint}")
                return False
            undo.callback(self._unmount, fingerprint)
            if _squashfs_idmaps is None:
                _squashfs_idmaps = idmap.supports_idmap(f"{self._directory}/{fingerprint}")
                if not _squashfs_idmaps:
                    return False
            undo.pop_all()
        return True

    def _mount(self, fingerprint: str) -> None:
        target = f"{self._directory}/{fingerprint}"
        with contextlib.suppress(FileExistsError):
            os.mkdir(target, 0o700)
        if not mounts.is_mounted(target):
            with loop.attach(self._squashfs(fingerprint)) as device:
                libc.mount(device, target, "squashfs", _MOUNT_FLAGS)

    def _unmount(self, fingerprint: str) -> None:
        target = f"{self._directory}/{fingerprint}"
        if mounts.is_mounted(target):
            # Lazily: who still looks at a file of it keeps it until then.
            libc.umount2(target, libc.MNT_DETACH)
            os.rmdir(target)

    def _remove(self, fingerprint: str) -> None:
        self._ready.discard(fingerprint)
        with files.disk_errors(f"Delete image {fingerprint[:12]}", self._pool, self._source):
            # The marker goes last: wherever this is cut off, the next start goes on with it.
            self._unmount(fingerprint)
            if os.path.exists(f"{self._directory}/{fingerprint}"):
                self._discard(f"{self._directory}/{fingerprint}")
            for path in (self._squashfs(fingerprint), self._marker(fingerprint)):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
            self._dropped.discard(fingerprint)

    def _squashfs(self, fingerprint: str) -> str:
        return f"{self._directory}/{fingerprint}.squashfs"

    def _marker(self, fingerprint: str) -> str:
        return f"{self._directory}/{fingerprint}.dropped"

    def _lock(self, fingerprint: str) -> asyncio.Lock:
        return self._locks.setdefault(fingerprint, asyncio.Lock())

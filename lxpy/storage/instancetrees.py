"""Instances on a pool: their root file systems, snapshots and copies of them; the part that all drivers share.

On the disk::

    instances/VOLUME/rootfs               the root, owners 0-based; or, over an image:
    instances/VOLUME/{upper,work,lower}   its layers; ``lower`` is a link to the image, work/index belongs to ``upper``
    instances/VOLUME/metadata.json        of the image, for its templates
    instances/VOLUME/backup.yaml          the configuration, written by whoever manages instances
    instances/VOLUME/snapshots/NAME/      ``rootfs`` or layers, and ``metadata.json``, as they were
    instances/VOLUME/swap/                the same of a new root, while it is moved into its place

A driver says how a tree is copied (trees.py), and how a root is, where that is more than one tree (`_root_copy`). For
the image cache a snapshot uses its image under the name ``VOLUME/NAME``.
"""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

from lxpy.api.errors import Conflict, NotFound
from lxpy.runtime.spec import Root
from lxpy.storage import files, treesync
from lxpy.storage.imagecache import ImageCache
from lxpy.storage.trees import Trees, checked, finish, open_directory, rename_new

_ROOT = ("upper", "work", "lower", "rootfs")  # what a root may be made of, in the order it is exchanged
_KEPT = "metadata.json"
_GRAIN = 1_000_000_000  # ns: file systems' clocks tick slower than ours (every 4 or 10 ms)
_SWAP = "swap"  # below a volume's directory: a new root on its way into its place


Still = Callable[[], AbstractAsyncContextManager[None]]


class InstanceSource(Protocol):
    """What instances can be copied from: a pool."""

    def instance_snapshots(self, volume: str) -> list[str]: ...

    def instance_image(self, volume: str, snapshot: str = "") -> str | None: ...

    def instance_layers(self, volume: str, snapshot: str = "") -> str: ...

    def open_root(self, volume: str) -> AbstractContextManager[int]: ...

    def open_snapshot(self, volume: str, snapshot: str) -> AbstractContextManager[int]: ...


class InstanceTrees(Trees):
    """Mixed into the pools. Volumes are named ``qualified(project, name)``, snapshots by their bare name."""

    copies_slowly = False
    images: ImageCache
    _image_of: dict[str, str | None]

    # What a driver may do better. All of these block.

    def _build(self, directory: str, fingerprint: str | None) -> None:
        """Fill the new, empty directory of a volume."""
        raise NotImplementedError

    def _uses_image(self, directory: str) -> str | None:
        """The fingerprint that the directory of a volume or snapshot names as its lower layer."""
        return None

    def _root_copy(self, source: str, target: str, *, frozen: bool = False) -> None:
        """Put the root of the volume or snapshot in the directory `source` into the directory `target`.

        Args:
            frozen: nobody writes to it any more.
        """
        if frozen:
            self._tree_snapshot(f"{source}/rootfs", f"{target}/rootfs")
            self._tree_freeze(f"{target}/rootfs")
        else:
            self._tree_copy(f"{source}/rootfs", f"{target}/rootfs")

    def _root_update(self, source: str, target: str, base: str) -> None:
        """As `_root_copy`, where the root in the directory `base` may have much in common with it."""
        if not os.path.isdir(f"{base}/rootfs"):
            self._root_copy(source, target)
            return
        self._tree_make(f"{target}/rootfs")
        treesync.build(f"{source}/rootfs", f"{target}/rootfs", f"{base}/rootfs")

    # Reading.

    def root(self, volume: str) -> Root:
        """What the runtime needs to make the root file system."""
        return plain_root(f"{self._existing(volume)}/rootfs")

    def open_root(self, volume: str) -> AbstractContextManager[int]:
        """A directory descriptor of a stopped instance's root, owners 0-based.

        Raises:
            Conflict: it is in use by a running instance.
        """
        return open_directory(f"{self._existing(volume)}/rootfs")

    def open_snapshot(self, volume: str, snapshot: str) -> AbstractContextManager[int]:
        """The same of a snapshot, complete and only to be read."""
        return open_directory(f"{self._snapshot_dir(volume, snapshot)}/rootfs")

    def volumes(self) -> list[str]:
        return sorted(self._image_of)

    def instance_dir(self, volume: str) -> str:
        """The host's own directory of the volume; ``backup.yaml`` lies in it."""
        return self._path(volume)

    def instance_snapshots(self, volume: str) -> list[str]:
        """Names, sorted. Raises `NotFound`."""
        return self._snapshots(self._existing(volume))

    def _snapshots(self, directory: str) -> list[str]:
        try:
            return sorted(os.listdir(f"{directory}/snapshots"))
        except FileNotFoundError:
            return []

    def instance_image(self, volume: str, snapshot: str = "") -> str | None:
        """The fingerprint of the image that the root lies over; None where it is complete in itself."""
        return self._uses_image(self.instance_layers(volume, snapshot))

    def instance_layers(self, volume: str, snapshot: str = "") -> str:
        """The directory with the parts of the root of a volume or snapshot. Raises `NotFound`."""
        return self._snapshot_dir(volume, snapshot) if snapshot else self._existing(volume)

    def instance_limit(self, volume: str) -> int | None:
        self._existing(volume)
        return None

    async def limit_instance(self, volume: str, size: int | None) -> None:
        path = f"{self._existing(volume)}/rootfs"
        with files.disk_errors(f"Limit volume {volume}", self.name, self.source):
            await asyncio.to_thread(self._tree_limit, path, size)

    def usage(self, volume: str) -> int | None:
        return None

    def snapshot_usage(self, volume: str, snapshot: str) -> int | None:
        """Bytes a snapshot alone takes, None where the driver cannot tell without walking it."""
        return self._tree_usage(f"{self._snapshot_dir(volume, snapshot)}/rootfs")

    async def measure(self, volume: str) -> int:
        """Bytes the volume takes, by walking it: for the page of one instance, never for a list."""
        with files.disk_errors(f"Measure volume {volume}", self.name, self.source):
            return await asyncio.to_thread(files.disk_usage, self._existing(volume))

    # Volumes.

    async def create_instance(self, volume: str, fingerprint: str | None) -> None:
        """Make a volume from an image that `ensure_image` has put here, or an empty one.

        Raises:
            Conflict: the name is taken. NotFound: the image is not here.
        """
        if fingerprint and volume not in self._image_of:
            self.images.tree(fingerprint)
        await self._new(volume, fingerprint, {}, lambda directory: self._build(directory, fingerprint))

    async def _new(
        self, volume: str, fingerprint: str | None, snapshots: dict[str, str | None], build: Callable[[str], None]
    ) -> None:
        """A new volume.

        Args:
            fingerprint: of the image it uses.
            snapshots: the images that its snapshots use.
            build: fills its (new, empty) directory.
        """
        target = self._path(volume)
        if volume in self._image_of:
            raise Conflict(f"Volume {volume!r} already exists on pool {self.name!r}")
        self._image_of[volume] = fingerprint
        users = {volume: fingerprint} | {f"{volume}/{name}": image for name, image in snapshots.items()}
        for user, image in users.items():
            if image:
                self.images.use(image, user)

        def whole(directory: str) -> None:
            os.mkdir(directory, 0o700)
            build(directory)

        try:
            # Seen through by a caller that is cancelled: no thread stays that makes the volume after all.
            await self._make(target, whole, f"Create volume {volume}", f"Volume {volume!r}")
        except asyncio.CancelledError:
            await self.delete_instance(volume)
            raise
        except BaseException:
            self._image_of.pop(volume, None)
            await self._unuse(users)
            raise
        self._image_of[volume] = self._uses_image(target)
        await self._unuse({user: image for user, image in users.items() if user not in self._users(volume)})

    async def delete_instance(self, volume: str) -> None:
        """Delete a volume and its snapshots; none of that name is fine.

        The name is free when this returns, the space soon after.
        """
        path = self._path(volume)
        gone, users = self._gone(), self._users(volume)
        with files.disk_errors(f"Delete volume {volume}", self.name, self.source):
            try:
                os.rename(path, gone)
                self._delete_later(gone)
            except FileNotFoundError:
                pass
        self._image_of.pop(volume, None)
        await self._unuse(users)

    async def rename_instance(self, old: str, new: str) -> None:
        source, target = self._existing(old), self._path(new)
        if new in self._image_of:
            raise Conflict(f"Volume {new!r} already exists on pool {self.name!r}")
        before = self._users(old)
        with files.disk_errors(f"Rename volume {old}", self.name, self.source):
            os.rename(source, target)
        self._image_of[new] = self._image_of.pop(old)
        for user, fingerprint in self._users(new).items():
            self.images.use(fingerprint, user)
        await self._unuse(before)

    async def copy_instance(
        self, source: str, target: str, *, snapshots: bool | list[str] = True, from_snapshot: str | None = None
    ) -> None:
        """A second volume like `source` on this pool. It has no size of its own yet.

        Args:
            snapshots: those to take along; True for all.
            from_snapshot: copy that snapshot instead of the root; with it True stands for no snapshots.

        Raises:
            Conflict: the name is taken. NotFound: the source, or one of the snapshots, is not here.
        """
        names, origin = _wanted(self, source, snapshots, from_snapshot)
        places = {name: self._snapshot_dir(source, name) for name in names}
        layers = self.instance_layers(source, origin)

        def build(directory: str) -> None:
            for name, place in places.items():
                self._copy_parts(place, _below(directory, name), frozen=True)
            self._copy_parts(layers, directory)

        used = {name: self._uses_image(place) for name, place in places.items()}
        await self._new(target, self._uses_image(layers), used, build)

    async def receive_instance(
        self,
        volume: str,
        source: InstanceSource,
        source_volume: str,
        *,
        snapshots: bool | list[str] = True,
        from_snapshot: str | None = None,
    ) -> None:
        """As `copy_instance`, from a volume of another pool (of any driver), which must not be running.

        Over an image that this pool has too, only the layer above it is copied; else the whole root.
        """
        names, origin = _wanted(source, source_volume, snapshots, from_snapshot)
        used = {name: self._shared_image(source, source_volume, name) for name in names}
        image = self._shared_image(source, source_volume, origin)

        def build(directory: str) -> None:
            for name in names:
                self._receive(source, source_volume, name, _below(directory, name), used[name], frozen=True)
            self._receive(source, source_volume, origin, directory, image)

        await self._new(volume, image, used, build)

    def _shared_image(self, source: InstanceSource, volume: str, snapshot: str) -> str | None:
        """The image of a root of another pool, if its layers can be used here as they are."""
        return None

    def _receive(
        self, source: InstanceSource, volume: str, snapshot: str, directory: str, image: str | None,
        *, frozen: bool = False, base: str = "",
    ) -> None:  # fmt: skip
        place = source.instance_layers(volume, snapshot)
        if image:
            self._copy_parts(place, directory, frozen=frozen)
            return
        opened = source.open_snapshot(volume, snapshot) if snapshot else source.open_root(volume)
        with opened as fd:
            self._tree_make(f"{directory}/rootfs")
            if os.path.isdir(base):
                treesync.build(f"/proc/{os.getpid()}/fd/{fd}", f"{directory}/rootfs", base)
            else:
                files.copy_tree(f"/proc/{os.getpid()}/fd/{fd}/.", f"{directory}/rootfs")
        if frozen:
            self._tree_freeze(f"{directory}/rootfs")
        _keep(place, directory)

    def _copy_parts(self, source: str, target: str, *, frozen: bool = False) -> None:
        self._root_copy(source, target, frozen=frozen)
        _keep(source, target)

    # Snapshots. Whoever manages instances sees to it that a volume has one of these at a time.

    async def snapshot_instance(self, volume: str, snapshot: str, *, still: Still | None = None) -> None:
        """Keep what the root holds now.

        Args:
            still: of a running instance, which stands still within; what takes long and can be done before, is.

        Raises:
            Conflict: it has a snapshot of that name.
        """
        if still is None:
            await self._snapshot(volume, snapshot, "", 0)
        elif not self.copies_slowly:
            async with still():
                await self._snapshot(volume, snapshot, "", 0)
        else:
            # A first copy of the root while it changes; what has changed since is copied again when it stands still.
            first, rootfs = self._temporary(), f"{self._existing(volume)}/rootfs"
            since = time.time_ns() - _GRAIN
            try:
                with files.disk_errors(f"Snapshot volume {volume}", self.name, self.source):
                    # Pages that are clean tell the time of the next change to them, even by mmap.
                    await asyncio.to_thread(files.sync, rootfs)
                    await finish(asyncio.to_thread(files.copy_tree, rootfs, first, changing=True))
                async with still():
                    await self._snapshot(volume, snapshot, first, since)
            finally:
                await finish(asyncio.to_thread(self._give_up, first))

    def _give_up(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._discard_later(path)

    async def _snapshot(self, volume: str, snapshot: str, first: str, since: int) -> None:
        directory = self._existing(volume)
        target = f"{directory}/snapshots/{checked(snapshot)}"

        def build(path: str) -> None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{directory}/snapshots", 0o700)
            os.mkdir(path, 0o700)
            if first:
                os.mkdir(f"{path}/rootfs", 0o700)
                treesync.build(f"{directory}/rootfs", f"{path}/rootfs", first, since)
                _keep(directory, path)
            else:
                self._copy_parts(directory, path, frozen=True)

        await self._make(target, build, f"Snapshot volume {volume}", f"Snapshot {snapshot!r} of volume {volume!r}")
        if fingerprint := self._uses_image(target):
            self.images.use(fingerprint, f"{volume}/{snapshot}")

    async def rebuild_instance(self, volume: str, fingerprint: str | None) -> None:
        """Make the root of a stopped instance that of a new one, of an image that is here or empty.

        A root of several parts is exchanged part by part: after a crash, do it again.
        """
        await self._exchange(
            volume, f"Rebuild volume {volume}", fingerprint, lambda path: self._build(path, fingerprint)
        )

    async def set_aside_instance(self, volume: str, snapshot: str) -> None:
        """Make of what a (complete) root holds a snapshot, and the root empty: for one that is being unpacked.

        Not in one step: whoever is making the volume deletes it after a crash.
        """
        directory = self._existing(volume)
        target = f"{directory}/snapshots/{checked(snapshot)}"

        def build(path: str) -> None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{directory}/snapshots", 0o700)
            os.mkdir(path, 0o700)
            os.rename(f"{directory}/rootfs", f"{path}/rootfs")
            self._tree_freeze(f"{path}/rootfs")
            self._build(directory, None)

        await self._make(target, build, f"Snapshot volume {volume}", f"Snapshot {snapshot!r} of volume {volume!r}")

    async def delete_instance_snapshot(self, volume: str, snapshot: str) -> None:
        """Delete a snapshot; none of that name is fine."""
        with contextlib.suppress(NotFound), self._emptied(volume):
            path, gone = self._snapshot_dir(volume, snapshot), self._gone()
            fingerprint = self._uses_image(path)
            with files.disk_errors(f"Delete snapshot {snapshot} of volume {volume}", self.name, self.source):
                os.rename(path, gone)
                self._delete_later(gone)
            if fingerprint:
                await self._unuse({f"{volume}/{snapshot}": fingerprint})

    @contextlib.contextmanager
    def _emptied(self, volume: str) -> Iterator[None]:
        """Takes the directory of the snapshots away with the last of them."""
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(f"{self._path(volume)}/snapshots")

    async def rename_instance_snapshot(self, volume: str, old: str, new: str) -> None:
        """Raises `NotFound`, `Conflict`."""
        source = self._snapshot_dir(volume, old)
        target = f"{os.path.dirname(source)}/{checked(new)}"
        fingerprint = self._uses_image(source)
        with self._naming(f"Rename snapshot {old}", f"Snapshot {new!r} of volume {volume!r}"):
            rename_new(source, target)
        if fingerprint:
            self.images.use(fingerprint, f"{volume}/{new}")
            await self._unuse({f"{volume}/{old}": fingerprint})

    async def restore_instance(self, volume: str, snapshot: str) -> None:
        """Make the root of a stopped instance what it was; the snapshot stays.

        The parts of a root are moved one by one: what a crash leaves to be moved, the next start moves.
        """
        source = self._snapshot_dir(volume, snapshot)

        def fill(directory: str) -> None:
            self._copy_parts(source, directory)

        await self._exchange(volume, f"Restore volume {volume}", self._uses_image(source), fill)

    async def _exchange(self, volume: str, doing: str, after: str | None, fill: Callable[[str], None]) -> None:
        """Puts what `fill` makes, over the image `after`, in the place of a volume's root."""
        directory, temporary = self._existing(volume), self._temporary()
        before = self._image_of[volume]
        if after:
            self.images.use(after, volume)

        def work() -> None:
            with contextlib.ExitStack() as undo:
                os.mkdir(temporary, 0o700)
                undo.callback(self._tree_remove, temporary)
                fill(temporary)
                if os.path.exists(f"{temporary}/rootfs") and os.path.exists(f"{directory}/rootfs"):
                    self._tree_replaces(f"{temporary}/rootfs", f"{directory}/rootfs")
                os.rename(temporary, f"{directory}/{_SWAP}")
                undo.pop_all()
            self._swap(directory)

        try:
            with files.disk_errors(doing, self.name, self.source):
                await finish(asyncio.to_thread(work))
        finally:
            now = self._image_of[volume] = self._uses_image(directory)
            for image in {before, after} - {now}:
                await self._unuse({volume: image})

    def _swap(self, directory: str) -> None:
        """Moves the parts of a new root from ``swap`` into their places, as far as they are not there. Blocks."""
        swap, gone = f"{directory}/{_SWAP}", self._gone()
        try:
            waiting = set(os.listdir(swap))
        except FileNotFoundError:
            return
        os.mkdir(gone, 0o700)
        # What is here in its place already belongs to the new root: it is no longer in swap, and moved in this order.
        layered = "lower" in waiting
        obsolete = {"rootfs"} if layered else {"upper", "work", "lower"} if "rootfs" in waiting else set()
        for part in (*_ROOT, _KEPT):
            if (part in waiting or part in obsolete) and os.path.lexists(f"{directory}/{part}"):
                os.rename(f"{directory}/{part}", f"{gone}/{part}")
        for part in (*_ROOT, _KEPT):
            if part in waiting:
                os.rename(f"{swap}/{part}", f"{directory}/{part}")
        os.rmdir(swap)
        self._discard_later(gone)

    # Bringing a copy up to date.

    async def refresh_instance(
        self, volume: str, source: InstanceSource, source_volume: str, *, from_snapshot: str | None = None
    ) -> None:
        """Make the root of a stopped instance like one of this pool or another, which must not be running.

        What is the same in both is not copied again.
        """
        origin = from_snapshot or ""
        place, directory = source.instance_layers(source_volume, origin), self._existing(volume)
        look = self.instance_image(source_volume, origin) if source is self else None
        image = look or self._shared_image(source, source_volume, origin)

        def fill(fresh: str) -> None:
            if source is self or image:
                self._root_update(place, fresh, directory)
                _keep(place, fresh)
            else:
                self._receive(source, source_volume, origin, fresh, None, base=f"{directory}/rootfs")

        await self._exchange(volume, f"Refresh volume {volume}", image, fill)

    async def receive_instance_snapshot(
        self, volume: str, source: InstanceSource, source_volume: str, snapshot: str
    ) -> None:
        """A snapshot like one of another volume, of this pool or another."""
        directory = self._existing(volume)
        target = f"{directory}/snapshots/{checked(snapshot)}"
        image = self._shared_image(source, source_volume, snapshot)
        place = source.instance_layers(source_volume, snapshot)

        def build(path: str) -> None:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{directory}/snapshots", 0o700)
            os.mkdir(path, 0o700)
            if source is self:
                self._copy_parts(place, path, frozen=True)
            else:
                self._receive(source, source_volume, snapshot, path, image, frozen=True)

        await self._make(target, build, f"Copy snapshot {snapshot}", f"Snapshot {snapshot!r} of volume {volume!r}")
        if fingerprint := self._uses_image(target):
            self.images.use(fingerprint, f"{volume}/{snapshot}")

    # Helpers.

    def _users(self, volume: str) -> dict[str, str]:
        """The fingerprints of the images that a volume and its snapshots use, by the name that uses them."""
        found = {volume: self._image_of.get(volume)}
        with contextlib.suppress(OSError):
            path = self._path(volume)
            found |= {
                f"{volume}/{name}": self._uses_image(f"{path}/snapshots/{name}") for name in self._snapshots(path)
            }
        return {user: fingerprint for user, fingerprint in found.items() if fingerprint}

    async def _unuse(self, users: "dict[str, str] | dict[str, str | None]") -> None:
        for user, fingerprint in users.items():
            if fingerprint and (last := self.images.unuse(fingerprint, user)) is not None:
                await last

    def _path(self, volume: str) -> str:
        self._here()
        return f"{self.source}/instances/{checked(volume)}"

    def _existing(self, volume: str) -> str:
        path = self._path(volume)
        if volume not in self._image_of:
            raise NotFound(f"Volume {volume!r} not found on pool {self.name!r}")
        return path

    def _snapshot_dir(self, volume: str, snapshot: str) -> str:
        path = f"{self._existing(volume)}/snapshots/{checked(snapshot)}"
        if not os.path.isdir(path):
            raise NotFound(f"Snapshot {snapshot!r} of volume {volume!r} not found on pool {self.name!r}")
        return path

    def _discard_later(self, path: str) -> None:
        raise NotImplementedError


def plain_root(path: str) -> Root:
    return {"kind": "dir", "lower": "", "upper": "", "work": "", "path": path}


def _wanted(
    source: InstanceSource, volume: str, snapshots: bool | list[str], from_snapshot: str | None
) -> tuple[list[str], str]:  # fmt: skip
    """The snapshots to copy, and the one that is copied as the root ("": the root itself)."""
    if snapshots is True:
        snapshots = [] if from_snapshot else source.instance_snapshots(volume)
    return snapshots or [], from_snapshot or ""


def _below(directory: str, snapshot: str) -> str:
    """The new directory of a snapshot."""
    path = f"{directory}/snapshots/{snapshot}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(f"{directory}/snapshots", 0o700)
    os.mkdir(path, 0o700)
    return path


def _keep(source: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(f"{source}/{_KEPT}", f"{target}/{_KEPT}")

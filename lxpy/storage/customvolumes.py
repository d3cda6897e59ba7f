"""Custom volumes as trees below a pool's directory, and their snapshots: the part that all drivers share.

On the disk::

    custom/VOLUME/data              what is mounted into instances, owners 0-based
    custom/VOLUME/snapshots/NAME    trees like ``data``
    custom/VOLUME/backup.yaml       the volume's configuration, written by whoever manages volumes

How a tree is made, copied, frozen and removed, and put into its place in one step: trees.py.
"""

import asyncio
import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

from lxpy.api.errors import NotFound
from lxpy.storage import files
from lxpy.storage.trees import Trees, checked, finish, open_directory, rename_new


class VolumeSource(Protocol):
    """What volumes can be copied from: a pool."""

    def volume_snapshots(self, volume: str) -> list[str]: ...

    def volume_path(self, volume: str) -> str: ...

    def volume_snapshot_path(self, volume: str, snapshot: str) -> str: ...


class CustomVolumes(Trees):
    """Mixed into the pools. Volumes are named ``qualified(project, name)``, snapshots by their bare name."""

    # Reading.

    def custom_volumes(self) -> list[str]:
        """By name; none while the pool is away."""
        try:
            return sorted(os.listdir(f"{self.source}/custom"))
        except OSError:
            return []

    def volume_snapshots(self, volume: str) -> list[str]:
        """Names, sorted. Raises `NotFound`."""
        try:
            return sorted(os.listdir(f"{self.volume_dir(volume)}/snapshots"))
        except FileNotFoundError:
            return []

    def volume_dir(self, volume: str) -> str:
        """The host's own directory of a volume, for ``backup.yaml``. Raises `NotFound`."""
        path = self._volume(volume)
        if not os.path.isdir(path):
            raise NotFound(f"Volume {volume!r} not found on pool {self.name!r}")
        return path

    def volume_path(self, volume: str) -> str:
        """The directory to be mounted (id-mapped) into instances. Raises `NotFound`."""
        return f"{self.volume_dir(volume)}/data"

    def volume_snapshot_path(self, volume: str, snapshot: str) -> str:
        """The same of a snapshot, never to be written to. Raises `NotFound`."""
        path = f"{self.volume_dir(volume)}/snapshots/{checked(snapshot)}"
        if not os.path.isdir(path):
            raise NotFound(f"Snapshot {snapshot!r} of volume {volume!r} not found on pool {self.name!r}")
        return path

    def open_volume(self, volume: str) -> AbstractContextManager[int]:
        """A descriptor of the volume's directory, owners 0-based."""
        return open_directory(self.volume_path(volume))

    async def volume_usage(self, volume: str) -> int | None:
        """Bytes the volume itself takes (without its snapshots), None where the driver cannot tell cheaply."""
        return await asyncio.to_thread(self._tree_usage, self.volume_path(volume))

    # Writing. Whoever manages volumes sees to it that a volume has one of these at a time.

    async def create_volume(self, volume: str, size: int | None = None) -> None:
        """Make an empty volume, limited to `size` bytes.

        Raises:
            Conflict: the name is taken. BadRequest: the pool cannot limit sizes.
        """

        def build(directory: str) -> None:
            self._tree_make(f"{directory}/data")
            if size is not None:
                self._tree_limit(f"{directory}/data", size)

        await self._make_volume(volume, build)

    async def copy_volume(self, source: str, target: str, *, snapshots: bool = True) -> None:
        """A second volume like `source` on this pool, with its snapshots or without. It has no size of its own yet."""
        data = self.volume_path(source)
        names = self.volume_snapshots(source) if snapshots else []
        places = {name: self.volume_snapshot_path(source, name) for name in names}

        def build(directory: str) -> None:
            for name, place in places.items():
                self._tree_snapshot(place, f"{directory}/snapshots/{name}")
            self._tree_copy(data, f"{directory}/data")

        await self._make_volume(target, build)

    async def receive_volume(
        self, volume: str, source: VolumeSource, source_volume: str, *, snapshots: bool = True
    ) -> None:
        """As `copy_volume`, from a volume of another pool (of any driver), file by file."""
        data = source.volume_path(source_volume)
        names = source.volume_snapshots(source_volume) if snapshots else []
        places = {name: source.volume_snapshot_path(source_volume, name) for name in names}

        def build(directory: str) -> None:
            for name, place in places.items():
                self._fill(place, f"{directory}/snapshots/{name}")
            self._fill(data, f"{directory}/data")

        await self._make_volume(volume, build)

    def _fill(self, place: str, target: str) -> None:
        self._tree_make(target)
        files.copy_tree(place, target)

    async def receive_volume_snapshot(
        self, volume: str, source: VolumeSource, source_volume: str, snapshot: str
    ) -> None:
        """A snapshot like one of another volume, of this pool or another. Raises `Conflict`: there is one."""
        place = source.volume_snapshot_path(source_volume, snapshot)
        target = f"{self.volume_dir(volume)}/snapshots/{checked(snapshot)}"

        def build(path: str) -> None:
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            (self._tree_snapshot if source is self else self._fill)(place, path)

        await self._make(target, build, f"Copy snapshot {snapshot}", f"Snapshot {snapshot!r} of volume {volume!r}")
        await asyncio.to_thread(self._tree_freeze, target)

    async def refresh_volume(self, volume: str, source: VolumeSource, source_volume: str, snapshot: str = "") -> None:
        """Make a volume, on which nothing is mounted, like another of any pool, or like a snapshot of that.

        Nobody may write to the other meanwhile. What is the same in both is not copied again.
        """
        data = self.volume_path(volume)
        place = source.volume_snapshot_path(source_volume, snapshot) if snapshot else source.volume_path(source_volume)
        with files.disk_errors(f"Refresh volume {volume}", self.name, self.source):
            await finish(asyncio.to_thread(self._replace, data, place, near=True))

    async def delete_volume(self, volume: str) -> None:
        """Delete a volume and its snapshots; none of that name is fine. The space comes back soon after."""
        path, gone = self._volume(volume), self._gone()
        doing = f"Delete volume {volume}"
        with files.disk_errors(doing, self.name, self.source), contextlib.suppress(FileNotFoundError):
            os.rename(path, gone)
            self._delete_later(gone)

    async def rename_volume(self, old: str, new: str) -> None:
        """Raises `NotFound`, `Conflict`."""
        source, target = self.volume_dir(old), self._volume(new)
        with self._naming(f"Rename volume {old}", f"Volume {new!r}"):
            rename_new(source, target)

    async def set_volume_size(self, volume: str, size: int | None) -> None:
        """Limit what a volume may hold, at once; None lifts the limit.

        Raises:
            BadRequest: the pool cannot, or the volume holds more already.
        """
        path = self.volume_path(volume)
        with files.disk_errors(f"Resize volume {volume}", self.name, self.source):
            await asyncio.to_thread(self._tree_limit, path, size)

    async def snapshot_volume(self, volume: str, snapshot: str) -> None:
        """Keep what a volume holds now. Raises `Conflict`: it has a snapshot of that name."""
        data = self.volume_path(volume)
        target = f"{self.volume_dir(volume)}/snapshots/{checked(snapshot)}"

        def build(path: str) -> None:
            os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
            self._tree_snapshot(data, path)

        await self._make(
            target, build, f"Snapshot volume {volume}", f"Snapshot {snapshot!r} of volume {volume!r}"
        )  # fmt: skip
        await asyncio.to_thread(self._tree_freeze, target)

    async def set_aside_volume(self, volume: str, snapshot: str) -> None:
        """Make of what a volume holds a snapshot, and the volume empty: for one that is being unpacked.

        Not in one step: whoever is making the volume deletes it after a crash.
        """
        data, directory = self.volume_path(volume), self.volume_dir(volume)
        target = f"{directory}/snapshots/{checked(snapshot)}"

        def build(path: str) -> None:
            os.rename(data, path)
            self._tree_make(data)

        await self._make(target, build, f"Snapshot volume {volume}", f"Snapshot {snapshot!r} of volume {volume!r}")
        await asyncio.to_thread(self._tree_freeze, target)

    async def delete_volume_snapshot(self, volume: str, snapshot: str) -> None:
        """Delete a snapshot; none of that name is fine."""
        with contextlib.suppress(NotFound):
            path = self.volume_snapshot_path(volume, snapshot)
            gone = self._gone()
            with files.disk_errors(f"Delete snapshot {snapshot} of volume {volume}", self.name, self.source):
                self._tree_thaw(path)
                os.rename(path, gone)
                self._delete_later(gone)

    async def rename_volume_snapshot(self, volume: str, old: str, new: str) -> None:
        """Raises `NotFound`, `Conflict`."""
        source = self.volume_snapshot_path(volume, old)
        target = f"{os.path.dirname(source)}/{checked(new)}"
        with self._naming(f"Rename snapshot {old}", f"Snapshot {new!r} of volume {volume!r}"):
            rename_new(source, target)

    async def restore_volume(self, volume: str, snapshot: str) -> None:
        """Make a volume, on which nothing is mounted, what it was; the snapshot stays."""
        source, data = self.volume_snapshot_path(volume, snapshot), self.volume_path(volume)

        def work() -> None:
            self._replace(data, source)

        with files.disk_errors(f"Restore volume {volume}", self.name, self.source):
            await finish(asyncio.to_thread(work))

    async def _make_volume(self, volume: str, build: Callable[[str], None]) -> None:
        target = self._volume(volume)

        def whole(directory: str) -> None:
            os.mkdir(directory, 0o700)
            os.mkdir(f"{directory}/snapshots", 0o700)
            build(directory)
            for name in os.listdir(f"{directory}/snapshots"):
                self._tree_freeze(f"{directory}/snapshots/{name}")

        try:
            await self._make(target, whole, f"Create volume {volume}", f"Volume {volume!r}")
        except asyncio.CancelledError:
            await self.delete_volume(volume)
            raise

    def _volume(self, volume: str) -> str:
        self._here()
        return f"{self.source}/custom/{checked(volume)}"

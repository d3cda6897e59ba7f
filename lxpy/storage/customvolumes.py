"""Custom volumes as trees below a pool's directory, and their snapshots: the part that all drivers share.

On the disk::

    custom/VOLUME/data              what is mounted into instances, owners 0-based
    custom/VOLUME/snapshots/NAME    trees like ``data``
    custom/VOLUME/backup.yaml       the volume's configuration, written by whoever manages volumes

A driver says how a tree is made, copied, frozen and removed (the methods that begin with ``_tree_``). Everything is
made in ``tmp`` and renamed or exchanged into its place in one step.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.linux import libc
from lxpy.storage import files


class VolumeSource(Protocol):
    """What volumes can be copied from: a pool."""

    def volume_snapshots(self, volume: str) -> list[str]: ...

    def volume_path(self, volume: str) -> str: ...

    def volume_snapshot_path(self, volume: str, snapshot: str) -> str: ...


class CustomVolumes:
    """Mixed into the pools. Volumes are named ``qualified(project, name)``, snapshots by their bare name."""

    name: str
    driver: str
    source: str

    # What a driver may do better than with plain directories. All of these block.

    def _tree_make(self, path: str) -> None:
        """A new, empty tree of root's, 0711."""
        os.mkdir(path, 0o711)
        os.chmod(path, 0o711)  # whatever the umask says

    def _tree_copy(self, source: str, target: str) -> None:
        """A second tree of the same content that can be written; `target` does not exist."""
        files.copy_tree(source, target)

    def _tree_snapshot(self, source: str, target: str) -> None:
        """As `_tree_copy`, of a tree that may be in use; `target` is not written to any more."""
        self._tree_copy(source, target)

    def _tree_freeze(self, path: str) -> None:
        """Told of a snapshot that has come to its place."""

    def _tree_thaw(self, path: str) -> None:
        """Told of a snapshot that is about to be renamed or removed."""

    def _tree_remove(self, path: str, spare: str = "") -> None:
        """Whatever is at `path`, on which nothing is mounted; nothing there is fine. `spare`: see `remove_tree`."""
        files.remove_tree(path, spare or f"{self.source}/tmp")

    def _tree_limit(self, path: str, size: int | None) -> None:
        """Limit what a tree may hold, in bytes; None lifts the limit.

        Raises:
            BadRequest: this pool cannot.
        """
        self.check_size(size)

    def check_size(self, size: int | None) -> None:
        """Raises `BadRequest` where no tree can be limited to `size` bytes. None is fine everywhere."""
        if size is not None:
            raise BadRequest(
                f"size is not supported on pool {self.name}: the driver {self.driver} keeps no quotas; use a btrfs pool"
            )

    def _tree_replaces(self, path: str, old: str) -> None:
        """Told of a tree that is about to come into the place of another: its limit goes on."""

    def _tree_usage(self, path: str) -> int | None:
        """Bytes a tree takes, None where that would mean walking it."""
        return None

    def _here(self) -> None:
        raise NotImplementedError

    def _delete_later(self, path: str) -> None:
        raise NotImplementedError

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
        path = f"{self.volume_dir(volume)}/snapshots/{_checked(snapshot)}"
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

        def fill(place: str, target: str) -> None:
            self._tree_make(target)
            files.copy_tree(place, target)

        def build(directory: str) -> None:
            for name, place in places.items():
                fill(place, f"{directory}/snapshots/{name}")
            fill(data, f"{directory}/data")

        await self._make_volume(volume, build)

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
        target = f"{self.volume_dir(volume)}/snapshots/{_checked(snapshot)}"
        await self._snapshot(data, target, f"Snapshot volume {volume}", f"Snapshot {snapshot!r} of volume {volume!r}")

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
        target = f"{os.path.dirname(source)}/{_checked(new)}"
        with self._naming(f"Rename snapshot {old}", f"Snapshot {new!r} of volume {volume!r}"):
            rename_new(source, target)

    async def restore_volume(self, volume: str, snapshot: str) -> None:
        """Make a volume, on which nothing is mounted, what it was; the snapshot stays."""
        source, data = self.volume_snapshot_path(volume, snapshot), self.volume_path(volume)

        def work() -> None:
            self._replace(data, source)

        with files.disk_errors(f"Restore volume {volume}", self.name, self.source):
            await finish(asyncio.to_thread(work))

    # The shapes that volumes and instances share.

    async def _snapshot(self, source: str, target: str, doing: str, what: str) -> None:
        temporary = self._temporary()

        def work() -> None:
            with contextlib.ExitStack() as undo:
                undo.callback(self._tree_remove, temporary)
                self._tree_snapshot(source, temporary)
                os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
                rename_new(temporary, target)
                undo.pop_all()
            self._tree_freeze(target)

        with self._naming(doing, what):
            if os.path.exists(target):
                raise FileExistsError(errno.EEXIST, "", target)
            await finish(asyncio.to_thread(work))

    def _replace(self, tree: str, source: str) -> None:
        """Puts a copy of `source` in the place of `tree`, in one step. Blocks."""
        temporary = self._temporary()
        try:
            self._tree_copy(source, temporary)
            self._tree_replaces(temporary, tree)
            libc.renameat2(temporary, tree, libc.RENAME_EXCHANGE)
        finally:
            self._tree_remove(temporary)

    async def _make_volume(self, volume: str, build: Callable[[str], None]) -> None:
        target, temporary = self._volume(volume), self._temporary()

        def work() -> None:
            with contextlib.ExitStack() as undo:
                os.mkdir(temporary, 0o700)
                undo.callback(self._tree_remove, temporary)
                os.mkdir(f"{temporary}/snapshots", 0o700)
                build(temporary)
                rename_new(temporary, target)
                undo.pop_all()
            for name in os.listdir(f"{target}/snapshots"):
                self._tree_freeze(f"{target}/snapshots/{name}")

        with self._naming(f"Create volume {volume}", f"Volume {volume!r}"):
            if os.path.exists(target):
                raise FileExistsError(errno.EEXIST, "", target)
            try:
                await finish(asyncio.to_thread(work))
            except asyncio.CancelledError:
                await self.delete_volume(volume)
                raise

    @contextlib.contextmanager
    def _naming(self, doing: str, what: str) -> Any:
        with files.disk_errors(doing, self.name, self.source):
            try:
                yield
            except FileExistsError:
                raise Conflict(f"{what} already exists on pool {self.name!r}") from None

    def _temporary(self) -> str:
        return f"{self.source}/tmp/new-{secrets.token_hex(8)}"

    def _gone(self) -> str:
        return f"{self.source}/tmp/gone-{secrets.token_hex(8)}"

    def _volume(self, volume: str) -> str:
        self._here()
        return f"{self.source}/custom/{_checked(volume)}"


def _checked(name: str) -> str:
    """`name` if it can be that of a directory. Raises `BadRequest`."""
    if "/" in name or "\0" in name or name in ("", ".", "..") or len(os.fsencode(name)) > 255:
        raise BadRequest(f"Invalid volume name {name!r}")
    return name


def rename_new(source: str, target: str) -> None:
    """Rename to a name that nobody has. Raises `FileExistsError`."""
    libc.renameat2(source, target, libc.RENAME_NOREPLACE)


@contextlib.contextmanager
def open_directory(path: str) -> Any:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


async def finish(work: Awaitable[None]) -> None:
    """Awaits `work` to its end, even when cancelled meanwhile; the cancellation follows."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await task
        raise

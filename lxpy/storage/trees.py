"""Trees on a pool: how a driver makes, copies, freezes and removes one; the shapes in which changes of them come.

Volumes (customvolumes.py) and instances (instancetrees.py) are both made of trees. Everything is made in ``tmp`` and
renamed or exchanged into its place in one step.
"""

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api.errors import BadRequest, Conflict
from lxpy.linux import libc
from lxpy.storage import files, treesync


class Trees:
    """Mixed into the pools."""

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

    def _tree_update(self, source: str, target: str, base: str) -> None:
        """As `_tree_copy`, from any file system, where the tree `base` may have much in common with it."""
        self._tree_make(target)
        treesync.build(source, target, base)

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

    # Shapes.

    async def _make(self, target: str, build: Callable[[str], None], doing: str, what: str) -> None:
        """Has `build` (which blocks) make something at a path of which there is nothing yet; puts it at `target`.

        Whoever is cancelled meanwhile finds it made.

        Args:
            doing: for errors, such as ``Create volume v``.
            what: what `Conflict` says is there already.
        """
        temporary = self._temporary()

        def work() -> None:
            with contextlib.ExitStack() as undo:
                undo.callback(self._tree_remove, temporary)
                build(temporary)
                rename_new(temporary, target)
                undo.pop_all()

        with self._naming(doing, what):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "", target)
            await finish(asyncio.to_thread(work))

    def _replace(self, tree: str, source: str, *, near: bool = False) -> None:
        """Puts a copy of `source` in the place of `tree`, in one step. Blocks.

        Args:
            near: the two may have much in common.
        """
        temporary = self._temporary()
        try:
            if near:
                self._tree_update(source, temporary, tree)
            else:
                self._tree_copy(source, temporary)
            self._tree_replaces(temporary, tree)
            libc.renameat2(temporary, tree, libc.RENAME_EXCHANGE)
        finally:
            self._tree_remove(temporary)

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


def checked(name: str) -> str:
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

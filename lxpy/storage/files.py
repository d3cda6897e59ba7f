"""Copying and deleting whole trees, and saying what went wrong with a disk. Everything here blocks."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import yaml

from lxpy.api.errors import InternalError

_MAX_DEPTH = 48


@contextlib.contextmanager
def disk_errors(doing: str, pool: str, source: str) -> Iterator[None]:
    """Turns an `OSError` into the one line the user reads, e.g. ``doing="Create volume c1"``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message = f"{doing}: no space left on pool {pool} ({source})"
        else:
            where = f": {os.fsdecode(error.filename)}" if error.filename else ""
            message = f"{doing} on pool {pool}: {error.strerror}{where}"
        raise InternalError(message) from None


def copy_tree(source: str, target: str, *, changing: bool = False) -> None:
    """Copy a directory to the new directory `target` with owners, times, hard links, holes and all attributes.

    One ``cp``: a Debian tree (10 000 files, 200 MB) takes it 0.4 to 0.7 s on ext4, and it keeps the interpreter lock
    free. With reflinks (btrfs, xfs) it copies no data. On an ext4 without a journal it takes ten times as long just
    after many files were deleted: there the kernel will not reuse an inode for a while (``recently_deleted``).

    Args:
        changing: files of it may go meanwhile; they are left out.

    Raises:
        OSError: ENOSPC when the disk is full, EIO with cp's first complaint otherwise.
    """
    _cp(["-T", "--", source, target], target, lenient=changing)


def copy_trees(sources: list[str], directory: str) -> None:
    """As `copy_tree`, each below the existing `directory` under its own name; hard links between them stay, too."""
    _cp(["-t", directory, "--", *sources], directory)


def _cp(arguments: list[str], target: str, *, lenient: bool = False) -> None:
    done = subprocess.run(
        ["cp", "-a", "--reflink=auto", *arguments],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    )  # fmt: skip
    if done.returncode:
        text = done.stderr.decode(errors="replace").strip()
        for number in (errno.ENOSPC, errno.EDQUOT):
            if os.strerror(number) in text:
                raise OSError(number, os.strerror(number), target)
        if not lenient:
            raise OSError(errno.EIO, (text or "cp failed").splitlines()[0])


def remove_tree(path: str, spare: str) -> None:
    """Delete whatever is at `path`; nothing there is fine. Links are deleted, never followed.

    Args:
        spare: a directory of the same file system. A guest can nest directories deeper than any recursion or
            descriptor table: what lies too deep is moved up into it and deleted from there.
    """
    todo = [path]
    while todo:
        top = todo.pop()
        try:
            fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        except OSError:
            os.unlink(top)
            continue
        try:
            _empty(fd, 0, spare, todo)
        finally:
            os.close(fd)
        os.rmdir(top)


def _empty(dir_fd: int, depth: int, spare: str, todo: list[str]) -> None:
    with os.scandir(dir_fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if not is_directory:
            os.unlink(name, dir_fd=dir_fd)
        elif depth >= _MAX_DEPTH:
            moved = f"{spare}/deep-{secrets.token_hex(8)}"
            os.rename(name, moved, src_dir_fd=dir_fd)
            todo.append(moved)
        else:
            fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=dir_fd)
            try:
                _empty(fd, depth + 1, spare, todo)
            finally:
                os.close(fd)
            os.rmdir(name, dir_fd=dir_fd)


def link_or_copy(source: str, target: str) -> None:
    """A second name for an immutable file; on another file system a copy that is on the disk when we return."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK):
            raise
        with open(source, "rb") as old, open(target, "xb") as new:
            shutil.copyfileobj(old, new, 1 << 20)
            new.flush()
            os.fsync(new.fileno())


def write_yaml(path: str, content: dict[str, Any], *, durable: bool) -> None:
    """Replace a file by `content`, in one step.

    Args:
        durable: on the disk when this returns.
    """
    fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with open(fd, "w", encoding="utf-8") as file:
        yaml.dump(content, file, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
        if durable:
            file.flush()
            os.fsync(fd)
    os.rename(f"{path}.new", path)


def sync(path: str) -> None:
    """Wait until the file system of `path` has everything written (syncfs, in glibc and musl)."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
    finally:
        os.close(fd)


def disk_usage(path: str) -> int:
    """Bytes a tree takes on the disk, hard links counted once. Walks the whole tree."""
    total, seen, todo = os.lstat(path).st_blocks * 512, set(), [path]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if found.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if found.st_ino in seen:
                            continue
                        seen.add(found.st_ino)
                    total += found.st_blocks * 512
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
    return total

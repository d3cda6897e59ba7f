"""A tree made like another from a third that it nearly is: what is the same in both is linked, the rest is copied.

For refreshing copies. "The same" is rsync's rule and more: kind, size, time to the nanosecond, owner, mode, attributes.
Nobody may write to any of the trees meanwhile. Everything here blocks.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from lxpy.storage import files

_FICLONE = 0x40049409
_CHUNK = 1 << 30


class _Roots(NamedTuple):
    """Descriptors of the three trees."""

    source: int
    target: int
    base: int
    since: int


def build(source: str, target: str, base: str, since: int = 0) -> None:
    """Fill the empty directory `target` with what `source` holds, owners, times, hard links, holes, attributes.

    Args:
        since: `base` is a copy of `source` that was begun after that time (ns): a file is the same when nothing of it
            has changed since.

    Raises:
        OSError: ENOSPC when the disk is full.
    """
    with contextlib.ExitStack() as stack:
        fds = []
        for path in (source, target, base):
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))
            stack.callback(os.close, fds[-1])
        try:
            _build(_Roots(fds[0], fds[1], fds[2], since))
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
        else:
            return
    # A guest can nest directories deeper than any path reaches.
    files.remove_tree(target, os.path.dirname(target))
    files.copy_tree(f"{source}/.", target)


def _build(roots: _Roots) -> None:
    seen: dict[tuple[int, int], str] = {}
    directories = [(".", True)]
    for place, in_base in directories:
        with _opened(roots.source, place) as fd, os.scandir(fd) as entries:
            names = sorted(entry.name for entry in entries)
        for name in names:
            path = name if place == "." else f"{place}/{name}"
            found = os.lstat(path, dir_fd=roots.source)
            old = _lstat(path, roots.base) if in_base else None
            if stat.S_ISDIR(found.st_mode):
                os.mkdir(path, 0o700, dir_fd=roots.target)
                directories.append((path, old is not None and stat.S_ISDIR(old.st_mode)))
            elif found.st_nlink > 1 and (first := seen.get((found.st_dev, found.st_ino))):
                os.link(first, path, src_dir_fd=roots.target, dst_dir_fd=roots.target, follow_symlinks=False)
            else:
                seen[found.st_dev, found.st_ino] = path
                _make(roots, path, found, old)
    for place, _ in reversed(directories):
        _attributes(roots, place, os.lstat(place, dir_fd=roots.source))


def _make(roots: _Roots, path: str, found: os.stat_result, old: os.stat_result | None) -> None:
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(path, dir_fd=roots.source), path, dir_fd=roots.target)
    elif not stat.S_ISREG(found.st_mode):
        os.mknod(path, found.st_mode, found.st_rdev, dir_fd=roots.target)
    elif old is not None and _same(roots, path, found, old):
        try:
            os.link(path, path, src_dir_fd=roots.base, dst_dir_fd=roots.target, follow_symlinks=False)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EMLINK):  # another subvolume: clone it
                raise
        _copy(roots.base, roots.target, path)
    else:
        _copy(roots.source, roots.target, path)
    _attributes(roots, path, found)


def _same(roots: _Roots, path: str, found: os.stat_result, old: os.stat_result) -> bool:
    def facts(one: os.stat_result) -> tuple[int, ...]:
        return one.st_mode, one.st_size, one.st_mtime_ns, one.st_uid, one.st_gid, one.st_nlink

    if found.st_nlink != 1 or facts(found) != facts(old):
        return False
    if roots.since:
        return found.st_ctime_ns < roots.since
    return _xattrs(roots.source, path) == _xattrs(roots.base, path)


def _copy(source: int, target: int, path: str) -> None:
    old = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=source)
    try:
        new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=target)
        try:
            try:
                fcntl.ioctl(new, _FICLONE, old)
            except OSError:
                _copy_data(old, new, os.fstat(old).st_size)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _copy_data(old: int, new: int, size: int) -> None:
    place = 0
    while place < size:
        try:
            place = os.lseek(old, place, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break  # a hole up to the end
        end = os.lseek(old, place, os.SEEK_HOLE)
        os.lseek(new, place, os.SEEK_SET)
        while place < end:
            sent = os.sendfile(new, old, place, min(end - place, _CHUNK))
            if not sent:
                break
            place += sent
    os.ftruncate(new, size)


def _attributes(roots: _Roots, path: str, found: os.stat_result) -> None:
    os.chown(path, found.st_uid, found.st_gid, dir_fd=roots.target, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(path, stat.S_IMODE(found.st_mode), dir_fd=roots.target)
    for name, value in _xattrs(roots.source, path).items():
        os.setxattr(_place(roots.target, path), name, value, follow_symlinks=False)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=roots.target, follow_symlinks=False)


def _xattrs(root: int, path: str) -> dict[str, bytes]:
    place = _place(root, path)
    try:
        names = os.listxattr(place, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # a squashfs without any
            return {}
        raise
    return {name: os.getxattr(place, name, follow_symlinks=False) for name in names}


def _place(root: int, path: str) -> str:
    return f"/proc/self/fd/{root}/{path}"


def _lstat(path: str, root: int) -> os.stat_result | None:
    try:
        return os.lstat(path, dir_fd=root)
    except FileNotFoundError:
        return None


@contextlib.contextmanager
def _opened(root: int, path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=root)
    try:
        yield fd
    finally:
        os.close(fd)

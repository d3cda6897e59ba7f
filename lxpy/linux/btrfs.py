"""btrfs by ioctl: subvolumes, snapshots, their removal with all that a guest nested in them. No ``btrfs`` is forked.

Numbers and structures: include/uapi/linux/btrfs.h and btrfs_tree.h of Linux 6.18.
"""

import contextlib
import fcntl
import os
import struct
from collections.abc import Iterator

SUBVOL_RDONLY = 1 << 1
_SPEC_BY_ID = 1 << 4
# The root directory of every subvolume has this inode number (BTRFS_FIRST_FREE_OBJECTID).
_ROOT_INODE = 256
_ROOT_TREE, _ROOT_REF = 1, 156

_SUBVOL_CREATE_V2, _SNAP_CREATE_V2, _SNAP_DESTROY_V2 = 0x50009418, 0x50009417, 0x5000943F
_SUBVOL_GETFLAGS, _SUBVOL_SETFLAGS = 0x80089419, 0x4008941A
_INO_LOOKUP, _TREE_SEARCH_V2, _RESIZE = 0xD0009412, 0xC0709411, 0x50009403

# struct btrfs_ioctl_vol_args_v2: fd, transid, flags, unused[4], name (or, with SPEC_BY_ID, the id)
_VOL_ARGS = struct.Struct("=qQQ32x4040s")
_SEARCH_KEY = struct.Struct("=7Q4I32xQ")
_SEARCH_HEADER = struct.Struct("=3Q2I")
_BUFFER = 65536


def is_subvolume(path: str) -> bool:
    """Whether the directory at `path`, on btrfs, is the top of a subvolume. Links are not followed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return found.st_ino == _ROOT_INODE and os.path.isdir(path)


def create(path: str) -> None:
    """Make an empty subvolume (0755 less the umask); `path` does not exist."""
    with _directory(os.path.dirname(path)) as parent:
        _call(parent, _SUBVOL_CREATE_V2, _volume_arguments(0, 0, path), path)


def snapshot(source: str, path: str, *, readonly: bool = False) -> None:
    """Make a snapshot of the subvolume `source`. What is nested in it comes out as empty directories."""
    with _directory(source) as fd, _directory(os.path.dirname(path)) as parent:
        flags = SUBVOL_RDONLY if readonly else 0
        _call(parent, _SNAP_CREATE_V2, _volume_arguments(fd, flags, path), path)


def readonly(path: str) -> bool:
    with _directory(path) as fd:
        flags = bytearray(8)
        _call(fd, _SUBVOL_GETFLAGS, flags, path)
    return bool(int.from_bytes(flags, "little") & SUBVOL_RDONLY)


def set_readonly(path: str, value: bool) -> None:
    """A read-only subvolume can be neither written nor moved to another directory."""
    with _directory(path) as fd:
        _call(fd, _SUBVOL_SETFLAGS, bytearray(struct.pack("=Q", SUBVOL_RDONLY if value else 0)), path)


def subvolume_id(fd: int) -> int:
    """The id of the subvolume that holds an open file or directory."""
    arguments = bytearray(4096)
    struct.pack_into("=QQ", arguments, 0, 0, _ROOT_INODE)
    _call(fd, _INO_LOOKUP, arguments, "")
    return int.from_bytes(arguments[:8], "little")


def children(fd: int, parent: int) -> list[int]:
    """The ids of the subvolumes directly nested in the subvolume `parent` of the file system of `fd`."""
    found: list[int] = []
    first = 0
    while True:
        most = (1 << 64) - 1
        buffer = bytearray(_SEARCH_KEY.size + _BUFFER)
        _SEARCH_KEY.pack_into(
            buffer, 0, _ROOT_TREE, parent, parent, first, most, 0, most, _ROOT_REF, _ROOT_REF, 4096, 0, _BUFFER
        )
        _call(fd, _TREE_SEARCH_V2, buffer, "")
        count = struct.unpack_from("=I", buffer, 64)[0]
        if count == 0:
            return found
        place = _SEARCH_KEY.size
        for _ in range(count):
            _, _, child, _, length = _SEARCH_HEADER.unpack_from(buffer, place)
            place += _SEARCH_HEADER.size + length
            found.append(child)
        first = found[-1] + 1


def destroy(path: str) -> None:
    """Delete the subvolume at `path`, read-only or not, and every one nested in it. The space comes back later."""
    with _directory(path) as fd:
        top = subvolume_id(fd)
        # By id, innermost first: no path of a guest's making is ever walked.
        order = [top]
        for parent in order:
            order += children(fd, parent)
    with _directory(os.path.dirname(path)) as fd:
        for number in reversed(order):
            arguments = bytearray(_VOL_ARGS.pack(0, 0, _SPEC_BY_ID, struct.pack("=Q", number)))
            _call(fd, _SNAP_DESTROY_V2, arguments, path)


def resize(path: str, size: int) -> None:
    """Give the (single-device) file system mounted at `path` that many bytes, at least 256 MiB (the kernel's rule).

    Raises:
        OSError: ENOSPC when it holds more, EINVAL below the minimum, EFBIG when the device is smaller.
    """
    with _directory(path) as fd:
        _call(fd, _RESIZE, bytearray(struct.pack("=q4088s", 0, b"%d" % size)), path)


def _volume_arguments(fd: int, flags: int, path: str) -> bytearray:
    return bytearray(_VOL_ARGS.pack(fd, 0, flags, os.fsencode(os.path.basename(path))))


@contextlib.contextmanager
def _directory(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _call(fd: int, request: int, arguments: bytearray, path: str) -> None:
    try:
        fcntl.ioctl(fd, request, arguments)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None

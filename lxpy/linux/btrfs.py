"""btrfs by ioctl: subvolumes, snapshots, their removal, with all that a guest nested in them. No ``btrfs`` is forked.

Numbers and structures: include/uapi/linux/btrfs.h and btrfs_tree.h of Linux 6.18.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import struct
import uuid
from collections.abc import Iterator
from typing import NamedTuple

SUBVOL_RDONLY = 1 << 1
_SPEC_BY_ID = 1 << 4
# The root directory of every subvolume has this inode number (BTRFS_FIRST_FREE_OBJECTID).
_ROOT_INODE = 256
_ROOT_TREE, _ROOT_REF = 1, 156
_FID_WITHOUT_PARENT = 0x4D

_SUBVOL_CREATE_V2, _SNAP_CREATE_V2, _SNAP_DESTROY_V2 = 0x50009418, 0x50009417, 0x5000943F
_SUBVOL_GETFLAGS, _SUBVOL_SETFLAGS = 0x80089419, 0x4008941A
_INO_LOOKUP, _TREE_SEARCH_V2, _RESIZE = 0xD0009412, 0xC0709411, 0x50009403
_FS_INFO, _SYNC = 0x8400941F, 0x9408

# struct btrfs_ioctl_vol_args_v2: fd, transid, flags, unused[4], name (or, with SPEC_BY_ID, the id)
_VOL_ARGS = struct.Struct("=qQQ32x4040s")
_SEARCH_KEY = struct.Struct("=7Q4I32xQ")
_SEARCH_HEADER = struct.Struct("=3Q2I")
_ROOT_REF_ITEM = struct.Struct("<QQH")
_BUFFER = 65536
_MOST = (1 << 64) - 1

_libc = ctypes.CDLL(None, use_errno=True)


class Nested(NamedTuple):
    """A subvolume inside another: its id, the inode of the directory it is in, and its name there."""

    id: int
    directory: int
    name: bytes


def is_subvolume(path: str) -> bool:
    """Whether the directory at `path`, on btrfs, is the top of a subvolume. Links are not followed."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return False
    return found.st_ino == _ROOT_INODE and os.path.isdir(path)


def create(path: str) -> None:
    """Make an empty subvolume (0755 less the umask); `path` does not exist."""
    with directory(os.path.dirname(path)) as parent:
        _call(parent, _SUBVOL_CREATE_V2, _volume_arguments(0, 0, path), path)


def snapshot(source: str, path: str, *, readonly: bool = False) -> None:
    """Make a snapshot of the subvolume `source`. What is nested in it comes out as empty directories."""
    with directory(source) as fd, directory(os.path.dirname(path)) as parent:
        flags = SUBVOL_RDONLY if readonly else 0
        _call(parent, _SNAP_CREATE_V2, _volume_arguments(fd, flags, path), path)


def readonly(path: str) -> bool:
    with directory(path) as fd:
        return bool(_flags(fd) & SUBVOL_RDONLY)


def _flags(fd: int) -> int:
    flags = bytearray(8)
    _call(fd, _SUBVOL_GETFLAGS, flags, "")
    return int.from_bytes(flags, "little")


def set_readonly(path: str, value: bool) -> None:
    """A read-only subvolume can be neither written nor moved to another directory."""
    with directory(path) as fd:
        _call(fd, _SUBVOL_SETFLAGS, bytearray(struct.pack("=Q", SUBVOL_RDONLY if value else 0)), path)


def subvolume_id(fd: int) -> int:
    """The id of the subvolume that holds an open file or directory."""
    arguments = bytearray(4096)
    struct.pack_into("=QQ", arguments, 0, 0, _ROOT_INODE)
    _call(fd, _INO_LOOKUP, arguments, "")
    return int.from_bytes(arguments[:8], "little")


def search(
    fd: int, tree: int, item: int, kind: int, first: int = 0, last: int = _MOST
) -> Iterator[tuple[int, bytes]]:  # fmt: skip
    """Offset and content of what has the key (`item`, `kind`, `first` to `last`) in a tree of the file system of `fd`.

    Raises:
        OSError: ENOENT where there is no such tree.
    """
    while first <= last:
        buffer = bytearray(_SEARCH_KEY.size + _BUFFER)
        _SEARCH_KEY.pack_into(
            buffer, 0, tree, item, item, first, last, 0, _MOST, kind, kind, 4096, 0, _BUFFER
        )  # fmt: skip
        _call(fd, _TREE_SEARCH_V2, buffer, "")
        count = struct.unpack_from("=I", buffer, 64)[0]
        if count == 0:
            return
        place = _SEARCH_KEY.size
        for _ in range(count):
            _, _, first, _, length = _SEARCH_HEADER.unpack_from(buffer, place)
            place += _SEARCH_HEADER.size
            yield first, bytes(buffer[place : place + length])
            place += length
        first += 1


def nested(fd: int, parent: int) -> list[Nested]:
    """The subvolumes directly nested in the subvolume `parent` of the file system of `fd`."""
    found = []
    for child, item in search(fd, _ROOT_TREE, parent, _ROOT_REF):
        folder, _, length = _ROOT_REF_ITEM.unpack_from(item)
        found.append(Nested(child, folder, item[_ROOT_REF_ITEM.size : _ROOT_REF_ITEM.size + length]))
    return found


def children(fd: int, parent: int) -> list[int]:
    """The ids of `nested`."""
    return [one.id for one in nested(fd, parent)]


def family(path: str) -> list[int]:
    """The ids of the subvolume at `path` and of all nested in it at any depth, outermost first."""
    with directory(path) as fd:
        order = [subvolume_id(fd)]
        for parent in order:
            order += children(fd, parent)
    return order


def snapshot_family(source: str, path: str) -> None:
    """As `snapshot`, with everything nested in `source`; it can be written, what was nested read-only stays so.

    Each subvolume is a moment of its own, outermost first.
    """
    snapshot(source, path)
    with directory(source) as old, directory(path) as new:
        _nest(old, new, path)


def _nest(old: int, new: int, path: str) -> None:
    top = subvolume_id(new)
    for child in nested(old, subvolume_id(old)):
        with contextlib.ExitStack() as stack:
            try:
                sub = _open_inode(stack, old, child.id, _ROOT_INODE)
            except OSError as error:
                if error.errno in (errno.ESTALE, errno.ENOENT):  # deleted meanwhile
                    continue
                raise
            # A snapshot keeps inode numbers; what was nested has left an empty directory.
            place = _open_inode(stack, new, top, child.directory)
            os.rmdir(child.name, dir_fd=place)
            _call(place, _SNAP_CREATE_V2, bytearray(_VOL_ARGS.pack(sub, 0, 0, child.name)), path)
            made = os.open(child.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            stack.callback(os.close, made)
            _nest(sub, made, path)
            if _flags(sub) & SUBVOL_RDONLY:
                _call(made, _SUBVOL_SETFLAGS, bytearray(struct.pack("=Q", SUBVOL_RDONLY)), path)


def _open_inode(stack: contextlib.ExitStack, fd: int, subvolume: int, inode: int) -> int:
    """A directory by number, on the file system of `fd`: no path of a guest's making is walked."""
    # struct file_handle, then struct btrfs_fid without a parent (fs/btrfs/export.h); generation 0 is any.
    handle = ctypes.create_string_buffer(struct.pack("=IiQQI", 20, _FID_WITHOUT_PARENT, inode, subvolume, 0), 28)
    found = int(_libc.open_by_handle_at(fd, handle, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"subvolume {subvolume}, inode {inode}")
    stack.callback(os.close, found)
    return found


def destroy(path: str) -> None:
    """Delete the subvolume at `path`, read-only or not, and every one nested in it. The space comes back later."""
    order = family(path)
    with directory(os.path.dirname(path)) as fd:
        for parent in order if len(order) > 1 else ():
            with contextlib.ExitStack() as stack:
                # What is read-only lets nothing nested in it go.
                sub = _open_inode(stack, fd, parent, _ROOT_INODE)
                if _flags(sub) & SUBVOL_RDONLY:
                    _call(sub, _SUBVOL_SETFLAGS, bytearray(8), path)
        for number in reversed(order):
            arguments = bytearray(_VOL_ARGS.pack(0, 0, _SPEC_BY_ID, struct.pack("=Q", number)))
            _call(fd, _SNAP_DESTROY_V2, arguments, path)


def clean(path: str) -> None:
    """Write everything out and have the room of deleted subvolumes back now, not at the next commit (30 s)."""
    with directory(path) as fd:
        fcntl.ioctl(fd, _SYNC)


def resize(path: str, size: int | None) -> None:
    """Give the (single-device) file system mounted at `path` that many bytes, None for all its device has.

    Raises:
        OSError: ENOSPC when it holds more, EINVAL below 256 MiB (the kernel's rule), EFBIG when the device is smaller.
    """
    word = b"max" if size is None else b"%d" % size
    with directory(path) as fd:
        _call(fd, _RESIZE, bytearray(struct.pack("=q4088s", 0, word)), path)


def filesystem_uuid(path: str) -> str:
    """Of the file system of a directory.

    Raises:
        OSError: ENOTTY when that is no btrfs.
    """
    arguments = bytearray(1024)
    with directory(path) as fd:
        _call(fd, _FS_INFO, arguments, path)
    return str(uuid.UUID(bytes=bytes(arguments[16:32])))


def _volume_arguments(fd: int, flags: int, path: str) -> bytearray:
    return bytearray(_VOL_ARGS.pack(fd, 0, flags, os.fsencode(os.path.basename(path))))


@contextlib.contextmanager
def directory(path: str) -> Iterator[int]:
    """A descriptor of a directory; a link in its place is refused."""
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

"""What subvolumes of a btrfs may hold, by ioctl.

Two kinds of accounting (btrfs(5), include/uapi/linux/btrfs.h of Linux 6.18). *Simple* quotas (Linux 6.7) charge an
extent to the subvolume that wrote it, whoever shares it later: almost free, and what a guest nests inside is counted
with it by a group of level 1. *qgroups* find out who shares what: exact, slower with every snapshot, and a nested
subvolume escapes the limit of the one around it.
"""

import contextlib
import errno
import fcntl
import os
import struct
from typing import Literal

from lxpy.linux import btrfs

Mode = Literal["", "simple", "qgroup"]

_QUOTA_CTL, _ASSIGN, _CREATE, _LIMIT = 0xC0109428, 0x40189429, 0x4010942A, 0x8030942B
_RESCAN_WAIT = 0x942E
_ENABLE, _ENABLE_SIMPLE = 1, 4
_QUOTA_TREE, _INFO, _LIMIT_ITEM, _RELATION = 8, 242, 244, 246
_MAX_REFERENCED = 1
_NO_LIMIT = (1 << 64) - 1
_LEVEL_1 = 1 << 48


def mode(path: str) -> Mode:
    """The accounting of the file system of `path`, empty where it has none."""
    folder = f"/sys/fs/btrfs/{btrfs.filesystem_uuid(path)}/qgroups"
    if not os.path.isdir(folder):
        return ""
    try:
        with open(f"{folder}/mode", encoding="ascii") as file:
            return "simple" if file.read().strip() == "squota" else "qgroup"
    except FileNotFoundError:  # before Linux 6.7
        return "qgroup"


def enable(path: str, *, simple: bool) -> None:
    """Turn accounting on for the whole file system; for qgroups, returns when what is there has been counted.

    With simple quotas no kernel before 6.7 mounts the file system any more.

    Raises:
        OSError: EINVAL or ENOTTY where the kernel has no simple quotas.
    """
    with btrfs.directory(path) as fd:
        arguments = bytearray(struct.pack("=QQ", _ENABLE_SIMPLE if simple else _ENABLE, 0))
        fcntl.ioctl(fd, _QUOTA_CTL, arguments)
        if not simple:
            fcntl.ioctl(fd, _RESCAN_WAIT)


def limit(path: str, size: int | None, kind: Mode) -> None:
    """Limit what the subvolume `path` may hold, in bytes; with simple quotas with all that is nested in it."""
    family = btrfs.family(path)
    group = family[0]
    # Not by the subvolume itself: at its limit there would be no room for the change (EDQUOT).
    with btrfs.directory(os.path.dirname(path)) as fd:
        if kind == "simple":
            group |= _LEVEL_1
            if size is None:
                lift(path)
                return
            with contextlib.suppress(FileExistsError):
                fcntl.ioctl(fd, _CREATE, struct.pack("=QQ", 1, group))
            for member in set(family) - set(_members(fd, group)):
                fcntl.ioctl(fd, _ASSIGN, struct.pack("=QQQ", 1, member, group))
        _set_limit(fd, group, size)


def limit_of(path: str) -> int | None:
    """What `limit` has set, in bytes."""
    with btrfs.directory(path) as fd:
        number = btrfs.subvolume_id(fd)
        for group in (number | _LEVEL_1, number):
            flags, size = struct.unpack_from("<QQ", _item(fd, _LIMIT_ITEM, group) or bytes(16))
            if flags & _MAX_REFERENCED:
                return int(size)
    return None


def usage(path: str) -> int | None:
    """Bytes charged to the subvolume `path` alone, as of the last commit; None where nobody counts."""
    return _info(path, exclusive=True)


def referenced(path: str) -> int | None:
    """Bytes that count towards the limit of the subvolume `path`, as of the last commit."""
    return _info(path, exclusive=False)


def _info(path: str, *, exclusive: bool) -> int | None:
    with btrfs.directory(path) as fd:
        number = btrfs.subvolume_id(fd)
        # generation, referenced, referenced compressed, exclusive, exclusive compressed
        item = _item(fd, _INFO, number | _LEVEL_1) or _item(fd, _INFO, number)
        return None if item is None else int(struct.unpack_from("<5Q", item)[3 if exclusive else 1])


def lift(path: str) -> None:
    """Take the limit off the subvolume `path`, its group too: at its limit it could not even be deleted (EDQUOT)."""
    with btrfs.directory(path) as fd:
        number = btrfs.subvolume_id(fd)
    group = number | _LEVEL_1
    with btrfs.directory(os.path.dirname(path)) as fd:
        if _has(fd, group):
            _set_limit(fd, group, None)
            for member in _members(fd, group):
                fcntl.ioctl(fd, _ASSIGN, struct.pack("=QQQ", 0, member, group))
            fcntl.ioctl(fd, _CREATE, struct.pack("=QQ", 0, group))
        elif _item(fd, _LIMIT_ITEM, number) is not None:
            _set_limit(fd, number, None)


def _set_limit(fd: int, group: int, size: int | None) -> None:
    wanted = _NO_LIMIT if size is None else size
    fcntl.ioctl(fd, _LIMIT, bytearray(struct.pack("=QQQQQQ", group, _MAX_REFERENCED, wanted, 0, 0, 0)))


def _has(fd: int, group: int) -> bool:
    return _item(fd, _INFO, group) is not None


def _item(fd: int, kind: int, group: int) -> bytes | None:
    try:
        return next((item for _, item in btrfs.search(fd, _QUOTA_TREE, 0, kind, group, group)), None)
    except OSError as error:
        if error.errno == errno.ENOENT:  # no accounting, no tree
            return None
        raise


def _members(fd: int, group: int) -> list[int]:
    return [member for member, _ in btrfs.search(fd, _QUOTA_TREE, group, _RELATION)]

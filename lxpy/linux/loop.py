"""Loop devices by ioctl (``LOOP_CONFIGURE``, Linux 5.8), without losetup: loop(4), include/uapi/linux/loop.h.

A device set up here has AUTOCLEAR: it frees itself when the last user (a mount, or our descriptor) is gone, so
a crash leaves none behind.
"""

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16
LOOP_SET_CAPACITY = 0x4C07

_LOOP_MAJOR = 7
_ATTEMPTS = 64
# struct loop_config: fd, block_size, struct loop_info64, reserved[8]
_CONFIG = struct.Struct("=II QQQQQ IIII 64s 64s 32s QQ 8Q")


@contextlib.contextmanager
def attach(path: str, readonly: bool = True, direct: bool = False) -> Iterator[str]:
    """A loop device over the file `path`, for as long as the block runs or something has it mounted.

    Args:
        direct: past the page cache, so that nothing is cached twice; where the file system below cannot, it is not.

    Raises:
        OSError: the file cannot be opened, there is no loop driver, or no free device.
    """
    backing = os.open(path, (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC)
    try:
        device_fd, device = _configure(backing, path, readonly, direct)
    finally:
        os.close(backing)
    try:
        yield device
    finally:
        os.close(device_fd)


def find(path: str) -> str:
    """A loop device that is over the file `path` already; empty for none."""
    for device in os.listdir("/sys/block"):
        try:
            with open(f"/sys/block/{device}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
                if os.path.samefile(file.read().rstrip("\n"), path):
                    return f"/dev/{device}"
        except OSError:
            continue
    return ""


def grow(device: str) -> None:
    """Have a loop device take the size its file has now."""
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, LOOP_SET_CAPACITY)
    finally:
        os.close(fd)


def _configure(backing: int, path: str, readonly: bool, direct: bool) -> tuple[int, str]:
    flags = LO_FLAGS_AUTOCLEAR | (LO_FLAGS_READ_ONLY if readonly else 0) | (LO_FLAGS_DIRECT_IO if direct else 0)
    zeros = (0,) * 8
    config = _CONFIG.pack(
        backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, flags, os.fsencode(path)[-63:], b"", b"", 0, 0, *zeros
    )  # fmt: skip
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            device = f"/dev/loop{number}"
            fd = _open_device(device, number, readonly)
            try:
                fcntl.ioctl(fd, LOOP_CONFIGURE, config)
                return fd, device
            except OSError as error:
                os.close(fd)
                # Another process took it between the two calls: ask for the next.
                if error.errno != errno.EBUSY:
                    raise OSError(error.errno, error.strerror, path) from None
            except BaseException:
                os.close(fd)
                raise
    finally:
        os.close(control)
    raise OSError(errno.EBUSY, "no free loop device", path)


def _open_device(device: str, number: int, readonly: bool) -> int:
    flags = (os.O_RDONLY if readonly else os.O_RDWR) | os.O_CLOEXEC
    try:
        return os.open(device, flags)
    except FileNotFoundError:
        # A /dev that is not devtmpfs (this host is a container) gets no node of its own accord.
        with contextlib.suppress(FileExistsError):
            os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(_LOOP_MAJOR, number))
        return os.open(device, flags)

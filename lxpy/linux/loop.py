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
import time
from collections.abc import Iterator

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LOOP_GET_STATUS64 = 0x4C05
LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_DIRECT_IO = 16
LOOP_SET_CAPACITY = 0x4C07

_LOOP_MAJOR = 7
_ATTEMPTS = 64
_CLEARING = 2.0  # seconds that a device may take to free itself
# struct loop_config: fd, block_size, struct loop_info64, reserved[8]
_STATUS_SIZE = 232  # struct loop_info64
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


@contextlib.contextmanager
def held(path: str) -> Iterator[str]:
    """The loop device that is over the file `path` already, kept from freeing itself while the block runs.

    Yields an empty name for none. One that is freeing itself at this moment is waited for.
    """
    end = time.monotonic() + _CLEARING
    while device := _find(path):
        if (fd := _hold(device, path)) is not None:
            try:
                yield device
            finally:
                os.close(fd)
            return
        if time.monotonic() > end:
            break
        time.sleep(0.005)
    yield ""


def _find(path: str) -> str:
    for device in os.listdir("/sys/block"):
        if _is_over(device, path):
            return f"/dev/{device}"
    return ""


def _is_over(device: str, path: str) -> bool:
    try:
        with open(f"/sys/block/{device}/loop/backing_file", encoding="utf-8", errors="surrogateescape") as file:
            return os.path.samefile(file.read().rstrip("\n"), path)
    except OSError:
        return False


def _hold(device: str, path: str) -> int | None:
    """A descriptor of a device that is over `path` and stays so until it is closed; None, it is just being freed.

    The last close alone frees a device: it cannot happen behind our back once ours is there.
    """
    try:
        fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.ioctl(fd, LOOP_GET_STATUS64, bytes(_STATUS_SIZE))
        if _is_over(os.path.basename(device), path):
            return fd
    except OSError:  # ENXIO: it is over nothing any more
        pass
    os.close(fd)
    return None


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

"""Pseudo-terminals: on the host for a console, in a guest's own devpts for an exec."""

import ctypes
import errno
import fcntl
import os
import struct
import termios

from lxpy.linux import libc

_TIOCGPTPEER = 0x5441  # include/uapi/asm-generic/ioctls.h
_TIOCSPTLCK = 0x40045431
_DEVPTS_SUPER_MAGIC = 0x1CD1


def resize(fd: int, width: int, height: int) -> None:
    """Sets the window size; the foreground group gets SIGWINCH."""
    if 0 < width < 65536 and 0 < height < 65536:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def open_in(devpts_dir: str) -> tuple[int, int]:
    """A pty of the devpts mounted at `devpts_dir`: (master, slave).

    The directory may belong to somebody hostile: only a real devpts is taken, and the slave comes from the master,
    by no path at all.

    Raises:
        OSError: ENOTTY when something else is mounted there, or nothing.
    """
    directory = os.open(devpts_dir, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _file_system(directory) != _DEVPTS_SUPER_MAGIC:
            raise OSError(errno.ENOTTY, "not a devpts file system", devpts_dir)
        master = os.open("ptmx", os.O_RDWR | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, struct.pack("i", 0))
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except BaseException:
        os.close(master)
        raise
    return master, slave


def _file_system(fd: int) -> int:
    buffer = ctypes.create_string_buffer(256)
    libc.syscall(138 if libc.MACHINE == "x86_64" else 44, fd, ctypes.addressof(buffer), what="fstatfs")
    return int(struct.unpack_from("l", buffer.raw)[0])

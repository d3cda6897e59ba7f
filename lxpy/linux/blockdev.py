"""Which block device a file lies on."""

import errno
import os


def behind(path: str) -> str:
    """The whole disk behind the file system of `path`, ``major:minor``: a partition's disk, for only that is limited.

    Raises:
        OSError: ENOTBLK where there is none (tmpfs, a file system of the network), and what opening the path gives.
    """
    device = os.stat(path).st_dev
    if os.major(device) == 0:  # btrfs, overlay: the number is its own, the mount says what it lies on
        source = _source(path)
        try:
            device = os.stat(source).st_rdev if source.startswith("/") else 0
        except OSError:
            device = 0
    try:
        place = os.path.realpath(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}", strict=True)
        if os.path.exists(f"{place}/partition"):
            place = os.path.dirname(place)
        with open(f"{place}/dev", encoding="ascii") as file:
            return file.read().strip()
    except FileNotFoundError:
        raise OSError(errno.ENOTBLK, "it lies on no block device", path) from None


def _source(path: str) -> str:
    """What is mounted where `path` lies."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            mount = next(line.split()[1] for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.startswith(f"{mount} "):
                return line.partition(" - ")[2].split(" ")[1]
    return ""

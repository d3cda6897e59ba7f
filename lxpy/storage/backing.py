"""The btrfs that is a pool's alone: in a file below the daemon's directory, or on a block device. Everything blocks."""

import contextlib
import errno
import os
import re
import shutil
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator

from lxpy.api.errors import BadRequest, InternalError
from lxpy.linux import btrfs, libc, loop, mounts

# The kernel resizes no btrfs below this, and mkfs wants little less.
SMALLEST = 256 << 20
# What a guest nests it may also remove.
DEFAULT_OPTIONS = "user_subvol_rm_allowed"

# Options of mount(8) that are flags of mount(2), include/uapi/linux/mount.h. Without the ones that guests would feel.
_FLAGS = {
    "defaults": 0, "rw": 0, "sync": 1 << 4, "dirsync": 1 << 7, "noatime": 1 << 10, "nodiratime": 1 << 11,
    "relatime": 1 << 21, "strictatime": 1 << 24, "lazytime": 1 << 25,
}  # fmt: skip
_REFUSED = {
    "ro": "instances could not start", "nosuid": "it would hold in instances too", "noexec": "no instance could start",
    "nodev": "instances have no devices on their disks anyway", "subvol": "the pool needs the whole file system",
    "subvolid": "the pool needs the whole file system",
}  # fmt: skip
# include/uapi/linux/btrfs_tree.h: where the super blocks are; in them the UUID and, behind it, the magic.
_SUPER_BLOCKS = (64 << 10, 64 << 20, 256 << 30)
_UUID_AT, _MAGIC_AT, _MAGIC = 0x20, 0x40, b"_BHRfS_M"
_UNMOUNT_WAIT = 2.0  # seconds


class Backing:
    """A file or device, and the file system in it.

    Args:
        source: the file (it ends on ``.img``) or the block device.
        point: where it is mounted.
        options: of mount(8), as the user wrote them.
        uuid: of the file system, empty when not known: a device that has got another name is found by it.
    """

    def __init__(self, source: str, point: str, options: str, uuid: str) -> None:
        self.source, self.point, self.uuid = source, point, uuid
        self.flags, self.data = mount_options(options)
        self.is_file = not source.startswith("/dev/")

    def make(self, label: str, size: int, wipe: bool) -> None:
        """Make file system, and file.

        Raises:
            BadRequest: the device is in use or holds something; there is no mkfs.btrfs.
        """
        if (tool := _mkfs()) is None:
            raise BadRequest("The driver btrfs needs mkfs.btrfs: install the package btrfs-progs")
        if self.is_file:
            os.makedirs(os.path.dirname(self.source), mode=0o700, exist_ok=True)
            fd = os.open(self.source, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(fd, size)
            finally:
                os.close(fd)
        else:
            check_device(self.source)
        self.uuid = self.uuid or str(uuid.uuid4())
        command = [tool, "-q", *(["-f"] if wipe else []), "-U", self.uuid, "-L", label, self.source]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode:
            error = next((line for line in done.stderr.splitlines() if line.startswith("ERROR: ")), done.stderr.strip())
            error = error.removeprefix("ERROR: ")
            if "existing filesystem" in error or "partition table" in error:
                raise BadRequest(f"{error}: source.wipe=true overwrites it")
            raise InternalError(f"Cannot make a btrfs on {self.source}: {error or 'mkfs.btrfs failed'}")

    def mount(self) -> None:
        """Mount it, unless it is; then let it fill its device (a growth may have been cut off).

        Raises:
            OSError: the file or device is not there, or is no btrfs.
        """
        os.makedirs(self.point, mode=0o711, exist_ok=True)
        if mounts.is_mounted(self.point):
            return
        with self._device() as device:
            libc.mount(device, self.point, "btrfs", self.flags, self.data)

    @contextlib.contextmanager
    def _device(self) -> Iterator[str]:
        if not self.is_file:
            yield self.device()
            return
        # Instances that run keep a file system that was unmounted here: a second device over it would be refused.
        with loop.held(self.source) as there:
            if there:
                yield there
                return
        with loop.attach(self.source, readonly=False, direct=True) as device:
            yield device

    def mounted(self) -> bool:
        return mounts.is_mounted(self.point)

    @contextlib.contextmanager
    def look(self) -> Iterator[str]:
        """A path to what is in it, for as long as the block runs: mounted where nobody else sees it, read-only.

        Raises:
            OSError: the file or device is not there, or is no btrfs.
        """
        with contextlib.ExitStack() as stack:
            device = stack.enter_context(self._device())
            fd = mounts.new("btrfs", {}, libc.MOUNT_ATTR_RDONLY | libc.MOUNT_ATTR_NODEV, device)
            stack.callback(os.close, fd)
            yield f"/proc/self/fd/{fd}"

    def unmount(self) -> None:
        """Take it off its mount point, and that away. Safe to repeat."""
        self._unmount()
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.point)

    def remount(self, options: str) -> None:
        """Raises `BadRequest`: btrfs does not know one of them."""
        flags, data = mount_options(options)
        try:
            libc.mount("none", self.point, "btrfs", flags | libc.MS_REMOUNT, data)
        except OSError as error:
            raise BadRequest(f"Invalid value for btrfs.mount_options: {options!r}: {error.strerror}") from None
        self.flags, self.data = flags, data

    def device(self) -> str:
        """The block device, by its UUID if its name has come to mean another.

        Raises:
            OSError: ENODEV, there is none.
        """
        with contextlib.suppress(OSError):
            if not self.uuid or filesystem_on(self.source) == self.uuid:
                return self.source
        with open("/proc/partitions", encoding="ascii") as file:
            names = [line.split()[3] for line in file.read().splitlines()[2:]]
        for name in names:
            with contextlib.suppress(OSError):
                if filesystem_on(f"/dev/{name}") == self.uuid:
                    return f"/dev/{name}"
        raise OSError(errno.ENODEV, f"no disk holds the file system {self.uuid}", self.source)

    def size(self) -> int:
        return os.stat(self.source).st_size

    def grow(self, size: int) -> None:
        """Give the file at least `size` bytes, and the mounted file system all of them. Safe to repeat."""
        if self.size() < size:
            os.truncate(self.source, size)
        loop.grow(self._mounted_device())
        btrfs.resize(self.point, None)

    def _mounted_device(self) -> str:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                if before.split()[4].encode("latin-1", "surrogateescape").decode("unicode_escape") == self.point:
                    return after.split()[1]
        raise OSError(errno.EINVAL, "not mounted", self.point)

    def remove(self) -> None:
        """Unmount it and take the file away, or from the device what says that it is a btrfs. Safe to repeat."""
        device = ""
        with contextlib.suppress(OSError):
            device = "" if self.is_file else self.device()
        self._unmount()
        if self.is_file:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.source)
        elif device:
            _wipe(device, self.uuid)
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(self.point)

    def _unmount(self) -> None:
        end = time.monotonic() + _UNMOUNT_WAIT
        while mounts.is_mounted(self.point):
            try:
                libc.umount2(self.point)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                if time.monotonic() > end:
                    libc.umount2(self.point, libc.MNT_DETACH)
                time.sleep(0.02)


def available() -> bool:
    """Whether the kernel knows btrfs, or has a module that does, and there is mkfs.btrfs."""
    with open("/proc/filesystems", encoding="ascii") as file:
        known = any(line.split()[-1] == "btrfs" for line in file)
    return (known or os.path.isdir(f"/lib/modules/{os.uname().release}/kernel/fs/btrfs")) and _mkfs() is not None


def _mkfs() -> str | None:
    return shutil.which("mkfs.btrfs", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def mount_options(options: str) -> tuple[int, str]:
    """Flags and data for mount(2). Raises `BadRequest`."""
    flags, data = 0, []
    for option in re.split(r"[,\s]+", options or DEFAULT_OPTIONS):
        name = option.partition("=")[0]
        if name in _REFUSED:
            raise BadRequest(f"btrfs.mount_options cannot have {name}: {_REFUSED[name]}")
        if name in _FLAGS:
            flags |= _FLAGS[name]
        elif name:
            data.append(option)
    return flags, ",".join(data)


def check_device(source: str) -> None:
    """Raises `BadRequest`: it is no block device, or in use."""
    try:
        if not stat.S_ISBLK(os.stat(source).st_mode):
            raise BadRequest(f"Invalid source {source!r}: it is no block device")
        os.close(os.open(source, os.O_RDWR | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        why = "it is in use (mounted, or part of something)" if error.errno == errno.EBUSY else error.strerror
        raise BadRequest(f"Invalid source {source!r}: {why}") from None


def filesystem_on(device: str) -> str:
    """The UUID of the btrfs on a device, empty when there is none."""
    with open(device, "rb") as file:
        file.seek(_SUPER_BLOCKS[0])
        block = file.read(4096)
    if block[_MAGIC_AT : _MAGIC_AT + 8] != _MAGIC:
        return ""
    return str(uuid.UUID(bytes=block[_UUID_AT : _UUID_AT + 16]))


def _wipe(device: str, known: str) -> None:
    if not known or filesystem_on(device) != known:
        return
    with open(device, "r+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        for place in _SUPER_BLOCKS:
            if place + 4096 <= end:
                file.seek(place + _MAGIC_AT)
                file.write(bytes(8))
        os.fsync(file.fileno())

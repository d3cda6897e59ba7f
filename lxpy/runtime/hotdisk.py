"""A disk that comes to, or goes from, a running guest. Runs in a process forked from the spawner, which then ends.

The source is opened as the host; the guest's tree is entered, and changed, with no more than the rights of the
guest's root, and no link in it leads out of it.
"""

import os
import socket

from lxpy.linux import caps, libc, mounts, pidfd
from lxpy.runtime import binds, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_EBUSY = 16
_UMOUNT_NOFOLLOW = 8  # include/uapi/linux/fs.h


def run(message: "wire.Message", init: int, reply: socket.socket) -> "NoReturn":
    """The process's life.

    Args:
        message: ``action`` (plug, unplug), ``mount``, ``pid`` of the guest's init, ``base`` (host id of the guest's
            root, None: privileged) and ``run_dir``.
        init: pidfd of the guest's init.
        reply: gets ``{}``, ``{"busy": True}``, ``{"covered": True}`` or ``{"error": reason}``.
    """
    wire.answer(reply, lambda: _plug(message, init) if message["action"] == "plug" else _unplug(message, init))


def become_mapped_root(base: "int | None") -> None:
    """The guest's root as the host sees it, with all capabilities, hidden from the guest; None: stay as we are."""
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    if base is not None:
        os.setgroups([])
        libc.prctl(libc.PR_SET_KEEPCAPS, 1)
        os.setresgid(base, base, base)
        os.setresuid(base, base, base)
        caps.raise_all()


def _plug(message: "wire.Message", init: int) -> "wire.Message":
    mount, base = message["mount"], message["base"]
    userns = -1
    if base is not None:
        userns = os.open(f"/proc/{message['pid']}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        if not pidfd.alive(init):
            raise OSError(3, "the instance has just stopped")
    become_mapped_root(base)
    libc.unshare(libc.CLONE_NEWNS)
    following = binds.clone_following([mount])
    libc.mount("", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    fd = binds.disk(mount, userns, message["pid"], following.get(mount["target"], -1))
    if fd < 0:
        return {}  # not there, and it need not be
    if base is not None:
        stage = mounts.new("tmpfs", {"mode": "755", "size": "64k"}, libc.MOUNT_ATTR_NODEV)
        point = os.open(f"{message['run_dir']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        libc.move_mount(stage, point)
        binds.put_on_stage(stage, "0", fd)
        os.fchdir(stage)
        libc.setns(init, libc.CLONE_NEWUSER)
        libc.unshare(libc.CLONE_NEWNS)
        fd = mounts.clone("0", recursive=True)
    libc.setns(init, libc.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    binds.attach_in(root, mount["target"], fd)
    return {}


def _unplug(message: "wire.Message", init: int) -> "wire.Message":
    mount, base = message["mount"], message["base"]
    try:
        status = os.stat(mount["source"])
        source = (status.st_dev, status.st_ino)
    except OSError:
        source = None  # deleted on the host: what is mounted at its place is ours, as far as can be told
    table = os.open(f"/proc/{message['pid']}/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
    own = os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if not pidfd.alive(init):
        return {}
    become_mapped_root(base)
    if base is not None:
        libc.setns(init, libc.CLONE_NEWUSER)
    libc.setns(init, libc.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = libc.openat2(root, mount["target"], os.O_PATH)
    except OSError:
        return {}  # the guest has removed even the place
    path = os.fsencode(os.readlink(str(found), dir_fd=own))
    status = os.stat(found)
    os.close(found)
    layers = _mounted_at(table, path)
    if source is not None and source != (status.st_dev, status.st_ino):
        return {"covered": True} if layers > 1 else {}
    if not layers:
        return {}
    # By its resolved place, with nothing of ours open on it, so that EBUSY means the guest.
    parent, _, name = path.rpartition(b"/")
    os.fchdir(libc.openat2(root, os.fsdecode(parent or b"/"), os.O_PATH | os.O_DIRECTORY))
    try:
        libc.umount2(os.fsdecode(name), _UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno != _EBUSY:
            raise
        libc.umount2(os.fsdecode(name), _UMOUNT_NOFOLLOW | libc.MNT_DETACH)
        return {"busy": True}
    return {}


def _mounted_at(table: int, path: bytes) -> int:
    """How many mounts lie on each other at a path, by a mountinfo whose reader has that root (proc(5))."""
    data = b""
    while part := os.read(table, 1 << 16):
        data += part
    escaped = path
    for character in b"\\ \t\n":
        escaped = escaped.replace(bytes([character]), b"\\%03o" % character)
    return sum(line.split(b" ")[4] == escaped for line in data.splitlines())

"""Device nodes that come to, or go from, a running guest. Runs in a process forked from the spawner, which then ends.

The nodes are made as the host; the guest's tree is entered, and changed, with no more than the rights of the guest's
root, and no link in it leads out of it.
"""

import os
import socket
import stat

from lxpy.linux import libc, pidfd, uevents
from lxpy.runtime import binds, hotdisk, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from lxpy.runtime.spec import Node

_UMOUNT_NOFOLLOW = 8  # include/uapi/linux/fs.h


def run(message: "wire.Message", init: int, reply: socket.socket) -> "NoReturn":
    """The process's life.

    Args:
        message: ``plug`` and ``unplug``: nodes; ``pid`` of the guest's init, ``base`` (host id of the guest's root,
            None: privileged) and ``run_dir``.
        init: pidfd of the guest's init.
        reply: gets ``{}`` or ``{"error": reason}``; then what was plugged in is out again.
    """
    wire.answer(reply, lambda: _run(message, init))


def _run(message: "wire.Message", init: int) -> None:
    base = message["base"]
    libc.unshare(libc.CLONE_NEWNS)
    libc.mount("", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    point = f"{message['run_dir']}/root"
    made = [(node, binds.device_node(node, base or 0, point)) for node in message["plug"]]
    if not pidfd.alive(init):
        if made:
            raise OSError(3, "the instance has just stopped")
        return
    hotdisk.become_mapped_root(base)
    if base is not None:
        libc.setns(init, libc.CLONE_NEWUSER)
    libc.setns(init, libc.CLONE_NEWNS | libc.CLONE_NEWNET)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    done: list[Node] = []
    try:
        for node in message["unplug"]:
            _take_away(root, node)
        for node, fd in made:
            if _is_there(root, node):
                continue  # by a daemon that was killed before it could write it down
            binds.attach_in(root, node["path"], fd)
            done.append(node)
    except BaseException:
        for node in done:
            _take_away(root, node)
        raise
    if base is not None:  # the kernel tells a privileged guest of all of the host's itself
        for action, nodes in (("remove", message["unplug"]), ("add", done)):
            for node in nodes:
                try:
                    if node.get("event"):
                        uevents.send(action, node["event"])
                except OSError:
                    pass  # it has the node all the same


def _is_there(root: int, node: "Node") -> bool:
    """Whether exactly that node is at its place."""
    try:
        fd = libc.openat2(root, node["path"], os.O_PATH)
    except OSError:
        return False
    status = os.stat(fd)
    os.close(fd)
    kind = stat.S_ISCHR(status.st_mode) if node["kind"] == "c" else stat.S_ISBLK(status.st_mode)
    return kind and status.st_rdev == os.makedev(node["major"], node["minor"])


def _take_away(root: int, node: "Node") -> None:
    """Unmounts the node, and removes the empty file that it was mounted on. One that the guest took away is no error.

    Processes that have it open keep it.
    """
    if not _is_there(root, node):
        return
    parent, _, name = node["path"].rstrip("/").rpartition("/")
    try:
        os.fchdir(libc.openat2(root, parent or "/", os.O_PATH | os.O_DIRECTORY))
        libc.umount2(name, _UMOUNT_NOFOLLOW | libc.MNT_DETACH)
        status = os.stat(name, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and not status.st_size:
            os.unlink(name)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno not in (1, 16, 22):  # EPERM, EBUSY, EINVAL: it is no mount, but the guest's own
            raise

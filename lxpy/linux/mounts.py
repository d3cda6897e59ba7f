"""Mounts by descriptor: clones, id-mapped clones, new file systems, overlay."""

import os

from lxpy.linux import libc


def clone(path: str, *, dir_fd: int = libc.AT_FDCWD, recursive: bool = False) -> int:
    """A detached clone of the mount at `path` (what lies below it too when `recursive`)."""
    return libc.open_tree(path, libc.OPEN_TREE_CLONE | (libc.AT_RECURSIVE if recursive else 0), dir_fd)


def is_mounted(path: str) -> bool:
    """Whether a mount is at the directory `path` itself. `os.path.ismount` takes btrfs subvolumes for one."""
    try:
        return _mount_id(path) != _mount_id(os.path.dirname(os.path.abspath(path)))
    except FileNotFoundError:
        return False


def _mount_id(path: str) -> str:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next(line for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def idmapped(path: str, userns_fd: int, attributes: int = 0, recursive: bool = False) -> int:
    """A detached clone of the mount at `path`, its owners shifted by the (written) map of a user namespace.

    Raises:
        OSError: EINVAL when the file system, or one below it, knows no id-mapped mounts.
    """
    fd = clone(path, recursive=recursive)
    try:
        libc.mount_setattr(fd, attributes | libc.MOUNT_ATTR_IDMAP, userns_fd, recursive)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno, error.strerror, path) from None
    return fd


def new(fstype: str, options: dict[str, str], attributes: int, source: str = "") -> int:
    """A detached mount of a file system: a new one, or that on the device `source`.

    Args:
        options: an empty value makes one a flag.
    """
    fs = libc.fsopen(fstype)
    try:
        libc.fsconfig(fs, libc.FSCONFIG_SET_STRING, "source", source or fstype)
        for key, value in options.items():
            command = libc.FSCONFIG_SET_STRING if value else libc.FSCONFIG_SET_FLAG
            libc.fsconfig(fs, command, key, value)
        try:
            libc.fsconfig(fs, libc.FSCONFIG_CMD_CREATE)
        except OSError as error:
            raise OSError(error.errno, _kernel_log(fs) or error.strerror, fstype) from None
        return libc.fsmount(fs, attributes)
    finally:
        os.close(fs)


def _kernel_log(fs: int) -> str:
    """What the file system itself says went wrong: the messages queued on its context, errors first."""
    lines = []
    try:
        while True:
            lines.append(os.read(fs, 4096).decode(errors="replace").strip())
    except OSError:
        pass
    return "; ".join(line[2:] for line in lines if line.startswith("e "))


def overlay(lower_fd: int, upper: str, work: str, attributes: int, *, userxattr: bool = False) -> int:
    """A detached overlay.

    Layers are named ``/proc/self/fd/N``: no ``,`` or ``:`` in a path can become an option, and the guest, which
    sees the options in its mountinfo, reads no path of the host. Both layers must be attached mounts (before
    Linux 6.15 overlayfs takes no detached ones).

    Args:
        lower_fd: directory of the lower layer.
        upper: ``/proc/self/fd/N/...`` of the upper directory.
        work: the same of the work directory.
        attributes: ``MOUNT_ATTR_*`` of the mount.
        userxattr: for a mount made inside a user namespace; renaming lower directories then gives EXDEV.

    Raises:
        OSError: as the kernel says; EROFS when overlayfs took the layers but would not write to them.
    """
    layers = {"lowerdir": f"/proc/self/fd/{lower_fd}", "upperdir": upper, "workdir": work}
    if userxattr:
        return new("overlay", layers | {"userxattr": ""}, attributes)
    options = layers | {"redirect_dir": "on"}
    try:
        fd = new("overlay", options | {"index": "on"}, attributes)
    except OSError as error:
        if error.errno == 16:  # EBUSY: it is mounted already, and two live overlays would spoil it
            raise
        # An upper directory that was copied does not match its index (ESTALE); a file system without
        # file handles has none (EINVAL). Without the index only hard links between layers split.
        fd = new("overlay", options | {"index": "off"}, attributes)
    if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
        os.close(fd)
        raise OSError(30, "overlayfs accepts the layers read-only", "overlay")
    return fd

"""What is mounted into a guest from the host: opened and id-mapped on this side, attached on the guest's."""

import os
import stat

from lxpy.linux import libc, mounts, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.spec import Mount, Node

MOUNT_OPTIONS = {
    "ro": libc.MOUNT_ATTR_RDONLY, "nosuid": libc.MOUNT_ATTR_NOSUID, "nodev": libc.MOUNT_ATTR_NODEV,
    "noexec": libc.MOUNT_ATTR_NOEXEC,
}  # fmt: skip


def source_of(mount: "Mount") -> str:
    """The path to mount from. One that has to lie beneath others is opened here, and named by its descriptor."""
    source = mount["source"]
    if not mount.get("beneath"):
        return source
    for top in mount["beneath"]:
        if source == top or source.startswith(top.rstrip("/") + "/"):
            fd = os.open(top, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            inside = source[len(top) :].strip("/") or "."
            try:
                found = libc.openat2(fd, inside, os.O_PATH, resolve=libc.RESOLVE_BENEATH | libc.RESOLVE_NO_MAGICLINKS)
            except OSError as error:
                if error.errno != 18:  # EXDEV
                    raise
                raise OSError(18, f"a link in it leads out of {top}", source) from None
            finally:
                os.close(fd)
            return f"/proc/self/fd/{found}"
    raise OSError(1, "it lies in no directory that the project allows", source)


def clone_following(mounts_: "list[Mount]") -> "dict[str, int]":
    """Clones, by target, of the sources that are to follow what the host mounts below them later.

    To be taken while this mount namespace still hears of the host's mounts.
    """
    found = {}
    for mount in mounts_:
        if mount.get("propagation") == "slave":
            try:
                found[mount["target"]] = mounts.clone(source_of(mount), recursive=mount["recursive"])
            except FileNotFoundError:
                pass  # `disk` says whether that matters
    return found


def disk(mount: "Mount", userns: int, init: int, following: int = -1) -> int:
    """A detached clone of the mount's source; -1 when that is missing and need not be there.

    Args:
        userns: the guest's user namespace, -1: it has none.
        init: pid of the guest's init, whose id map is written.
        following: what `clone_following` has for it.
    """
    try:
        source = source_of(mount)
        status = os.stat(source)
    except FileNotFoundError:
        if mount["required"]:
            raise
        return -1
    device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    attributes = libc.MOUNT_ATTR_RDONLY if mount["readonly"] else 0
    for option in mount.get("options", ()):
        attributes |= MOUNT_OPTIONS[option]
    if userns >= 0 and not device:
        attributes |= libc.MOUNT_ATTR_NODEV
    owner, recursive = mount.get("owner"), mount["recursive"]
    mapping = userns if mount["shift"] and not device else -1
    if owner is not None and not device:
        mapping = _owner_map(init, (status.st_uid, status.st_gid), owner)
    fd = following if following >= 0 else mounts.clone(source, recursive=recursive)
    if mapping >= 0:
        try:
            libc.mount_setattr(fd, attributes | libc.MOUNT_ATTR_IDMAP, mapping, recursive)
        except OSError as error:
            os.close(fd)
            if error.errno != 22:
                raise OSError(error.errno, error.strerror, mount["source"]) from None
            way = "without owner" if owner is not None else "set shift=false"
            raise OSError(22, f"its file system knows no id-mapped mounts; {way}", mount["source"]) from None
        finally:
            if mapping != userns:
                os.close(mapping)
    elif attributes:
        libc.mount_setattr(fd, attributes, 0, recursive)
    if following >= 0:
        libc.mount_setattr(fd, 0, 0, recursive, libc.MS_SLAVE)
    return fd


def _owner_map(init: int, ours: "tuple[int, int]", theirs: "list[int]") -> int:
    """A user namespace for a mount on which the source's owner is the guest's `theirs`; the other ids are themselves.

    What would then be two at once is nobody: on the disk the number `theirs`, in the guest the number of `ours`.
    """
    maps = []
    for name, disk_id, guest_id in zip(("uid_map", "gid_map"), ours, theirs, strict=True):
        pieces, found = namespaces.read_map(init, name), list[list[int]]()
        for inside, outside, count in pieces:
            if inside <= guest_id < inside + count:
                found.append([disk_id, outside + guest_id - inside, 1])
            start, end = inside, inside + count
            for stop in sorted({disk_id, guest_id, end}):
                if start < min(stop, end):
                    found.append([start, outside + start - inside, min(stop, end) - start])
                start = max(start, stop + 1)
        if not any(piece[0] == disk_id for piece in found):
            raise OSError(22, f"the instance has no id {guest_id}", name)
        maps.append(found)
    return namespaces.mapped(maps[0], maps[1])


def put_on_stage(stage: int, name: str, fd: int) -> None:
    """Attaches a mount below the attached tmpfs `stage` of this namespace and closes `fd`.

    A namespace then copied by a process in the guest's user namespace has its flags locked: no read-only disk becomes
    writable by a remount inside. The copy itself is locked in its place, a clone of it is not and can be moved.
    """
    if stat.S_ISDIR(os.stat(fd).st_mode):
        os.mkdir(name, 0o755, dir_fd=stage)
    else:
        os.close(os.open(name, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=stage))
    libc.move_mount(fd, stage, name)
    os.close(fd)


def attach_in(root_fd: int, target: str, mount_fd: int) -> None:
    """Attaches `mount_fd` at `target` below `root_fd`, making what is missing; no link leads out of the root."""
    is_dir = stat.S_ISDIR(os.stat(mount_fd).st_mode)
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise OSError(22, "not a path below the root of the guest", target)
    fd = os.dup(root_fd)
    for index in range(len(parts)):
        path = "/".join(parts[: index + 1])
        last = index == len(parts) - 1
        kind = os.O_DIRECTORY if is_dir or not last else 0
        try:
            new = libc.openat2(root_fd, path, os.O_PATH | kind)
        except FileNotFoundError:
            try:
                if kind:
                    os.mkdir(parts[index], 0o755, dir_fd=fd)
                else:
                    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(parts[index], flags, 0o644, dir_fd=fd))
            except FileExistsError:
                raise OSError(2, "a link that leads nowhere inside the guest", path) from None
            new = libc.openat2(root_fd, path, os.O_PATH | kind)
        os.close(fd)
        fd = new
    libc.move_mount(mount_fd, fd)
    os.close(fd)


def device_node(node: "Node", base: int, point: str) -> int:
    """A detached mount of a new device node, which nothing on the host has a name of and which goes with the mount.

    Where nodes cannot be made (in a container) it is the host's own node, with its owner and mode.

    Args:
        point: a directory to work on, in a mount namespace of one's own: only what is attached can be cloned.
    """
    kind = stat.S_IFCHR if node["kind"] == "c" else stat.S_IFBLK
    tree = mounts.new("tmpfs", {"mode": "700", "size": "16k"}, libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NOEXEC)
    place = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    libc.move_mount(tree, place)
    os.close(place)
    try:
        try:
            os.mknod("node", kind | node["mode"], os.makedev(node["major"], node["minor"]), dir_fd=tree)
        except PermissionError:
            if not node["source"]:
                raise
            return mounts.clone(node["source"])
        os.chmod("node", node["mode"], dir_fd=tree)  # whatever the umask is
        os.chown("node", base + node["uid"], base + node["gid"], dir_fd=tree)
        return mounts.clone("node", dir_fd=tree)
    finally:
        os.close(tree)
        libc.umount2(point, libc.MNT_DETACH)

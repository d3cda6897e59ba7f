"""The one ctypes layer: system calls that Python 3.11 or glibc 2.36 lack, three lines each.

Everything raises ``OSError(errno, strerror, what)``. Calls go by number through ``syscall()``, so neither the age of
glibc nor musl matters. ``PyDLL`` keeps the interpreter lock during a call: a raw ``clone`` whose child comes back
into Python must not find the lock given away.

Numbers: arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h of Linux 6.18.
"""

import ctypes
import os

MACHINE = os.uname().machine

# Calls above 400 have one number on every architecture.
SYS_PIDFD_SEND_SIGNAL = 424
SYS_OPEN_TREE = 428
SYS_MOVE_MOUNT = 429
SYS_FSOPEN = 430
SYS_FSCONFIG = 431
SYS_FSMOUNT = 432
SYS_CLONE3 = 435
SYS_CLOSE_RANGE = 436
SYS_OPENAT2 = 437
SYS_MOUNT_SETATTR = 442

_TABLES = {
    "x86_64": {
        "mount": 165, "umount2": 166, "pivot_root": 155, "unshare": 272, "setns": 308, "prctl": 157, "capget": 125,
        "capset": 126, "seccomp": 317, "bpf": 321, "keyctl": 250, "sethostname": 170, "setfsuid": 122,
        "setfsgid": 123, "prlimit64": 302, "renameat2": 316, "fchownat": 260,
    },
    "aarch64": {
        "mount": 40, "umount2": 39, "pivot_root": 41, "unshare": 97, "setns": 268, "prctl": 167, "capget": 90,
        "capset": 91, "seccomp": 277, "bpf": 280, "keyctl": 219, "sethostname": 161, "setfsuid": 151,
        "setfsgid": 152, "prlimit64": 261, "renameat2": 276, "fchownat": 54,
    },
}  # fmt: skip
NUMBERS = _TABLES.get(MACHINE, _TABLES["aarch64"])  # asm-generic: riscv64 and loongarch64 share it

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_PARENT = 0x00008000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000
SIGCHLD = 17

# include/uapi/linux/mount.h, sys/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 0x1, 0x2, 0x4, 0x8, 0x20
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 0x1000, 0x4000, 0x40000, 0x80000
MNT_DETACH = 2
OPEN_TREE_CLONE = 1
AT_FDCWD = -100
RENAME_NOREPLACE, RENAME_EXCHANGE = 1, 2
AT_RECURSIVE = 0x8000
AT_EMPTY_PATH = 0x1000
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG, FSCONFIG_SET_STRING, FSCONFIG_CMD_CREATE = 0, 1, 6
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC = 0x1, 0x2, 0x4, 0x8
MOUNT_ATTR_IDMAP = 0x00100000

# include/uapi/linux/prctl.h, keyctl.h
PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP = 4, 8, 15, 22, 24
KEYCTL_JOIN_SESSION_KEYRING = 1

# asm-generic/resource.h
RLIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "core": 4, "nproc": 6, "nofile": 7, "memlock": 8, "as": 9, "locks": 10,
    "sigpending": 11, "nice": 13, "rtprio": 14,
}  # fmt: skip
RLIMIT_NPROC, RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE = 6, 7, 8, 11, 12

RESOLVE_NO_MAGICLINKS, RESOLVE_BENEATH, RESOLVE_IN_ROOT = 0x02, 0x08, 0x10

_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_long = ctypes.c_long


def syscall(number: int, *arguments: int | bytes | None, what: str = "") -> int:
    """The raw call; pointers as addresses, strings as bytes.

    Raises:
        OSError: with the kernel's errno and `what` as the file name.
    """
    result = int(_syscall(_long(number), *[_long(a) if isinstance(a, int) else a for a in arguments]))
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what or None)
    return result


def address(buffer: ctypes.Array[ctypes.c_char] | ctypes.Structure) -> int:
    return ctypes.addressof(buffer)


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    syscall(
        NUMBERS["mount"], os.fsencode(source), os.fsencode(target), fstype.encode() or None, flags,
        os.fsencode(data) or None, what=target,
    )  # fmt: skip


def umount2(target: str, flags: int = 0) -> None:
    syscall(NUMBERS["umount2"], os.fsencode(target), flags, what=target)


def pivot_root(new_root: str, put_old: str) -> None:
    syscall(NUMBERS["pivot_root"], os.fsencode(new_root), os.fsencode(put_old), what=new_root)


def renameat2(source: str, target: str, flags: int, source_fd: int = AT_FDCWD, target_fd: int = AT_FDCWD) -> None:
    """``rename`` that refuses a target that is there, or exchanges the two."""
    syscall(
        NUMBERS["renameat2"], source_fd, os.fsencode(source), target_fd, os.fsencode(target), flags, what=target
    )  # fmt: skip


def fchownat(fd: int, uid: int, gid: int) -> None:
    """The owner of what `fd` names, even by O_PATH, even a symbolic link."""
    syscall(NUMBERS["fchownat"], fd, b"", uid, gid, AT_EMPTY_PATH, what="fchownat")


def open_tree(path: str, flags: int = OPEN_TREE_CLONE, dir_fd: int = AT_FDCWD) -> int:
    """A detached clone of the mount at `path`, close-on-exec; ``AT_RECURSIVE`` takes what is mounted below."""
    empty = AT_EMPTY_PATH if not path else 0
    return syscall(SYS_OPEN_TREE, dir_fd, os.fsencode(path), flags | empty | os.O_CLOEXEC, what=path)


def move_mount(mount_fd: int, target_fd: int, target: str = "") -> None:
    """Attaches the detached mount at `target` below `target_fd` (or on it); links in the last component count not."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    syscall(SYS_MOVE_MOUNT, mount_fd, b"", target_fd, os.fsencode(target), flags, what=target)


def fsopen(fstype: str) -> int:
    return syscall(SYS_FSOPEN, fstype.encode(), 1, what=fstype)


def fsconfig(fs_fd: int, command: int, key: str = "", value: str = "") -> None:
    syscall(
        SYS_FSCONFIG, fs_fd, command, key.encode() or None, os.fsencode(value) if value else None, 0,
        what=f"{key}={value}" if key else "",
    )  # fmt: skip


def fsmount(fs_fd: int, attributes: int) -> int:
    return syscall(SYS_FSMOUNT, fs_fd, 1, attributes)


class MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def mount_setattr(fd: int, attr_set: int, userns_fd: int = 0, recursive: bool = False, propagation: int = 0) -> None:
    attr = MountAttr(attr_set, 0, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(SYS_MOUNT_SETATTR, fd, b"", flags, ctypes.addressof(attr), ctypes.sizeof(attr))


class _OpenHow(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("flags", "mode", "resolve")]


def openat2(
    dir_fd: int, path: str, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
) -> int:
    """`path` opened below `dir_fd`, which no link in it can leave."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    return syscall(SYS_OPENAT2, dir_fd, os.fsencode(path), ctypes.addressof(how), ctypes.sizeof(how), what=path)


def unshare(flags: int) -> None:
    syscall(NUMBERS["unshare"], flags, what="unshare")


def setns(fd: int, flags: int) -> None:
    """Joins the namespaces `flags` of the process behind a pidfd (Linux 5.8), all or none."""
    syscall(NUMBERS["setns"], fd, flags, what="setns")


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in ("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls",
                     "set_tid", "set_tid_size", "cgroup")
    ]  # fmt: skip


def clone(flags: int, cgroup_fd: int = -1) -> int:
    """``clone3`` with fork's meaning (0 in the child), optionally straight into a cgroup of the unified hierarchy.

    Only for single-threaded processes: unlike ``os.fork`` it runs none of libc's or Python's fork handlers.
    """
    arguments = _CloneArgs(flags=flags)
    if not flags & CLONE_PARENT:  # with CLONE_PARENT the caller's own signal is used, and naming one is EINVAL
        arguments.exit_signal = SIGCHLD
    if cgroup_fd >= 0:
        arguments.flags = flags | CLONE_INTO_CGROUP
        arguments.cgroup = cgroup_fd
    return syscall(SYS_CLONE3, ctypes.addressof(arguments), ctypes.sizeof(arguments), what="clone3")


def prctl(option: int, value: int, third: int = 0) -> int:
    return syscall(NUMBERS["prctl"], option, value, third, 0, 0, what=f"prctl({option})")


def set_name(name: str) -> None:
    """The kernel's name of this process, cut to 15 bytes."""
    syscall(NUMBERS["prctl"], PR_SET_NAME, name.encode()[:15], 0, 0, 0, what="prctl")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    syscall(SYS_CLOSE_RANGE, first, last, 0, what="close_range")


def join_new_session_keyring() -> None:
    """Leaves the session keyring inherited from the host behind."""
    syscall(NUMBERS["keyctl"], KEYCTL_JOIN_SESSION_KEYRING, None, what="keyctl")


def sethostname(name: str) -> None:
    raw = name.encode()
    syscall(NUMBERS["sethostname"], raw, len(raw), what="sethostname")


def setfsuid(uid: int) -> None:
    """Of the calling thread only. It reports no failure, so a second call asks what came of the first."""
    syscall(NUMBERS["setfsuid"], uid)
    if syscall(NUMBERS["setfsuid"], 0xFFFFFFFF) != uid:
        raise OSError(1, "Operation not permitted", f"setfsuid({uid})")


def setfsgid(gid: int) -> None:
    """As `setfsuid`."""
    syscall(NUMBERS["setfsgid"], gid)
    if syscall(NUMBERS["setfsgid"], 0xFFFFFFFF) != gid:
        raise OSError(1, "Operation not permitted", f"setfsgid({gid})")


class _Rlimit(ctypes.Structure):
    _fields_ = [("soft", ctypes.c_uint64), ("hard", ctypes.c_uint64)]


INFINITY = 0xFFFFFFFFFFFFFFFF


def rlimit(resource: int) -> tuple[int, int]:
    old = _Rlimit()
    syscall(NUMBERS["prlimit64"], 0, resource, None, ctypes.addressof(old), what="prlimit")
    return old.soft, old.hard


def set_rlimit(resource: int, soft: int, hard: int) -> None:
    new = _Rlimit(soft, hard)
    syscall(NUMBERS["prlimit64"], 0, resource, ctypes.addressof(new), None, what="prlimit")


def set_title(title: str) -> None:
    """What `ps` shows: overwrites this process's arguments (arg_start to arg_end, fields 48 and 49 of its stat)."""
    fd = os.open("/proc/self/stat", os.O_RDONLY | os.O_CLOEXEC)
    fields = os.read(fd, 4096).rpartition(b") ")[2].split()
    os.close(fd)
    start, end = int(fields[45]), int(fields[46])
    if end - start > 1:
        ctypes.memset(start, 0, end - start)
        raw = title.encode()[: end - start - 1]
        ctypes.memmove(start, raw, len(raw))
    set_name(title)

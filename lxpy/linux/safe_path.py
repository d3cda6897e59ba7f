"""File work inside a tree that somebody else controls: no link in it can lead out of it.

Every path is resolved by the kernel (``openat2``, Linux 5.6): ``RESOLVE_IN_ROOT`` keeps absolute links and
``..`` inside the tree as ``chroot`` would, ``RESOLVE_NO_MAGICLINKS`` refuses ``/proc/*/fd`` and its like. A guest
may move things about while we look; what we hold is always a descriptor, never a path checked a moment ago.

All functions raise ``OSError(errno, strerror, path)``.
"""

import contextlib
import ctypes
import errno
import os
import stat

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
NO_LINKS = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS

MAX_LINKS = 40  # the kernel's own limit, include/linux/namei.h MAXSYMLINKS
_SYS_OPENAT2 = 437  # the same number on every architecture Debian builds for
_O_PATH_DIR = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]

Path = str | bytes


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def openat2(dir_fd: int, path: Path, flags: int, mode: int = 0, resolve: int = IN_ROOT) -> int:
    """A descriptor of `path` below `dir_fd`, close-on-exec.

    Raises:
        OSError: ELOOP when `resolve` forbids a link on the way. A race with a rename (EAGAIN) is retried.
    """
    raw = os.fsencode(path)
    if b"\0" in raw:
        raise OSError(errno.EINVAL, "a NUL in the path", path)
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    for _ in range(128):
        fd = int(_syscall(_SYS_OPENAT2, dir_fd, raw or b".", ctypes.addressof(how), ctypes.sizeof(how)))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        # EAGAIN: something was renamed or mounted while the kernel walked over a "..".
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def open_dir(root_fd: int, path: Path) -> int:
    """An O_PATH descriptor of a directory inside the root; links followed, inside it."""
    return openat2(root_fd, path, _O_PATH_DIR)


def make_dirs(root_fd: int, path: str, mode: int = 0o755, uid: int = 0, gid: int = 0) -> None:
    """``mkdir -p`` inside the root. Directories made get `mode` and owner; those that are there stay as they are."""
    try:
        os.close(open_dir(root_fd, path))
        return
    except FileNotFoundError:
        pass
    reached = "/"
    for name in path.split("/"):
        if name in ("", "."):
            continue
        parent_fd = open_dir(root_fd, reached)
        reached += f"{name}/"
        try:
            _make_dir(root_fd, parent_fd, name, reached, mode, uid, gid)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(parent_fd)


def _make_dir(root_fd: int, parent_fd: int, name: str, reached: str, mode: int, uid: int, gid: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent_fd)
    except FileExistsError:
        # There already, or a link: it has to lead to a directory.
        os.close(open_dir(root_fd, reached))
        return
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent_fd)
    try:
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    finally:
        os.close(fd)


def read_file(root_fd: int, path: str, limit: int) -> bytes:
    """The content of a regular file inside the root.

    Raises:
        OSError: EFBIG when it is longer than `limit` bytes, EINVAL when it is no regular file (a FIFO never
            blocks us).
    """
    fd = openat2(root_fd, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _must_be_regular(fd, path)
        parts, left = [], limit + 1
        while left > 0 and (part := os.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    if not left:
        raise OSError(errno.EFBIG, f"longer than {limit} bytes", path)
    return b"".join(parts)


def write_file(
    root_fd: int,
    path: str,
    content: bytes | int,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    limit: int | None = None,
    sync: bool = False,
) -> None:
    """Write a whole file inside the root: under a temporary name beside it, then renamed; nobody sees half of it.

    A link at `path` is followed, inside the root, and the file it names is replaced (or made).

    Args:
        content: the bytes, or a descriptor to copy until its end.
        limit: bytes of `content` at most; more is EFBIG and leaves the old file as it was.
        sync: wait for the disk. Off by default: a guest's files are as durable as its own writes would be.

    Raises:
        OSError: ENOENT when the directory is missing, EISDIR or EINVAL when what is there is no regular file.
    """
    dir_fd, name = resolve_parent(root_fd, path)
    try:
        temporary = f".{name[:200]}.{os.urandom(4).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=dir_fd)
        try:
            try:
                _copy(content, fd, limit, path)
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
                if sync:
                    os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=dir_fd)
            raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(dir_fd)


def resolve_parent(root_fd: int, path: str) -> tuple[int, str]:
    """The directory (O_PATH descriptor, now the caller's) and last name of the file `path` means.

    Links are followed; the name is no link at the moment of the look, and missing or a regular file.

    Raises:
        OSError: ELOOP after `MAX_LINKS` links, EISDIR, EINVAL for a device, FIFO or socket.
    """
    here = path
    for _ in range(MAX_LINKS):
        parent, name = _split(here)
        if name in ("", ".", ".."):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        dir_fd = open_dir(root_fd, parent)
        try:
            kind = stat.S_IFMT(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
            if kind == stat.S_IFLNK:
                link = os.readlink(name, dir_fd=dir_fd)
                # A plain string join will do: the kernel resolves the result again, from the root.
                here = link if link.startswith("/") else f"{parent}/{link}"
                os.close(dir_fd)
                continue
        except FileNotFoundError:
            return dir_fd, name
        except BaseException:
            os.close(dir_fd)
            raise
        if kind != stat.S_IFREG:
            os.close(dir_fd)
            number = errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL
            raise OSError(number, "not a regular file", path)
        return dir_fd, name
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _split(path: str) -> tuple[str, str]:
    parent, _, name = path.rstrip("/").rpartition("/")
    return parent or ("/" if path.startswith("/") else "."), name


def _must_be_regular(fd: int, path: str) -> None:
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def _copy(content: bytes | int, fd: int, limit: int | None, path: str) -> None:
    too_big = OSError(errno.EFBIG, f"longer than {limit} bytes", path)
    if not isinstance(content, int):
        if limit is not None and len(content) > limit:
            raise too_big
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        return
    total = 0
    while part := os.read(content, 1 << 20):
        total += len(part)
        if limit is not None and total > limit:
            raise too_big
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]

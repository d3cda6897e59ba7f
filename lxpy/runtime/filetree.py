"""The files of an instance as a process sees them that has its root for `/`: found, written, removed.

Writing is never half done: what is being written has no name (or, where the file system cannot do that, a temporary
one) until it is whole. Everything raises ``OSError(errno, strerror, path)``.
"""

import errno
import os
import select
import stat

from lxpy.linux import libc, safe_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from lxpy.runtime import wire

    T = TypeVar("T")

_MUCH = 1 << 20  # the largest pipe an unprivileged user may have
_F_SETPIPE_SZ = 1031
_SPLICE_F_NONBLOCK = 2
_NO_SPLICE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)
_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "char", stat.S_IFBLK: "block",
}  # fmt: skip


class Tree:
    """The instance's files. Paths are the guest's; all methods raise ``OSError(errno, strerror, path)``.

    Attributes:
        proc: descriptor of the host's /proc, for links to descriptors of our own.
        root: descriptor of the tree.

    Args:
        guard: this process ends when it becomes readable or hangs up.
    """

    def __init__(self, proc: int, guard: int) -> None:
        self.proc, self._guard = proc, guard
        self.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def wait(self, fd: int, events: int = select.POLLIN) -> None:
        """Until `fd` is ready."""
        poll = select.poll()
        poll.register(fd, events)
        poll.register(self._guard, select.POLLIN)
        if any(number == self._guard for number, _ in poll.poll()):
            os._exit(0)

    def parent(self, path: str) -> "tuple[int, str]":
        """The directory and last name of `path`, whose last component is not followed."""
        head, _, name = path.rstrip("/").rpartition("/")
        if name in ("", ".", ".."):
            raise OSError(errno.EINVAL, "not the name of a file", path)
        return safe_path.open_dir(self.root, head or "/"), name

    def find(self, path: str, follow: bool) -> int:
        """An O_PATH descriptor of whatever is there."""
        flags = os.O_PATH | (0 if follow or path.rstrip("/") != path else os.O_NOFOLLOW)
        return safe_path.openat2(self.root, path, flags)

    def reopen(self, fd: int, flags: int) -> int:
        """A descriptor to read or write what an O_PATH descriptor names: no rename comes in between."""
        return os.open(f"self/fd/{fd}", flags | os.O_CLOEXEC, dir_fd=self.proc)

    def open_regular(self, path: str, flags: int) -> int:
        """A regular file; anything else is EISDIR or EINVAL and is not touched."""
        fd = self.find(path, True)
        try:
            must_be_file(os.fstat(fd), path)
            return named(path, lambda: self.reopen(fd, flags))
        finally:
            os.close(fd)

    def entry(self, path: str, follow: bool) -> "dict[str, Any]":
        """type, uid, gid, mode, size, mtime (ns since the epoch) and, of a symbolic link, its target."""
        fd = self.find(path, follow)
        try:
            found = describe(os.fstat(fd))
            if found["type"] == "symlink":
                found["target"] = os.readlink("", dir_fd=fd)
            return found
        finally:
            os.close(fd)

    def entries(self, path: str) -> "list[dict[str, Any]]":
        """The entries of a directory, each with its name."""
        fd = safe_path.openat2(self.root, path, os.O_RDONLY | os.O_DIRECTORY)
        found = []
        try:
            for name in sorted(os.listdir(fd)):
                try:
                    one = describe(os.stat(name, dir_fd=fd, follow_symlinks=False))
                    if one["type"] == "symlink":
                        one["target"] = os.readlink(name, dir_fd=fd)
                except FileNotFoundError:
                    continue
                found.append({"name": name, **one})
        finally:
            os.close(fd)
        return found

    def mkdir(self, path: str, parents: bool, owner: "Owner") -> None:
        if parents:
            mode, uid, gid = owner.of(None, 0o755)
            safe_path.make_dirs(self.root, path, mode, uid, gid)
            return
        try:
            old: os.stat_result | None = os.stat(fd := self.find(path, True))
        except FileNotFoundError:
            dir_fd, name = self.parent(path)
            try:
                named(path, lambda: os.mkdir(name, 0o700, dir_fd=dir_fd))
                fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dir_fd)
            finally:
                os.close(dir_fd)
            old = None
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            named(path, lambda: self.give(fd, owner, old, 0o755))
        finally:
            os.close(fd)

    def give(self, fd: int, owner: "Owner", old: "os.stat_result | None", default: int) -> None:
        """Owner and mode of what `fd` (an O_PATH descriptor is enough) names."""
        mode, uid, gid = owner.of(old, default)
        if old is None or (uid, gid) != (old.st_uid, old.st_gid):
            libc.fchownat(fd, uid, gid)
            old = None  # the kernel drops set-id bits
        if old is None or mode != stat.S_IMODE(old.st_mode):
            os.chmod(f"self/fd/{fd}", mode, dir_fd=self.proc)

    def symlink(self, path: str, target: str, owner: "Owner") -> None:
        """A link that is there is replaced, anything else is EEXIST."""
        dir_fd, name = self.parent(path)
        try:
            temporary = temporary_name(name)
            os.symlink(target, temporary, dir_fd=dir_fd)
            try:
                try:
                    old = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
                    if not stat.S_ISLNK(old.st_mode):
                        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
                except FileNotFoundError:
                    pass
                _, uid, gid = owner.of(None, 0o777)
                os.chown(temporary, uid, gid, dir_fd=dir_fd, follow_symlinks=False)
                os.rename(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
            except BaseException:
                os.unlink(temporary, dir_fd=dir_fd)
                raise
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(dir_fd)

    def delete(self, path: str, recursive: bool) -> None:
        """A file, a link (not what it names), an empty directory; with `recursive` what is in it, too."""
        dir_fd, name = self.parent(path)
        try:
            named(path, lambda: _remove(dir_fd, name, recursive))
        finally:
            os.close(dir_fd)

    def chmod(self, path: str, owner: "Owner") -> None:
        fd = self.find(path, True)
        try:
            old = os.fstat(fd)
            named(path, lambda: self.give(fd, owner, old, 0))
        finally:
            os.close(fd)

    # -- contents ----------------------------------------------------------------------------------------------

    def pour(self, source: int, target: int, from_pipe: bool) -> None:
        """Everything from `source` to `target`, one of which is a pipe; in the kernel where it can."""
        pipe = source if from_pipe else target
        try:
            import fcntl

            fcntl.fcntl(pipe, _F_SETPIPE_SZ, _MUCH)
        except OSError:
            pass  # over a quota: smaller pieces do as well
        os.set_blocking(pipe, False)
        spliced = True
        held = memoryview(b"")
        while True:
            self.wait(pipe, select.POLLIN if from_pipe else select.POLLOUT)
            try:
                if spliced:
                    if os.splice(source, target, _MUCH, flags=_SPLICE_F_NONBLOCK) == 0:
                        return
                    continue
                if not held:
                    held = memoryview(os.read(source, _MUCH if from_pipe else 1 << 16))
                    if not held:
                        return
                held = held[os.write(target, held) :]
                while from_pipe and held:
                    held = held[os.write(target, held) :]
            except BlockingIOError:
                continue
            except OSError as error:
                if not spliced or error.errno not in _NO_SPLICE:
                    raise
                spliced = False  # a file of /proc, say

    def begin(self, path: str) -> "Draft":
        """A new content for `path`, which nobody sees yet."""
        dir_fd, name = safe_path.resolve_parent(self.root, path)
        try:
            return Draft(self, dir_fd, name, path)
        except OSError as error:
            os.close(dir_fd)
            raise OSError(error.errno, error.strerror, path) from None

    def link(self, fd: int, name: str, dir_fd: int) -> None:
        """A name for a file that has none."""
        os.link(f"self/fd/{fd}", name, src_dir_fd=self.proc, dst_dir_fd=dir_fd, follow_symlinks=True)


class Owner:
    """Which owner and mode something gets; -1 and missing ones are as it was, or root's and the default."""

    def __init__(self, message: "wire.Message") -> None:
        self._always = [message.get(key, -1) for key in ("mode", "uid", "gid")]
        new = message.get("new") or {}
        self._new = [new.get(key, -1) for key in ("mode", "uid", "gid")]

    def of(self, old: "os.stat_result | None", default: int) -> "tuple[int, int, int]":
        """mode, uid and gid."""
        if old is not None:
            known = [stat.S_IMODE(old.st_mode), old.st_uid, old.st_gid]
        else:
            known = [n if n >= 0 else d for n, d in zip(self._new, (default, 0, 0), strict=True)]
        mode, uid, gid = (a if a >= 0 else k for a, k in zip(self._always, known, strict=True))
        return mode, uid, gid


class Draft:
    """A file that is being written. It has no name where the file system can do that, else a temporary one."""

    def __init__(self, tree: Tree, dir_fd: int, name: str, path: str) -> None:
        self._tree, self._dir, self._name, self._path = tree, dir_fd, name, path
        self._temporary = ""
        try:
            self.fd = os.open(f"self/fd/{dir_fd}", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=tree.proc)
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
            temporary = temporary_name(name)
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            self.fd = os.open(temporary, flags, 0o600, dir_fd=dir_fd)
            self._temporary = temporary

    def commit(self, owner: Owner) -> None:
        """The file is what has been written."""
        try:
            try:
                old: os.stat_result | None = os.stat(self._name, dir_fd=self._dir, follow_symlinks=False)
            except FileNotFoundError:
                old = None
            if old is not None:
                must_be_file(old, self._path)
                self._keep_attributes()
            mode, uid, gid = owner.of(old, 0o644)
            os.fchown(self.fd, uid, gid)
            os.fchmod(self.fd, mode)
            if not self._temporary and old is None:
                try:
                    self._tree.link(self.fd, self._name, self._dir)
                    return
                except FileExistsError:
                    pass  # somebody was quicker
            if not self._temporary:
                temporary = temporary_name(self._name)
                self._tree.link(self.fd, temporary, self._dir)
                self._temporary = temporary
            try:
                os.rename(self._temporary, self._name, src_dir_fd=self._dir, dst_dir_fd=self._dir)
                self._temporary = ""
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                self._write_over()  # something is mounted there
        except OSError as error:
            raise OSError(error.errno, error.strerror, self._path) from None

    def _keep_attributes(self) -> None:
        """Access lists and the like of the file that is replaced; capabilities go, as they do at every write."""
        fd = os.open(self._name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._dir)
        try:
            old = self._tree.reopen(fd, os.O_RDONLY)
        except OSError:
            return
        finally:
            os.close(fd)
        try:
            for name in os.listxattr(old):
                if name.startswith(("user.", "system.posix_acl")):
                    os.setxattr(self.fd, name, os.getxattr(old, name))
        except OSError:
            pass  # the file system of the new one has none
        finally:
            os.close(old)

    def _write_over(self) -> None:
        target = self._tree.open_regular(self._path, os.O_WRONLY | os.O_TRUNC)
        try:
            at = 0
            while count := os.sendfile(target, self.fd, at, 1 << 30):
                at += count
        finally:
            os.close(target)

    def append(self, owner: Owner) -> None:
        """What has been written comes behind what is there: all of it, or nothing when there is no room."""
        try:
            target = self._tree.open_regular(self._path, os.O_WRONLY)
        except FileNotFoundError:
            self.commit(owner)
            return
        try:
            old = os.fstat(target)
            end, at = os.lseek(target, 0, os.SEEK_END), 0
            try:
                while count := os.sendfile(target, self.fd, at, 1 << 30):
                    at += count
            except OSError as error:
                os.ftruncate(target, end)
                raise OSError(error.errno, error.strerror, self._path) from None
            self._tree.give(target, owner, old, 0)
        finally:
            os.close(target)

    def close(self) -> None:
        """Without `commit` there was nothing."""
        os.close(self.fd)
        if self._temporary:
            try:
                os.unlink(self._temporary, dir_fd=self._dir)
            except OSError:
                pass
        os.close(self._dir)


def describe(status: os.stat_result) -> "dict[str, Any]":
    """type, uid, gid, mode, size (bytes), mtime (ns since the epoch)."""
    return {
        "type": _KINDS.get(stat.S_IFMT(status.st_mode), "file"), "uid": status.st_uid, "gid": status.st_gid,
        "mode": stat.S_IMODE(status.st_mode), "size": status.st_size, "mtime": status.st_mtime_ns,
    }  # fmt: skip


def must_be_file(status: os.stat_result, path: str) -> None:
    """Raises EISDIR, or EINVAL for a device, FIFO or socket."""
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", path)


def temporary_name(name: str) -> str:
    """Beside `name`, and nobody else's."""
    return f".{name[:100]}.{os.urandom(4).hex()}"


def named(path: str, work: "Callable[[], T]") -> "T":
    """`work`, its errors under the name that was asked for."""
    try:
        return work()
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None


def _remove(dir_fd: int, name: str, recursive: bool) -> None:
    try:
        os.unlink(name, dir_fd=dir_fd)
        return
    except IsADirectoryError:
        pass
    except PermissionError:  # POSIX's word for a directory
        if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise
    if not recursive:
        os.rmdir(name, dir_fd=dir_fd)
        return
    # Down by descriptors, not by recursion or names: neither depth nor a directory that moves leads astray.
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, dir_fd=dir_fd)
    stack = [(dir_fd, name, fd, os.listdir(fd))]
    try:
        while stack:
            above, called, fd, names = stack[-1]
            if not names:
                os.rmdir(called, dir_fd=above)
                os.close(fd)
                stack.pop()
                continue
            one = names.pop()
            try:
                os.unlink(one, dir_fd=fd)
            except FileNotFoundError:
                continue
            except (IsADirectoryError, PermissionError):
                if not stat.S_ISDIR(os.stat(one, dir_fd=fd, follow_symlinks=False).st_mode):
                    raise
                if len(stack) > 500:
                    raise OSError(errno.ELOOP, "directories nested too deeply", name) from None
                below = os.open(one, flags, dir_fd=fd)
                stack.append((fd, one, below, os.listdir(below)))
    finally:
        for _, _, fd, _ in stack:
            os.close(fd)

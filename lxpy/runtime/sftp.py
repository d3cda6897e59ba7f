"""An SFTP server (version 3, draft-ietf-secsh-filexfer-02, with OpenSSH's extensions) for a file process.

Over a stream without SSH: who may talk to us has been settled before. One request after the other, in order; a
client that sends many ahead is read ahead of by the socket.
"""

import errno
import os
import select
import socket
import stat
import struct
import time

from lxpy.linux import libc, safe_path
from lxpy.runtime.filetree import Tree, named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_VERSION = 3
_PACKET = (256 << 10) + 1024  # bytes: OpenSSH's own limit
_HANDLES = 512
_NAMES = 100  # entries of one READDIR answer
_INIT, _VERSION_REPLY, _EXTENDED = 1, 2, 200
_STATUS, _HANDLE, _DATA, _NAME, _ATTRS, _EXTENDED_REPLY = 101, 102, 103, 104, 105, 201
_OK, _EOF, _NO_SUCH_FILE, _DENIED, _FAILURE, _BAD_MESSAGE, _UNSUPPORTED = 0, 1, 2, 3, 4, 5, 8
_SIZE, _UIDGID, _PERMISSIONS, _TIMES, _MORE = 1, 2, 4, 8, 0x80000000
_READ, _WRITE, _APPEND, _CREAT, _TRUNC, _EXCL = 1, 2, 4, 8, 16, 32
_EXTENSIONS = (
    (b"posix-rename@openssh.com", b"1"), (b"statvfs@openssh.com", b"2"), (b"fstatvfs@openssh.com", b"2"),
    (b"hardlink@openssh.com", b"1"), (b"fsync@openssh.com", b"1"), (b"lsetstat@openssh.com", b"1"),
    (b"limits@openssh.com", b"1"),
)  # fmt: skip
_CODES = {errno.ENOENT: _NO_SUCH_FILE, errno.ENOTDIR: _NO_SUCH_FILE, errno.EBADF: _NO_SUCH_FILE,
          errno.ELOOP: _NO_SUCH_FILE, errno.EPERM: _DENIED, errno.EACCES: _DENIED, errno.EFAULT: _DENIED,
          errno.EROFS: _DENIED, errno.ENAMETOOLONG: _BAD_MESSAGE, errno.EINVAL: _BAD_MESSAGE,
          errno.ENOSYS: _UNSUPPORTED}  # fmt: skip


class _End(Exception):
    """The client has hung up, or speaks something else."""


class _Reader:
    """The fields of a packet, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def _take(self, count: int) -> bytes:
        self._at += count
        if self._at > len(self._data):
            raise _End
        return self._data[self._at - count : self._at]

    def u32(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def u64(self) -> int:
        return int.from_bytes(self._take(8), "big")

    def string(self) -> bytes:
        return self._take(self.u32())

    def path(self) -> str:
        raw = self.string()
        if b"\0" in raw:
            raise OSError(errno.EINVAL, "a NUL in the path")
        text = os.fsdecode(raw)
        return text if text.startswith("/") else f"/{text}"

    def attributes(self) -> "dict[str, Any]":
        flags, found = self.u32(), dict[str, "Any"]()
        if flags & _SIZE:
            found["size"] = self.u64()
        if flags & _UIDGID:
            found["owner"] = self.u32(), self.u32()
        if flags & _PERMISSIONS:
            found["mode"] = self.u32() & 0o7777
        if flags & _TIMES:
            found["times"] = self.u32(), self.u32()
        if flags & _MORE:
            for _ in range(self.u32()):
                self.string()
                self.string()
        return found


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def _attributes(status: os.stat_result) -> bytes:
    return struct.pack(
        ">IQIIIII", _SIZE | _UIDGID | _PERMISSIONS | _TIMES, status.st_size, status.st_uid, status.st_gid,
        status.st_mode, int(status.st_atime) & 0xFFFFFFFF, int(status.st_mtime) & 0xFFFFFFFF,
    )  # fmt: skip


def _long_name(name: str, status: os.stat_result) -> bytes:
    when = time.strftime("%b %d  %Y", time.gmtime(status.st_mtime))
    text = (
        f"{stat.filemode(status.st_mode)} {status.st_nlink:>3} {status.st_uid:<8} {status.st_gid:<8} "
        f"{status.st_size:>8} {when} {name}"
    )
    return os.fsencode(text)


class _Directory:
    def __init__(self, fd: int) -> None:
        self.fd, self.names = fd, [".", "..", *os.listdir(fd)]


def serve(work: socket.socket, tree: Tree) -> None:
    """Answers until the client hangs up."""
    try:
        _Server(work, tree).run()
    except (_End, OSError):
        pass


class _Server:
    def __init__(self, work: socket.socket, tree: Tree) -> None:
        self._work, self._tree = work, tree
        self._buffer = bytearray()
        self._handles: dict[bytes, int | _Directory] = {}
        self._next = 0
        work.setblocking(False)

    # -- packets -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        packet = self._packet()
        if packet[0] != _INIT:
            raise _End
        self._send(_VERSION_REPLY, _VERSION.to_bytes(4, "big") + b"".join(_string(x) for e in _EXTENSIONS for x in e))
        while True:
            packet = self._packet()
            self._answer(packet[0], _Reader(packet[1:]))

    def _packet(self) -> bytes:
        length = int.from_bytes(self._bytes(4), "big")
        if not 1 <= length <= _PACKET:
            raise _End
        return self._bytes(length)

    def _bytes(self, count: int) -> bytes:
        while len(self._buffer) < count:
            self._tree.wait(self._work.fileno())
            data = self._work.recv(1 << 18)
            if not data:
                raise _End
            self._buffer += data
        found = bytes(self._buffer[:count])
        del self._buffer[:count]
        return found

    def _send(self, kind: int, body: bytes) -> None:
        view = memoryview((len(body) + 1).to_bytes(4, "big") + bytes([kind]) + body)
        while view:
            try:
                view = view[self._work.send(view) :]
            except BlockingIOError:
                self._tree.wait(self._work.fileno(), select.POLLOUT)

    def _answer(self, kind: int, packet: _Reader) -> None:
        number = packet._take(4)
        try:
            handler = _REQUESTS.get(kind)
            if handler is None:
                raise OSError(errno.ENOSYS, "not supported")
            reply, body = handler(self, packet)
        except EOFError:
            reply, body = _STATUS, _status(_EOF, "end of file")
        except OSError as error:
            code = _CODES.get(error.errno or 0, _FAILURE)
            reply, body = _STATUS, _status(code, error.strerror or "failure")
        self._send(reply, number + body)

    # -- handles -----------------------------------------------------------------------------------------------

    def _keep(self, one: "int | _Directory") -> tuple[int, bytes]:
        self._next += 1
        handle = self._next.to_bytes(4, "big")
        self._handles[handle] = one
        return _HANDLE, _string(handle)

    def _room(self) -> None:
        if len(self._handles) >= _HANDLES:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _file(self, packet: _Reader) -> int:
        found = self._handles.get(packet.string())
        if not isinstance(found, int):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return found

    def _any(self, packet: _Reader) -> int:
        found = self._handles.get(packet.string())
        if found is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return found.fd if isinstance(found, _Directory) else found

    def open(self, packet: _Reader) -> tuple[int, bytes]:
        path, wanted, given = packet.path(), packet.u32(), packet.attributes()
        self._room()
        flags = os.O_RDWR if wanted & _READ and wanted & _WRITE else os.O_WRONLY if wanted & _WRITE else os.O_RDONLY
        for bit, flag in ((_APPEND, os.O_APPEND), (_TRUNC, os.O_TRUNC)):
            if wanted & bit:
                flags |= flag
        if wanted & _CREAT and wanted & _EXCL:
            return self._keep(self._create(path, flags, given))
        for _ in range(8):
            try:
                return self._keep(self._tree.open_regular(path, flags))
            except FileNotFoundError:
                if not wanted & _CREAT:
                    raise
            try:
                return self._keep(self._create(path, flags, given))
            except FileExistsError:
                continue
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _create(self, path: str, flags: int, given: "dict[str, Any]") -> int:
        dir_fd, name = safe_path.resolve_parent(self._tree.root, path)
        try:
            flags |= os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, given.get("mode", 0o644), dir_fd=dir_fd)
            if "owner" in given:
                os.fchown(fd, *given["owner"])
            return fd
        finally:
            os.close(dir_fd)

    def close(self, packet: _Reader) -> tuple[int, bytes]:
        found = self._handles.pop(packet.string(), None)
        if found is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        os.close(found.fd if isinstance(found, _Directory) else found)
        return _done()

    def read(self, packet: _Reader) -> tuple[int, bytes]:
        fd, at, count = self._file(packet), packet.u64(), packet.u32()
        data = os.pread(fd, min(count, 1 << 18), at)
        if not data:
            raise EOFError
        return _DATA, _string(data)

    def write(self, packet: _Reader) -> tuple[int, bytes]:
        fd, at, data = self._file(packet), packet.u64(), memoryview(packet.string())
        while data:
            count = os.pwrite(fd, data, at)
            data, at = data[count:], at + count
        return _done()

    # -- attributes --------------------------------------------------------------------------------------------

    def lstat(self, packet: _Reader) -> tuple[int, bytes]:
        return self._stat(packet.path(), False)

    def stat(self, packet: _Reader) -> tuple[int, bytes]:
        return self._stat(packet.path(), True)

    def _stat(self, path: str, follow: bool) -> tuple[int, bytes]:
        fd = self._tree.find(path, follow)
        try:
            return _ATTRS, _attributes(os.fstat(fd))
        finally:
            os.close(fd)

    def fstat(self, packet: _Reader) -> tuple[int, bytes]:
        return _ATTRS, _attributes(os.fstat(self._any(packet)))

    def setstat(self, packet: _Reader) -> tuple[int, bytes]:
        return self._setstat(packet.path(), packet.attributes(), True)

    def lsetstat(self, packet: _Reader) -> tuple[int, bytes]:
        return self._setstat(packet.path(), packet.attributes(), False)

    def _setstat(self, path: str, given: "dict[str, Any]", follow: bool) -> tuple[int, bytes]:
        fd = self._tree.find(path, follow)
        try:
            return self._change(fd, given)
        finally:
            os.close(fd)

    def fsetstat(self, packet: _Reader) -> tuple[int, bytes]:
        return self._change(self._any(packet), packet.attributes())

    def _change(self, fd: int, given: "dict[str, Any]") -> tuple[int, bytes]:
        link = stat.S_ISLNK(os.fstat(fd).st_mode)
        if "size" in given:
            target = self._tree.reopen(fd, os.O_WRONLY)
            try:
                os.ftruncate(target, given["size"])
            finally:
                os.close(target)
        if "owner" in given:
            libc.fchownat(fd, *given["owner"])
        if "mode" in given and not link:
            os.chmod(f"self/fd/{fd}", given["mode"], dir_fd=self._tree.proc)
        if "times" in given and not link:
            os.utime(f"self/fd/{fd}", given["times"], dir_fd=self._tree.proc)
        return _done()

    # -- directories and names ---------------------------------------------------------------------------------

    def opendir(self, packet: _Reader) -> tuple[int, bytes]:
        path = packet.path()
        self._room()
        return self._keep(_Directory(safe_path.openat2(self._tree.root, path, os.O_RDONLY | os.O_DIRECTORY)))

    def readdir(self, packet: _Reader) -> tuple[int, bytes]:
        found = self._handles.get(packet.string())
        if not isinstance(found, _Directory):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        entries: list[bytes] = []
        while found.names and len(entries) < _NAMES:
            name = found.names.pop(0)
            try:
                status = os.stat(name, dir_fd=found.fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            entries.append(_string(os.fsencode(name)) + _string(_long_name(name, status)) + _attributes(status))
        if not entries:
            raise EOFError
        return _NAME, len(entries).to_bytes(4, "big") + b"".join(entries)

    def remove(self, packet: _Reader) -> tuple[int, bytes]:
        return self._in_parent(packet.path(), lambda fd, name: os.unlink(name, dir_fd=fd))

    def rmdir(self, packet: _Reader) -> tuple[int, bytes]:
        return self._in_parent(packet.path(), lambda fd, name: os.rmdir(name, dir_fd=fd))

    def mkdir(self, packet: _Reader) -> tuple[int, bytes]:
        path, given = packet.path(), packet.attributes()
        mode = given.get("mode", 0o755)
        return self._in_parent(path, lambda fd, name: os.mkdir(name, mode, dir_fd=fd))

    def _in_parent(self, path: str, work: "Callable[[int, str], None]") -> tuple[int, bytes]:
        fd, name = self._tree.parent(path)
        try:
            named(path, lambda: work(fd, name))
        finally:
            os.close(fd)
        return _done()

    def realpath(self, packet: _Reader) -> tuple[int, bytes]:
        raw = packet.path()
        try:
            found = self._place(raw)
        except FileNotFoundError:
            head, _, name = raw.rstrip("/").rpartition("/")
            found = f"{self._place(head or '/').rstrip('/')}/{name}"
        return _one_name(found)

    def _place(self, path: str) -> str:
        fd = self._tree.find(path, True)
        try:
            return os.readlink(f"self/fd/{fd}", dir_fd=self._tree.proc)
        finally:
            os.close(fd)

    def readlink(self, packet: _Reader) -> tuple[int, bytes]:
        fd = self._tree.find(packet.path(), False)
        try:
            return _one_name(os.readlink("", dir_fd=fd))
        finally:
            os.close(fd)

    def symlink(self, packet: _Reader) -> tuple[int, bytes]:
        target, path = os.fsdecode(packet.string()), packet.path()  # the order that OpenSSH made the rule
        return self._in_parent(path, lambda fd, name: os.symlink(target, name, dir_fd=fd))

    def rename(self, packet: _Reader) -> tuple[int, bytes]:
        return self._rename(packet, libc.RENAME_NOREPLACE)

    def posix_rename(self, packet: _Reader) -> tuple[int, bytes]:
        return self._rename(packet, 0)

    def _rename(self, packet: _Reader, flags: int) -> tuple[int, bytes]:
        source, target = packet.path(), packet.path()
        fd, name = self._tree.parent(source)
        try:
            return self._in_parent(target, lambda at, new: libc.renameat2(name, new, flags, fd, at))
        finally:
            os.close(fd)

    def hardlink(self, packet: _Reader) -> tuple[int, bytes]:
        source, target = packet.path(), packet.path()
        fd, name = self._tree.parent(source)
        try:
            return self._in_parent(
                target, lambda at, new: os.link(name, new, src_dir_fd=fd, dst_dir_fd=at, follow_symlinks=False)
            )
        finally:
            os.close(fd)

    # -- extensions --------------------------------------------------------------------------------------------

    def extended(self, packet: _Reader) -> tuple[int, bytes]:
        handler = _EXTENDED_REQUESTS.get(packet.string())
        if handler is None:
            raise OSError(errno.ENOSYS, "not supported")
        return handler(self, packet)

    def fsync(self, packet: _Reader) -> tuple[int, bytes]:
        os.fsync(self._file(packet))
        return _done()

    def statvfs(self, packet: _Reader) -> tuple[int, bytes]:
        fd = self._tree.find(packet.path(), True)
        try:
            return _room(fd)
        finally:
            os.close(fd)

    def fstatvfs(self, packet: _Reader) -> tuple[int, bytes]:
        return _room(self._any(packet))

    def limits(self, _packet: _Reader) -> tuple[int, bytes]:
        return _EXTENDED_REPLY, struct.pack(">4Q", _PACKET, 1 << 18, 1 << 18, _HANDLES)


def _room(fd: int) -> tuple[int, bytes]:
    found = os.fstatvfs(fd)
    flags = found.f_flag & (os.ST_RDONLY | os.ST_NOSUID)
    return _EXTENDED_REPLY, struct.pack(
        ">11Q", found.f_bsize, found.f_frsize, found.f_blocks, found.f_bfree, found.f_bavail, found.f_files,
        found.f_ffree, found.f_favail, found.f_fsid & (1 << 64) - 1, flags, found.f_namemax,
    )  # fmt: skip


def _status(code: int, text: str) -> bytes:
    return code.to_bytes(4, "big") + _string(text.encode()) + _string(b"")


def _one_name(text: str) -> tuple[int, bytes]:
    name = _string(os.fsencode(text))
    return _NAME, (1).to_bytes(4, "big") + name + name + b"\0\0\0\0"  # no attributes


def _done() -> tuple[int, bytes]:
    return _STATUS, _status(_OK, "")


_REQUESTS: "dict[int, Callable[[_Server, _Reader], tuple[int, bytes]]]" = {
    3: _Server.open, 4: _Server.close, 5: _Server.read, 6: _Server.write, 7: _Server.lstat, 8: _Server.fstat,
    9: _Server.setstat, 10: _Server.fsetstat, 11: _Server.opendir, 12: _Server.readdir, 13: _Server.remove,
    14: _Server.mkdir, 15: _Server.rmdir, 16: _Server.realpath, 17: _Server.stat, 18: _Server.rename,
    19: _Server.readlink, 20: _Server.symlink, _EXTENDED: _Server.extended,
}  # fmt: skip
_EXTENDED_REQUESTS: "dict[bytes, Callable[[_Server, _Reader], tuple[int, bytes]]]" = {
    b"posix-rename@openssh.com": _Server.posix_rename, b"hardlink@openssh.com": _Server.hardlink,
    b"statvfs@openssh.com": _Server.statvfs, b"fstatvfs@openssh.com": _Server.fstatvfs,
    b"fsync@openssh.com": _Server.fsync, b"lsetstat@openssh.com": _Server.lsetstat,
    b"limits@openssh.com": _Server.limits,
}  # fmt: skip

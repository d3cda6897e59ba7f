"""The files of an instance, for every face: of this machine by descriptors, of another by LXD's files API.

On this machine the daemon makes a process that sees the instance's files (see `lxpy.runtime.filework`) and hands over
a socket to it. Contents go through pipes between it and us, spliced on both sides: no byte of them passes through
Python, nothing passes through the daemon, and a push that is cut off has not been.
"""

from __future__ import annotations

import os
import stat

from lxpy.api.errors import ApiError, NotFound, Unavailable
from lxpy.api.files import fault
from lxpy.client import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from lxpy.client.client import Client

    Progress = Callable[[int], None]  # told of bytes that have been moved

_PIPE = 1 << 16  # what fits a fresh pipe
_MUCH = 1 << 20  # the largest pipe an unprivileged user may have
_F_SETPIPE_SZ = 1031
_AHEAD = 16  # small files sent before the first of them is answered
_LINKS = 40  # the kernel's own limit


class Entry:
    """What is at a path.

    Attributes:
        type: file, directory, symlink (fifo, socket, char, block).
        size: in bytes.
        mtime: nanoseconds since the epoch.
        target: of a symbolic link.
    """

    def __init__(self, found: dict[str, Any]) -> None:
        self.name = str(found.get("name", ""))
        self.type, self.target = str(found["type"]), str(found.get("target", ""))
        self.uid, self.gid, self.mode = int(found["uid"]), int(found["gid"]), int(found["mode"])
        self.size, self.mtime = int(found.get("size", 0)), int(found.get("mtime", 0))


class Owner:
    """Owner and mode for what is written; None is as it is, and for something new the one in `fresh`."""

    def __init__(self, uid: int | None = None, gid: int | None = None, mode: int | None = None) -> None:
        self.uid, self.gid, self.mode = uid, gid, mode
        self.fresh: dict[str, int] = {}

    def given(self) -> dict[str, int]:
        named = (("uid", self.uid), ("gid", self.gid), ("mode", self.mode))
        return {key: value for key, value in named if value is not None}

    def like(self, status: os.stat_result) -> Owner:
        """The same, with what is new taking after a file of ours. Ids that no instance has become root's."""
        other = Owner(self.uid, self.gid, self.mode)
        uid, gid = (number if number < 65536 else 0 for number in (status.st_uid, status.st_gid))
        other.fresh = {"uid": uid, "gid": gid, "mode": stat.S_IMODE(status.st_mode)}
        return other


class Files:
    """The files of one instance. Paths are absolute, inside it.

    All methods raise `ApiError`: `NotFound`, `BadRequest` (it is a directory), `Forbidden` (read-only), `NoSpace`...
    """

    name: str

    def close(self) -> None: ...

    def stat(self, path: str, follow: bool = False) -> Entry:
        raise NotImplementedError

    def list(self, path: str) -> list[Entry]:
        """The entries of a directory, by name."""
        raise NotImplementedError

    def read(self, path: str, fd: int, progress: Progress | None = None) -> Entry:
        """Writes a file's content to `fd`; links are followed."""
        raise NotImplementedError

    def read_many(self, wanted: Sequence[tuple[str, str]], progress: Progress | None = None) -> None:
        """Pulls files of the instance (the first of each pair) as files of ours, as `pull_file` does."""
        for path, target in wanted:
            pull_file(self, path, target, progress)

    def write(self, path: str, source: int | bytes, owner: Owner, progress: Progress | None = None) -> None:
        """Makes or replaces a file, whole or not at all; `source` is bytes, or a descriptor read to its end.

        A small file may be answered for only by `settle`, or by what is asked next.
        """
        raise NotImplementedError

    def settle(self) -> None:
        """All that was written is there, or this raises."""

    def mkdir(self, path: str, owner: Owner, parents: bool = False) -> None:
        """One that is there is fine. With `parents` the directories above it, too."""
        raise NotImplementedError

    def symlink(self, path: str, target: str, owner: Owner) -> None:
        raise NotImplementedError

    def delete(self, path: str, recursive: bool = False) -> None:
        raise NotImplementedError

    def kind(self, path: str) -> str:
        """The type of what a path leads to; "" for nothing."""
        try:
            return self.stat(path, follow=True).type
        except NotFound:
            return ""


def open_files(client: Client, name: str) -> Files:
    """The files of an instance. Raises `NotFound` when there is none of that name."""
    return _Local(client, name) if client.local else _Remote(client, name)


# -- this machine ------------------------------------------------------------------------------------------------------


class _Local(Files):
    def __init__(self, client: Client, name: str) -> None:
        import _socket

        from lxpy.api.errors import from_status
        from lxpy.api.layout import Layout
        from lxpy.client.local import dial

        self.name = name
        self._ahead: list[str] = []
        layout = Layout()
        sock = dial(layout.local_socket, seqpacket=True, layout=layout)
        try:
            request = {"project": client.project or "default", "name": name}
            sock.sendall(wire.dumps({"v": 1, "files": request}).encode())
            data, fds = wire.receive_fds(sock, _PIPE, 1)
        finally:
            sock.close()
        if not data:
            raise Unavailable("lxpyd ended before it answered: try again")
        answer = wire.loads(data.decode())
        if not answer.get("ok"):
            raise from_status(int(answer.get("status", 500)), str(answer.get("error", "The daemon refused")))
        self._sock: Any = _socket.socket(fileno=fds[0])

    def close(self) -> None:
        self._sock.close()

    def _send(self, message: dict[str, Any], fd: int = -1) -> None:
        import _socket
        import sys

        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))] if fd >= 0 else []
        try:
            self._sock.sendmsg([wire.dumps(message).encode()], rights)
        except (BrokenPipeError, ConnectionResetError):
            raise self._gone() from None

    def _gone(self) -> Unavailable:
        return Unavailable(f"The files of {self.name} are out of reach: it has just been started or stopped; try again")

    def _receive(self, doing: str, path: str) -> dict[str, Any]:
        try:
            data, _ = wire.receive_fds(self._sock, 1 << 18, 1)
        except ConnectionResetError:
            data = b""
        if not data:
            raise self._gone()
        answer: dict[str, Any] = wire.loads(data.decode())
        if "error" in answer:
            raise fault(answer, f"Failed to {doing} {self.name}{path}")
        return answer

    def _ask(self, doing: str, op: str, path: str, **more: Any) -> dict[str, Any]:
        self.settle()
        self._send({"op": op, "path": path, **more})
        return self._receive(doing, path)

    def settle(self) -> None:
        while self._ahead:
            self._receive("push", self._ahead.pop(0))

    def stat(self, path: str, follow: bool = False) -> Entry:
        return Entry(self._ask("look at", "stat", path, follow=follow))

    def list(self, path: str) -> list[Entry]:
        pieces: list[bytes] = []
        self._fetch("list", path, lambda fd: _collect(fd, pieces))
        return [Entry(one) for one in wire.loads(b"".join(pieces).decode())]

    def read(self, path: str, fd: int, progress: Progress | None = None) -> Entry:
        return Entry(self._fetch("get", path, lambda pipe: _pour(pipe, fd, pipe, progress)))

    def read_many(self, wanted: Sequence[tuple[str, str]], progress: Progress | None = None) -> None:
        self.settle()
        ahead: list[tuple[str, str, int]] = []
        try:
            for path, target in wanted:
                if len(ahead) >= _AHEAD:
                    self._take(*ahead.pop(0), progress)
                read_end, write_end = os.pipe()
                ahead.append((path, target, read_end))
                try:
                    self._send({"op": "get", "path": path}, write_end)
                finally:
                    os.close(write_end)
            while ahead:
                self._take(*ahead.pop(0), progress)
        except BaseException:
            for _, _, read_end in ahead:
                os.close(read_end)
            self.close()  # answers to what was asked ahead would be taken for others
            raise

    def _take(self, path: str, target: str, pipe: int, progress: Progress | None) -> None:
        try:
            entry = Entry(self._receive("pull", path))
            with _Incoming(target) as incoming:
                _pour(pipe, incoming.fd, pipe, progress)
                self._receive("pull", path)
                incoming.mode = entry.mode
        finally:
            os.close(pipe)

    def _fetch(self, op: str, path: str, take: Callable[[int], None]) -> dict[str, Any]:
        doing = "pull" if op == "get" else "list"
        self.settle()
        read_end, write_end = os.pipe()
        try:
            try:
                self._send({"op": op, "path": path}, write_end)
            finally:
                os.close(write_end)
            answer = self._receive(doing, path)
            take(read_end)
        finally:
            os.close(read_end)
        self._receive(doing, path)
        return answer

    def write(self, path: str, source: int | bytes, owner: Owner, progress: Progress | None = None) -> None:
        message = {"op": "put", "path": path, "new": owner.fresh, **owner.given()}
        first = source if isinstance(source, bytes) else _small(source)
        read_end, write_end = os.pipe()
        try:
            try:
                os.set_blocking(write_end, False)
                sent = 0
                if first is not None:
                    try:
                        sent = os.write(write_end, first) if first else 0
                    except BlockingIOError:
                        pass
                if first is not None and sent == len(first):
                    while len(self._ahead) >= _AHEAD:
                        self._receive("push", self._ahead.pop(0))
                    self._send({**message, "whole": True}, read_end)
                    self._ahead.append(path)
                    if progress is not None:
                        progress(sent)
                    return
                self.settle()
                self._send(message, read_end)
            finally:
                os.close(read_end)
            self._receive("push", path)
            os.set_blocking(write_end, True)
            try:
                if first is not None:
                    view = memoryview(first)[sent:]
                    while view:
                        view = view[os.write(write_end, view) :]
                if not isinstance(source, bytes):
                    _pour(source, write_end, write_end, progress)
            except BrokenPipeError:
                self._receive("push", path)  # says why
                raise self._gone() from None
        finally:
            os.close(write_end)
        self._ask("push", "commit", path)

    def mkdir(self, path: str, owner: Owner, parents: bool = False) -> None:
        self._ask("make", "mkdir", path, parents=parents, new=owner.fresh, **owner.given())

    def symlink(self, path: str, target: str, owner: Owner) -> None:
        self._ask("make", "symlink", path, target=target, new=owner.fresh, **owner.given())

    def delete(self, path: str, recursive: bool = False) -> None:
        self._ask("delete", "delete", path, recursive=recursive)


def _small(fd: int) -> bytes | None:
    """The whole of a regular file that fits a pipe, read from where it stands; None for others."""
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= _PIPE:
        return None
    return os.read(fd, _PIPE + 1)  # one that grows meanwhile goes on from there


def _collect(fd: int, pieces: list[bytes]) -> None:
    while piece := os.read(fd, _MUCH):
        pieces.append(piece)


def _pour(source: int, target: int, pipe: int, progress: Progress | None = None) -> None:
    """Everything from one to the other, one of them our `pipe`; by splice where both ends can."""
    import fcntl

    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _MUCH)
    except OSError:
        pass  # over the user's quota
    spliced = True
    while True:
        if spliced:
            try:
                count = os.splice(source, target, _MUCH)
            except OSError as error:
                if error.errno != 22:  # EINVAL: a terminal, a file opened to append
                    raise
                spliced = False
                continue
        else:
            data = os.read(source, _PIPE)
            count, view = len(data), memoryview(data)
            while view:
                view = view[os.write(target, view) :]
        if not count:
            return
        if progress is not None:
            progress(count)


# -- another machine ---------------------------------------------------------------------------------------------------


class _Remote(Files):
    """By HTTP. What goes beyond LXD's API is asked in a way that LXD does not mind."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self.name = client, name
        self._url = f"/1.0/instances/{wire.quote(name)}/files"
        client.get(f"/1.0/instances/{wire.quote(name)}")  # NotFound now, and by its name

    def _at(self, path: str, **more: str) -> str:
        return self._url + wire.query_string({"path": path, **more})

    def stat(self, path: str, follow: bool = False) -> Entry:
        for _ in range(_LINKS):
            response = self._client.head(self._at(path))
            if response.status == 404:
                raise NotFound(f"Failed to look at {self.name}{path}: it is not there")
            if response.status >= 400:
                self._client.request("GET", self._at(path))  # which says why
                raise ApiError(f"Failed to look at {self.name}{path}: HTTP {response.status}")
            entry = _from_headers(response.headers)
            if not follow or entry.type != "symlink":
                return entry
            path = self._resolved(path)
        raise ApiError(f"Failed to look at {self.name}{path}: too many symbolic links on the way")

    def _resolved(self, path: str) -> str:
        return os.fsdecode(self._client.request("GET", self._at(path)).body)

    def list(self, path: str) -> list[Entry]:
        response = self._client.request("GET", self._at(path, recursion="1"))
        if _from_headers(response.headers).type != "directory":
            raise ApiError(f"Failed to list {self.name}{path}: it is no directory")
        found = []
        for one in response.json()["metadata"] or ():
            entry = Entry(one) if isinstance(one, dict) else self.stat(f"{path.rstrip('/')}/{one}")
            entry.name = entry.name or one
            found.append(entry)
        return found

    def read(self, path: str, fd: int, progress: Progress | None = None) -> Entry:
        for _ in range(_LINKS):
            response, blocks = self._client.download_blocks(self._at(path))
            entry = _from_headers(response.headers)
            if entry.type == "symlink":
                path = os.fsdecode(b"".join(blocks))
                continue
            if entry.type != "file":
                for _ in blocks:
                    pass
                raise fault({"errno": 21}, f"Failed to pull {self.name}{path}")
            for block in blocks:
                view = memoryview(block)
                while view:
                    view = view[os.write(fd, view) :]
                if progress is not None:
                    progress(len(block))
            return entry
        raise ApiError(f"Failed to pull {self.name}{path}: too many symbolic links on the way")

    def write(self, path: str, source: int | bytes, owner: Owner, progress: Progress | None = None) -> None:
        blocks = iter([source]) if isinstance(source, bytes) else _blocks(source, progress)
        headers = {**_headers(owner), "X-LXD-type": "file", "X-LXD-write": "overwrite"}
        self._client.upload_blocks("POST", self._at(path), blocks, headers)

    def _post(self, path: str, kind: str, body: bytes, owner: Owner) -> None:
        headers = {**_headers(owner), "X-LXD-type": kind}
        self._client.request("POST", self._at(path), body, headers=headers)

    def mkdir(self, path: str, owner: Owner, parents: bool = False) -> None:
        if parents:
            at = ""
            for part in path.strip("/").split("/")[:-1]:
                at += f"/{part}"
                self._post(at, "directory", b"", Owner())
        self._post(path, "directory", b"", owner)

    def symlink(self, path: str, target: str, owner: Owner) -> None:
        self._post(path, "symlink", os.fsencode(target), owner)

    def delete(self, path: str, recursive: bool = False) -> None:
        self._client.request("DELETE", self._at(path, **({"recursive": "true"} if recursive else {})))


def _blocks(fd: int, progress: Progress | None) -> Iterator[bytes]:
    while block := os.read(fd, 1 << 18):
        yield block
        if progress is not None:
            progress(len(block))


def _headers(owner: Owner) -> dict[str, str]:
    given = owner.given()
    values = {**owner.fresh, **given}
    found = {f"X-LXD-{key}": f"{value:04o}" if key == "mode" else str(value) for key, value in values.items()}
    if given:
        found["X-LXD-modify-perm"] = ",".join(given)
    return found


def _from_headers(headers: dict[str, str]) -> Entry:
    def field(key: str, default: str) -> str:
        return headers.get(f"x-lxd-{key}") or headers.get(f"x-incus-{key}") or default

    return Entry({
        "type": field("type", "file"), "uid": field("uid", "0"), "gid": field("gid", "0"),
        "mode": int(field("mode", "0"), 8), "size": headers.get("content-length", "0"),
        "target": wire.unquote(headers.get("x-lxpy-target", "")),
    })  # fmt: skip


# -- trees -------------------------------------------------------------------------------------------------------------


def push_tree(
    files: Files, source: str, target: str, owner: Owner, say: Callable[[str], None], progress: Progress | None = None
) -> None:
    """Copies a directory of ours as `target`; links stay links. Devices, FIFOs and sockets are told of and left out."""
    stack = [(source, target)]
    files.mkdir(target, Owner(owner.uid, owner.gid).like(os.stat(source)))
    while stack:
        ours, theirs = stack.pop()
        with os.scandir(ours) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            path = f"{theirs.rstrip('/')}/{entry.name}"
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISLNK(status.st_mode):
                files.symlink(path, os.readlink(entry.path), owner.like(status))
            elif stat.S_ISDIR(status.st_mode):
                files.mkdir(path, Owner(owner.uid, owner.gid).like(status))
                stack.append((entry.path, path))
            elif stat.S_ISREG(status.st_mode):
                fd = os.open(entry.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    files.write(path, fd, owner.like(status), progress)
                finally:
                    os.close(fd)
            else:
                say(f"Left out {entry.path}: it is no file, directory or link")
    files.settle()


def pull_tree(
    files: Files, source: str, target: str, say: Callable[[str], None], progress: Progress | None = None
) -> None:
    """Copies a directory of the instance as `target`; links stay links, and none of them is followed when writing."""
    stack = [(source, target, files.stat(source, follow=True).mode)]
    modes: list[tuple[str, int]] = []
    while stack:
        theirs, ours, mode = stack.pop()
        if not os.path.isdir(ours) or os.path.islink(ours):
            os.mkdir(ours, 0o700)
        modes.append((ours, mode & 0o777))
        wanted: list[tuple[str, str]] = []
        for entry in files.list(theirs):
            if "/" in entry.name or entry.name in ("", ".", ".."):
                raise ApiError(f"{files.name} has a file with the name {entry.name!r} in {theirs}")
            path, place = f"{theirs.rstrip('/')}/{entry.name}", f"{ours}/{entry.name}"
            if entry.type == "symlink":
                if os.path.islink(place):
                    os.unlink(place)
                os.symlink(entry.target, place)
            elif entry.type == "directory":
                stack.append((path, place, entry.mode))
            elif entry.type == "file":
                wanted.append((path, place))
            else:
                say(f"Left out {files.name}{path}: it is no file, directory or link")
        files.read_many(wanted, progress)
    for path, mode in reversed(modes):
        os.chmod(path, mode)


def pull_file(files: Files, path: str, target: str, progress: Progress | None = None) -> None:
    """A file of the instance as `target`: whole or not at all. A device or FIFO of ours is written to."""
    with _Incoming(target) as incoming:
        incoming.mode = files.read(path, incoming.fd, progress).mode


class _Incoming:
    """A file of ours that is being written: it is there when the block has ended well. A link is replaced.

    Attributes:
        fd: to write to.
        mode: what it is to have in the end, but for set-id bits.
    """

    def __init__(self, target: str) -> None:
        self._target, self._temporary, self.mode = target, "", 0o600
        try:
            there = os.stat(target, follow_symlinks=False).st_mode
        except FileNotFoundError:
            there = 0
        if there and not stat.S_ISLNK(there) and not stat.S_ISREG(there):
            self.fd = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
            return
        head, _, name = target.rpartition("/")
        self._temporary = f"{head if '/' in target else '.'}/.{name[:100]}.{os.urandom(4).hex()}"
        self.fd = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __enter__(self) -> _Incoming:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None and self._temporary:
                os.fchmod(self.fd, self.mode & 0o777)
                os.rename(self._temporary, self._target)
                self._temporary = ""
        finally:
            os.close(self.fd)
            if self._temporary:
                os.unlink(self._temporary)

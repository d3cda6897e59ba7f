"""Files of an instance, from a process of its own inside the instance's tree. Forked from the spawner for one user.

It has the rights of the guest's root and sees what the guest's root sees: mapped owners, disks, tmpfs. In a stopped
instance it is the host's root below the instance's root directory, owners as on the disk, which are the guest's.
No link leads out, since there is nothing else to be seen; and it is in none of the guest's pid namespaces, so that the
guest can neither see nor stop it. Whatever may block (a FIFO, a FUSE file of the guest's) blocks this process alone.

What it is asked, one JSON message each, in order; a message may come with a pipe:

- ``{"op": "stat", "path", "follow"}`` → type, uid, gid, mode, size, mtime (ns), and of a symbolic link its target.
- ``{"op": "get", "path"}`` with the write end of a pipe → the same, then its bytes in the pipe up to the end,
  then ``{"done": true}`` or an error.
- ``{"op": "list", "path"}`` with a pipe as well: its bytes are a JSON list of entries with ``name``.
- ``{"op": "put", "path", "uid", "gid", "mode", "new", "append"}`` with the read end of a pipe → ``{"ready": true}``;
  after the pipe's end ``{"op": "commit"}`` makes it count → ``{"done": true}``. Until then nobody sees it. With
  ``whole`` all bytes are in the pipe already, and there is one answer.
- ``{"op": "mkdir", "parents"}``, ``symlink`` (``target``), ``delete`` (``recursive``), ``chmod`` → ``{"done": true}``.

Owners and mode: ``uid``, ``gid``, ``mode`` hold for whatever becomes of the path; those in ``new`` only for what was
not there before. Errors: ``{"error": strerror, "errno": number, "path": which}``.
"""

import errno
import json
import os
import select
import socket

from lxpy.linux import libc
from lxpy.runtime import hotdisk, wire
from lxpy.runtime.filetree import Owner, Tree, describe

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def run(message: "wire.Message", fds: "list[int]") -> "NoReturn":
    """The process's life.

    Args:
        message: ``running``; ``pid`` of the guest's init and ``base`` (host id of the guest's root, None: privileged),
            when it runs; ``sftp``: speak that protocol on the first descriptor.
        fds: where requests come from; the daemon's socket, which gets ``{"ready": true}`` and a pidfd of this process,
            or ``{"error": ...}``; the pidfd of the guest's init or a descriptor of the stopped root.
    """
    try:
        work, daemon, place = fds
        told = socket.socket(fileno=daemon)
        try:
            proc = _enter(message, place)
            wire.send(told, {"ready": True}, [os.pidfd_open(os.getpid())])
        except BaseException as error:
            text = f"{error.strerror}" if isinstance(error, OSError) else str(error) or type(error).__name__
            wire.send(told, {"error": text})
            os._exit(0)
        # A guest that ends takes this process along, or its mounts would stay. A stopped root is the daemon's.
        guard = place if message["running"] else daemon
        tree = Tree(proc, guard)
        if message.get("sftp"):
            from lxpy.runtime.sftp import serve  # `_enter` has loaded it: here the guest's files are the ones we see

            serve(socket.socket(fileno=work), tree)
        else:
            _Session(socket.socket(fileno=work), tree).serve()
    finally:
        os._exit(0)


def _enter(message: "wire.Message", place: int) -> int:
    """Into the instance's tree; gives a descriptor of the host's /proc, for links to descriptors of our own."""
    if message.get("sftp"):
        import lxpy.runtime.sftp  # noqa: F401 - while the host's files are the ones we see
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.umask(0)
    if message["running"]:
        hotdisk.become_mapped_root(message["base"])
        if message["base"] is not None:
            libc.setns(place, libc.CLONE_NEWUSER)
        libc.setns(place, libc.CLONE_NEWNS)
    else:
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
        os.fchdir(place)
        os.chroot(".")
        os.close(place)
    return proc


class _Session:
    def __init__(self, work: socket.socket, tree: Tree) -> None:
        self._work, self._tree = work, tree

    def serve(self) -> None:
        while True:
            message, fds = self._receive()
            if message is None:
                return
            try:
                self._answer(message, fds)
            except OSError as error:
                where = os.fsdecode(error.filename) if error.filename else str(message.get("path", ""))
                self._send({"error": error.strerror or str(error), "errno": error.errno or 0, "path": where})
            except (KeyError, TypeError, ValueError, IndexError) as error:
                self._send({"error": f"bad request: {error!r}", "errno": errno.EINVAL, "path": ""})
            finally:
                for fd in fds:
                    if fd >= 0:
                        os.close(fd)

    def _receive(self) -> "tuple[wire.Message | None, list[int]]":
        self._tree.wait(self._work.fileno())
        return wire.receive(self._work)

    def _send(self, message: "wire.Message") -> None:
        if not wire.send(self._work, message):
            os._exit(0)

    def _answer(self, message: "wire.Message", fds: "list[int]") -> None:
        tree, op, path = self._tree, message["op"], message["path"]
        if "\0" in path:
            raise OSError(errno.EINVAL, "a NUL in the path", path)
        if op == "stat":
            self._send(tree.entry(path, bool(message.get("follow"))))
            return
        if op == "get":
            self._get(path, fds)
        elif op == "list":
            data = json.dumps(tree.entries(path)).encode()
            self._send({"type": "directory"})
            self._write(fds, data)
        elif op == "put":
            if not self._put(message, path, fds):
                return
        elif op == "mkdir":
            tree.mkdir(path, bool(message.get("parents")), Owner(message))
        elif op == "symlink":
            tree.symlink(path, message["target"], Owner(message))
        elif op == "delete":
            tree.delete(path, bool(message.get("recursive")))
        elif op == "chmod":
            tree.chmod(path, Owner(message))
        else:
            raise ValueError(op)
        self._send({"done": True})

    def _get(self, path: str, fds: "list[int]") -> None:
        fd = self._tree.open_regular(path, os.O_RDONLY)
        try:
            self._send(describe(os.fstat(fd)))
            self._tree.pour(fd, fds[0], False)
        except BrokenPipeError:
            pass  # nobody wants the rest
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(fd)
            _end(fds)

    def _write(self, fds: "list[int]", data: bytes) -> None:
        os.set_blocking(fds[0], False)
        view = memoryview(data)
        try:
            while view:
                self._tree.wait(fds[0], select.POLLOUT)
                view = view[os.write(fds[0], view) :]
        except BrokenPipeError:
            pass
        finally:
            _end(fds)

    def _put(self, message: "wire.Message", path: str, fds: "list[int]") -> bool:
        """False when the other side took it back, or went."""
        whole, owner = bool(message.get("whole")), Owner(message)
        draft = self._tree.begin(path)
        try:
            if not whole:
                self._send({"ready": True})
            try:
                self._tree.pour(fds[0], draft.fd, True)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from None
            if not whole and not self._committed():
                return False
            if message.get("append"):
                draft.append(owner)
            else:
                draft.commit(owner)
        finally:
            draft.close()
        return True

    def _committed(self) -> bool:
        message, fds = self._receive()
        for fd in fds:
            os.close(fd)
        if message is None:
            os._exit(0)
        return message.get("op") == "commit"


def _end(fds: "list[int]") -> None:
    os.close(fds[0])
    fds[0] = -1

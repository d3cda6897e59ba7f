"""The spawner: forks supervisors and commands for the daemon. Single-threaded, lean, blocking on nobody.

Exec'd as ``python -I -S -c``; requests come over the SEQPACKET socket it is given, each with a socket of its own for
the answer:

- ``{"op": "launch", "spec"}`` with the socket and the unified cgroup of the supervisor, which talks there itself.
- ``{"op": "disk", ...}`` and two: the answer's socket and the pidfd of the guest's init. See hotdisk.py.
- ``{"op": "node", ...}`` and the same two. See hotnode.py.
- ``{"op": "proxy", ...}`` and three: the same two and the unified cgroup of the supervisor; ``{"op": "unsocket", ...}``
  and two. See proxy.py, which only such a child imports.
- ``{"op": "files", ...}`` and three: where the requests come from, the answer's socket, and the pidfd of the guest's
  init or the root of a stopped one. See filework.py, which only such a child imports.
- ``{"op": "exec", "request", ...}`` and two as for a disk.

Children parse the requests: each page that the spawner writes to is one less that all supervisors share.
It ends when the daemon's end closes, once the last command has ended and its status is written.
"""

import fcntl
import gc
import json
import os
import select
import signal
import socket

from lxpy.linux import cgroups, libc
from lxpy.runtime import execute, hotdisk, hotnode, supervisor, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    _Entering = Callable[[wire.Message, int, socket.socket], NoReturn]


class _Command:
    """One exec: the joiner, then the command's process; where its status goes."""

    def __init__(self, joiner: int, report: socket.socket, status: int) -> None:
        self.joiner, self.report, self.status = joiner, report, status
        self.pid = -1  # pidfd of the command
        self.error = b""

    def drain(self) -> None:
        while True:
            try:
                message, _ = wire.receive(self.report)
            except BlockingIOError:
                return
            if message is None:
                return
            if "pid" in message:
                self.pid = os.pidfd_open(message["pid"])
            elif "error" in message:
                self.error = json.dumps({"error": message["error"], "exit": message["exit"]}).encode()


class _Spawner:
    def __init__(self, daemon: socket.socket) -> None:
        self._daemon = daemon
        self._poll = select.poll()
        self._poll.register(daemon, select.POLLIN)
        self._children: dict[int, _Command | None] = {}  # by pidfd; None: a supervisor, or a helper

    def run(self) -> None:
        """Until the daemon's end closes and no command is left."""
        listening = True
        while listening or any(self._children.values()):
            for fd, _ in self._poll.poll():
                if fd != self._daemon.fileno():
                    self._reap(fd)
                    continue
                data, fds = wire.receive_raw(self._daemon)
                if not data:
                    listening = False
                    self._poll.unregister(self._daemon)
                    continue
                try:
                    if data.startswith(b'{"op": "launch"'):
                        self._launch(data, *fds)
                    elif data.startswith(b'{"op": "disk"'):
                        self._enter(hotdisk.run, data, *fds)
                    elif data.startswith(b'{"op": "node"'):
                        self._enter(hotnode.run, data, *fds)
                    elif data.startswith((b'{"op": "proxy"', b'{"op": "unsocket"')):
                        self._proxy(data, *fds)
                    elif data.startswith(b'{"op": "files"'):
                        self._files(data, *fds)
                    else:
                        self._exec(data, *fds)
                except OSError as error:
                    answer = fds[1] if data.startswith(b'{"op": "files"') else fds[0]
                    with socket.socket(fileno=os.dup(answer)) as reply:
                        text = f"Failed to fork: {error.strerror}"
                        wire.send(reply, {"event": "error", "message": text, "error": text})
                for number in fds:
                    os.close(number)

    def _watch(self, pid: int, command: _Command | None) -> int:
        fd = os.pidfd_open(pid)
        self._children[fd] = command
        self._poll.register(fd, select.POLLIN)
        return fd

    def _launch(self, data: bytes, client: int, cgroup: int = -1) -> None:
        try:
            pid, placed = libc.clone(0, cgroup), cgroup >= 0
        except OSError:
            if cgroup < 0:
                raise
            pid, placed = libc.clone(0), False  # its predecessor has just removed it, or there is no CLONE_INTO_CGROUP
        if pid == 0:
            _only(client)
            supervisor.run(json.loads(data)["spec"], socket.socket(fileno=3), placed)
        self._watch(pid, None)

    def _enter(self, run: "_Entering", data: bytes, reply: int, pidfd: int) -> None:
        pid = libc.clone(0)
        if pid == 0:
            _only(reply, pidfd)
            run(json.loads(data), 4, socket.socket(fileno=3))
        self._watch(pid, None)

    def _proxy(self, data: bytes, reply: int, pidfd: int, cgroup: int = -1) -> None:
        try:
            pid = libc.clone(0, cgroup)
        except OSError:
            if cgroup < 0:
                raise
            pid = libc.clone(0)  # it is told that it has to find its way in itself
            cgroup = -1
        if pid == 0:
            _only(reply, pidfd)
            from lxpy.runtime import proxy

            run = proxy.run if data.startswith(b'{"op": "proxy"') else proxy.remove_socket
            run(json.loads(data) | {"placed": cgroup >= 0}, 4, socket.socket(fileno=3))
        self._watch(pid, None)

    def _files(self, data: bytes, work: int, reply: int, place: int) -> None:
        pid = libc.clone(0)
        if pid == 0:
            _only(work, reply, place)
            from lxpy.runtime import filework

            filework.run(json.loads(data), [3, 4, 5])
        self._watch(pid, None)

    def _exec(self, data: bytes, reply: int, pidfd: int) -> None:
        ours, theirs = wire.pair()
        ours.setblocking(False)
        read_end, write_end = os.pipe()
        try:
            pid = libc.clone(0)
        except OSError:
            for fd in (read_end, write_end):
                os.close(fd)
            ours.close()
            theirs.close()
            raise
        if pid == 0:
            _only(reply, pidfd, read_end, theirs.fileno())
            execute.run_joiner(json.loads(data), 4, socket.socket(fileno=3), 5, socket.socket(fileno=6))
        theirs.close()
        os.close(read_end)
        command = _Command(pid, ours, write_end)
        command.joiner = self._watch(pid, command)

    def _reap(self, fd: int) -> None:
        command = self._children.pop(fd)
        self._poll.unregister(fd)
        result = os.waitid(os.P_PIDFD, fd, os.WEXITED)
        os.close(fd)
        if command is None:
            return
        command.drain()
        joined = fd == command.joiner
        command.joiner = -1  # its number may be given to the command's pidfd
        if joined and command.pid >= 0:
            self._children[command.pid] = command
            self._poll.register(command.pid, select.POLLIN)
            return
        # The command has ended, or the joiner did without one (it, or the closing of its socket, told the client).
        line = command.error
        if not line and not joined and result is not None:
            key = "exit" if result.si_code == 1 else "signal"  # CLD_EXITED
            line = json.dumps({key: result.si_status}).encode()
        if line:
            try:
                os.write(command.status, line + b"\n")
            except OSError:
                pass  # nobody waits for it
        os.close(command.status)
        command.report.close()


def _only(*fds: int) -> None:
    """In a child: closes all descriptors but 0 to 2 and these, which become 3, 4 ..."""
    # First out of the way of the numbers handed out.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in fds]
    for index, fd in enumerate(high):
        os.dup2(fd, 3 + index, inheritable=False)
    libc.close_range(3 + len(fds))


def main(fd: int) -> None:
    """The spawner's life; `fd` is its end of the daemon's socket."""
    for number in execute.RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    libc.set_title("lxpy spawner")
    libc.close_range(fd + 1)
    daemon = socket.socket(fileno=fd)
    os.set_inheritable(fd, False)
    cgroups.hierarchies()
    # Children share these pages for as long as nobody writes to them; the collector would.
    gc.disable()
    gc.freeze()
    _Spawner(daemon).run()

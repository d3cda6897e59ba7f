"""The supervisor: parent of one guest's init, holder of its console, recorder of its end.

Forked from the spawner; imports nothing after that, for it outlives upgrades of the daemon. It leaves
all work it can to the helper, which ends: every page that Python touches here is memory for as long as the guest
runs. Its protocol (SEQPACKET,
JSON) is frozen at version 1:

======================================  ==============================================================
``{"op": "hello", "v": 1}``              state of the instance, with init's pidfd beside it
``{"op": "state"}``                      the same without the descriptor
``{"op": "console"}``                    ``{"ok": true}`` with a stream socket: ring buffer first, then live
``{"op": "resize", "width", "height"}``  ``{"ok": true}``
``{"op": "signal", "number"}``           to init; ``{"ok": true}``
``{"op": "stop"}``                       kills every process of the guest; ``{"ok": true}``
event ``{"event": "exit", ...}``         reason, code, at: sent to everybody connected once exit.json is on disk
======================================  ==============================================================
"""

import fcntl
import json
import os
import select
import signal
import socket
import struct
import time

from lxpy.linux import libc, pidfd, pty
from lxpy.runtime import container, wire
from lxpy.runtime.cgroup import InstanceCgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from lxpy.runtime.spec import InstanceSpec

_RING = 64 * 1024
_LOG_MAX = 1024 * 1024
_BACKLOG = 256 * 1024  # of a console client that reads too slowly; beyond it the oldest output is dropped
_CLD_EXITED = 1
_PREDECESSOR_SECONDS = 10.0


class _Failed(Exception):
    """The start failed; one line for the user."""


class _Peer:
    """A connection: ``control`` takes messages, a console carries bytes."""

    def __init__(self, sock: socket.socket, console: bool = False) -> None:
        sock.setblocking(False)
        self.sock, self.console, self.pending = sock, console, bytearray()


def run(spec: "InstanceSpec", client: socket.socket, placed: bool) -> "NoReturn":
    """The supervisor's life, in a process of its own. `client` hears about the start and stays connected.

    `placed`: it was born in its cgroup of the unified hierarchy.
    """
    try:
        supervisor = _Supervisor(spec, client, placed)
        try:
            supervisor.start()
        except (_Failed, OSError) as error:
            text = f"Failed to start {spec['name']}: {_said(error)}"
            try:
                supervisor.undo()
            except OSError as stuck:  # the next start clears up
                text += f"; and what was left of it could not be cleared up: {_said(stuck)}"
            wire.send(client, {"event": "error", "message": text})
        else:
            supervisor.watch()
            supervisor.finish()
    finally:
        os._exit(0)


def _said(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.strerror}" + (f" ({error.filename})" if error.filename else "")


class _Supervisor:
    def __init__(self, spec: "InstanceSpec", client: socket.socket, placed: bool) -> None:
        self._spec, self._client, self._placed = spec, client, placed
        self._dir = spec["run_dir"]
        self._lock_path, self._lock_fd = f"{os.path.dirname(self._dir)}/{spec['name']}.lock", -1
        self._cgroup = InstanceCgroup(spec["cgroup_prefix"], spec["name"])
        self._peers: dict[int, _Peer] = {}
        self._ring, self._input = bytearray(), bytearray()
        self._init, self._init_fd, self._state = 0, -1, dict[str, object]()
        self._poll = select.poll()

    # --- start -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Up to the exec of init. The client has put the nics in by then."""
        spec = self._spec
        libc.set_title(f"lxpy supervisor: {spec['name']}")
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        for number in (0, 1, 2):
            os.dup2(null, number)
        os.makedirs(f"{self._dir}/root", 0o700, exist_ok=True)
        self._lock()
        self._cgroup.join_supervisor(self._placed)  # not before its predecessor has removed its own
        for name in ("exit.json", "state.json", "supervisor.sock"):
            try:
                os.unlink(f"{self._dir}/{name}")
            except FileNotFoundError:
                pass
        idmap = spec["idmap"]
        base = idmap["base"] if idmap else 0
        self._master, slave = os.openpty()
        self._slave = slave  # kept open, so that the master reads no EIO between two users of the console
        os.fchown(slave, base, base + 5)
        os.fchmod(slave, 0o620)
        os.set_blocking(self._master, False)
        self._open_log()
        self._listen()
        self._boot(slave)

    def _lock(self) -> None:
        """One supervisor per name, and so per set of cgroups; one just ending is waited for.

        The lock lies beside the run directory, which the daemon may take away while a predecessor still clears up.
        Its holder unlinks it: only a lock that is still found under its path counts.
        """
        deadline = time.monotonic() + _PREDECESSOR_SECONDS
        while True:
            fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(fd), os.stat(self._lock_path)):
                    self._lock_fd = fd
                    return
            except (BlockingIOError, FileNotFoundError):
                if time.monotonic() > deadline:
                    raise _Failed("it is running already") from None
            os.close(fd)
            time.sleep(0.002)

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        directory = os.open(self._dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._listener.bind(f"/proc/self/fd/{directory}/supervisor.sock")  # sun_path holds 108 bytes
        os.chmod("supervisor.sock", 0o600, dir_fd=directory)
        os.close(directory)
        self._listener.listen(16)
        self._listener.setblocking(False)

    def _boot(self, slave: int) -> None:
        ours, theirs = wire.pair()
        helper = libc.clone(0)
        if helper == 0:
            ours.close()
            container.run_helper(self._spec, self._cgroup, slave, theirs)
        theirs.close()
        failure, executed, gone, open_ = "", False, False, True
        poll = select.poll()
        poll.register(ours, select.POLLIN)
        poll.register(self._client, select.POLLIN)
        while open_:
            for fd, _ in poll.poll():
                if fd == ours.fileno():
                    message, _ = wire.receive(ours)
                    if message is None:
                        open_ = False  # init's exec has closed the other end, or all are dead
                    elif "pid" in message:
                        self._announce(message["pid"], told=not gone)
                        if gone and self._init_fd >= 0:  # nobody will say "go"
                            pidfd.send(self._init_fd, signal.SIGKILL)
                    elif "error" in message:
                        failure = failure or message["error"]
                    elif "exec" in message:
                        executed = True
                elif not gone:
                    message, _ = wire.receive(self._client)
                    if message and message.get("op") == "go":
                        wire.send(ours, {"go": True})
                    else:
                        # The daemon is gone, or its part failed. Unanswered, init would wait for ever.
                        failure = failure or (message or {}).get("message", "the daemon went away during the start")
                        gone = True
                        poll.unregister(self._client)
                        if self._init_fd >= 0:
                            pidfd.send(self._init_fd, signal.SIGKILL)
        ours.close()
        os.waitpid(helper, 0)
        if failure or not executed:
            raise _Failed(failure or "its first process was killed before it ran (is limits.memory too small?)")
        fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
        boot = os.read(fd, 64).decode().strip()
        os.close(fd)
        spec = self._spec
        self._state = {
            "v": wire.VERSION, "name": spec["name"], "prefix": spec["cgroup_prefix"], "init": self._init,
            "start": self._start_ticks, "started_at": time.time(), "supervisor": os.getpid(),
            "base": spec["idmap"]["base"] if spec["idmap"] else None, "boot": boot, "state": "running",
        }  # fmt: skip
        self._write("state.json", self._state)
        wire.send(self._client, {"event": "started", **self._state}, [self._init_fd])

    def _announce(self, pid: int, told: bool) -> None:
        self._init, self._init_fd = pid, os.pidfd_open(pid)
        self._start_ticks = pidfd.start_time(pid)
        try:
            netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # dead already, because the helper failed: its reason is the next message
        if told:
            wire.send(self._client, {"event": "netns", "pid": pid}, [netns])
        os.close(netns)

    def undo(self) -> None:
        """After a failed start: no process, cgroup or socket is left."""
        if self._lock_fd < 0:
            return  # all of it is another's
        if self._init_fd >= 0:
            pidfd.send(self._init_fd, signal.SIGKILL)
            os.waitid(os.P_PIDFD, self._init_fd, os.WEXITED)
        self._unlink_socket()
        self._cgroup.remove()
        self._leave()

    # --- life --------------------------------------------------------------------------------------------------

    def watch(self) -> None:
        """Serves until init ends."""
        self._add(_Peer(self._client))
        for fd in (self._init_fd, self._listener.fileno(), self._master):
            self._poll.register(fd, select.POLLIN)
        while True:
            for fd, event in self._poll.poll():
                if fd == self._init_fd:
                    return
                if fd == self._listener.fileno():
                    self._accept()
                elif fd == self._master:
                    if event & select.POLLIN:
                        self._read_console()
                    if event & select.POLLOUT:
                        self._type(b"")
                elif peer := self._peers.get(fd):
                    self._serve(peer, event)

    def _add(self, peer: _Peer) -> None:
        self._peers[peer.sock.fileno()] = peer
        self._poll.register(peer.sock, select.POLLIN)

    def _drop(self, peer: _Peer) -> None:
        self._poll.unregister(peer.sock)
        del self._peers[peer.sock.fileno()]
        peer.sock.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] != 0:
            sock.close()
            return
        self._add(_Peer(sock))

    def _serve(self, peer: _Peer, event: int) -> None:
        if peer.console:
            if event & select.POLLOUT:
                self._flush(peer)
            if event & (select.POLLIN | select.POLLHUP | select.POLLERR):
                try:
                    data = peer.sock.recv(65536)
                except BlockingIOError:
                    return
                except OSError:
                    data = b""
                if data:
                    self._type(data)
                else:
                    self._drop(peer)
            return
        try:
            message, fds = wire.receive(peer.sock)
        except BlockingIOError:
            return
        for fd in fds:
            os.close(fd)
        if message is None:
            self._drop(peer)
            return
        try:
            self._answer(peer, message)
        except (OSError, KeyError, TypeError, ValueError) as error:
            self._tell(peer, {"error": str(error) or type(error).__name__})

    def _answer(self, peer: _Peer, message: "wire.Message") -> None:
        op = message.get("op")
        if op == "hello":
            self._tell(peer, self._state, [self._init_fd])
        elif op == "state":
            self._tell(peer, self._state)
        elif op == "console":
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self._tell(peer, {"ok": True}, [theirs.fileno()])
            theirs.close()
            console = _Peer(ours, console=True)
            self._add(console)
            self._show(console, bytes(self._ring))
        elif op == "resize":
            pty.resize(self._master, int(message["width"]), int(message["height"]))
            self._tell(peer, {"ok": True})
        elif op == "signal":
            pidfd.send(self._init_fd, int(message["number"]))
            self._tell(peer, {"ok": True})
        elif op == "stop":
            self._cgroup.kill()
            self._tell(peer, {"ok": True})
        else:
            self._tell(peer, {"error": f"unknown request {op!r}"})

    def _tell(self, peer: _Peer, message: "wire.Message", fds: "tuple[int, ...] | list[int]" = ()) -> None:
        try:
            wire.send(peer.sock, message, fds)
        except OSError:
            pass  # it does not read; it will find out from exit.json

    # --- console -----------------------------------------------------------------------------------------------

    def _open_log(self) -> None:
        path = self._spec["console_log"]
        self._log = -1
        if path:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
            self._log = os.open(path, flags, 0o600)

    def _read_console(self) -> bool:
        try:
            data = os.read(self._master, 65536)
        except OSError:
            return False
        if not data:
            return False
        self._ring += data
        if len(self._ring) > _RING:
            del self._ring[: len(self._ring) - _RING]
        if self._log >= 0:
            try:
                os.write(self._log, data)
                if os.fstat(self._log).st_size > _LOG_MAX:
                    self._shorten_log()
            except OSError:
                pass  # a full disk must not stop the guest
        for peer in list(self._peers.values()):
            if peer.console:
                self._show(peer, data)
        return True

    def _shorten_log(self) -> None:
        """Keeps the newer half of the log, under the same name."""
        path = self._spec["console_log"]
        with open(path, "rb") as file:
            file.seek(-_LOG_MAX // 2, os.SEEK_END)
            file.readline()
            rest = file.read()
        with open(f"{path}.new", "wb") as file:
            file.write(rest)
        os.chmod(f"{path}.new", 0o600)
        os.rename(f"{path}.new", path)
        os.close(self._log)
        self._open_log()

    def _show(self, peer: _Peer, data: bytes) -> None:
        peer.pending += data
        if len(peer.pending) > _BACKLOG:
            del peer.pending[: len(peer.pending) - _BACKLOG]
        self._flush(peer)

    def _flush(self, peer: _Peer) -> None:
        try:
            while peer.pending:
                del peer.pending[: peer.sock.send(peer.pending, socket.MSG_NOSIGNAL)]
        except BlockingIOError:
            pass
        except OSError:
            peer.pending.clear()  # gone: its end is read next
        wanted = select.POLLIN | (select.POLLOUT if peer.pending else 0)
        self._poll.modify(peer.sock, wanted)

    def _type(self, data: bytes) -> None:
        """Input for the console. What nobody in the guest reads is kept up to the size of the ring buffer."""
        self._input += data[: max(0, _RING - len(self._input))]
        try:
            while self._input:
                del self._input[: os.write(self._master, self._input)]
        except OSError:
            pass
        self._poll.modify(self._master, select.POLLIN | (select.POLLOUT if self._input else 0))

    # --- end ---------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Records the end, then tells it, then clears up."""
        result = os.waitid(os.P_PIDFD, self._init_fd, os.WEXITED)
        while self._read_console():
            pass
        reason, code = "signal", 0
        if result is not None:
            code = result.si_status
            if result.si_code == _CLD_EXITED:
                reason = "exit"
            elif code == signal.SIGHUP:
                reason = "reboot"  # kernel/pid_namespace.c, reboot_pid_ns
            elif code == signal.SIGINT:
                reason = "halt"
            elif code == signal.SIGKILL and self._cgroup.oom_kills():
                reason = "oom"
        record = {"reason": reason, "code": code, "at": time.time()}
        try:
            self._write("exit.json", record, durable=True)
        except FileNotFoundError:
            pass  # a daemon that has lost its records has cleared our directory: nobody will ask
        # Nobody new from here on: who cannot connect looks for exit.json.
        self._unlink_socket()
        for peer in self._peers.values():
            if not peer.console:
                self._tell(peer, {"event": "exit", **record})
        for peer in self._peers.values():
            peer.sock.close()
        self._cgroup.remove()
        self._leave()

    def _unlink_socket(self) -> None:
        try:
            os.unlink(f"{self._dir}/supervisor.sock")
        except FileNotFoundError:
            pass

    def _leave(self) -> None:
        try:
            self._cgroup.leave_supervisor()
        except OSError:
            pass  # an empty cgroup stays; the next start uses it
        try:
            os.unlink(self._lock_path)
        except FileNotFoundError:
            pass

    def _write(self, name: str, record: "dict[str, object]", durable: bool = False) -> None:
        path = f"{self._dir}/{name}"
        with open(f"{path}.new", "wb", opener=lambda p, f: os.open(p, f | os.O_CLOEXEC, 0o600)) as file:
            file.write(json.dumps(record).encode())
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.rename(f"{path}.new", path)

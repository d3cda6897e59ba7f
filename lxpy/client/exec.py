"""Local exec: the daemon hands us our ends of the command's pipes or terminal, and we move the bytes ourselves.

Nothing passes through the daemon once the command runs: it may be restarted meanwhile.
"""

from __future__ import annotations

import os
import select

from lxpy.api.errors import ApiError, Unavailable, from_status
from lxpy.client import terminal, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from typing import Any
else:
    import _signal  # signal itself costs an enum

_SOME = 1 << 16
_MUCH = 1 << 20  # the largest pipe an unprivileged user may have
_F_SETPIPE_SZ = 1031
_SPLICE_F_NONBLOCK = 2
_IN, _OUT, _GONE = select.POLLIN, select.POLLOUT, select.POLLERR | select.POLLHUP | select.POLLNVAL
# Forwarded to the command; the others end us as they end anyone.
_FORWARDED = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGUSR1, _signal.SIGUSR2)


class ExecError(ApiError):
    """The command could not be run: `code` is 126 or 127, as a shell has it."""

    code = 126


class Files:
    """Our ends (-1 where there is none); see `ExecFiles` in docs/architecture.md."""

    def __init__(self, fds: list[int], interactive: bool, control: Any = None) -> None:
        self.control = control  # the connection it was asked for on: lxpyd passes signals on for us
        if interactive:
            self.pty, self.status, self.pidfd = fds
            self.stdin = self.stdout = self.stderr = -1
        else:
            self.stdin, self.stdout, self.stderr, self.status, self.pidfd = fds
            self.pty = -1


def start(request: dict[str, Any]) -> Files:
    """Run a command in a container of this machine.

    Args:
        request: ``project``, ``name`` and the keys of `ExecRequest`.

    Raises:
        ApiError: no such instance, not running...
    """
    from lxpy.api.layout import Layout
    from lxpy.client.local import dial

    layout = Layout()
    sock = dial(layout.local_socket, seqpacket=True, layout=layout)
    try:
        message = wire.dumps({"v": 1, "exec": request}).encode()
        try:
            sock.sendall(message)
        except OSError as error:
            raise ApiError(f"The command line is too long to be sent: {error.strerror}") from None
        data, fds = wire.receive_fds(sock, _SOME, 8)
    except BaseException:
        sock.close()
        raise
    if not data:
        raise Unavailable("lxpyd ended before it answered: try again")
    answer = wire.loads(data.decode())
    if not answer.get("ok"):
        raise from_status(int(answer.get("status", 500)), str(answer.get("error", "The daemon refused")))
    interactive = bool(request["interactive"])
    if len(fds) != (3 if interactive else 5):
        for fd in fds:
            os.close(fd)
        raise Unavailable("lxpyd sent no descriptors: client and daemon are of different versions, restart lxpyd")
    return Files(fds, interactive, sock)


def run(request: dict[str, Any], stdin: int = 0, stdout: int = 1, stderr: int = 2) -> int:
    """Run a command with our descriptors and give its exit status (128 + n for signal n).

    Raises:
        ExecError: the command could not be run inside.
        ApiError: it could not even be tried.
    """
    files = start(request)
    interactive = files.pty >= 0
    outcome = _interactive(files, stdin, stdout) if interactive else _pipes(files, stdin, stdout, stderr)
    if not outcome:
        raise Unavailable("The command's fate is unknown: its starter ended (was the container stopped?)")
    result = wire.loads(outcome.decode())
    if "error" in result:
        error = ExecError(str(result["error"]))
        error.code = int(result.get("exit", 126))
        raise error
    if "signal" in result:
        return 128 + int(result["signal"])
    return int(result["exit"])


class _Pump:
    """Moves bytes from one descriptor to another, never blocking on the pipe end of the two that is ours.

    Waits in turn for the source to have something and for the target to have room; splice where both ends allow.
    """

    def __init__(self, source: int, target: int, ours: int) -> None:
        self.source, self.target, self.ours = source, target, ours
        self.splice = True
        self.wide = False
        self.held = b""
        self.full = False  # waiting for room
        self.fault: OSError | None = None  # what ended it other than a reader that left

    def want(self) -> tuple[int, int]:
        """What to poll for: (descriptor, events)."""
        return (self.target, _OUT) if self.full else (self.source, _IN)

    def step(self) -> bool:
        """Move what can be moved now; False when that was all (end of file, or nobody reads any more)."""
        try:
            if self.splice:
                try:
                    count = os.splice(self.source, self.target, _MUCH, flags=_SPLICE_F_NONBLOCK)
                except BlockingIOError:
                    self.full = not self.full
                    return True
                except OSError as error:
                    if error.errno != 22:  # EINVAL: a terminal, a file opened to append...
                        raise
                    self.splice = False
                    return True
                if count == _SOME and not self.wide:
                    self._widen()
                self.full = False
                return count > 0
            if not self.held:
                self.held = os.read(self.source, _SOME)
                if not self.held:
                    return False
                # A blocking target is written to at once; poll would promise no more than 4 KiB of room anyway.
            self.held = self.held[os.write(self.target, self.held) :]
            self.full = bool(self.held)
            return True
        except BlockingIOError:
            self.full = bool(self.held)
            return True
        except OSError as error:
            if error.errno not in (32, 5, 104):  # EPIPE, EIO of a terminal, ECONNRESET: the other end is gone
                self.fault = error
            return False

    def _widen(self) -> None:
        import fcntl

        self.wide = True
        try:
            fcntl.fcntl(self.ours, _F_SETPIPE_SZ, _MUCH)
        except OSError:
            pass  # over the user's pipe quota: 64 KiB do as well


class _Wake:
    """While entered, a signal makes `fd` readable: one that comes just before a poll would else wait for its end."""

    def __enter__(self) -> _Wake:
        self.fd, self._end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old = _signal.set_wakeup_fd(self._end, warn_on_full_buffer=False)
        return self

    def __exit__(self, *_: object) -> None:
        _signal.set_wakeup_fd(self._old)
        os.close(self.fd)
        os.close(self._end)

    def clear(self) -> None:
        """The handlers have run by now."""
        os.read(self.fd, _SOME)


class _Forward:
    """Signals that reach us go to the command while this is entered."""

    def __init__(self, files: Files) -> None:
        self._pidfd, self._control = files.pidfd, files.control
        self._old: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in _FORWARDED:
            if _signal.getsignal(number) is not _signal.SIG_IGN:  # nohup
                self._old[number] = _signal.signal(number, self._send)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            _signal.signal(number, handler)

    def _send(self, number: int, _: object) -> None:
        try:
            _signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass
        except (PermissionError, AttributeError):
            # A user without rights over the mapped ids (a member of the group lxpy): lxpyd may.
            try:
                self._control.sendall(wire.dumps({"v": 1, "signal": number}).encode())
            except (OSError, AttributeError):
                # lxpyd has ended meanwhile: leaving closes the command's pipes, which most heed.
                raise SystemExit(128 + number) from None


def _pipes(files: Files, stdin: int, stdout: int, stderr: int) -> bytes:
    os.set_blocking(files.stdin, False)
    pumps: dict[int, _Pump] = {  # by our own end
        files.stdin: _Pump(stdin, files.stdin, files.stdin),
        files.stdout: _Pump(files.stdout, stdout, files.stdout),
        files.stderr: _Pump(files.stderr, stderr, files.stderr),
    }
    outcome = b""
    faults = list(pumps.values())[1:]
    with _Wake() as wake, _Forward(files):
        while True:
            wanted: dict[int, list[_Pump]] = {}
            poll = select.poll()
            for pump in pumps.values():
                fd, events = pump.want()
                if fd in wanted:  # stdout and stderr are one descriptor, both waiting for room
                    wanted[fd].append(pump)
                else:
                    wanted[fd] = [pump]
                    poll.register(fd, events)
            if files.stdin in pumps and files.stdin not in wanted:
                poll.register(files.stdin, 0)  # POLLERR: the command closed its input
            poll.register(files.status, _IN)
            poll.register(wake.fd, _IN)
            ready = poll.poll()
            for fd, events in ready:
                if fd == wake.fd:
                    wake.clear()
                    continue
                if fd == files.status:
                    data = os.read(files.status, _SOME)
                    outcome += data
                    if not data or data.endswith(b"\n"):
                        pumps.pop(files.stdin, None)
                        _drain(list(pumps.values()))
                        for pump in faults:
                            if pump.fault is not None:
                                raise ApiError(f"Cannot write the command's output: {pump.fault.strerror}")
                        return outcome
                    continue
                if fd == files.stdin and fd not in wanted and events & _GONE and fd in pumps:
                    del pumps[fd]
                    os.close(fd)
                    continue
                for pump in wanted.get(fd, ()):
                    if pump.ours in pumps and not pump.step():
                        del pumps[pump.ours]
                        os.close(pump.ours)


def _drain(pumps: list[_Pump]) -> None:
    """What the command wrote before it ended. A child it left behind may hold the pipe open: not waited for."""
    for pump in pumps:
        poll = select.poll()
        poll.register(pump.source, _IN)
        while pump.held or pump.full or poll.poll(0):
            if pump.full:
                room = select.poll()
                room.register(pump.target, _OUT)
                room.poll()
            if not pump.step():
                break
            if pump.full and not pump.held and not poll.poll(0):
                break


def _interactive(files: Files, stdin: int, stdout: int) -> bytes:
    pty = files.pty
    os.set_blocking(pty, False)
    to_pty, from_pty = _Pump(stdin, pty, pty), _Pump(pty, stdout, pty)
    to_pty.splice = from_pty.splice = False
    outcome = b""
    reading = writing = True

    def resized(*_: object) -> None:
        terminal.copy_size(stdout, pty)

    with terminal.Raw(stdin), _Wake() as wake, terminal.OnResize(resized):
        resized()
        while True:
            poll = select.poll()
            poll.register(files.status, _IN)
            poll.register(wake.fd, _IN)
            events = 0
            if reading:
                events |= _IN
            if writing and to_pty.held:
                events |= _OUT
            if events:
                poll.register(pty, events)
            if writing and not to_pty.held:
                poll.register(stdin, _IN)
            for fd, got in poll.poll():
                if fd == wake.fd:
                    wake.clear()
                if fd == pty and reading and got & (_IN | _GONE):
                    reading = from_pty.step()
                if fd == pty and writing and to_pty.held and got & _OUT:
                    writing = to_pty.step()
                if fd == stdin and got and writing and not to_pty.step():
                    writing = False
                    if not os.isatty(stdin):
                        _write_some(pty, b"\x04")  # end of file, as a terminal has it
                if fd == files.status:
                    data = os.read(files.status, _SOME)
                    outcome += data
                    if not data or data.endswith(b"\n"):
                        last = select.poll()
                        last.register(pty, _IN)
                        while reading and last.poll(0):
                            reading = from_pty.step()
                        return outcome


def _write_some(fd: int, data: bytes) -> None:
    try:
        os.write(fd, data)
    except OSError:
        pass

"""Shells in instances: the descriptors, and the terminal they write to. Who draws it is `widgets/terminal.py`.

On this machine the shell's terminal is one of the guest's own, whose descriptor the daemon hands us: no process of
ours and no daemon is between a key and the shell. For remotes our own command line runs in a terminal of ours.
"""

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

from lxpy.api.errors import ApiError
from lxpy.tui.gateway import Gateway
from lxpy.tui.terminal import Terminal

# How much is read at a time; one read a turn of the loop is what keeps a flood from the keys.
_SOME = 1 << 16
PATIENCE = 20.0  # seconds for the daemon to start a shell
LOGIN = ("su", "-l")
_ENVIRONMENT = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}


class Shell:
    """One shell in one instance.

    Args:
        name: the instance.
        command: what is run.
        own: a command line of ours that is run instead, its last word an instance.
        changed: called when the screen has changed.
        ended: called once, with a line that says how it ended, and whether it was an orderly end.

    Attributes:
        terminal: what it shows.
        alive: whether it still runs.
        opening: whether it is still to come; what is typed meanwhile waits for it.
        heard: whether it has said something.
    """

    def __init__(
        self, gateway: Gateway, name: str, changed: Callable[[], None], ended: Callable[[str, bool], None],
        command: Sequence[str] = LOGIN, own: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.name = name
        self.terminal = Terminal()
        self.alive = False
        self.opening = True
        self.heard = False
        self._gateway, self._changed, self._ended = gateway, changed, ended
        self._command = list(command)
        self._own = list(own)
        self._pty = self._status = -1
        self._held: list[int] = []  # other descriptors that go with it
        self._control: Any = None
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting = b""  # typed, and not taken yet
        self._outcome = b""
        self._began = time.monotonic()
        self._closed = False

    async def open(self, columns: int, rows: int) -> None:
        """Starts it.

        Raises:
            ApiError, OSError: it cannot be started.
        """
        self.terminal.resize(columns, rows)
        request = {
            "command": self._command, "environment": _ENVIRONMENT, "cwd": "", "user": 0, "group": 0,
            "interactive": True, "width": columns, "height": rows, "name": self.name,
        }  # fmt: skip

        def start(client: Any) -> Any:
            if self._own or not getattr(client, "local", False):
                return None
            from lxpy.client import exec as local_exec

            return local_exec.start({**request, "project": client.project or "default"})

        try:
            files = await self._gateway.call(start, alone=True, patience=PATIENCE, unwanted=_discard)
        except TimeoutError:
            raise ApiError(f"The daemon has started no shell in {self.name} within {PATIENCE:.0f} s") from None
        finally:
            self.opening = False
        if files is None:
            self._start_command(columns, rows)
        else:
            self._pty, self._status, self._control = files.pty, files.status, files.control
            self._held = [files.pidfd]
        if self._closed:  # while it was being opened
            self._release()
            return
        if (self.terminal.columns, self.terminal.rows) != (columns, rows):  # it was resized while it was being opened
            self._resize_pty(self.terminal.columns, self.terminal.rows)
        self.alive = True
        os.set_blocking(self._pty, False)
        loop = asyncio.get_running_loop()
        loop.add_reader(self._pty, self._readable)
        if self._status >= 0:
            loop.add_reader(self._status, self._told)
        if self._waiting:
            self._flush()

    @property
    def awaited(self) -> str:
        """Who has yet to answer before there is anything to see; "" once there is."""
        if self.opening:
            return "the daemon"
        return self._gateway.remote if self.alive and self._process is not None and not self.heard else ""

    def _start_command(self, columns: int, rows: int) -> None:
        """``lxpy exec REMOTE:NAME``, or what is run instead, in a terminal of our own."""
        remote, project = self._gateway.home
        target = f"{remote}:{self.name}" if remote else self.name
        words = [*self._own[:-1], target] if self._own else ["exec", "-t", target, "--", *self._command]
        words = ["--project", project, *words] if project else words
        master, slave = os.openpty()
        self._pty = master
        self._resize_pty(columns, rows)
        try:
            self._process = subprocess.Popen(
                own_command(words, terminal=True), stdin=slave, stdout=slave,
                stderr=slave, start_new_session=True, env={**os.environ, **_ENVIRONMENT},
            )  # fmt: skip
        finally:
            os.close(slave)
        self._status = os.pidfd_open(self._process.pid)

    # Keys in

    def write(self, data: bytes) -> None:
        """Sends what was typed. What the shell does not take at once waits."""
        if not data or not (self.alive or self.opening):
            return
        self._waiting += data
        if self.alive:
            self._flush()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                self._waiting = self._waiting[os.write(self._pty, self._waiting) :]
        except BlockingIOError:
            loop.add_writer(self._pty, self._flush)
            return
        except OSError:
            self._waiting = b""  # its end is told by the other descriptor
        loop.remove_writer(self._pty)

    def resize(self, columns: int, rows: int) -> None:
        """Another size for the terminal, inside too."""
        self.terminal.resize(columns, rows)
        if self.alive:
            self._resize_pty(columns, rows)

    def _resize_pty(self, columns: int, rows: int) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._pty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    # Output

    def _readable(self) -> None:
        if not self._read():
            asyncio.get_running_loop().remove_reader(self._pty)
            if self._status < 0:
                self._end()

    def _read(self) -> bool:
        """Takes some of what there is; False at its end."""
        try:
            data = os.read(self._pty, _SOME)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            return False
        self.heard = True
        self.terminal.feed(data)
        if replies := self.terminal.take_replies():
            self.write(replies)
        self._changed()
        return True

    def _told(self) -> None:
        """The descriptor that tells of the end has something."""
        if self._process is None:
            with contextlib.suppress(OSError):
                data = os.read(self._status, _SOME)
                self._outcome += data
                if data and not data.endswith(b"\n"):
                    return
        self._end()

    def _end(self) -> None:
        if not self.alive:
            return
        for _ in range(64):  # the last words, as far as they are here
            before = self.terminal.scrolled, self.terminal.cursor
            if not self._read() or before == (self.terminal.scrolled, self.terminal.cursor):
                break
        text, orderly = self._fate()
        self.close()
        self._ended(text, orderly)

    def _fate(self) -> tuple[str, bool]:
        """How it ended, and whether by its own will."""
        quick = time.monotonic() - self._began < 1.0
        if self._process is not None:
            status = self._process.wait()
            return f"It ended with status {status}", not (quick and status)
        try:
            result = json.loads(self._outcome.decode())
        except ValueError:
            return "Its container was stopped", False
        if "error" in result:
            return str(result["error"]), False
        if "signal" in result:
            return f"It was ended by signal {result['signal']}", False
        return f"It ended with status {result['exit']}", not (quick and result["exit"])

    def close(self) -> None:
        """Hangs up: the shell ends, as when a terminal window is closed."""
        self._closed = True
        if not self.alive:
            return
        self.alive = False
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._pty)
        loop.remove_writer(self._pty)
        if self._status >= 0:
            loop.remove_reader(self._status)
        self._release()

    def _release(self) -> None:
        for fd in (self._pty, self._status, *self._held):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._pty = self._status = -1
        self._held = []
        if self._control is not None:
            self._control.close()
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            # It has lost its terminal as well: this takes no time.
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)


def _discard(files: Any) -> None:
    """Hangs up a shell that came too late."""
    if files is not None:
        for fd in (files.pty, files.status, files.pidfd):
            os.close(fd)
        files.control.close()


def own_command(words: list[str] | None, terminal: bool = False) -> list[str]:
    """Our own command line, run by this interpreter whatever launcher started it.

    Args:
        words: None when they come by standard input, as a line of JSON.
        terminal: standard input becomes its controlling terminal; it must lead a session.
    """
    take = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" if terminal else ""
    given = repr(words) if words is not None else "__import__('json').loads(sys.stdin.readline())"
    code = (
        f"{take}import sys; sys.path[:] = {sys.path!r}; sys.argv = ['lxpy', *{given}]\n"
        "from lxpy.cli.main import main\nsys.exit(main())"
    )
    return [sys.executable, "-I", "-c", code]


async def run_own(words: list[str], said: str = "", private: bool = False) -> str:
    """Runs our own command line to its end; gives what it wrote. Cancelled, it interrupts the command and waits for it.

    Args:
        said: answers what the command asks.
        private: keeps the words from the list of processes: there is a secret among them.

    Raises:
        ApiError: what it said, if it failed.
    """
    process = await asyncio.create_subprocess_exec(
        *own_command(None if private else words), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    try:
        written, _ = await process.communicate((f"{json.dumps(words)}\n" * private + said).encode())
    except asyncio.CancelledError:
        for sign in (signal.SIGINT, signal.SIGKILL):  # the first as ctrl+c: it takes away what it has begun
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.communicate(), 5)
                break
        raise
    text = written.decode(errors="replace").strip()
    if process.returncode:
        raise ApiError(text.rpartition("Error: ")[2] or f"It ended with status {process.returncode}")
    return text

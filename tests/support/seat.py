"""A program on a terminal of our own: no tmux between, so what is waited for and measured is the program's alone."""

import fcntl
import os
import pathlib
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence

from lxpy.tui.terminal import Terminal

TICK = os.sysconf("SC_CLK_TCK")


class Seat:
    """Somebody who sits before `command` and reads its screen.

    Args:
        size: columns and lines.

    Attributes:
        began: when it was executed, by `time.perf_counter`.
        drawn: bytes that it has written so far.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], size: tuple[int, int] = (160, 50)
    ) -> None:
        self.terminal = Terminal()
        self.drawn = 0
        self._pty, slave = os.openpty()
        self.resize(*size)
        environment = {**environment, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        for name in ("NO_COLOR", "COLUMNS", "LINES"):  # the terminal says how large it is
            environment.pop(name, None)

        def sit() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=sit
        )
        os.close(slave)
        os.set_blocking(self._pty, False)

    @property
    def pid(self) -> int:
        return self.process.pid

    def resize(self, columns: int, lines: int) -> None:
        """Another size of the terminal; the program gets SIGWINCH."""
        self.terminal.resize(columns, lines)
        fcntl.ioctl(self._pty, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Presses keys, as the bytes that a terminal sends."""
        os.write(self._pty, keys.encode())

    def read(self, seconds: float = 0.0) -> bool:
        """Takes what it draws, waiting so long for the first of it; whether there was something."""
        found = False
        while select.select([self._pty], [], [], 0.0 if found else seconds)[0]:
            try:
                data = os.read(self._pty, 1 << 16)
            except OSError:
                return found  # it has ended
            self.drawn += len(data)
            self.terminal.feed(data)
            if replies := self.terminal.take_replies():
                os.write(self._pty, replies)
            found = True
            if len(data) < 4096:
                break
        return found

    def watch(self, seconds: float) -> None:
        """Only looks, for so long."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            if not self.read(left) and self.process.poll() is not None:
                return

    @property
    def screen(self) -> str:
        return "\n".join(line.text.rstrip() for line in self.terminal.lines)

    def until(self, condition: str | Callable[[str], object], seconds: float = 20) -> float:
        """Waits for a text on the screen (or for what `condition` says of it); gives the seconds it took.

        Raises:
            AssertionError: it did not come; with the screen.
        """
        began = time.perf_counter()
        while True:
            shown = self.screen
            if condition in shown if isinstance(condition, str) else condition(shown):
                return time.perf_counter() - began
            left = seconds - (time.perf_counter() - began)
            assert left > 0 and (self.read(min(left, 0.2)) or self.process.poll() is None), (
                f"{condition!r} did not come within {seconds} s:\n{shown}"
            )

    def cpu(self) -> float:
        """Seconds of CPU that it has used, all its threads."""
        return cpu(self.pid)

    def close(self) -> None:
        """Ends it, as when the terminal's window is closed."""
        if self._pty >= 0:
            os.close(self._pty)
            self._pty = -1
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> "Seat":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used, to a hundredth."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def fine_cpu(pid: int) -> float:
    """The same to a nanosecond; of the threads that still are."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def memory(pid: int) -> int:
    """Bytes of memory that are its own share (PSS)."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def descriptors(pid: int) -> int:
    """How many files it has open."""
    return len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))


def stop(process: subprocess.Popen[bytes]) -> int:
    """SIGTERM, and its exit status."""
    process.send_signal(signal.SIGTERM)
    return process.wait(20)

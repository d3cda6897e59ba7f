"""Ends a daemon of the tests right before its n-th step, as ``kill -9`` would.

A step is what the world outside the process can see: a write to the database, a change of the file system, a mount, a
message to the kernel's network, a program started, a request to the spawner. `install` runs in the daemon (the tests'
launcher calls it), the rest in the test.
"""

import functools
import os
import pathlib
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from typing import Any

_EVENTS = {
    "os.chmod", "os.chown", "os.link", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.rmdir",
    "os.setxattr", "os.symlink", "os.truncate", "fcntl.ioctl", "socket.sendmsg", "socket.sendto", "subprocess.Popen",
}  # fmt: skip
_connect = sqlite3.connect
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def install(path: str) -> None:
    """Counts steps while the file `path` is there, and ends the process before the one whose number it holds."""
    from lxpy.linux import libc, rtnetlink

    fuse = _Fuse(path)
    sys.addaudithook(fuse.audit)
    sqlite3.connect = fuse.trace  # type: ignore[assignment]
    for name in ("mount", "move_mount", "renameat2", "umount2"):
        setattr(libc, name, fuse.before(name, getattr(libc, name)))
    rtnetlink.Rtnetlink.call = fuse.before("netlink", rtnetlink.Rtnetlink.call)  # type: ignore[method-assign]


class _Fuse:
    def __init__(self, path: str) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._within = threading.local()
        self._armed, self._count, self._last = b"", 0, ""

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if flags & _WRITES and isinstance(path, str) and not path.startswith("/dev/"):
                self.step(f"open {path}")
        elif event in _EVENTS:
            first = arguments[0] if arguments and isinstance(arguments[0], str) else ""
            self.step(f"{event} {first}")

    def trace(self, *arguments: Any, **named: Any) -> sqlite3.Connection:
        """`sqlite3.connect`, of a connection whose writes are steps."""
        database = _connect(*arguments, **named)
        began = False

        def seen(sql: str) -> None:
            nonlocal began
            word = sql.split(None, 1)[0]
            began = word == "BEGIN" or (began and word not in ("COMMIT", "ROLLBACK"))
            if word == "COMMIT" or (not began and word in ("INSERT", "UPDATE", "DELETE", "REPLACE")):
                self.step(f"sql {sql[:60]}")

        database.set_trace_callback(seen)
        return database

    def before(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            words = [one for one in arguments if isinstance(one, str)]
            self.step(f"{name} {' '.join(words)}")
            return function(*arguments, **named)

        return call

    def step(self, what: str) -> None:
        if getattr(self._within, "busy", False):
            return
        self._within.busy = True
        try:
            with self._lock:
                self._step(what)
        finally:
            self._within.busy = False

    def _step(self, what: str) -> None:
        try:
            with open(self._path, "rb") as file:
                armed = file.read()
        except FileNotFoundError:
            return
        if armed != self._armed:
            self._armed, self._count, self._last = armed, 0, ""
        kind, _, path = what.partition(" ")
        alike = f"{kind} {os.path.dirname(path)}"  # a tree that is removed file by file is one step
        if alike == self._last and kind != "sql":
            return
        self._last = alike
        self._count += 1
        with open(f"{self._path}.steps", "a", encoding="utf-8") as log:
            log.write(f"{what}\n")
        if self._count == int(armed.split()[0]):
            os.kill(os.getpid(), signal.SIGKILL)


class Fuse:
    """The test's end of it.

    Args:
        path: where the daemon looks.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self._steps = pathlib.Path(f"{path}.steps")
        self._turn = 0

    def arm(self, number: int = 1_000_000) -> None:
        """The next steps are counted; the daemon ends before the one of this number."""
        self.disarm()
        self._turn += 1
        new = self.path.with_suffix(".new")
        new.write_text(f"{number} {self._turn}")
        new.rename(self.path)

    def disarm(self) -> None:
        for path in (self.path, self._steps):
            path.unlink(missing_ok=True)

    def steps(self) -> list[str]:
        """What was done since it was armed; the last one was not, if the daemon has ended."""
        return self._steps.read_text().splitlines() if self._steps.exists() else []

"""The screen of ``lxpy top``: plain terminal escapes, redrawn whole."""

from __future__ import annotations

import os
import select
import sys
import time

from lxpy.cli.topcolumns import COLUMNS, TEXTS, amount, ordered
from lxpy.client import terminal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Row = dict[str, Any]

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_BOLD, _REVERSED, _PLAIN = "\x1b[1m", "\x1b[7m", "\x1b[0m"
_STEP = {"\x1b[A": -1, "\x1b[B": 1, "k": -1, "\x1b[5~": -10, "\x1b[6~": 10}


class _Screen:
    def __init__(self, columns: list[str], column: str, reverse: bool, delay: float) -> None:
        self.columns, self.column, self.reverse, self.delay = columns, column, reverse, delay
        self.rows: list[Row] = []
        self.reading: dict[str, Any] = {}
        self.top = 0

    def key(self, key: str) -> bool:
        """Whether it goes on after a key."""
        if key in ("q", "Q", "\x03", "\x1b", ""):
            return False
        if key in _STEP:
            self.top = max(0, self.top + _STEP[key])
        elif key in ("\x1b[C", "\x1b[D"):
            here = self.columns.index(self.column) + (1 if key.endswith("C") else -1)
            self.column, self.reverse = self.columns[here % len(self.columns)], False
        else:
            for name in self.columns:
                if COLUMNS[name][3] == key:
                    self.reverse = not self.reverse if name == self.column else False
                    self.column = name
        return True

    def draw(self, width: int, height: int) -> str:
        """All of it, as one string."""
        rows = ordered(self.rows, self.column, self.reverse)
        room = max(1, height - 4)
        self.top = min(self.top, max(0, len(rows) - room))
        cells = [[COLUMNS[name][1](row) for name in self.columns] for row in rows]
        heads = [COLUMNS[name][0] for name in self.columns]
        widths = [
            max(len(head), *(len(row[i]) for row in cells)) if cells else len(head) for i, head in enumerate(heads)
        ]
        shown, used = 0, 0
        while shown < len(widths) and used + widths[shown] <= width:
            used += widths[shown] + 2
            shown += 1

        def line(words: list[str]) -> str:
            parts = [
                word.ljust(size) if name in TEXTS else word.rjust(size)
                for name, word, size in zip(self.columns[:shown], words, widths, strict=False)
            ]
            return "  ".join(parts)[:width]

        title = line(heads)
        marked = self.columns.index(self.column)
        if marked < shown:
            start = sum(size + 2 for size in widths[:marked])
            end = start + widths[marked]
            title = f"{title[:start]}{_REVERSED}{title[start:end]}{_PLAIN}{_BOLD}{title[end:]}"
        body = [line(row) for row in cells[self.top : self.top + room]]
        keys = " ".join(f"{COLUMNS[name][3]}:{COLUMNS[name][0].lower()}" for name in self.columns)
        out = [self._summary()[:width], "", f"{_BOLD}{title}{_PLAIN}", *body]
        out += [""] * (height - 1 - len(out))
        out.append(f"sort {keys}  arrows: move  q: quit"[:width])
        return "\x1b[H" + "".join(f"{one}\x1b[K\r\n" for one in out[:-1]) + f"{out[-1]}\x1b[K\x1b[J"

    def _summary(self) -> str:
        cpu = sum(row["cpu"] for row in self.rows)
        memory = sum(max(0, row["memory"]) for row in self.rows)
        processes = sum(max(0, row["processes"]) for row in self.rows)
        return (
            f"{len(self.rows)} running, {processes} processes, CPU {cpu:.0f}% of {self.reading['cpus'] * 100}%, "
            f"memory {amount(memory)} of {amount(self.reading['memory'])}, every {self.delay:g} s"
        )


def run(
    read: Callable[[], list[Row]], reading: Callable[[], dict[str, Any]], columns: list[str], column: str,
    reverse: bool, delay: float,
) -> None:  # fmt: skip
    """Until ``q``. The first figures are those of half a second."""
    screen = _Screen(columns, column, reverse, delay)
    screen.rows, screen.reading = read(), reading()
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    source, out = sys.stdin.fileno(), sys.stdout.fileno()

    def resized(*_: object) -> None:
        try:
            os.write(wake_write, b"x")
        except BlockingIOError:
            pass

    with terminal.Raw(source), terminal.OnResize(resized):
        os.write(out, _ENTER.encode())
        try:
            due = time.monotonic() + min(0.5, delay)
            while True:
                width, height = terminal.size(out)
                _write(out, screen.draw(width or 80, height or 24))
                ready, _, _ = select.select([source, wake_read], [], [], max(0.0, due - time.monotonic()))
                if wake_read in ready:
                    os.read(wake_read, 64)
                if source in ready and not all(map(screen.key, _keys(os.read(source, 64).decode(errors="replace")))):
                    return
                if time.monotonic() >= due:
                    screen.rows, screen.reading = read(), reading()
                    due = time.monotonic() + delay
        finally:
            _write(out, _LEAVE)
            os.close(wake_read)
            os.close(wake_write)


def _keys(text: str) -> list[str]:
    """The keys that were pressed: characters, and sequences that begin with escape."""
    if not text:
        return [""]  # the terminal is gone
    found, rest = [], text
    while rest:
        size = 1
        if rest.startswith("\x1b["):
            size = next((i + 1 for i, c in enumerate(rest) if i > 1 and ("@" <= c <= "~")), len(rest))
        found.append(rest[:size])
        rest = rest[size:]
    return found


def _write(fd: int, text: str) -> None:
    data = text.encode()
    while data:
        data = data[os.write(fd, data) :]

"""The user's terminal: raw mode that is always taken back, and its size."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any
else:
    import _signal  # signal itself costs an enum

_DEADLY = (_signal.SIGTERM, _signal.SIGHUP)


class Raw:
    """While entered, `fd` is raw if it is a terminal; a deadly signal restores it as well."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._old: dict[int, Any] = {}

    def __enter__(self) -> None:
        if not os.isatty(self._fd):
            return
        import termios

        self._saved = termios.tcgetattr(self._fd)
        for number in _DEADLY:
            self._old[number] = _signal.signal(number, _leave)
        mode = termios.tcgetattr(self._fd)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
            | termios.IGNCR | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = (mode[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def __exit__(self, *_: object) -> None:
        if self._saved is None:
            return
        import termios

        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        except OSError:
            pass  # the terminal is gone
        for number, handler in self._old.items():
            _signal.signal(number, handler)


class OnResize:
    """While entered, `call` follows every SIGWINCH."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._old = _signal.signal(_signal.SIGWINCH, self._call)

    def __exit__(self, *_: object) -> None:
        _signal.signal(_signal.SIGWINCH, self._old)


def size(fd: int = 1) -> tuple[int, int]:
    """(width, height); (0, 0) without a terminal."""
    try:
        columns, lines = os.get_terminal_size(fd)
        return columns, lines
    except OSError:
        return 0, 0


def copy_size(source: int, pty: int) -> None:
    """Give `pty` the size of the terminal `source`."""
    width, height = size(source)
    if not width:
        return
    import fcntl
    import termios

    packed = b"".join(n.to_bytes(2, sys.byteorder) for n in (height, width, 0, 0))
    try:
        fcntl.ioctl(pty, termios.TIOCSWINSZ, packed)
    except OSError:
        pass


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)

"""Directories watched for names that come and go (inotify(7)); Python has no interface of its own for it."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_CREATE, _DELETE, _MOVED, _GONE, _ONLYDIR = 0x100, 0x200, 0x40 | 0x80, 0x400 | 0x800, 0x01000000


class Watches:
    """A set of directories; `fd` is readable when something has changed in one of them."""

    def __init__(self) -> None:
        self.fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")
        self._numbers: dict[str, int] = {}

    def close(self) -> None:
        os.close(self.fd)

    def set(self, paths: set[str]) -> None:
        """Watch these, and no others. Of one that is not there, the nearest directory above it."""
        wanted = {_existing(path) for path in paths}
        for path in self._numbers.keys() - wanted:
            _libc.inotify_rm_watch(self.fd, self._numbers.pop(path))  # EINVAL: gone by itself
        for path in wanted:
            # Again for those watched already: a directory made anew under a name is another one.
            events = _CREATE | _DELETE | _MOVED | _GONE | _ONLYDIR
            number = _libc.inotify_add_watch(self.fd, os.fsencode(path), events)
            if number >= 0:
                self._numbers[path] = number

    def drain(self) -> None:
        """Takes what has been told; which names it was about does not matter here."""
        try:
            while os.read(self.fd, 65536):
                pass
        except BlockingIOError:
            pass


def _existing(path: str) -> str:
    while not os.path.isdir(path) and path != "/":
        path = os.path.dirname(path)
    return path


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)
    return result

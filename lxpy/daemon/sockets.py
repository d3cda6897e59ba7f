"""The daemon's listening sockets. Imports next to nothing: they listen before the rest of the daemon is loaded."""

import contextlib
import os
import socket

_FIRST_PASSED_FD = 3  # sd_listen_fds(3)


def listen(path: str, kind: int, group: int, backlog: int = 128, mode: int = 0o660) -> socket.socket:
    """A listening Unix socket at `path`, of that group. Bound below a temporary name and renamed: the path
    never leads to a dead socket.

    Args:
        kind: ``SOCK_STREAM`` or ``SOCK_SEQPACKET``.
        group: its gid.
    """
    listener = socket.socket(socket.AF_UNIX, kind | socket.SOCK_CLOEXEC)
    directory = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Through the directory's descriptor: `sun_path` has 108 bytes and LXPY_DIR may be deep.
        temporary = f"/proc/self/fd/{directory}/.{os.path.basename(path)}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        mask = os.umask(0o177)
        try:
            listener.bind(temporary)
        finally:
            os.umask(mask)
        os.chown(temporary, 0, group)
        os.chmod(temporary, mode)
        listener.listen(backlog)
        os.rename(temporary, path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(directory)
    return listener


def passed() -> dict[str, socket.socket]:
    """Sockets of systemd's socket activation, by path (sd_listen_fds(3))."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return {}
    found: dict[str, socket.socket] = {}
    for fd in range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + int(os.environ.get("LISTEN_FDS", "0"))):
        os.set_inheritable(fd, False)
        one = socket.socket(fileno=fd)
        found[str(one.getsockname())] = one
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return found


def notify(state: str) -> None:
    """sd_notify(3)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        with channel, contextlib.suppress(OSError):  # a manager that does not listen is no reason to fail
            channel.connect("\0" + path[1:] if path.startswith("@") else path)
            channel.send(state.encode())

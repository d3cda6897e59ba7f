"""Reaching the daemon of this machine, and waking it where no systemd does."""

from __future__ import annotations

import os

from lxpy.api.errors import Unavailable
from lxpy.api.layout import Layout
from lxpy.client import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

_WAIT = 10.0  # seconds for lxpyd to listen


def dial(path: str, seqpacket: bool = False, layout: Layout | None = None) -> socket.socket:
    """A socket connected to `path`; starts lxpyd when nobody listens, we are root and no systemd would.

    Raises:
        Unavailable: with what to do about it.
    """
    try:
        return wire.unix_socket(path, seqpacket)
    except PermissionError:
        raise Unavailable(
            f"No permission to use {path}: become a member of the group lxpy "
            "(usermod -aG lxpy USER, then log in again), or run as root"
        ) from None
    except (FileNotFoundError, ConnectionRefusedError) as error:
        layout = layout or Layout()
        if os.path.isdir("/run/systemd/system") and not layout.tag:
            raise Unavailable("lxpyd is not running: systemctl start lxpy") from None
        if os.geteuid() != 0:
            raise Unavailable(f"lxpyd is not running ({path}): start it as root with lxpyd") from error
        if os.environ.get("LXPY_ACTIVATE", "") in ("0", "no", "false"):  # who starts lxpyd is someone else's business
            raise Unavailable(f"lxpyd is not running ({path})") from None
    return _activate(path, seqpacket, layout)


def _activate(path: str, seqpacket: bool, layout: Layout) -> socket.socket:
    import errno
    import time

    pid = _spawn(layout)
    end = time.monotonic() + _WAIT
    delay = 0.005
    status = None
    while time.monotonic() < end:
        try:
            return wire.unix_socket(path, seqpacket)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ECONNREFUSED, errno.EACCES):
                raise
        if status is None:
            done, code = os.waitpid(pid, os.WNOHANG)
            if done:
                status = code
                if code:
                    break
        time.sleep(delay)
        delay = min(delay * 1.5, 0.1)
    raise Unavailable(f"lxpyd did not start: see {layout.log}{_last_line(layout.log)}")


def _spawn(layout: Layout) -> int:
    """lxpyd, detached: its own session, nothing of ours open, its messages in the log."""
    import sys

    # Each in its own isolated way: the launcher runs without site directories, so the child is told where lxpy is.
    home = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    beside = os.path.dirname(os.path.abspath(sys.argv[0] or "lxpy")) + "/lxpyd"
    if os.access(beside, os.X_OK):
        command = [beside]
    elif getattr(sys.flags, "no_site", 0):
        code = f"import site,sys; site.addsitedir({home!r}); from lxpy.daemon.main import main; sys.exit(main())"
        command = [sys.executable, "-I", "-c", code]
    else:
        command = [sys.executable, "-m", "lxpy.daemon.main"]
    os.makedirs(layout.root, mode=0o711, exist_ok=True)
    log = os.open(layout.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
    null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    environment = dict(os.environ, LXPY_DIR=layout.root)
    try:
        return os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=[],
        )
    except OSError as error:
        raise Unavailable(f"Cannot start lxpyd ({command[0]}): {error.strerror}") from None
    finally:
        os.close(log)
        os.close(null)


def _last_line(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
            lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return ""
    return f" ({lines[-1].strip()})" if lines else ""

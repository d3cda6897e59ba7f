"""``lxpyd``: start-up, signals, the end."""

import argparse
import asyncio
import contextlib
import fcntl
import gc
import grp
import logging
import os
import signal
import socket
import sys
import time

from lxpy.api.errors import ApiError
from lxpy.api.layout import Layout
from lxpy.daemon import sockets

log = logging.getLogger("lxpyd")


def main(argv: list[str] | None = None) -> int:
    """The entry point of ``lxpyd``; the exit status."""
    options = _parser().parse_args(argv)
    try:
        if options.command == "waitready":
            return _waitready(options.timeout)
        if options.command == "shutdown":
            return _shutdown(options.timeout)
        return _serve(options)
    except (ApiError, OSError) as error:
        print(f"lxpyd: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lxpyd", description="The lxpy daemon. Without a command it serves.")
    parser.add_argument("--group", default="lxpy", help="who may use the socket (default: lxpy)")
    parser.add_argument("--debug", action="store_true", help="log more")
    parser.add_argument("--logfile", metavar="PATH", help="log here too (default: lxpyd.log in LXPY_DIR)")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    ready = commands.add_parser("waitready", help="wait until the daemon answers")
    down = commands.add_parser("shutdown", help="stop all instances, then the daemon")
    for command in (ready, down):
        command.add_argument("--timeout", type=int, default=0, metavar="SECONDS", help="give up after that (0: never)")
    return parser


# -- serving -------------------------------------------------------------------------------------------------------


def _serve(options: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        print("lxpyd: must run as root (sudo lxpyd): it makes namespaces, mounts and cgroups", file=sys.stderr)
        return 1
    if _mapped():
        print(
            "lxpyd: root is not the host's root here: inside a container lxpy needs a privileged one "
            "(security.privileged=true and security.nesting=true), for only that root can make id-mapped mounts",
            file=sys.stderr,
        )
        return 1
    layout = Layout()
    os.makedirs(layout.root, mode=0o711, exist_ok=True)
    os.chmod(layout.root, 0o711)
    lock = _lock(layout)
    if lock < 0:
        print(f"lxpyd: another lxpyd is serving {layout.root} already", file=sys.stderr)
        return 1
    os.makedirs(layout.run, mode=0o700, exist_ok=True)
    os.chmod(layout.run, 0o700)  # nobody but us may get near the supervisors' sockets
    os.makedirs(layout.logs, mode=0o700, exist_ok=True)
    _start_log(options, layout)
    # Listening comes first: whoever connects now waits in the backlog until there is somebody to answer.
    group = _group(options.group)
    passed = sockets.passed()
    api = passed.get(layout.socket) or sockets.listen(layout.socket, socket.SOCK_STREAM, group)
    local = passed.get(layout.local_socket) or sockets.listen(layout.local_socket, socket.SOCK_SEQPACKET, group)
    try:
        return asyncio.run(_run(layout, api, local))
    finally:
        api.close()
        local.close()
        # Sockets passed to us are systemd's to keep; ours would lead nowhere.
        for path in (layout.socket, layout.local_socket):
            if path not in passed:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(path)
        os.close(lock)


async def _run(layout: Layout, api: socket.socket, local: socket.socket) -> int:
    started = time.monotonic()
    from lxpy.daemon import app
    from lxpy.daemon.daemon import Daemon
    from lxpy.daemon.lean import web
    from lxpy.daemon.local import LocalServer

    loop = asyncio.get_running_loop()
    daemon = Daemon(layout, app.build)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stopping.set)
    loop.add_signal_handler(signal.SIGPWR, _begin_shutdown, daemon)
    local_server: LocalServer | None = None
    code = 0
    try:
        await daemon.start()
        await web.SockSite(daemon.runner, api, backlog=128).start()
        local_server = LocalServer(local, daemon.instances)
        # What is there now stays: out of the collector's way, and its pages stay shared with forks.
        gc.collect()
        gc.freeze()
        sockets.notify("READY=1")
        await daemon.setup.recover()
        log.info("serving %s after %.0f ms", layout.root, (time.monotonic() - started) * 1000)
        await daemon.stopping.wait()
        sockets.notify("STOPPING=1")
        if daemon.shutting_down:
            await daemon.instances.shutdown()
    except ApiError as error:
        print(f"lxpyd: {error}", file=sys.stderr)
        log.error("%s", error)
        code = 1
    except Exception as error:
        log.exception("start-up failed")
        print(f"lxpyd: start-up failed: {error!r}; {layout.log} has the details", file=sys.stderr)
        code = 1
    finally:
        if local_server is not None:
            local_server.close()
        await daemon.close()
    log.info("ended")
    return code


def _begin_shutdown(daemon: object) -> None:
    """SIGPWR: the host goes down, so every instance is stopped first."""
    from lxpy.daemon.daemon import Daemon

    assert isinstance(daemon, Daemon)
    daemon.shutting_down = True
    daemon.stopping.set()


def _lock(layout: Layout) -> int:
    """A descriptor holding the lock of the pid file, or -1 when another daemon has it."""
    fd = os.open(layout.pid_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return -1
    os.ftruncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode())
    return fd


def _start_log(options: argparse.Namespace, layout: Layout) -> None:
    path = options.logfile or layout.log
    handlers: list[logging.Handler] = [_append(path)]
    if (sys.stderr is not None and sys.stderr.isatty()) or os.environ.get("INVOCATION_ID"):
        handlers.append(logging.StreamHandler())  # a person or the journal
    level = logging.DEBUG if options.debug else logging.INFO
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=level, handlers=handlers)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def _append(path: str) -> logging.Handler:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return logging.StreamHandler(os.fdopen(fd, "a", encoding="utf-8"))


def _mapped() -> bool:
    """Whether this is a user namespace that has only some of the host's ids."""
    try:
        with open("/proc/self/uid_map", encoding="ascii") as file:
            return int(file.read().split()[2]) < 0xFFFFFFFF  # the initial one has all but (uid_t)-1
    except (OSError, IndexError):
        return False


def _group(name: str) -> int:
    """The gid of the group that may use the sockets; root's when there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return 0


# -- commands to a running daemon ----------------------------------------------------------------------------------


def _answers(layout: Layout, seconds: float) -> bool:
    """Whether a request is answered in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(max(seconds, 0.01))
        try:
            connection.connect(layout.socket)
            connection.sendall(b"GET /1.0 HTTP/1.1\r\nHost: lxpy\r\nConnection: close\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def _waitready(timeout: int) -> int:
    layout, end = Layout(), time.monotonic() + (timeout or float("inf"))
    while not _answers(layout, min(end - time.monotonic(), 3600.0)):
        if time.monotonic() >= end:
            print(f"lxpyd: no answer on {layout.socket} within {timeout} seconds", file=sys.stderr)
            return 1
        time.sleep(0.05)
    return 0


def _shutdown(timeout: int) -> int:
    """SIGPWR to the daemon, and wait for its end by its lock."""
    layout = Layout()
    try:
        fd = os.open(layout.pid_file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return 0  # nobody serves
        os.kill(int(os.read(fd, 32)), signal.SIGPWR)
        end = time.monotonic() + (timeout or float("inf"))
        while time.monotonic() < end:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return 0
            time.sleep(0.05)
        print(f"lxpyd: instances are still being stopped after {timeout} seconds", file=sys.stderr)
        return 1
    finally:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())

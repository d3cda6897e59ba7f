"""The process of a proxy device: listens on one side of a guest's border and connects on the other.

Forked from the spawner, which has imported none of this; it outlives the daemon, ends with the guest, and lives in the
cgroup of the guest's supervisor. Listening sockets are made with the rights of the side they are on; then the process
enters the side that it connects on and keeps no more rights than that takes. It never comes back, so no setns(2) is
needed for a connection.
"""

import os
import select
import signal
import socket
import stat
import time

from lxpy.linux import caps, libc, pidfd
from lxpy.runtime import hotdisk, wire
from lxpy.runtime.cgroup import InstanceCgroup
from lxpy.runtime.relay import Relay

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from lxpy.runtime.spec import ProxyAddress, ProxySpec

_BACKLOG = 4096  # capped by net.core.somaxconn
_BUSY_SECONDS = 0.5  # a predecessor may be on its way out
_BATCH = 16  # descriptors in one message
_EADDRINUSE, _ECONNREFUSED = 98, 111
_NOFILE = 7  # RLIMIT_NOFILE
_IP_FREEBIND, _IPV6_FREEBIND = 15, 78  # include/uapi/linux/in.h, in6.h


class _Failed(Exception):
    """One line for the user."""


def run(message: "wire.Message", init: int, reply: socket.socket) -> "NoReturn":
    """The process's life.

    Args:
        message: ``proxy``, a `ProxySpec`; ``base`` as for `hotdisk.run`; ``placed``: born in the supervisor's cgroup.
        init: pidfd of the guest's init, with which it ends.
        reply: gets ``{"pid", "start"}`` once it listens, or ``{"error": reason}``. It serves when it is told
            ``{"go"}`` there, and ends when nobody says so.
    """
    try:
        spec: ProxySpec = message["proxy"]
        me = {"pid": os.getpid(), "start": pidfd.start_time(os.getpid())}  # while /proc is the host's
        try:
            relay = _prepare(spec, message["base"], init, message["placed"])
        except BaseException as error:
            libc.close_range(5)  # who hears of it may take a socket's file away
            wire.send(reply, {"error": wire.reason(error)})
            os._exit(1)
        wire.send(reply, me)
        if not (wire.receive(reply)[0] or {}).get("go"):
            os._exit(1)
        reply.close()
        relay.add(init, select.EPOLLIN, lambda _fd, _events: os._exit(0))
        relay.run()
    finally:
        os._exit(1)


def remove_socket(message: "wire.Message", init: int, reply: socket.socket) -> "NoReturn":
    """In a process of its own: takes away a unix socket inside a guest that nobody listens on any more.

    Args:
        message: ``path``, and ``base`` as for `hotdisk.run`.
    """
    try:
        hotdisk.become_mapped_root(message["base"])
        _enter(init, message["base"], libc.CLONE_NEWNS)
        remove_stale(message["path"])
        wire.send(reply, {})
    except OSError as error:
        wire.send(reply, {"error": wire.reason(error)})
    finally:
        os._exit(0)


def _prepare(spec: "ProxySpec", base: "int | None", init: int, placed: bool) -> Relay:
    libc.set_title(f"lxpy proxy: {spec['instance']} {spec['device']}")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.setsid()
    InstanceCgroup(spec["prefix"], spec["instance"]).join_supervisor(placed)
    os.chdir("/")
    os.umask(0o077)
    hard = libc.rlimit(_NOFILE)[1]
    libc.set_rlimit(_NOFILE, hard, hard)
    relay = Relay()
    sockets = _listen_inside(spec, base, init) if spec["inside"] else _listen(spec)
    targets = _targets(spec["connect"])
    for number, sock in enumerate(sockets):
        relay.add_listener(sock, targets[min(number, len(targets) - 1)], spec["header"])
    uid, gid = spec["as_uid"], spec["as_gid"]
    if not spec["inside"]:
        hotdisk.become_mapped_root(base)
        spaces = libc.CLONE_NEWNET | (libc.CLONE_NEWNS if spec["connect"]["kind"] == "unix" else 0)
        _enter(init, base, spaces)
    else:
        libc.prctl(libc.PR_SET_DUMPABLE, 0)
    _become(uid, gid)
    return relay


def _become(uid: int, gid: int) -> None:
    """Keeps what connecting takes: to reach any unix socket, as long as it is root of its side."""
    try:
        os.setgroups([])
    except PermissionError:
        pass  # has been done before the user namespace was entered
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    caps.keep_only(caps.DAC_OVERRIDE)


def _enter(init: int, base: "int | None", spaces: int) -> None:
    if not pidfd.alive(init):
        raise _Failed("the instance has just stopped")
    if base is not None:
        libc.setns(init, libc.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    libc.setns(init, spaces)


def _targets(connect: "ProxyAddress") -> "list[tuple[int, int, Any]]":
    if connect["kind"] == "unix":
        host = connect["host"]
        return [(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + host[1:] if host.startswith("@") else host)]
    family = socket.AF_INET6 if ":" in connect["host"] else socket.AF_INET
    kind = socket.SOCK_STREAM if connect["kind"] == "tcp" else socket.SOCK_DGRAM
    return [(family, kind, (connect["host"], port)) for port in _ports(connect)]


def _ports(address: "ProxyAddress") -> "list[int]":
    return [port for low, high in address["spans"] for port in range(low, high + 1)]


# -- listening ---------------------------------------------------------------------------------------------------------


def _listen(spec: "ProxySpec") -> "list[socket.socket]":
    """The listening sockets, in the network and mount namespace of this process, in the order of the ports."""
    listen = spec["listen"]
    if listen["kind"] == "unix":
        return [_listen_unix(listen["host"], spec["uid"], spec["gid"], spec["mode"])]
    family = socket.AF_INET6 if ":" in listen["host"] else socket.AF_INET
    kind = socket.SOCK_STREAM if listen["kind"] == "tcp" else socket.SOCK_DGRAM
    return [_listen_ip(family, kind, listen["host"], port, spec["inside"]) for port in _ports(listen)]


def _listen_ip(family: int, kind: int, host: str, port: int, inside: bool) -> socket.socket:
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if inside:
        # A guest that boots has its addresses later.
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_FREEBIND) if family == socket.AF_INET6 else (socket.IPPROTO_IP, _IP_FREEBIND)
        )
        sock.setsockopt(level, option, 1)
    if kind == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        _bind(sock, (host, port))
        if kind == socket.SOCK_STREAM:
            sock.listen(_BACKLOG)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        raise _Failed(f"cannot listen on {where}: {error.strerror}") from None
    return sock


def _listen_unix(host: str, uid: int, gid: int, mode: int) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        if host.startswith("@"):
            _bind(sock, "\0" + host[1:])
        else:
            remove_stale(host)
            _bind(sock, host)  # the umask lets nobody else in before its owner is set
            os.chown(host, uid, gid, follow_symlinks=False)
            os.chmod(host, mode)
        sock.listen(_BACKLOG)
    except OSError as error:
        raise _Failed(f"cannot listen on {host}: {error.strerror}") from None
    return sock


def _bind(sock: socket.socket, address: "Any") -> None:
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            sock.bind(address)
            return
        except OSError as error:
            if error.errno != _EADDRINUSE or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def remove_stale(path: str) -> None:
    """Removes the file of a unix socket whose process is gone; anything else is left alone.

    Raises:
        OSError: it cannot be removed.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except (FileNotFoundError, NotADirectoryError):
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        probe.settimeout(1)
        probe.connect(path)
    except OSError as error:
        if error.errno == _ECONNREFUSED:
            os.unlink(path)
    finally:
        probe.close()


def _listen_inside(spec: "ProxySpec", base: "int | None", init: int) -> "list[socket.socket]":
    """As `_listen` inside the guest, by a child that is the guest's root there and ends."""
    ours, theirs = wire.pair()
    pid = libc.clone(0)
    if pid == 0:
        try:
            ours.close()
            hotdisk.become_mapped_root(base)
            _enter(init, base, libc.CLONE_NEWNET | libc.CLONE_NEWNS)
            made = [sock.detach() for sock in _listen(spec)]
            for first in range(0, len(made), _BATCH):
                wire.send(theirs, {}, made[first : first + _BATCH])
        except BaseException as error:
            wire.send(theirs, {"error": wire.reason(error)})
        finally:
            os._exit(0)
    theirs.close()
    found: list[socket.socket] = []
    while True:
        message, fds = wire.receive(ours)
        if message is None:
            break
        if "error" in message:
            raise _Failed(message["error"])
        found += [socket.socket(fileno=fd) for fd in fds]
    ours.close()
    os.waitpid(pid, 0)
    wanted = len(_ports(spec["listen"])) or 1
    if len(found) != wanted:
        raise _Failed("its helper inside the instance was killed")
    return found

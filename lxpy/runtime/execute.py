"""A command inside a running guest. Runs in processes forked from the spawner.

The *joiner* (a child of the spawner in the host's pid namespace) takes over the guest's namespaces and forks the
*command*'s process with ``CLONE_PARENT``, so that the spawner can wait for it. The user namespace comes last and
inside: until then the process is unreadable for the guest (not dumpable, a stranger's credentials), and no path is
looked up while host credentials meet guest mounts.
"""

import errno
import fcntl
import os
import signal
import socket
import termios

from lxpy.linux import apparmor, libc, namespaces, pty
from lxpy.runtime import container, wire
from lxpy.runtime.cgroup import InstanceCgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# The signals a shell may have left ignored in us; the guest's programs start with the defaults.
RESET = (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
         signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH)  # fmt: skip


def run_joiner(
    message: "wire.Message", pidfd: int, reply: socket.socket, status: int, report: socket.socket
) -> "NoReturn":
    """The joiner's life.

    Args:
        message: the request with ``name``, ``prefix``, ``base`` (host id of the guest's root, None: privileged) and
            ``apparmor`` (the profile of its init; empty or absent: none).
        pidfd: of the guest's init.
        reply: the client; gets the descriptors or ``{"error"}``.
        status: read end of the status pipe, passed on to the client.
        report: the spawner; gets ``{"pid"}`` of the command and, after a failed exec, ``{"error", "exit"}``.
    """
    try:
        _join(message, pidfd, reply, status, report)
    except BaseException as error:
        wire.send(reply, {"error": f"Failed to enter {message.get('name')}: {wire.reason(error)}"})
    finally:
        os._exit(0)


def _join(message: "wire.Message", pidfd: int, reply: socket.socket, status: int, report: socket.socket) -> None:
    request = message["request"]
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    stdio: list[tuple[int, int]] = []
    if not request["interactive"]:
        # Ours and the guest's ends. The guest may open /proc/self/fd/1 again, so the pipes must be its own.
        stdio = [os.pipe() for _ in range(3)]
        for read_end, _ in stdio:
            os.fchown(read_end, *_outside(message, request["user"], request["group"]))
    cgroup = InstanceCgroup(message["prefix"], message["name"])
    cgroup.join_v1()
    container.raise_limits(message.get("confine", {}).get("rlimits", {}))
    os.setgroups([])
    cgroup_fd = cgroup.open_unified()
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if message.get("apparmor") else -1
    libc.setns(pidfd, namespaces.FOR_ATTACH)
    try:
        pid = libc.clone(libc.CLONE_PARENT, cgroup_fd)
    except OSError as error:
        if error.errno != errno.EBUSY:
            if error.errno == errno.EAGAIN:
                raise OSError(error.errno, "its process limit is reached") from None
            raise
        # v2: the guest has handed controllers down, so its top cgroup takes no process. A leaf beside its own does.
        try:
            os.mkdir(".exec", 0o755, dir_fd=cgroup_fd)
        except FileExistsError:
            pass
        leaf = os.open(".exec", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=cgroup_fd)
        pid = libc.clone(libc.CLONE_PARENT, leaf)
    if pid == 0:
        _command(message, pidfd, reply, status, report, stdio, proc)
    wire.send(report, {"pid": pid})


def _outside(message: "wire.Message", user: int, group: int) -> tuple[int, int]:
    """The host's ids of a user and group of the guest."""
    found = []
    for number, key in ((user, "uids"), (group, "gids")):
        pieces = message.get("confine", {}).get(key) or [[0, message["base"] or 0, number + 1]]
        found.append(next((out + number - first for first, out, count in pieces if first <= number < first + count), 0))
    return found[0], found[1]


def _command(
    message: "wire.Message", pidfd: int, reply: socket.socket, status: int, report: socket.socket,
    stdio: "list[tuple[int, int]]", proc: int,
) -> "NoReturn":  # fmt: skip
    request, label = message["request"], -1
    try:
        if proc >= 0:
            label = apparmor.open_exec(proc)
        inner = libc.CLONE_NEWCGROUP | (libc.CLONE_NEWUSER if message["base"] is not None else 0)
        libc.setns(pidfd, inner)
        if message["base"] is not None:
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        # From here on this process has the credentials of the guest's root and no more.
        libc.join_new_session_keyring()
        own = os.pidfd_open(os.getpid())
        if request["interactive"]:
            master, slave = pty.open_in("/dev/pts")
            pty.resize(master, request.get("width") or 80, request.get("height") or 24)
            os.fchown(slave, request["user"], 5)
            ends, fds = [slave, slave, slave], [master]
        else:
            (in_r, in_w), (out_r, out_w), (err_r, err_w) = stdio
            ends, fds = [in_r, out_w, err_w], [in_w, out_r, err_r]
        wire.send(reply, {"ok": True}, [*fds, status, own])
    except BaseException as error:
        wire.send(reply, {"error": f"Failed to enter {message['name']}: {wire.reason(error)}"})
        os._exit(126)
    code, problem = 126, ""
    try:
        os.setsid()
        kept = fcntl.fcntl(report.fileno(), fcntl.F_DUPFD_CLOEXEC, 64)
        # 0 to 2 are /dev/null in the spawner, so no end can lie among them.
        for number, end in enumerate(ends):
            os.dup2(end, number)
        if request["interactive"]:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        os.dup2(kept, 3, inheritable=False)
        if label >= 0:
            apparmor.at_exec(label, message["apparmor"])
        container.confine(message.get("confine", {}))
        report = socket.socket(fileno=3)
        os.setresgid(request["group"], request["group"], request["group"])
        os.setresuid(request["user"], request["user"], request["user"])
        environment = request["environment"]
        if cwd := request["cwd"]:
            os.chdir(cwd)
        else:
            try:
                os.chdir(environment.get("HOME") or "/")
            except OSError:
                os.chdir("/")
        code, problem = _exec(request["command"], environment)
    except BaseException as error:
        problem = wire.reason(error)
    wire.send(report, {"error": problem, "exit": code})
    os._exit(code)


def _exec(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Runs the command, looked for in its own ``PATH``; back only on failure, with a shell's status and the reason."""
    name = command[0] if command else ""
    if not name:
        return 127, "no command given"
    path_list = environment.get("PATH", container.PATH).split(":")
    paths = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in path_list]
    denied = ""
    for path in paths:
        try:
            os.execve(path, command, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            denied = denied or f"{path}: {error.strerror}"
            if error.errno != errno.EACCES:
                break
        except ValueError as error:  # a NUL byte
            return 126, str(error)
    return (126, denied) if denied else (127, f"{name}: command not found")

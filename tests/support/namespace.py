"""A namespace of their own for the tests, and the reaper of what a namespace cannot hold.

Mounts, links, nft tables and processes go with the namespace, however a test run ends. Cgroups and loop devices do
not: they are found by the run directory they belong to, after this run and after runs that crashed.
"""

import contextlib
import ctypes
import fcntl
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

from lxpy.api.layout import Layout
from lxpy.linux import libc

# Always on disk: /tmp is a tmpfs on newer hosts. Short, for the 108 bytes of a socket's path.
RUNS = pathlib.Path("/var/tmp")
PREFIX = "lxpy-t-"
CACHE = pathlib.Path(os.environ.get("LXPY_TEST_CACHE", "/var/cache/lxpy-tests"))

_MARK = "LXPY_TEST_RUN"
_HOSTS = "--network-of-the-host"
_PR_SET_PDEATHSIG = 1
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1


def inside() -> bool:
    """Whether this process already runs in a test namespace."""
    return _MARK in os.environ


def run_dir(name: str) -> pathlib.Path:
    """The directory `name` of this run, made when missing; `reap` takes it away when the run has ended."""
    folder = path(name)
    folder.mkdir(mode=0o711, exist_ok=True)
    folder.chmod(0o711)
    return folder


def path(name: str) -> pathlib.Path:
    """Where the directory `name` of this run is."""
    return RUNS / f"{PREFIX}{os.environ.get(_MARK, os.getpid())}-{name}"


def enter(command: list[str], network: bool = True) -> int:
    """Runs `command` in namespaces of its own, with or without a network one, waits, reaps, gives its exit status."""
    reap()
    environment = dict(os.environ, **{_MARK: str(os.getpid())})
    unshare = ["unshare", "--mount", *(["--net"] if network else []), "--pid", "--fork", "--kill-child", "--mount-proc"]
    setup = [sys.executable, "-m", "tests.support.namespace", *([] if network else [_HOSTS]), *command]
    prctl = ctypes.CDLL(None).prctl
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to pytest as well

    def die_with_parent() -> None:
        # A shell that starts us in the background has it ignored, and what ctrl+c does is among the things tested.
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is signal.SIG_IGN else previous)
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    child = subprocess.Popen([*unshare, *setup], env=environment, cwd=_checkout(), preexec_fn=die_with_parent)
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    try:
        return child.wait()
    finally:
        reap(finished=os.getpid())


def reap(finished: int = 0) -> None:
    """Removes cgroups, loop devices and directories of test runs that have ended.

    Args:
        finished: a run that has ended although its process (the caller) lives.
    """
    for path in RUNS.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and (int(owner) == finished or not pathlib.Path(f"/proc/{owner}").exists()):
            layout = Layout(str(path))
            remove_cgroups(layout.cgroup_prefix)
            detach_loops(str(path))
            shutil.rmtree(layout.run, ignore_errors=True)
            shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)  # some are files


@contextlib.contextmanager
def own_network() -> Iterator[None]:
    """The calling thread, and what it starts, in a network of its own with a /sys that shows it; then back.

    For tests that flush rulesets, set policies or count everything: daemons of other workers run in the run's network.
    """
    homes = [(os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC), kind)
             for name, kind in (("net", libc.CLONE_NEWNET), ("mnt", libc.CLONE_NEWNS))]  # fmt: skip
    folder = os.getcwd()
    libc.unshare(libc.CLONE_NEWNET | libc.CLONE_NEWNS)
    try:
        _network_and_sys()
        yield
    finally:
        for home, kind in homes:
            libc.setns(home, kind)
            os.close(home)
        os.chdir(folder)


def cgroups(prefix: str) -> list[pathlib.Path]:
    """The cgroups of one daemon, in every hierarchy, deepest first."""
    found: list[pathlib.Path] = []
    root = pathlib.Path("/sys/fs/cgroup")
    for top in [*root.glob(f"{prefix}.*"), *root.glob(f"*/{prefix}.*")]:
        found += [pathlib.Path(folder) for folder, _, _ in os.walk(top, topdown=False)]
    return found


def remove_cgroups(prefix: str) -> None:
    for _ in range(50):
        remaining = cgroups(prefix)
        if not remaining:
            return
        for path in remaining:
            with contextlib.suppress(OSError):
                (path / "cgroup.kill").write_text("1")
            with contextlib.suppress(OSError):
                path.rmdir()
        time.sleep(0.02)


def loops(under: str) -> list[str]:
    """Loop devices whose backing file lies under a directory."""
    found = []
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(under + "/"):
                found.append(f"/dev/{backing.parts[3]}")
    return found


def detach_loops(under: str) -> None:
    for device in loops(under):
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True)


def _checkout() -> pathlib.Path:
    return pathlib.Path(__file__).parents[2]


def _network_and_sys() -> None:
    """Inside: lo up, and a /sys that shows this network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(sock, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    held = pathlib.Path("/run") / f"cgroup.{os.getpid()}"
    held.mkdir()
    subprocess.run(["mount", "--rbind", "/sys/fs/cgroup", held], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["mount", "--rbind", held, "/sys/fs/cgroup"], check=True)
    subprocess.run(["umount", "--recursive", "--lazy", held], check=True)
    held.rmdir()


def _prepare(network: bool) -> None:
    """Inside: an empty /run and, if there is one, a network of its own."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"], check=True)
    if network:
        _network_and_sys()


def _init(command: list[str]) -> int:
    """PID 1 of the namespace: starts `command` and reaps every orphan, as an init does."""
    child = os.fork()
    if child == 0:
        os.execvp(command[0], command)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    arguments = sys.argv[1:]
    own = arguments[0] != _HOSTS
    _prepare(own)
    code = _init(arguments if own else arguments[1:])
    sys.exit(code if code >= 0 else 128 - code)

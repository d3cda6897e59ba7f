"""Services that Debian has as packages, in namespaces of a test's own: unpacked, never installed, since installing
starts them on this host.

`python -m tests.support.unpacked` fetches the packages, which only the host's network reaches: hence before the tests
enter their namespace.
"""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from tests.support.namespace import CACHE

FIREWALLD = ("firewalld", "python3-firewall", "python3-nftables")
RESOLVED = ("systemd-resolved",)
_LAYERS = ("etc", "usr/sbin", "usr/bin", "usr/lib", "usr/lib/python3/dist-packages", "usr/share")
# What the package's own script makes.
_ACCOUNT = {"/etc/passwd": "systemd-resolve:x:993:993::/:/usr/sbin/nologin\n", "/etc/group": "systemd-resolve:x:993:\n"}
_POLICY = "usr/share/polkit-1/actions/org.fedoraproject.FirewallD1"


def fetch(packages: tuple[str, ...]) -> pathlib.Path:
    """The tree of the unpacked packages, fetched now when it is missing."""
    tree = CACHE / f"unpacked-{packages[0]}"
    if not tree.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        work = pathlib.Path(tempfile.mkdtemp(prefix="unpacking-", dir=CACHE))
        work.chmod(0o777)  # apt's own user writes there
        try:
            subprocess.run(["apt-get", "-q", "download", *packages], cwd=work, check=True, capture_output=True)
            for package in work.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, work / "tree"], check=True)
            if (work / "tree/lib").is_dir():  # /lib is a link to it
                shutil.copytree(work / "tree/lib", work / "tree/usr/lib", dirs_exist_ok=True)
            (work / "tree/etc").mkdir(exist_ok=True)  # so that whatever is written there is written to a layer of ours
            with contextlib.suppress(FileNotFoundError):  # the choice that the package's own script makes
                shutil.copy(work / "tree" / f"{_POLICY}.server.policy.choice", work / "tree" / f"{_POLICY}.policy")
            with contextlib.suppress(OSError):  # another run was faster
                (work / "tree").rename(tree)
        finally:
            shutil.rmtree(work)
    return tree


@contextlib.contextmanager
def bus(packages: tuple[str, ...]) -> Iterator[pathlib.Path]:
    """Packages laid over the root file system, and a message bus, in the namespaces of the calling thread.

    Gives:
        a directory of these namespaces, for logs.
    """
    tree, place = fetch(packages), pathlib.Path("/run/dbus")
    for folder in (place, pathlib.Path("/run/systemd")):  # those of the other tests are not looked at, and these go
        folder.mkdir(exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
    for part in ("upper", "work"):
        (place / part).mkdir()
    for layer in _LAYERS:
        options = f"lowerdir={tree / layer}:/{layer}"
        if layer == "etc":
            options += f",upperdir={place / 'upper'},workdir={place / 'work'}"
        if (tree / layer).is_dir():
            _run("mount", "-t", "overlay", "-o", options, "overlay", f"/{layer}")
    for path, line in _ACCOUNT.items():  # before the bus, which has rules for it
        with open(path, "r+", encoding="utf-8") as file:
            if line.partition(":")[0] not in [one.partition(":")[0] for one in file.read().splitlines()]:
                file.write(line)
    daemon = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"], stderr=subprocess.DEVNULL)
    socket = place / "system_bus_socket"
    try:
        end = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < end, "no message bus"
            time.sleep(0.05)
        yield place
    finally:
        daemon.terminate()
        daemon.wait(10)
        socket.unlink(missing_ok=True)


@contextlib.contextmanager
def service(command: list[str], log: pathlib.Path, ready: Callable[[], bool]) -> Iterator[subprocess.Popen[bytes]]:
    """A service that runs, once `ready` says so; its process."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        end = time.monotonic() + 30
        while not ready():
            assert time.monotonic() < end and process.poll() is None, log.read_text()[-2000:]
            time.sleep(0.1)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def told(*command: str) -> str:
    """What a command says; empty when it fails."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _run(*line: str) -> None:
    subprocess.run(line, check=True, capture_output=True)


if __name__ == "__main__":
    for wanted in (FIREWALLD, RESOLVED):
        fetch(wanted)
    sys.exit()

"""firewalld, as Debian has it, in a test's own namespaces: unpacked, never installed, since that would start it here.

`python -m tests.support.firewalld` fetches the packages, which only the host's network reaches: hence before the tests
enter their namespace.
"""

import contextlib
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from tests.support.daemon import until
from tests.support.namespace import CACHE

_PACKAGES = ("firewalld", "python3-firewall", "python3-nftables")
_TREE = CACHE / "firewalld-1"
_POLICY = "usr/share/polkit-1/actions/org.fedoraproject.FirewallD1"
_LAYERS = ("etc", "usr/sbin", "usr/bin", "usr/lib", "usr/lib/python3/dist-packages", "usr/share")


def fetch() -> pathlib.Path:
    """The tree of the unpacked packages, fetched now when it is missing."""
    if not _TREE.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        work = pathlib.Path(tempfile.mkdtemp(prefix="firewalld-", dir=CACHE))
        work.chmod(0o777)  # apt's own user writes there
        try:
            subprocess.run(["apt-get", "-q", "download", *_PACKAGES], cwd=work, check=True, capture_output=True)
            for package in work.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, work / "tree"], check=True)
            # The package's own script makes this choice.
            shutil.copy(work / "tree" / f"{_POLICY}.server.policy.choice", work / "tree" / f"{_POLICY}.policy")
            with contextlib.suppress(FileExistsError, OSError):  # another run was faster
                (work / "tree").rename(_TREE)
        finally:
            shutil.rmtree(work)
    return _TREE


@contextlib.contextmanager
def running() -> Iterator[None]:
    """firewalld with its defaults, in the mount and network namespace of the calling thread (`own_network`)."""
    tree = fetch()
    changes = pathlib.Path("/run/dbus")  # of these namespaces, and gone with them
    changes.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "tmpfs", str(changes))
    for part in ("upper", "work"):
        (changes / part).mkdir()
    for layer in _LAYERS:
        options = f"lowerdir={tree / layer}:/{layer}"
        if layer == "etc":
            options += f",upperdir={changes / 'upper'},workdir={changes / 'work'}"
        if (tree / layer).is_dir():
            _run("mount", "-t", "overlay", "-o", options, "overlay", f"/{layer}")
    bus = subprocess.Popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"], stderr=subprocess.DEVNULL)
    try:
        until((changes / "system_bus_socket").exists, 10, "no message bus")
        with (changes / "log").open("wb") as log:
            wall = subprocess.Popen(["/usr/sbin/firewalld", "--nofork", "--nopid"], stdout=log, stderr=log)
        try:
            until(lambda: told("--state") == "running", 30, "firewalld does not answer")
            yield
        finally:
            wall.terminate()
            wall.wait(20)
    finally:
        bus.terminate()
        bus.wait(10)
        (changes / "system_bus_socket").unlink(missing_ok=True)


def told(*words: str) -> str:
    """What ``firewall-cmd`` says; empty when it fails."""
    return subprocess.run(["firewall-cmd", *words], capture_output=True, text=True, check=False).stdout.strip()


def _run(*line: str) -> None:
    subprocess.run(line, check=True, capture_output=True)


if __name__ == "__main__":
    print(f"firewalld: {fetch()}")

"""LXD 5.0.2, as Debian has it, in a test's own namespaces: unpacked, never installed, since that would start it here.

`python -m tests.support.lxd` fetches the packages, which only the host's network reaches: hence before the tests enter
their namespace.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator

from tests.support.namespace import CACHE

_PACKAGES = (
    "lxd", "liblxc1", "liblxc-common", "libraft2", "libdqlite0", "libsubid4", "uidmap", "rsync", "libpopt0",
    "libxxhash0", "acl", "attr",
)  # fmt: skip
_TREE = CACHE / "lxd-1"
_PRESEED = """\
storage_pools: [{name: dir, driver: dir}]
profiles: [{name: default, devices: {root: {path: /, pool: dir, type: disk}}}]
"""
Run = Callable[..., str]


def fetch() -> pathlib.Path:
    """The tree of the unpacked packages, fetched now when it is missing."""
    if not _TREE.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        work = pathlib.Path(tempfile.mkdtemp(prefix="lxd-", dir=CACHE))
        work.chmod(0o777)  # apt's own user writes there
        try:
            subprocess.run(["apt-get", "-q", "download", *_PACKAGES], cwd=work, check=True, capture_output=True)
            for package in work.glob("*.deb"):
                subprocess.run(["dpkg", "-x", package, work / "tree"], check=True)
            # The range that its package gives to root.
            for name in ("subuid", "subgid"):
                (work / "tree/etc" / name).write_text("root:100000:10000001\n")
            with contextlib.suppress(OSError):  # another run was faster
                (work / "tree").rename(_TREE)
        finally:
            shutil.rmtree(work)
    return _TREE


@contextlib.contextmanager
def running(folder: pathlib.Path) -> Iterator[Run]:
    """LXD with a dir pool, in the namespaces of the calling thread (`own_network`).

    Args:
        folder: empty, on a disk, and such that users of containers can pass through.

    Yields:
        A function that runs ``lxc ARGS`` and gives what it prints.
    """
    tree = fetch()
    for layer in ("usr", "etc"):
        subprocess.run(
            ["mount", "-t", "overlay", "-o", f"lowerdir={tree / layer}:/{layer}", "overlay", f"/{layer}"], check=True
        )
    environment = {
        **os.environ, "LXD_DIR": str(folder / "lxd"), "LXD_CONF": str(folder / "conf"), "LC_ALL": "C.UTF-8",
        "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin",
    }  # fmt: skip
    (folder / "lxd").mkdir(mode=0o711)
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["lxd", "--group", "root"], env=environment, stdout=log, stderr=log)

    def run(*words: str, program: str = "lxc", input: str = "") -> str:
        done = subprocess.run(
            [program, *words], env=environment, input=input, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, f"{program} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    try:
        run("waitready", "--timeout", "60", program="lxd")
        run("init", "--preseed", program="lxd", input=_PRESEED)
        yield run
        for name in run("list", "-f", "csv", "-c", "n").split():
            run("delete", "-f", name)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(30)
        # liblxc's own, empty, which it leaves in every hierarchy.
        cgroups = pathlib.Path("/sys/fs/cgroup")
        for pivot in (*cgroups.glob("lxc.pivot"), *cgroups.glob("*/lxc.pivot")):
            pivot.rmdir()
        # What LXD mounts in its directory is left to the namespace, which goes soon; the tree is a temporary one.
        subprocess.run(["umount", "-R", "-l", str(folder / "lxd/shmounts"), str(folder / "lxd/devlxd")], check=False,
                       capture_output=True)  # fmt: skip


if __name__ == "__main__":
    print(f"lxd: {fetch()}")

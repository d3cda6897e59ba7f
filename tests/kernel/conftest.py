"""A busybox root file system and instances of the bare runtime: no daemon, no network, no storage driver."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from lxpy.linux import cgroups
from lxpy.runtime.cgroup import InstanceCgroup
from lxpy.runtime.spawner_client import ExecFiles, ExecRequest, Exit, Spawner, Supervisor
from lxpy.runtime.spec import InstanceSpec

PREFIX = f"lxpykt{os.getpid()}"
BASE = 1_200_000_000
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

INITTAB = """\
::sysinit:/etc/rcS
::respawn:/bin/sleep 100000
::shutdown:/bin/true
"""
RCS = """\
#!/bin/sh
env > /run/env
echo booted on the console
touch /run/booted
"""


def build_rootfs(root: pathlib.Path) -> None:
    """Busybox as everything, init included: about 1 MB."""
    for name in ("bin", "sbin", "etc", "dev", "proc", "sys", "run", "tmp", "root", "mnt", "data"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", root / "bin/busybox")
    for applet in subprocess.check_output([root / "bin/busybox", "--list"], text=True).split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "sbin/init").symlink_to("../bin/busybox")
    (root / "etc/inittab").write_text(INITTAB)
    (root / "etc/rcS").write_text(RCS)
    (root / "etc/rcS").chmod(0o755)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nuser:x:1000:\n")


@pytest.fixture(scope="session")
def work() -> Iterator[pathlib.Path]:
    path = pathlib.Path(tempfile.mkdtemp(prefix="lxpykt-", dir="/var/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def rootfs(work: pathlib.Path) -> pathlib.Path:
    """The image: a tree with 0-based owners, never written to."""
    path = work / "image"
    path.mkdir()
    build_rootfs(path)
    return path


@dataclasses.dataclass
class Done:
    """What came of a command."""

    status: dict[str, Any]
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()


class Guest:
    """One instance and the ways tests use it."""

    def __init__(self, lab: "Lab", spec: InstanceSpec, supervisor: Supervisor) -> None:
        self.lab, self.spec, self.supervisor = lab, spec, supervisor
        self.cgroup = InstanceCgroup(spec["cgroup_prefix"], spec["name"])

    async def files(self, *command: str, **changes: Any) -> ExecFiles:
        request: ExecRequest = {
            "command": list(command), "environment": {"PATH": PATH}, "cwd": "", "user": 0, "group": 0,
            "interactive": False,
        }  # fmt: skip
        request.update(changes)  # type: ignore[typeddict-item]
        return await self.lab.spawner.exec(self.supervisor, request)

    async def run(self, *command: str, input: bytes = b"", **changes: Any) -> Done:
        """Runs to the end."""
        files = await self.files(*command, **changes)
        os.close(files.pidfd)

        def feed() -> None:
            with open(files.stdin, "wb") as pipe, contextlib.suppress(BrokenPipeError):
                pipe.write(input)

        def drain(fd: int) -> bytes:
            with open(fd, "rb") as pipe:
                return pipe.read()

        _, out, err, status = await asyncio.gather(
            asyncio.to_thread(feed),
            *(asyncio.to_thread(drain, fd) for fd in (files.stdout, files.stderr, files.status)),
        )
        return Done(json.loads(status) if status else {}, out, err)

    async def sh(self, script: str, **changes: Any) -> str:
        """Output of a shell script that succeeds."""
        done = await self.run("sh", "-c", script, **changes)
        assert done.status == {"exit": 0}, (script, done)
        return done.text.strip()

    async def exited(self, seconds: float = 10) -> Exit:
        return await asyncio.wait_for(asyncio.shield(self.supervisor.exited), seconds)

    async def stop(self) -> Exit:
        if not self.supervisor.exited.done():
            self.cgroup.kill()
        return await self.exited()


class Lab:
    """Makes guests; everything goes at the end."""

    def __init__(self, work: pathlib.Path, rootfs: pathlib.Path, spawner: Spawner) -> None:
        self.work, self.rootfs, self.spawner = work, rootfs, spawner
        self.guests: list[Guest] = []
        self.specs: list[InstanceSpec] = []
        self._count = 0

    def spec(self, **changes: Any) -> InstanceSpec:
        self._count += 1
        directory = pathlib.Path(tempfile.mkdtemp(prefix="i", dir=self.work))
        for name in ("upper", "work"):
            (directory / "pool" / name).mkdir(parents=True)
        spec: InstanceSpec = {
            "name": f"{directory.name}", "hostname": f"guest{self._count}", "run_dir": str(directory / "run"),
            "console_log": str(directory / "console.log"),
            "idmap": {"base": BASE + 65536 * self._count, "size": 65536},
            "root": {
                "kind": "overlay", "lower": str(self.rootfs), "upper": str(directory / "pool/upper"),
                "work": str(directory / "pool/work"), "path": "",
            },
            "mounts": [], "init": ["/sbin/init"], "environment": {}, "limits": {}, "nesting": False,
            "cgroup_prefix": PREFIX,
        }  # fmt: skip
        spec.update(changes)  # type: ignore[typeddict-item]
        self.specs.append(spec)
        return spec

    async def start(self, wait: bool = True, **changes: Any) -> Guest:
        return await self.launch(self.spec(**changes), wait)

    async def launch(self, spec: InstanceSpec, wait: bool = True) -> Guest:
        async def connect(netns: int, pid: int) -> None:
            pass

        guest = Guest(self, spec, await self.spawner.launch(spec, connect))
        self.guests.append(guest)
        if wait:
            for _ in range(500):
                if (await guest.run("test", "-e", "/run/booted")).status == {"exit": 0}:
                    return guest
                await asyncio.sleep(0.01)
            raise AssertionError("the guest did not boot")
        return guest

    async def close(self) -> None:
        for guest in self.guests:
            with contextlib.suppress(OSError):
                guest.cgroup.thaw()
            if not guest.supervisor.exited.done():
                await guest.stop()
        for spec in self.specs:
            cgroup = InstanceCgroup(spec["cgroup_prefix"], spec["name"])
            for _ in range(500):  # the supervisor clears up after it has told the end
                if not leftovers(spec["name"]):
                    break
                await asyncio.sleep(0.01)
            found = leftovers(spec["name"])
            cgroup.kill()
            cgroup.remove(supervisor=True)
            assert not found, found
            shutil.rmtree(os.path.dirname(spec["run_dir"]), ignore_errors=True)  # its lock goes by itself


def leftovers(name: str) -> list[str]:
    """Cgroups of an instance that has ended."""
    found = cgroups.hierarchies()
    roots = [*found.v1_roots, found.unified]
    paths = [f"{root}/{PREFIX}.{kind}.{name}" for root in roots if root for kind in ("payload", "supervisor")]
    return [path for path in paths if os.path.exists(path)]


@pytest_asyncio.fixture
async def lab(work: pathlib.Path, rootfs: pathlib.Path) -> AsyncIterator[Lab]:
    spawner = await Spawner.start()
    lab = Lab(work, rootfs, spawner)
    try:
        yield lab
    finally:
        try:
            await lab.close()
        finally:
            await spawner.close()


@pytest_asyncio.fixture
async def guest(lab: Lab) -> Guest:
    """A booted unprivileged busybox guest."""
    return await lab.start()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)

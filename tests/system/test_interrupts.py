"""Ctrl-C in the middle of long work, and a daemon killed in the middle of a download: nothing stays half done."""

import platform
import random
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support import images
from tests.support.daemon import Lxpyd, until
from tests.support.namespace import cgroups
from tests.support.streams import StreamServer, serving

_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]


@pytest.fixture
def server() -> Iterator[StreamServer]:
    """A slow image server: busybox, padded to two megabytes, takes about a second and a half."""
    metadata, rootfs = images.files("busybox")
    server = StreamServer()
    # What follows a squashfs is not looked at, and random bytes cannot be had for less.
    padding = random.Random(1).randbytes(2 << 20)
    server.add("alpine", "3.20", metadata.read_bytes(), rootfs.read_bytes() + padding, arch=_ARCHITECTURE)
    server.faults.slow = 0.04
    with serving(server):
        yield server


def _parts(daemon: Lxpyd) -> int:
    """Bytes of a download that is going on."""
    return sum(path.stat().st_size for path in (daemon.dir / "cache/downloads").glob("*.rootfs.part"))


def _interrupt(process: "subprocess.Popen[bytes]") -> tuple[str, str]:
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    # 0: it had ended before; -SIGINT: the interpreter was still starting.
    assert process.returncode in (130, 0, -signal.SIGINT), (process.returncode, err)
    assert "Traceback" not in err.decode()
    return out.decode(), err.decode()


def test_ctrl_c_takes_a_launch_back(own_lxpyd: Lxpyd, server: StreamServer) -> None:
    """In the download, and at ten moments of a launch from the cached image; the name is free each time."""
    daemon = own_lxpyd
    daemon.cli("remote", "set-url", "images", server.url)
    before = daemon.snapshot()
    process = daemon.spawn("launch", "images:alpine", "c1")
    until(lambda: _parts(daemon) > 200_000, 20, "no download")
    _, err = _interrupt(process)
    assert "cancelled, what had been done of it is undone" in err
    assert daemon.snapshot() == before
    for n in range(10):
        process = daemon.spawn("launch", "bb", f"c{n}")
        time.sleep(0.04 + 0.015 * n)
        out, err = _interrupt(process)
        names = [one["name"] for one in daemon.json("list", "-f", "json")]
        assert names == ([f"c{n}"] if "done already" in err or "Starting" in out else []), (out, err)
        daemon.cli("delete", "-f", f"c{n}", check=False)
    assert daemon.snapshot() == before
    until(lambda: not cgroups(daemon.layout.cgroup_prefix), 2, "cgroups are left")


def test_ctrl_c_ends_a_build(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    before = daemon.snapshot()
    process = daemon.spawn("image", "build", "debian/12")
    until(lambda: daemon.json("operation", "list", "-f", "json"), 10, "no operation")
    time.sleep(0.3)
    _, err = _interrupt(process)
    assert "cancelled, what had been done of it is undone" in err
    assert daemon.snapshot() == before
    assert not [path for path in daemon.dir.glob("cache/*/*") if "debian" in path.name]


def test_killed_anywhere_in_a_download(own_lxpyd: Lxpyd, server: StreamServer) -> None:
    """Five kills spread over it: nothing stays of the launch, and the next one goes on with the download."""
    daemon = own_lxpyd
    daemon.cli("remote", "set-url", "images", server.url)
    before = daemon.snapshot()
    reached = begun = _parts(daemon)
    for n in range(5):
        process = daemon.spawn("launch", "images:alpine", "c1")
        aim = reached + 150_000
        until(lambda aim=aim: _parts(daemon) > aim, 20, f"{n}: no progress")  # type: ignore[misc]
        daemon.kill(signal.SIGKILL)
        _, err = process.communicate(timeout=30)
        assert b"The daemon ended while the work was going on" in err, err.decode()
        reached = _parts(daemon)
        assert reached - begun > 150_000 * (n + 1)
        daemon.start()
        assert daemon.snapshot() == before
        assert _parts(daemon) == reached  # kept, to go on with
    server.faults.slow = 0
    daemon.cli("launch", "images:alpine", "c1")
    assert server.requests[-1][1] == f"bytes={reached}-"
    assert daemon.sh("c1", "echo fine").stdout == "fine\n"
    assert _parts(daemon) == 0
    daemon.cli("delete", "-f", "c1")

"""Pools whose file system is not there when the daemon starts, or goes under it; and that come back."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from lxpy.linux import loop
from tests.support import namespace
from tests.support.daemon import Lxpyd, until


@pytest.fixture
def ext4(own_lxpyd: Lxpyd) -> Iterator[pathlib.Path]:
    """A file system of the user's, mounted at a directory with another below the mount."""
    image, point = own_lxpyd.dir / "user.img", own_lxpyd.dir / "user"
    point.mkdir()
    subprocess.run(["truncate", "-s", "100M", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    mount(own_lxpyd)
    yield point
    with contextlib.suppress(subprocess.CalledProcessError):
        unmount(str(point), "-R")
    point.rmdir()
    image.unlink()


def mount(daemon: Lxpyd) -> None:
    with loop.attach(str(daemon.dir / "user.img"), readonly=False) as device:
        subprocess.run(["mount", "-t", "ext4", device, daemon.dir / "user"], check=True)


def unmount(point: str, *flags: str) -> None:
    subprocess.run(["umount", *flags, point], check=True, capture_output=True)


def state(daemon: Lxpyd, pool: str) -> str:
    found = {one["name"]: one["status"] for one in daemon.json("storage", "list", "-f", "json")}
    return str(found[pool])


def warnings(daemon: Lxpyd, kind: str) -> list[dict[str, Any]]:
    found = daemon.json("query", "/1.0/warnings?recursion=1")
    return [one for one in found if one["type"] == kind and one["status"] != "resolved"]


def end_all(daemon: Lxpyd, *names: str) -> None:
    """As a power cut has it: neither the daemon nor instances say good-bye."""
    pids = [daemon.init_pid(name) for name in names]
    daemon.kill(signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: not namespace.cgroups(daemon.layout.cgroup_prefix), 5, "the instances do not end")
    shutil.rmtree(daemon.layout.instances)


def test_a_file_that_is_missing_at_the_start(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("storage", "create", "fast", "btrfs", "size=300MiB")
    for name in ("ran", "other"):
        daemon.cli("launch", "bb", name, "-s", "fast")
    daemon.cli("stop", "-f", "other")
    daemon.cli("storage", "volume", "create", "fast", "v")
    file = pathlib.Path(daemon.layout.disks, "fast.img")
    end_all(daemon, "ran")
    unmount(f"{daemon.layout.pools}/fast")
    file.rename(daemon.dir / "away.img")

    daemon.start()
    why = f"Storage pool 'fast' is away: No such file or directory: {file}"
    assert state(daemon, "fast") == "Unavailable" and state(daemon, "default") == "Created"
    assert [one["last_message"] for one in warnings(daemon, "Storage pool unavailable")] == [why]
    assert {one["name"] for one in daemon.json("list", "-f", "json")} == {"ran", "other"}
    (autostart,) = until(lambda: warnings(daemon, "Failed to autostart instance"), 5, "no word of it")
    assert autostart["last_message"] == f"Instance 'ran' could not be started: {why}"
    for command in (
        ("start", "other"), ("init", "bb", "new", "-s", "fast"), ("delete", "other"), ("rename", "other", "another"),
        ("storage", "volume", "create", "fast", "w"), ("storage", "volume", "snapshot", "fast", "v"),
        ("storage", "volume", "delete", "fast", "v"), ("storage", "info", "fast"),
    ):  # fmt: skip
        said = daemon.cli(*command, check=False)
        assert (said.returncode, said.stderr) == (1, f"Error: {why}\n"), command
    assert len(warnings(daemon, "Storage pool unavailable")) == 1
    (daemon.dir / "away.img").rename(file)
    daemon.cli("start", "other")  # the first use has it back
    assert state(daemon, "fast") == "Created"
    daemon.wait_status("ran", "RUNNING")  # and who ran starts by himself
    assert not warnings(daemon, "Storage pool unavailable") and not warnings(daemon, "Failed to autostart instance")
    daemon.cli("storage", "volume", "snapshot", "fast", "v")
    assert daemon.json("query", "/1.0/storage-pools/fast/volumes/custom/v/snapshots") != []


def test_unmounted_under_running_instances(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("storage", "create", "fast", "btrfs", "size=300MiB")
    daemon.cli("launch", "bb", "a", "-s", "fast")
    daemon.cli("init", "bb", "b", "-s", "fast")
    daemon.sh("a", "echo before > /f")
    point = f"{daemon.layout.pools}/fast"
    unmount(point)
    until(lambda: warnings(daemon, "Storage pool unavailable"), 5, "nobody has noticed")
    assert state(daemon, "fast") == "Unavailable" and not os.path.ismount(point)  # somebody wanted it so
    assert daemon.sh("a", "cat /f; echo there > /g").stdout == "before\n"
    daemon.cli("start", "b")
    assert os.path.ismount(point) and state(daemon, "fast") == "Created"
    assert not warnings(daemon, "Storage pool unavailable")
    assert pathlib.Path(point, "instances/a/rootfs/g").read_text() == "there\n"
    daemon.cli("restart", "-f", "a")
    assert daemon.sh("a", "cat /g").stdout == "there\n"
    assert len(namespace.loops(str(daemon.dir))) == 1  # no second one over the same file


def test_mounts_and_devices_that_somebody_takes_away(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("storage", "create", "fast", "btrfs", "size=300MiB")
    daemon.cli("launch", "bb", "a")
    daemon.cli("launch", "bb", "b", "-s", "fast")
    for device in namespace.loops(str(daemon.dir)):
        subprocess.run(["losetup", "-d", device], check=True)  # goes with the last who has it mounted
    images = [one for one in pathlib.Path(daemon.layout.pools, "default/images").iterdir() if one.is_dir()]
    unmount(str(images[0]))
    for name, pool in (("a", "default"), ("b", "fast")):
        assert state(daemon, pool) == "Created"
        daemon.cli("restart", "-f", name)
        daemon.cli("launch", "bb", f"{name}2", "-s", pool)
        assert daemon.sh(f"{name}2", "ls /bin/busybox").stdout == "/bin/busybox\n"
    assert os.path.ismount(images[0])


@pytest.mark.parametrize("driver", ["dir", "overlay"])
def test_a_file_system_of_the_users(own_lxpyd: Lxpyd, ext4: pathlib.Path, driver: str) -> None:
    daemon = own_lxpyd
    (ext4 / "pool").mkdir()
    daemon.cli("storage", "create", "far", driver, f"source={ext4}/pool")
    daemon.cli("launch", "bb", "a", "-s", "far")
    daemon.cli("init", "bb", "b", "-s", "far")
    daemon.cli("stop", "-f", "a")
    unmount(str(ext4), "-R")
    until(lambda: warnings(daemon, "Storage pool unavailable"), 5, "nobody has noticed")
    why = f"Storage pool 'far' is away: {ext4}/pool "
    said = daemon.cli("start", "b", check=False)
    assert said.returncode == 1 and said.stderr.startswith(f"Error: {why}"), said.stderr
    mount(daemon)
    until(lambda: state(daemon, "far") == "Created", 5, "it does not come back by itself")
    daemon.cli("start", "a", "b")
    # The same at the start of the daemon: who ran starts when the file system comes.
    end_all(daemon, "a", "b")
    unmount(str(ext4), "-R")
    daemon.start()
    assert state(daemon, "far") == "Unavailable" and daemon.status("a") == "STOPPED"
    mount(daemon)
    for name in ("a", "b"):
        daemon.wait_status(name, "RUNNING")
    assert not warnings(daemon, "Storage pool unavailable")
    daemon.cli("delete", "-f", "a", "b")
    daemon.cli("storage", "delete", "far")


def test_a_disk_that_is_plugged_in_again(own_lxpyd: Lxpyd) -> None:
    """Its name is another then; who ran starts when it comes."""
    daemon = own_lxpyd
    file = daemon.dir / "disk"
    subprocess.run(["truncate", "-s", "300M", file], check=True)
    with loop.attach(str(file), readonly=False) as device:
        daemon.cli("storage", "create", "disk", "btrfs", f"source={device}")
    daemon.cli("launch", "bb", "a", "-s", "disk")
    end_all(daemon, "a")
    unmount(f"{daemon.layout.pools}/disk")
    until(lambda: not namespace.loops(str(daemon.dir)), 5, "the disk is still there")
    taken = daemon.dir / "taken"
    subprocess.run(["truncate", "-s", "1M", taken], check=True)
    with loop.attach(str(taken)):  # its name is another's by now
        daemon.start()
        assert state(daemon, "disk") == "Unavailable"
        (warned,) = warnings(daemon, "Storage pool unavailable")
        assert "no disk holds the file system" in warned["last_message"]
        with loop.attach(str(file), readonly=False):
            until(lambda: state(daemon, "disk") == "Created", 10, "nobody has noticed")
            daemon.wait_status("a", "RUNNING")
            daemon.cli("delete", "-f", "a")
            daemon.cli("storage", "delete", "disk")
    file.unlink()
    taken.unlink()

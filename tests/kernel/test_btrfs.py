"""Subvolumes by ioctl on a real btrfs, in a loop file; the file system's own tool has the last word."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from lxpy.linux import btrfs, loop
from tests.support import namespace


@pytest.fixture(scope="module")
def point() -> Iterator[str]:
    place = namespace.run_dir("btrfs") / str(os.getpid())
    (place / "mnt").mkdir(parents=True)
    with open(place / "disk", "wb") as file:
        file.truncate(400 << 20)
    _run("mkfs.btrfs", "-q", str(place / "disk"))
    with loop.attach(f"{place}/disk", readonly=False) as device:
        _run("mount", "-t", "btrfs", device, f"{place}/mnt")
    yield f"{place}/mnt"
    _run("umount", f"{place}/mnt")


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _subvolumes(point: str) -> list[str]:
    return sorted(line.split()[-1] for line in _run("btrfs", "subvolume", "list", point).splitlines())


def test_snapshots_share_and_part(point: str) -> None:
    btrfs.create(f"{point}/a")
    pathlib.Path(point, "a/file").write_text("first")
    btrfs.snapshot(f"{point}/a", f"{point}/b")
    btrfs.snapshot(f"{point}/a", f"{point}/ro", readonly=True)
    pathlib.Path(point, "a/file").write_text("second")
    assert pathlib.Path(point, "b/file").read_text() == pathlib.Path(point, "ro/file").read_text() == "first"
    assert [btrfs.readonly(f"{point}/{name}") for name in ("a", "b", "ro")] == [False, False, True]
    with pytest.raises(OSError, match="Read-only"):
        pathlib.Path(point, "ro/file").write_text("third")
    btrfs.set_readonly(f"{point}/ro", False)
    pathlib.Path(point, "ro/file").write_text("third")
    with pytest.raises(FileExistsError):
        btrfs.create(f"{point}/a")
    assert btrfs.is_subvolume(f"{point}/a") and not btrfs.is_subvolume(f"{point}/a/file")
    assert not btrfs.is_subvolume(f"{point}/none")
    for name in ("a", "b", "ro"):
        btrfs.destroy(f"{point}/{name}")
    assert _subvolumes(point) == []


def test_whatever_is_nested_goes_with_its_subvolume(point: str) -> None:
    btrfs.create(f"{point}/top")
    btrfs.create(f"{point}/beside")
    os.makedirs(f"{point}/top/some/where")
    for number in range(40):
        btrfs.create(f"{point}/top/some/where/{number}")
    btrfs.create(f"{point}/top/some/where/7/deeper")
    btrfs.snapshot(f"{point}/top/some/where/7/deeper", f"{point}/top/frozen", readonly=True)
    os.symlink(f"{point}/beside", f"{point}/top/link")
    assert len(_subvolumes(point)) == 44
    btrfs.destroy(f"{point}/top")
    assert _subvolumes(point) == ["beside"]
    btrfs.destroy(f"{point}/beside")


def test_resize(point: str) -> None:
    before = os.statvfs(point)
    btrfs.resize(point, 300 << 20)
    after = os.statvfs(point)
    assert after.f_blocks * after.f_frsize == 300 << 20 < before.f_blocks * before.f_frsize
    btrfs.resize(point, 400 << 20)

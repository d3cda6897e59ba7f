"""Custom volumes on every driver: the part of the conformance suite that has no image in it."""

import asyncio
import os
import pathlib
import stat

import pytest

from lxpy.api.errors import BadRequest, Conflict, NotFound
from tests.support.pools import CAPABILITY, Lab, leftovers


def _fill(data: str) -> None:
    """Owners, hard links, a hole, attributes, a link and a fifo."""
    top = pathlib.Path(data)
    (top / "one").write_bytes(b"one" * 5000)
    os.chown(top / "one", 1000, 1001)
    os.link(top / "one", top / "two")
    os.setxattr(top / "one", "user.note", b"\0\xff")
    os.setxattr(top / "one", "security.capability", CAPABILITY)
    with open(top / "sparse", "wb") as file:
        file.truncate(64 << 20)
    (top / "deep/er").mkdir(parents=True)
    (top / "deep").chmod(0o1777)
    os.symlink("/etc/shadow", top / "deep/link")
    os.mkfifo(top / "deep/er/fifo")
    os.utime(top / "deep/er", ns=(5, 7))


def _check(data: str) -> None:
    top = pathlib.Path(data)
    one = os.lstat(top / "one")
    assert (one.st_uid, one.st_gid, one.st_nlink, one.st_size) == (1000, 1001, 2, 15000)
    assert os.lstat(top / "two").st_ino == one.st_ino
    assert os.getxattr(top / "one", "user.note") == b"\0\xff"
    assert os.getxattr(top / "one", "security.capability") == CAPABILITY
    assert os.lstat(top / "sparse").st_size == 64 << 20 and os.lstat(top / "sparse").st_blocks < 100
    assert stat.S_IMODE(os.lstat(top / "deep").st_mode) == 0o1777
    assert os.readlink(top / "deep/link") == "/etc/shadow"
    assert stat.S_ISFIFO(os.lstat(top / "deep/er/fifo").st_mode)
    assert os.lstat(top / "deep/er").st_mtime_ns == 7


async def test_the_life_of_a_volume(lab: Lab) -> None:
    pool = lab.pool
    await pool.create_volume("v")
    data = pool.volume_path("v")
    assert stat.S_IMODE(os.stat(data).st_mode) == 0o711 and os.listdir(data) == []
    pathlib.Path(pool.volume_dir("v"), "backup.yaml").write_text("x\n")
    _fill(data)
    await pool.snapshot_volume("v", "s1")
    pathlib.Path(data, "one").write_text("changed")
    pathlib.Path(data, "new").write_text("new")
    _check(pool.volume_snapshot_path("v", "s1"))
    await pool.snapshot_volume("v", "s2")
    await pool.rename_volume_snapshot("v", "s2", "later")
    assert pool.volume_snapshots("v") == ["later", "s1"]
    await pool.restore_volume("v", "s1")
    _check(data)
    assert not os.path.exists(f"{data}/new")
    await pool.restore_volume("v", "later")
    assert pathlib.Path(data, "one").read_text() == "changed"
    await pool.rename_volume("v", "w")
    await pool.copy_volume("w", "all")
    await pool.copy_volume("w", "bare", snapshots=False)
    assert pool.volume_snapshots("all") == ["later", "s1"] and pool.volume_snapshots("bare") == []
    _check(pool.volume_snapshot_path("all", "s1"))
    pathlib.Path(pool.volume_path("all"), "one").write_text("of the copy")
    for volume in ("w", "bare"):
        with pool.open_volume(volume) as fd:
            assert pathlib.Path(f"/proc/self/fd/{fd}/one").read_text() == "changed"
    await pool.delete_volume_snapshot("w", "later")
    await pool.delete_volume_snapshot("w", "later")
    pool = await lab.restart()
    assert pool.custom_volumes() == ["all", "bare", "w"] and pool.volume_snapshots("w") == ["s1"]
    assert pathlib.Path(pool.volume_dir("w"), "backup.yaml").read_text() == "x\n"
    for volume in ("all", "bare", "w", "w"):
        await pool.delete_volume(volume)
    await pool.close()
    assert pool.custom_volumes() == [] and leftovers(pool) == []


async def test_names_of_volumes(lab: Lab) -> None:
    pool = lab.pool
    await pool.create_volume("v")
    await pool.create_volume("w")
    await pool.snapshot_volume("v", "s")
    await pool.snapshot_volume("v", "t")
    for work in (
        pool.create_volume("v"), pool.copy_volume("v", "w"), pool.rename_volume("v", "w"),
        pool.snapshot_volume("v", "s"), pool.rename_volume_snapshot("v", "s", "t"), pool.receive_volume("w", pool, "v"),
    ):  # fmt: skip
        with pytest.raises(Conflict, match="already exists on pool 'p'"):
            await work
    for work in (
        pool.copy_volume("x", "y"), pool.rename_volume("x", "y"), pool.snapshot_volume("x", "s"),
        pool.restore_volume("v", "x"), pool.rename_volume_snapshot("v", "x", "y"), pool.volume_usage("x"),
        pool.set_volume_size("x", None),
    ):  # fmt: skip
        with pytest.raises(NotFound, match="not found on pool 'p'"):
            await work
    for bad in ("", "..", "a/b", "../../x", "x" * 300, "a\0b"):
        for work in (pool.create_volume(bad), pool.delete_volume(bad), pool.snapshot_volume("v", bad)):
            with pytest.raises(BadRequest, match="Invalid volume name"):
                await work
    assert pool.custom_volumes() == ["v", "w"] and pool.volume_snapshots("v") == ["s", "t"]
    assert leftovers(pool) == []
    with pytest.raises(Conflict, match="in use by volume v, volume w"):
        await lab.manager.delete_pool("p")


async def test_a_copy_into_another_pool(lab: Lab) -> None:
    for driver in ("dir", lab.pool.driver):
        name = f"to-{driver}"
        if name not in lab.manager.pools():
            await lab.manager.create_pool(name, driver, {}, "")
    await lab.pool.create_volume("v")
    _fill(lab.pool.volume_path("v"))
    await lab.pool.snapshot_volume("v", "s")
    for name in lab.manager.pools():
        if name != "p":
            target = lab.manager.pool(name)
            await target.receive_volume("v", lab.pool, "v")
            _check(target.volume_path("v"))
            _check(target.volume_snapshot_path("v", "s"))
            await lab.pool.receive_volume(f"from-{name}", target, "v", snapshots=False)
            _check(lab.pool.volume_path(f"from-{name}"))


async def test_a_cancelled_copy_leaves_nothing(lab: Lab) -> None:
    pool = lab.pool
    await pool.create_volume("v")
    _fill(pool.volume_path("v"))
    for delay in (0, 0.001, 0.01):
        task = asyncio.create_task(pool.copy_volume("v", "w"))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:  # the machine was quick
            await pool.delete_volume("w")
    await pool.close()
    assert pool.custom_volumes() == ["v"] and leftovers(pool) == []

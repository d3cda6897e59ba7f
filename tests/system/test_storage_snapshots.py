"""Snapshots and copies of instances on every driver: a part of the conformance suite of the storage drivers."""

import asyncio
import contextlib
import os
import pathlib
import stat

import pytest

from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.api.imagefiles import ImageFiles
from lxpy.linux import safe_path
from lxpy.storage.drivers import DRIVERS
from tests.support.pools import CAPABILITY, Lab, leftovers, with_c1


def _read(fd: int, path: str) -> bytes:
    return safe_path.read_file(fd, path, 1000)


def _write(root: int, path: str, data: bytes) -> None:
    """Into the file that is there."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC, dir_fd=root)
    os.write(fd, data)
    os.close(fd)


def _use(root: int) -> None:
    """What a guest does to its image: changes, deletes, renames; one of two hard links is written to."""
    safe_path.write_file(root, "etc/hostname", b"mine", 0o640, 5, 6)
    os.rename("home", "house", src_dir_fd=root, dst_dir_fd=root)
    os.mkdir("home", dir_fd=root)
    _write(root, "bin/one", b"changed")
    os.symlink("/etc/shadow", "link", dir_fd=root)
    os.mkfifo("fifo", dir_fd=root)


def _check_used(root: int) -> None:
    assert sorted(os.listdir(root)) == ["bin", "etc", "fifo", "home", "house", "link"]
    assert _read(root, "etc/hostname") == b"mine"
    found = os.stat("etc/hostname", dir_fd=root)
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, 5, 6)
    assert os.stat("house/user", dir_fd=root).st_uid == 1000 and os.listdir(f"/proc/self/fd/{root}/home") == []
    assert _read(root, "bin/one") == _read(root, "bin/two") == b"changed"
    assert os.readlink("link", dir_fd=root) == "/etc/shadow"
    assert stat.S_ISFIFO(os.stat("fifo", dir_fd=root).st_mode)
    assert os.getxattr(f"/proc/self/fd/{root}/bin/ping", "security.capability") == CAPABILITY
    assert stat.S_IMODE(os.fstat(root).st_mode) == 0o751


def _check_new(root: int) -> None:
    assert sorted(os.listdir(root)) == ["bin", "etc", "home"]
    assert _read(root, "etc/hostname") == b"image" and _read(root, "bin/one") == b"same file"
    assert os.listdir(f"/proc/self/fd/{root}/home") == ["user"]


async def test_snapshots_and_restoring_them(filled: Lab) -> None:
    pool = filled.pool
    pathlib.Path(pool.instance_dir("c1"), "metadata.json").write_text("{}")
    await pool.snapshot_instance("c1", "new")
    with pool.open_root("c1") as root:
        _use(root)
    await pool.snapshot_instance("c1", "used")
    assert pool.instance_snapshots("c1") == ["new", "used"]
    with pool.open_root("c1") as root:
        os.unlink("bin/two", dir_fd=root)
        os.rmdir("home", dir_fd=root)
    for _ in range(2):
        with pool.open_snapshot("c1", "new") as root:
            _check_new(root)
        with pool.open_snapshot("c1", "used") as root:
            _check_used(root)
    await pool.restore_instance("c1", "used")
    with pool.open_root("c1") as root:
        _check_used(root)
        _write(root, "bin/two", b"again")  # the image's hard links are still one file
        assert _read(root, "bin/one") == b"again"
    with pool.open_snapshot("c1", "used") as root:
        _check_used(root)
    await pool.restore_instance("c1", "new")
    with pool.open_root("c1") as root:
        _check_new(root)
    assert pathlib.Path(pool.instance_dir("c1"), "metadata.json").read_text() == "{}"
    await pool.rename_instance_snapshot("c1", "used", "later")
    pool = await filled.restart()
    assert pool.instance_snapshots("c1") == ["later", "new"]
    await pool.restore_instance("c1", "later")
    with pool.open_root("c1") as root:
        _check_used(root)
    await pool.delete_instance_snapshot("c1", "later")
    await pool.delete_instance_snapshot("c1", "later")
    assert pool.instance_snapshots("c1") == ["new"]
    await pool.delete_instance("c1")
    await pool.close()
    assert leftovers(pool) == [] and pool.volumes() == []


async def test_copies(filled: Lab) -> None:
    pool = filled.pool
    await pool.snapshot_instance("c1", "new")
    with pool.open_root("c1") as root:
        _use(root)
    await pool.snapshot_instance("c1", "used")
    await pool.copy_instance("c1", "all")
    await pool.copy_instance("c1", "one", snapshots=["used"])
    await pool.copy_instance("c1", "bare", snapshots=False)
    await pool.copy_instance("c1", "past", from_snapshot="new")
    assert [pool.instance_snapshots(name) for name in ("all", "one", "bare", "past")] == [
        ["new", "used"],
        ["used"],
        [],
        [],
    ]
    with pool.open_root("c1") as root:
        _write(root, "bin/two", b"of the source")
    for name in ("all", "one", "bare"):
        with pool.open_root(name) as root:
            _check_used(root)
            _write(root, "bin/two", name.encode())
            assert _read(root, "bin/one") == name.encode()
    with pool.open_root("past") as root:
        _check_new(root)
    await pool.restore_instance("all", "new")
    with pool.open_root("all") as root, pool.open_snapshot("all", "used") as other:
        _check_new(root)
        _check_used(other)
    pool = await filled.restart()
    assert pool.volumes() == ["all", "bare", "c1", "one", "past"]
    await pool.rename_instance("all", "every")
    await pool.restore_instance("every", "used")
    with pool.open_root("every") as root:
        _check_used(root)
    for name in pool.volumes():
        await pool.delete_instance(name)
    await pool.close()
    assert leftovers(pool) == [] and pool.volumes() == []


async def test_an_image_stays_as_long_as_a_snapshot_uses_it(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    assert pool.instance_image("c1") == (images["squashfs"].fingerprint if pool.driver == "overlay" else None)
    if pool.driver != "overlay":
        return
    fingerprint = images["squashfs"].fingerprint
    await pool.snapshot_instance("c1", "s")
    await pool.copy_instance("c1", "c2")
    await pool.drop_image(fingerprint)
    assert pool.images.list()[fingerprint]["users"] == ["c1", "c1/s", "c2", "c2/s"]
    await pool.rename_instance_snapshot("c2", "s", "t")
    await pool.rename_instance("c2", "c3")
    assert pool.images.list()[fingerprint]["users"] == ["c1", "c1/s", "c3", "c3/t"]
    pool = await lab.restart()
    assert pool.images.list()[fingerprint]["users"] == ["c1", "c1/s", "c3", "c3/t"]
    await pool.delete_instance("c1")
    await pool.delete_instance_snapshot("c3", "t")
    assert pool.images.list()[fingerprint]["users"] == ["c3"]
    await pool.delete_instance("c3")
    assert fingerprint not in pool.images.list()


async def test_across_pools_and_drivers(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    pathlib.Path(pool.instance_dir("c1"), "metadata.json").write_text("{}")
    await pool.snapshot_instance("c1", "new")
    with pool.open_root("c1") as root:
        _use(root)
    await pool.snapshot_instance("c1", "used")
    for driver in DRIVERS:
        for has_image in (False, True):
            name = f"{driver}{has_image}"
            await lab.manager.create_pool(name, driver, {"size": "512MiB"} if driver == "btrfs" else {}, "")
            other = lab.manager.pool(name)
            if has_image:
                await other.ensure_image(images["squashfs"])
            await other.receive_instance("c1", pool, "c1")
            assert other.instance_snapshots("c1") == ["new", "used"]
            layered = has_image and driver == pool.driver == "overlay"
            assert other.instance_image("c1") == (images["squashfs"].fingerprint if layered else None)
            assert pathlib.Path(other.instance_dir("c1"), "metadata.json").read_text() == "{}"
            with other.open_root("c1") as root, other.open_snapshot("c1", "new") as past:
                _check_used(root)
                _check_new(past)
            await other.restore_instance("c1", "new")
            with other.open_root("c1") as root:
                _check_new(root)
            await pool.receive_instance(f"from-{name}", other, "c1", from_snapshot="used")
            with pool.open_root(f"from-{name}") as root:
                _check_used(root)
            assert pool.instance_snapshots(f"from-{name}") == []


async def test_a_snapshot_of_another_image_is_restored_with_its_image(lab: Lab, images: dict[str, ImageFiles]) -> None:
    """As after a rebuild: the root lies over another image than its snapshots do, or over none."""
    pool = await with_c1(lab, images)
    with pool.open_root("c1") as root:
        _use(root)
    await pool.snapshot_instance("c1", "s")
    await pool.create_instance("c2", None)
    os.rename(f"{pool.instance_dir('c1')}/snapshots", f"{pool.instance_dir('c2')}/snapshots")
    pool = await lab.restart()
    await pool.snapshot_instance("c2", "empty")
    await pool.restore_instance("c2", "s")
    with pool.open_root("c2") as root:
        _check_used(root)
    assert pool.instance_image("c2") == pool.instance_image("c1")
    await pool.restore_instance("c2", "empty")
    with pool.open_root("c2") as root:
        assert os.listdir(root) == []
    assert pool.instance_image("c2") is None


async def test_names_of_snapshots(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    await pool.snapshot_instance("c1", "s")
    await pool.snapshot_instance("c1", "t")
    await pool.create_instance("c2", None)
    for work in (
        pool.snapshot_instance("c1", "s"), pool.rename_instance_snapshot("c1", "s", "t"),
        pool.copy_instance("c1", "c2"), pool.receive_instance("c2", pool, "c1"),
    ):  # fmt: skip
        with pytest.raises(Conflict, match="already exists on pool 'p'"):
            await work
    for work in (
        pool.snapshot_instance("x", "s"), pool.restore_instance("c1", "x"), pool.copy_instance("x", "y"),
        pool.rename_instance_snapshot("c1", "x", "y"), pool.copy_instance("c1", "y", from_snapshot="x"),
    ):  # fmt: skip
        with pytest.raises(NotFound, match="not found on pool 'p'"):
            await work
    for bad in ("", "..", "a/b", "../../x", "x" * 300, "a\0b"):
        for work in (pool.snapshot_instance("c1", bad), pool.rename_instance_snapshot("c1", "s", bad)):
            with pytest.raises(BadRequest, match="Invalid volume name"):
                await work
    assert pool.instance_snapshots("c1") == ["s", "t"] and leftovers(pool) == []


async def test_a_cancelled_copy_leaves_nothing(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    await pool.snapshot_instance("c1", "s")
    for delay in (0, 0.001, 0.01):
        task = asyncio.create_task(pool.copy_instance("c1", "c2"))
        await asyncio.sleep(delay)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:  # the machine was quick
            await pool.delete_instance("c2")
    await pool.close()
    assert pool.volumes() == ["c1"] and leftovers(pool) == []


async def test_refreshing_a_copy(lab: Lab, images: dict[str, ImageFiles]) -> None:
    """It becomes what the source is, whatever either has become since; what is the same in both is not copied again."""
    pool = await with_c1(lab, images)
    await lab.manager.create_pool("other", "dir", {}, "")
    other = lab.manager.pool("other")
    with pool.open_root("c1") as root:
        _write_new(root, "big", b"x" * 3_000_000)
        _write_new(root, "one", b"1")
        os.link("one", "two", src_dir_fd=root, dst_dir_fd=root)
        os.mkdir("sub", dir_fd=root)
        _write_new(root, "sub/file", b"old")
    await pool.copy_instance("c1", "c2")
    await other.receive_instance("c2", pool, "c1")
    with pool.open_root("c1") as root:
        _use(root)
        _write(root, "sub/file", b"new")
        os.mknod("sub/device", 0o600 | stat.S_IFCHR, os.makedev(1, 3), dir_fd=root)
    sizes = []
    for target in (pool, other):
        with target.open_root("c2") as root:
            _write_new(root, "mine", b"goes")
            os.rename("sub", "was-sub", src_dir_fd=root, dst_dir_fd=root)
            sizes.append(os.stat("big", dir_fd=root).st_ino)
        await target.refresh_instance("c2", pool, "c1")
        await target.close()  # files that both roots had have one name again
        with pool.open_root("c1") as source, target.open_root("c2") as root:
            assert _tree(root) == _tree(source)
            assert os.stat("one", dir_fd=root).st_ino == os.stat("two", dir_fd=root).st_ino
            assert os.getxattr(f"/proc/self/fd/{root}/bin/ping", "security.capability") == CAPABILITY
    if pool.driver == "dir":
        with other.open_root("c2") as root:
            assert os.stat("big", dir_fd=root).st_ino == sizes[1]  # the very same file
    await pool.snapshot_instance("c1", "s")
    await other.receive_instance_snapshot("c2", pool, "c1", "s")
    await pool.receive_instance_snapshot("c2", pool, "c1", "s")
    with pool.open_root("c1") as source:
        _write(source, "sub/file", b"newer")
    await other.refresh_instance("c2", pool, "c1", from_snapshot="s")
    with other.open_root("c2") as root, other.open_snapshot("c2", "s") as past:
        assert _read(root, "sub/file") == _read(past, "sub/file") == b"new"
    await pool.refresh_instance("c2", other, "c2")  # and back: from a complete root
    await pool.close()
    await other.close()
    with pool.open_root("c2") as root, other.open_root("c2") as source:
        assert _tree(root) == _tree(source)
    for target in (pool, other):
        await target.close()
        assert leftovers(target) == [] and not os.path.exists(f"{target.instance_dir('c2')}/swap")


def _write_new(root: int, path: str, data: bytes) -> None:
    safe_path.write_file(root, path, data)


def _tree(root: int) -> dict[str, tuple[object, ...]]:
    """All that a tree has, but for times of access and numbers of inodes."""
    found: dict[str, tuple[object, ...]] = {}
    top = f"/proc/self/fd/{root}"
    for folder, folders, names in os.walk(top):
        for name in (*folders, *names, "."):
            path = f"{folder}/{name}"
            one = os.lstat(path)
            content: object = None
            if stat.S_ISREG(one.st_mode):
                content = pathlib.Path(path).read_bytes()
            elif stat.S_ISLNK(one.st_mode):
                content = os.readlink(path)
            links = one.st_nlink if stat.S_ISREG(one.st_mode) else 0
            times = one.st_mtime_ns
            found[path.removeprefix(top)] = (
                one.st_mode, one.st_uid, one.st_gid, one.st_rdev, links, times, content,
            )  # fmt: skip
    return found


class _Ended(BaseException):
    """The daemon's end."""


async def test_a_new_root_that_was_cut_short_goes_on_into_its_place(filled: Lab) -> None:
    """The daemon ends before each of the moves of a restore: the next start makes the rest of them."""
    pool = filled.pool
    with pool.open_root("c1") as root:
        _use(root)
    await pool.snapshot_instance("c1", "s")
    await pool.create_instance("empty", None)
    await pool.snapshot_instance("empty", "s")
    real = os.rename
    for volume, snapshot, check in (("c1", "s", _check_used), ("empty", "s", lambda root: None)):
        for step in range(1, 9):
            left = step

            def ends(source: str, target: str, place: str = f"instances/{volume}", **more: object) -> None:
                nonlocal left
                if place in f"{source}{target}":
                    left -= 1
                    if left < 0:
                        raise _Ended
                real(source, target, **more)  # type: ignore[arg-type]

            os.rename = ends  # type: ignore[assignment]
            try:
                with contextlib.suppress(_Ended):
                    await pool.restore_instance(volume, snapshot)
            finally:
                os.rename = real
            pool = await filled.restart()
            with pool.open_root(volume) as root:
                check(root)
            assert not os.path.exists(f"{pool.instance_dir(volume)}/swap")
    await pool.close()
    assert leftovers(pool) == []

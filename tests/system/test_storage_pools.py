"""The conformance suite of the storage drivers: what every pool does, on the real kernel, by the manager alone."""

import asyncio
import errno
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from lxpy.api.errors import BadRequest, Conflict, InternalError, NotFound, Unavailable
from lxpy.api.imagefiles import ImageFiles
from lxpy.linux import idmap, loop, safe_path
from lxpy.storage import imagecache
from tests.support import namespace
from tests.support.pools import CAPABILITY, Lab, image_tree, leftovers, run, unmount_all, with_c1


async def test_a_volume_is_the_image_and_can_be_written(filled: Lab) -> None:
    with filled.pool.open_root("c1") as root:
        top = os.fstat(root)
        assert (top.st_mode & 0o7777, top.st_uid, top.st_gid) == (0o751, 0, 0)
        assert sorted(os.listdir(root)) == ["bin", "etc", "home"]
        assert safe_path.read_file(root, "etc/hostname", 100) == b"image"
        safe_path.write_file(root, "/etc/hostname", b"mine", 0o640, 5, 6)
        safe_path.make_dirs(root, "/var/lib/new")
        fd = safe_path.openat2(root, "home/user", os.O_RDONLY)
        assert os.fstat(fd).st_uid == 1000
        os.close(fd)
    with filled.pool.open_root("c1") as root:
        found = os.stat("etc/hostname", dir_fd=root)
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o640, 5, 6)
        assert safe_path.read_file(root, "etc/hostname", 100) == b"mine"


async def test_directories_of_the_image_rename_and_capabilities_and_hard_links_stay(filled: Lab) -> None:
    with filled.pool.open_root("c1") as root:
        os.rename("bin", "sbin", src_dir_fd=root, dst_dir_fd=root)
        os.link("sbin/two", "sbin/three", src_dir_fd=root, dst_dir_fd=root)
        fd = os.open("sbin/one", os.O_WRONLY | os.O_TRUNC, dir_fd=root)
        os.write(fd, b"changed")
        os.close(fd)
    with filled.pool.open_root("c1") as root:
        assert sorted(os.listdir(root)) == ["etc", "home", "sbin"]
        for name in ("one", "two", "three"):
            assert safe_path.read_file(root, f"sbin/{name}", 100) == b"changed"
            assert os.stat(f"sbin/{name}", dir_fd=root).st_nlink == 3
        ping = os.open("sbin/ping", os.O_RDWR, dir_fd=root)  # copied up
        os.close(ping)
        ping = os.open("sbin/ping", os.O_RDONLY, dir_fd=root)
        assert os.getxattr(ping, "security.capability") == CAPABILITY
        os.close(ping)


async def test_volumes_do_not_see_each_other(filled: Lab) -> None:
    pool = filled.pool
    (fingerprint,) = pool.images.list()
    await pool.create_instance("c2", fingerprint)
    for name in ("c1", "c2"):
        with pool.open_root(name) as root:
            assert safe_path.read_file(root, "etc/hostname", 100) == b"image"
            safe_path.write_file(root, "etc/hostname", name.encode())
    for name in ("c1", "c2"):
        with pool.open_root(name) as root:
            assert safe_path.read_file(root, "etc/hostname", 100) == name.encode()
    assert pool.volumes() == ["c1", "c2"]


async def test_names(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    with pytest.raises(Conflict, match="'c1' already exists on pool 'p'"):
        await pool.create_instance("c1", images["squashfs"].fingerprint)
    with pytest.raises(NotFound):
        await pool.create_instance("c2", "0" * 64)
    assert pool.volumes() == ["c1"]
    for bad in ("", "..", "a/b", "../../x", "x" * 300, "a\0b"):
        for work in (pool.create_instance(bad, None), pool.delete_instance(bad), pool.rename_instance("c1", bad)):
            with pytest.raises(BadRequest):
                await work
    with pytest.raises(BadRequest, match="64 hex digits"):
        await pool.ensure_image(images["tar"]._replace(fingerprint="../../../etc"))
    with pytest.raises(NotFound):
        pool.root("c2")


async def test_rename_and_delete(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    with pool.open_root("c1") as root:
        safe_path.write_file(root, "mark", b"1")
    pathlib.Path(pool.instance_dir("c1"), "backup.yaml").write_text("name: c1\n")
    await pool.create_instance("c3", None)
    with pytest.raises(Conflict):
        await pool.rename_instance("c1", "c3")
    with pytest.raises(NotFound):
        await pool.rename_instance("nobody", "c4")
    await pool.rename_instance("c1", "c2")
    assert pathlib.Path(pool.instance_dir("c2"), "backup.yaml").exists()
    with pool.open_root("c2") as root:
        assert safe_path.read_file(root, "mark", 10) == b"1"
    pool = await lab.restart()
    assert pool.volumes() == ["c2", "c3"]
    with pool.open_root("c2") as root:
        assert safe_path.read_file(root, "mark", 10) == b"1"
    await pool.delete_instance("c2")
    await pool.delete_instance("c2")
    await pool.create_instance("c2", images["squashfs"].fingerprint)  # the name is free at once
    with pool.open_root("c2") as root:
        assert "mark" not in os.listdir(root)
    await pool.close()
    assert leftovers(pool) == []


async def test_empty_volumes(lab: Lab) -> None:
    await lab.pool.create_instance("e", None)
    assert lab.pool.root("e")["kind"] == "dir"
    with lab.pool.open_root("e") as root:
        assert os.listdir(root) == []
        safe_path.write_file(root, "x", b"1")
    assert await lab.pool.measure("e") >= 4096


async def test_twenty_waiters_one_work(
    lab: Lab, images: dict[str, ImageFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = imagecache.ImageCache._make

    def count(self: imagecache.ImageCache, image: ImageFiles) -> None:
        made.append(image.fingerprint)
        make(self, image)

    monkeypatch.setattr(imagecache.ImageCache, "_make", count)
    waiters = [asyncio.create_task(lab.pool.ensure_image(images["squashfs"])) for _ in range(20)]
    await asyncio.sleep(0)
    waiters[0].cancel()  # the first, which began it
    results = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError) and results[1:] == [None] * 19
    await asyncio.gather(*[lab.pool.create_instance(f"c{i}", images["squashfs"].fingerprint) for i in range(20)])
    assert len(made) == 1 and len(lab.pool.volumes()) == 20


async def test_a_dropped_image_goes_with_its_last_user(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    fingerprint = images["squashfs"].fingerprint
    await pool.drop_image(fingerprint)
    await pool.drop_image(fingerprint)
    if pool.driver != "overlay":  # a complete copy needs its image no more
        assert pool.images.list() == {}
    else:
        assert pool.images.list()[fingerprint] == {"form": "mounted", "users": ["c1"], "dropped": True}
        pool = await lab.restart()
        assert pool.images.list()[fingerprint]["dropped"]
    with pool.open_root("c1") as root:
        assert safe_path.read_file(root, "etc/hostname", 100) == b"image"
    await pool.ensure_image(images["squashfs"])  # wanted again
    assert not pool.images.list()[fingerprint]["dropped"]
    await pool.drop_image(fingerprint)
    await pool.delete_instance("c1")
    assert pool.images.list() == {}
    await pool.close()
    assert os.listdir(f"{pool.source}/images") == [] and leftovers(pool) == []
    await pool.drop_image(fingerprint)


async def test_an_instance_outlives_its_image_file(
    lab: Lab, images: dict[str, ImageFiles], tmp_path: pathlib.Path
) -> None:
    copy = shutil.copy(images["squashfs"].rootfs, f"{lab.layout.root}/image")
    image = images["squashfs"]._replace(rootfs=str(copy))
    await lab.pool.ensure_image(image)
    await lab.pool.create_instance("c1", image.fingerprint)
    os.unlink(copy)
    await lab.pool.drop_image(image.fingerprint)
    unmount_all(lab.layout.root)  # a reboot
    pool = await lab.restart()
    with pool.open_root("c1") as root:
        assert safe_path.read_file(root, "bin/one", 100) == b"same file"
    assert lab.warnings == ["Pool p: volumes without an instance: c1; see lxpy recover"]


async def test_what_a_crash_leaves_is_swept(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    half = pathlib.Path(pool.source, "tmp/image-0123")
    (half / "tree/etc").mkdir(parents=True)
    (half / "tree/etc/x").write_text("half")
    pathlib.Path(pool.source, "tmp/file").write_text("x")
    pathlib.Path(pool.source, "images", "ab" * 32).mkdir()  # a mount point whose file never came
    os.rename(pool.instance_dir("c1"), f"{pool.source}/tmp/gone-1")  # being deleted
    pool = await lab.restart()
    await pool.close()
    assert leftovers(pool) == [] and pool.volumes() == []
    assert "ab" * 32 not in os.listdir(f"{pool.source}/images")
    await pool.create_instance("c1", images["squashfs"].fingerprint)


async def test_deleting_does_not_wait_and_takes_any_depth(lab: Lab) -> None:
    await lab.pool.create_instance("deep", None)
    with lab.pool.open_root("deep") as root:
        safe_path.write_file(root, "canary", b"1")
        here = os.dup(root)
        for _ in range(3000):
            os.mkdir("d", dir_fd=here)
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
            os.close(here)
            here = below
        os.symlink("/", "way-out", dir_fd=here)
        os.close(here)
        for number in range(5000):
            os.close(os.open(f"file{number}", os.O_WRONLY | os.O_CREAT, dir_fd=root))
    beat, slowest = time.monotonic(), 0.0
    task = asyncio.create_task(lab.pool.delete_instance("deep"))
    while not task.done() or leftovers(lab.pool):
        await asyncio.sleep(0.001)
        slowest, beat = max(slowest, time.monotonic() - beat), time.monotonic()
    await task
    assert slowest < 0.5, f"the event loop stood still for {slowest:.2f} s"
    assert lab.warnings == []


@pytest.mark.parametrize("kind", ["squashfs", "tar", "unified"])
async def test_a_broken_image_leaves_nothing(lab: Lab, images: dict[str, ImageFiles], kind: str) -> None:
    data = pathlib.Path(images[kind].rootfs).read_bytes()
    broken = pathlib.Path(lab.layout.root, "broken")
    broken.write_bytes(data[:4] + os.urandom(2000))
    image = images[kind]._replace(rootfs=str(broken))
    results = await asyncio.gather(*[lab.pool.ensure_image(image) for _ in range(3)], return_exceptions=True)
    for result in results:
        assert isinstance(result, BadRequest) and "\n" not in str(result), result
    with pytest.raises(NotFound):
        await lab.pool.create_instance("c1", image.fingerprint)
    assert os.listdir(f"{lab.pool.source}/images") == [] and leftovers(lab.pool) == []
    assert len(namespace.loops(lab.layout.root)) == (lab.pool.driver == "btrfs")  # its own
    await lab.pool.ensure_image(images[kind])  # and a good one of that name is taken


async def test_a_squashfs_is_unpacked_where_the_kernel_cannot_shift_it(
    lab: Lab, images: dict[str, ImageFiles], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagecache, "_squashfs_idmaps", False)
    pool = await with_c1(lab, images)
    assert pool.images.list()[images["squashfs"].fingerprint]["form"] == "unpacked"
    with pool.open_root("c1") as root:
        assert safe_path.read_file(root, "bin/two", 100) == b"same file"
    pool = await lab.restart()
    with pool.open_root("c1") as root:
        assert safe_path.read_file(root, "bin/two", 100) == b"same file"


async def test_this_kernel_shifts_squashfs(bare: Lab, images: dict[str, ImageFiles]) -> None:
    await bare.manager.create_pool("p", "overlay", {}, "")
    pool = await with_c1(bare, images)
    form = pool.images.list()[images["squashfs"].fingerprint]["form"]
    kernel = tuple(int(part) for part in os.uname().release.split(".")[:2])
    assert (form == "mounted") == (kernel >= (6, 2))
    assert idmap.supports_idmap(pool.source)


async def test_an_overlay_root_in_use_is_not_opened_twice(bare: Lab, images: dict[str, ImageFiles]) -> None:
    await bare.manager.create_pool("p", "overlay", {}, "")
    pool = await with_c1(bare, images)
    with pool.open_root("c1"), pytest.raises(Conflict, match="stop the instance first"), pool.open_root("c1"):
        pass


@pytest.mark.parametrize("kind", ["squashfs", "tar", "unified"])
async def test_a_full_disk_is_said_and_nothing_is_left(bare: Lab, images: dict[str, ImageFiles], kind: str) -> None:
    """On an ext4 of its own, in a loop file."""
    file, point = f"{bare.layout.root}/disk", f"{bare.layout.root}/mnt"
    os.mkdir(point)
    run(["truncate", "-s", "24M", file])
    run(["mkfs.ext4", "-q", "-m0", "-b", "4096", "-N", "2000", file])
    with loop.attach(file, readonly=False) as device:
        run(["mount", "-t", "ext4", device, point])
    try:
        await bare.manager.create_pool("p", "dir", {"source": point}, "")
        source = pathlib.Path(bare.layout.root, "big")
        image_tree(source / "rootfs")
        (source / "rootfs/big").write_bytes(os.urandom(13 << 20))
        out = source / "image"
        if kind == "squashfs":
            command = ["mksquashfs", source / "rootfs", out, "-quiet", "-no-progress"]
            run(command)
        else:
            where = source if kind == "unified" else source / "rootfs"
            run(["tar", "-cf", out, "-C", where, "rootfs" if kind == "unified" else "."])
        image = images[kind]._replace(rootfs=str(out))
        filler = pathlib.Path(point, "filler")
        filler.write_bytes(bytes(12 << 20))
        line = rf"no space left on pool p \({point}\)"
        with pytest.raises(InternalError, match=line):
            await bare.pool.ensure_image(image)
        assert os.listdir(f"{point}/images") == [] and leftovers(bare.pool) == []
        filler.unlink()
        await bare.pool.ensure_image(image)
        with pytest.raises(InternalError, match=line):
            await bare.pool.create_instance("c1", image.fingerprint)
        assert bare.pool.volumes() == [] and leftovers(bare.pool) == []
        assert os.listdir(f"{point}/instances") == []
        space = (await bare.manager.resources("p"))["space"]
        assert 13 << 20 < space["used"] <= space["total"] < 24 << 20
        await bare.manager.delete_pool("p")
        assert os.listdir(point) == ["lost+found"]
    finally:
        run(["umount", point])


async def test_pool_configuration(bare: Lab) -> None:
    manager = bare.manager
    taken = pathlib.Path(bare.layout.root, "taken")
    taken.mkdir()
    (taken / "file").write_text("mine")
    wrong: list[tuple[str, dict[str, str], str]] = [
        ("zfs", {}, "not supported yet; drivers: overlay, dir"),
        ("nfs", {}, "not supported; drivers: overlay, dir"),
        ("dir", {"sauce": "/x"}, "Unknown key 'sauce' .*source"),
        ("overlay", {"size": "10GiB"}, "size cannot be set"),
        ("dir", {"source": "relative"}, "absolute"),
        ("dir", {"source": f"{bare.layout.root}/nowhere"}, "existing, empty"),
        ("dir", {"source": str(taken)}, "not empty"),
        ("overlay", {"source": "/proc"}, "not empty|will not do"),
    ]
    for driver, config, words in wrong:
        with pytest.raises(BadRequest, match=words):
            await manager.create_pool("p", driver, config, "")
    with pytest.raises(BadRequest, match="Invalid storage pool name"):
        await manager.create_pool("../p", "dir", {}, "")
    assert manager.pools() == {} and not os.path.exists(bare.layout.pools)
    await manager.create_pool("p", "dir", {"user.note": "x"}, "first")
    with pytest.raises(Conflict):
        await manager.create_pool("p", "dir", {}, "")
    source = f"{bare.layout.pools}/p"
    inside = pathlib.Path(source, "instances/x")
    inside.mkdir()
    with pytest.raises(BadRequest, match="inside storage pool 'p'"):
        await manager.create_pool("q", "dir", {"source": str(inside)}, "")
    inside.rmdir()
    with pytest.raises(BadRequest, match="cannot be changed"):
        await manager.update_pool("p", {"source": "/elsewhere"}, "")
    with pytest.raises(BadRequest, match=r"rsync\.bwlimit"):
        await manager.update_pool("p", {"source": source, "rsync.bwlimit": "1"}, "")
    await manager.update_pool("p", {"user.note": "y", "volatile.initial_source": source}, "second")
    config = {"user.note": "y", "volatile.initial_source": source, "source": source}
    assert manager.pools() == {"p": {"driver": "dir", "config": config, "description": "second"}}
    assert os.stat(source).st_mode & 0o7777 == 0o711
    with pytest.raises(NotFound, match="'q' not found"):
        manager.pool("q")


async def test_a_pool_in_use_stays(lab: Lab) -> None:
    await lab.pool.create_instance("c1", None)
    with pytest.raises(Conflict, match="in use by volume c1"):
        await lab.manager.delete_pool("p")
    lab.store.projects.put("default", {})
    row = lab.store.instances.insert("default", "c1", "p", None, {})
    with pytest.raises(Conflict, match="in use by instance c1"):
        await lab.manager.delete_pool("p")
    lab.store.instances.delete(row.id)
    await lab.pool.delete_instance("c1")
    lab.store.profiles.put("default", "big", {"devices": {"root": {"type": "disk", "path": "/", "pool": "p"}}})
    with pytest.raises(Conflict, match="in use by profile big"):
        await lab.manager.delete_pool("p")
    lab.store.profiles.delete("default", "big")


@pytest.mark.parametrize("kind", ["squashfs", "tar"])
async def test_a_pool_that_gets_an_image_or_is_being_deleted(
    lab: Lab, images: dict[str, ImageFiles], kind: str
) -> None:
    """Whoever launches there has no record yet: the image comes first."""
    coming = asyncio.create_task(lab.pool.ensure_image(images[kind]))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match=f"in use: image {images[kind].fingerprint[:12]} is being put on it"):
        await lab.manager.delete_pool("p")
    await coming
    going = asyncio.create_task(lab.manager.delete_pool("p"))
    await asyncio.sleep(0)
    with pytest.raises(NotFound, match="'p' not found"):
        lab.manager.pool("p")
    await going
    assert lab.manager.pools() == {}


async def test_a_pool_whose_disk_is_not_there(lab: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await with_c1(lab, images)
    unmount_all(pool.source)
    place = pool.config["source"]
    os.rename(place, f"{place}.away")
    pool = await lab.restart()
    for work in (pool.ensure_image(images["tar"]), pool.create_instance("x", None), pool.delete_instance("c1")):
        with pytest.raises(Unavailable, match=rf"'p' is away: .*{place}"):
            await work
    assert not os.path.exists(place) and len(lab.warnings) == 1
    os.rename(f"{place}.away", place)
    pool = await lab.restart()
    with pool.open_root("c1") as root:
        assert safe_path.read_file(root, "etc/hostname", 100) == b"image"


async def test_no_host_user_reaches_into_a_pool(filled: Lab) -> None:
    command = ["setpriv", "--reuid", "65534", "--clear-groups", "ls", f"{filled.pool.source}/images"]
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(command)
    assert os.strerror(errno.EACCES) in caught.value.stderr.decode()

"""What only btrfs pools do: their files and disks, sizes, nested subvolumes. What all pools do is in the suites."""

import contextlib
import errno
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from lxpy.api.errors import BadRequest, Conflict, InternalError
from lxpy.api.imagefiles import ImageFiles
from lxpy.linux import btrfs, btrfsquota, loop, mounts
from lxpy.storage.btrfsdriver import BtrfsPool
from lxpy.storage.pool import DirectoryPool
from tests.support import namespace
from tests.support.daemon import until
from tests.support.pools import Lab, leftovers, run, unmount_all

MIB = 1 << 20


async def make(lab: Lab, **config: str) -> DirectoryPool:
    await lab.manager.create_pool("p", "btrfs", config or {"size": "300MiB"}, "")
    return lab.pool


def file_of(lab: Lab) -> pathlib.Path:
    return pathlib.Path(lab.layout.disks, "p.img")


def subvolumes(point: str) -> list[str]:
    return sorted(line.split()[-1] for line in _output("btrfs", "subvolume", "list", point).splitlines())


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def fill(path: str, mebibytes: int) -> float:
    """Writes until there is an end of it; the MiB that went."""
    done = 0
    try:
        with open(path, "wb", buffering=0) as file:
            while done < mebibytes * MIB:
                done += file.write(os.urandom(MIB))
                os.fsync(file.fileno())
    except OSError as error:
        assert error.errno == errno.EDQUOT
    return done / MIB


@contextlib.contextmanager
def users_btrfs(lab: Lab) -> Iterator[str]:
    """A btrfs of the user's own, mounted somewhere."""
    file, point = f"{lab.layout.root}/user.disk", f"{lab.layout.root}/mnt"
    os.mkdir(point)
    run(["truncate", "-s", "300M", file])
    run(["mkfs.btrfs", "-q", file])
    with loop.attach(file, readonly=False) as device:
        run(["mount", "-t", "btrfs", device, point])
    try:
        yield point
    finally:
        run(["umount", point])


# -- where a pool lies ---------------------------------------------------------------------------------------------


async def test_a_file_of_its_own(bare: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await make(bare)
    assert bare.manager.pools()["p"]["config"] == pool.config
    assert pool.config["source"] == str(file_of(bare)) and pool.config["size"] == "300MiB"
    assert file_of(bare).stat().st_size == 300 * MIB > file_of(bare).stat().st_blocks * 512 * 5  # only what is used
    assert file_of(bare).stat().st_mode & 0o777 == 0o600 and os.stat(pool.source).st_mode & 0o7777 == 0o711
    (device,) = namespace.loops(bare.layout.root)
    assert pathlib.Path(f"/sys/block/{os.path.basename(device)}/loop/dio").read_text().strip() == "1"
    await pool.ensure_image(images["tar"])
    tree = pool.images.tree(images["tar"].fingerprint)
    assert btrfs.readonly(tree)
    await pool.create_instance("c1", images["tar"].fingerprint)
    assert subvolumes(pool.source) == [f"images/{images['tar'].fingerprint}", "instances/c1/rootfs"]
    unmount_all(bare.layout.root)  # a reboot
    pool = await bare.restart()
    assert pool.volumes() == ["c1"] and mounts.is_mounted(pool.source)
    space = (await bare.manager.resources("p"))["space"]
    assert 0 < space["used"] < space["total"] == 300 * MIB
    await pool.delete_instance("c1")
    await bare.manager.delete_pool("p")
    assert not os.path.exists(pool.source) and not file_of(bare).exists()


async def test_the_file_grows_and_never_shrinks(bare: Lab) -> None:
    pool = await make(bare)

    def total() -> int:
        found = os.statvfs(pool.source)
        return found.f_blocks * found.f_frsize

    config = dict(pool.config)
    await bare.manager.update_pool("p", config | {"size": "400MiB"}, "larger")
    assert total() == file_of(bare).stat().st_size == 400 * MIB
    for size, words in (("350MiB", "cannot shrink from 400.00MiB to 350MiB"), ("", "cannot be unset"), ("x", "size")):
        with pytest.raises(BadRequest, match=words):
            await bare.manager.update_pool("p", config | {"size": size}, "")
    with pytest.raises(InternalError, match=r"^Resize on pool p: .*p\.img$"):
        await bare.manager.update_pool("p", config | {"size": "1000000TiB"}, "")
    assert bare.manager.pools()["p"]["config"]["size"] == "400MiB" and total() == 400 * MIB
    # Cut off after each step: written down; the file has it; the device has it.
    for step in range(3):
        size = (450 + 50 * step) * MIB
        bare.store.pools.put("p", bare.manager.pools()["p"] | {"config": config | {"size": str(size)}})
        if step:
            os.truncate(file_of(bare), size)
        if step > 1:
            loop.grow(namespace.loops(bare.layout.root)[0])
        pool = await bare.restart()
        assert total() == file_of(bare).stat().st_size == size
    assert bare.warnings == []


async def test_a_directory_of_a_btrfs(bare: Lab, images: dict[str, ImageFiles]) -> None:
    with users_btrfs(bare) as point:
        place = f"{point}/pool"
        os.mkdir(place)
        for config, words in (
            ({"source": bare.layout.root}, "not on a btrfs"),
            ({"source": f"{point}/none"}, "existing, empty"),
            ({"source": place, "size": "1GiB"}, "leave source away"),
            ({"source": place, "btrfs.mount_options": "noatime"}, "in a directory"),
            ({"source": place, "source.wipe": "true"}, "block device"),
        ):
            with pytest.raises(BadRequest, match=words):
                await make(bare, **config)
        pool = await make(bare, source=place)
        await pool.ensure_image(images["squashfs"])
        await pool.create_instance("c1", images["squashfs"].fingerprint)
        with pytest.raises(BadRequest, match=f"quotas are off on the btrfs at {place}; .* btrfs quota enable {place}"):
            await pool.limit_instance("c1", 20 * MIB)
        with pytest.raises(BadRequest, match=r"quotas are off"):
            await pool.create_volume("v", 20 * MIB)
        assert pool.custom_volumes() == [] and leftovers(pool) == []
        btrfsquota.enable(place, simple=False)  # the user's decision
        await pool.limit_instance("c1", 20 * MIB)
        assert fill(f"{pool.root('c1')['path']}/big", 30) < 20
        with pytest.raises(BadRequest, match="only pools in a file"):
            await bare.manager.update_pool("p", pool.config | {"size": "1GiB"}, "")
        await pool.delete_instance("c1")
        await bare.manager.delete_pool("p")
        assert os.listdir(place) == [] and subvolumes(point) == []


async def test_a_disk(bare: Lab) -> None:
    file = f"{bare.layout.root}/disk"
    run(["truncate", "-s", "300M", file])
    run(["mkfs.ext4", "-q", file])
    with loop.attach(file, readonly=False) as disk:
        for config, words in (
            ({"source": disk}, f"{disk} appears to contain an existing filesystem .*source.wipe=true"),
            ({"source": disk, "size": "1GiB"}, "leave size away"),
            ({"source": "/dev/null"}, "no block device"),
            ({"source": "/dev/none"}, "No such file"),
        ):
            with pytest.raises(BadRequest, match=words):
                await make(bare, **config)
        assert bare.manager.pools() == {} == bare.store.pools.all() and not os.path.exists(bare.layout.pools)
        pool = await make(bare, source=disk, **{"source.wipe": "true", "btrfs.mount_options": "noatime,compress=zstd"})
        assert "source.wipe" not in pool.config
        with pytest.raises(BadRequest, match="in use"):
            await bare.manager.create_pool("q", "btrfs", {"source": disk}, "")
        await pool.create_volume("v")
        pathlib.Path(pool.volume_path("v"), "file").write_text("mine")
        unmount_all(bare.layout.root)
    until(lambda: not namespace.loops(bare.layout.root), 5, "the loop device stays")  # it holds the same file system
    with loop.attach(file, readonly=False) as other:
        # After a reboot it may have another name: here one that means nothing at all.
        doc = bare.store.pools.get("p")
        assert doc
        bare.store.pools.put("p", doc | {"config": doc["config"] | {"source": "/dev/null"}})
        pool = await bare.restart()
        assert pathlib.Path(pool.volume_path("v"), "file").read_text() == "mine"
        mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        line = next(line for line in mounts if bare.layout.root in line)
        assert other in line and "noatime" in line and "compress=zstd" in line and "user_subvol_rm" not in line
        await pool.delete_volume("v")
        bare.store.pools.put("p", doc | {"config": doc["config"] | {"source": other}})
        pool = await bare.restart()
        await bare.manager.delete_pool("p")
        await make(bare, source=other)  # nothing is on it any more
        await bare.manager.delete_pool("p")


async def test_wrong_configurations_change_nothing(bare: Lab) -> None:
    for config, words in (
        ({"size": "100MiB"}, "at least 256MiB"),
        ({"size": "big"}, "not a size"),
        ({"source": "relative"}, "absolute"),
        ({"size": "300MiB", "btrfs.mount_options": "nonsense"}, "refuses to mount .*'nonsense'"),
        ({"btrfs.mount_options": "noatime,ro"}, "cannot have ro: instances could not start"),
        ({"sauce": "x"}, r"Unknown key 'sauce' of a btrfs pool; known: source, size, btrfs\.mount_options"),
    ):
        with pytest.raises(BadRequest, match=words):
            await make(bare, **config)
        assert bare.store.pools.all() == {} and not file_of(bare).exists()
        assert not os.path.exists(bare.layout.pools) or os.listdir(bare.layout.pools) == []
    pool = await make(bare)
    for key, value, words in (
        ("btrfs.mount_options", "nonsense", "Invalid value for btrfs.mount_options: 'nonsense'"),
        ("source", "/elsewhere", "cannot be changed"),
        ("source.wipe", "true", "only for the creation"),
    ):
        with pytest.raises(BadRequest, match=words):
            await bare.manager.update_pool("p", pool.config | {key: value}, "")
    await bare.manager.update_pool("p", pool.config | {"btrfs.mount_options": "noatime"}, "")
    assert os.statvfs(pool.source).f_flag & os.ST_NOATIME
    await bare.manager.delete_pool("p")
    file_of(bare).write_text("an earlier pool")
    with pytest.raises(Conflict, match="holds an earlier pool"):
        await make(bare)
    assert file_of(bare).read_text() == "an earlier pool"
    file_of(bare).unlink()


# -- cut off anywhere ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["creating", "deleting"])
async def test_each_step_that_a_crash_can_leave(bare: Lab, images: dict[str, ImageFiles], mark: str) -> None:
    """The database as it is after the mark, the disk as it is after each step."""
    config = BtrfsPool.plan("p", {"size": "300MiB"}, bare.layout)
    pool = BtrfsPool.of("p", config, bare.layout, bare.warnings.append)
    assert isinstance(pool, BtrfsPool) and pool._disk
    disk = pool._disk
    steps = {
        "creating": [
            lambda: None,
            lambda: (os.makedirs(bare.layout.disks), file_of(bare).write_bytes(bytes(MIB))),
            lambda: (file_of(bare).unlink(), disk.make("p", 300 * MIB, False)),
            disk.mount,
            lambda: btrfsquota.enable(pool.source, simple=True),
            lambda: DirectoryPool.prepare(pool, {}),
        ],
        "deleting": [
            lambda: pool.prepare({}),
            lambda: pool._tree_make(f"{pool.source}/tmp/gone-1"),
            disk._unmount,
            lambda: file_of(bare).unlink(),
            lambda: os.rmdir(pool.source),
        ],
    }[mark]
    for number in range(len(steps)):
        disk.uuid = ""  # a new one: the loop device of the one before is detached a moment later
        for step in steps[: number + 1]:
            step()
        bare.store.pools.put("p", {"driver": "btrfs", "config": config, "description": "", mark: True})
        bare.warnings.clear()
        bare.manager = type(bare.manager)(bare.store, bare.layout, bare.warnings.append)
        await bare.manager.start()
        assert bare.store.pools.all() == {} == bare.manager.pools()
        assert not file_of(bare).exists() and not os.path.lexists(pool.source)
        assert len(bare.warnings) == 1 and f"'p' was being {mark[:5]}" in bare.warnings[0], bare.warnings
        with contextlib.suppress(FileNotFoundError):
            os.rmdir(bare.layout.disks)
    await make(bare)


# -- subvolumes within subvolumes ----------------------------------------------------------------------------------


async def test_what_a_guest_nests_comes_along(bare: Lab, images: dict[str, ImageFiles]) -> None:
    pool = await make(bare)
    await pool.create_volume("v")
    data = pool.volume_path("v")
    for nested in ("a", "a/b", "dir/c", "dir/c/deep/er"):
        os.makedirs(os.path.dirname(f"{data}/{nested}"), exist_ok=True)
        btrfs.create(f"{data}/{nested}")
        pathlib.Path(data, nested, "file").write_text(nested)
    btrfs.set_readonly(f"{data}/a/b", True)
    os.symlink("/etc", f"{data}/dir/link")

    def whole(path: str) -> bool:
        texts = [pathlib.Path(path, n, "file").read_text() for n in ("a", "a/b", "dir/c", "dir/c/deep/er")]
        frozen = [btrfs.readonly(f"{path}/{n}") for n in ("a", "a/b", "dir/c", "dir/c/deep/er")]
        return texts == ["a", "a/b", "dir/c", "dir/c/deep/er"] and frozen == [False, True, False, False]

    await pool.snapshot_volume("v", "s")
    assert whole(pool.volume_snapshot_path("v", "s")) and btrfs.readonly(pool.volume_snapshot_path("v", "s"))
    pathlib.Path(data, "dir/c/file").write_text("changed")
    btrfs.destroy(f"{data}/a")
    await pool.copy_volume("v", "w")
    assert pathlib.Path(pool.volume_path("w"), "dir/c/file").read_text() == "changed"
    await pool.restore_volume("v", "s")
    assert whole(data) and whole(pool.volume_snapshot_path("w", "s"))
    await pool.rename_volume_snapshot("v", "s", "t")
    await pool.delete_volume_snapshot("v", "t")
    await pool.delete_volume("v")
    await pool.delete_volume("w")
    await pool.close()
    assert (subvolumes(pool.source), leftovers(pool), bare.warnings) == ([], [], [])


# -- sizes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("simple", [True, False], ids=["simple", "qgroups"])
async def test_sizes(bare: Lab, images: dict[str, ImageFiles], monkeypatch: pytest.MonkeyPatch, simple: bool) -> None:
    enable = btrfsquota.enable
    if not simple:  # a kernel before 6.7

        def old(path: str, *, simple: bool) -> None:
            if simple:
                raise OSError(errno.EINVAL, "", path)
            enable(path, simple=False)

        monkeypatch.setattr(btrfsquota, "enable", old)
    pool = await make(bare)
    assert btrfsquota.mode(pool.source) == ("simple" if simple else "")
    await pool.ensure_image(images["squashfs"])
    await pool.create_instance("c1", images["squashfs"].fingerprint)
    assert pool.instance_limit("c1") is None
    root = pool.root("c1")["path"]
    btrfs.create(f"{root}/before")
    await pool.limit_instance("c1", 20 * MIB)
    assert btrfsquota.mode(pool.source) == ("simple" if simple else "qgroup")
    assert pool.instance_limit("c1") == 20 * MIB
    btrfs.create(f"{root}/nested")
    written = fill(f"{root}/x", 12)
    if simple:  # what is nested counts, made before or after
        written += fill(f"{root}/nested/y", 5) + fill(f"{root}/before/z", 20)
    written += fill(f"{root}/more", 20)
    assert 17 <= written < 20
    assert 17 * MIB < (pool.usage("c1") or 0) <= 20 * MIB
    with pytest.raises(BadRequest, match=r"size 5.00MiB is too small: \d\d\.\d\dMiB are in use"):
        await pool.limit_instance("c1", 5 * MIB)
    await pool.limit_instance("c1", 40 * MIB)
    assert 17 <= fill(f"{root}/again", 30) < 30
    await pool.delete_instance("c1")  # although it is full
    await pool.create_volume("v", 20 * MIB)
    data = pool.volume_path("v")
    fill(f"{data}/x", 5)
    await pool.snapshot_volume("v", "s")
    await pool.restore_volume("v", "s")
    assert btrfsquota.limit_of(data) == 20 * MIB and fill(f"{data}/y", 30) < 20
    await pool.copy_volume("v", "w")
    assert btrfsquota.limit_of(pool.volume_path("w")) is None
    await pool.set_volume_size("v", None)
    assert fill(f"{data}/z", 15) == 15
    for volume in ("v", "w"):
        await pool.delete_volume(volume)
    await pool.close()
    assert leftovers(pool) == [] and bare.warnings == []
    assert "\n1/" not in _output("btrfs", "qgroup", "show", pool.source)

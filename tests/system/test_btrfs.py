"""btrfs pools through the daemon: set up by questions, sizes of root disks in use, kill -9 amid work on pools."""

import itertools
import json
import os
import pathlib
import random
import re
import signal
import sqlite3
import time
from collections.abc import Iterator

import pytest
import yaml

from lxpy.host import sysctls
from lxpy.linux import btrfs, btrfsquota
from tests.support import namespace
from tests.support.daemon import Lxpyd, until


@pytest.fixture
def pool(lxpyd: Lxpyd, name: str) -> Iterator[str]:
    """A btrfs pool in a file, of the test's own."""
    lxpyd.cli("storage", "create", name, "btrfs", "size=512MiB")
    yield name
    lxpyd.sweep(name)
    for volume in lxpyd.json("query", f"/1.0/storage-pools/{name}/volumes/custom"):
        if "/snapshots/" not in volume:
            lxpyd.api("DELETE", volume)
    lxpyd.cli("storage", "delete", name)


def test_the_questions_of_the_set_up(bare_lxpyd: Lxpyd) -> None:
    daemon = bare_lxpyd
    answers = ["yes", "p1", "btrfs", "no", "none", "9999999", "1", "no", "no", "no", "yes", "no", "no"]
    if not any(one.low for one in sysctls.found()):
        del answers[-2]
    said = daemon.out("init", input="\n".join(answers) + "\n")
    assert "Size in GiB of the new loop device" in said and "9999999GiB is more than the" in said
    config = daemon.json("query", "/1.0/storage-pools/p1")["config"]
    assert config["size"] == "1GiB" and config["source"] == f"{daemon.dir}/disks/p1.img"
    dump = yaml.safe_load(daemon.out("init", "--dump"))["storage_pools"]
    assert [(one["name"], one["driver"], one["config"]) for one in dump] == [("p1", "btrfs", {"size": "1GiB"})]
    daemon.cli("init", "--preseed", input=yaml.safe_dump({"storage_pools": dump}))
    assert daemon.json("query", "/1.0/storage-pools/p1")["config"] == config


def test_pool_verbs(lxpyd: Lxpyd, pool: str) -> None:
    show = yaml.safe_load(lxpyd.out("storage", "show", pool))
    assert (show["driver"], show["config"]["size"]) == ("btrfs", "512MiB")
    lxpyd.cli("storage", "set", pool, "size=600MiB")
    assert lxpyd.out("storage", "get", pool, "size") == "600MiB"
    info = yaml.safe_load(lxpyd.out("storage", "info", pool, "--bytes"))["info"]
    assert int(info["total space"]) == 600 << 20 > int(info["space used"]) > 0
    show["config"]["size"], show["description"] = "640MiB", "edited"
    lxpyd.cli("storage", "edit", pool, input=yaml.safe_dump(show))
    assert yaml.safe_load(lxpyd.out("storage", "info", pool))["info"]["total space"] == "640.00MiB"
    for command, words in (
        (("set", pool, "size=512MiB"), "cannot shrink from 640.00MiB to 512MiB"),
        (("unset", pool, "size"), "cannot be unset"),
        (("set", pool, "zfs.pool_name=x"), "Unknown key 'zfs.pool_name' of a btrfs pool"),
        (("create", f"{pool}-x", "btrfs", "size=1MiB"), "at least 256MiB"),
        (("create", pool, "btrfs"), "already exists"),
    ):
        refused = lxpyd.cli("storage", *command, check=False)
        assert refused.returncode == 1 and words in refused.stderr and len(refused.stderr.splitlines()) == 1
    lxpyd.cli("init", "bb", f"{pool}-c", "-s", pool)
    refused = lxpyd.cli("storage", "delete", pool, check=False)
    assert refused.returncode == 1 and f"in use by instances/{pool}-c" in refused.stderr


def test_the_size_of_a_root_disk(lxpyd: Lxpyd, pool: str) -> None:
    c, root = f"{pool}-c", f"{lxpyd.dir}/storage-pools/{pool}/instances/{pool}-c/rootfs"
    lxpyd.cli("launch", "bb", c, "-s", pool, "-d", "root,size=24MiB")
    written = lxpyd.sh(c, "dd if=/dev/zero of=/big bs=1M count=40; sync; stat -c %s /big", check=False)
    assert "Disk quota exceeded" in written.stderr and 20 << 20 < int(written.stdout.split()[-1]) < 24 << 20
    assert 20 << 20 < lxpyd.json("query", f"/1.0/instances/{c}/state")["disk"]["root"]["usage"] <= 24 << 20
    assert "Disk usage:" in lxpyd.out("info", c)
    lxpyd.cli("config", "device", "set", c, "root", "size=64MiB")  # while it runs
    lxpyd.sh(c, "dd if=/dev/zero of=/more bs=1M count=30 && sync")
    refused = lxpyd.cli("config", "device", "set", c, "root", "size=30MiB", check=False)
    assert refused.returncode == 1 and "size 30.00MiB is too small: 5" in refused.stderr, refused.stderr
    assert lxpyd.out("config", "device", "get", c, "root", "size") == "64MiB"
    lxpyd.cli("restart", "-f", c)
    assert btrfsquota.limit_of(root) == 64 << 20
    lxpyd.cli("config", "device", "unset", c, "root", "size")
    assert btrfsquota.limit_of(root) is None
    # A profile's size is that of all who use it.
    lxpyd.cli("profile", "create", pool)
    lxpyd.cli("profile", "device", "add", pool, "root", "disk", "path=/", f"pool={pool}", "size=100MiB")
    lxpyd.cli("init", "bb", f"{c}2", "-p", pool)
    root2 = f"{os.path.dirname(os.path.dirname(root))}/{c}2/rootfs"
    assert btrfsquota.limit_of(root2) == 100 << 20
    lxpyd.cli("profile", "device", "set", pool, "root", "size=90MiB")
    assert btrfsquota.limit_of(root2) == 90 << 20
    lxpyd.cli("delete", f"{c}2")
    lxpyd.cli("profile", "delete", pool)
    for pool_without in ("default", "plain"):
        line = f"size is not supported on pool {pool_without}: the driver .* keeps no quotas; use a btrfs pool"
        refused = lxpyd.cli("init", "bb", f"{c}3", "-s", pool_without, "-d", "root,size=1GiB", check=False)
        assert refused.returncode == 1 and re.search(line, refused.stderr) and len(refused.stderr.splitlines()) == 1


def test_a_size_is_left_out_where_the_other_pool_keeps_none(lxpyd: Lxpyd, pool: str, tmp_path: pathlib.Path) -> None:
    """A backup cannot be changed before it is imported, nor a snapshot before it is copied."""
    c, backup = f"{pool}-c", str(tmp_path / "backup")
    lxpyd.cli("init", "bb", c, "-s", pool, "-d", "root,size=64MiB")
    lxpyd.cli("snapshot", c, "s")
    lxpyd.cli("export", c, backup)
    said = lxpyd.cli("import", backup, f"{c}2", "-s", "plain").stderr
    assert said.startswith("The root disk's size, 64MiB, is left out: size is not supported on pool plain")
    assert lxpyd.instance(f"{c}2")["devices"]["root"] == {"type": "disk", "path": "/", "pool": "plain"}
    lxpyd.cli("restore", f"{c}2", "s")
    assert "is left out" not in lxpyd.cli("import", backup, f"{c}3", "-s", pool).stderr
    assert lxpyd.instance(f"{c}3")["devices"]["root"]["size"] == "64MiB"
    for verb in ("copy", "move"):
        refused = lxpyd.cli(verb, c, f"{c}4", "-s", "plain", check=False)
        assert refused.returncode == 1 and "or leave the size out (-d root,size=)" in refused.stderr
        lxpyd.cli(verb, c, f"{c}-{verb}", "-s", "plain", "-d", "root,size=")

    lxpyd.cli("storage", "volume", "create", pool, "v", "size=20MiB", "user.k=v")
    lxpyd.cli("storage", "volume", "snapshot", pool, "v", "s")
    lxpyd.cli("storage", "volume", "export", pool, "v", f"{backup}-v")
    said = "The volume's size, 20MiB, is left out: size is not supported on pool plain"
    for words in (
        ("copy", f"{pool}/v", f"plain/{pool}-copy"), ("copy", f"{pool}/v/s", f"plain/{pool}-of-s"),
        ("import", "plain", f"{backup}-v", f"{pool}-import"), ("move", f"{pool}/v", f"plain/{pool}-move"),
    ):  # fmt: skip
        assert lxpyd.cli("storage", "volume", *words).stderr.startswith(said), words
    for name in ("copy", "of-s", "import", "move"):
        volume = f"/1.0/storage-pools/plain/volumes/custom/{pool}-{name}"
        assert lxpyd.json("query", volume)["config"] == {"user.k": "v"}
        lxpyd.api("DELETE", volume)


def test_what_new_volumes_begin_with(lxpyd: Lxpyd, pool: str) -> None:
    """``volume.size`` and its like, of pools."""
    for where, words, status in (
        ((pool, "volume.size=20MiB", "volume.snapshots.pattern=n%d"), "", 0),
        ((pool, "volume.size=x"), "volume.size: Invalid value for size", 1),
        ((pool, "volume.nonsense=1"), "volume.nonsense: Unknown key 'nonsense' of a custom volume", 1),
        ((pool, "volume.block.filesystem=ext4"), "volume.block.filesystem: block.filesystem is not supported", 1),
        (("plain", "volume.size=20MiB"), "volume.size cannot be set on a dir pool: the driver keeps no quotas", 1),
        (("default", "volume.snapshots.expiry=1x"), "volume.snapshots.expiry: Invalid value", 1),
    ):
        said = lxpyd.cli("storage", "set", *where, check=False)
        assert said.returncode == status and words in said.stderr and said.stderr.count("\n") == status, said.stderr
    place = f"{lxpyd.dir}/storage-pools/{pool}"
    lxpyd.cli("storage", "volume", "create", pool, "v")
    lxpyd.cli("storage", "volume", "create", pool, "w", "size=0")
    config = lxpyd.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/v")["config"]
    assert config == {"size": "20MiB", "snapshots.pattern": "n%d"}
    assert btrfsquota.limit_of(f"{place}/custom/v/data") == 20 << 20
    assert btrfsquota.limit_of(f"{place}/custom/w/data") is None
    for name, size in ((f"{pool}-a", ""), (f"{pool}-b", ",size=40MiB"), (f"{pool}-c", ",size=0")):
        lxpyd.cli("init", "bb", name, "-s", pool, *(("-d", f"root{size}") if size else ()))
    limits = [btrfsquota.limit_of(f"{place}/instances/{pool}-{name}/rootfs") for name in "abc"]
    assert limits == [20 << 20, 40 << 20, None]
    # Those that are there keep what they began with; a size of their own wins.
    lxpyd.cli("storage", "set", pool, "volume.size=30MiB")
    lxpyd.cli("start", f"{pool}-a")
    assert btrfsquota.limit_of(f"{place}/instances/{pool}-a/rootfs") == 20 << 20
    lxpyd.cli("config", "device", "set", f"{pool}-a", "root", "size=50MiB")
    assert btrfsquota.limit_of(f"{place}/instances/{pool}-a/rootfs") == 50 << 20
    lxpyd.cli("config", "device", "unset", f"{pool}-a", "root", "size")
    assert btrfsquota.limit_of(f"{place}/instances/{pool}-a/rootfs") == 20 << 20


def test_subvolumes_inside_an_instance(lxpyd: Lxpyd, pool: str) -> None:
    """As Docker and systemd make them, one in the other, one read-only: whatever is done with the instance."""
    a, place = f"{pool}-a", pathlib.Path(lxpyd.dir, "storage-pools", pool, "instances")
    lxpyd.cli("launch", "bb", a, "-s", pool)
    root = place / a / "rootfs"
    for path in ("var/lib/docker", "var/lib/docker/one", "var/lib/docker/one/two", "sealed"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        btrfs.create(str(root / path))
    (root / "var/lib/docker/one/two/file").write_text("deep")
    btrfs.set_readonly(str(root / "sealed"), True)

    def is_whole(path: pathlib.Path) -> bool:
        inner = [path / "var/lib/docker/one/two", path / "var/lib/docker/one", path / "sealed"]
        return (inner[0] / "file").read_text() == "deep" and all(btrfs.is_subvolume(str(one)) for one in inner)

    lxpyd.cli("snapshot", a, "s")
    assert is_whole(place / a / "snapshots/s/rootfs")
    lxpyd.cli("copy", a, f"{a}2")
    lxpyd.cli("copy", f"{a}/s", f"{a}3")
    assert is_whole(place / f"{a}2" / "rootfs") and is_whole(place / f"{a}3" / "rootfs")
    lxpyd.cli("copy", f"{a}3", f"{a}4", "-s", "plain")
    there = lxpyd.dir / "storage-pools/plain/instances" / f"{a}4" / "rootfs"
    assert (there / "var/lib/docker/one/two/file").read_text() == "deep"
    lxpyd.sh(a, "rm -rf /var/lib/docker/one/two/file")
    lxpyd.cli("stop", "-f", a)
    lxpyd.cli("restore", a, "s")
    assert is_whole(root)
    lxpyd.cli("start", a)
    for name in (f"{a}2", f"{a}3", f"{a}4", f"{a}/s", a):
        lxpyd.cli("delete", "-f", name)
    until(lambda: not os.listdir(place.parent / "tmp"), 5, "something is left")


def test_a_full_pool(lxpyd: Lxpyd, pool: str) -> None:
    """One clear line for each thing that finds no room, nothing half there, and all is well when there is room."""
    a, place = f"{pool}-a", pathlib.Path(lxpyd.dir, "storage-pools", pool)
    lxpyd.cli("storage", "volume", "create", "plain", f"{pool}-v")
    lxpyd.cli("storage", "volume", "create", pool, "v")
    (lxpyd.dir / "storage-pools/plain/custom" / f"{pool}-v" / "data/big").write_bytes(os.urandom(64 << 20))
    lxpyd.cli("launch", "bb", a, "-s", pool)
    assert "No space left on device" in lxpyd.sh(a, "cat /dev/urandom > /big; sync").stderr
    there = {part: sorted(os.listdir(place / part)) for part in ("instances", "custom", "images")}
    line = f"no space left on pool {pool} ({place})"
    said = lxpyd.cli("storage", "volume", "copy", f"plain/{pool}-v", f"{pool}/w", check=False)
    assert said.returncode == 1 and line in said.stderr and said.stderr.count("\n") == 1, said.stderr
    # What copies nothing may still find its room: then it is whole.
    for number, command in enumerate((
        ("init", "bb", f"{a}1", "-s", pool), ("copy", a, f"{a}2"), ("snapshot", a),
        ("storage", "volume", "snapshot", pool, "v"), ("storage", "volume", "create", pool, "x"),
    )):  # fmt: skip
        said = lxpyd.cli(*command, check=False)
        assert (said.returncode == 0) or (line in said.stderr and said.stderr.count("\n") == 1), said.stderr
        assert not said.returncode or number or there["instances"] == sorted(os.listdir(place / "instances"))
    assert sorted(os.listdir(place / "images")) == there["images"] and "w" not in os.listdir(place / "custom")
    until(lambda: not os.listdir(place / "tmp"), 5, "something is left")
    lxpyd.cli("delete", "-f", f"{a}/snap0", check=False)  # what is kept keeps its room
    for number in (1, 2):
        lxpyd.cli("delete", "-f", f"{a}{number}", check=False)
    lxpyd.sh(a, "rm -f /big; sync")
    copy = ("storage", "volume", "copy", f"plain/{pool}-v", f"{pool}/w")
    until(lambda: not lxpyd.cli(*copy, check=False).returncode, 20, "the room does not come back")  # btrfs cleans later
    lxpyd.cli("storage", "volume", "delete", "plain", f"{pool}-v")


def test_killed_anywhere_in_work_on_a_pool(own_lxpyd: Lxpyd) -> None:
    daemon, rng = own_lxpyd, random.Random(7)
    disks = daemon.dir / "disks"
    operations = (
        ("storage", "create", "k", "btrfs", "size=300MiB"),
        ("storage", "set", "k", "size=400MiB"),
        ("storage", "delete", "k"),
    )
    for command, share in itertools.product(operations, (0.02, 0.05, 0.08, 0.12, 0.18, 0.25)):
        there = "k" in [one["name"] for one in daemon.json("query", "/1.0/storage-pools?recursion=1")]
        if there and command[1] != "delete":
            daemon.cli("storage", "delete", "k")
        if (not there and command[1] == "delete") or command[1] == "set":
            daemon.cli(*operations[0])
        process = daemon.spawn(*command)
        time.sleep(share + rng.uniform(0, 0.02))
        daemon.kill(signal.SIGKILL)
        _, err = process.communicate(timeout=30)
        assert b"Traceback" not in err, err.decode()
        daemon.start()
        pools = {one["name"]: one for one in daemon.json("query", "/1.0/storage-pools?recursion=1")}
        assert pools.keys() in ({"default", "plain"}, {"default", "plain", "k"})
        with sqlite3.connect(daemon.layout.database) as db:
            docs = [json.loads(row[0]) for row in db.execute("SELECT doc FROM pools")]
        assert len(docs) == len(pools) and not [doc for doc in docs if {"creating", "deleting"} & set(doc)]
        files = os.listdir(disks) if disks.exists() else []
        assert files == (["k.img"] if "k" in pools else [])
        mounted = f" {daemon.dir}/storage-pools/k " in pathlib.Path("/proc/self/mountinfo").read_text()
        assert mounted == ("k" in pools) == os.path.exists(daemon.dir / "storage-pools/k")
        if "k" in pools:
            size = int(pools["k"]["config"]["size"].removesuffix("MiB")) << 20
            space = daemon.json("query", "/1.0/storage-pools/k/resources")["space"]
            assert (disks / "k.img").stat().st_size == space["total"] == size
        until(lambda files=files: len(namespace.loops(str(disks))) == len(files), 3, "a loop device stays")
    # Not all of these came before anything was done or after it.
    assert "'k' was being created when the daemon ended" in pathlib.Path(daemon.layout.log).read_text()

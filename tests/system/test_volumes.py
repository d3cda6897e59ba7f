"""Custom volumes and disk devices, through the command line."""

import datetime
import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.daemon import Lxpyd, until


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_the_life_of_a_volume(lxpyd: Lxpyd, name: str, pool: str) -> None:
    """Create, attach while running, use, snapshot, restore, rename, detach, delete."""
    a, b, vol = f"{name}-a", f"{name}-b", f"v-{name}"
    cli, sh = lxpyd.cli, lxpyd.sh
    assert cli("storage", "volume", "create", pool, vol, "user.x=1").stdout == f"Storage volume {vol} created\n"
    cli("launch", "bb", a)
    cli("launch", "bb", b)
    assert cli("storage", "volume", "attach", pool, vol, a, "/data").stdout == (
        f"Storage volume {vol} attached to {a} at /data\n"
    )
    cli("config", "device", "add", b, "d", "disk", f"pool={pool}", f"source={vol}", "path=/srv/deep/data")
    # Owners are right in both, and nothing is shown twice.
    sh(a, "echo hello > /data/f && chown 33:33 /data/f && mkdir /data/sub")
    assert sh(b, "stat -c '%u:%g' /srv/deep/data/f; cat /srv/deep/data/f").stdout == "33:33\nhello\n"
    sh(b, "echo more >> /srv/deep/data/f")
    assert sh(a, "grep -c ' /data ' /proc/self/mountinfo").stdout == "1\n"

    shown = lxpyd.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/{vol}")
    assert sorted(shown["used_by"]) == [f"/1.0/instances/{a}", f"/1.0/instances/{b}"]
    for command in (("delete", pool, vol), ("rename", pool, vol, "other"), ("move", f"{pool}/{vol}", "plain/other")):
        failed = cli("storage", "volume", *command, check=False)
        assert failed.returncode == 1 and f"in use by instance {a}, instance {b}" in failed.stderr, failed.stderr

    assert yaml.safe_load(cli("storage", "info", pool).stdout)["used by"]["volumes"] == [vol]
    cli("storage", "volume", "snapshot", pool, vol)
    sh(a, "echo changed > /data/f; rm -r /data/sub")
    failed = cli("storage", "volume", "restore", pool, vol, "snap0", check=False)
    assert failed.returncode == 1 and "in use by the running" in failed.stderr
    cli("stop", "-f", a, b)
    cli("storage", "volume", "restore", pool, vol, "snap0")
    cli("start", a)  # what was plugged in comes back by itself
    assert sh(a, "cat /data/f; ls -d /data/sub").stdout == "hello\nmore\n/data/sub\n"
    assert cli("storage", "volume", "detach", pool, vol, a).stdout == f"Storage volume {vol} detached from {a}\n"
    assert sh(a, "ls /data; grep -c ' /data ' /proc/self/mountinfo", check=False).stdout == "0\n"
    cli("config", "device", "remove", b, "d")

    cli("storage", "volume", "rename", pool, vol, f"{vol}-new")
    rows = cli("storage", "volume", "list", pool, "-f", "csv", vol).stdout.splitlines()
    assert rows == [f"custom,{vol}-new,,filesystem,0", f"custom (snapshot),{vol}-new/snap0,,filesystem,0"]
    assert "snap0" in cli("storage", "volume", "info", pool, f"{vol}-new").stdout
    assert cli("storage", "volume", "get", pool, f"{vol}-new", "user.x").stdout == "1\n"
    cli("storage", "volume", "delete", pool, f"{vol}-new")
    assert not list((lxpyd.dir / "storage-pools" / pool / "custom").glob(f"{vol}*"))


def test_plugged_disks_keep_their_rules(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    """Read-only stays so, links stay inside, what covers a disk is told, a restart of the daemon changes nothing."""
    cli, sh, c = lxpyd.cli, lxpyd.sh, busybox
    source, outside = tmp_path / "src", tmp_path / "outside"
    for folder in (source, outside):
        folder.mkdir()
    (source / "f").write_text("host\n")
    device = ("config", "device")
    cli(*device, "add", c, "ro", "disk", f"source={source}", "path=/ro", "readonly=true")
    sh(c, f"mkdir /mnt/a; ln -s ../../../../..{outside} /nowhere; ln -s ../../../../tmp /out; ln -s /mnt/a /link")
    cli(*device, "add", c, "link", "disk", f"source={source}", "path=/link/b")
    cli(*device, "add", c, "file", "disk", f"source={source}/f", "path=/etc/given")
    cli(*device, "add", c, "out", "disk", f"source={source}", f"path=/out/{c}")
    assert sh(c, f"cat /tmp/{c}/f").stdout == "host\n" and not os.path.exists(f"/tmp/{c}")
    failed = cli(*device, "add", c, "nowhere", "disk", f"source={source}", "path=/nowhere/x", check=False)
    assert failed.returncode == 1 and "a link that leads nowhere" in failed.stderr
    assert not list(outside.iterdir())
    (source / "sub").mkdir()
    cli(*device, "add", c, "base", "disk", f"source={source}", "path=/base")
    cli(*device, "add", c, "nested", "disk", f"source={source}", "path=/base/sub")
    failed = cli(*device, "remove", c, "base", check=False)
    assert failed.returncode == 1 and "'nested' is mounted below it" in failed.stderr
    cli(*device, "remove", c, "base", "nested")  # together, in whichever order they are named
    (source / "deep").mkdir()
    cli(*device, "add", c, "nested", "disk", f"source={source}/f", "path=/base/deep/file")
    cli(*device, "add", c, "base", "disk", f"source={source}", "path=/base")
    assert sh(c, "cat /base/deep/file /base/f").stdout == "host\n" * 2  # it is not covered by what comes above it
    failed = cli(*device, "add", c, "fails", "disk", f"source={source}", "path=/nowhere/x", check=False)
    assert failed.returncode == 1 and sh(c, "cat /base/deep/file").stdout == "host\n"
    cli(*device, "remove", c, "nested", "base")
    for attempt in ("echo x > /ro/f", "mount -o remount,rw,bind /ro", "mount -o remount,dev,bind /mnt/a/b"):
        assert re.search("(?i)permission denied|read-only", sh(c, attempt, check=False).stderr), attempt
    assert sh(c, "cat /ro/f /etc/given /mnt/a/b/f").stdout == "host\n" * 3

    lxpyd.restart(kill=True)
    assert sh(c, "grep -c ' /ro ' /proc/self/mountinfo").stdout == "1\n"
    sh(c, "mount -t tmpfs none /ro")
    failed = cli(*device, "remove", c, "ro", check=False)
    assert failed.returncode == 1 and "mounted over it" in failed.stderr and failed.stderr.count("\n") == 1
    assert "ro" in lxpyd.json("query", f"/1.0/instances/{c}")["devices"]
    sh(c, "umount /ro; umount /etc/given")
    sh(c, "sleep 100 < /mnt/a/b/f >/dev/null 2>&1 &")
    cli(*device, "remove", c, "ro", "file", "link", "out")  # unmounted by the guest, and in use: no hindrance
    left = sh(c, "cat /proc/self/mountinfo").stdout
    assert str(tmp_path) not in left and " /mnt/a/b " not in left
    assert "was in use when it was taken away" in str(lxpyd.json("query", "/1.0/warnings?recursion=1"))


def test_disks_of_the_start_are_locked_and_can_go(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    cli, sh = lxpyd.cli, lxpyd.sh
    cli("launch", "bb", name, "-d", f"d,type=disk,source={tmp_path},path=/d,readonly=true")
    cli(
        "config",
        "device",
        "add",
        name,
        "below",
        "disk",
        f"source={tmp_path}",
        "path=/dev/x",
        "raw.mount.options=ro,noexec",
    )
    cli("config", "device", "add", name, "maybe", "disk", f"source={tmp_path}/no", "path=/no", "required=false")
    cli("restart", "-f", name)
    for path in ("/d", "/dev/x"):
        assert "ermission denied" in sh(name, f"mount -o remount,rw,bind {path}", check=False).stderr, path
        assert sh(name, f"touch {path}/f", check=False).returncode, path
    assert "noexec" in sh(name, "grep ' /dev/x ' /proc/mounts").stdout
    cli("config", "device", "set", name, "d", "readonly=false")  # live: it goes and comes
    sh(name, "touch /d/f")
    assert (tmp_path / "f").stat().st_uid == 0
    cli("config", "device", "remove", name, "d", "below", "maybe")
    assert str(tmp_path) not in sh(name, "cat /proc/self/mountinfo").stdout


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("pool=default source=nope path=/d", "Storage volume 'nope' not found on pool 'default'"),
        ("pool=nope source=v path=/d", "Storage pool 'nope' not found"),
        ("pool=default source=a/b path=/d", "the name of a custom volume"),
        ("pool=default source=v path=/", "cannot be /"),
        ("pool=default source=v path=/d limits.read=often", "is not a size"),
        ("pool=default source=v path=/d shift=false", "for host paths only"),
        ("source=/nope path=/d", "Missing source path '/nope'"),
        ("source=/tmp path=/d propagation=rshared", "propagation=rshared"),
        ("source=/tmp path=/d raw.mount.options=ro,discard", "raw.mount.options=discard"),
        ("source=tmpfs: path=/d", "source=tmpfs:"),
        ("source=/tmp path=/proc/nope/x", "Failed to plug the disk at /proc/nope/x"),
    ],
)
def test_disks_that_cannot_be(lxpyd: Lxpyd, lasting: str, keys: str, said: str) -> None:
    before = lxpyd.json("query", f"/1.0/instances/{lasting}")
    result = lxpyd.cli("config", "device", "add", lasting, "d", "disk", *keys.split(), check=False)
    assert result.returncode == 1 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert lxpyd.json("query", f"/1.0/instances/{lasting}") == before


@pytest.fixture(scope="module")
def lasting(lxpyd: Lxpyd) -> Iterator[str]:
    lxpyd.cli("launch", "bb", "lasting")
    yield "lasting"
    lxpyd.cli("delete", "-f", "lasting")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("create default v/x", "v/x is a snapshot"),
        ("create nope v", "Storage pool 'nope' not found"),
        ("create default -- -v", "Invalid storage volume name"),
        ("create default v size=1GiB", "size is not supported on pool default"),
        ("create default v nope=1", "Unknown key 'nope' of a custom volume"),
        ("create default v snapshots.schedule=daily", "no cron expression"),
        ("create default v snapshots.expiry=soon", "Invalid value for snapshots.expiry"),
        ("create default v snapshots.pattern={{x}}", "Invalid value for snapshots.pattern"),
        ("create default v security.shifted=false", "always mounted through the id map"),
        ("create default v --type block", "containers use filesystem volumes"),
        ("create default there", "already exists on pool 'default'"),
        ("delete default image/x", "belongs to its image"),
        ("show default nope", "Storage volume 'nope' not found on pool 'default'"),
        ("snapshot default there a/b", "Invalid snapshot name"),
        ("restore default there nope", "Snapshot 'nope' of storage volume 'there' not found"),
        ("copy default/there default/there", "already exists"),
        ("copy default/there/nope default/x", "Snapshot 'nope' of storage volume 'there' not found"),
        ("copy default/there default/there --refresh", "cannot be refreshed from itself"),
        ("move default/there nope/x", "Storage pool 'nope' not found"),
        ("attach default there nope /d", "Instance 'nope' not found"),
        ("attach default there lasting data", "an absolute path"),
        ("attach default nope lasting /d", "Storage volume 'nope' not found"),
        ("detach default there lasting", "is not attached to lasting"),
        ("attach-profile default nope default /d", "Storage volume 'nope' not found"),
        ("list nope", "Storage pool 'nope' not found"),
    ],
)
def test_volume_faults(lxpyd: Lxpyd, lasting: str, there: None, command: str, said: str) -> None:
    before = lxpyd.out("storage", "volume", "list", "default", "-f", "json")
    result = lxpyd.cli("storage", "volume", *command.split(), check=False)
    assert result.returncode == 1 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr
    assert lxpyd.out("storage", "volume", "list", "default", "-f", "json") == before


@pytest.fixture(scope="module")
def there(lxpyd: Lxpyd) -> Iterator[None]:
    lxpyd.cli("storage", "volume", "create", "default", "there")
    yield
    lxpyd.cli("storage", "volume", "delete", "default", "there")


def test_copies_moves_and_snapshots(lxpyd: Lxpyd, name: str) -> None:
    """Content, owners, snapshots and configuration go along, between pools and projects."""
    v, cli = f"v-{name}", lxpyd.cli

    def volume(*words: str, **options: Any) -> str:
        return str(cli("storage", "volume", *words, **options).stdout)

    def data(pool: str, name: str, part: str = "data") -> pathlib.Path:
        return lxpyd.dir / "storage-pools" / pool / "custom" / name / part / "f"

    volume(
        "create", "default", v, "user.a=b", "snapshots.pattern=day-%d", "snapshots.expiry=1d 2H", "--description", "D"
    )
    data("default", v).write_text("one")
    os.chown(data("default", v), 33, 44)
    volume("snapshot", "default", v)
    data("default", v).write_text("two")
    volume("snapshot", "default", v, "--no-expiry")
    volume("snapshot", "default", v, "named")
    volume("snapshot", "default", v, "named", "--reuse")
    shown = {one["name"].partition("/")[2]: one for one in
             lxpyd.json("query", f"/1.0/storage-pools/default/volumes/custom/{v}/snapshots?recursion=1")}  # fmt: skip
    assert list(shown) == ["day-0", "day-1", "named"]
    taken, expires = (datetime.datetime.fromisoformat(shown["day-0"][key]) for key in ("created_at", "expires_at"))
    assert abs((expires - taken).total_seconds() - 26 * 3600) < 2
    assert shown["day-1"]["expires_at"].startswith("0001-")
    volume("rename", "default", f"{v}/named", f"{v}/other")
    volume("set", "default", f"{v}/other", "description=kept")
    volume("delete", "default", f"{v}/day-1")

    volume("copy", f"default/{v}", f"plain/{v}-c")
    volume("copy", f"default/{v}/day-0", f"default/{v}-s")
    volume("copy", f"default/{v}", f"default/{v}-o", "--volume-only")
    assert (data("plain", f"{v}-c").stat().st_uid, data("plain", f"{v}-c").stat().st_gid) == (33, 44)
    assert [data(*one).read_text() for one in (
        ("plain", f"{v}-c"), ("plain", f"{v}-c", "snapshots/day-0"), ("default", f"{v}-s"), ("default", f"{v}-o"),
    )] == ["two", "one", "one", "two"]  # fmt: skip
    assert not list(data("default", f"{v}-o").parent.parent.joinpath("snapshots").iterdir())
    assert volume("get", "plain", f"{v}-c", "user.a") == "b\n"

    cli("project", "create", name)
    cli("project", "create", f"{name}-shared", "-c", "features.storage.volumes=false")
    volume("copy", f"default/{v}", f"default/{v}", "--target-project", name)
    assert data("default", f"{name}_{v}", "snapshots/day-0").read_text() == "one"
    volume("delete", "default", v, "--project", name)
    volume("move", f"default/{v}", f"plain/{v}", "--target-project", name)
    assert data("plain", f"{name}_{v}", "snapshots/other").read_text() == "two"
    assert not data("default", v).parent.parent.exists()
    rows = volume("list", "plain", "-f", "csv", "--all-projects", v).splitlines()
    assert f"{name},custom,{v},D,filesystem,0" in rows and f"default,custom,{v}-c,D,filesystem,0" in rows
    assert v not in volume("list", "plain", "-f", "csv", v).split(",")
    assert f"custom,{v}-c,D,filesystem,0" in volume("list", "plain", "-f", "csv", "--project", f"{name}-shared")
    failed = cli("project", "delete", name, check=False)
    assert failed.returncode == 1 and f"volumes/custom/{v}" in failed.stderr
    backup = yaml.safe_load(data("plain", f"{name}_{v}").parents[1].joinpath("backup.yaml").read_text())
    assert (backup["volume"]["project"], backup["volume"]["config"]["user.a"]) == (name, "b")
    assert [one["name"] for one in backup["snapshots"]] == ["day-0", "other"]

    volume("edit", "plain", f"{v}-c", input="config: {user.z: '1'}\ndescription: new\n")
    assert (volume("get", "plain", f"{v}-c", "user.z"), volume("get", "plain", f"{v}-c", "user.a")) == ("1\n", "\n")
    lxpyd.api("PATCH", f"/1.0/storage-pools/plain/volumes/custom/{v}-c/snapshots/day-0",
              {"expires_at": "2020-01-01T00:00:00Z"})  # fmt: skip
    until(lambda: not data("plain", f"{v}-c", "snapshots/day-0").exists(), 5, "an expired snapshot stays")
    volume("delete", "plain", v, "--project", name)
    for project in (name, f"{name}-shared"):
        cli("project", "delete", project)
    volume("delete", "plain", f"{v}-c")
    volume("delete", "default", f"{v}-s", f"{v}-o")


def test_a_volume_of_a_profile(lxpyd: Lxpyd, name: str) -> None:
    """Attached by a profile, running instances get it and lose it; the profile is named among its users."""
    cli, v = lxpyd.cli, f"v-{name}"
    cli("profile", "create", name)
    cli("storage", "volume", "create", "default", v)
    cli("launch", "bb", name, "-p", "default", "-p", name)
    cli("storage", "volume", "attach-profile", "default", v, name, "/p")
    lxpyd.sh(name, "touch /p/f; grep -q ' /p ' /proc/self/mountinfo")
    used = lxpyd.json("query", f"/1.0/storage-pools/default/volumes/custom/{v}")["used_by"]
    assert used == [f"/1.0/instances/{name}", f"/1.0/profiles/{name}"]
    failed = cli("storage", "volume", "detach", "default", v, name, check=False)
    assert failed.returncode == 1 and "detach-profile" in failed.stderr
    cli("storage", "volume", "detach-profile", "default", v, name)
    assert lxpyd.sh(name, "grep -q ' /p ' /proc/self/mountinfo", check=False).returncode
    assert "Used by" not in cli("storage", "volume", "info", "default", v).stdout
    cli("storage", "volume", "delete", "default", v)
    cli("delete", "-f", name)
    cli("profile", "delete", name)


def test_a_privileged_instance_has_disks_too(lxpyd: Lxpyd, name: str) -> None:
    v = f"v-{name}"
    lxpyd.cli("storage", "volume", "create", "default", v)
    lxpyd.cli("launch", "bb", name, "-c", "security.privileged=true")
    lxpyd.cli("storage", "volume", "attach", "default", v, name, "/data")
    lxpyd.sh(name, "echo x > /data/f")
    lxpyd.cli("restart", "-f", name)
    assert lxpyd.sh(name, "cat /data/f").stdout == "x\n"
    lxpyd.cli("storage", "volume", "detach", "default", v, name)
    lxpyd.cli("storage", "volume", "delete", "default", v)

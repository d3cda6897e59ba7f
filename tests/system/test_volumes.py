"""Custom volumes and disk devices, through the command line."""

import pytest

from tests.support.daemon import Lxpyd


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
    assert not list((lxpyd.dir / "storage-pools" / pool / "custom").iterdir())

"""Copies of volumes that are brought up to date: on every driver, and across them."""

import itertools
import pathlib
import subprocess

import pytest

from tests.support.daemon import Lxpyd

DRIVERS = ("overlay", "dir", "btrfs")


def snapshots(daemon: Lxpyd, pool: str, volume: str) -> list[str]:
    found = daemon.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/{volume}/snapshots?recursion=1")
    return [one["name"].partition("/")[2] for one in found]


def data(daemon: Lxpyd, pool: str, volume: str, part: str = "data") -> pathlib.Path:
    return daemon.dir / "storage-pools" / pool / "custom" / volume / part


@pytest.mark.parametrize(("source", "target"), list(itertools.product(DRIVERS, DRIVERS)))
def test_only_what_has_changed(lxpyd: Lxpyd, name: str, pools: dict[str, str], source: str, target: str) -> None:
    v, w, cli = f"v-{name}", f"w-{name}", lxpyd.cli
    one, other = pools[source], pools[target]
    cli("storage", "volume", "create", one, v, "user.k=v")
    cli("launch", "bb", name)
    try:
        cli("storage", "volume", "attach", one, v, name, "/data")
        lxpyd.sh(name, "cd /data; echo a > kept; echo b > changed; echo c > gone; ln kept link; chown 5:6 kept")
        for snapshot in ("s0", "s1"):
            cli("storage", "volume", "snapshot", one, v, snapshot)
        # Where there is none yet it is a copy.
        cli("storage", "volume", "copy", f"{one}/{v}", f"{other}/{w}", "--refresh")
        assert snapshots(lxpyd, other, w) == ["s0", "s1"]
        cli("storage", "volume", "set", other, w, "user.k=mine")
        cli("storage", "volume", "snapshot", other, w, "own")
        (data(lxpyd, other, w) / "there-only").write_text("x")
        lxpyd.sh(name, "cd /data; echo later > changed; rm gone; mkdir new; echo d > new/file")
        cli("storage", "volume", "delete", one, f"{v}/s0")
        cli("storage", "volume", "snapshot", one, v, "s2")
        cli("storage", "volume", "copy", f"{one}/{v}", f"{other}/{w}", "--refresh")
        assert snapshots(lxpyd, other, w) == ["s1", "s2"] == snapshots(lxpyd, one, v)
        for part, changed in (("data", "later\n"), ("snapshots/s2", "later\n"), ("snapshots/s1", "b\n")):
            assert (data(lxpyd, other, w, part) / "changed").read_text() == changed
        top = data(lxpyd, other, w)
        assert sorted(path.name for path in top.iterdir()) == ["changed", "kept", "link", "new"]
        kept = (top / "kept").stat()
        assert (kept.st_uid, kept.st_gid, kept.st_nlink) == (5, 6, 2) and (top / "new/file").read_text() == "d\n"
        assert lxpyd.out("storage", "volume", "get", other, w, "user.k") == "mine"
        # From a snapshot, and without them: those of the target stay.
        cli("storage", "volume", "copy", f"{one}/{v}/s1", f"{other}/{w}", "--refresh")
        assert (top / "changed").read_text() == "b\n" and snapshots(lxpyd, other, w) == ["s1", "s2"]
        assert not list((lxpyd.dir / "storage-pools" / one / "custom" / v / "snapshots").glob("still-*"))
    finally:
        cli("delete", "-f", name)
        for pool, volume in ((one, v), (other, w)):
            cli("storage", "volume", "delete", pool, volume, check=False)


def test_nothing_that_is_the_same_is_copied(lxpyd: Lxpyd, name: str) -> None:
    v, w = f"v-{name}", f"w-{name}"
    lxpyd.cli("storage", "volume", "create", "plain", v)
    subprocess.run(["dd", "if=/dev/urandom", f"of={data(lxpyd, 'plain', v)}/big", "bs=1M", "count=30"], check=True,
                   capture_output=True)  # fmt: skip
    lxpyd.cli("storage", "volume", "copy", f"plain/{v}", f"default/{w}")
    before = (data(lxpyd, "default", w) / "big").stat().st_ino
    (data(lxpyd, "plain", v) / "small").write_text("new")
    lxpyd.cli("storage", "volume", "copy", f"plain/{v}", f"default/{w}", "--refresh")
    assert (data(lxpyd, "default", w) / "small").read_text() == "new"
    assert (data(lxpyd, "default", w) / "big").stat().st_ino == before
    for pool, volume in (("plain", v), ("default", w)):
        lxpyd.cli("storage", "volume", "delete", pool, volume)


def test_what_is_refused(lxpyd: Lxpyd, busybox: str) -> None:
    v, w = f"v-{busybox}", f"w-{busybox}"
    for volume in (v, w):
        lxpyd.cli("storage", "volume", "create", "plain", volume)
    lxpyd.cli("storage", "volume", "attach", "plain", w, busybox, "/data")
    for target, words in ((v, "cannot be refreshed from itself"), (w, f"in use by the running {busybox}: stop it")):
        said = lxpyd.cli("storage", "volume", "copy", f"plain/{v}", f"plain/{target}", "--refresh", check=False)
        assert said.returncode == 1 and words in said.stderr and said.stderr.count("\n") == 1, said.stderr
    lxpyd.cli("delete", "-f", busybox)
    for volume in (v, w):
        lxpyd.cli("storage", "volume", "delete", "plain", volume)

"""Copies and moves of instances by the command line and the API, on every driver and across them."""

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support import projects
from tests.support.daemon import Lxpyd, until

DRIVERS = ("overlay", "dir", "btrfs")


@pytest.fixture(params=DRIVERS)
def running(request: pytest.FixtureRequest, lxpyd: Lxpyd, pools: dict[str, str], name: str) -> Iterator[str]:
    """A running busybox container on each of them, with a snapshot."""
    lxpyd.cli("launch", "bb", name, "-s", pools[request.param], "-c", "user.k=v")
    _in(lxpyd, name, "echo first > /file; ln /file /link; rm /etc/inittab.none; true")
    lxpyd.cli("snapshot", name, "s")
    _in(lxpyd, name, "echo second > /file; chown 5:6 /file; mkdir -m 700 /own")
    yield name
    lxpyd.sweep(name)


def _in(lxpyd: Lxpyd, name: str, script: str) -> str:
    return lxpyd.sh(name, script).stdout


def _names(lxpyd: Lxpyd, name: str, project: str = "default") -> list[str]:
    found = lxpyd.json("query", f"/1.0/instances/{name}/snapshots?recursion=1&project={project}")
    return [one["name"] for one in found]


def _refused(lxpyd: Lxpyd, *args: str) -> str:
    return projects.refused(lxpyd.cli(*args, check=False))


def _pool(lxpyd: Lxpyd, name: str) -> str:
    return lxpyd.instance(name)["expanded_devices"]["root"]["pool"]


def _check(lxpyd: Lxpyd, copy: str, content: str = "second\n") -> None:
    """A copy is what its source was, and starts."""
    lxpyd.cli("start", copy)
    assert _in(lxpyd, copy, "cat /link; hostname") == f"{content}{copy}\n"
    if content == "second\n":
        assert _in(lxpyd, copy, "stat -c '%u %g %h' /file; stat -c %a /own") == "5 6 2\n700\n"
    lxpyd.cli("stop", "-f", copy)


def test_copies_of_a_running_instance(lxpyd: Lxpyd, running: str, pools: dict[str, str]) -> None:
    c = running
    assert f"{c} stood still for " in lxpyd.out("copy", c, f"{c}-a")
    source, copy = lxpyd.instance(c), lxpyd.instance(f"{c}-a")
    assert source["status"] == "Running" and copy["status"] == "Stopped"
    assert _names(lxpyd, f"{c}-a") == ["s"] and copy["config"]["user.k"] == "v"
    for key in ("volatile.uuid", "volatile.cloud-init.instance-id"):
        assert copy["config"][key] != source["config"][key]
    assert "volatile.eth0.hwaddr" not in copy["config"] and "volatile.eth0.host_name" not in copy["config"]
    assert copy["config"]["volatile.base_image"] == source["config"]["volatile.base_image"]
    _check(lxpyd, f"{c}-a")
    own = lxpyd.instance(f"{c}-a")["config"]
    lxpyd.cli("restore", f"{c}-a", "s")
    # The snapshot's are the source's.
    for key in ("volatile.eth0.hwaddr", "volatile.uuid", "volatile.cloud-init.instance-id"):
        assert lxpyd.instance(f"{c}-a")["config"][key] == own[key] != source["config"][key]
    _check(lxpyd, f"{c}-a", "first\n")
    lxpyd.cli("copy", c, f"{c}-b", "--instance-only", "-c", "user.k=w", "-c", "user.new=1", "-e")
    copy = lxpyd.instance(f"{c}-b")
    assert _names(lxpyd, f"{c}-b") == [] and copy["ephemeral"]
    assert (copy["config"]["user.k"], copy["config"]["user.new"]) == ("w", "1")
    lxpyd.cli("copy", f"{c}/s", f"{c}-c")
    assert _names(lxpyd, f"{c}-c") == []
    _check(lxpyd, f"{c}-c", "first\n")
    for pool in set(pools.values()) - {_pool(lxpyd, c)}:
        lxpyd.cli("copy", c, f"{c}-{pool}", "-s", pool)
        assert _pool(lxpyd, f"{c}-{pool}") == pool and _names(lxpyd, f"{c}-{pool}") == ["s"]
        _check(lxpyd, f"{c}-{pool}")
        lxpyd.cli("restore", f"{c}-{pool}", "s")
        _check(lxpyd, f"{c}-{pool}", "first\n")
    assert _names(lxpyd, c) == ["s"]
    for directory in lxpyd.dir.glob(f"storage-pools/*/instances/{c}*/snapshots"):
        assert [one.name for one in directory.iterdir()] == ["s"]
    assert lxpyd.out("exec", c, "--", "cat", "/link") == "second"


def test_refresh(lxpyd: Lxpyd, running: str, pools: dict[str, str]) -> None:
    """What has changed comes along, snapshots that are new, too; what is gone goes; the rest is not copied again."""
    c = running
    _in(lxpyd, c, "head -c 4000000 /dev/urandom > /big; sync")
    lxpyd.cli("snapshot", c, "gone")
    for pool in pools.values():
        d = f"{c}-{pool}"
        lxpyd.cli("copy", c, d, "-s", pool, "--refresh")  # there is none yet: a copy
        lxpyd.cli("config", "set", d, "user.mine=1")
    lxpyd.cli("delete", f"{c}/gone")
    _in(lxpyd, c, "echo third > /file; rmdir /own; touch /new; ln -s /etc/passwd /sym")
    lxpyd.cli("snapshot", c, "t")
    _in(lxpyd, c, "echo fourth > /file")
    for pool in pools.values():
        d = f"{c}-{pool}"
        lxpyd.cli("copy", c, d, "--refresh")
        assert _names(lxpyd, d) == ["s", "t"] and lxpyd.instance(d)["config"]["user.mine"] == "1"
        _check(lxpyd, d, "fourth\n")
        lxpyd.cli("start", d)
        assert _in(lxpyd, d, "ls -d /own /new; readlink /sym; stat -c %h /file; true") == "/new\n/etc/passwd\n2\n"
        digest = _in(lxpyd, c, "md5sum /big")
        assert _in(lxpyd, d, "md5sum /big") == digest
        assert "is running" in _refused(lxpyd, "copy", c, d, "--refresh")
        lxpyd.cli("stop", "-f", d)
        lxpyd.cli("restore", d, "t")
        _check(lxpyd, d, "third\n")
        lxpyd.cli("copy", c, d, "--refresh", "--instance-only")
        _check(lxpyd, d, "fourth\n")
    assert "cannot be refreshed from itself" in _refused(lxpyd, "copy", c, c, "--refresh")


def test_moves(lxpyd: Lxpyd, running: str, pools: dict[str, str]) -> None:
    c = running
    home = _pool(lxpyd, c)
    assert "is running: stop it" in _refused(lxpyd, "move", c, "-s", "plain" if home != "plain" else "default")
    assert "is running: stop it" in _refused(lxpyd, "move", c, f"{c}-x")
    lxpyd.cli("stop", "-f", c)
    before = lxpyd.instance(c)
    for pool in [one for one in pools.values() if one != home] + [home]:
        lxpyd.cli("move", c, "-s", pool)
        after = lxpyd.instance(c)
        assert _pool(lxpyd, c) == pool and _names(lxpyd, c) == ["s"]
        assert {k: v for k, v in after["config"].items() if "last_state" not in k} == {
            k: v for k, v in before["config"].items() if "last_state" not in k
        }
        places = [str(one.parent.parent.name) for one in lxpyd.dir.glob(f"storage-pools/*/instances/{c}")]
        assert places == [pool]
        _check(lxpyd, c)
        before = lxpyd.instance(c)
    other = next(one for one in pools.values() if one != home)
    lxpyd.cli("move", c, f"{c}-n", "-s", other, "--instance-only", "-c", "user.k=moved")
    assert _pool(lxpyd, f"{c}-n") == other and _names(lxpyd, f"{c}-n") == []
    assert lxpyd.instance(f"{c}-n")["config"]["user.k"] == "moved"
    lxpyd.cli("move", f"{c}-n", f"{c}-m")
    _check(lxpyd, f"{c}-m")
    lxpyd.cli("snapshot", f"{c}-m", "a")
    lxpyd.cli("move", f"{c}-m/a", f"{c}-m/b")
    assert _names(lxpyd, f"{c}-m") == ["b"]


def test_across_projects(lxpyd: Lxpyd, name: str, project: str) -> None:
    lxpyd.cli("launch", "bb", name)
    _in(lxpyd, name, "echo 1 > /f")
    lxpyd.cli("snapshot", name, "s")
    lxpyd.cli("copy", name, "--target-project", project)
    lxpyd.cli("copy", name, f"{name}-other", "--target-project", project, "-s", "plain")
    assert _names(lxpyd, name, project) == ["s"]
    lxpyd.cli("start", name, "--project", project)
    assert lxpyd.out("exec", name, "--project", project, "--", "cat", "/f") == "1"
    lxpyd.cli("copy", name, f"{name}-back", "--project", project, "--target-project", "default")
    assert lxpyd.instance(f"{name}-back")["status"] == "Stopped"
    lxpyd.cli("stop", "-f", name)
    assert "already exists" in _refused(lxpyd, "move", name, "--target-project", project)
    lxpyd.cli("move", name, f"{name}-moved", "--target-project", project)
    listed = lxpyd.json("list", "--project", project, "-f", "json")
    assert sorted(one["name"] for one in listed) == [name, f"{name}-moved", f"{name}-other"]
    assert name not in [one["name"] for one in lxpyd.json("list", "-f", "json")]
    lxpyd.cli("start", f"{name}-moved", "--project", project)
    lxpyd.restart()
    assert lxpyd.out("exec", f"{name}-moved", "--project", project, "--", "cat", "/f") == "1"
    lxpyd.cli("stop", "-f", f"{name}-moved", "--project", project)
    lxpyd.cli("move", f"{name}-moved", name, "--project", project, "--target-project", "default", "-s", "plain")
    assert _names(lxpyd, name) == ["s"] and _pool(lxpyd, name) == "plain"
    lxpyd.cli("project", "set", project, "limits.instances=2")
    assert "limits.instances=2" in _refused(lxpyd, "copy", name, "third", "--target-project", project)
    assert "limits.instances=2" in _refused(lxpyd, "move", name, "third", "--target-project", project)
    lxpyd.cli("project", "set", project, "limits.instances=", "restricted=true", "restricted.devices.nic=allow")
    assert "restricted.snapshots is block" in _refused(lxpyd, "move", name, "third", "--target-project", project)
    lxpyd.cli("copy", name, "third", "--target-project", project, "--instance-only")
    assert "not found" in _refused(lxpyd, "move", name, "--target-project", "nope")


def test_devices_and_profiles(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "set", name, "user.p=1")
    lxpyd.cli("init", "bb", name)
    try:
        lxpyd.cli("copy", name, f"{name}-a", "-p", "default", "-p", name, "-d", "eth0,hwaddr=00:16:3e:00:00:09")
        copy = lxpyd.instance(f"{name}-a")
        assert copy["profiles"] == ["default", name] and copy["expanded_config"]["user.p"] == "1"
        device = copy["devices"]["eth0"]
        assert device["hwaddr"] == "00:16:3e:00:00:09" and device["network"] == lxpyd.bridge
        lxpyd.cli("copy", name, f"{name}-b", "--no-profiles", "-s", "plain")
        copy = lxpyd.instance(f"{name}-b")
        assert copy["profiles"] == [] and copy["devices"] == {"root": {"path": "/", "pool": "plain", "type": "disk"}}
        assert "No root device" in _refused(lxpyd, "copy", name, f"{name}-c", "--no-profiles")
        lxpyd.cli("move", f"{name}-b", "-p", "default")
        assert lxpyd.instance(f"{name}-b")["profiles"] == ["default"]
        assert "'nope' not found" in _refused(lxpyd, "copy", name, f"{name}-c", "-p", "nope")
    finally:
        lxpyd.sweep(name)
        lxpyd.cli("profile", "delete", name)


def test_what_is_refused_changes_nothing(lxpyd: Lxpyd, busybox: str) -> None:
    c = busybox
    lxpyd.cli("init", "bb", f"{c}-there")
    before = lxpyd.snapshot()
    for args, words in (
        (("copy", c, f"{c}-there"), "already exists (bring it up to date with --refresh)"),
        (("copy", c), "missing argument"),
        (("copy", c, "a_b"), "Invalid instance name"),
        (("copy", f"{c}/nope", f"{c}-x"), "'nope' of instance"),
        (("copy", f"{c}-nope", f"{c}-x"), "not found"),
        (("copy", c, f"{c}-x", "-s", "nope"), "'nope' not found"),
        (("copy", c, f"{c}-x", "-c", "limits.memry=1"), "did you mean 'limits.memory'"),
        (("copy", c, f"{c}-x", "-d", "root"), "expecting <device>,<key>=<value>"),
        (("copy", c, f"{c}-x", "-d", "root,size=1GiB"), "size is not supported on pool"),
        (("copy", c, f"{c}-x", "--mode", "beam"), "--mode must be"),
        (("copy", c, f"{c}-x", "--target", "m1"), "There is no cluster"),
        (("copy", c, f"{c}-x", "--target-project", "nope"), "Project 'nope' not found"),
        (("move", f"{c}-there", "-s", "nope"), "'nope' not found"),
        (("move", f"{c}-there"), "missing argument"),
        (("move", f"{c}-there", c), "already exists"),
        (("move", f"{c}-there", "-c", "limits.memry=1"), "did you mean 'limits.memory'"),
    ):
        assert words in _refused(lxpyd, *args), args
        assert lxpyd.snapshot() == before, args


def test_a_full_disk(lxpyd: Lxpyd, name: str) -> None:
    """No room for a copy or a move: one line, nothing is left, and the source is what it was."""
    place = lxpyd.dir / f"small-{name}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=10m", "none", str(place)], check=True)
    try:
        (place / "pool").mkdir()
        lxpyd.cli("storage", "create", name, "dir", f"source={place}/pool")
        lxpyd.cli("launch", "bb", name)
        _in(lxpyd, name, "head -c 12000000 /dev/urandom > /big")
        said = f"no space left on pool {name}"
        assert said in _refused(lxpyd, "copy", name, f"{name}-a", "-s", name)
        lxpyd.cli("stop", "-f", name)
        assert said in _refused(lxpyd, "move", name, "-s", name)
        assert _pool(lxpyd, name) == "default" and list((place / "pool/instances").iterdir()) == []
        until(lambda: not list((place / "pool/tmp").iterdir()), 5, "half a copy stays")
        assert [one["name"] for one in lxpyd.json("list", name, "-f", "json")] == [name]
        lxpyd.cli("start", name)
        assert _in(lxpyd, name, "ls -l /big | wc -l") == "1\n"
    finally:
        lxpyd.cli("delete", "-f", name, check=False)
        lxpyd.cli("storage", "delete", name, check=False)
        subprocess.run(["umount", str(place)], check=True)
        pathlib.Path(place).rmdir()

"""Snapshots of instances by the command line and the API, on every driver."""

import datetime
import http.client
import json
import pathlib
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lxpy.linux.cgroups import hierarchies
from tests.support import projects
from tests.support.daemon import Lxpyd, until

NEVER = "0001-01-01T00:00:00Z"


@pytest.fixture(params=["overlay", "dir", "btrfs"])
def running(request: pytest.FixtureRequest, lxpyd: Lxpyd, pools: dict[str, str], name: str) -> Iterator[str]:
    """A running busybox container on each of them."""
    lxpyd.cli("launch", "bb", name, "-s", pools[request.param])
    yield name
    lxpyd.sweep(name)


def _ask(lxpyd: Lxpyd, method: str, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    connection = http.client.HTTPConnection("lxpy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(lxpyd.layout.socket)
    connection.request(method, path, json.dumps(body), {key.replace("_", "-"): value for key, value in headers.items()})
    answer = connection.getresponse()
    found = json.loads(answer.read())
    connection.close()
    return answer.status, found


def _names(lxpyd: Lxpyd, name: str) -> list[str]:
    found = lxpyd.json("query", f"/1.0/instances/{name}/snapshots?recursion=1")
    return [one["name"] for one in found]


def _refused(lxpyd: Lxpyd, *args: str) -> str:
    return projects.refused(lxpyd.cli(*args, check=False))


def _in(lxpyd: Lxpyd, name: str, script: str) -> str:
    return lxpyd.sh(name, script).stdout


def test_take_and_restore(lxpyd: Lxpyd, running: str) -> None:
    c = running
    _in(lxpyd, c, "echo first > /root/file; ln /root/file /root/link; rm /etc/hostname; mkdir /root/d")
    said = lxpyd.out("snapshot", c, "s1")
    assert said.startswith(f"Snapshot {c}/s1 taken, {c} stood still for ") and said.endswith(" ms")
    assert lxpyd.instance(c)["status"] == "Running" and _in(lxpyd, c, "cat /root/link") == "first\n"
    lxpyd.cli("config", "set", c, "user.k=v", "limits.memory=64MiB")
    _in(lxpyd, c, "echo second > /root/file; rm -r /root/d; touch /new")
    assert lxpyd.out("snapshot", c).startswith(f"Snapshot {c}/snap0 taken")
    assert _names(lxpyd, c) == ["s1", "snap0"]
    before = lxpyd.instance(c)["config"]["volatile.eth0.hwaddr"]
    lxpyd.cli("restore", c, "s1")
    assert lxpyd.instance(c)["status"] == "Running"  # it was
    assert _in(lxpyd, c, "cat /root/link; ls -d /root/d /etc/hostname /new 2>/dev/null; true") == "first\n/root/d\n"
    config = lxpyd.instance(c)["config"]
    assert "user.k" not in config and "limits.memory" not in config and config["volatile.eth0.hwaddr"] == before
    lxpyd.cli("stop", "-f", c)
    lxpyd.cli("restore", f"{c}/snap0")
    assert lxpyd.instance(c)["status"] == "Stopped" and lxpyd.instance(c)["config"]["user.k"] == "v"
    lxpyd.cli("start", c)
    assert _in(lxpyd, c, "cat /root/link; ls -d /root/d /new 2>/dev/null; true") == "second\n/new\n"
    assert "stood still" not in lxpyd.out("stop", "-f", c) + lxpyd.out("snapshot", c, "cold")
    backup = yaml.safe_load(until(lambda: _backup(lxpyd, c, "cold"), 5, "backup.yaml is old"))
    assert [one["name"] for one in backup["snapshots"]] == ["s1", "snap0", "cold"]
    assert not {"creating", "freezes"} & set(backup["snapshots"][0])


def _backup(lxpyd: Lxpyd, name: str, word: str) -> str:
    (path,) = (*lxpyd.dir.glob(f"storage-pools/*/instances/{name}/backup.yaml"),)
    text = path.read_text()
    return text if word in text else ""


def test_a_snapshot_is_one_moment(lxpyd: Lxpyd, running: str) -> None:
    """A guest writes the same number to two files, one after the other: a snapshot shows them at most one apart."""
    _in(
        lxpyd, running,
        "i=0; (while :; do i=$((i+1)); echo $i > /a.new; mv /a.new /a; echo $i > /b.new; mv /b.new /b; done) "
        ">/dev/null 2>&1 </dev/null & sleep 0.3",
    )  # fmt: skip
    for number in range(4):
        lxpyd.cli("snapshot", running, f"s{number}")
    for number in range(4):
        lxpyd.cli("restore", running, f"s{number}")
        a, b = map(int, _in(lxpyd, running, "cat /a /b").split())
        assert a - b in (0, 1), number


def test_names_rename_reuse_delete(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("config", "set", name, "snapshots.pattern=auto-%d", "snapshots.expiry=2d")
    lxpyd.cli("snapshot", name)
    lxpyd.cli("snapshot", name)
    lxpyd.cli("snapshot", name, "kept", "--no-expiry")
    found = {one["name"]: one for one in lxpyd.json("query", f"/1.0/instances/{name}/snapshots?recursion=1")}
    assert list(found) == ["auto-0", "auto-1", "kept"] and found["kept"]["expires_at"] == NEVER
    made, ends = (datetime.datetime.fromisoformat(found["auto-0"][key]) for key in ("created_at", "expires_at"))
    assert abs(ends - made - datetime.timedelta(days=2)) < datetime.timedelta(seconds=2)
    assert "already exists" in _refused(lxpyd, "snapshot", name, "kept")
    lxpyd.cli("snapshot", name, "kept", "--reuse")
    assert lxpyd.json("query", f"/1.0/instances/{name}/snapshots/kept")["expires_at"] != NEVER
    lxpyd.cli("rename", f"{name}/auto-1", f"{name}/second")
    lxpyd.cli("rename", f"{name}/second", "third")
    assert "stays with its instance" in _refused(lxpyd, "rename", f"{name}/third", "other/third")
    assert "already exists" in _refused(lxpyd, "rename", f"{name}/third", f"{name}/kept")
    assert _names(lxpyd, name) == ["auto-0", "third", "kept"]
    assert f"{name},3" in lxpyd.out("list", "-f", "csv", "-c", "nS")
    info = lxpyd.out("info", name)
    assert "Snapshots:" in info and "third" in info and "STATEFUL" in info
    shown = yaml.safe_load(lxpyd.out("config", "show", f"{name}/third"))
    assert shown["config"]["snapshots.expiry"] == "2d" and shown["name"] == "third" and "expanded_config" not in shown
    lxpyd.cli("config", "edit", f"{name}/third", input="expires_at: 2999-01-01T00:00:00Z\n")
    assert lxpyd.out("config", "get", "-p", f"{name}/third", "expires_at") == "2999-01-01T00:00:00Z"
    lxpyd.cli("config", "set", "-p", f"{name}/third", f"expires_at={NEVER}")
    assert lxpyd.out("config", "get", "-p", f"{name}/third", "expires_at") == NEVER
    assert "Only the property expires_at" in _refused(lxpyd, "config", "set", f"{name}/third", "user.k=v")
    lxpyd.cli("delete", f"{name}/auto-0", f"{name}/third")
    assert _names(lxpyd, name) == ["kept"]
    lxpyd.restart(kill=True)
    assert _names(lxpyd, name) == ["kept"]
    lxpyd.cli("delete", name)  # with its snapshots
    assert not list(lxpyd.dir.glob(f"storage-pools/default/instances/{name}"))


def test_what_is_refused_changes_nothing(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("snapshot", name, "s")
    before = lxpyd.snapshot()
    place = f"/1.0/instances/{name}/snapshots"
    cases = [
        ("POST", place, {"name": "s"}, 409, "already exists"),
        ("POST", place, {"name": "a/b"}, 400, "Invalid snapshot name"),
        ("POST", place, {"name": ".."}, 400, "Invalid snapshot name"),
        ("POST", place, {"name": "t", "stateful": True}, 400, "memory of a running instance is not supported"),
        ("POST", place, {"name": "t", "expires_at": "soon"}, 400, "Invalid expires_at"),
        ("POST", f"/1.0/instances/{name}-x/snapshots", {"name": "t"}, 404, "not found"),
        ("POST", f"{place}/s", {"name": "s"}, 409, "already exists"),
        ("POST", f"{place}/s", {"name": "t", "migration": True}, 400, "copy it"),
        ("POST", f"{place}/x", {"name": "t"}, 404, "'x' of instance"),
        ("GET", f"{place}/x", None, 404, "'x' of instance"),
        ("DELETE", f"{place}/x", None, 404, "'x' of instance"),
        ("PUT", f"{place}/s", {"expires_at": "soon"}, 400, "Invalid expires_at"),
        ("PUT", f"/1.0/instances/{name}", {"restore": "x"}, 404, "'x' of instance"),
        ("PUT", f"/1.0/instances/{name}", {"restore": "other/s"}, 400, "no snapshot of"),
        ("PUT", f"/1.0/instances/{name}", {"restore": "s", "stateful": True}, 400, "holds no memory"),
    ]
    for method, path, body, status, words in cases:
        code, answer = _ask(lxpyd, method, path, body)
        assert (code, answer["type"]) == (status, "error") and words in answer["error"], (method, path, answer)
    code, answer = _ask(lxpyd, "PUT", f"{place}/s", {"expires_at": NEVER}, If_Match="0" * 64)
    assert code == 412, answer
    assert lxpyd.snapshot() == before and _names(lxpyd, name) == ["s"]
    for wrong in (("snapshot",), ("snapshot", f"{name}/s"), ("restore", name), ("snapshot", name, "--stateful")):
        assert "Error: " in _refused(lxpyd, *wrong)
    lxpyd.cli("config", "set", name, "snapshots.pattern=no%d")
    assert "Invalid value for snapshots.pattern" in _refused(lxpyd, "config", "set", name, "snapshots.pattern={{ x }}")
    assert "Invalid value for snapshots.expiry" in _refused(lxpyd, "config", "set", name, "snapshots.expiry=soon")


def test_restoring_needs_what_it_was_made_of(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("storage", "volume", "create", "default", name)
    lxpyd.cli("launch", "bb", name, "-p", "default", "-p", name)
    lxpyd.cli("storage", "volume", "attach", "default", name, name, "/v")
    lxpyd.cli("snapshot", name, "s")
    lxpyd.cli("profile", "remove", name, name)
    lxpyd.cli("storage", "volume", "detach", "default", name, name)
    lxpyd.cli("profile", "delete", name)
    try:
        assert f"had the profile '{name}' then" in _refused(lxpyd, "restore", name, "s")
        lxpyd.cli("profile", "create", name)
        lxpyd.cli("storage", "volume", "delete", "default", name)
        assert f"'{name}' not found" in _refused(lxpyd, "restore", name, "s")
        assert lxpyd.instance(name)["status"] == "Running"
        lxpyd.cli("storage", "volume", "create", "default", name)
        lxpyd.cli("restore", name, "s")
        assert "/v" in _in(lxpyd, name, "grep ' /v ' /proc/mounts") and lxpyd.instance(name)["profiles"][1] == name
    finally:
        lxpyd.cli("delete", "-f", name)
        lxpyd.cli("profile", "delete", name)
        lxpyd.cli("storage", "volume", "delete", "default", name)


def test_a_project_may_forbid_them(lxpyd: Lxpyd, project: str) -> None:
    lxpyd.cli("init", "bb", "c", "--project", project)
    lxpyd.cli("snapshot", "c", "s", "--project", project)
    lxpyd.cli("project", "set", project, "restricted=true", "restricted.devices.nic=allow")
    assert "restricted.snapshots is block" in _refused(lxpyd, "snapshot", "c", "t", "--project", project)
    lxpyd.cli("project", "set", project, "restricted.snapshots=allow")
    lxpyd.cli("snapshot", "c", "t", "--project", project)
    assert lxpyd.json("query", f"/1.0/instances/c/snapshots?project={project}") == [
        f"/1.0/instances/c/snapshots/{one}?project={project}" for one in "st"
    ]


def test_an_image_in_use_by_a_snapshot_only(lxpyd: Lxpyd, name: str) -> None:
    """The record of the image goes at once, its files with the last snapshot that lies over them."""
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("snapshot", name, "s")
    fingerprint = lxpyd.instance(name)["config"]["volatile.base_image"]
    lxpyd.restart()
    held = lxpyd.dir / f"storage-pools/default/images/{fingerprint}"
    assert held.exists()
    lxpyd.cli("restore", name, "s")
    lxpyd.cli("start", name)
    assert _in(lxpyd, name, "ls /bin/busybox") == "/bin/busybox\n"


def test_a_full_disk(lxpyd: Lxpyd, name: str) -> None:
    """No room for a snapshot: one line, the instance goes on, and nothing is left."""
    place = lxpyd.dir / f"small-{name}"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", str(place)], check=True)
    try:
        (place / "pool").mkdir()
        lxpyd.cli("storage", "create", name, "dir", f"source={place}/pool")
        lxpyd.cli("launch", "bb", name, "-s", name)
        _in(lxpyd, name, "dd if=/dev/urandom of=/big bs=1M count=5")
        said = _refused(lxpyd, "snapshot", name, "s")
        assert f"no space left on pool {name}" in said
        assert lxpyd.instance(name)["status"] == "Running" and _names(lxpyd, name) == []
        assert _in(lxpyd, name, "echo goes on") == "goes on\n"
        until(lambda: not list((place / "pool/tmp").iterdir()), 5, "half a snapshot stays")
        assert not list(place.glob("pool/instances/*/snapshots/*"))
        _in(lxpyd, name, "rm /big; dd if=/dev/urandom of=/big bs=1M count=1")
        lxpyd.cli("snapshot", name, "s")
        _in(lxpyd, name, "dd if=/dev/urandom of=/more bs=1M count=30 2>/dev/null; true")
        assert f"no space left on pool {name}" in _refused(lxpyd, "restore", name, "s")
        assert lxpyd.instance(name)["status"] == "Running"
        assert _in(lxpyd, name, "ls /more") == "/more\n"  # nothing has changed
        _in(lxpyd, name, "rm /more")
        lxpyd.cli("restore", name, "s")
    finally:
        lxpyd.cli("delete", "-f", name, check=False)
        lxpyd.cli("storage", "delete", name, check=False)
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


def test_two_at_once_wait_for_each_other(lxpyd: Lxpyd, busybox: str) -> None:
    results: list[int] = []

    def snap(word: str) -> None:
        results.append(lxpyd.cli("snapshot", busybox, word, check=False).returncode)

    threads = [threading.Thread(target=snap, args=(word,)) for word in ("a", "b", "a", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0, 0, 0, 1] and sorted(_names(lxpyd, busybox)) == ["a", "b", "c"]


def test_a_daemon_killed_while_the_guest_stands_still(own_lxpyd: Lxpyd) -> None:
    """The next one lets it go on, and takes half a snapshot away."""
    own_lxpyd.cli("launch", "bb", "c", "-s", "plain")
    own_lxpyd.sh(
        "c", "dd if=/dev/zero of=/big bs=1M count=300 2>/dev/null; (while :; do echo x >> /big; done) "
        ">/dev/null 2>&1 </dev/null &",
    )  # fmt: skip
    process = own_lxpyd.spawn("snapshot", "c", "s")
    place = f"{hierarchies().unified}/{own_lxpyd.layout.cgroup_prefix}.payload.c"
    freeze = pathlib.Path(place, "cgroup.freeze")
    end = time.monotonic() + 10
    while freeze.read_text() != "1\n" and time.monotonic() < end:
        time.sleep(0.0005)
    own_lxpyd.kill()
    process.communicate(timeout=10)
    assert freeze.read_text() == "1\n", "the snapshot was too quick for this test"
    own_lxpyd.start()
    assert freeze.read_text() == "0\n" and own_lxpyd.instance("c")["status"] == "Running"
    assert _names(own_lxpyd, "c") == [] and own_lxpyd.sh("c", "echo on").stdout == "on\n"
    until(lambda: not list(own_lxpyd.dir.glob("storage-pools/*/tmp/*")), 10, "half a snapshot stays")


def test_schedules(lxpyd: Lxpyd, name: str) -> None:
    """A minute comes round: running instances and volumes are snapshotted, each plan by its own rules."""
    every = "* * * * *"
    lxpyd.cli("launch", "bb", name)
    lxpyd.cli("init", "bb", f"{name}-off")
    lxpyd.cli("init", "bb", f"{name}-kept", "-c", "snapshots.schedule.stopped=true")
    lxpyd.cli("snapshot", f"{name}-kept", "mine")
    lxpyd.cli("storage", "volume", "create", "default", name)
    lxpyd.cli("profile", "create", name)
    lxpyd.cli("profile", "set", name, "snapshots.schedule=@startup", "snapshots.expiry=1M")
    lxpyd.cli("launch", "bb", f"{name}-start", "-p", "default", "-p", name)
    try:
        until(lambda: _names(lxpyd, f"{name}-start") == ["snap0"], 10, "no snapshot at the start")
        lxpyd.cli("config", "set", "-p", f"{name}-start/snap0", "expires_at=2020-01-01T00:00:00Z")
        until(lambda: not _names(lxpyd, f"{name}-start"), 10, "an expired snapshot stays")
        lxpyd.kill(signal.SIGTERM)
        # Schedules are in the host's own time. Where that is off by some seconds, the next minute begins when we like.
        lxpyd.start(TZ=f"LXP0:00:{int(time.time() + 9) % 60:02}")
        lxpyd.cli("config", "set", name, f"snapshots.schedule={every}", "snapshots.pattern=plain-%d")
        lxpyd.cli("config", "set", f"{name}-off", f"snapshots.schedule={every}")
        kept = (f"snapshots.schedules.m{key}" for key in (f"={every}", ".keep=1", ".expiry=1w"))
        lxpyd.cli("config", "set", f"{name}-kept", *kept)
        lxpyd.cli("storage", "volume", "set", "default", name, f"snapshots.schedules.v={every}")
        volume = f"/1.0/storage-pools/default/volumes/custom/{name}/snapshots"
        until(lambda: _names(lxpyd, name) and lxpyd.json("query", volume), 75, "nothing was made as planned", 0.5)
        until(lambda: "m-0" in _names(lxpyd, f"{name}-kept"), 10, "nothing was made of a stopped instance")
        assert _names(lxpyd, name)[0] == "plain-0" and lxpyd.json("query", volume)[0].endswith("/v-0")
        assert _names(lxpyd, f"{name}-off") == [] and _names(lxpyd, f"{name}-kept") == ["mine", "m-0"]
        assert lxpyd.json("query", f"/1.0/instances/{name}-kept/snapshots/m-0")["expires_at"] != NEVER
        said = _refused(lxpyd, "config", "set", name, "snapshots.schedules.x.keep=2")
        assert "set snapshots.schedules.x, too" in said
        assert "no cron expression" in _refused(lxpyd, "config", "set", name, "snapshots.schedule=daily")
    finally:
        if lxpyd.process is not None:
            lxpyd.kill(signal.SIGTERM)
        lxpyd.start()
        lxpyd.sweep(name)
        lxpyd.cli("storage", "volume", "delete", "default", name)
        lxpyd.cli("profile", "delete", name)


def test_each_snapshot_tells_what_it_goes_on_from(lxpyd: Lxpyd, busybox: str) -> None:
    """Taken, restored, renamed, deleted, copied, killed: the tree stays right."""

    def bases() -> dict[str, str]:
        found = lxpyd.json("query", f"/1.0/instances/{busybox}/snapshots?recursion=1")
        tree = {one["name"]: one["config"].get("volatile.base_snapshot", "") for one in found}
        return tree | {"": lxpyd.instance(busybox)["config"].get("volatile.base_snapshot", "")}

    lxpyd.cli("stop", "-f", busybox)
    for name in ("a", "b"):
        lxpyd.cli("snapshot", busybox, name)
    assert bases() == {"a": "", "b": "a", "": "b"}
    lxpyd.cli("restore", busybox, "a")
    assert bases()[""] == "a"
    lxpyd.cli("snapshot", busybox, "c")
    assert bases() == {"a": "", "b": "a", "c": "a", "": "c"}
    lxpyd.cli("rename", f"{busybox}/a", f"{busybox}/first")
    assert bases() == {"first": "", "b": "first", "c": "first", "": "c"}
    lxpyd.cli("copy", busybox, f"{busybox}-copy")
    assert lxpyd.instance(f"{busybox}-copy")["config"]["volatile.base_snapshot"] == "c"
    lxpyd.cli("delete", f"{busybox}-copy")
    lxpyd.cli("copy", f"{busybox}/b", f"{busybox}-copy")
    assert "volatile.base_snapshot" not in lxpyd.instance(f"{busybox}-copy")["config"]
    lxpyd.cli("delete", f"{busybox}-copy")
    lxpyd.cli("delete", f"{busybox}/c")
    assert bases() == {"first": "", "b": "first", "": "first"}
    lxpyd.cli("restore", busybox, "b")
    lxpyd.cli("delete", f"{busybox}/first")
    assert bases() == {"b": "", "": "b"}

"""copy and move from one server to another: over HTTPS, by way of the command line."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemon import Lxpyd, until


@pytest.fixture
def far(lxpyd: Lxpyd, own_lxpyd: Lxpyd) -> Iterator[Lxpyd]:
    """Another server, which the first one's command line knows as ``far``."""
    own_lxpyd.cli("config", "set", f"core.https_address=127.0.0.1:{19900 + own_lxpyd.number % 100}")
    lxpyd.cli("remote", "add", "far", own_lxpyd.out("config", "trust", "add", "-q", "--name", "near"))
    try:
        yield own_lxpyd
    finally:
        lxpyd.cli("remote", "remove", "far")


def made(daemon: Lxpyd, name: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.json("query", f"/1.0/instances/{name}")
    return found


def fails(daemon: Lxpyd, *args: str) -> str:
    """What a refused command says: one line."""
    said = daemon.cli(*args, check=False)
    assert said.returncode == 1 and said.stderr.count("\n") == 1 and not said.stdout, said
    return said.stderr


def test_a_copy_of_what_runs(lxpyd: Lxpyd, far: Lxpyd, busybox: str) -> None:
    lxpyd.sh(busybox, "echo first > /root/file; chown 7:8 /root/file")
    lxpyd.cli("snapshot", busybox, "s0")
    lxpyd.sh(busybox, "echo second > /root/file")
    lxpyd.cli("config", "set", busybox, "user.a=b", "limits.memory=64MiB")
    lxpyd.cli("copy", busybox, "far:")
    copy, source = made(far, busybox), made(lxpyd, busybox)
    assert copy["status"] == "Stopped" and source["status"] == "Running" and not copy["ephemeral"]
    assert copy["config"]["user.a"] == "b" and copy["config"]["limits.memory"] == "64MiB"
    for key in ("volatile.uuid", "volatile.eth0.hwaddr", "volatile.cloud-init.instance-id"):
        assert copy["config"].get(key) != source["config"][key]
    far.cli("start", busybox)
    assert far.sh(busybox, "cat /root/file; stat -c %u:%g /root/file").stdout == "second\n7:8\n"
    far.cli("restore", busybox, "s0")
    assert far.sh(busybox, "cat /root/file").stdout == "first\n"
    # Back again, under another name and with other settings.
    big = "x" * 20_000
    lxpyd.cli("copy", f"far:{busybox}", f"{busybox}-2", "-s", "plain", "--instance-only", "-c", "user.a=c", "-c",
              f"user.big={big}", "-c", "limits.memory=", "-d", "eth0,limits.max=1Mbit", "-e")  # fmt: skip
    back = made(lxpyd, f"{busybox}-2")
    assert back["ephemeral"] and back["config"]["user.a"] == "c" and back["config"]["user.big"] == big
    assert "limits.memory" not in back["config"] and back["expanded_devices"]["root"]["pool"] == "plain"
    eth0 = back["expanded_devices"]["eth0"]
    assert (eth0["limits.max"], eth0["network"]) == ("1Mbit", far.bridge)
    assert lxpyd.json("query", f"/1.0/instances/{busybox}-2/snapshots") == []


def test_a_move_and_what_it_refuses(lxpyd: Lxpyd, far: Lxpyd, busybox: str) -> None:
    assert fails(lxpyd, "move", busybox, "far:").startswith(f"Error: Instance '{busybox}' runs: stop it first")
    lxpyd.cli("snapshot", busybox, "s0")
    assert "does not go to another server" in fails(lxpyd, "copy", f"{busybox}/s0", "far:x")
    assert "cannot be refreshed" in fails(lxpyd, "copy", "--refresh", busybox, "far:")
    lxpyd.cli("stop", "-f", busybox)
    lxpyd.cli("config", "set", busybox, "security.protection.delete=true")
    assert "is protected" in fails(lxpyd, "move", busybox, "far:")
    lxpyd.cli("config", "unset", busybox, "security.protection.delete")
    lxpyd.cli("profile", "create", f"{busybox}-p")
    try:
        lxpyd.cli("profile", "add", busybox, f"{busybox}-p")
        assert f"'{busybox}-p'" in fails(lxpyd, "move", busybox, "far:")
        assert far.json("list", "-f", "json") == [] and made(lxpyd, busybox)["status"] == "Stopped"
        assert "limits.nonsense" in fails(lxpyd, "move", busybox, "far:", "-p", "default", "-c", "limits.nonsense=1")
        assert "not found" in fails(lxpyd, "move", busybox, "far:", "-s", "nowhere", "-p", "default")
        assert far.json("list", "-f", "json") == []
        before = made(lxpyd, busybox)["config"]
        lxpyd.cli("move", busybox, "far:", "-p", "default")
    finally:
        lxpyd.cli("delete", "-f", busybox, check=False)
        lxpyd.cli("profile", "delete", f"{busybox}-p")
    assert lxpyd.cli("info", busybox, check=False).returncode == 1
    moved = made(far, busybox)
    assert moved["profiles"] == ["default"]
    for key in ("volatile.uuid", "volatile.eth0.hwaddr"):
        assert moved["config"][key] == before[key]  # it is the same one
    assert "already exists on local" in fails(lxpyd, "copy", f"far:{busybox}", "local:" + _another(lxpyd, busybox))
    lxpyd.cli("copy", f"far:{busybox}", f"{busybox}-3", "--target-project", "default")
    far.cli("start", busybox)


def _another(daemon: Lxpyd, name: str) -> str:
    daemon.cli("init", "bb", f"{name}-4")
    return f"{name}-4"


def test_nothing_is_left_of_what_was_broken_off(lxpyd: Lxpyd, far: Lxpyd, busybox: str) -> None:
    lxpyd.sh(busybox, "dd if=/dev/urandom of=/root/big bs=1M count=150")
    command = lxpyd.spawn("copy", busybox, "far:")
    until(lambda: far.json("query", "/1.0/operations?recursion=1").get("running"), 10, "it does not begin")
    command.send_signal(signal.SIGINT)
    _, error = command.communicate(timeout=30)
    assert command.returncode == 130 and error == f"Copying {busybox}: cancelled, nothing of it stays on far\n".encode()
    until(lambda: not far.json("list", "-f", "json"), 10, "half an instance is there")
    until(lambda: not pathlib.Path(far.dir, f"storage-pools/default/instances/{busybox}").exists(), 10, "its root is")
    lxpyd.cli("stop", "-f", busybox)  # and the source is free
    # The server that takes it is killed in the middle.
    command = lxpyd.spawn("copy", busybox, "far:")
    until(lambda: far.json("query", "/1.0/operations?recursion=1").get("running"), 10, "it does not begin")
    far.kill()
    _, error = command.communicate(timeout=60)
    assert command.returncode == 1 and error.count(b"\n") == 1 and error.startswith(b"Error: "), error
    far.start()
    assert far.json("list", "-f", "json") == []
    lxpyd.cli("start", busybox)


def test_volumes(lxpyd: Lxpyd, far: Lxpyd, busybox: str) -> None:
    v = f"{busybox}-v"
    lxpyd.cli("storage", "volume", "create", "default", v, "user.k=v")
    try:
        lxpyd.cli("storage", "volume", "attach", "default", v, busybox, "/data")
        lxpyd.sh(busybox, "echo first > /data/file")
        lxpyd.cli("storage", "volume", "snapshot", "default", v, "s0")
        lxpyd.sh(busybox, "echo second > /data/file")
        lxpyd.cli("storage", "volume", "copy", f"default/{v}", "far:plain/w")
        lxpyd.cli("storage", "volume", "copy", f"default/{v}", "far:default/x", "--volume-only")
        assert "already exists on far" in fails(lxpyd, "storage", "volume", "copy", f"default/{v}", "far:plain/w")
        assert "a snapshot" in fails(lxpyd, "storage", "volume", "copy", f"default/{v}/s0", "far:plain/y").lower()
        assert f"is used by {busybox}: detach" in fails(
            lxpyd, "storage", "volume", "move", f"default/{v}", "far:plain/y"
        )
        lxpyd.cli("storage", "volume", "detach", "default", v, busybox)
        lxpyd.cli("storage", "volume", "move", f"default/{v}", "far:default/y")
        assert v not in lxpyd.out("storage", "volume", "list", "default")
    finally:
        lxpyd.cli("delete", "-f", busybox)
        lxpyd.cli("storage", "volume", "delete", "default", v, check=False)
    far.cli("launch", "bb", "c")
    for name, pool, snapshots in (("w", "plain", ["w/s0"]), ("x", "default", []), ("y", "default", ["y/s0"])):
        volume = far.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/{name}")
        assert volume["config"]["user.k"] == "v"
        found = far.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/{name}/snapshots?recursion=1")
        assert [one["name"] for one in found] == snapshots
        far.cli("storage", "volume", "attach", pool, name, "c", f"/{name}")
        assert far.sh("c", f"cat /{name}/file").stdout == "second\n"


def test_headers_that_are_none(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("export", name, str(tmp_path / "backup"))
    for header, words in (
        ("X-LXPY-Overrides: {", "is not JSON"), ("X-LXPY-Overrides: []", "must be a JSON object"),
        ('X-LXPY-Overrides: {"profiles": 1}', "must be a list of names"),
        ('X-LXPY-Overrides: {"config": {"user.a": 1}}', "all text"),
        ("X-LXD-devices: eth0=nonsense%3D1", "nonsense"),
        ("X-LXD-devices: new=type%3Dwarp", "warp"),
    ):  # fmt: skip
        said = subprocess.run(
            ["curl", "-sS", "--unix-socket", f"{lxpyd.dir}/unix.socket", "-X", "POST", "-H", header, "-H",
             f"X-LXD-name: {name}-2", "-H", "Content-Type: application/octet-stream", "--data-binary",
             f"@{tmp_path}/backup", "http://lxd/1.0/instances"],
            capture_output=True, text=True, check=True, env=dict(os.environ),
        )  # fmt: skip
        assert words in said.stdout and '"type":"error"' in said.stdout.replace(" ", ""), said.stdout
    assert lxpyd.cli("info", f"{name}-2", check=False).returncode == 1

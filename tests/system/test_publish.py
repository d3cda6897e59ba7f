"""Images of instances: what is in them, that they launch, and that nothing is left of those that fail."""

import json
import os
import pathlib
import subprocess
import tarfile
import time
from collections.abc import Iterator

import pytest
import yaml

from tests.support.daemon import Lxpyd, until

# What a guest can have in its root that a careless archive loses.
FILL = """
echo hi > /root/f; ln /root/f /root/g; mkfifo /root/p; truncate -s 5M /root/holes; ln -s /etc/passwd /root/l
chown 5:6 /root/f; chmod 4755 /root/f; mkdir -p /root/d; chown 1000:1000 /root/d; chmod 1770 /root/d
touch '/root/two
lines' /root/-dash
"""
LOOK = """
cd /root; stat -c '%n %F %a %u:%g %h %s' f g p holes l -- -dash
stat -c '%a %u:%g' d; cat f; readlink l; du -k holes | cut -f1; ls | wc -l
"""


@pytest.fixture
def alias(lxpyd: Lxpyd, name: str) -> Iterator[str]:
    """A free alias; the image that has it goes afterwards."""
    yield f"{name}-image"
    lxpyd.cli("image", "delete", f"{name}-image", check=False)


def leftovers(lxpyd: Lxpyd) -> list[str]:
    return [path.name for path in (lxpyd.dir / "images").glob(".*")]


def test_what_a_guest_has_made_is_in_the_image(lxpyd: Lxpyd, name: str, alias: str, pool: str) -> None:
    lxpyd.cli("launch", "bb", name, "-s", pool)
    lxpyd.sh(name, FILL)
    before = lxpyd.sh(name, LOOK).stdout
    lxpyd.cli("stop", "-f", name)
    said = lxpyd.out("publish", name, "--alias", alias, "os=Mine", "--compression", "zstd", "--public")
    image = lxpyd.json("query", f"/1.0/images/{said.rpartition(' ')[2]}")
    assert (image["public"], image["filename"]) == (True, f"{name}.tar.zst")
    assert image["properties"]["os"] == "Mine" and "BusyBox" in image["properties"]["description"]
    lxpyd.cli("launch", alias, f"{name}-two", "-s", pool)
    assert lxpyd.sh(f"{name}-two", LOOK).stdout == before
    # The templates of the image came along.
    assert lxpyd.sh(f"{name}-two", "cat /etc/hostname").stdout.strip() == f"{name}-two"
    assert not leftovers(lxpyd)


def test_the_tarball_is_what_other_managers_read(lxpyd: Lxpyd, name: str, alias: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.sh(name, FILL)
    lxpyd.cli("stop", "-f", name)
    lxpyd.cli("publish", name, "--alias", alias, "--expire", "2040-01-02")
    lxpyd.cli("image", "export", alias, str(tmp_path / "x"))
    with tarfile.open(tmp_path / "x.tar.gz") as tar:
        members = {member.name: member for member in tar}
        read = tar.extractfile("metadata.yaml")
        assert read
        metadata = yaml.safe_load(read)
    assert next(iter(members)) == "metadata.yaml" and metadata["architecture"] == os.uname().machine
    assert metadata["expiry_date"] == 2209075200
    for path, entry in metadata["templates"].items():
        assert path.startswith("/") and f"templates/{entry['template']}" in members
    f, holes = members["rootfs/root/f"], members["rootfs/root/holes"]
    assert (f.uid, f.gid, f.mode) == (5, 6, 0o4755) and (members["rootfs/root/g"].linkname == "rootfs/root/f")
    assert holes.size == 5 << 20 and holes.sparse is not None
    assert {name.partition("/")[0] for name in members} == {"metadata.yaml", "templates", "rootfs"}


def test_a_snapshot_of_a_running_instance(lxpyd: Lxpyd, name: str, alias: str, pool: str) -> None:
    lxpyd.cli("launch", "bb", name, "-s", pool)
    lxpyd.sh(name, "echo then > /root/f")
    lxpyd.cli("snapshot", name, "s")
    lxpyd.sh(name, "echo now > /root/f")
    missing = lxpyd.cli("publish", f"{name}/t", check=False)
    assert missing.returncode == 1 and f"Snapshot 't' of instance '{name}' not found" in missing.stderr
    lxpyd.cli("publish", f"{name}/s", "--alias", alias)
    assert lxpyd.status(name) == "RUNNING"
    lxpyd.cli("launch", alias, f"{name}-two")
    assert lxpyd.sh(f"{name}-two", "cat /root/f /etc/hostname").stdout == f"then\n{name}-two\n"


def test_several_aliases_and_their_reuse(lxpyd: Lxpyd, name: str, alias: str) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("publish", name, "--alias", alias, "--alias", f"{alias}/more", "n=1", "--compression", "none")
    first = lxpyd.json("query", f"/1.0/images/aliases/{alias}")["target"]
    refused = lxpyd.cli("publish", name, "--alias", f"{alias}/more", "n=2", check=False)
    assert refused.returncode == 1 and "already exists: --reuse" in refused.stderr
    lxpyd.cli("publish", name, "--alias", alias, "--reuse", "n=2")
    second = lxpyd.json("query", f"/1.0/images/aliases/{alias}")["target"]
    assert second != first and lxpyd.json("query", f"/1.0/images/aliases/{alias}/more")["target"] == first
    lxpyd.cli("publish", name, "--alias", f"{alias}/more", "--reuse", "n=3")
    left = [one["fingerprint"] for one in lxpyd.json("image", "list", "-f", "json")]
    assert first not in left and second in left
    lxpyd.cli("image", "delete", f"{alias}/more")


def test_a_running_one_is_stopped_when_asked_and_runs_again(lxpyd: Lxpyd, busybox: str, alias: str) -> None:
    refused = lxpyd.cli("publish", busybox, "--alias", alias, check=False)
    assert refused.returncode == 1 and f"Instance '{busybox}' is running" in refused.stderr
    assert lxpyd.status(busybox) == "RUNNING"
    lxpyd.cli("publish", busybox, "--alias", alias, "-f")
    assert lxpyd.status(busybox) == "RUNNING"
    # Also when it comes to nothing.
    lxpyd.cli("publish", busybox, "--alias", alias, "-f", check=False)
    assert lxpyd.status(busybox) == "RUNNING"


@pytest.mark.parametrize("command", ["publish", "rebuild"])
def test_ctrl_c_amid_the_stop_leaves_it_running(lxpyd: Lxpyd, name: str, alias: str, command: str) -> None:
    """The stop goes on by itself; what was to follow does not come, and the instance is what it was."""
    lxpyd.cli("launch", "bb", name, "-e", "-c", "boot.host_shutdown_timeout=4")
    lxpyd.sh(name, "sed -i /shutdown/d /etc/inittab; trap '' USR1 USR2 TERM; kill -STOP 1", check=False)
    lxpyd.sh(name, "echo mine > /mine")
    began = lxpyd.init_pid(name)
    words = [name, "--alias", alias, "-f"] if command == "publish" else ["bb", name, "-f"]
    client = lxpyd.spawn(command, *words)
    until(lambda: any(op["description"] == "Stopping instance" for op in lxpyd.json("operation", "list", "-f", "json")
                      if op["status"] == "Running"), 10, "it is not being stopped")  # fmt: skip
    client.send_signal(2)
    assert "goes on" in client.communicate(timeout=60)[1].decode() and client.returncode == 130
    assert lxpyd.status(name) == "RUNNING" and lxpyd.init_pid(name) != began and lxpyd.instance(name)["ephemeral"]
    assert lxpyd.sh(name, "cat /mine").stdout == "mine\n"
    lxpyd.cli("delete", "-f", name)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothere"], "Instance 'nothere' not found"),
        (["{}", "--compression", "squashfs"], "'squashfs' is none of none, gzip, zstd"),
        (["{}", "--compression", "zstd --ultra"], "only a level may follow"),
        (["{}", "--expire", "soon"], "Invalid expiry date 'soon'"),
        (["{}", "novalue"], "expected key=value"),
        (["{}", "--alias", "two words"], "Invalid image alias 'two words'"),
    ],
)
def test_what_cannot_be_published(lxpyd: Lxpyd, name: str, words: list[str], message: str) -> None:
    lxpyd.cli("init", "bb", name)
    before = lxpyd.snapshot()
    refused = lxpyd.cli("publish", *[word.format(name) for word in words], check=False)
    assert refused.returncode == 1 and message in refused.stderr and refused.stderr.count("\n") == 1
    assert lxpyd.snapshot() == before and not leftovers(lxpyd)


def test_cancelled_leaves_nothing(lxpyd: Lxpyd, name: str, alias: str) -> None:
    lxpyd.cli("launch", "bb", name)
    lxpyd.sh(name, "head -c 60000000 /dev/urandom > /root/much")
    lxpyd.cli("stop", "-f", name)
    images = lxpyd.json("image", "list", "-f", "json")
    client = lxpyd.spawn("publish", name, "--alias", alias, "--compression", "xz -9")
    until(lambda: leftovers(lxpyd), 30, "nothing begins")
    time.sleep(0.3)
    client.send_signal(2)
    assert "cancelled, what had been done of it is undone" in client.communicate(timeout=60)[1].decode()
    assert client.returncode == 130 and not leftovers(lxpyd)
    assert lxpyd.json("image", "list", "-f", "json") == images
    lxpyd.cli("start", name)


def test_a_full_disk_leaves_nothing(own_network: None, own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    daemon.sh("a", "head -c 30000000 /dev/urandom > /root/much")
    daemon.cli("stop", "-f", "a")
    images = daemon.dir / "images"
    kept = daemon.dir / "kept"
    images.rename(kept)
    images.mkdir(0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(images)], check=True)
    try:
        full = daemon.cli("publish", "a", "--compression", "none", check=False)
        assert full.returncode == 1 and "Publish instance a: no space left in" in full.stderr
        assert not leftovers(daemon)
    finally:
        subprocess.run(["umount", str(images)], check=True)
        images.rmdir()
        kept.rename(images)
    daemon.cli("publish", "a", "--alias", "x")


def test_an_image_of_an_empty_instance_and_of_one_whose_image_has_gone(lxpyd: Lxpyd, name: str, alias: str) -> None:
    lxpyd.cli("init", name, "--empty")
    fingerprint = lxpyd.out("publish", name, "--alias", alias).rpartition(" ")[2]
    assert lxpyd.json("query", f"/1.0/images/{fingerprint}")["properties"] == {}
    lxpyd.cli("init", alias, f"{name}-two")
    lxpyd.cli("image", "delete", alias)
    lxpyd.cli("publish", f"{name}-two", "--alias", alias, "a=b")
    assert json.loads(lxpyd.out("query", f"/1.0/images/aliases/{alias}"))["name"] == alias

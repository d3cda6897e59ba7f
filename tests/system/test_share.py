"""Directories of the host in instances: `share`, owners, propagation, files; running and stopped."""

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory of user 1000 with a file of each of three owners."""
    path = tmp_path / "folder"
    path.mkdir()
    for number in (0, 1000, 1001):
        (path / str(number)).write_text("x")
        os.chown(path / str(number), number, number)
    os.chown(path, 1000, 1000)
    yield path


def _owners(lxpyd: Lxpyd, name: str, path: str = "/mnt/f") -> str:
    return lxpyd.sh(name, f"cd {path}; stat -c '%n:%u:%g' . *").stdout.replace("\n", " ").strip()


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_the_owner_is_root_inside(lxpyd: Lxpyd, busybox: str, folder: pathlib.Path, state: str) -> None:
    if state == "stopped":
        lxpyd.cli("stop", "-f", busybox)
    said = lxpyd.out("share", str(folder), f"{busybox}:/mnt/f")
    assert said == f"{folder} is /mnt/f in {busybox} (device mnt-f)"
    if state == "stopped":
        lxpyd.cli("start", busybox)
    nobody = "65534:65534"
    assert _owners(lxpyd, busybox) == f".:0:0 0:{nobody} 1000:0:0 1001:1001:1001"
    lxpyd.sh(busybox, "echo in > /mnt/f/made; chown 7:8 /mnt/f/1001; echo more >> /mnt/f/1000")
    assert (os.stat(folder / "made").st_uid, os.stat(folder / "made").st_gid) == (1000, 1000)
    assert (os.stat(folder / "1001").st_uid, os.stat(folder / "1001").st_gid) == (7, 8)
    refused = lxpyd.sh(busybox, "echo no >> /mnt/f/0; chown 1000 /mnt/f/made", check=False)
    assert refused.returncode
    assert (folder / "0").read_text() == "x"
    rows = lxpyd.json("share", busybox, "-f", "json")
    assert rows == {"mnt-f": {"owner": "0", "path": "/mnt/f", "source": str(folder), "type": "disk"}}
    # The same place again: another owner, read-only.
    lxpyd.cli("share", str(folder), f"{busybox}:/mnt/f/", "--owner", "33:44", "--readonly")
    assert _owners(lxpyd, busybox).startswith(".:33:44 ")
    assert lxpyd.sh(busybox, "touch /mnt/f/no", check=False).returncode
    assert lxpyd.sh(busybox, "mount -o remount,rw /mnt/f", check=False).returncode
    assert lxpyd.out("share", busybox, "-f", "csv") == f"mnt-f,{folder},/mnt/f,read-only,33:44"
    lxpyd.cli("share", str(folder), f"{busybox}:/mnt/f", "--owner", "keep")
    assert _owners(lxpyd, busybox) == ".:1000:1000 0:0:0 1000:1000:1000 1001:7:8 made:1000:1000"
    lxpyd.cli("unshare", f"{busybox}:/mnt/f")
    assert lxpyd.sh(busybox, "ls /mnt/f").stdout == ""
    assert lxpyd.json("share", busybox, "-f", "json") == {}


def test_a_privileged_instance_and_one_file(lxpyd: Lxpyd, name: str, folder: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "security.privileged=true")
    lxpyd.cli("share", str(folder), f"{name}:/mnt/f", "--name", "f")
    assert _owners(lxpyd, name).startswith(".:0:0 0:65534:65534 1000:0:0")
    lxpyd.cli("restart", "-f", name)
    assert _owners(lxpyd, name).startswith(".:0:0 0:65534:65534 1000:0:0")
    lxpyd.cli("share", str(folder / "1000"), f"{name}:/etc/one")
    assert lxpyd.sh(name, "stat -c %u:%F /etc/one").stdout == "0:regular file\n"
    lxpyd.cli("unshare", name, "f")
    lxpyd.cli("unshare", f"{name}:/etc/one")


def test_what_the_host_mounts_later(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    place = tmp_path / "place"
    (place / "sub").mkdir(parents=True)
    (place / "deep").mkdir()
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "--make-shared", place], check=True)
        for name, propagation in (("follows", "rslave"), ("stays", "private")):
            device = [f"source={place}", f"path=/mnt/{name}", f"propagation={propagation}", "recursive=true"]
            lxpyd.cli("config", "device", "add", busybox, name, "disk", *device)
        for again in (False, True):
            subprocess.run(["mount", "-t", "tmpfs", "none", place / "sub"], check=True)
            try:
                (place / "sub/seen").touch()
                assert lxpyd.sh(busybox, "ls /mnt/follows/sub").stdout == "seen\n"
                assert lxpyd.sh(busybox, "ls /mnt/stays/sub").stdout == ""
            finally:
                subprocess.run(["umount", place / "sub"], check=True)
            assert lxpyd.sh(busybox, "ls /mnt/follows/sub").stdout == ""
            if not again:
                lxpyd.cli("restart", "-f", busybox)
        # Nothing goes the other way.
        lxpyd.sh(busybox, "mount -t tmpfs none /mnt/follows/deep; touch /mnt/follows/deep/inside")
        assert list((place / "deep").iterdir()) == []
        lxpyd.sh(busybox, "umount /mnt/follows/deep")
        for name in ("follows", "stays"):
            lxpyd.cli("config", "device", "remove", busybox, name)
    finally:
        subprocess.run(["umount", place], check=True)


REFUSED = [
    (("share", "/nowhere", "{}:/x"), "/nowhere is not there"),
    (("share", "/usr", "{}"), "names no place in an instance"),
    (("share", "/usr", "{}:/"), "would cover the root"),
    (("share", "/usr", "{}:/x", "--owner", "root"), "UID or UID:GID inside the instance"),
    (("share", "/usr", "{}:/x", "--owner", "70000"), "each below 65536"),
    (("share", "/usr", "{}:/x", "--name", "a"), "has a device 'a' already"),
    (("share", "/usr", "none:/x"), "not found"),
    (("share", "/proc", "{}:/x"), "knows no id-mapped mounts"),
    (("unshare", "{}:/x"), "/x is not shared with {} (shared is: a (/a))"),
    (("unshare", "{}", "b"), "b is not shared with {}"),
    (("unshare", "{}"), "or the instance and the name of the share"),
    (("config", "device", "add", "{}", "b", "disk", "source=cloud-init:config", "path=/b"), "for virtual machines"),
    (("config", "device", "set", "{}", "a", "propagation=rshared"), "never appears on the host"),
    (("config", "device", "set", "{}", "a", "propagation=often"), "private, rprivate, slave or rslave"),
    (("config", "device", "set", "{}", "a", "shift=false", "owner=5"), "owner is a way of shifting"),
    (("config", "device", "set", "{}", "a", "raw.mount.options=noatime"), "takes ro, nosuid, nodev, noexec only"),
]


def test_refused_with_the_reason(lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.cli("share", "/usr", f"{busybox}:/a")
    before = lxpyd.instance(busybox)["devices"]
    for words, expected in REFUSED:
        result = lxpyd.cli(*(word.format(busybox) for word in words), check=False)
        assert (result.returncode, result.stdout) == (1, ""), (words, result)
        assert expected.format(busybox) in result.stderr, (words, result.stderr)
        assert result.stderr.count("\n") == 1
    assert lxpyd.instance(busybox)["devices"] == before
    assert lxpyd.sh(busybox, "ls / | grep -c '^[xb]$'", check=False).stdout == "0\n"

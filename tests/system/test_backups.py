"""Backups of instances: exported and imported, kept and fetched, good ones and bad ones."""

import contextlib
import copy
import io
import json
import os
import pathlib
import signal
import struct
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.support.daemon import Lxpyd, until
from tests.support.tarballs import COMPRESS, tarball
from tests.system.test_publish import FILL, LOOK


@pytest.fixture
def made(lxpyd: Lxpyd, name: str) -> str:
    """A stopped instance with what a careless archive loses in it."""
    lxpyd.cli("launch", "bb", name, "-c", "user.k=v", "-c", "limits.memory=100MiB")
    lxpyd.sh(name, FILL)
    lxpyd.cli("stop", "-f", name)
    return name


def look(lxpyd: Lxpyd, name: str) -> str:
    return lxpyd.sh(name, LOOK).stdout


def test_there_and_back(lxpyd: Lxpyd, name: str, pool: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name, "-s", pool, "-c", "user.k=v", "-c", "environment.X=1")
    lxpyd.sh(name, FILL)
    before = look(lxpyd, name)
    lxpyd.cli("stop", "-f", name)
    old = lxpyd.instance(name)
    file = tmp_path / "b.tar.zst"
    lxpyd.cli("export", name, str(file), "--compression", "zstd")
    assert file.read_bytes()[:4] == b"\x28\xb5\x2f\xfd" and file.stat().st_mode & 0o777 == 0o600
    taken = lxpyd.cli("import", str(file), check=False)
    assert taken.returncode == 1 and f"Instance '{name}' already exists" in taken.stderr
    lxpyd.cli("delete", name)
    lxpyd.cli("import", str(file))
    new = lxpyd.instance(name)
    for key in ("devices", "profiles", "description", "ephemeral", "architecture"):
        assert new[key] == old[key], key
    here = ("volatile.eth0.host_name", "volatile.last_state.")  # of this host, or of the last time it ran
    assert new["config"] == {k: v for k, v in old["config"].items() if not k.startswith(here)} | {
        "volatile.last_state.power": "STOPPED"
    }  # fmt: skip
    assert new["created_at"] == old["created_at"]
    lxpyd.cli("start", name)
    assert look(lxpyd, name) == before
    # A second one of the same backup: another name, address and identity.
    lxpyd.cli("import", str(file), f"{name}-two", "-s", "plain")
    lxpyd.cli("start", f"{name}-two")
    assert look(lxpyd, f"{name}-two") == before
    assert lxpyd.sh(f"{name}-two", "cat /etc/hostname").stdout.strip() == f"{name}-two"
    two = lxpyd.instance(f"{name}-two")
    assert two["expanded_devices"]["root"]["pool"] == "plain"
    for key in ("volatile.eth0.hwaddr", "volatile.uuid", "volatile.cloud-init.instance-id"):
        assert two["config"][key] != new["config"][key]
    assert not list((lxpyd.dir / "backups/instances").glob("*"))


def test_snapshots_go_along(lxpyd: Lxpyd, name: str, pool: str, tmp_path: pathlib.Path) -> None:
    """Of a running instance, which goes on running."""
    lxpyd.cli("launch", "bb", name, "-s", pool)
    lxpyd.sh(name, FILL)
    before = look(lxpyd, name)
    lxpyd.cli("snapshot", name, "first")
    lxpyd.cli("config", "set", name, "user.k=later")
    lxpyd.sh(name, "rm -r /root/*; echo two > /root/two")
    lxpyd.cli("snapshot", name, "second")
    lxpyd.sh(name, "echo three > /root/three")
    file = str(tmp_path / "b.tar")
    lxpyd.cli("export", name, file, "--compression", "none")
    assert lxpyd.status(name) == "RUNNING"
    listed = lxpyd.json("query", f"/1.0/instances/{name}/snapshots?recursion=1")
    assert [one["name"].rpartition("/")[2] for one in listed] == ["first", "second"]
    lxpyd.cli("import", file, f"{name}-two")
    kept = lxpyd.json("query", f"/1.0/instances/{name}-two/snapshots?recursion=1")
    for one, other in zip(listed, kept, strict=True):
        assert {k: one[k] for k in ("created_at", "expires_at", "profiles", "ephemeral")} == {
            k: other[k] for k in ("created_at", "expires_at", "profiles", "ephemeral")
        }  # fmt: skip
        assert one["config"].get("user.k") == other["config"].get("user.k")
    two = f"{name}-two"
    lxpyd.cli("start", two)
    assert lxpyd.sh(two, "cat /root/two /root/three").stdout == "two\nthree\n"
    lxpyd.cli("stop", "-f", two)
    lxpyd.cli("restore", two, "first")
    lxpyd.cli("start", two)
    assert look(lxpyd, two) == before
    lxpyd.cli("stop", "-f", two)
    lxpyd.cli("restore", two, "second")
    lxpyd.cli("start", two)
    assert lxpyd.sh(two, "ls /root").stdout == "two\n"
    only = str(tmp_path / "only.tar")
    lxpyd.cli("export", name, only, "--instance-only", "--compression", "none")
    lxpyd.cli("delete", "-f", two)
    lxpyd.cli("import", only, two)
    assert lxpyd.json("query", f"/1.0/instances/{two}/snapshots") == []


def test_by_pipes(lxpyd: Lxpyd, made: str) -> None:
    with (
        lxpyd.spawn("export", made, "-", "--compression", "none") as sender,
        lxpyd.spawn("import", "-", f"{made}-two", stdin=sender.stdout) as receiver,
    ):
        assert receiver.communicate(timeout=60)[1] == b"" and receiver.returncode == 0
        assert sender.wait(10) == 0
    lxpyd.cli("start", made, f"{made}-two")
    assert look(lxpyd, f"{made}-two") == look(lxpyd, made)


def test_the_layout_is_lxds(lxpyd: Lxpyd, made: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "b.tar.gz"
    lxpyd.cli("export", made, str(file))
    with tarfile.open(file) as tar:
        members = {member.name: member for member in tar}
        read = tar.extractfile("backup/index.yaml")
        assert read
        index = yaml.safe_load(read)
        read = tar.extractfile("backup/container/backup.yaml")
        assert read and yaml.safe_load(read) == index["config"]
    assert next(iter(members)) == "backup/index.yaml"
    assert {key: index[key] for key in ("name", "pool", "optimized", "type")} == {
        "name": made, "pool": "default", "optimized": False, "type": "container"
    }  # fmt: skip
    container = index["config"]["container"]
    assert container["config"]["user.k"] == "v" and container["config"]["volatile.last_state.idmap"] == "[]"
    assert container["profiles"] == ["default"] and index["config"]["profiles"][0]["name"] == "default"
    assert "backup/container/metadata.yaml" in members
    f = members["backup/container/rootfs/root/f"]
    assert (f.uid, f.gid) == (5, 6)
    assert members["backup/container/rootfs/root/g"].linkname == "backup/container/rootfs/root/f"
    assert all(name.startswith("backup/") for name in members)


def test_kept_backups_by_the_api(lxpyd: Lxpyd, made: str) -> None:
    url = f"/1.0/instances/{made}/backups"
    lxpyd.api("POST", url, {"compression_algorithm": "zstd", "instance_only": True})
    lxpyd.api("POST", url, {"name": "weekly", "expires_at": "2040-01-02T03:04:05Z"})
    assert lxpyd.json("query", url) == [f"{url}/backup0", f"{url}/weekly"]
    first, weekly = lxpyd.json("query", f"{url}?recursion=1")
    assert (first["name"], first["instance_only"], first["expires_at"]) == (
        f"{made}/backup0", True, "0001-01-01T00:00:00Z"
    )  # fmt: skip
    assert weekly["expires_at"] == "2040-01-02T03:04:05Z"
    lxpyd.api("POST", f"{url}/weekly", {"name": "monthly"})
    taken = lxpyd.cli("query", "--wait", "-X", "POST", "-d", '{"name": "monthly"}', url, check=False)
    assert taken.returncode == 1 and "Backup 'monthly' already exists" in taken.stderr
    lxpyd.cli("rename", made, f"{made}-new")
    url = f"/1.0/instances/{made}-new/backups"
    assert lxpyd.json("query", f"{url}/monthly")["name"] == f"{made}-new/monthly"
    lxpyd.api("DELETE", f"{url}/backup0")
    files = list((lxpyd.dir / "backups/instances").glob("*/*"))
    assert [file.name for file in files] == ["monthly"]
    lxpyd.cli("delete", f"{made}-new")
    assert not list((lxpyd.dir / "backups/instances").glob("*"))


def test_a_backup_expires(lxpyd: Lxpyd, made: str) -> None:
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))
    lxpyd.api("POST", f"/1.0/instances/{made}/backups", {"expires_at": soon, "compression_algorithm": "none"})
    assert lxpyd.json("query", f"/1.0/instances/{made}/backups")
    until(lambda: not lxpyd.json("query", f"/1.0/instances/{made}/backups"), 10, "it does not expire")
    assert not list((lxpyd.dir / "backups/instances").glob("*"))


def test_a_restricted_project_makes_none(lxpyd: Lxpyd, project: str, tmp_path: pathlib.Path) -> None:
    words = ["--project", project]
    lxpyd.cli("init", "bb", "a", *words)
    lxpyd.cli("project", "set", project, "restricted=true")
    refused = lxpyd.cli("export", "a", str(tmp_path / "x"), *words, check=False)
    assert refused.returncode == 1 and "restricted.backups is block" in refused.stderr
    assert not list(tmp_path.iterdir())
    lxpyd.cli("project", "set", project, "restricted.backups=allow")
    lxpyd.cli("export", "a", str(tmp_path / "x"), *words)
    lxpyd.cli("project", "set", project, "limits.instances=1")
    refused = lxpyd.cli("import", str(tmp_path / "x"), "b", *words, check=False)
    assert refused.returncode == 1 and "limits.instances" in refused.stderr


# -- bad ones ------------------------------------------------------------------------------------------------------


def index(**changes: Any) -> bytes:
    """A good ``index.yaml``, or one with changed keys of the container."""
    container = {
        "architecture": os.uname().machine, "name": "bad", "config": {}, "devices": {}, "profiles": ["default"],
        "ephemeral": False,
    } | changes.pop("container", {})  # fmt: skip
    config = {"container": container, "snapshots": changes.pop("snapshots", [])}
    document = {"name": "bad", "backend": "dir", "pool": "default", "type": "container", "optimized": False,
                "config": config} | changes  # fmt: skip
    return yaml.safe_dump(document, sort_keys=False).encode()


def info(name: str, kind: bytes = tarfile.DIRTYPE, **fields: Any) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type = kind
    for key, value in fields.items():
        setattr(found, key, value)
    return found


ROOT = "backup/container/rootfs"
_ESCAPES: dict[str, dict[str, Any]] = {
    "dots": {f"{ROOT}/../../../../../etc/lxpy-was-here": b"x"},
    "through a link": {
        f"{ROOT}/l": info(f"{ROOT}/l", tarfile.SYMTYPE, linkname="/etc"),
        f"{ROOT}/l/lxpy-was-here": b"x",
    },
    "a hard link out": {f"{ROOT}/h": info(f"{ROOT}/h", tarfile.LNKTYPE, linkname="/etc/passwd")},
    "a hard link beside": {f"{ROOT}/h": info(f"{ROOT}/h", tarfile.LNKTYPE, linkname="backup/index.yaml")},
}
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it is empty"),
    "text": (b"hello world, this is no archive\n" * 40, "damaged header"),
    "an image": (tarball({"metadata.yaml": b"x: y"}), "it is no backup"),
    "index not first": (tarball({f"{ROOT}/": b"", "backup/index.yaml": index()}), "it is no backup"),
    "no root": (tarball({"backup/index.yaml": index()}), f"it holds no {ROOT}"),
    "bad yaml": (tarball({"backup/index.yaml": b"{"}), "cannot be read"),
    "yaml with aliases": (tarball({"backup/index.yaml": b"a: &x 1\nb: *x\n"}), "aliases"),
    "no mapping": (tarball({"backup/index.yaml": b"- a\n"}), "no mapping"),
    "no configuration": (tarball({"backup/index.yaml": b"name: x\n"}), "no configuration"),
    "types": (tarball({"backup/index.yaml": index(container={"config": [1]})}), "of a wrong type"),
    "a machine": (tarball({"backup/index.yaml": index(type="virtual-machine")}), "virtual machine"),
    "a volume": (tarball({"backup/index.yaml": index(type="custom")}), "lxpy storage volume import"),
    "a name": (tarball({"backup/index.yaml": index(container={"name": "../x"})}), "Invalid instance name"),
    "architecture": (tarball({"backup/index.yaml": index(container={"architecture": "s390x"})}), "architecture s390x"),
    "unknown key": (tarball({"backup/index.yaml": index(container={"config": {"no.such": "1"}})}), "no.such"),
    "profile": (tarball({"backup/index.yaml": index(container={"profiles": ["gone"]})}), "'gone' not found"),
    "idmap": (
        tarball({"backup/index.yaml": index(container={"config": {"volatile.last_state.idmap": "[{}]"}}), ROOT: b""}),
        "no id map",
    ),
    "an unknown snapshot": (
        tarball({"backup/index.yaml": index(), "backup/snapshots/x/rootfs/": b"", f"{ROOT}/": b""}),
        "does not tell of the snapshot 'x'",
    ),
    "a missing snapshot": (
        tarball({"backup/index.yaml": index(snapshots=[{"name": "x"}]), f"{ROOT}/": b""}),
        "does not hold the snapshot 'x'",
    ),
    "a snapshot's name": (tarball({"backup/index.yaml": index(snapshots=[{"name": ".."}])}), "Invalid snapshot name"),
    "twice": (
        tarball({"backup/index.yaml": index(), f"{ROOT}/": b"", "backup/x": b"", f"{ROOT}/a/": b""}), "comes twice"
    ),
} | {
    what: (tarball({"backup/index.yaml": index(), f"{ROOT}/": b"", **members}), f"{ROOT}/")
    for what, members in _ESCAPES.items()
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_backup_is_one_line_and_leaves_nothing(lxpyd: Lxpyd, what: str) -> None:
    data, message = BAD[what]
    before = lxpyd.snapshot()
    refused = lxpyd.cli("import", "-", input=data, check=False)
    assert refused.returncode == 1 and message in refused.stderr, refused.stderr
    assert refused.stderr.count("\n") == 1 and "Traceback" not in refused.stderr
    until(lambda: lxpyd.snapshot() == before, 5, "something is left")
    assert not pathlib.Path("/etc/lxpy-was-here").exists()


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "xz"])
def test_a_truncated_or_corrupt_backup(lxpyd: Lxpyd, name: str, compression: str) -> None:
    lxpyd.cli("init", "bb", name)
    data = lxpyd.spawn("export", name, "-", "--compression", compression).communicate(timeout=60)[0]
    lxpyd.cli("delete", name)
    before = lxpyd.snapshot()
    for bad in (data[: len(data) // 2], data[: -11000 if compression == "none" else -700], _flipped(data, 0.6)):
        refused = lxpyd.cli("import", "-", input=bad, check=False)
        if compression == "none" and len(bad) == len(data):
            # A plain tar has no sums of its content.
            lxpyd.cli("delete", name, check=False)
            continue
        assert refused.returncode == 1 and "Import backup: " in refused.stderr and refused.stderr.count("\n") == 1
    until(lambda: lxpyd.snapshot() == before, 5, "something is left")


def _flipped(data: bytes, where: float) -> bytes:
    at = int(len(data) * where)
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def test_device_nodes_and_attributes_of_the_host_stay_out(lxpyd: Lxpyd, name: str) -> None:
    entries: dict[str, Any] = {
        "backup/index.yaml": index(container={"name": name}),
        f"{ROOT}/": b"",
        "null": info(f"{ROOT}/null", tarfile.CHRTYPE, devmajor=1, devminor=3),
        "sda": info(f"{ROOT}/sda", tarfile.BLKTYPE, devmajor=8, devminor=0),
        "f": info(f"{ROOT}/f", tarfile.REGTYPE, pax_headers={"SCHILY.xattr.trusted.overlay.redirect": "/etc"}),
    }
    lxpyd.cli("import", "-", input=COMPRESS["zst"](tarball(entries)))
    root = lxpyd.dir / f"storage-pools/default/instances/{name}/rootfs"
    assert [path.name for path in root.iterdir()] == ["f"] and not os.listxattr(root / "f")
    # What LXD 5 shifts the owners by is taken back.
    shifted = [{"Isuid": True, "Isgid": True, "Hostid": 100000, "Nsid": 0, "Maprange": 65536}]
    config = {"volatile.last_state.idmap": json.dumps(shifted)}
    entries = {
        "backup/index.yaml": index(container={"name": f"{name}-two", "config": config}),
        "r": info(ROOT, uid=100000, gid=100000, mode=0o755),
        "f": info(f"{ROOT}/f", tarfile.REGTYPE, uid=101000, gid=100005, mode=0o644),
        "g": info(f"{ROOT}/g", tarfile.REGTYPE, uid=7, gid=0, mode=0o644),
    }
    lxpyd.cli("import", "-", input=tarball(entries))
    root = lxpyd.dir / f"storage-pools/default/instances/{name}-two/rootfs"
    owners = {path.name: (path.stat().st_uid, path.stat().st_gid) for path in (root, root / "f", root / "g")}
    assert owners == {"rootfs": (0, 0), "f": (1000, 5), "g": (65534, 65534)}


def test_a_backup_as_lxd_makes_it(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    """In the layout of LXD 5.0.2, as observed: owners as on its disk, keys of its own, another pool, no slashes."""
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("export", name, str(tmp_path / "ours"), "--compression", "none")
    lxpyd.cli("delete", name)
    shifted = json.dumps(
        [{"Isuid": True, "Isgid": False, "Hostid": 100000, "Nsid": 0, "Maprange": 10000001},
         {"Isuid": False, "Isgid": True, "Hostid": 100000, "Nsid": 0, "Maprange": 10000001}]
    )  # fmt: skip
    with tarfile.open(tmp_path / "ours") as ours:
        read = ours.extractfile("backup/index.yaml")
        assert read
        document = yaml.safe_load(read)
        container = document["config"]["container"]
        for key in ("volatile.last_state.idmap", "volatile.idmap.current", "volatile.idmap.next"):
            container["config"][key] = shifted
        container["config"] |= {"volatile.idmap.base": "0", "user.from": "lxd"}
        snapshot = copy.deepcopy(container) | {"name": "s0", "expires_at": "0001-01-01T00:00:00Z", "size": -1}
        document |= {"backend": "zfs", "pool": "elsewhere", "snapshots": ["s0"]}
        document["config"]["snapshots"] = [snapshot]
        with tarfile.open(tmp_path / "lxds", "w:gz", format=tarfile.PAX_FORMAT) as lxds:
            text = yaml.safe_dump(document, sort_keys=False).encode()
            lxds.addfile(info("backup/index.yaml", tarfile.REGTYPE, size=len(text)), io.BytesIO(text))
            for place in ("backup/snapshots/s0", "backup/container"):
                for member in map(copy.copy, ours.getmembers()):
                    if not member.name.startswith("backup/container"):
                        continue
                    content = ours.extractfile(member) if member.isreg() else None
                    member.name = place + member.name.removeprefix("backup/container")
                    if "/rootfs" in member.name:
                        member.uid += 100000
                        member.gid += 100000
                        member.linkname = member.linkname.replace("backup/container", place)
                    lxds.addfile(member, content)
                member = info(f"{place}/rootfs/root/f", tarfile.REGTYPE, uid=100005, gid=100006, mode=0o640)
                capability = struct.pack("<IIIIII", 0x03000001, 1 << 13, 0, 0, 0, 100000)  # ping's, of that root
                entries = (
                    (1, 6, 0xFFFFFFFF),
                    (2, 4, 101000),
                    (4, 4, 0xFFFFFFFF),
                    (16, 4, 0xFFFFFFFF),
                    (32, 0, 0xFFFFFFFF),
                )
                acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
                member.pax_headers = {
                    "SCHILY.xattr.security.capability": capability.decode("utf-8", "surrogateescape"),
                    "SCHILY.xattr.system.posix_acl_access": acl.decode("utf-8", "surrogateescape"),
                }
                lxds.addfile(member)
                lxds.addfile(info(f"{place}/rootfs/dev/zero", tarfile.CHRTYPE, devmajor=1, devminor=5))
    lxpyd.cli("import", str(tmp_path / "lxds"))
    found = lxpyd.instance(name)
    assert found["config"]["user.from"] == "lxd" and "volatile.idmap.next" not in found["config"]
    root = lxpyd.dir / f"storage-pools/default/instances/{name}/rootfs"
    for place in (root, root.parent / "snapshots/s0/rootfs"):
        stat = (place / "root/f").stat()
        assert (stat.st_uid, stat.st_gid, place.stat().st_uid) == (5, 6, 0)
        assert os.getxattr(place / "root/f", "security.capability") == struct.pack(
            "<IIIII", 0x02000001, 1 << 13, 0, 0, 0
        )
        assert struct.pack("<HHI", 2, 4, 1000) in os.getxattr(place / "root/f", "system.posix_acl_access")
        assert not (place / "dev/zero").exists()
    lxpyd.cli("start", name)
    assert lxpyd.sh(name, "stat -c '%u:%g' /root/f /bin").stdout == "5:6\n0:0\n"
    lxpyd.cli("restore", name, "s0")


# -- interruptions -------------------------------------------------------------------------------------------------


@pytest.fixture
def big(lxpyd: Lxpyd, name: str) -> str:
    lxpyd.cli("launch", "bb", name)
    lxpyd.sh(name, "head -c 60000000 /dev/urandom > /root/much")
    lxpyd.cli("stop", "-f", name)
    return name


@pytest.fixture
def quiet(lxpyd: Lxpyd) -> Iterator[None]:
    """The daemon has nothing to complain of when a client leaves."""
    log = lxpyd.dir / "lxpyd.log"
    begin = log.stat().st_size
    yield
    with log.open() as file:
        file.seek(begin)
        assert "Traceback" not in (said := file.read()), said


@contextlib.contextmanager
def interrupted(lxpyd: Lxpyd, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that gets a ctrl-C at the end of the body."""
    client = lxpyd.spawn(*words)
    try:
        yield client
    finally:
        client.send_signal(2)
        client.communicate(timeout=60)
    assert client.returncode in (130, 1, -2)  # -2: before it could look


def test_an_export_that_is_interrupted_leaves_nothing(
    lxpyd: Lxpyd, big: str, tmp_path: pathlib.Path, quiet: None
) -> None:
    file = str(tmp_path / "x")
    with interrupted(lxpyd, "export", big, file, "--compression", "xz -1"):
        until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()), 60, "nothing comes")
        # Who wants to change the instance meanwhile is not kept waiting.
        busy = lxpyd.cli("start", big, check=False)
        assert busy.returncode == 1 and f"Instance '{big}' is being exported" in busy.stderr
    assert not list(tmp_path.iterdir()) and not _programs(lxpyd)
    lxpyd.cli("start", big)
    lxpyd.cli("stop", "-f", big)
    # One of whose compressor nothing has come yet.
    with interrupted(lxpyd, "export", big, file, "--compression", "xz -9"):
        until(lambda: "xz" in _programs(lxpyd), 30, "nothing begins")
    until(lambda: not _programs(lxpyd), 10, "programs go on")
    assert not list(tmp_path.iterdir())
    # And one that is kept.
    url = f"/1.0/instances/{big}/backups"
    with interrupted(lxpyd, "query", "--wait", "-X", "POST", "-d", '{"compression_algorithm": "xz -9"}', url):
        until(lambda: list((lxpyd.dir / "backups/instances").glob("*/*.new")), 30, "nothing begins")
        listed = [one for one in lxpyd.json("operation", "list", "-f", "json") if one["status_code"] == 103]
        running = [one for one in listed if "Backing up" in one["description"]]
        lxpyd.cli("operation", "delete", running[0]["id"])
        until(lambda: not _programs(lxpyd), 10, "programs go on")
    assert not list((lxpyd.dir / "backups/instances").glob("*/*"))
    assert lxpyd.json("query", url) == []
    lxpyd.cli("start", big)


def _programs(lxpyd: Lxpyd) -> list[str]:
    assert lxpyd.process
    found = subprocess.run(["ps", "--ppid", str(lxpyd.process.pid), "-o", "comm="], capture_output=True, text=True)
    return [line for line in found.stdout.split() if line in ("tar", "find", "xz", "gzip", "zstd")]


def _half(client: subprocess.Popen[bytes], data: bytes) -> None:
    assert client.stdin
    with contextlib.suppress(BrokenPipeError):
        client.stdin.write(data[: len(data) // 2])
        client.stdin.flush()


def _ended(client: subprocess.Popen[bytes], feeder: threading.Thread, status: int) -> None:
    assert client.wait(20) == status
    feeder.join()
    for stream in (client.stdin, client.stdout, client.stderr):
        assert stream
        with contextlib.suppress(BrokenPipeError):
            stream.close()


def test_an_import_that_is_interrupted_leaves_nothing(lxpyd: Lxpyd, big: str, quiet: None) -> None:
    data = lxpyd.spawn("export", big, "-", "--compression", "none").communicate(timeout=60)[0]
    before = lxpyd.snapshot()
    client = lxpyd.spawn("import", "-", f"{big}-two")
    assert client.stdin
    feeder = threading.Thread(target=_half, args=(client, data))
    feeder.start()
    until(lambda: (lxpyd.dir / f"storage-pools/default/instances/{big}-two").exists(), 10, "nothing begins")
    client.send_signal(2)
    _ended(client, feeder, 130)
    until(lambda: lxpyd.snapshot() == before, 10, "something is left")


def test_a_daemon_that_is_killed_during_an_import(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("init", "bb", "a")
    entries = {"backup/index.yaml": index(container={"name": "b"}), f"{ROOT}/": b"", f"{ROOT}/much": bytes(40 << 20)}
    data = tarball(entries)
    client = daemon.spawn("import", "-")
    feeder = threading.Thread(target=_half, args=(client, data))
    feeder.start()
    pool = daemon.dir / "storage-pools/default"
    until(lambda: (pool / "instances/b").exists(), 10, "nothing begins")
    daemon.restart(kill=True)
    _ended(client, feeder, 1)
    assert [one["name"] for one in daemon.json("list", "-f", "json")] == ["a"]
    until(lambda: [path.name for path in pool.glob("instances/*")] == ["a"], 5, "something is left")
    until(lambda: not list(pool.glob("tmp/*")), 5, "something is left")


def test_a_daemon_that_is_killed_during_an_export(own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """The client stands still meanwhile: what it asks comes to the next daemon, which knows nothing of it."""
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    daemon.sh("a", "head -c 60000000 /dev/urandom > /root/much")
    daemon.cli("stop", "-f", "a")
    client = daemon.spawn("export", "a", str(tmp_path / "x"), "--compression", "xz -1")
    until(lambda: any(path.stat().st_size for path in tmp_path.iterdir()), 60, "nothing comes")
    client.send_signal(signal.SIGSTOP)
    daemon.restart(kill=True)
    client.send_signal(signal.SIGCONT)
    assert "closed the connection in the middle: nothing was kept" in client.communicate(timeout=60)[1].decode()
    assert client.returncode == 1 and not list(tmp_path.iterdir())
    daemon.cli("delete", "a")


def test_a_full_disk(own_network: None, own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    daemon = own_lxpyd
    daemon.cli("launch", "bb", "a")
    daemon.sh("a", "head -c 30000000 /dev/urandom > /root/much")
    daemon.cli("stop", "-f", "a")
    file = str(tmp_path / "a.tar")
    daemon.cli("export", "a", file, "--compression", "none")
    backups = daemon.dir / "backups"
    backups.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(backups)], check=True)
    try:
        full = daemon.cli("query", "--wait", "-X", "POST", "-d", "{}", "/1.0/instances/a/backups", check=False)
        assert full.returncode == 1 and "Export instance a: no space left in" in full.stderr
        assert not list(backups.glob("instances/*/*"))
    finally:
        subprocess.run(["umount", str(backups)], check=True)
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(small)], check=True)
    try:
        full = daemon.cli("export", "a", f"{small}/x", check=False)
        assert full.returncode == 1 and "No space left on device" in full.stderr and not list(small.iterdir())
        daemon.cli("start", "a")  # nothing holds it any more
    finally:
        subprocess.run(["umount", str(small)], check=True)
    daemon.cli("storage", "create", "tiny", "btrfs", "size=256MiB")
    root = daemon.dir / "storage-pools/tiny"
    with (root / "filler").open("wb") as filler:
        left = os.statvfs(root)
        os.posix_fallocate(filler.fileno(), 0, left.f_bavail * left.f_frsize - (16 << 20))
    full = daemon.cli("import", file, "b", "-s", "tiny", check=False)
    assert full.returncode == 1 and "Import backup: no space left on pool tiny" in full.stderr
    assert [one["name"] for one in daemon.json("list", "-f", "json")] == ["a"]
    until(lambda: not list(root.glob("instances/*")), 5, "something is left")
    (root / "filler").unlink()


def test_what_cannot_be_exported(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    for words, message in (
        (["nothere", str(tmp_path / "x")], "Instance 'nothere' not found"),
        ([name, str(tmp_path / "x"), "--compression", "rar"], "'rar' is none of none, gzip"),
        ([name, str(tmp_path)], "is a directory: name the file"),
        ([name, str(tmp_path / "x"), "--optimized-storage"], "--optimized-storage is not supported"),
        ([name, str(tmp_path / "no/x")], "No such file or directory"),
    ):
        lxpyd.cli("init", "bb", name, check=False)
        refused = lxpyd.cli("export", *words, check=False)
        assert refused.returncode == 1 and message in refused.stderr and refused.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    # What is no file stays what it is.
    os.mkfifo(tmp_path / "fifo")
    lxpyd.cli("start", name)  # and nothing of it is held
    with lxpyd.spawn("export", name, str(tmp_path / "fifo"), "--compression", "none") as client:
        data = subprocess.run(["timeout", "30", "cat", tmp_path / "fifo"], capture_output=True, check=False).stdout
        assert client.wait(30) == 0
    assert b"backup/index.yaml" in data[:512] and (tmp_path / "fifo").is_fifo()
    missing = lxpyd.cli("import", "/nothere", check=False)
    assert missing.returncode == 1 and "/nothere: No such file" in missing.stderr


def test_the_bytes_do_not_pass_through_memory(lxpyd: Lxpyd, big: str) -> None:
    """A slow reader makes the daemon wait, not remember."""
    assert lxpyd.process

    def resident() -> int:
        assert lxpyd.process
        return int(pathlib.Path(f"/proc/{lxpyd.process.pid}/statm").read_text().split()[1]) * 4096

    before = resident()
    with lxpyd.spawn("export", big, "-", "--compression", "none") as client:
        assert client.stdout
        client.stdout.read(10)
        time.sleep(1)
        assert resident() - before < 30 << 20
        assert len(client.stdout.read()) > 60_000_000 - 10

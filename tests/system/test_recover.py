"""A database that is lost, and pools that are read back into an empty one."""

import contextlib
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
from typing import Any

import yaml

from lxpy.linux import loop
from tests.support.daemon import Lxpyd, until
from tests.support.namespace import cgroups
from tests.support.pools import unmount_all


def backup(daemon: Lxpyd, volume: str, pool: str = "default") -> dict[str, Any]:
    """What lies beside the root of an instance; empty before it is there."""
    path = pathlib.Path(daemon.dir, f"storage-pools/{pool}/instances/{volume}/backup.yaml")
    found: dict[str, Any] = yaml.safe_load(path.read_text()) if path.exists() else {}
    return found


def test_the_backup_beside_the_root_follows(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("profile", "create", "p")
    daemon.cli("launch", "bb", "a", "-p", "default", "-p", "p")
    hwaddr = daemon.json("query", "/1.0/instances/a")["config"]["volatile.eth0.hwaddr"]
    until(lambda: backup(daemon, "a")["instance"]["config"].get("volatile.eth0.hwaddr") == hwaddr, 5, "no MAC")
    daemon.cli("profile", "set", "p", "user.k=v")
    until(lambda: backup(daemon, "a")["profiles"]["p"]["config"] == {"user.k": "v"}, 5, "the profile is old")
    assert backup(daemon, "a")["project"]["config"]["features.images"] == "true"
    # A daemon killed before it could write the file writes it at its next start.
    daemon.kill()
    pathlib.Path(daemon.dir, "storage-pools/default/instances/a/backup.yaml").unlink()
    daemon.start()
    until(lambda: backup(daemon, "a").get("instance", {}).get("name") == "a", 5, "no file")


def lose(daemon: Lxpyd, *, reboot: bool = False) -> None:
    """The daemon ends, its database is gone; with `reboot` so is everything it had mounted."""
    daemon.kill(signal.SIGTERM)
    for path in daemon.dir.glob("lxpy.db*"):
        path.unlink()
    if reboot:
        unmount_all(str(daemon.dir))
    daemon.start()


def whole(daemon: Lxpyd) -> dict[str, Any]:
    """What a recovery has to bring back."""
    instances = daemon.json("query", "/1.0/instances?recursion=1&all-projects=true")
    keep = ("name", "project", "config", "devices", "profiles", "description", "ephemeral", "created_at")
    pools = daemon.json("query", "/1.0/storage-pools?recursion=1")
    profiles = daemon.json("query", "/1.0/profiles?recursion=1")
    return {
        "instances": [{key: one[key] for key in keep} for one in instances],
        "snapshots": {
            one["name"]: daemon.json("query", f"/1.0/instances/{one['name']}/snapshots?recursion=1")
            for one in instances
            if one["project"] == "default"
        },
        "pools": [{**one, "used_by": sorted(one["used_by"])} for one in pools],
        "volumes": {
            pool["name"]: daemon.json(
                "query", f"/1.0/storage-pools/{pool['name']}/volumes/custom?recursion=1&all-projects=true"
            )
            for pool in pools
        },
        "profiles": {one["name"]: (one["config"], one["devices"], sorted(one["used_by"])) for one in profiles},
        "projects": [{**one, "used_by": ""} for one in daemon.json("query", "/1.0/projects?recursion=1")],
    }


def test_everything_comes_back_into_an_empty_database(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("storage", "create", "fast", "btrfs", "size=300MiB", "btrfs.mount_options=noatime", "user.k=v")
    daemon.cli("project", "create", "pj", "-c", "features.images=false", "-c", "user.x=y")
    daemon.cli("profile", "create", "p")
    daemon.cli("profile", "set", "p", "user.p=q")
    for pool in ("plain", "fast"):
        daemon.cli("storage", "volume", "create", pool, "v", "snapshots.expiry=10y")
        daemon.cli("storage", "volume", "snapshot", pool, "v", "s0")
    daemon.cli("storage", "volume", "set", "fast", "v", "size=50MiB")
    daemon.cli("storage", "volume", "create", "plain", "w", "--project", "pj")
    daemon.cli("launch", "bb", "a", "-p", "default", "-p", "p", "-c", "user.a=b")
    daemon.cli("launch", "bb", "b", "-s", "plain", "-e")
    daemon.cli("launch", "bb", "c", "-s", "fast", "-d", "root,size=100MiB")
    root = ("-d", "root,type=disk", "-d", "root,pool=default", "-d", "root,path=/")
    daemon.cli("init", "bb", "d", "--project", "pj", *root)
    daemon.cli("storage", "volume", "attach", "plain", "v", "a", "disk", "/data")
    for name in ("a", "b", "c"):
        daemon.sh(name, f"echo {name} > /root/file")
    daemon.sh("a", "echo there > /data/file")
    for name in ("a", "b", "c"):
        daemon.cli("snapshot", name, "s0")
        daemon.sh(name, "echo later > /root/file")
    daemon.cli("snapshot", "a", "s1", "--no-expiry")
    for name in ("a", "c"):
        daemon.cli("stop", "-f", name)
    before = whole(daemon)
    keys = ("volatile.uuid", "volatile.eth0.hwaddr", "volatile.base_image")
    kept = {one["name"]: [one["config"].get(key) for key in keys] for one in before["instances"]}
    for image in daemon.json("image", "list", "-f", "json"):
        daemon.cli("image", "delete", image["fingerprint"])  # an overlay wants it all the same
    until(lambda: "volatile.eth0.hwaddr" in backup(daemon, "c", "fast")["instance"]["config"], 5, "no MAC in backup")
    pid = daemon.init_pid("b")

    lose(daemon, reboot=True)
    assert whole(daemon)["instances"] == [] and whole(daemon)["pools"] == []
    looked = daemon.out("recover", "--dry-run")
    assert "network 'lxt" in looked and "instance a on pool default: missing: " in looked
    assert "storage volume v on pool fast, with 1 snapshot" in looked and whole(daemon)["pools"] == []
    assert not mounted(daemon)
    # Without its network nothing that has a nic can come back; the rest does.
    said = daemon.cli("recover", "--yes", check=False)
    assert said.returncode == 1 and said.stderr.startswith("Error: Not recovered: a, c, b, for the reasons above.")
    assert "Storage pool fast recovered" in said.stdout and "Instance d recovered" in said.stdout
    daemon.cli("init", "--preseed", input=daemon.preseed())  # bridge and default profile; the pools are there
    said = daemon.cli("recover", "--yes", check=False)
    assert (
        f"instance b on pool plain: it still runs, from before its record was lost: end it first (kill -9 {pid})"
        in (said.stdout)
    )
    assert "Instance a recovered" in said.stdout and "Instance c recovered" in said.stdout
    os.kill(pid, signal.SIGKILL)
    until(lambda: not cgroups(daemon.layout.cgroup_prefix), 5, "it does not end")
    assert "Instance b recovered" in daemon.out("recover", "-y")
    assert daemon.out("recover", "-y") == "Nothing is to be recovered"

    after = whole(daemon)
    for one in after["instances"]:
        assert kept[one["name"]] == [one["config"].get(key) for key in keys]
    drop = ("volatile.last_state", "volatile.eth0.host_name", "volatile.disk.mount")
    for found in (before, after):
        for one in found["instances"]:
            one["config"] = {key: value for key, value in one["config"].items() if not key.startswith(drop)}
    assert after == before
    for name in ("a", "b", "c"):
        daemon.cli("start", name)
        assert daemon.sh(name, "cat /root/file").stdout == "later\n"
        daemon.cli("restore", name, "s0")
        assert daemon.sh(name, "cat /root/file").stdout == f"{name}\n"
    assert daemon.sh("a", "cat /data/file").stdout == "there\n"
    bases = {pathlib.Path(f"/proc/{daemon.init_pid(name)}/uid_map").read_text() for name in ("a", "b", "c")}
    assert len(bases) == 3
    daemon.cli("start", "d", "--project", "pj")
    daemon.restart()
    assert {name: daemon.status(name) for name in ("a", "b", "c")} == dict.fromkeys(("a", "b", "c"), "RUNNING")
    daemon.cli("project", "delete", "pj", check=False)
    daemon.cli("delete", "-f", "d", "--project", "pj")
    daemon.cli("storage", "volume", "delete", "plain", "w", "--project", "pj")
    daemon.cli("project", "delete", "pj")


def mounted(daemon: Lxpyd) -> list[str]:
    lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(f"{daemon.dir}/")]


def test_questions_and_what_cannot_come_back(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    place = daemon.dir / "elsewhere"
    place.mkdir()
    daemon.cli("storage", "create", "far", "dir", f"source={place}")
    assert daemon.out("recover", input="").endswith("Nothing is to be recovered")
    assert daemon.out("admin", "recover", "--yes") == "Nothing is to be recovered"
    for name in ("good", "cut", "bare", "other", "odd", "low"):
        daemon.cli("init", "bb", name, "-s", "default" if name == "low" else "far")
    daemon.cli("storage", "volume", "create", "far", "v")
    daemon.cli("storage", "volume", "snapshot", "far", "v", "s0")
    files = {name: place / f"instances/{name}/backup.yaml" for name in ("good", "cut", "bare", "other", "odd")}
    until(lambda: all(path.exists() for path in files.values()) and backup(daemon, "low"), 5, "no backup.yaml")
    lose(daemon, reboot=True)
    files["cut"].write_text(files["cut"].read_text()[:300] + "\n  - [")
    files["bare"].unlink()
    files["other"].write_text(files["good"].read_text().replace("project: default", "project: pj"))
    files["odd"].write_text(files["odd"].read_text().replace("  devices:\n", "  devices:\n    x: {type: warp}\n", 1))
    (place / "custom/v/snapshots/s0").rename(place / "custom/v/snapshots/s1")
    for image in (daemon.dir / "storage-pools/default/images").glob("*.squashfs"):
        image.rename(daemon.dir / "kept")

    daemon.cli("init", "--preseed", input=daemon.preseed().partition("storage_pools")[0])  # the bridge
    for flags, words in (
        (("--pool", "far"), "There is no pool at "),
        (("--pool", f"near,source={place}"), "holds a storage pool with the name 'far', not 'near'"),
        (("--pool", f"far,driver=btrfs,source={place}"), "is not on a btrfs"),
        (("--pool", f"far,driver=overlay,source={place}"), "holds a storage pool with the driver 'dir', not 'overlay'"),
        (("--pool", "far,driver=zfs,source=/"), "Storage driver 'zfs' is not supported yet"),
        (("--pool", f"far,source={daemon.dir}"), "holds no storage pool of lxpy's"),
        (("--pool", f"far,source={place},x=y"), "Unknown key 'x' of a dir pool"),
        (("--pool", "far,source"), "Bad setting of a pool 'source': expected key=value"),
        (("--preseed", "/dev/null"), "The list of pools must have the form"),
        (("far",), "too many arguments: far"),
    ):
        said = daemon.cli("recover", "--dry-run", *flags, check=False)
        assert said.returncode == 1 and words in said.stderr and said.stderr.count("\n") == 1, said.stderr
    # A disk that is damaged is told of, and holds nothing up.
    hurt = daemon.dir / "disks/hurt.img"
    hurt.parent.mkdir(exist_ok=True)
    hurt.write_bytes(bytes(1 << 20))
    for flags in (("--dry-run",), ()):
        said = daemon.cli("recover", *flags, input="no\nno\n", check=False)
        assert said.stderr.startswith(f"Warning: Storage pool hurt in {hurt} is left alone: ")
        assert "there is no btrfs on it" in said.stderr.splitlines()[0]
    hurt.unlink()
    # The overlay pool: yes. Another: first with a wrong source.
    answers = ["yes", "yes", "far", "", "/nowhere", "", "far", "", str(place), "", "no", "yes"]
    said = daemon.cli("recover", input="\n".join(answers) + "\n", check=False)
    assert "This server has no storage pools." in said.stdout
    assert "does not know: default (overlay, " in said.stdout
    assert "There is no pool at /nowhere" in said.stdout
    for line in (
        "instance good on pool far", "profile default", "storage volume v on pool far, with 1 snapshot",
        "its snapshot 's0' is missing on the pool", "its snapshot 's1' is not in backup.yaml: it is kept for ever",
        "instance cut on pool far: its backup.yaml is damaged in line", "bare on pool far: it has no backup.yaml",
        "instance other on pool far: its backup.yaml is that of 'good' in project 'pj'", "odd on pool far: ",
        "instance low on pool default: the image ", "which its root is a layer over, is missing on the pool",
    ):  # fmt: skip
        assert line in said.stdout, said.stdout
    assert said.returncode == 1 and said.stderr.startswith("Error: Not recovered: low, bare, cut and 2 more, for")
    assert "Instance good recovered\n" in said.stdout and "Storage pool far recovered\n" in said.stdout
    assert [one["name"] for one in daemon.json("list", "-f", "json")] == ["good"]
    daemon.cli("start", "good")
    # What is mended comes back the next time; what is not does no harm.
    (daemon.dir / "kept").rename(daemon.dir / f"storage-pools/default/images/{image.name}")
    daemon.cli("recover", "--yes", check=False)
    daemon.cli("start", "low")
    daemon.restart()
    assert daemon.status("low") == daemon.status("good") == "RUNNING"
    warned = " ".join(one["last_message"] for one in daemon.json("warning", "list", "-f", "json"))
    assert "Pool far: volumes without an instance: bare, cut, odd, other; see lxpy recover" in warned
    for name in ("cut", "bare", "odd", "other"):
        shutil.rmtree(place / "instances" / name)
    daemon.restart()


def test_only_on_the_server_itself(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("config", "set", f"core.https_address=127.0.0.1:{19800 + daemon.number % 100}")
    daemon.cli("remote", "add", "me", daemon.out("config", "trust", "add", "-q", "--name", "me"))
    daemon.cli("remote", "switch", "me")
    try:
        said = daemon.cli("recover", "--yes", check=False)
        assert (said.returncode, said.stderr) == (
            1, "Error: not authorized: pools are recovered on the server itself\n"
        )  # fmt: skip
        for path in ("validate", "import"):
            said = daemon.cli("query", "-X", "POST", "-d", "{}", f"me:/internal/recover/{path}", check=False)
            assert said.returncode == 1 and "on the server itself" in said.stderr
        assert daemon.out("recover", "--yes", "--force-local") == "Nothing is to be recovered"
    finally:
        daemon.cli("remote", "switch", "local")
    for body in ('{"pools": 1}', '{"pools": ["x"]}', '{"pools": [{"name": "x", "config": 1}]}', '{"pools": [{}]}'):
        said = daemon.cli("query", "-X", "POST", "-d", body, "/internal/recover/validate", check=False)
        assert said.returncode == 1 and said.stderr.count("\n") == 1 and "Traceback" not in said.stderr, said.stderr


def test_pools_on_a_disk_and_in_a_directory_of_a_btrfs(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    point = daemon.dir / "mnt"
    point.mkdir()
    for name in ("one", "two"):
        subprocess.run(["truncate", "-s", "300M", daemon.dir / name], check=True)
    subprocess.run(["mkfs.btrfs", "-q", daemon.dir / "two"], check=True)
    with contextlib.ExitStack() as stack:
        disk, other = (
            stack.enter_context(loop.attach(str(daemon.dir / name), readonly=False)) for name in ("one", "two")
        )
        subprocess.run(["mount", other, point], check=True)
        stack.callback(subprocess.run, ["umount", point], check=True)
        (point / "pool").mkdir()
        daemon.cli("storage", "create", "disk", "btrfs", f"source={disk}", "btrfs.mount_options=noatime")
        daemon.cli("storage", "create", "home", "btrfs", f"source={point}/pool")
        for pool in ("disk", "home"):
            daemon.cli("init", "bb", f"on-{pool}", "-s", pool)
            daemon.cli("snapshot", f"on-{pool}", "s")
        before = {pool: daemon.json("query", f"/1.0/storage-pools/{pool}")["config"] for pool in ("disk", "home")}
        lose(daemon)
        subprocess.run(["umount", daemon.dir / "storage-pools/disk"], check=True)
        daemon.cli("init", "--preseed", input=daemon.preseed().partition("storage_pools")[0])
        for source, words in (
            (disk, "holds a storage pool with the name 'disk', not 'wrong'"),
            (str(daemon.dir / "one"), "the file of a pool lies at "),
            ("/dev/null", "there is no btrfs on it"),
        ):
            said = daemon.cli("recover", "--dry-run", "--pool", f"wrong,driver=btrfs,source={source}", check=False)
            assert said.returncode == 1 and words in said.stderr and said.stderr.count("\n") == 1, said.stderr
        places = {"disk": disk, "home": f"{point}/pool"}
        text = yaml.safe_dump({"pools": [{"name": name, "config": {"source": at}} for name, at in places.items()]})
        assert "instance on-home on pool home, with 1 snapshot" in daemon.out(
            "recover", "--preseed", "--dry-run", input=text
        )
        assert not os.path.ismount(daemon.dir / "storage-pools/disk")
        daemon.cli("recover", "--preseed", "--yes", input=text)
        assert before == {pool: daemon.json("query", f"/1.0/storage-pools/{pool}")["config"] for pool in before}
        for pool in ("disk", "home"):
            daemon.cli("restore", f"on-{pool}", "s")
            daemon.cli("start", f"on-{pool}")
            daemon.cli("delete", "-f", f"on-{pool}")
        daemon.api("PUT", "/1.0/profiles/default", {"config": {}, "devices": {}, "description": ""})
        daemon.cli("recover", "--yes")  # `default` and `plain`, which are in their places
        for pool in ("disk", "home"):
            daemon.cli("storage", "delete", pool)
    point.rmdir()
    for name in ("one", "two"):
        (daemon.dir / name).unlink()


def test_volumes_that_a_known_pool_holds(own_lxpyd: Lxpyd) -> None:
    """A pool is known and some of what is on it is not: rows that were lost, directories that were put back."""
    daemon = own_lxpyd
    daemon.cli("init", "bb", "a", "-c", "user.x=y")
    daemon.cli("init", "bb", "b")
    daemon.cli("storage", "volume", "create", "default", "v", "user.x=y")
    place = daemon.dir / "storage-pools/default"
    until(lambda: backup(daemon, "b"), 5, "no backup.yaml")
    saved = daemon.dir / "saved"
    subprocess.run(["cp", "-a", place / "instances/b", saved], check=True)
    daemon.cli("delete", "b")
    daemon.cli("init", "bb", "c", "--profile", "default")  # takes the id map that b had
    daemon.kill(signal.SIGTERM)
    with contextlib.closing(sqlite3.connect(daemon.layout.database)) as db, db:
        db.execute("DELETE FROM instances WHERE name = 'a'")
        db.execute("DELETE FROM volumes")
    daemon.start()
    warned = " ".join(one["last_message"] for one in daemon.json("warning", "list", "-f", "json"))
    assert "volumes without an instance: a; see lxpy recover" in warned
    saved.rename(place / "instances/b")
    said = daemon.out("recover", "--yes")
    assert "Instance a recovered\nInstance b recovered" in said and "Storage volume v recovered" in said
    assert not [one for one in daemon.json("warning", "list", "-f", "json") if "without a" in one["type"]]
    assert daemon.instance("a")["config"]["user.x"] == "y"
    for name in ("a", "b", "c"):
        daemon.cli("start", name)
    assert len({pathlib.Path(f"/proc/{daemon.init_pid(name)}/uid_map").read_text() for name in ("a", "b", "c")}) == 3

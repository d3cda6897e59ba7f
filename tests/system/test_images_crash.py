"""kill -9 amid work on images: what is listed is whole, nothing else lies about, and the same can be done again."""

import hashlib
import json
import pathlib
import random
import signal
import sqlite3
import time

import pytest

from tests.support.daemon import Lxpyd
from tests.support.streams import StreamServer, age_documents, serving
from tests.support.tarballs import metadata_tar, squashfs, unified_tar


def consistent(daemon: Lxpyd) -> dict[str, list[str]]:
    """Images with their aliases, after a look whether files and database tell the same."""
    found = {one["fingerprint"]: [alias["name"] for alias in one["aliases"]]
             for one in daemon.json("query", "/1.0/images?recursion=1")}  # fmt: skip
    on_disk: dict[str, list[pathlib.Path]] = {}
    for path in (daemon.dir / "images").iterdir():
        on_disk.setdefault(path.name.partition(".")[0], []).append(path)
    assert set(on_disk) == set(found), (sorted(on_disk), sorted(found))
    for fingerprint, paths in on_disk.items():
        digest = hashlib.sha256()
        for path in sorted(paths):  # the metadata's name is the shorter one
            if path.suffix != ".json":
                digest.update(path.read_bytes())
        assert digest.hexdigest() == fingerprint
    with sqlite3.connect(daemon.layout.database) as db:
        assert {row[0] for row in db.execute("SELECT fingerprint FROM images")} == set(found)
        assert {row[0] for row in db.execute("SELECT fingerprint FROM image_aliases")} <= set(found)
    return found


@pytest.mark.timeout(300)
def test_killed_anywhere(own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """Two kills in each operation, somewhere in its time."""
    daemon, server, rng = own_lxpyd, StreamServer(), random.Random(3)
    whole = unified_tar(size=3_000_000)
    (tmp_path / "u.tar.gz").write_bytes(whole)
    fresh = iter(range(1, 20))

    def publish() -> None:
        """A newer version on the server, which the daemon has not heard of."""
        server.add("Far", "1", metadata_tar(), squashfs(3_000_000), serial=f"202601{next(fresh):02}_00:00")

    publish()
    with serving(server):
        server.faults.slow = 0.002
        daemon.cli("remote", "add", "far", server.url, "--protocol", "simplestreams")
        for command in (
            ("image", "copy", "far:far/1", "local:", "--alias", "new"),
            ("image", "import", str(tmp_path / "u.tar.gz"), "--alias", "new"),
            ("image", "refresh", "kept"),
            ("image", "alias", "rename", "kept", "new"),
            ("image", "delete", "kept"),
        ):
            for share in (0.3, 0.9):
                verb = command[1]
                if verb in ("refresh", "alias", "delete"):
                    daemon.cli("image", "copy", "far:far/1", "local:", "--alias", "kept")
                if verb == "refresh":
                    publish()
                    age_documents(daemon.dir / "cache", 7200)
                process = daemon.spawn(*command)
                time.sleep(0.03 + share * rng.uniform(0.01, 0.15))
                daemon.kill(signal.SIGKILL)
                _, err = process.communicate(timeout=30)
                assert b"Traceback" not in err, err.decode()
                daemon.start()

                found = consistent(daemon)
                names = sorted(name for aliases in found.values() for name in aliases)
                expected = {"refresh": [["kept"]], "alias": [["kept"], ["new"]], "delete": [[], ["kept"]]}
                assert [name for name in names if name != "bb"] in expected.get(verb, [[], ["new"]]), (command, names)
                done = daemon.cli(*command, check=False)
                assert "Traceback" not in done.stderr
                left = consistent(daemon)
                if done.returncode:  # only where it had been done before the kill
                    assert "already exists" in done.stderr or "not found" in done.stderr, (command, done.stderr)
                elif verb in ("copy", "import"):
                    assert ["new"] in left.values()
                elif verb == "refresh":
                    newest = hashlib.sha256(_newest(server)).hexdigest()
                    assert left[newest] == ["kept"] and len(left) == 2, (found, left)
                for fingerprint, aliases in left.items():
                    if aliases != ["bb"]:
                        daemon.cli("image", "delete", fingerprint)
                assert list(consistent(daemon).values()) == [["bb"]]


def _newest(server: StreamServer) -> bytes:
    versions = next(iter(server.products.values()))["versions"]
    items = versions[max(versions)]["items"]
    return server.files["/" + items["m"]["path"]] + server.files["/" + items["r"]["path"]]


@pytest.mark.timeout(300)
def test_killed_amid_copies_between_servers(own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """Either of the two, in each mode, somewhere in the copy: one line, both are consistent, it can be done again."""
    here, rng = own_lxpyd, random.Random(5)
    there = Lxpyd("p", here.number + 80)
    there.start()
    try:
        (tmp_path / "big.tar").write_bytes(unified_tar("tar", size=60_000_000))
        there.cli("image", "import", str(tmp_path / "big.tar"), "--alias", "big")
        fingerprint = there.json("query", "/1.0/images/aliases/big")["target"]
        for daemon in (here, there):
            listen = f"127.0.0.1:{19800 + daemon.number}"
            daemon.cli("config", "set", f"core.https_address={listen}", "core.trust_password=sesame")
        here.cli("remote", "add", "far", f"https://127.0.0.1:{19800 + there.number}", "--accept-certificate",
                 "--password", "sesame")  # fmt: skip
        for mode in ("pull", "push", "relay"):
            command = ("image", "copy", "far:big", "local:", "--mode", mode, "--alias", "copy")
            for victim in (here, there):
                process = here.spawn(*command)
                time.sleep(rng.uniform(0.1, 0.5))
                victim.kill(signal.SIGKILL)
                _, err = process.communicate(timeout=60)
                lines = err.decode().strip().splitlines()
                assert "Traceback" not in err.decode() and len(lines) <= 1, err.decode()
                victim.start()
                assert set(consistent(there)) == {fingerprint}
                assert set(consistent(here)) <= {fingerprint, *_names(here, "bb")}
                if fingerprint in consistent(here) and here.cli(*command, check=False).returncode:
                    here.cli("image", "delete", fingerprint)  # it had arrived: no mode but pull takes it once more
                here.cli(*command)
                assert consistent(here)[fingerprint] == ["copy"]
                here.cli("image", "delete", "copy")
                assert consistent(here).keys() == set(_names(here, "bb"))
    finally:
        there.destroy()
        here.cli("config", "set", "core.https_address=", "core.trust_password=")


def _names(daemon: Lxpyd, alias: str) -> list[str]:
    return [str(daemon.json("query", f"/1.0/images/aliases/{alias}")["target"])]


def test_damaged_files(own_lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    """Cut short on the disk by somebody: refused where they are used, told at the next start, and replaced."""
    daemon, server = own_lxpyd, StreamServer()
    server.add("Far", "1", metadata_tar(), squashfs(100_000))
    bb = daemon.json("query", "/1.0/images/aliases/bb")["target"]
    with serving(server):
        daemon.cli("remote", "add", "far", server.url, "--protocol", "simplestreams")
        source = {"type": "image", "server": server.url, "protocol": "simplestreams", "alias": "far/1", "mode": "pull"}
        daemon.cli("query", "--wait", "-X", "POST", "-d", json.dumps({"name": "x", "source": source}), "/1.0/instances",
                   check=False)  # fmt: skip  # no pool can mount it: the image stays, cached
        cached = next(one["fingerprint"] for one in daemon.json("image", "list", "-f", "json") if one["cached"])
        for fingerprint in (bb, cached):
            path = daemon.dir / "images" / f"{fingerprint}.rootfs"
            whole = path.read_bytes()
            path.unlink()  # not the pool's hard link to it
            path.write_bytes(whole[:1000])
        for command in (("init", "bb", "a", "-s", "plain"), ("image", "export", "bb", str(tmp_path / "out"))):
            said = daemon.cli(*command, check=False)
            assert said.returncode == 1 and "are damaged (they have" in said.stderr, said
            assert "delete the image and get it again" in said.stderr and len(said.stderr.splitlines()) == 1
        assert not list(tmp_path.iterdir()) and daemon.json("list", "-f", "json") == []
        daemon.restart()
        told = {one["entity_url"]: one["type"] for one in daemon.json("warning", "list", "-f", "json")}
        assert told[f"/1.0/images/{bb}"] == "Image files damaged"
        assert told[f"/1.0/images/{cached}"] == "Image files missing"
        assert [one["fingerprint"] for one in daemon.json("image", "list", "-f", "json")] == [bb]
        daemon.cli("image", "delete", "bb")
        daemon.import_image("busybox", "bb")
        daemon.cli("launch", "bb", "a", "-s", "plain")
        daemon.restart()
        assert "damaged" not in daemon.out("warning", "list", "-f", "csv")

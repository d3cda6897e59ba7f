"""kill -9 amid work on images: what is listed is whole, nothing else lies about, and the same can be done again."""

import hashlib
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

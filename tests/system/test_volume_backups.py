"""Custom volumes to a file and back."""

import os
import pathlib
import tarfile

import pytest
import yaml

from tests.support.daemon import Lxpyd
from tests.support.tarballs import tarball


@pytest.mark.parametrize("driver", ["overlay", "dir", "btrfs"])
def test_there_and_back(lxpyd: Lxpyd, name: str, driver: str, tmp_path: pathlib.Path) -> None:
    pool, file = f"vb{driver}", str(tmp_path / "v.tar")
    lxpyd.cli("storage", "create", pool, driver, *(["size=300MiB"] if driver == "btrfs" else []))
    try:
        lxpyd.cli("storage", "volume", "create", pool, "v", "user.k=v", "--description", "Mine")
        lxpyd.cli("launch", "bb", name)
        lxpyd.cli("storage", "volume", "attach", pool, "v", name, "/mnt")
        lxpyd.sh(name, "echo one > /mnt/f; ln /mnt/f /mnt/g; chown 5:6 /mnt/f; chmod 751 /mnt")
        lxpyd.cli("storage", "volume", "snapshot", pool, "v", "s")
        lxpyd.sh(name, "echo two > /mnt/f")
        # In use by a running instance.
        lxpyd.cli("storage", "volume", "export", pool, "v", file, "--compression", "none")
        assert lxpyd.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/v/snapshots") == [
            f"/1.0/storage-pools/{pool}/volumes/custom/v/snapshots/s"
        ]
        with tarfile.open(file) as tar:
            names = tar.getnames()
            read = tar.extractfile("backup/index.yaml")
            assert read
            index = yaml.safe_load(read)
        assert {"backup/volume/f", "backup/volume-snapshots/s/f"} <= set(names)
        assert (index["type"], index["config"]["volume"]["config"]) == ("custom", {"user.k": "v"})
        taken = lxpyd.cli("storage", "volume", "import", pool, file, check=False)
        assert taken.returncode == 1 and "Storage volume 'v' already exists" in taken.stderr
        lxpyd.cli("storage", "volume", "import", pool, file, "w")
        new = lxpyd.json("query", f"/1.0/storage-pools/{pool}/volumes/custom/w")
        assert (new["config"], new["description"]) == ({"user.k": "v"}, "Mine")
        lxpyd.cli("storage", "volume", "detach", pool, "v", name)
        lxpyd.cli("storage", "volume", "attach", pool, "w", name, "/mnt")
        assert lxpyd.sh(name, "cat /mnt/f; stat -c '%u:%g %h' /mnt/g; stat -c %a /mnt").stdout == "two\n5:6 2\n751\n"
        lxpyd.cli("storage", "volume", "detach", pool, "w", name)
        lxpyd.cli("storage", "volume", "restore", pool, "w", "s")
        lxpyd.cli("storage", "volume", "attach", pool, "w", name, "/mnt")
        assert lxpyd.sh(name, "cat /mnt/f").stdout == "one\n"
        lxpyd.cli("storage", "volume", "export", pool, "w", file, "--volume-only", "--compression", "zstd")
        lxpyd.cli("storage", "volume", "import", "plain", file, "x")
        assert lxpyd.json("query", "/1.0/storage-pools/plain/volumes/custom/x/snapshots") == []
    finally:
        lxpyd.cli("delete", "-f", name, check=False)
        for where, volume in ((pool, "v"), (pool, "w"), ("plain", "x")):
            lxpyd.cli("storage", "volume", "delete", where, volume, check=False)
        lxpyd.cli("storage", "delete", pool)


def test_kept_ones(lxpyd: Lxpyd) -> None:
    lxpyd.cli("storage", "volume", "create", "plain", "v")
    url = "/1.0/storage-pools/plain/volumes/custom/v/backups"
    lxpyd.api("POST", url, {"name": "b", "volume_only": True})
    assert lxpyd.json("query", url) == [f"{url}/b"]
    assert lxpyd.json("query", f"{url}/b")["name"] == "v/b"
    lxpyd.api("POST", f"{url}/b", {"name": "c"})
    lxpyd.cli("storage", "volume", "set", "plain", "v", "user.k=v")
    assert [path.name for path in (lxpyd.dir / "backups/custom").glob("*/*")] == ["c"]
    lxpyd.api("DELETE", f"{url}/c")
    lxpyd.api("POST", url, {})
    lxpyd.cli("storage", "volume", "delete", "plain", "v")
    assert not list((lxpyd.dir / "backups/custom").glob("*/*"))


def index(**changes: object) -> bytes:
    volume = {"name": "bad", "config": {}, "content_type": "filesystem"} | dict(changes.pop("volume", {}))  # type: ignore[call-overload]
    return yaml.safe_dump({"name": "bad", "type": "custom", "config": {"volume": volume}} | changes).encode()


BAD = {
    "empty": (b"", "it is empty"),
    "an instance": (tarball({"backup/index.yaml": index(type="container")}), "it is of an instance: lxpy import"),
    "a block volume": (tarball({"backup/index.yaml": index(volume={"content_type": "block"})}), "block volume"),
    "unknown key": (tarball({"backup/index.yaml": index(volume={"config": {"nope": "1"}})}), "nope"),
    "a name": (tarball({"backup/index.yaml": index(volume={"name": "../x"})}), "Invalid storage volume name"),
    "nothing": (tarball({"backup/index.yaml": index()}), "it holds no backup/volume"),
    "dots": (tarball({"backup/index.yaml": index(), "backup/volume/../../../x": b""}), "leads out"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_one_is_one_line_and_leaves_nothing(lxpyd: Lxpyd, what: str) -> None:
    data, message = BAD[what]
    refused = lxpyd.cli("storage", "volume", "import", "plain", "-", input=data, check=False)
    assert refused.returncode == 1 and message in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert lxpyd.json("query", "/1.0/storage-pools/plain/volumes/custom") == []
    assert os.listdir(lxpyd.dir / "storage-pools/plain/custom") == []

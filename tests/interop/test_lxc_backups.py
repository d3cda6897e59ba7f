"""The stock `lxc` client of LXD 5.0.2: publish, export, import."""

import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.daemon import Lxpyd

Lxc = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def alias(lxpyd: Lxpyd, name: str) -> Iterator[str]:
    yield f"{name}-image"
    lxpyd.cli("image", "delete", f"{name}-image", check=False)


def test_export_and_import(lxc: Lxc, lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    lxpyd.sh(busybox, "echo kept > /root/f")
    lxc("snapshot", busybox, "s")
    file = str(tmp_path / "b.tar.gz")
    lxc("export", busybox, file)
    lxc("export", busybox, str(tmp_path / "only"), "--instance-only", "--compression", "zstd")
    assert lxpyd.json("query", f"/1.0/instances/{busybox}/backups") == []
    lxc("import", file, f"{busybox}-two", "-s", "plain")
    assert "plain" in lxc("config", "show", f"{busybox}-two").stdout
    lxc("start", f"{busybox}-two")
    assert lxc("exec", f"{busybox}-two", "--", "cat", "/root/f").stdout == "kept\n"
    assert "s" in lxc("info", f"{busybox}-two").stdout
    lxc("delete", "-f", f"{busybox}-two")
    lxc("import", str(tmp_path / "only"), f"{busybox}-two")
    again = lxc("import", file, ok=False)
    assert again.returncode == 1 and f"Instance '{busybox}' already exists" in again.stderr
    # A large one that is refused while it is still being sent.
    (tmp_path / "bad").write_bytes(b"no archive" * 4_000_000)
    bad = lxc("import", str(tmp_path / "bad"), ok=False)
    assert bad.returncode == 1 and "Import backup: a damaged header" in bad.stderr


def test_publish(lxc: Lxc, busybox: str, alias: str) -> None:
    refused = lxc("publish", busybox, "--alias", alias, ok=False)
    assert refused.returncode == 1 and "running" in refused.stderr
    lxc("publish", busybox, "--alias", alias, "-f", "k=v", "--compression", "zstd", "--public")
    assert "k: v" in lxc("image", "show", alias).stdout and "public: true" in lxc("image", "show", alias).stdout
    lxc("launch", alias, f"{busybox}-two")
    lxc("snapshot", busybox, "s")
    lxc("publish", f"{busybox}/s", "--alias", alias)  # this client takes the alias by itself
    assert "k: v" not in lxc("image", "show", alias).stdout


def test_volumes(lxc: Lxc, lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    file = str(tmp_path / "v.tar.gz")
    lxc("storage", "volume", "create", "plain", "v", "user.k=v")
    try:
        lxc("storage", "volume", "snapshot", "plain", "v", "s")
        lxc("storage", "volume", "export", "plain", "v", file)
        assert lxpyd.json("query", "/1.0/storage-pools/plain/volumes/custom/v/backups") == []
        lxc("storage", "volume", "import", "plain", file, "w")
        assert "user.k: v" in lxc("storage", "volume", "show", "plain", "w").stdout
    finally:
        for name in ("v", "w"):
            lxc("storage", "volume", "delete", "plain", name, ok=False)


def test_metadata_and_templates(lxc: Lxc, name: str) -> None:
    lxc("init", "bb", name)
    assert "templates:" in lxc("config", "metadata", "show", name).stdout
    lxc("config", "template", "create", name, "x.tpl")
    lxc("config", "template", "edit", name, "x.tpl", input="text\n")
    assert lxc("config", "template", "show", name, "x.tpl").stdout == "text\n"
    assert "x.tpl" in lxc("config", "template", "list", name).stdout
    lxc("config", "template", "delete", name, "x.tpl")
    shown = lxc("config", "metadata", "show", name).stdout
    lxc("config", "metadata", "edit", name, input=shown.replace("properties:\n", "properties:\n  flavour: mine\n", 1))
    assert "flavour: mine" in lxc("config", "metadata", "show", name).stdout

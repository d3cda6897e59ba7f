"""rebuild, and what an instance tells the images made of it."""

import json
import pathlib
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd


@pytest.fixture(scope="module")
def other(lxpyd: Lxpyd) -> Iterator[str]:
    """Another image."""
    lxpyd.cli("launch", "bb", "maker")
    lxpyd.sh("maker", "echo other > /etc/which")
    lxpyd.cli("publish", "maker", "-f", "--alias", "other", "flavour=other", "--compression", "zstd")
    lxpyd.cli("delete", "-f", "maker")
    yield "other"
    lxpyd.cli("image", "delete", "other")


def test_a_new_root_and_the_old_configuration(lxpyd: Lxpyd, name: str, pool: str, other: str) -> None:
    lxpyd.cli("launch", "bb", name, "-s", pool, "-c", "user.k=v", "-c", "limits.memory=100MiB")
    lxpyd.cli("config", "device", "add", name, "d", "none")
    lxpyd.sh(name, "echo mine > /root/mine")
    before = lxpyd.instance(name)
    refused = lxpyd.cli("rebuild", other, name, check=False)
    assert refused.returncode == 1 and f"Instance '{name}' is running" in refused.stderr
    lxpyd.cli("rebuild", other, name, "-f")
    assert lxpyd.status(name) == "RUNNING"
    assert lxpyd.sh(name, "cat /etc/which /etc/hostname; ls /root").stdout == f"other\n{name}\n"
    after = lxpyd.instance(name)
    for key in ("devices", "profiles", "description", "ephemeral", "created_at"):
        assert after[key] == before[key]
    for key in ("user.k", "limits.memory", "volatile.uuid", "volatile.eth0.hwaddr"):
        assert after["config"][key] == before["config"][key]
    assert after["config"]["image.flavour"] == "other" and "image.flavour" not in before["config"]
    assert after["config"]["volatile.base_image"] != before["config"]["volatile.base_image"]
    # Back again, named the other way round, and to nothing.
    lxpyd.cli("stop", "-f", name)
    lxpyd.cli("rebuild", name, "bb")
    assert "image.flavour" not in lxpyd.instance(name)["config"]
    lxpyd.cli("start", name)
    assert lxpyd.sh(name, "test -e /etc/which || echo gone").stdout == "gone\n"
    lxpyd.cli("stop", "-f", name)
    lxpyd.cli("rebuild", name, "--empty")
    assert not [key for key in lxpyd.instance(name)["config"] if key.startswith("image.")]
    root = lxpyd.dir / f"storage-pools/{pool}/instances/{name}/rootfs"
    assert root.is_dir() and not list(root.iterdir())
    lxpyd.cli("rebuild", other, name)
    lxpyd.cli("start", name)
    assert lxpyd.sh(name, "cat /etc/which").stdout == "other\n"


def test_what_is_not_rebuilt(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("init", "bb", name)
    lxpyd.cli("snapshot", name, "s")
    before = lxpyd.snapshot()
    for words, message in (
        (["bb", name], f"Instance '{name}' has snapshots (s)"),
        (["bb", "nothere"], "Instance 'nothere' not found"),
        ([name], "an image and an instance are expected"),
        (["nothere", name, "--empty"], "an image and an instance are expected"),
    ):
        refused = lxpyd.cli("rebuild", *words, check=False)
        assert refused.returncode == 1 and message in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    lxpyd.cli("delete", f"{name}/s")
    missing = lxpyd.cli("rebuild", "nothere", name, check=False)
    assert missing.returncode == 1 and "nothere" in missing.stderr
    lxpyd.cli("snapshot", name, "s")
    assert lxpyd.snapshot() == before


def test_metadata_and_templates(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("init", "bb", name)
    shown = lxpyd.json("query", f"/1.0/instances/{name}/metadata")
    assert shown["templates"]["/etc/hostname"]["template"] in lxpyd.json(
        "query", f"/1.0/instances/{name}/metadata/templates"
    )
    assert "templates:" in lxpyd.out("config", "metadata", "show", name)
    lxpyd.cli(
        "config",
        "template",
        "create",
        name,
        "motd.tpl",
        input="I am {{ instance.name }} on {{ config_get('user.k', 'no') }}\n",
    )
    again = lxpyd.cli("config", "template", "create", name, "motd.tpl", check=False)
    assert again.returncode == 1 and "already exists" in again.stderr
    lxpyd.cli("config", "template", "create", name, "empty.tpl")
    assert "motd.tpl" in lxpyd.out("config", "template", "list", name, "-f", "csv").splitlines()
    shown["templates"]["/etc/motd"] = {"when": ["start"], "template": "motd.tpl"}
    shown["properties"]["flavour"] = "mine"
    lxpyd.cli("config", "metadata", "edit", name, input=json.dumps(shown))
    lxpyd.cli("config", "set", name, "user.k=yes")
    lxpyd.cli("start", name)
    assert lxpyd.sh(name, "cat /etc/motd").stdout == f"I am {name} on yes\n"
    lxpyd.cli("config", "template", "edit", name, "motd.tpl", input="changed\n")
    assert lxpyd.out("config", "template", "show", name, "motd.tpl") == "changed"
    lxpyd.cli("restart", "-f", name)
    assert lxpyd.sh(name, "cat /etc/motd").stdout == "changed\n"
    # They go into images and backups.
    lxpyd.cli("publish", name, "-f", "--alias", f"{name}-image")
    assert lxpyd.json("query", f"/1.0/images/aliases/{name}-image")
    lxpyd.cli("launch", f"{name}-image", f"{name}-two")
    assert lxpyd.sh(f"{name}-two", "cat /etc/motd").stdout == "changed\n"
    assert lxpyd.instance(f"{name}-two")["config"]["image.flavour"] == "mine"
    lxpyd.cli("image", "delete", f"{name}-image")
    lxpyd.cli("config", "template", "delete", name, "empty.tpl")
    for words, message in (
        (["config", "template", "delete", name, "motd.tpl"], "is what /etc/motd is made of"),
        (["config", "template", "delete", name, "nothere"], "Template 'nothere' of instance"),
        (["config", "template", "show", name, "nothere"], "Template 'nothere' of instance"),
        (["config", "template", "create", name, "../x"], "Invalid template name '../x'"),
        (["config", "metadata", "show", "nothere"], "Instance 'nothere' not found"),
    ):
        refused = lxpyd.cli(*words, check=False, input="")
        assert refused.returncode == 1 and message in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    for change, message in (
        ({"architecture": "pdp11"}, "architecture 'pdp11' is unknown"),
        ({"templates": {"/x": {"when": ["create"], "template": "nothere.tpl"}}}, "'nothere.tpl', which is not there"),
        ({"what": 1}, "Unknown key 'what'"),
    ):
        refused = lxpyd.cli("config", "metadata", "edit", name, input=json.dumps({**shown, **change}), check=False)
        assert refused.returncode == 1 and message in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    url = f"/1.0/instances/{name}/metadata"
    lxpyd.api("PATCH", url, {"properties": {"flavour": "patched"}})
    assert lxpyd.json("query", url)["properties"] == {"flavour": "patched"}

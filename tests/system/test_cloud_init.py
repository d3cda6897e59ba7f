"""cloud-init's data: the seed, the instance-id, keys for users; a real Debian with cloud-init (slow)."""

import io
import os
import pathlib
import subprocess
import tarfile
import time

import pytest
import yaml

from tests.support import guest, images
from tests.support.daemon import Lxpyd

SEED = "/var/lib/cloud/seed/nocloud-net"


def _image(folder: pathlib.Path, *, template: bool = False) -> str:
    """A busybox with a cloud-init in it; `template` is for its user-data."""
    _, rootfs = images.files("busybox")
    subprocess.run(["unsquashfs", "-q", "-n", "-d", folder / "tree", rootfs], check=True, capture_output=True)
    (folder / "tree/usr/bin/cloud-init").write_text("#!/bin/sh\n")
    metadata = {"architecture": os.uname().machine, "creation_date": 1700000000, "templates": {}}
    if template:
        text = '{{ config_get("cloud-init.user-data", "none") }}+{{ config_get("cloud-init.vendor-data", "none") }}'
        metadata["templates"] = {f"{SEED}/meta-data": {"when": ["create"], "template": "seed"}}
    with tarfile.open(folder / "image.tar", "w") as archive:
        files = {"metadata.yaml": yaml.safe_dump(metadata)} | ({"templates/seed": text} if template else {})
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content.encode()))
        archive.add(folder / "tree", "rootfs")
    return str(folder / "image.tar")


def _seed(lxpyd: Lxpyd, name: str) -> dict[str, str]:
    text = lxpyd.sh(name, f'cd {SEED} && for f in *; do echo "==$f"; cat $f; done').stdout
    return {part.partition("\n")[0]: part.partition("\n")[2] for part in text.split("==")[1:]}


def _identity(lxpyd: Lxpyd, name: str) -> str:
    return lxpyd.out("config", "get", name, "volatile.cloud-init.instance-id")


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_an_image_without_templates_gets_its_seed(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path, pool: str) -> None:
    lxpyd.cli("image", "import", _image(tmp_path), "--alias", f"{name}-i")
    data = "#cloud-config\nruncmd: [true]\n"
    lxpyd.cli(
        "launch", f"{name}-i", name, "-s", pool, "-c", f"cloud-init.user-data={data}", "-c", "user.meta-data=a: b"
    )
    first = _identity(lxpyd, name)
    seed = _seed(lxpyd, name)
    assert seed["user-data"] == data and seed["vendor-data"] == "#cloud-config\n"
    assert yaml.safe_load(seed["meta-data"]) == {"instance-id": first, "local-hostname": name, "a": "b"}
    assert yaml.safe_load(seed["network-config"])["ethernets"] == {"eth0": {"dhcp4": True, "accept-ra": True}}
    assert lxpyd.sh(name, f"stat -c %a:%u {SEED}/user-data").stdout == "600:0\n"

    lxpyd.cli("config", "set", name, "user.other=1", "limits.processes=500")
    lxpyd.cli("restart", "-f", name)
    assert _identity(lxpyd, name) == first  # nothing that cloud-init is given has changed
    network = "version: 2\nethernets: {eth0: {dhcp4: true}}\n"
    lxpyd.cli("config", "set", name, f"user.network-config={network}")
    lxpyd.cli("restart", "-f", name)
    second = _identity(lxpyd, name)
    assert second != first
    seed = _seed(lxpyd, name)
    assert seed["network-config"] == network and f"instance-id: {second}\n" in seed["meta-data"]
    assert f"instance-id: {second}\n" in guest.ask(lxpyd, name, "/1.0/meta-data")[1]
    lxpyd.cli("config", "unset", name, "user.network-config")
    lxpyd.cli("stop", "-f", name)
    # A copy is another instance to cloud-init, one renamed is the same.
    lxpyd.cli("copy", name, f"{name}-copy")
    lxpyd.cli("start", f"{name}-copy")
    copied = yaml.safe_load(_seed(lxpyd, f"{name}-copy")["meta-data"])
    assert copied["local-hostname"] == f"{name}-copy" and copied["instance-id"] not in (first, second)
    assert copied["instance-id"] == _identity(lxpyd, f"{name}-copy")
    lxpyd.cli("start", name)
    assert "accept-ra" in _seed(lxpyd, name)["network-config"]
    lxpyd.cli("stop", "-f", name)
    third = _identity(lxpyd, name)
    lxpyd.cli("rename", name, f"{name}-new")
    lxpyd.cli("start", f"{name}-new")
    renamed = yaml.safe_load(_seed(lxpyd, f"{name}-new")["meta-data"])
    assert renamed["local-hostname"] == f"{name}-new" and renamed["instance-id"] == third
    lxpyd.cli("delete", "-f", f"{name}-copy")
    lxpyd.cli("rename", f"{name}-new", name, check=False)
    lxpyd.cli("stop", "-f", f"{name}-new")
    lxpyd.cli("rename", f"{name}-new", name)
    lxpyd.cli("delete", "-f", name)
    lxpyd.cli("image", "delete", f"{name}-i")


def test_templates_go_first_and_a_change_is_not_lost(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("image", "import", _image(tmp_path, template=True), "--alias", f"{name}-i")
    lxpyd.cli(
        "launch", f"{name}-i", name, "-c", "cloud-init.user-data=mine", "-c", "cloud-init.ssh-keys.a=anna:KEY a@b"
    )
    user, vendor = lxpyd.sh(name, f"ls {SEED}; cat {SEED}/meta-data").stdout.removeprefix("meta-data\n").split("+")
    assert user == "mine"
    assert yaml.safe_load(vendor)["users"] == ["default", {"name": "anna", "ssh_authorized_keys": ["KEY a@b"]}]
    lxpyd.cli("config", "set", name, "cloud-init.user-data=other")
    lxpyd.cli("restart", "-f", name)
    assert _seed(lxpyd, name)["user-data"] == "other"
    lxpyd.cli("delete", "-f", name)
    lxpyd.cli("image", "delete", f"{name}-i")


def test_keys_of_users(lxpyd: Lxpyd, busybox: str) -> None:
    users = "#cloud-config\nusers:\n- {name: anna, shell: /bin/sh}\n"
    keys = ["cloud-init.ssh-keys.one=root:ssh-ed25519 AA x", "cloud-init.ssh-keys.two=anna:ssh-ed25519 BB"]
    lxpyd.cli("config", "set", busybox, f"cloud-init.user-data={users}", *keys)
    data = yaml.safe_load(guest.ask(lxpyd, busybox, "/1.0/config/cloud-init.user-data")[1])
    anna = {"name": "anna", "shell": "/bin/sh", "ssh_authorized_keys": ["ssh-ed25519 BB"]}
    assert data["users"] == [anna, {"name": "root", "ssh_authorized_keys": ["ssh-ed25519 AA x"]}]
    assert data["disable_root"] is False
    vendor = yaml.safe_load(guest.ask(lxpyd, busybox, "/1.0/config/cloud-init.vendor-data")[1])
    assert vendor["users"][0] == "default" and len(vendor["users"]) == 3
    for wrong in ("cloud-init.ssh-keys.x=nokey", "cloud-init.ssh-keys.=a:b", "cloud-init.ssh-keys.x=:b",
                  "cloud-init.vendor-data=#!/bin/sh"):  # fmt: skip
        result = lxpyd.cli("config", "set", busybox, wrong, check=False)
        assert result.returncode == 1 and result.stderr.count("\n") == 1, wrong
    assert "cloud-init.ssh-keys.x" not in lxpyd.instance(busybox)["config"]


def test_data_that_cloud_init_could_not_read(lxpyd: Lxpyd, busybox: str) -> None:
    for key, value, said in (
        ("user-data", "#cloud-config\na: 1\nb: [c", "line 3: expected ',' or ']'"),
        ("vendor-data", "#cloud-config\n- a", "it is no set of keys in YAML"),
        ("network-config", "version: 2: x", "line 1: mapping values are not allowed here"),
        ("network-config", "eth0", "it is no set of keys in YAML"),
    ):
        refused = lxpyd.cli("config", "set", busybox, f"cloud-init.{key}={value}", check=False)
        assert refused.returncode == 1 and refused.stderr.startswith(f"Error: Invalid value for cloud-init.{key}: ")
        assert said in refused.stderr and refused.stderr.count("\n") == 1
    for value in ("#cloud-config", "#!/bin/sh\nx: [", "## template: jinja\n#cloud-config\n{{", "#cloud-config\na: 1"):
        lxpyd.cli("config", "set", busybox, f"cloud-init.user-data={value}")


def test_an_image_without_cloud_init_gets_no_seed(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "cloud-init.user-data=#cloud-config\n")
    assert lxpyd.sh(name, "ls /var/lib/cloud", check=False).returncode != 0


def test_the_environment_reaches_init_and_exec(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "environment.GREETING=hello there")
    assert "GREETING=hello there" in lxpyd.sh(name, "tr '\\0' '\\n' < /proc/1/environ").stdout.splitlines()
    assert lxpyd.sh(name, "echo $GREETING").stdout == "hello there\n"
    lxpyd.cli("config", "set", name, "environment.GREETING=bye")
    assert lxpyd.sh(name, "echo $GREETING").stdout == "bye\n"


@pytest.mark.slow
def test_cloud_init_of_debian(lxpyd: Lxpyd, name: str) -> None:
    """Boots a real one: the user-data is applied once, and again when it has changed."""
    metadata, rootfs = images.files("debian/12/cloud")
    lxpyd.cli("image", "import", str(metadata), str(rootfs), "--alias", "deb-cloud")
    data = "#cloud-config\nruncmd:\n- [sh, -c, 'echo {} >> /root/ran']\nwrite_files:\n- {{path: /root/w, content: h}}\n"
    lxpyd.cli("launch", "deb-cloud", name, "-c", f"cloud-init.user-data={data.format('first')}",
              "-c", "cloud-init.ssh-keys.k=debian:ssh-ed25519 AAAA test")  # fmt: skip
    done = "cloud-init status --wait >/dev/null; cat /root/ran /root/w"
    assert lxpyd.sh(name, done, timeout=200).stdout == "first\nh"
    assert lxpyd.sh(name, "cloud-id").stdout.strip() in ("nocloud", "lxd")
    assert "AAAA" in lxpyd.sh(name, "cat ~debian/.ssh/authorized_keys").stdout
    lxpyd.cli("restart", name)
    assert lxpyd.sh(name, done, timeout=200).stdout == "first\nh"
    lxpyd.cli("config", "set", name, f"cloud-init.user-data={data.format('second')}")
    lxpyd.cli("restart", name)
    begun = time.monotonic()
    assert lxpyd.sh(name, done, timeout=200).stdout == "first\nsecond\nh"
    assert time.monotonic() - begun < 200
    # The same by the guest API alone: cloud-init's own LXD data source finds what it looks for.
    source = "datasource_list: [LXD]"
    lxpyd.sh(name, f"echo '{source}' > /etc/cloud/cloud.cfg.d/99_source.cfg; rm -r {SEED}; cloud-init clean --logs")
    lxpyd.cli("restart", name)
    assert lxpyd.sh(name, done, timeout=200).stdout == "first\nsecond\nsecond\nh"
    assert lxpyd.sh(name, "cloud-id").stdout.strip() == "lxd"
    lxpyd.cli("delete", "-f", name)
    lxpyd.cli("image", "delete", "deb-cloud")

"""The stock `lxc` client of LXD 5.0.2, unchanged, against our socket."""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.support import projects
from tests.support.daemon import Lxpyd

Lxc = Callable[..., subprocess.CompletedProcess[str]]


def test_the_life_of_an_instance(lxc: Lxc, name: str) -> None:
    lxc("launch", "bb", name)
    assert f"{name},RUNNING" in lxc("list", "-f", "csv", "-c", "ns").stdout
    assert f"{name}," in lxc("list", name, "-f", "csv").stdout
    result = lxc("exec", name, "--", "sh", "-c", "cat; echo err >&2; exit 7", ok=False, input="typed")
    assert (result.returncode, result.stdout, result.stderr) == (7, "typed", "err\n")
    assert "Status: RUNNING" in lxc("info", name).stdout
    lxc("config", "set", name, "user.role", "web")
    assert lxc("config", "get", name, "user.role").stdout.strip() == "web"
    assert name in lxc("list", "user.role=web", "-f", "csv").stdout
    lxc("config", "unset", name, "user.role")
    wrong = lxc("config", "set", name, "limits.nope", "1", ok=False)
    assert wrong.returncode == 1
    assert "limits.nope" in wrong.stderr
    lxc("pause", name)
    assert "FROZEN" in lxc("list", name, "-f", "csv").stdout
    lxc("start", name)
    lxc("restart", "-f", name)
    lxc("stop", name)
    assert f"{name},STOPPED" in lxc("list", "-f", "csv", "-c", "ns").stdout
    lxc("rename", name, f"{name}-b")
    lxc("delete", f"{name}-b")
    assert name not in lxc("list", "-f", "csv").stdout


def test_exec_has_a_terminal_when_asked(lxc: Lxc, busybox: str) -> None:
    result = lxc("exec", "-t", busybox, "--", "sh", "-c", "test -t 0 && test -t 1 && echo yes")
    assert result.stdout.replace("\r", "") == "yes\n"


def test_large_output_arrives_whole(lxc: Lxc, busybox: str) -> None:
    result = lxc("exec", busybox, "--", "dd", "if=/dev/zero", "bs=1M", "count=32")
    assert len(result.stdout) == 32 << 20


def test_a_background_process_does_not_hold_exec(lxc: Lxc, busybox: str) -> None:
    assert lxc("exec", busybox, "--", "sh", "-c", "sleep 50 & echo started").stdout == "started\n"


def test_images(lxc: Lxc, tmp_path: pathlib.Path) -> None:
    assert "bb," in lxc("image", "list", "-f", "csv").stdout
    lxc("image", "alias", "create", "interop", lxc("image", "list", "-f", "csv", "-c", "F").stdout.split()[0])
    assert "Fingerprint:" in lxc("image", "info", "interop").stdout
    # The client hashes what it got and compares.
    lxc("image", "export", "interop", str(tmp_path / "out"))
    assert (tmp_path / "out.root").exists() or len(list(tmp_path.glob("out*"))) == 2
    lxc("image", "alias", "delete", "interop")
    assert lxc("image", "info", "interop", ok=False).returncode == 1


def test_btrfs_pools_and_sizes(lxc: Lxc, name: str) -> None:
    lxc("storage", "create", name, "btrfs", "size=512MiB")
    try:
        assert f"{name},btrfs," in lxc("storage", "list", "-f", "csv").stdout
        lxc("storage", "set", name, "size", "600MiB")
        assert lxc("storage", "get", name, "size").stdout.strip() == "600MiB"
        assert "total space: 600.00MiB" in lxc("storage", "info", name).stdout
        assert "cannot shrink" in lxc("storage", "set", name, "size", "512MiB", ok=False).stderr
        show = lxc("storage", "show", name).stdout
        lxc("storage", "edit", name, input=show.replace('description: ""', "description: edited"))
        assert "description: edited" in lxc("storage", "show", name).stdout
        lxc("launch", "bb", name, "-s", name)
        lxc("storage", "volume", "create", name, "v", "size=10MiB")
        lxc("storage", "volume", "attach", name, "v", name, "data", "/data")
        script = "dd if=/dev/zero of=/data/big bs=1M count=40; sync"
        assert "Disk quota exceeded" in lxc("exec", name, "--", "sh", "-c", script, ok=False).stderr
        lxc("config", "device", "set", name, "root", "size", "24MiB")
        script = "dd if=/dev/zero of=/big bs=1M count=40; sync"
        assert "Disk quota exceeded" in lxc("exec", name, "--", "sh", "-c", script, ok=False).stderr
        assert "in use" in lxc("storage", "delete", name, ok=False).stderr
        lxc("delete", "-f", name)
        lxc("storage", "volume", "delete", name, "v")
    finally:
        lxc("delete", "-f", name, ok=False)
        lxc("storage", "volume", "delete", name, "v", ok=False)
        lxc("storage", "delete", name)


def test_profiles_networks_storage_projects(lxc: Lxc, lxpyd: Lxpyd, name: str) -> None:
    lxc("profile", "create", name)
    lxc("profile", "set", name, "limits.memory", "64MiB")
    lxc("launch", "bb", name, "-p", "default", "-p", name)
    assert lxc("config", "get", "-e", name, "limits.memory").stdout.strip() == "64MiB"
    assert lxc("profile", "delete", name, ok=False).returncode == 1
    lxc("delete", "-f", name)
    lxc("profile", "delete", name)
    assert lxpyd.bridge in lxc("network", "list", "-f", "csv").stdout
    assert "Bytes received" in lxc("network", "info", lxpyd.bridge).stdout
    lxc("network", "list-leases", lxpyd.bridge)
    assert "overlay" in lxc("storage", "list", "-f", "csv").stdout
    assert "total space" in lxc("storage", "info", "default").stdout
    lxc("project", "create", name, "-c", "features.images=false", "-c", "features.profiles=false")
    lxc("launch", "bb", name, "--project", name)
    assert name not in lxc("list", "-f", "csv").stdout
    assert name in lxc("list", "-f", "csv", "--all-projects").stdout
    lxc("config", "set", name, "limits.memory=64MiB", "--project", name)
    lxc("project", "set", name, "limits.memory", "100MiB")
    assert "given already" in lxc("config", "set", name, "limits.memory=1GiB", "--project", name, ok=False).stderr
    assert "MEMORY,100.00MiB,64.00MiB" in lxc("project", "info", name, "-f", "csv").stdout
    assert "holds instances/" in lxc("project", "delete", name, ok=False).stderr
    assert lxc("project", "list").stdout == lxpyd.cli("project", "list").stdout
    assert lxc("project", "info", name).stdout == lxpyd.cli("project", "info", name).stdout
    lxc("delete", "-f", name, "--project", name)
    lxc("project", "rename", name, f"{name}-n")
    lxc("project", "edit", f"{name}-n", input="description: of lxc\nconfig:\n  limits.cpu: '3'\n")
    assert lxc("project", "get", f"{name}-n", "limits.cpu").stdout == "3\n"
    lxc("project", "delete", f"{name}-n")


def test_start_and_stop_all_at_once(lxc: Lxc, lxpyd: Lxpyd, name: str) -> None:
    for suffix in ("a", "b"):
        lxc("init", "bb", f"{name}-{suffix}")
    lxc("start", "--all")
    assert lxc("list", f"^{name}-", "-f", "csv", "-c", "s").stdout.split() == ["RUNNING", "RUNNING"]
    lxc("stop", "--all", "-f")
    assert lxc("list", f"^{name}-", "-f", "csv", "-c", "s").stdout.split() == ["STOPPED", "STOPPED"]


def test_errors_are_one_line(lxc: Lxc, busybox: str) -> None:
    for args in (
        ("start", "nope"), ("exec", "nope", "--", "true"), ("launch", "nope", "x"), ("launch", "bb", busybox),
        ("delete", busybox), ("query", "/1.0/nope"), ("snapshot", busybox, "a b"),
        ("restore", busybox, "nope"), ("profile", "delete", "default"),
        ("launch", "bb", "x", "-s", "nope"), ("exec", busybox, "--", "/nope"),
    ):  # fmt: skip
        result = lxc(*args, ok=False)
        assert result.returncode != 0, args
        assert "Traceback" not in result.stdout + result.stderr
        assert "internal error" not in result.stderr, result.stderr


def test_snapshots(lxc: Lxc, lxpyd: Lxpyd, busybox: str) -> None:
    lxpyd.sh(busybox, "echo before > /f")
    lxc("snapshot", busybox)
    lxc("snapshot", busybox, "s1", "--no-expiry")
    lxc("snapshot", busybox, "s1", "--reuse")
    lxpyd.sh(busybox, "echo after > /f")
    assert f"{busybox},2" in lxc("list", "-f", "csv", "-c", "nS").stdout
    assert "snap0" in lxc("info", busybox).stdout
    lxc("rename", f"{busybox}/snap0", f"{busybox}/first")
    assert "expires_at" in lxc("config", "show", f"{busybox}/first").stdout
    lxc("config", "edit", f"{busybox}/first", input="expires_at: 2999-01-01T00:00:00Z\n")
    assert "2999-01-01" in lxc("config", "show", f"{busybox}/first").stdout
    lxc("restore", busybox, "first")
    assert lxpyd.sh(busybox, "cat /f").stdout == "before\n"
    assert "--stateful" in lxc("snapshot", busybox, "x", "--stateful", ok=False).stderr
    lxc("delete", f"{busybox}/first")
    assert f"{busybox},1" in lxc("list", "-f", "csv", "-c", "nS").stdout


def test_copies_and_moves(lxc: Lxc, lxpyd: Lxpyd, busybox: str) -> None:
    c, project = busybox, f"p-{busybox}"
    lxpyd.cli("project", "create", project, *projects.SHARED)
    lxpyd.sh(c, "echo before > /f")
    lxc("snapshot", c, "s")
    lxpyd.sh(c, "echo after > /f")
    lxc("copy", c, f"{c}-a", "-c", "user.k=v")
    lxc("copy", f"{c}/s", f"{c}-b")
    lxc("copy", c, f"{c}-c", "-s", "plain", "--instance-only")
    lxc("copy", c, f"{c}-a", "--refresh")
    lxc("copy", c, f"{c}-d", "--target-project", project)
    lxc("delete", f"{c}-d", "--project", project)
    lxc("move", f"{c}-a", "-s", "plain")
    lxc("move", f"{c}-b", f"{c}-e", "-s", "plain")
    lxc("move", f"{c}-c", f"{c}-f")
    for name, content, snapshots in ((f"{c}-a", "after", 1), (f"{c}-e", "before", 0), (f"{c}-f", "after", 0)):
        assert f"{name},plain,{snapshots}" in lxc("list", name, "-f", "csv", "-c", "nbS").stdout
        lxc("start", name)
        assert lxc("exec", name, "--", "cat", "/f").stdout == f"{content}\n"
    lxc("stop", "-f", f"{c}-e")
    lxc("move", f"{c}-e", "--target-project", project)
    assert f"{c}-e" in lxc("list", "--project", project, "-f", "csv").stdout
    projects.remove(lxpyd, project)


def test_volumes(lxc: Lxc, lxpyd: Lxpyd, busybox: str) -> None:
    v = f"v-{busybox}"
    volume = ("storage", "volume")
    lxc(*volume, "create", "default", v)
    lxc(*volume, "attach", "default", v, busybox, "data", "/data")
    assert lxpyd.sh(busybox, "touch /data/f; ls /data").stdout == "f\n"
    lxc(*volume, "set", "default", v, "user.a", "b")
    assert lxc(*volume, "get", "default", v, "user.a").stdout == "b\n"
    lxc(*volume, "snapshot", "default", v, "s0")
    assert f"custom (snapshot),{v}/s0" in lxc(*volume, "list", "default", "-f", "csv").stdout
    assert v in lxc(*volume, "list", "default", "--all-projects", "-f", "csv").stdout
    info = lxc(*volume, "info", "default", v).stdout
    assert "s0" in info and "Usage:" in info
    assert "used_by" in lxc(*volume, "show", "default", v).stdout
    assert "in use by" in lxc(*volume, "delete", "default", v, ok=False).stderr
    lxc(*volume, "detach", "default", v, busybox)
    lxc(*volume, "restore", "default", v, "s0")
    lxc(*volume, "copy", f"default/{v}", f"plain/{v}-c")
    lxc(*volume, "move", f"plain/{v}-c", f"default/{v}-m")
    lxc(*volume, "rename", "default", f"{v}/s0", f"{v}/s1")
    lxc(*volume, "rename", "default", v, f"{v}-n")
    assert f"custom (snapshot),{v}-m/s0" in lxc(*volume, "list", "default", "-f", "csv").stdout
    lxc(*volume, "show", "default", f"{v}-n/s1")
    lxc(*volume, "edit", "default", f"{v}-n", input="description: told\nconfig: {}\n")
    assert "description: told" in lxc(*volume, "show", "default", f"{v}-n").stdout
    lxc(*volume, "delete", "default", f"{v}-n/s1")
    for name in (f"{v}-n", f"{v}-m"):
        lxc(*volume, "delete", "default", name)


def test_networks_forwards_and_acls(lxc: Lxc, lxpyd: Lxpyd) -> None:
    net, listen = "lxlxc0", "198.51.100.9"
    lxc("network", "create", net, "ipv4.address=10.94.7.1/24", "ipv6.address=none")
    try:
        assert f"{net},bridge,YES,10.94.7.1/24,none" in lxc("network", "list", "-f", "csv").stdout
        lxc("network", "set", net, "ipv4.dhcp.expiry=2h")
        assert "10.94.7.1/24 (global)" in lxc("network", "info", net).stdout
        assert f"{net}.gw" in lxc("network", "list-leases", net, "-f", "csv").stdout
        lxc("network", "forward", "create", net, listen, "target_address=10.94.7.5")
        lxc("network", "forward", "port", "add", net, listen, "tcp", "80,90-92", "10.94.7.6")
        assert f"{listen},,10.94.7.5,1" in lxc("network", "forward", "list", net, "-f", "csv").stdout
        assert "90-92" in lxc("network", "forward", "show", net, listen).stdout
        lxc("network", "forward", "port", "remove", net, listen, "tcp")
        wrong = lxc("network", "forward", "port", "add", net, listen, "tcp", "80", "192.0.2.1", ok=False)
        assert wrong.returncode == 1 and "not inside" in wrong.stderr
        lxc("network", "acl", "create", "stock")
        lxc("network", "acl", "rule", "add", "stock", "ingress", "action=allow", "protocol=tcp", "destination_port=80")
        lxc("network", "set", net, "security.acls=stock")
        assert "stock,,1" in lxc("network", "acl", "list", "-f", "csv").stdout
        assert "destination_port" in lxc("network", "acl", "show", "stock").stdout
        lxc("network", "acl", "show-log", "stock")
        lxc("network", "acl", "rule", "remove", "stock", "ingress", "protocol=tcp")
        lxc("network", "unset", net, "security.acls")
        lxc("network", "acl", "rename", "stock", "stock2")
        lxc("network", "acl", "delete", "stock2")
        lxc("network", "forward", "delete", net, listen)
        lxc("network", "rename", net, "lxlxc1")
        lxc("network", "rename", "lxlxc1", net)
    finally:
        lxc("network", "delete", net)


def test_warnings(lxc: Lxc, lxpyd: Lxpyd) -> None:
    kind = "AppArmor support has been disabled"
    lxc("warning", "list", "--all")
    found = [one for one in lxpyd.json("warning", "list", "-a", "-f", "json") if one["type"] == kind]
    if found:  # where AppArmor is on, there is no such warning
        assert f"type: {kind}" in lxc("warning", "show", found[0]["uuid"]).stdout
        lxc("warning", "ack", found[0]["uuid"])
        assert kind not in lxc("warning", "list").stdout
        assert f"{kind},ACKNOWLEDGED,LOW," in lxc("warning", "list", "-a", "-f", "csv", "-c", "tSsc").stdout


def test_trust(lxc: Lxc, lxpyd: Lxpyd, busybox: str) -> None:
    """A token made by the stock client, used by it over HTTPS, listed, revoked; a restricted client."""
    lxpyd.cli("config", "set", "core.https_address=127.0.0.1:19611")
    token = lxc("config", "trust", "add", "--name", "stock").stdout.splitlines()[-1]
    assert token in lxc("config", "trust", "list-tokens").stdout
    lxc("remote", "add", "far", token)
    assert busybox in lxc("list", "far:", "-f", "csv", "-c", "n").stdout
    assert lxc("exec", f"far:{busybox}", "--", "echo", "over").stdout == "over\n"
    assert lxc("config", "trust", "list-tokens", "-f", "csv").stdout.strip() == ""
    row = lxc("config", "trust", "list", "-f", "csv").stdout.strip().split(",")
    assert (
        row[:2] == ["client", "stock"]
        and row[3] == lxpyd.json("config", "trust", "list", "-f", "json")[0]["fingerprint"][:12]
    )
    header = lxc("config", "trust", "list").stdout.splitlines()[1]
    assert header.split() == lxpyd.out("config", "trust", "list").splitlines()[1].split()
    assert "name: stock" in lxc("config", "trust", "show", row[3]).stdout
    document = "name: renamed\ntype: client\nrestricted: true\nprojects: [default]\n"
    lxc("config", "trust", "edit", row[3], input=document)
    assert busybox in lxc("list", "far:", "-f", "csv", "-c", "n").stdout
    assert "not authorized" in lxc("config", "set", "far:", "user.a=b", ok=False).stderr
    lxc("config", "trust", "remove", row[3])
    assert lxc("list", "far:", ok=False).returncode == 1
    lxpyd.cli("config", "set", "core.trust_password=sesame")
    lxc("remote", "add", "other", "https://127.0.0.1:19611", "--accept-certificate", "--password", "sesame")
    assert busybox in lxc("list", "other:", "-f", "csv", "-c", "n").stdout
    lxpyd.cli("config", "trust", "remove", row[3])
    lxpyd.cli("config", "unset", "core.trust_password")
    lxc("config", "trust", "add", "--name", "unused")
    lxc("config", "trust", "revoke-token", "unused")
    assert lxpyd.json("config", "trust", "list-tokens", "-f", "json") == []
    lxpyd.cli("config", "unset", "core.https_address")


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_files(lxc: Lxc, lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, state: str) -> None:
    if state == "stopped":
        lxc("stop", "-f", busybox)
    source = tmp_path / "source"
    source.write_bytes(os.urandom(3 << 20))
    source.chmod(0o751)
    lxc("file", "push", str(source), f"{busybox}/root/pushed", "--uid", "12", "--gid", "34")
    lxc("file", "pull", f"{busybox}/root/pushed", str(tmp_path / "pulled"))
    assert (tmp_path / "pulled").read_bytes() == source.read_bytes()
    assert (tmp_path / "pulled").stat().st_mode & 0o7777 == 0o751
    lxc("file", "push", "-", f"{busybox}/root/typed", input="typed in\n")
    assert lxc("file", "pull", f"{busybox}/root/typed", "-").stdout == "typed in\n"
    assert "not there" in lxc("file", "pull", f"{busybox}/root/none", "-", ok=False).stderr

    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below/file").write_text("deep")
    (tree / "link").symlink_to("below/file")
    lxc("file", "push", "-r", "-p", str(tree), f"{busybox}/srv/new/")
    lxc("file", "pull", "-r", f"{busybox}/srv/new/tree", str(tmp_path / "back"))
    assert (tmp_path / "back/tree/below/file").read_text() == "deep"
    assert (tmp_path / "back/tree/link").is_symlink()
    lxc("file", "edit", f"{busybox}/root/typed", input="edited\n")
    assert lxc("file", "pull", f"{busybox}/root/typed", "-").stdout == "edited\n"
    lxc("file", "delete", f"{busybox}/root/typed")
    assert lxc("file", "pull", f"{busybox}/root/typed", "-", ok=False).returncode == 1
    if state == "stopped":
        lxc("start", busybox)
    owner = lxpyd.sh(busybox, "stat -c '%a %u %g' /root/pushed; readlink /srv/new/tree/link").stdout
    assert owner == "751 12 34\nbelow/file\n"


def test_devices(lxc: Lxc, lxpyd: Lxpyd, busybox: str) -> None:
    lxc("config", "device", "add", busybox, "z", "unix-char", "source=/dev/zero", "path=/dev/z", "mode=0604")
    lxc(
        "config", "device", "add", busybox, "p", "proxy", "listen=tcp:127.0.0.1:7401", "connect=unix:@x",
        "bind=container",
    )  # fmt: skip
    assert lxpyd.sh(busybox, "stat -c %a /dev/z").stdout == "604\n"
    assert set(lxc("config", "device", "list", busybox).stdout.split()) == {"p", "z"}
    lxc("config", "device", "set", busybox, "p", "listen=tcp:127.0.0.1:7402", "security.uid=5")
    assert lxc("config", "device", "get", busybox, "p", "listen").stdout == "tcp:127.0.0.1:7402\n"
    shown = lxpyd.out("info", busybox)
    assert "  p: proxy out of it, tcp:127.0.0.1:7402 -> unix:@x" in shown
    assert "  z: unix-char /dev/z" in shown
    wrong = lxc("config", "device", "set", busybox, "p", "listen=tcp:127.0.0.1:99999", ok=False)
    assert wrong.returncode == 1
    assert "within 1 to 65535" in wrong.stderr
    lxpyd.cli("init", "bb", f"{busybox}-b")
    lxc("config", "device", "add", f"{busybox}-b", "z", "unix-char", "source=/dev/zero", "path=/dev/z")
    lxc("config", "device", "remove", busybox, "z")
    assert lxpyd.sh(busybox, "test -e /dev/z", check=False).returncode == 1
    assert "  z: unix-char /dev/z" in lxpyd.out("info", f"{busybox}-b")

"""A real LXD 5.0.2 beside us: its backups and images start here, and ours there."""

import pathlib

from tests.support import images, leftovers, lxd, namespace
from tests.support.daemon import Lxpyd

_FILL = "echo kept > /root/f; ln /root/f /root/g; chown 5:6 /root/f; truncate -s 3M /root/holes; mkfifo /root/p"
_LOOK = "stat -c '%n %u:%g %h %s' /root/f /root/g /root/holes; cat /root/f; test -p /root/p && echo pipe; hostname"


def test_backups_and_images_both_ways(tmp_path: pathlib.Path) -> None:
    with namespace.own_network():
        daemon = Lxpyd("lx", 244)
        daemon.start()
        try:
            daemon.initialise()
            with lxd.running(namespace.run_dir("lxd")) as lxc:
                _theirs_here(daemon, lxc, tmp_path)
                _ours_there(daemon, lxc, tmp_path)
                _from_server_to_server(daemon, lxc)
        finally:
            daemon.destroy()
        leftovers.check(daemon)


def _theirs_here(daemon: Lxpyd, lxc: lxd.Run, folder: pathlib.Path) -> None:
    metadata, rootfs = images.files("busybox")
    lxc("image", "import", str(metadata), str(rootfs), "--alias", "bb")
    lxc("launch", "bb", "theirs", "-c", "user.from=lxd")
    lxc("exec", "theirs", "--", "sh", "-c", _FILL)
    seen = lxc("exec", "theirs", "--", "sh", "-c", _LOOK)
    lxc("snapshot", "theirs", "s0")
    lxc("exec", "theirs", "--", "sh", "-c", "echo later > /root/f")
    lxc("export", "theirs", str(folder / "theirs"))
    lxc("publish", "theirs", "-f", "--alias", "of-theirs")
    lxc("image", "export", "of-theirs", str(folder / "image"))
    daemon.cli("import", str(folder / "theirs"))
    daemon.cli("start", "theirs")
    assert daemon.sh("theirs", "cat /root/f; stat -c %u:%g /root/f /bin").stdout == "later\n5:6\n0:0\n"
    assert daemon.instance("theirs")["config"]["user.from"] == "lxd"
    daemon.cli("restore", "theirs", "s0")
    assert daemon.sh("theirs", _LOOK).stdout == seen
    daemon.cli("image", "import", str(folder / "image.tar.gz"), "--alias", "of-theirs")
    daemon.cli("launch", "of-theirs", "third")
    assert daemon.sh("third", "cat /root/f /etc/hostname").stdout == "later\nthird\n"


def _ours_there(daemon: Lxpyd, lxc: lxd.Run, folder: pathlib.Path) -> None:
    daemon.cli("launch", "bb", "ours", "--no-profiles", "-s", "default", "-c", "user.from=lxpy")
    daemon.sh("ours", _FILL)
    seen = daemon.sh("ours", _LOOK).stdout
    daemon.cli("snapshot", "ours", "s1")
    daemon.sh("ours", "echo later > /root/f")
    daemon.cli("export", "ours", str(folder / "ours"), "--compression", "zstd")
    daemon.cli("publish", "ours/s1", "--alias", "of-ours")
    daemon.cli("image", "export", "of-ours", str(folder / "own"))
    lxc("import", str(folder / "ours"), "-s", "dir")
    lxc("start", "ours")
    assert lxc("exec", "ours", "--", "cat", "/root/f") == "later\n"
    assert lxc("config", "get", "ours", "user.from") == "lxpy\n"
    lxc("restore", "ours", "s1")
    assert lxc("exec", "ours", "--", "sh", "-c", _LOOK) == seen
    lxc("image", "import", str(folder / "own.tar.gz"), "--alias", "of-ours")
    lxc("launch", "of-ours", "fourth")
    assert lxc("exec", "fourth", "--", "sh", "-c", _LOOK) == seen.replace("\nours\n", "\nfourth\n")


def _from_server_to_server(daemon: Lxpyd, lxc: lxd.Run) -> None:
    lxc("config", "set", "core.https_address", "127.0.0.1:19744")
    token = lxc("config", "trust", "add", "--name", "near").split()[-1]
    daemon.cli("remote", "add", "there", token)
    daemon.cli("copy", "ours", "there:ours-2", "-s", "dir")
    lxc("start", "ours-2")
    assert lxc("exec", "ours-2", "--", "cat", "/root/f") == "later\n"
    lxc("stop", "-f", "theirs", "ours-2")
    daemon.cli("move", "there:ours-2", "back", "-c", "user.from=there")
    daemon.cli("start", "back")
    assert daemon.sh("back", "cat /root/f").stdout == "later\n"
    assert daemon.instance("back")["config"]["user.from"] == "there" and "ours-2" not in lxc("list", "-f", "csv")
    refused = daemon.cli("copy", "ours", "there:ours-3", "-c", "user.from=here", check=False)
    assert refused.returncode == 1 and "there cannot give what comes in another configuration" in refused.stderr

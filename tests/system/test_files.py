"""Files of instances by our own client: push, pull, create, delete, edit; running and stopped, on every driver."""

import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd

MIB = 1 << 20


@pytest.fixture(params=["overlay", "dir", "btrfs"])
def instance(request: pytest.FixtureRequest, lxpyd: Lxpyd, pools: dict[str, str], name: str) -> Iterator[str]:
    """A running busybox container on each driver."""
    lxpyd.cli("launch", "bb", name, "-s", pools[request.param])
    yield name
    lxpyd.cli("delete", "-f", name)


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_there_and_back(lxpyd: Lxpyd, instance: str, tmp_path: pathlib.Path, state: str) -> None:
    if state == "stopped":
        lxpyd.cli("stop", "-f", instance)
    data = os.urandom(5 * MIB + 17)
    source = tmp_path / "source"
    source.write_bytes(data)
    os.chown(source, 1234, 300_000)  # no such group in any instance
    source.chmod(0o4711)
    lxpyd.cli("file", "push", str(source), f"{instance}/root/one")
    lxpyd.cli("file", "push", str(source), f"{instance}/etc/")  # into a directory
    lxpyd.cli("file", "push", str(source), f"{instance}/srv/", "--uid", "7", "--gid", "8", "--mode", "0600", "-p")
    lxpyd.cli("file", "pull", f"{instance}/root/one", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == data
    assert (tmp_path / "back").stat().st_mode & 0o7777 == 0o711
    lxpyd.cli("file", "push", "-", f"{instance}/root/typed", input="typed\n")
    assert lxpyd.cli("file", "pull", f"{instance}/root/typed", "-").stdout == "typed\n"
    for path in ("/root/small", "/root/empty"):
        lxpyd.cli("file", "push", "-", f"{instance}{path}", input="" if path.endswith("empty") else "s" * 5000)
        assert len(lxpyd.out("file", "pull", f"{instance}{path}", "-")) == (0 if path.endswith("empty") else 5000)
    # What is there keeps its owner and mode; what is asked for holds.
    lxpyd.cli("file", "push", "-", f"{instance}/root/one", input="new")
    lxpyd.cli("file", "push", str(source), f"{instance}/root/typed", "--mode", "0640")
    lxpyd.cli("file", "create", f"{instance}/root/made/here", "-p", "--mode", "0604")
    lxpyd.cli("file", "create", f"{instance}/root/made/dir/", "--uid", "5")
    lxpyd.cli("file", "create", f"{instance}/root/made/link", "../typed", "--type", "symlink")
    lxpyd.cli("file", "edit", f"{instance}/root/made/here", input="edited")
    if state == "stopped":
        lxpyd.cli("start", instance)
    shown = lxpyd.sh(
        instance,
        "stat -c '%n %a %u %g' /root/one /etc/source /srv/source /root/typed /root/made/here /root/made/dir;"
        "wc -c < /etc/source; readlink /root/made/link; cat /root/made/here",
    ).stdout
    assert shown.splitlines() == [
        "/root/one 4711 1234 0",
        "/etc/source 4711 1234 0",
        "/srv/source 600 7 8",
        "/root/typed 640 0 0",
        "/root/made/here 604 0 0",
        "/root/made/dir 755 5 0",
        str(len(data)),
        "../typed",
        "edited",
    ]


def _tree(top: pathlib.Path) -> None:
    (top / "a/b").mkdir(parents=True)
    (top / "a/b/file").write_text("deep")
    (top / "a/empty").write_bytes(b"")
    (top / "a/big").write_bytes(os.urandom(200_000))
    (top / "to-file").symlink_to("a/b/file")
    (top / "to-nothing").symlink_to("/nowhere")
    (top / "a/to-host").symlink_to("/etc/passwd")
    (top / os.fsdecode(b"odd \xff name\n")).write_text("odd")
    (top / "a/b").chmod(0o710)
    for number in range(40):
        (top / f"a/many-{number}").write_text(str(number))


def _listed(top: pathlib.Path) -> list[tuple[str, int, object]]:
    found: list[tuple[str, int, object]] = []
    for path in sorted(top.rglob("*")):
        mode = path.lstat().st_mode
        content = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found.append((str(path.relative_to(top)), mode, content))
    return found


@pytest.mark.parametrize("way", ["descriptors", "http"])
def test_trees_with_links(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, way: str) -> None:
    environment = {} if way == "descriptors" else {"LXPY_SOCKET": lxpyd.layout.socket}
    source = tmp_path / "tree"
    _tree(source)
    lxpyd.cli("file", "push", "-r", str(source), f"{busybox}/srv/new/", check=False, **environment)
    assert "not there" in lxpyd.sh(busybox, "ls /srv/new 2>&1 || echo not there").stdout
    lxpyd.cli("file", "push", "-r", "-p", str(source), f"{busybox}/srv/new/", **environment)
    lxpyd.cli("file", "push", "-r", str(source), f"{busybox}/srv/new", **environment)  # again, over itself
    lxpyd.cli("file", "pull", "-r", f"{busybox}/srv/new/tree", str(tmp_path / "back"), **environment)
    assert _listed(tmp_path / "back") == _listed(source)
    (tmp_path / "there").mkdir()
    lxpyd.cli("file", "pull", "-r", f"{busybox}/srv/new/tree/", str(tmp_path / "there"), **environment)
    assert _listed(tmp_path / "there/tree") == _listed(source)
    lxpyd.cli("file", "pull", f"{busybox}/srv/new/tree/to-file", str(tmp_path), **environment)
    assert (tmp_path / "to-file").read_text() == "deep"
    refused = lxpyd.cli("file", "delete", f"{busybox}/srv/new", check=False, **environment)
    assert "not empty" in refused.stderr
    lxpyd.cli("file", "delete", "-f", f"{busybox}/srv/new", **environment)
    assert lxpyd.sh(busybox, "ls /srv; ls /etc/passwd").stdout == "/etc/passwd\n"
    assert pathlib.Path("/etc/passwd").exists()


FAULTS = [
    (("pull", "{}/etc/none", "-"), "/etc/none: it is not there"),
    (("pull", "{}/etc", "{tmp}/x"), "/etc is a directory: -r"),
    (("pull", "{}/dev/null", "-"), "/dev/null: not a regular file"),
    (("push", "/usr", "{}/root/"), "/usr is a directory: -r"),
    (("push", "/nowhere", "{}/root/"), "/nowhere: No such file"),
    (("push", "/etc/hostname", "{}/none/x"), "/none/x: it is not there: -p makes the directories that are missing"),
    (("push", "/etc/hostname", "{}/none/"), "/none/ is not there: -p"),
    (("push", "/etc/hostname", "{}/etc/passwd/"), "no directory"),
    (("push", "/etc/hostname", "{}/etc/passwd/x"), "a part of the path is no directory"),
    (("push", "/etc/hostname", "{}/dev/null"), "/dev/null: not a regular file"),
    (("push", "/etc/hostname", "{}/proc/version"), "/proc/version: "),
    (("push", "/etc/hostname", "{}/root/x", "--uid", "70000"), "an owner or mode that is not possible there"),
    (("push", "/etc/hostname", "{}/root/x", "--mode", "9"), "--mode takes a mode in octal"),
    (("push", "/etc/hostname", "{}/loop/x"), "too many symbolic links"),
    (("push", "/etc/hostname", "{}/root/" + "n" * 300), "the name is too long"),
    (("push", "/etc/hostname", "{}"), "names no file of an instance"),
    (("push", "/etc/hostname", "none/x"), "not found"),
    (("delete", "{}/etc"), "/etc is not empty: -f"),
    (("delete", "{}/"), "not the name of a file"),
    (("create", "{}/etc/passwd"), "/etc/passwd is there already (file): -f"),
    (("create", "{}/etc/passwd", "x", "--type", "symlink", "-f"), "something else is there already"),
    (("create", "{}/root/x", "--type", "pipe"), "--type takes"),
    (("edit", "{}/root/none"), "/root/none: it is not there"),
    (("mount", "{}/etc/passwd", "{tmp}"), "is no directory"),
]


@pytest.mark.parametrize("way", ["descriptors", "http"])
def test_faults_say_what_is_wrong(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, way: str) -> None:
    environment = {} if way == "descriptors" else {"LXPY_SOCKET": lxpyd.layout.socket}
    lxpyd.sh(busybox, "ln -s loop /loop")
    before = lxpyd.sh(busybox, "find / -xdev | grep -v ^/tmp | sort").stdout
    for words, expected in FAULTS:
        line = [word.format(busybox, tmp=tmp_path) for word in words]
        result = lxpyd.cli("file", *line, check=False, input="x", **environment)
        assert (result.returncode, result.stdout) == (1, ""), (line, result)
        assert expected in result.stderr and result.stderr.count("\n") == 1, (line, result.stderr)
    assert lxpyd.sh(busybox, "find / -xdev | grep -v ^/tmp | sort").stdout == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("state", ["running", "stopped"])
def test_no_link_leads_out(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, state: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    (outside / "secret").write_text("of the host")
    links = f"ln -s {outside} /out; ln -s ../../../../..{outside} /up; ln -s {outside}/secret /file; "
    lxpyd.sh(busybox, links + "mkdir -p /d; ln -s / /d/top; ln -s /proc/1/root /d/magic")
    if state == "stopped":
        lxpyd.cli("stop", "-f", busybox)
    for path in (
        "/out/secret",
        "/up/secret",
        "/file",
        "/d/top/d/top" + str(outside) + "/secret",
        "/../.." + str(outside),
    ):
        for way in ({}, {"LXPY_SOCKET": lxpyd.layout.socket}):
            assert "of the host" not in lxpyd.cli("file", "pull", f"{busybox}{path}", "-", check=False, **way).stdout
            lxpyd.cli("file", "push", "-", f"{busybox}{path}", check=False, input="in", **way)
            lxpyd.cli("file", "delete", "-f", f"{busybox}{path}", check=False, **way)
    lxpyd.cli("file", "push", "-p", "-", f"{busybox}{outside}/planted", input="in")
    assert [(path.name, path.read_text()) for path in outside.iterdir()] == [("secret", "of the host")]
    lxpyd.cli("file", "delete", "-f", f"{busybox}/out")
    assert (outside / "secret").exists()


def test_a_directory_that_becomes_a_link_under_way(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    """The guest exchanges a directory with a link to the host's path all the time; nothing ever lands there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    swap = "mv /w/d /w/x; mv /w/l /w/d; mv /w/d /w/l; mv /w/x /w/d"
    script = f"mkdir -p /w/d; ln -s {outside} /w/l; while :; do {swap}; done"
    racer = lxpyd.spawn("exec", busybox, "-T", "--", "sh", "-c", script)
    try:
        for number in range(12):
            lxpyd.cli("file", "push", "-", f"{busybox}/w/d/{number}", input="x", check=False)
            lxpyd.cli("file", "delete", "-f", f"{busybox}/w/d/{number}", check=False)
    finally:
        racer.kill()
        racer.communicate()
    assert list(outside.iterdir()) == []


def _hidden(lxpyd: Lxpyd, instance: str, where: str) -> str:
    return lxpyd.sh(instance, f"ls -A {where}").stdout


def test_a_push_cut_off_has_not_been(lxpyd: Lxpyd, busybox: str) -> None:
    """Ctrl-C, kill -9 of the client, kill -9 of the file process, kill -9 of the daemon."""
    lxpyd.cli("file", "push", "-", f"{busybox}/root/kept", input="as it was")
    for number in (signal.SIGINT, signal.SIGKILL):
        client = lxpyd.spawn("file", "push", "-", f"{busybox}/root/kept")
        assert client.stdin
        client.stdin.write(b"x" * MIB)
        client.stdin.flush()
        client.send_signal(number)
        _, said = client.communicate(timeout=20)
        assert b"Traceback" not in said
    # The daemon is not in the way of a push to a running busybox.
    client = lxpyd.spawn("file", "push", "-", f"{busybox}/root/other")
    assert client.stdin
    client.stdin.write(b"x" * MIB)
    client.stdin.flush()
    lxpyd.restart(kill=True)
    _, said = client.communicate(b"y", timeout=20)
    assert (client.returncode, said) == (0, b"")
    assert _hidden(lxpyd, busybox, "/root") == "kept\nother\n"
    assert lxpyd.sh(busybox, "cat /root/kept; wc -c < /root/other").stdout == f"as it was{MIB + 1}\n"


def test_a_start_takes_the_root_back(lxpyd: Lxpyd, instance: str) -> None:
    """A push to a stopped instance that hangs does not keep it from starting; it is told, and it has not been."""
    lxpyd.cli("stop", "-f", instance)
    clients = [lxpyd.spawn("file", "push", "-", f"{instance}/root/{name}") for name in ("one", "two")]
    for client in clients:
        assert client.stdin
        client.stdin.write(b"x" * MIB)
        client.stdin.flush()
    lxpyd.cli("file", "push", "-", f"{instance}/root/three", input="whole")
    lxpyd.cli("start", instance)
    for client in clients:
        _, said = client.communicate(b"y", timeout=20)
        assert client.returncode == 1
        assert b"has just been started or stopped" in said
    assert _hidden(lxpyd, instance, "/root") == "three\n"
    # And one of a running instance does not keep its mounts when it ends.
    client = lxpyd.spawn("file", "push", "-", f"{instance}/root/four")
    assert client.stdin
    client.stdin.write(b"x" * MIB)
    client.stdin.flush()
    lxpyd.cli("restart", "-f", instance)
    client.communicate(b"y", timeout=20)
    assert client.returncode == 1
    assert _hidden(lxpyd, instance, "/root") == "three\n"


@pytest.mark.parametrize("way", ["descriptors", "http"])
def test_a_full_disk_leaves_the_old_file(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path, way: str) -> None:
    environment = {} if way == "descriptors" else {"LXPY_SOCKET": lxpyd.layout.socket}
    lxpyd.sh(busybox, "mkdir /small; mount -t tmpfs -o size=2m none /small; mkdir /ro; mount -t tmpfs -o ro none /ro")
    lxpyd.cli("file", "push", "-", f"{busybox}/small/file", input="as it was", **environment)
    big = tmp_path / "big"
    big.write_bytes(bytes(6 * MIB))
    full = lxpyd.cli("file", "push", str(big), f"{busybox}/small/file", check=False, **environment)
    assert full.returncode == 1
    assert "no space is left" in full.stderr
    assert lxpyd.sh(busybox, "cat /small/file; ls -A /small").stdout == "as it wasfile\n"
    refused = lxpyd.cli("file", "push", "-", f"{busybox}/ro/file", input="x", check=False, **environment)
    assert "read-only" in refused.stderr
    # A disk of ours that is full: the target of a pull is left as it was.
    lxpyd.cli("file", "push", str(big), f"{busybox}/root/big")
    here = tmp_path / "here"
    here.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", here], check=True)
    try:
        (here / "big").write_text("old")
        pull = lxpyd.cli("file", "pull", f"{busybox}/root/big", str(here / "big"), check=False, **environment)
        assert pull.returncode == 1
        assert "No space left" in pull.stderr
        assert [(path.name, path.read_text()) for path in here.iterdir()] == [("big", "old")]
    finally:
        subprocess.run(["umount", here], check=True)


def test_a_quota_used_up_says_so(lxpyd: Lxpyd, pools: dict[str, str], name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name, "-s", pools["btrfs"], "-d", "root,size=16MiB")
    big = tmp_path / "big"
    big.write_bytes(os.urandom(40 * MIB))
    result = lxpyd.cli("file", "push", str(big), f"{name}/root/big", check=False)
    assert (result.returncode, "quota is used up" in result.stderr) == (1, True), result.stderr
    assert _hidden(lxpyd, name, "/root") == ""


def test_many_pushes_at_once_each_whole(lxpyd: Lxpyd, busybox: str) -> None:
    clients = [lxpyd.spawn("file", "push", "-", f"{busybox}/root/one") for _ in range(6)]
    feeders = []
    for number, client in enumerate(clients):
        content = bytes([97 + number]) * (2 * MIB)
        feeders.append(threading.Thread(target=client.communicate, args=(content,)))
        feeders[-1].start()
    for feeder in feeders:
        feeder.join(60)
    assert [client.returncode for client in clients] == [0] * 6
    content = lxpyd.cli("file", "pull", f"{busybox}/root/one", "-").stdout
    assert len(content) == 2 * MIB
    assert len(set(content)) == 1
    assert _hidden(lxpyd, busybox, "/root") == "one\n"


def test_a_blocked_file_blocks_nobody_else(lxpyd: Lxpyd, busybox: str) -> None:
    """A FIFO is refused; and a pull that nobody reads does not keep the daemon."""
    lxpyd.sh(busybox, "mkfifo /root/fifo; dd if=/dev/zero of=/root/big bs=1M count=8 2>/dev/null")
    assert "not a regular file" in lxpyd.cli("file", "pull", f"{busybox}/root/fifo", "-", check=False).stderr
    stuck = [lxpyd.spawn("file", "pull", f"{busybox}/root/big", "-") for _ in range(3)]
    begin = time.monotonic()
    assert lxpyd.cli("file", "pull", f"{busybox}/etc/hostname", "-").stdout.strip() == busybox
    assert time.monotonic() - begin < 10
    for client in stuck:
        client.kill()
        client.communicate()


def test_what_needs_the_root_gets_it(lxpyd: Lxpyd, busybox: str, tmp_path: pathlib.Path) -> None:
    """Exports, published images and rebuilds do not fail because somebody is at the files of a stopped instance."""
    lxpyd.cli("stop", "-f", busybox)
    for command in (["export", busybox, str(tmp_path / "out.tar.gz")], ["rebuild", "bb", busybox]):
        client = lxpyd.spawn("file", "push", "-", f"{busybox}/root/hanging")
        assert client.stdin
        client.stdin.write(b"x" * MIB)
        client.stdin.flush()
        lxpyd.cli(*command)
        _, said = client.communicate(b"y", timeout=20)
        assert (client.returncode, b"out of reach" in said) == (1, True), said
    lxpyd.cli("start", busybox)
    assert _hidden(lxpyd, busybox, "/root") == ""

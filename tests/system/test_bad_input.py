"""Wrong commands: status 1, one line that says why, and nothing has changed."""

import io
import os
import pathlib
import re
import socket
import subprocess
import tarfile

import pytest

from tests.support import images
from tests.support.daemon import BIN, Lxpyd

LINE = re.compile(r"Error: [^\n]{8,500}\n\Z")

# {c}: a container that exists, stopped.
COMMANDS = [
    "launch",
    "launch bb a/b",
    "launch bb ../a",
    "launch bb ..",
    "launch bb -x",
    "launch bb 1abc",
    "launch bb under_score",
    "launch bb " + "a" * 64,
    "launch bb {c}",
    "launch nothing x1",
    "launch builtin:nothing x1",
    "launch nosuchremote:alpine x1",
    "launch bb x1 -c no.such.key=1",
    "launch bb x1 -c limits.memory=lots",
    "launch bb x1 -c limits.memory=-5MiB",
    "launch bb x1 -c limits.memory=10",
    "launch bb x1 -c limits.cpu=0",
    "launch bb x1 -c limits.cpu=3-1",
    "launch bb x1 -c limits.cpu.allowance=500%",
    "launch bb x1 -c limits.processes=many",
    "launch bb x1 -c security.privileged=perhaps",
    "launch bb x1 -c environment.=1",
    "launch bb x1 -c nonsense",
    "launch bb x1 -p nosuchprofile",
    "launch bb x1 -s nosuchpool",
    "launch bb x1 -n nosuchnetwork",
    "launch bb x1 --no-such-flag",
    "start nosuch",
    "stop nosuch",
    "restart nosuch",
    "pause nosuch",
    "resume nosuch",
    "delete nosuch",
    "delete {c}/nosuch",
    "rename nosuch x2",
    "rename {c} a/b",
    "rename {c}",
    "exec nosuch -- true",
    "exec {c}",
    "exec {c} -- true",
    "exec {c} --user abc -- true",
    "shell nosuch",
    "info nosuch",
    "console nosuch --show-log",
    "config get nosuch user.a",
    "config set {c}",
    "config set {c} no.such=1",
    "config set {c} limits.memory=12XiB",
    "config set nosuch user.a=1",
    "config unset {c}",
    "profile create default",
    "profile create a/b",
    "profile show nosuch",
    "profile delete default",
    "profile delete nosuch",
    "profile set default no.such=1",
    "profile device add default eth9 nic network=nosuch",
    "profile device add default eth9 spaceship a=b",
    "network create x/y",
    "network create thisnameistoolongforlinux",
    "network create lxtbad ipv4.address=10.0.0.300/24",
    "network create lxtbad ipv4.address=10.0.0.1",
    "network create lxtbad ipv4.address=10.0.0.1/33",
    "network create lxtbad no.such=1",
    "network show nosuch",
    "network delete nosuch",
    "network delete {bridge}",
    "network list-leases nosuch",
    "storage create default overlay",
    "storage create x/y overlay",
    "storage create x1 nosuchdriver",
    "storage info nosuch",
    "storage delete nosuch",
    "storage delete default",
    "image info nosuch",
    "image delete nosuch",
    "image import /no/such/file",
    "image import /etc/passwd",
    "image alias create a1 nosuch",
    "image alias delete nosuch",
    "image build nosuch",
    "remote add",
    "remote add local unix://",
    "remote remove local",
    "remote remove nosuch",
    "remote switch nosuch",
    "query /1.0/nosuch",
    "query nonsense",
    "operation delete nosuch",
    "nosuchcommand",
    "image nosuchcommand",
    "list --no-such-flag",
    "list -c",
]


@pytest.fixture(scope="module")
def victim(lxpyd: Lxpyd) -> str:
    lxpyd.cli("create", "bb", "victim")
    return "victim"


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_commands(lxpyd: Lxpyd, victim: str, command: str) -> None:
    before = lxpyd.snapshot()
    result = lxpyd.cli(*command.format(c=victim, bridge=lxpyd.bridge).split(), check=False, timeout=30)
    assert result.returncode == 1, (result.stdout, result.stderr)
    assert LINE.match(result.stderr), result.stderr
    assert "Traceback" not in result.stderr and "unexpected" not in result.stderr
    assert lxpyd.snapshot() == before


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("config edit victim", "config: [1, 2"),
        ("config edit victim", "config:\n  limits.memory: [1]\n"),
        ("config edit victim", "just text"),
        ("config edit victim", "\x00\x01\x02"),
        ("profile edit default", "devices: 5\n"),
        ("create bb fromyaml", "config: 7\n"),
        ("create bb fromyaml", "devices: {x: {type: nic}}\n"),
        ("init --preseed", "storage_pools: [{name: a/b, driver: dir}]"),
        ("init --preseed", "networks: 7"),
        ("init --preseed", "nonsense: true"),
    ],
)
def test_wrong_documents(lxpyd: Lxpyd, victim: str, command: str, text: str) -> None:
    before = lxpyd.snapshot()
    result = lxpyd.cli(*command.split(), input=text, check=False, timeout=30)
    assert result.returncode == 1 and LINE.match(result.stderr), (result.returncode, result.stdout, result.stderr)
    assert lxpyd.snapshot() == before


# ------------------------------------------------------------------------------------------------------------- images


def _tar(path: pathlib.Path, entries: list[tuple[tarfile.TarInfo, bytes]], metadata: str | None = None) -> str:
    text = metadata if metadata is not None else f"architecture: {os.uname().machine}\ncreation_date: 1700000000\n"
    with tarfile.open(path, "w:gz") as archive:
        if text:
            info = tarfile.TarInfo("metadata.yaml")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for info, data in entries:
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return str(path)


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def _unified_of_busybox(path: pathlib.Path, extra: list[tuple[tarfile.TarInfo, bytes]]) -> str:
    """A unified image that boots: the built-in busybox and some more entries."""
    _, rootfs = images.files("busybox")
    tree = path.parent / "tree"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, rootfs], check=True, capture_output=True)
    metadata = f"architecture: {os.uname().machine}\ncreation_date: 1700000000\n".encode()
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("metadata.yaml")
        info.size = len(metadata)
        archive.addfile(info, io.BytesIO(metadata))
        archive.add(tree, "rootfs")
        for entry, data in extra:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return str(path)


def test_broken_image_files(lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    metadata, rootfs = images.files("busybox")
    files = {
        "empty": b"",
        "noise": os.urandom(5000),
        "truncated": metadata.read_bytes()[: metadata.stat().st_size // 2],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    attempts = [[str(tmp_path / name)] for name in files]
    attempts += [[str(tmp_path / name), str(rootfs)] for name in files]
    attempts += [[_tar(tmp_path / "none.tar.gz", [], "")]]
    attempts += [[_tar(tmp_path / "yaml.tar.gz", [], "architecture: [")]]
    attempts += [[_tar(tmp_path / "list.tar.gz", [], "- 1\n- 2\n")]]
    attempts += [[_tar(tmp_path / "arch.tar.gz", [], "creation_date: 1\n")]]
    before = lxpyd.snapshot()
    for attempt in attempts:
        result = lxpyd.cli("image", "import", *attempt, "--alias", "broken", check=False)
        assert result.returncode == 1 and LINE.match(result.stderr), (attempt, result.stdout, result.stderr)
        assert lxpyd.snapshot() == before, attempt


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_a_truncated_root_file_system(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path, pool: str) -> None:
    metadata, rootfs = images.files("busybox")
    (tmp_path / "half").write_bytes(rootfs.read_bytes()[: rootfs.stat().st_size // 2])
    before = lxpyd.snapshot()
    result = lxpyd.cli("image", "import", str(metadata), str(tmp_path / "half"), "--alias", f"{name}-half", check=False)
    if result.returncode == 0:  # found out when it is unpacked, at the latest
        result = lxpyd.cli("launch", f"{name}-half", name, "-s", pool, check=False)
        assert result.returncode == 1
        lxpyd.cli("image", "delete", f"{name}-half")
    assert LINE.match(result.stderr), result.stderr
    assert lxpyd.snapshot() == before


@pytest.mark.parametrize("pool", ["default", "plain"])
def test_a_hostile_tarball_stays_in_its_root(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path, pool: str) -> None:
    target = tmp_path / "victim"
    target.mkdir()
    (target / "file").write_text("mine")
    hostile = [
        (_entry("rootfs/out", tarfile.SYMTYPE, str(target)), b""),
        (_entry("rootfs/out/planted"), b"planted"),
        (_entry("rootfs/up", tarfile.SYMTYPE, "../../../../../../../../../.." + str(target)), b""),
        (_entry("rootfs/up/planted"), b"planted"),
        (_entry("rootfs/../../../../../../../.." + str(target) + "/planted"), b"planted"),
        (_entry(str(target) + "/planted"), b"planted"),
        (_entry("rootfs/hard", tarfile.LNKTYPE, str(target / "file")), b""),
        (_entry("rootfs/hard2", tarfile.LNKTYPE, "../.." + str(target / "file")), b""),
        (_entry("rootfs/sda", tarfile.BLKTYPE, mode=0o666), b""),
        (_entry("rootfs/mem", tarfile.CHRTYPE, mode=0o666), b""),
        (_entry("templates/../../../planted.tpl"), b"planted"),
    ]
    image = _unified_of_busybox(tmp_path / "hostile.tar.gz", hostile)
    alias = f"{name}-hostile"
    result = lxpyd.cli("image", "import", image, "--alias", alias, check=False)
    if result.returncode == 0:
        result = lxpyd.cli("launch", alias, name, "-s", pool, check=False)
        if result.returncode == 0:
            assert lxpyd.sh(name, "ls -l /sda /mem 2>/dev/null | grep '^[bc]'", check=False).stdout == ""
            lxpyd.cli("delete", "-f", name)
        lxpyd.cli("image", "delete", alias)
    if result.returncode:
        assert LINE.match(result.stderr), result.stderr
    assert sorted(p.name for p in target.iterdir()) == ["file"] and (target / "file").read_text() == "mine"
    assert (target / "file").stat().st_nlink == 1


def test_hostile_templates_stay_in_the_root(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    """A template whose target lies behind a link to the host, and one with a path that climbs."""
    target = tmp_path / "victim"
    target.mkdir()
    metadata = (
        f"architecture: {os.uname().machine}\ncreation_date: 1700000000\ntemplates:\n"
        "  /out/planted: {when: [create], template: t.tpl}\n"
        "  /../../../../../../../.." + str(target) + "/planted: {when: [create], template: t.tpl}\n"
    )
    _, rootfs = images.files("busybox")
    tree = tmp_path / "tree"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, rootfs], check=True, capture_output=True)
    (tree / "out").symlink_to(target)
    path = tmp_path / "templates.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for entry, data in ((_entry("metadata.yaml"), metadata.encode()), (_entry("templates/t.tpl"), b"planted")):
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        archive.add(tree, "rootfs")
    result = lxpyd.cli("image", "import", str(path), "--alias", f"{name}-t", check=False)
    if result.returncode == 0:
        lxpyd.cli("launch", f"{name}-t", name, check=False)
        lxpyd.cli("delete", "-f", name, check=False)
        lxpyd.cli("image", "delete", f"{name}-t")
    assert list(target.iterdir()) == []


# -------------------------------------------------------------------------------------------------------------- hosts


def test_without_root(lxpyd: Lxpyd) -> None:
    result = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", BIN / "lxpy", "list"],
        env={**lxpyd.environment, "HOME": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if result.returncode == 1 and "Permission denied" in result.stderr and "lxpy" not in result.stderr:
        pytest.fail(f"the interpreter itself is out of reach: {result.stderr}")
    assert result.returncode == 1 and LINE.match(result.stderr), result.stderr


def test_no_daemon_there(lxpyd: Lxpyd, tmp_path: pathlib.Path) -> None:
    result = lxpyd.cli("list", check=False, LXPY_DIR="/proc/nowhere")
    assert result.returncode == 1 and LINE.match(result.stderr), result.stderr


def test_the_daemon_dies_in_the_middle(own_lxpyd: Lxpyd) -> None:
    own_lxpyd.cli("launch", "bb", "a")
    process = own_lxpyd.spawn("monitor")
    waiting = own_lxpyd.spawn("stop", "a", "--timeout", "60")
    own_lxpyd.kill()
    for each in (process, waiting):
        _, err = each.communicate(timeout=30)
        assert b"Traceback" not in err, err
    own_lxpyd.start()


def test_a_second_daemon_is_refused(lxpyd: Lxpyd) -> None:
    result = subprocess.run(
        [BIN / "lxpyd"], env=lxpyd.environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 1 and result.stderr.strip().count("\n") == 0, result.stderr
    assert lxpyd.json("query", "/1.0")["environment"]["server_pid"] == lxpyd.process.pid  # type: ignore[union-attr]


def test_a_port_that_is_taken(lxpyd: Lxpyd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = lxpyd.cli("config", "set", f"core.https_address=127.0.0.1:{port}", check=False)
        assert result.returncode == 1 and LINE.match(result.stderr), result.stderr
        assert lxpyd.out("config", "get", "core.https_address") == ""
        result = lxpyd.cli("image", "serve", "--address", "127.0.0.1", "--port", port, check=False, timeout=20)
        assert result.returncode == 1 and LINE.match(result.stderr), result.stderr


def test_a_full_disk(own_lxpyd: Lxpyd) -> None:
    """A pool on a file system of 8 MiB: the launch fails in one line and takes its pieces along."""
    daemon = own_lxpyd
    place = daemon.dir / "small"
    place.mkdir()
    disk = daemon.dir / "small.img"
    subprocess.run(["truncate", "-s", "8M", disk], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-N", "4096", "-m", "0", disk], check=True)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True)
    try:
        daemon.cli("storage", "create", "small", "dir", f"source={place}")
        names: list[str] = []
        for n in range(20):
            before = daemon.snapshot()
            result = daemon.cli("launch", "bb", f"f{n}", "-s", "small", check=False)
            if result.returncode:
                break
            names.append(f"f{n}")
        else:
            pytest.fail("8 MiB hold 20 containers")
        assert LINE.match(result.stderr), result.stderr
        assert daemon.snapshot() == before
        if names:
            daemon.cli("delete", "-f", *names)
        daemon.cli("storage", "delete", "small")
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_database_of_the_future_is_refused(bare_lxpyd: Lxpyd) -> None:
    import sqlite3

    daemon = bare_lxpyd
    daemon.kill(15)
    with sqlite3.connect(daemon.layout.database) as database:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        database.execute("PRAGMA user_version = 1000")
    result = subprocess.run(
        [BIN / "lxpyd"], env=daemon.environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert result.returncode == 1 and "newer lxpy" in result.stderr and "Traceback" not in result.stderr, result.stderr
    with sqlite3.connect(daemon.layout.database) as database:
        database.execute(f"PRAGMA user_version = {version}")
    daemon.start()

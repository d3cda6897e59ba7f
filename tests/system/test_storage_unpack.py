"""Unpacking: what an archive says comes out exactly, and a hostile one gets nowhere."""

import io
import os
import pathlib
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable

import pytest

from lxpy.api.errors import BadRequest
from lxpy.storage.unpack import unpack_squashfs, unpack_tar
from tests.support import namespace
from tests.support.pools import CAPABILITY

ACL = "user::rw-,user:1000:r--,group::r--,mask::r--,other::---"
WHAT = "Cannot unpack image 0123"


@pytest.fixture
def place(request: pytest.FixtureRequest) -> pathlib.Path:
    path = namespace.run_dir("unpack") / f"{os.getpid()}-{abs(hash(request.node.name)):x}"
    path.mkdir()
    return path


@pytest.fixture
def target(place: pathlib.Path) -> pathlib.Path:
    path = place / "target"
    path.mkdir()
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    info.pax_headers = {key.replace("__", "."): value for key, value in pax.items()}
    return info


def archive(path: pathlib.Path, *members: tuple[tarfile.TarInfo, bytes], how: str = "w") -> str:
    with tarfile.open(path, how, format=tarfile.PAX_FORMAT) as tar:  # type: ignore[call-overload]
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return str(path)


def _tree(root: pathlib.Path) -> None:
    """One of everything that a container's root holds."""
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/su").write_bytes(b"#!suid")
    (root / "usr/bin/ping").write_bytes(b"ping" * 5000)
    os.chown(root / "usr/bin/su", 0, 42)
    (root / "usr/bin/su").chmod(0o6755)
    os.setxattr(root / "usr/bin/ping", "security.capability", CAPABILITY)
    os.setxattr(root / "usr/bin/ping", "user.note", b"kept\0\xff")
    os.setxattr(root / "usr/bin/ping", "trusted.evil", b"1")
    os.setxattr(root / "usr", "user.overlay.opaque", b"y")
    os.setxattr(root / "usr", "trusted.overlay.opaque", b"y")
    (root / "bin").symlink_to("usr/bin")
    os.link(root / "usr/bin/su", root / "usr/bin/su2")
    os.mkfifo(root / "fifo", 0o622)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    (root / "tmp").mkdir()
    (root / "tmp").chmod(0o1777)
    (root / ("n" * 120)).mkdir()
    (root / ("n" * 120) / ("m" * 200)).write_bytes(b"long")
    (root / "caf\udce9").write_bytes(b"not UTF-8")
    with open(root / "sparse", "wb") as file:
        for offset in (0, 1 << 20, 5 << 20):
            file.seek(offset)
            file.write(b"data")
        file.truncate(8 << 20)
    os.utime(root / "usr", ns=(1_000_000_000_123_456_789, 1_000_000_000_123_456_789))
    os.chown(root, 3, 4)
    root.chmod(0o751)
    os.utime(root, (1_100_000_000, 1_100_000_000))  # device nodes are dropped from it: its time stays all the same


def _facts(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    """What has to survive, by path."""
    found = {}
    for path in [root, *root.rglob("*")]:
        info = path.lstat()
        content: object = None
        if path.is_symlink():
            content = os.readlink(path)
        elif path.is_file():
            content = path.read_bytes()
        attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)} if not path.is_symlink() else {}
        links = info.st_nlink if path.is_file() else 0
        fact = (stat.S_IFMT(info.st_mode), stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid, links)
        found[str(path.relative_to(root))] = (*fact, info.st_mtime_ns // 10**9, content, attributes)
    return found


def _expected(root: pathlib.Path) -> dict[str, tuple[object, ...]]:
    facts = _facts(root)
    for path in ("null", "disk"):
        del facts[path]
    for path, fact in facts.items():
        attributes = dict(fact[-1])  # type: ignore[call-overload]
        for name in [name for name in attributes if name.startswith(("trusted.", "user.overlay."))]:
            del attributes[name]
        facts[path] = (*fact[:-1], attributes)
    return facts


@pytest.fixture
def source(place: pathlib.Path) -> pathlib.Path:
    path = place / "source"
    path.mkdir()
    _tree(path)
    return path


PACKERS = {
    "plain": [],
    "xz": ["--xz"],
    "gzip": ["--gzip"],
    "zstd": ["--zstd"],
    "bzip2": ["--bzip2"],
    "lzma": ["--lzma"],
    "sparse 0.0": ["--sparse", "--sparse-version=0.0"],
    "sparse 0.1": ["--sparse", "--sparse-version=0.1"],
    "sparse 1.0": ["--sparse", "--sparse-version=1.0"],
}


@pytest.mark.parametrize("options", PACKERS.values(), ids=PACKERS)
def test_a_tarball_comes_out_as_it_went_in(
    place: pathlib.Path, source: pathlib.Path, target: pathlib.Path, options: list[str]
) -> None:
    command = ["tar", "-C", source, "--format=posix", "--xattrs", "--xattrs-include=*", *options]
    subprocess.run([*command, "-cf", place / "a", "."], check=True)
    unpack_tar(str(place / "a"), str(target), WHAT)
    assert _facts(target) == _expected(source)
    assert (target / "usr").stat().st_mtime_ns == 1_000_000_000_123_456_789
    if "--sparse" in options:
        assert (target / "sparse").stat().st_blocks * 512 < 1 << 20


def test_gnu_format_with_long_names_and_holes(place: pathlib.Path, source: pathlib.Path, target: pathlib.Path) -> None:
    subprocess.run(["tar", "-C", source, "--format=gnu", "--sparse", "-cf", place / "a", "."], check=True)
    unpack_tar(str(place / "a"), str(target), WHAT)
    without = {path: fact[:-1] for path, fact in _facts(target).items()}
    assert without == {path: fact[:-1] for path, fact in _expected(source).items()}


def test_a_unified_image_gives_its_rootfs_only(place: pathlib.Path, target: pathlib.Path) -> None:
    unified = place / "unified"
    (unified / "templates").mkdir(parents=True)
    (unified / "metadata.yaml").write_text("architecture: x86_64\n")
    (unified / "rootfs").mkdir()
    _tree(unified / "rootfs")
    command = ["tar", "-C", unified, "--format=posix", "--xattrs", "--xattrs-include=*", "-cJf", place / "a"]
    subprocess.run([*command, "metadata.yaml", "templates", "rootfs"], check=True)
    unpack_tar(str(place / "a"), str(target), WHAT, "rootfs")
    assert _facts(target) == _expected(unified / "rootfs")
    (place / "none").mkdir()
    subprocess.run(["tar", "-C", unified, "-cf", place / "b", "metadata.yaml"], check=True)
    with pytest.raises(BadRequest, match="holds no rootfs"):
        unpack_tar(str(place / "b"), str(place / "none"), WHAT, "rootfs")


@pytest.mark.parametrize("compression", ["gzip", "xz", "zstd"])
def test_a_squashfs_comes_out_scrubbed(
    place: pathlib.Path, source: pathlib.Path, target: pathlib.Path, compression: str
) -> None:
    for name in ("trusted.evil", "trusted.overlay.opaque"):  # mksquashfs keeps user, trusted and security
        assert name in (*os.listxattr(source / "usr/bin/ping"), *os.listxattr(source / "usr"))
    command = ["mksquashfs", source, place / "a", "-noappend", "-quiet", "-no-progress", "-comp", compression]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    unpack_squashfs(str(place / "a"), str(target), WHAT)
    assert _facts(target) == _expected(source)


def test_access_lists_written_as_text(place: pathlib.Path, target: pathlib.Path) -> None:
    path = archive(place / "a", (member("f", SCHILY__acl__access=ACL), b"x"))
    unpack_tar(path, str(target), WHAT)
    got = os.getxattr(target / "f", "system.posix_acl_access")
    entries = {struct.unpack("<HHI", got[at : at + 8]) for at in range(4, len(got), 8)}
    assert (0x02, 4, 1000) in entries


# What it does, and the words the error has to hold. The last member is the culprit.
DIR, LNK, SYM = tarfile.DIRTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
HOSTILE: dict[str, tuple[list[tarfile.TarInfo], str]] = {
    "dot dot": ([member("../evil")], "leads out"),
    "dot dot inside": ([member("a", DIR), member("a/../../evil")], "leads out"),
    "dot dot directory": ([member("..", DIR)], "leads out"),
    "through a link": ([member("out", SYM, "PLACE"), member("out/evil")], "goes through"),
    "through a relative link": ([member("out", SYM, "../"), member("out/evil")], "goes through"),
    "through two links": ([member("a", SYM, "."), member("a/b", SYM, ".."), member("a/b/evil")], "goes through"),
    "directory over a link": ([member("out", SYM, "PLACE"), member("out", DIR)], "goes through"),
    "directories through a link": ([member("out", SYM, "PLACE"), member("out/x/y/evil")], "goes through"),
    "link out by name": ([member("evil", LNK, "../victim")], "leads out"),
    "absolute hard link": ([member("evil", LNK, "/etc/passwd")], "absolute"),
    "hard link through a link": ([member("out", SYM, "PLACE"), member("evil", LNK, "out/victim")], "goes through"),
    "hard link to nothing": ([member("evil", LNK, "missing")], "missing"),
    "through a file": ([member("file"), member("file/evil")], "goes through"),
    "over a directory": ([member("d", DIR), member("d/x"), member("d")], "place of a directory"),
    "link over the root": ([member("./", SYM, "/")], "place of the root"),
    "NUL in the name": ([member("x", path="a\0evil")], "leads out"),
    "endless name": ([member("a/" * 3000 + "evil")], "too long"),
    "long part": ([member("e" * 300)], "too long"),
}


@pytest.mark.parametrize("which", HOSTILE)
def test_nothing_leaves_the_root(place: pathlib.Path, target: pathlib.Path, which: str) -> None:
    (place / "victim").write_text("host")
    members, words = HOSTILE[which]
    for info in members:
        info.linkname = info.linkname.replace("PLACE", str(place))
    path = archive(place / "a", *((info, b"evil" if info.isreg() else b"") for info in members))
    with pytest.raises(BadRequest) as caught:
        unpack_tar(path, str(target), WHAT)
    assert words in str(caught.value)
    assert str(caught.value).startswith(WHAT) and "\n" not in str(caught.value)
    assert sorted(os.listdir(place)) == ["a", "target", "victim"]
    assert (place / "victim").read_text() == "host"


def test_a_hard_link_to_a_link_does_not_follow_it(place: pathlib.Path, target: pathlib.Path) -> None:
    (place / "victim").write_text("host")
    members = [member("s", SYM, str(place / "victim")), member("h", LNK, "s"), member("h")]
    archive(place / "a", *((info, b"evil" if info.isreg() else b"") for info in members))
    unpack_tar(str(place / "a"), str(target), WHAT)
    assert (place / "victim").read_text() == "host"
    assert (target / "h").read_text() == "evil" and (target / "s").is_symlink()


def test_absolute_names_land_inside(place: pathlib.Path, target: pathlib.Path) -> None:
    path = archive(place / "a", (member("/etc/made-by-a-test"), b"x"))
    unpack_tar(path, str(target), WHAT)
    assert (target / "etc/made-by-a-test").read_bytes() == b"x"
    assert not os.path.exists("/etc/made-by-a-test")
    assert (target / "etc").stat().st_mode & 0o7777 == 0o755


def test_hard_links_to_dropped_devices_are_dropped(place: pathlib.Path, target: pathlib.Path) -> None:
    path = archive(place / "a", (member("null", tarfile.CHRTYPE), b""), (member("zero", LNK, "null"), b""))
    unpack_tar(path, str(target), WHAT)
    assert os.listdir(target) == []


def _cut(data: bytes, at: float) -> bytes:
    return data[: int(len(data) * at)]


def _flip(data: bytes, at: float) -> bytes:
    index = int(len(data) * at)
    return data[:index] + bytes([data[index] ^ 0xFF]) + data[index + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut in half": lambda data: _cut(data, 0.5),
    "cut near the end": lambda data: data[:-30] if not data.endswith(bytes(1024)) else data.rstrip(b"\0"),
    "flipped": lambda data: _flip(data, 0.5),
    "empty": lambda data: b"",
    "noise": lambda data: data[:6] + os.urandom(3000),
}


@pytest.mark.parametrize("options", [[], ["--xz"], ["--gzip"], ["--zstd"], ["--bzip2"]], ids=str)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tarball_is_refused(
    place: pathlib.Path, target: pathlib.Path, options: list[str], damage: str
) -> None:
    source = place / "source"
    source.mkdir()
    for number in range(50):
        (source / f"file{number}").write_bytes(os.urandom(3 * 512))
    subprocess.run(["tar", "-C", source, *options, "-cf", place / "a", "."], check=True)
    data = (place / "a").read_bytes()
    if damage == "flipped" and not options:
        data = data[: 50 * 512]  # a plain archive has sums of its headers only: hit one
        index = next(at for at in range(0, len(data), 512) if data[at + 257 : at + 262] == b"ustar" and at > 512)
        data = _flip(data, (index + 5) / len(data))
    else:
        data = DAMAGE[damage](data)
    (place / "a").write_bytes(data)
    with pytest.raises(BadRequest) as caught:
        unpack_tar(str(place / "a"), str(target), WHAT)
    assert str(caught.value).startswith(f"{WHAT}: ") and "\n" not in str(caught.value)


def test_headers_of_any_size_cost_nothing(place: pathlib.Path, target: pathlib.Path) -> None:
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 40
    (place / "a").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(BadRequest, match="a header of 1099511627776 bytes"):
        unpack_tar(str(place / "a"), str(target), WHAT)


@pytest.mark.parametrize("damage", [lambda data: _cut(data, 0.7), lambda data: b"hsqs" + os.urandom(5000)])
def test_a_damaged_squashfs_is_refused(
    place: pathlib.Path, source: pathlib.Path, target: pathlib.Path, damage: Callable[[bytes], bytes]
) -> None:
    (source / "random").write_bytes(os.urandom(1 << 20))
    command = ["mksquashfs", source, place / "a", "-noappend", "-quiet", "-no-progress"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (place / "a").write_bytes(damage((place / "a").read_bytes()))
    with pytest.raises(BadRequest) as caught:
        unpack_squashfs(str(place / "a"), str(target), WHAT)
    assert "unsquashfs" in str(caught.value) and "\n" not in str(caught.value)

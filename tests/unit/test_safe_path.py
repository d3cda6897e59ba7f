"""`lxpy.linux.safe_path`: whatever links a guest lays out, nothing outside its root is read or written."""

import errno
import os
import pathlib
import subprocess
import threading
from collections.abc import Iterator

import pytest

from lxpy.linux import safe_path


@pytest.fixture
def outside(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_text("host")
    return path


@pytest.fixture
def root(tmp_path: pathlib.Path, outside: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "root"
    (path / "etc").mkdir(parents=True)
    (path / "etc/hostname").write_text("old")
    (path / "absolute").symlink_to(outside)
    (path / "up").symlink_to("../../../../../../.." + str(outside))
    (path / "etc/link").symlink_to("/etc/hostname")
    (path / "etc/relative").symlink_to("../etc/hostname")
    (path / "etc/dangling").symlink_to("../run/made")
    (path / "loop").symlink_to("loop")
    (path / "magic").symlink_to("/proc/self/root")
    return path


@pytest.fixture
def fd(root: pathlib.Path) -> Iterator[int]:
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


@pytest.mark.parametrize("path", ["absolute/secret", "up/secret", "../outside/secret", "/../../outside/secret"])
def test_no_path_leads_out(fd: int, outside: pathlib.Path, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        safe_path.read_file(fd, path, 100)
    with pytest.raises(FileNotFoundError):
        safe_path.write_file(fd, path, b"guest")
    assert (outside / "secret").read_text() == "host"
    assert os.listdir(outside) == ["secret"]


def test_directories_are_made_inside_even_through_links_that_point_out(
    fd: int, root: pathlib.Path, outside: pathlib.Path
) -> None:
    with pytest.raises(OSError):  # the link dangles inside the root
        safe_path.make_dirs(fd, "absolute/new")
    assert os.listdir(outside) == ["secret"]
    safe_path.make_dirs(fd, str(outside))
    safe_path.make_dirs(fd, "absolute/new", 0o750, 7, 8)
    found = (root / str(outside).lstrip("/") / "new").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o750, 7, 8)
    assert os.listdir(outside) == ["secret"]


def test_make_dirs_keeps_what_is_there(fd: int, root: pathlib.Path) -> None:
    (root / "etc").chmod(0o700)
    safe_path.make_dirs(fd, "/etc/a/b/", 0o751, 1, 2)
    assert (root / "etc").stat().st_mode & 0o7777 == 0o700
    assert (root / "etc/a").stat().st_mode & 0o7777 == 0o751
    with pytest.raises(NotADirectoryError):
        safe_path.make_dirs(fd, "etc/hostname/x")
    with pytest.raises(OSError, match="etc/hostname"):
        safe_path.make_dirs(fd, "etc/hostname")


def test_make_dirs_of_many_levels(fd: int, root: pathlib.Path) -> None:
    deep = "d/" * 1500
    safe_path.make_dirs(fd, deep)
    safe_path.make_dirs(fd, deep)
    assert (root / ("d/" * 100)).is_dir()
    # pytest's own clean-up recurses, and fails on this.
    subprocess.run(["rm", "-rf", root / "d"], check=True)


def test_write_is_whole_and_owned(fd: int, root: pathlib.Path) -> None:
    safe_path.write_file(fd, "/etc/hostname", b"new", 0o4751, 12, 34)
    found = (root / "etc/hostname").stat()
    assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (0o4751, 12, 34)
    assert (root / "etc/hostname").read_text() == "new"
    assert sorted(os.listdir(root / "etc")) == ["dangling", "hostname", "link", "relative"]


@pytest.mark.parametrize("name", ["etc/link", "etc/relative"])
def test_a_link_is_followed_inside(fd: int, root: pathlib.Path, name: str) -> None:
    safe_path.write_file(fd, name, b"through")
    assert (root / name).is_symlink()
    assert (root / "etc/hostname").read_text() == "through"
    assert safe_path.read_file(fd, name, 100) == b"through"


def test_a_dangling_link_is_filled(fd: int, root: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError):
        safe_path.write_file(fd, "etc/dangling", b"x")
    (root / "run").mkdir()
    safe_path.write_file(fd, "etc/dangling", b"x")
    assert (root / "run/made").read_bytes() == b"x"


def test_loops_and_magic_links_are_refused(fd: int) -> None:
    for path in ("loop", "loop/x", "magic/etc/passwd"):
        with pytest.raises(OSError) as caught:
            safe_path.read_file(fd, path, 1 << 20)
        assert caught.value.errno in (errno.ELOOP, errno.ENOENT)
        assert caught.value.filename == path
    with pytest.raises(OSError):
        safe_path.write_file(fd, "loop", b"")
    proc = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError) as caught:
            safe_path.openat2(proc, "root/etc/passwd", os.O_RDONLY)
        assert caught.value.errno == errno.ELOOP
    finally:
        os.close(proc)


def test_sizes_are_bounded(fd: int, root: pathlib.Path) -> None:
    (root / "big").write_bytes(b"x" * 101)
    assert len(safe_path.read_file(fd, "big", 101)) == 101
    with pytest.raises(OSError, match="longer than 100 bytes"):
        safe_path.read_file(fd, "big", 100)
    with pytest.raises(OSError, match="longer than 100 bytes"):
        safe_path.write_file(fd, "etc/hostname", b"x" * 101, limit=100)
    source = os.open(root / "big", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="longer than 100 bytes"):
            safe_path.write_file(fd, "etc/hostname", source, limit=100)
        os.lseek(source, 0, os.SEEK_SET)
        safe_path.write_file(fd, "etc/copy", source, limit=101)
    finally:
        os.close(source)
    assert (root / "etc/hostname").read_text() == "old"
    assert (root / "etc/copy").stat().st_size == 101
    assert not [name for name in os.listdir(root / "etc") if name.startswith(".")]


def test_only_regular_files(fd: int, root: pathlib.Path) -> None:
    os.mkfifo(root / "fifo")
    for path in ("fifo", "etc"):
        with pytest.raises(OSError):
            safe_path.read_file(fd, path, 100)
        with pytest.raises(OSError):
            safe_path.write_file(fd, path, b"x")
    for path in ("", "/", ".", "etc/.."):
        with pytest.raises(IsADirectoryError):
            safe_path.write_file(fd, path, b"x")
    with pytest.raises(OSError, match="NUL"):
        safe_path.read_file(fd, "a\0b", 1)


def test_a_guest_that_swaps_links_meanwhile(fd: int, root: pathlib.Path, outside: pathlib.Path) -> None:
    (root / "real").mkdir()
    (root / "swap").symlink_to(outside)
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            for target in ("real", str(outside), "../outside"):
                os.symlink(target, root / "next")
                os.rename(root / "next", root / "swap")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(2000):
            try:
                safe_path.write_file(fd, "swap/secret", b"guest")
                assert safe_path.read_file(fd, "swap/secret", 100) == b"guest"
            except FileNotFoundError:
                pass
    finally:
        done.set()
        thread.join()
    assert (outside / "secret").read_text() == "host"
    assert os.listdir(outside) == ["secret"]

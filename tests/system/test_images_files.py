"""Images from directories, pipes and addresses, and to pipes; lists and their filters."""

import hashlib
import os
import pathlib
import resource
import subprocess
import tarfile
from collections.abc import Iterator

import pytest
import yaml

from tests.support import images
from tests.support.daemon import BIN, Lxpyd, until
from tests.support.proxy import authority
from tests.support.streams import StreamServer, serving
from tests.support.tarballs import METADATA, metadata_tar, squashfs, unified_tar


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory that is an image: busybox, unpacked, with other owners, an attribute and a template."""
    place = tmp_path / "tree"
    place.mkdir()
    _, rootfs = images.files("busybox")
    subprocess.run(["unsquashfs", "-q", "-n", "-d", place / "rootfs", rootfs], check=True, stdout=subprocess.DEVNULL)
    (place / "metadata.yaml").write_text(yaml.safe_dump(METADATA))
    (place / "templates").mkdir()
    (place / "templates/hostname.tpl").write_text("{{ container.name }}\n")
    (place / "rootfs/root/mine").write_text("mine\n")
    os.chown(place / "rootfs/root/mine", 1000, 1001)
    os.setxattr(place / "rootfs/root/mine", "user.note", b"kept")
    (place / "not-of-the-image").write_text("left out\n")
    return place


@pytest.fixture
def imported(lxpyd: Lxpyd) -> Iterator[str]:
    """The alias an image is imported by; it is deleted afterwards."""
    yield "imp"
    lxpyd.cli("image", "delete", "imp", check=False)


def test_a_directory(lxpyd: Lxpyd, tree: pathlib.Path, imported: str, name: str, tmp_path: pathlib.Path) -> None:
    said = lxpyd.out("image", "import", str(tree), "--alias", imported, "release=x1", "--public")
    fingerprint = said.removeprefix("Image imported with fingerprint: ")
    image = lxpyd.json("query", f"/1.0/images/{fingerprint}")
    assert image["public"] and image["filename"] == "tree.tar.gz"
    assert (image["properties"]["release"], image["properties"]["os"]) == ("x1", "Test")
    lxpyd.cli("launch", imported, name)
    assert lxpyd.sh(name, "stat -c %u:%g /root/mine; cat /etc/hostname").stdout == f"1000:1001\n{name}\n"
    lxpyd.cli("image", "export", imported, str(tmp_path / "out"))
    with tarfile.open(tmp_path / "out.tar.gz") as tar:
        names = tar.getnames()
        assert names[0] == "metadata.yaml" and not [one for one in names if "not-of-the-image" in one]
        assert tar.getmember("rootfs/root/mine").pax_headers["SCHILY.xattr.user.note"] == "kept"


@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (lambda tree: (tree / "metadata.yaml").unlink(), "needs a file metadata.yaml"),
        (lambda tree: (tree / "metadata.yaml").write_text("architecture: x86_64\n"), "creation_date"),
        (lambda tree: (tree / "rootfs").rename(tree / "root"), "a directory rootfs"),
    ],
)
def test_a_directory_that_is_no_image(lxpyd: Lxpyd, tree: pathlib.Path, break_it: object, reason: str) -> None:
    assert callable(break_it)
    break_it(tree)
    before = lxpyd.snapshot()
    refused = lxpyd.cli("image", "import", str(tree), check=False)
    assert refused.returncode == 1 and reason in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert lxpyd.snapshot() == before


def test_a_directory_whose_packing_fails(lxpyd: Lxpyd, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What has been sent is no image, whatever it looks like."""
    (tmp_path / "bin").mkdir()
    tar = tmp_path / "bin/tar"
    tar.write_text('#!/bin/sh\n/bin/tar "$@"\necho "tar: rootfs/x: cannot read" >&2\nexit 2\n')
    tar.chmod(0o755)
    before = lxpyd.snapshot()
    refused = lxpyd.cli("image", "import", str(tree), check=False, PATH=f"{tmp_path}/bin:{os.environ['PATH']}")
    assert refused.returncode == 1 and refused.stderr == f"Error: Packing {tree} failed: tar: rootfs/x: cannot read\n"
    until(lambda: lxpyd.snapshot() == before, 5, "something of the upload stays")


def test_through_pipes(lxpyd: Lxpyd, imported: str, tmp_path: pathlib.Path) -> None:
    data = unified_tar("zst")
    said = lxpyd.out("image", "import", "-", "--alias", imported, input=data)
    assert said.endswith(hashlib.sha256(data).hexdigest())
    done = subprocess.run(
        [BIN / "lxpy", "image", "export", imported, "-"], env=lxpyd.environment, capture_output=True, check=True
    )
    assert done.stdout == data
    assert lxpyd.json("image", "list", imported, "-f", "json")[0]["filename"] == "stdin"


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["export", "bb", "-"], "split in two files"),
        (["import", "http://127.0.0.1:1/x"], "Only https:// is supported"),
        (["import", "https://127.0.0.1:1/x"], "Importing https://127.0.0.1:1/x failed"),
        (["import", "https://127.0.0.1:1/x", "more"], "name no second file"),
        (["import", "/nowhere"], "No such file or directory: /nowhere"),
        (["import", "/etc", "/etc/passwd"], "two files"),
        (["import", "-", "x=y"], "The image is empty"),
        (["import", "/etc", "--alias", "a//b"], "Invalid image alias 'a//b'"),
        (["list", "-c", "lq"], "Unknown column"),
        (["alias", "rename", "nope", "other"], "alias not found"),
        (["export", "nope"], 'Image "nope" not found'),
    ],
)
def test_what_cannot_be(lxpyd: Lxpyd, command: list[str], reason: str) -> None:
    before = lxpyd.snapshot()
    refused = lxpyd.cli("image", *command, check=False, input="")
    assert refused.returncode == 1 and reason in refused.stderr and refused.stdout == ""
    assert len(refused.stderr.splitlines()) <= 2
    assert lxpyd.snapshot() == before


def test_an_address(lxpyd: Lxpyd, imported: str, tmp_path: pathlib.Path) -> None:
    server, data = StreamServer(), unified_tar("xz")
    server.files, server.headers = {"/image.tar.xz": data}, {"/image.tar.xz": {}}
    context = authority(tmp_path, "images.invalid")
    own = lxpyd.dir / "ca.pem"
    own.write_bytes((tmp_path / "ca.pem").read_bytes())
    try:
        with serving(server, context):
            lxpyd.cli("image", "import", f"{server.url}/image.tar.xz", "--alias", imported, "os=From afar")
    finally:
        own.unlink()
    image = lxpyd.json("image", "list", imported, "-f", "json")[0]
    assert image["fingerprint"] == hashlib.sha256(data).hexdigest()
    assert (image["filename"], image["properties"]["os"]) == ("image.tar.xz", "From afar")


def test_of_another_machine(lxpyd: Lxpyd, imported: str, name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "arm.tar.gz").write_bytes(unified_tar(architecture="aarch64"))
    lxpyd.cli("image", "import", str(tmp_path / "arm.tar.gz"), "--alias", imported)
    assert lxpyd.out("image", "list", "architecture=aarch64", "-c", "la", "-f", "csv") == "imp,aarch64"
    refused = lxpyd.cli("launch", imported, name, check=False)
    assert refused.returncode == 1
    assert f"The image is for aarch64; this machine runs {os.uname().machine}" in refused.stderr
    assert name not in lxpyd.out("list", "-f", "csv", "-c", "n")


@pytest.fixture(scope="module")
def catalogue(lxpyd: Lxpyd) -> Iterator[Lxpyd]:
    """`lxpyd` with the remote `many`: an image server with 3000 images of several systems and machines."""
    server, architectures = StreamServer(), ("amd64", "arm64", "armhf", "riscv64", "s390x")
    server.add("Debian", "12", metadata_tar(), squashfs(), lxd_requirements={"cgroup": "v1"})
    for number in range(2999):
        system = ("Alpine", "Fedora", "Ubuntu")[number % 3]
        server.add(system, f"r{number // 15}", b"m%d" % number, b"r%d" % number, arch=architectures[number // 3 % 5])
    with serving(server):
        lxpyd.cli("remote", "add", "many", server.url, "--protocol", "simplestreams")
        yield lxpyd
        lxpyd.cli("remote", "remove", "many")


@pytest.mark.parametrize(
    ("words", "count"),
    [
        ([], 3000),
        (["debian"], 1),
        (["os=debian"], 1),
        (["os=deb"], 0),
        (["os=^Deb"], 1),
        (["os=Debian|Alpine"], 1001),
        (["req.cg=v1"], 1),
        (["requirements.cgroup=v."], 1),
        (["release=r7", "architecture=arm64"], 3),
        (["architecture=aarch64", "release=r7", "alpine"], 1),
        (["os=[", "debian"], 0),
        (["public=true", "os=Debian"], 1),
        (["cached=true"], 0),
    ],
)
def test_filters(catalogue: Lxpyd, words: list[str], count: int) -> None:
    assert len(catalogue.out("image", "list", "many:", *words, "-f", "csv", "-c", "F").split()) == count


def test_thousands_are_listed_at_once(catalogue: Lxpyd) -> None:
    """0.3 s of a processor, the daemon's part and the command's, from the cache; the best of several."""

    def worked() -> float:
        assert catalogue.process
        fields = pathlib.Path(f"/proc/{catalogue.process.pid}/stat").read_text().rpartition(")")[2].split()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK") + children.ru_utime + children.ru_stime

    times = []
    for _ in range(8):
        begin = worked()
        assert catalogue.out("image", "list", "many:", "-f", "csv").count("\n") == 2999
        times.append(worked() - begin)
        if times[-1] < 0.3:
            break
    assert min(times) < 0.3, times


def test_the_api_filters_images(lxpyd: Lxpyd, imported: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(unified_tar(properties={"os": "Odd", "x.y": "1"}))
    lxpyd.cli("image", "import", str(tmp_path / "a.tar.gz"), "--alias", imported, "--public")
    found = lxpyd.out("image", "list", imported, "-c", "F", "-f", "csv")
    for text in ("properties.os eq Odd", "properties.x.y eq 1 and public eq true", f"fingerprint eq {found}"):
        quoted = text.replace(" ", "%20")
        assert lxpyd.json("query", f"/1.0/images?filter={quoted}") == [f"/1.0/images/{found}"]


def test_show_edit_and_rename(lxpyd: Lxpyd, imported: str, tmp_path: pathlib.Path) -> None:
    """What is shown can be edited and given back."""
    (tmp_path / "a.tar.gz").write_bytes(unified_tar())
    lxpyd.cli("image", "import", str(tmp_path / "a.tar.gz"), "--alias", "before")
    lxpyd.cli("image", "alias", "rename", "before", imported)
    shown = yaml.safe_load(lxpyd.out("image", "show", imported))
    assert shown == {
        "auto_update": False, "expires_at": "1970-01-01T00:00:00Z", "profiles": ["default"], "public": False,
        "properties": METADATA["properties"],
    }  # fmt: skip
    shown |= {"public": True, "expires_at": "2031-02-03T04:05:06Z", "properties": {"os": "Edited"}}
    lxpyd.cli("image", "edit", imported, input=yaml.safe_dump(shown))
    assert yaml.safe_load(lxpyd.out("image", "show", imported)) == shown
    info = lxpyd.out("image", "info", imported)
    assert "Public: yes" in info and "Expires: 2031/02/03 04:05 UTC" in info and "    os: Edited" in info
    refused = lxpyd.cli("image", "edit", imported, input="expires_at: tomorrow\n", check=False)
    assert refused.returncode == 1 and "Invalid expiry date" in refused.stderr
    assert yaml.safe_load(lxpyd.out("image", "show", imported)) == shown

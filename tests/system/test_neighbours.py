"""A greedy container harms neither its neighbour nor the host; a hostile one touches nothing outside."""

import os
import pathlib
import subprocess
import tarfile

import pytest

from tests.support import images
from tests.support.daemon import Lxpyd, until

# Static tools for guests: busybox has no inotify or keyring user that holds on to what it takes.
SOURCE = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv)
{
    long n = 0;
    char text[64];
    if (!strcmp(argv[1], "inotify")) {
        struct rlimit r = {1 << 16, 1 << 16};
        getrlimit(RLIMIT_NOFILE, &r); r.rlim_cur = r.rlim_max; setrlimit(RLIMIT_NOFILE, &r);
        while (inotify_init1(0) >= 0) n++;
    } else if (!strcmp(argv[1], "keys")) {
        for (;; n++) {
            snprintf(text, sizeof text, "k%ld", n);
            if (syscall(SYS_add_key, "user", text, "x", 1, -4 /* user keyring */) < 0) break;
        }
    }
    printf("%ld %s\n", n, strerror(errno));
    fflush(stdout);
    if (argc > 2) pause();
    return 0;
}
"""


@pytest.fixture(scope="module")
def taker(lxpyd: Lxpyd, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The static program above."""
    folder = tmp_path_factory.mktemp("taker")
    (folder / "taker.c").write_text(SOURCE)
    subprocess.run(["gcc", "-static", "-O1", "-o", folder / "taker", folder / "taker.c"], check=True)
    return (folder / "taker").read_bytes()


@pytest.fixture
def two(lxpyd: Lxpyd, name: str, taker: bytes) -> tuple[str, str]:
    """A greedy container and its neighbour, each with the program as /taker."""
    names = (f"{name}-greedy", f"{name}-other")
    for each in names:
        lxpyd.cli("launch", "bb", each, "-c", "limits.processes=300", "-c", "limits.memory=128MiB")
        lxpyd.cli("exec", each, "--", "sh", "-c", "cat > /taker; chmod 755 /taker", input=taker)
    return names


@pytest.mark.parametrize("what", ["inotify", "keys"])
def test_counters_of_the_kernel_are_each_containers_own(lxpyd: Lxpyd, two: tuple[str, str], what: str) -> None:
    greedy, other = two
    with lxpyd.spawn("exec", greedy, "--", "/taker", what, "hold") as holder:
        assert holder.stdout
        taken = int(holder.stdout.readline().split()[0])
        assert taken > 50, "nothing could be taken at all"
        # As much is left for the neighbour, and for the host's root.
        assert int(lxpyd.cli("exec", other, "--", "/taker", what).stdout.split()[0]) >= taken * 9 // 10
        assert "No space" not in lxpyd.cli("launch", "bb", f"{other}-new").stderr
        lxpyd.sh(greedy, "killall taker")
        holder.communicate(timeout=10)


def test_processes(lxpyd: Lxpyd, two: tuple[str, str]) -> None:
    greedy, other = two
    lxpyd.sh(greedy, "(b() { b | b & }; b) >/dev/null 2>&1 & sleep 1; true", check=False, timeout=60)
    assert lxpyd.sh(other, "for i in 1 2 3 4 5; do sleep 0 & done; wait; echo fine").stdout == "fine\n"
    assert subprocess.run(["true"], check=True).returncode == 0
    lxpyd.cli("stop", "-f", greedy)
    assert lxpyd.status(greedy) == "STOPPED"


def test_memory(lxpyd: Lxpyd, two: tuple[str, str]) -> None:
    greedy, other = two
    pid = lxpyd.init_pid(other)
    lxpyd.sh(greedy, "head -c 1g /dev/zero | tail -c 900m | wc -c", check=False, timeout=60)
    assert lxpyd.sh(other, "echo fine").stdout == "fine\n" and lxpyd.init_pid(other) == pid


def test_a_file_on_the_host_is_out_of_reach(lxpyd: Lxpyd, two: tuple[str, str]) -> None:
    """What a guest sees of mounts, links and its own processes names no directory of the host's users."""
    text = lxpyd.sh(
        two[0], "cat /proc/self/mountinfo /proc/1/environ /proc/self/environ; ls -l /proc/1/fd /proc/self/fd"
    ).stdout
    for secret in (str(lxpyd.dir), str(lxpyd.layout.run), os.getcwd(), "XDG_", "PYTEST"):
        assert secret not in text.replace(f"{lxpyd.layout.cgroup_prefix}", ""), secret


@pytest.fixture
def hostile(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> str:
    """A running container whose image is set against its host: links everywhere to a host directory, /proc covered."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_text("mine")
    _, rootfs = images.files("busybox")
    tree = tmp_path / "tree"
    subprocess.run(["unsquashfs", "-q", "-n", "-d", tree, rootfs], check=True, capture_output=True)
    for link in ("etc/hostname", "etc/hosts", "etc/resolv.conf"):
        (tree / link).unlink(missing_ok=True)
        (tree / link).symlink_to(tmp_path / "victim/planted")
    for folder in ("mnt", "srv", "tmp", "var/log"):
        subprocess.run(["rm", "-rf", tree / folder], check=True)
        (tree / folder).symlink_to(tmp_path / "victim")
    (tree / "lib64").mkdir(exist_ok=True)
    (tree / "lib64/ld-linux-x86-64.so.2").symlink_to(tmp_path / "victim/file")
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "t.tpl").write_text("planted by a template")
    metadata = f"architecture: {os.uname().machine}\ncreation_date: 1700000000\ntemplates:\n"
    metadata += (
        "  /etc/hostname: {when: [create, start], template: t.tpl}\n  /mnt/planted: {when: [create], template: t.tpl}\n"
    )
    (tmp_path / "metadata.yaml").write_text(metadata)
    with tarfile.open(tmp_path / "image.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "metadata.yaml", "metadata.yaml")
        archive.add(templates, "templates")
        archive.add(tree, "rootfs")
    lxpyd.cli("image", "import", str(tmp_path / "image.tar.gz"), "--alias", f"{name}-hostile")
    lxpyd.cli("launch", f"{name}-hostile", name)
    return name


def test_a_hostile_root_file_system(lxpyd: Lxpyd, hostile: str, tmp_path: pathlib.Path) -> None:
    found = (tmp_path / "victim/file").stat()
    before = (found.st_mode, found.st_uid, found.st_nlink, found.st_ctime_ns)
    # The guest covers its own /proc and swaps its shell between looks; exec must neither trust nor follow any of it.
    lxpyd.sh(hostile, "mount -t tmpfs none /proc; mkdir -p /proc/self/fd /proc/1; ln -s / /proc/self/root")
    assert lxpyd.cli("exec", hostile, "--", "/bin/busybox", "echo", "in").stdout == "in\n"
    assert lxpyd.cli("exec", hostile, "--cwd", "/mnt", "--", "/bin/busybox", "ls", check=False).stdout != "file\n"
    lxpyd.out("info", hostile)
    lxpyd.out("list")
    lxpyd.cli("restart", "-f", hostile)
    lxpyd.cli("stop", "-f", hostile)
    lxpyd.cli("rename", hostile, f"{hostile}-renamed")
    lxpyd.cli("delete", f"{hostile}-renamed")
    lxpyd.cli("image", "delete", f"{hostile}-hostile")
    assert [p.name for p in (tmp_path / "victim").iterdir()] == ["file"]
    assert (tmp_path / "victim/file").read_text() == "mine"
    after = (tmp_path / "victim/file").stat()
    assert (after.st_mode, after.st_uid, after.st_nlink, after.st_ctime_ns) == before


def test_a_guest_that_fights_its_own_end(lxpyd: Lxpyd, name: str) -> None:
    """Processes that ignore signals, stopped ones and a full mount table do not hold up stop and delete."""
    lxpyd.cli("launch", "bb", name)
    lxpyd.sh(
        name, "for i in $(seq 20); do (trap '' TERM INT HUP; while :; do sleep 1; done) >/dev/null 2>&1 & done; true"
    )
    lxpyd.sh(name, "for i in $(seq 100); do mkdir -p /m/$i; mount -t tmpfs none /m/$i; done")
    lxpyd.cli("delete", "-f", name, timeout=20)
    until(lambda: name not in lxpyd.out("list", "-f", "csv", "-c", "n").split(), 3, "it is still there")

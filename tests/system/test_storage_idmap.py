"""The tree a pool makes serves an id-mapped overlay: what a guest's root may do there, and what the host then sees.

The runtime makes the real one; this asks only whether the pool's directories, modes and mounts are good for it.
"""

import asyncio
import os
import pathlib
import platform
import stat
import struct
import subprocess
import sys

import pytest

from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.linux import safe_path
from lxpy.state.store import Store
from lxpy.storage.manager import StorageManager
from tests.support import namespace

BASE = 1_300_000_000
FINGERPRINT = "1d" * 32

# geteuid(); exit(euid): raw, so that no loader, library or busybox drops the rights that are being looked at.
_CODE = {
    "x86_64": bytes.fromhex("b86b0000000f0589c7b83c0000000f05"),
    "aarch64": struct.pack("<4I", 0xD28015E8, 0xD4000001, 0xD2800BA8, 0xD4000001),
}
_ELF_MACHINE = {"x86_64": 62, "aarch64": 183}

# One process, one thread: the runtime's sequence in little.
GUEST = r"""
import os, sys
from lxpy.linux import caps, idmap, libc, mounts
lower, pool, base = sys.argv[1], sys.argv[2], int(sys.argv[3])
userns = idmap.user_namespace(base, 65536)
libc.unshare(libc.CLONE_NEWNS)
libc.mount("", "/", "", libc.MS_REC | libc.MS_PRIVATE)
fds = []
for path in (lower, pool):
    fd = mounts.idmapped(path, userns)
    target = os.open(path, os.O_PATH | os.O_DIRECTORY)
    libc.move_mount(fd, target)
    fds.append(fd)
libc.prctl(libc.PR_SET_KEEPCAPS, 1)
os.setresgid(base, base, base)
os.setresuid(base, base, base)
caps.raise_all()
layers = f"/proc/self/fd/{fds[1]}"
options = {"lowerdir": f"/proc/self/fd/{fds[0]}", "upperdir": f"{layers}/upper", "workdir": f"{layers}/work"}
tree = mounts.new("overlay", options | {"redirect_dir": "on", "index": "on"}, libc.MOUNT_ATTR_NODEV)
point = os.open(sys.argv[4], os.O_PATH | os.O_DIRECTORY)
libc.move_mount(tree, point)
libc.setns(userns, libc.CLONE_NEWUSER)
os.setgroups([])
os.setresgid(0, 0, 0)
os.setresuid(0, 0, 0)
os.fchdir(tree)  # a working directory follows into the new namespace, a descriptor does not
libc.unshare(libc.CLONE_NEWNS)
# Set-uid bits count only on mounts of one's own mount namespace; binding gives us one.
tree = mounts.clone(".")
libc.move_mount(tree, libc.AT_FDCWD, ".")
os.fchdir(tree)
os.chroot(".")
root = os.stat("/")
assert (root.st_uid, root.st_gid, root.st_mode & 0o7777) == (0, 0, 0o751), root
assert os.stat("/home/user").st_uid == 1000
os.rename("/bin", "/sbin")
os.mkdir("/var")
os.chown("/var", 33, 34)
open("/sbin/one", "w").write("changed")
assert os.stat("/sbin/two").st_ino == os.stat("/sbin/one").st_ino
assert os.stat("/sbin/two").st_size == 7
os.setxattr("/sbin/three", "security.capability", bytes.fromhex("0100000200200000000000000000000000000000"))
try:
    os.mknod("/null", 0o020666, os.makedev(1, 3))
    raise AssertionError("a device node could be made")
except PermissionError:
    pass
pid = os.fork()
if pid == 0:
    os.setresgid(1000, 1000, 1000)
    os.setresuid(1000, 1000, 1000)
    os.execv("/sbin/euid", ["euid"])
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0, "the set-uid bit of the image does not count"
"""


def _set_uid_program() -> bytes:
    code = _CODE[platform.machine()]
    size = 64 + 56 + len(code)
    entry = 0x400000 + 64 + 56
    ident = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, _ELF_MACHINE[platform.machine()], 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, size, size, 0x1000)
    return ident + header + segment + code


def _image(place: pathlib.Path, kind: str) -> ImageFiles:
    rootfs = place / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    for name in ("one", "three"):
        (rootfs / "bin" / name).write_text("of the image")
    os.link(rootfs / "bin/one", rootfs / "bin/two")
    (rootfs / "bin/euid").write_bytes(_set_uid_program())
    (rootfs / "bin/euid").chmod(0o4755)
    (rootfs / "home/user").mkdir(parents=True)
    os.chown(rootfs / "home/user", 1000, 1000)
    rootfs.chmod(0o751)
    out = place / "image"
    if kind == "squashfs":
        command = ["mksquashfs", rootfs, out, "-quiet", "-no-progress"]
    else:
        command = ["tar", "-cf", out, "-C", rootfs, "."]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return ImageFiles(FINGERPRINT, kind, str(out), str(out))


@pytest.mark.parametrize("kind", ["squashfs", "tar"])
def test_a_guest_works_in_its_overlay(kind: str) -> None:
    asyncio.run(_guest_works(kind))


async def _guest_works(kind: str) -> None:
    place = namespace.run_dir("idmap") / f"{os.getpid()}-{kind}"
    (place / "mnt").mkdir(parents=True)
    layout = Layout(str(place))
    store = Store(layout.database)
    warnings: list[str] = []
    manager = StorageManager(store, layout, warnings.append)
    await manager.start()
    await manager.create_pool("p", "overlay", {}, "")
    pool = manager.pool("p")
    await pool.ensure_image(await asyncio.to_thread(_image, place, kind))
    await pool.create_instance("c1", FINGERPRINT)
    with pool.open_root("c1") as root:  # templates come before the first start
        safe_path.write_file(root, "hostname", b"c1")
    spec = pool.root("c1")
    arguments = [spec["lower"], os.path.dirname(spec["upper"]), str(BASE), str(place / "mnt")]
    command = [sys.executable, "-c", GUEST, *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert os.lstat(f"{spec['upper']}/var").st_uid == 33, "owners on the disk are 0-based"
    with pool.open_root("c1") as root:  # and the host sees the same files the guest left
        assert sorted(os.listdir(root)) == ["home", "hostname", "sbin", "var"]
        assert safe_path.read_file(root, "sbin/two", 100) == b"changed"
        assert safe_path.read_file(root, "hostname", 100) == b"c1"
        found = os.stat("sbin/euid", dir_fd=root)
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o4755, 0)
        three = os.open("sbin/three", os.O_RDONLY, dir_fd=root)
        assert "security.capability" in os.listxattr(three)
        os.close(three)
    await pool.delete_instance("c1")
    await manager.delete_pool("p")
    store.close()
    assert warnings == []

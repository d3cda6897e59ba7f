"""What a guest is shut into: namespaces, ids, capabilities, system calls, devices, and nothing of the host inside."""

import asyncio
import os
import pathlib
import subprocess
import sys

from lxpy.linux import caps, devices, libc
from tests.kernel.conftest import BASE, Guest, Lab

SYSCALLS = r"""
#include <errno.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>
#define T(name, ...) do { errno = 0; long r = syscall(__VA_ARGS__); printf(name "=%d ", r < 0 ? errno : 0); } while (0)
int main(void) {
    T("kexec_load", SYS_kexec_load, 0, 0, 0, 0);
    T("kexec_file_load", SYS_kexec_file_load, -1, -1, 0, 0, 0);
    T("open_by_handle_at", SYS_open_by_handle_at, -1, 0, 0);
    T("init_module", SYS_init_module, 0, 0, 0);
    T("finit_module", SYS_finit_module, -1, 0, 0);
    T("delete_module", SYS_delete_module, "x", 0);
    T("umount_force", SYS_umount2, "/nowhere", MNT_FORCE);
    T("umount_detach", SYS_umount2, "/nowhere", MNT_DETACH);
#ifdef __x86_64__
    T("x32", 0x40000000 | 39);
    long r; __asm__ volatile ("int $0x80" : "=a"(r) : "a"(128), "b"(0), "c"(0), "d"(0) : "memory");
    printf("i386_init_module=%ld ", -r);
    __asm__ volatile ("int $0x80" : "=a"(r) : "a"(20) : "memory");
    printf("i386_getpid=%d ", r > 0 ? 0 : (int)-r);
#endif
    printf("euid=%d ", geteuid());
    return 0;
}
"""


async def test_every_namespace_is_its_own(guest: Guest) -> None:
    for kind in ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup"):
        inside = os.readlink(f"/proc/{guest.supervisor.init_pid}/ns/{kind}")
        assert inside != os.readlink(f"/proc/self/ns/{kind}")
        # An exec lands in the same ones.
        assert await guest.sh(f"readlink /proc/self/ns/{kind}") == inside
    assert await guest.sh("hostname") == guest.spec["hostname"]
    assert await guest.sh("cat /sys/class/net/lo/flags") == "0x9"


async def test_ids_are_mapped_and_owned_by_the_mapped_root(guest: Guest) -> None:
    idmap = guest.spec["idmap"]
    assert idmap
    pid = guest.supervisor.init_pid
    expected = [0, idmap["base"], 65536]
    for name in ("uid_map", "gid_map"):
        assert [int(word) for word in pathlib.Path(f"/proc/{pid}/{name}").read_text().split()] == expected
    assert os.stat(f"/proc/{pid}").st_uid == idmap["base"]
    await guest.sh("touch /made && chown 1000:1000 /made && touch /by-root")
    upper = pathlib.Path(guest.spec["root"]["upper"])
    # On disk the owners stay as the guest sees them.
    assert [(upper / name).stat().st_uid for name in ("made", "by-root")] == [1000, 0]
    assert BASE <= os.stat(f"/proc/{pid}/root/made").st_uid < BASE + 65536 * 1000


async def test_capabilities_and_filter(guest: Guest) -> None:
    status = await guest.sh(
        "grep -E '^(Cap|Seccomp|NoNewPrivs)' /proc/1/status; grep -E '^(Cap|Seccomp)' /proc/self/status"
    )
    for line in status.splitlines():
        key, value = line.split()
        if key in ("CapBnd:", "CapEff:", "CapPrm:"):
            assert not any(int(value, 16) >> number & 1 for number in caps.DENIED), line
        elif key in ("CapInh:", "CapAmb:"):
            assert int(value, 16) == 0
        elif key == "Seccomp:":
            assert value == "2"
        elif key == "NoNewPrivs:":
            assert value == "0"  # setuid programs have to work


async def test_forbidden_system_calls(guest: Guest, work: pathlib.Path) -> None:
    source, binary = work / "calls.c", work / "calls"
    source.write_text(SYSCALLS)
    await asyncio.to_thread(subprocess.run, ["gcc", "-static", "-O1", "-o", binary, source], check=True)
    assert (
        await guest.run("sh", "-c", "cat > /tmp/calls; chmod 755 /tmp/calls", input=binary.read_bytes())
    ).status == {"exit": 0}
    results = dict(item.split("=") for item in (await guest.sh("/tmp/calls")).split())
    missing = {"kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module", "delete_module"}
    assert {name: results[name] for name in missing} == dict.fromkeys(missing, "38")
    assert results["umount_force"] == "13"
    assert results["umount_detach"] == "2"
    # The filter leaves setuid programs alone.
    await guest.sh("chown 0:0 /tmp/calls; chmod 4755 /tmp/calls")
    assert "euid=0" in (await guest.run("/tmp/calls", user=1000, group=1000)).text
    if libc.MACHINE == "x86_64":
        assert results["x32"] == "38"
        # Without 32-bit emulation in the kernel every such call is missing, which is as good.
        assert results["i386_init_module"] == "38"
        assert results["i386_getpid"] in ("0", "38")


async def test_nothing_of_the_host_leaks_in(guest: Guest) -> None:
    assert sorted((await guest.sh("ls /proc/1/fd")).split()) == ["0", "1", "2"]
    assert len((await guest.sh("ls /proc/self/fd")).split()) == 4  # and the directory that ls reads
    environment = await guest.sh("tr '\\0' '\\n' < /proc/1/environ | sort")
    assert [line.split("=")[0] for line in environment.splitlines()] == ["PATH", "TERM", "container"]
    assert (await guest.run("/bin/busybox", "env", environment={"A": "b"})).text == "A=b\n"
    mountinfo = await guest.sh("cat /proc/self/mountinfo")
    assert guest.spec["run_dir"] not in mountinfo
    assert "/var/tmp" not in mountinfo
    assert "ext4" not in mountinfo and "btrfs" not in mountinfo
    assert await guest.sh("ls /proc | grep -c '^[0-9]'") in ("4", "5", "6")
    assert set((await guest.sh("cut -d: -f3 /proc/self/cgroup")).split()) == {"/"}
    assert await guest.sh("wc -c < /proc/timer_list") == "0"


async def test_devices_outside_the_list_are_refused(guest: Guest) -> None:
    assert (await guest.run("mknod", "/tmp/disk", "b", "254", "0")).status["exit"] != 0
    assert await guest.sh("head -c 4 /dev/zero | wc -c") == "4"
    await guest.sh("echo x > /dev/null; head -c 1 /dev/urandom > /dev/null")
    # The kernel's own list, seen from outside.
    listed = pathlib.Path(f"/sys/fs/cgroup/devices/{guest.cgroup.payload}/devices.list")
    if listed.exists():
        assert len(listed.read_text().splitlines()) == len(devices.ALLOWED)


async def test_nodev_is_locked(guest: Guest) -> None:
    assert "nodev" in (await guest.sh("grep ' / / ' /proc/self/mountinfo"))
    assert (await guest.run("mount", "-o", "remount,bind,dev", "/")).status["exit"] != 0
    assert "nodev" in (await guest.sh("grep ' / / ' /proc/self/mountinfo"))


async def test_readonly_disks_are_locked_and_links_stay_inside(lab: Lab, work: pathlib.Path) -> None:
    source = work / "disk"
    source.mkdir(exist_ok=True)
    (source / "file").write_text("content")
    (source / "file").chmod(0o644)
    os.chown(source / "file", 1000, 1000)
    (lab.rootfs / "data/out").unlink(missing_ok=True)
    (lab.rootfs / "data/out").symlink_to("/../../../../tmp/inside")
    common = {"source": str(source), "shift": True, "recursive": False, "required": True}
    guest = await lab.start(
        mounts=[
            {**common, "target": "/mnt/ro", "readonly": True},
            {**common, "target": "/mnt/new/rw", "readonly": False},
            {**common, "target": "/data/out", "readonly": False, "source": "/nonexistent", "required": False},
            {**common, "target": "/dev/file", "source": str(source / "file"), "readonly": True},
        ]
    )
    assert await guest.sh("cat /mnt/ro/file; stat -c %u /mnt/ro/file; cat /dev/file") == "content1000\ncontent"
    assert (await guest.run("touch", "/mnt/ro/x")).status["exit"] != 0
    assert (await guest.run("mount", "-o", "remount,bind,rw", "/mnt/ro")).status["exit"] != 0
    assert (await guest.run("touch", "/mnt/ro/x")).status["exit"] != 0
    assert (await guest.run("mount", "-o", "remount,bind,rw", "/dev/file")).status["exit"] != 0
    await guest.sh("touch /mnt/new/rw/made")
    assert (source / "made").stat().st_uid == 0
    (lab.rootfs / "data/out").unlink()


async def test_privileged(lab: Lab) -> None:
    guest = await lab.start(idmap=None)
    assert os.readlink(f"/proc/{guest.supervisor.init_pid}/ns/user") == os.readlink("/proc/self/ns/user")
    bounding = int((await guest.sh("grep CapBnd /proc/1/status")).split()[1], 16)
    assert not any(bounding >> number & 1 for number in caps.DENIED)
    assert (await guest.run("sh", "-c", "echo 1 > /proc/sys/vm/drop_caches")).status["exit"] != 0
    if os.path.exists("/proc/sysrq-trigger"):
        assert (await guest.run("sh", "-c", "echo h > /proc/sysrq-trigger")).status["exit"] != 0
    assert (await guest.run("touch", "/sys/kernel/x")).status["exit"] != 0
    await guest.sh("mknod /tmp/null c 1 3 && echo x > /tmp/null")
    assert (await guest.run("mknod", "/tmp/disk", "b", "254", "0")).status["exit"] != 0
    assert await guest.sh("cat /proc/self/uid_map") == "0          0 4294967295"


async def test_image_directories_rename_and_hard_links_hold(lab: Lab) -> None:
    (lab.rootfs / "data/dir").mkdir(exist_ok=True)
    (lab.rootfs / "data/a").write_text("1")
    (lab.rootfs / "data/b").unlink(missing_ok=True)
    os.link(lab.rootfs / "data/a", lab.rootfs / "data/b")
    guest = await lab.start()
    await guest.sh(
        "mv /data/dir /data/moved && echo 2 >> /data/a && test $(stat -c %i /data/a) = $(stat -c %i /data/b)"
    )
    assert await guest.sh("cat /data/b") == "12"
    assert (lab.rootfs / "data/a").read_text() == "1"


async def test_dir_root_and_the_fallback_inside_the_user_namespace(lab: Lab, work: pathlib.Path) -> None:
    tree = work / "plain"
    await asyncio.to_thread(subprocess.run, ["cp", "-a", lab.rootfs, tree], check=True)
    root = {"kind": "dir", "path": str(tree), "lower": "", "upper": "", "work": ""}
    guest = await lab.start(root=root)
    await guest.sh("echo x > /written")
    assert (tree / "written").stat().st_uid == 0
    assert (await guest.run("mount", "-o", "remount,bind,dev", "/")).status["exit"] != 0

    spec = lab.spec()
    spec["root"]["fallback"] = "userxattr"  # type: ignore[typeddict-unknown-key]
    disk = {"source": str(tree), "target": "/mnt/ro", "shift": True, "recursive": False, "required": True}
    spec["mounts"] = [{**disk, "readonly": True}]  # type: ignore[typeddict-item]
    guest = await lab.launch(spec)
    assert "userxattr" in await guest.sh("grep ' / overlay' /proc/mounts")
    assert (await guest.run("mount", "-o", "remount,bind,rw", "/mnt/ro")).status["exit"] != 0
    assert "x" in await guest.sh("cat /mnt/ro/written")
    await guest.sh("echo x > /written && chown 1000 /written")
    assert (pathlib.Path(spec["root"]["upper"]) / "written").stat().st_uid == 1000


def test_device_program_is_accepted_by_the_kernel() -> None:
    path = pathlib.Path("/sys/fs/cgroup/unified")
    path = (path if path.exists() else pathlib.Path("/sys/fs/cgroup")) / f"lxpykt{os.getpid()}.bpf"
    path.mkdir()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        devices.restrict_v2(fd, devices.ALLOWED)
        code = (
            "import os, sys; from lxpy.linux import libc; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
            "pid = libc.clone(0, fd)\n"
            "if pid:\n  sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
            "open('/dev/null', 'w').close(); open('/dev/urandom').close()\n"
            "try:\n  open('/dev/kmsg'); os._exit(1)\nexcept PermissionError:\n  os._exit(0)\n"
        )
        assert subprocess.run([sys.executable, "-c", code, path], check=False).returncode == 0
        os.close(fd)
    finally:
        path.rmdir()


def test_device_program_is_replaced_by_another() -> None:
    """What is allowed grows and shrinks at once; a program of the guest's own beside ours is left alone."""
    path = pathlib.Path("/sys/fs/cgroup/unified")
    path = (path if path.exists() else pathlib.Path("/sys/fs/cgroup")) / f"lxpykt{os.getpid()}.bpf2"
    path.mkdir()
    code = (
        "import os, sys; from lxpy.linux import libc; fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "pid = libc.clone(0, fd)\n"
        "if pid:\n  sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "open('/dev/null', 'w').close()\n"
        "try:\n  open('/dev/loop-control'); os._exit(0)\nexcept PermissionError:\n  os._exit(3)\n"
    )

    def tried() -> int:
        return subprocess.run([sys.executable, "-c", code, path], check=False).returncode

    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        devices.restrict_v2(fd, devices.ALLOWED)
        assert tried() == 3
        for _ in range(3):
            devices.change_v2(fd, (*devices.ALLOWED, ("c", 10, 237)))
            assert tried() == 0
            devices.change_v2(fd, devices.ALLOWED)
            assert tried() == 3
        os.close(fd)
    finally:
        path.rmdir()

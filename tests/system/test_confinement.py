"""Keys that hold a guest in: system calls, id maps, kernel settings, ``raw.lxc``; and keys that are refused."""

import os
import pathlib
import subprocess

import pytest

from tests.support.daemon import Lxpyd

_CALLS = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#define T(name, ...) do { errno = 0; long r = syscall(__VA_ARGS__); printf(name "=%d ", r < 0 ? errno : 0); } while (0)
int main(void) {
    T("mkdir", SYS_mkdirat, -100, "/tmp/made", 0700);
    T("unshare", SYS_unshare, 0);
    T("by_handle", SYS_open_by_handle_at, -1, 0, 0);
    T("getppid", SYS_getppid);
#ifdef __x86_64__
    long r; __asm__ volatile ("int $0x80" : "=a"(r) : "a"(20) : "memory");
    printf("i386=%d ", r > 0 ? 0 : (int)-r);
#endif
    fflush(stdout);
    return 0;
}
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tools")
    (folder / "calls.c").write_text(_CALLS)
    subprocess.run(["gcc", "-static", "-O1", "-o", folder / "calls", folder / "calls.c"], check=True)
    return folder


def _calls(lxpyd: Lxpyd, name: str, tools: pathlib.Path) -> dict[str, int]:
    data = (tools / "calls").read_bytes()
    lxpyd.cli("exec", name, "--", "sh", "-c", "cat > /calls; chmod 755 /calls; rm -rf /tmp/made", input=data)
    return {
        key: int(value) for key, _, value in (one.partition("=") for one in lxpyd.sh(name, "/calls").stdout.split())
    }


def test_system_calls_that_are_denied(lxpyd: Lxpyd, name: str, tools: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "security.syscalls.deny=mkdirat errno 13\nunshare")
    found = _calls(lxpyd, name, tools)
    assert (found["mkdir"], found["unshare"], found["by_handle"], found["getppid"]) == (13, 38, 38, 0)
    assert "mkdirat" in lxpyd.json("info", "--isolation", name, "-f", "json")["seccomp"]["refused"]
    lxpyd.restart(kill=True)
    assert _calls(lxpyd, name, tools) == found
    # From the next start on; the usual list goes as well, where that is asked for.
    lxpyd.cli("config", "set", name, "security.syscalls.deny=getppid errno 1", "security.syscalls.deny_default=false",
              "security.syscalls.deny_compat=true")  # fmt: skip
    assert _calls(lxpyd, name, tools) == found
    lxpyd.cli("restart", "-f", name)
    now = _calls(lxpyd, name, tools)
    assert (now["mkdir"], now["unshare"], now["getppid"]) == (0, 0, 1)
    assert now["by_handle"] not in (0, 38)  # the kernel itself refuses what makes no sense
    assert now.get("i386", 38) in (38, -38)


def test_system_calls_that_alone_are_allowed(lxpyd: Lxpyd, name: str, tools: pathlib.Path) -> None:
    from lxpy.linux import libc, syscalls

    arch = {"x86_64": syscalls.X86_64}.get(libc.MACHINE, syscalls.AARCH64)
    allowed = "\n".join(sorted(syscalls.numbers(arch).keys() - {"mkdirat", "mkdir", "open_by_handle_at"}))
    lxpyd.cli("launch", "bb", name, "-c", f"security.syscalls.allow={allowed}")
    found = _calls(lxpyd, name, tools)
    assert (found["mkdir"], found["unshare"], found["by_handle"]) == (38, 0, 38)
    lxpyd.cli("stop", "-f", name)
    both = lxpyd.cli("config", "set", name, "security.syscalls.deny=mount", check=False)
    assert both.returncode == 1 and "Both security.syscalls.allow and security.syscalls.deny" in both.stderr
    # A list on which nothing can run is said to be one.
    lxpyd.cli("config", "set", name, "security.syscalls.allow=read")
    failed = lxpyd.cli("start", name, check=False)
    assert failed.returncode == 1 and failed.stderr.count("\n") == 1 and "Failed to start" in failed.stderr
    assert lxpyd.status(name) == "STOPPED"


def test_id_maps_of_other_sizes_and_places(lxpyd: Lxpyd, name: str) -> None:
    first, second = f"{name}-a", f"{name}-b"
    lxpyd.cli("launch", "bb", first, "-c", "security.idmap.size=200000", "-c", "security.idmap.isolated=true")
    base = _map(lxpyd, first)[0][1]
    assert _map(lxpyd, first) == [[0, base, 200000]]
    lxpyd.sh(first, "touch /by; chown 150000:150000 /by")
    lxpyd.cli("launch", "bb", second)
    other = _map(lxpyd, second)[0][1]
    assert other + 65536 <= base or base + 200000 <= other
    # Another place from the next start on, and files belong to whom they belonged.
    far = 1_900_000_000
    lxpyd.cli("config", "set", first, f"security.idmap.base={far}")
    assert _map(lxpyd, first)[0][1] == base
    lxpyd.cli("restart", "-f", first)
    assert _map(lxpyd, first) == [[0, far, 200000]]
    assert lxpyd.sh(first, "stat -c %u:%g /by").stdout.strip() == "150000:150000"
    lxpyd.cli("stop", "-f", second)
    lxpyd.cli("config", "set", second, f"security.idmap.base={far + 100000}")
    refused = lxpyd.cli("start", second, check=False)
    assert refused.returncode == 1 and f"overlap with those of instance '{first}'" in refused.stderr
    lxpyd.cli("config", "unset", second, "security.idmap.base")
    lxpyd.cli("start", second)
    # A copy has as many, elsewhere.
    third = f"{name}-c"
    lxpyd.cli("copy", first, third, "-c", "security.idmap.base=")
    lxpyd.cli("start", third)
    assert _map(lxpyd, third)[0][2] == 200000 and _map(lxpyd, third)[0][1] != far
    assert lxpyd.sh(third, "stat -c %u:%g /by").stdout.strip() == "150000:150000"


def _map(lxpyd: Lxpyd, name: str, kind: str = "uid") -> list[list[int]]:
    return [
        [int(word) for word in line.split()] for line in lxpyd.sh(name, f"cat /proc/1/{kind}_map").stdout.splitlines()
    ]


def test_raw_idmap_shares_a_user_with_the_host(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 1234, 1235)
    lxpyd.cli("launch", "bb", name, "-c", "raw.idmap=uid 1234 1000\ngid 1235 1000")
    base = _map(lxpyd, name)[0][1]
    assert _map(lxpyd, name) == [[0, base, 1000], [1000, 1234, 1], [1001, base + 1001, 64535]]
    assert _map(lxpyd, name, "gid")[1] == [1000, 1235, 1]
    lxpyd.cli("config", "device", "add", name, "s", "disk", f"source={shared}", "path=/s", "shift=false")
    lxpyd.cli("exec", name, "--user", "1000", "--group", "1000", "--", "sh", "-c", "echo hi > /s/by")
    assert ((shared / "by").stat().st_uid, (shared / "by").stat().st_gid) == (1234, 1235)
    # The root file system knows the same user, and a command's own pipes can be opened again.
    lxpyd.sh(name, "touch /of; chown 1000:1000 /of")
    assert lxpyd.sh(name, "stat -c %u /of").stdout.strip() == "1000"
    reopened = lxpyd.cli(
        "exec", name, "--user", "1000", "--group", "1000", "--", "sh", "-c", "echo x > /proc/self/fd/1"
    )
    assert reopened.stdout == "x\n"


def test_settings_of_the_kernel(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli(
        "launch", "bb", name, "-c", "linux.sysctl.net.ipv4.ip_forward=1", "-c", "linux.sysctl.kernel.shmmni=222",
        "-c", "linux.sysctl.net/ipv4/conf/eth0/rp_filter=2",
    )  # fmt: skip
    script = "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmni net/ipv4/conf/eth0/rp_filter"
    assert lxpyd.sh(name, script).stdout.split() == ["1", "222", "2"]
    assert pathlib.Path("/proc/sys/kernel/shmmni").read_text().strip() != "222"
    lxpyd.cli("config", "set", name, "linux.sysctl.net.ipv4.no_such=1")
    failed = lxpyd.cli("restart", "-f", name, check=False)
    assert failed.returncode == 1 and "setting linux.sysctl.net.ipv4.no_such=1: No such file" in failed.stderr
    lxpyd.cli("config", "unset", name, "linux.sysctl.net.ipv4.no_such")
    lxpyd.cli("config", "set", name, "security.privileged=true")
    lxpyd.cli("start", name)
    assert lxpyd.sh(name, script).stdout.split() == ["1", "222", "2"]
    assert pathlib.Path("/proc/sys/kernel/shmmni").read_text().strip() != "222"


def test_modules_of_the_kernel(lxpyd: Lxpyd, name: str) -> None:
    there = next(one.name for one in sorted(pathlib.Path("/sys/module").iterdir()) if one.is_dir())
    lxpyd.cli("launch", "bb", name, "-c", f"linux.kernel_modules={there}")
    lxpyd.cli("config", "set", name, f"linux.kernel_modules={there},lxpy_no_such_module")
    failed = lxpyd.cli("restart", "-f", name, check=False)
    assert failed.returncode == 1 and "linux.kernel_modules=lxpy_no_such_module cannot be loaded" in failed.stderr


def test_raw_lxc_is_translated(lxpyd: Lxpyd, name: str) -> None:
    raw = (
        "# what liblxc would be told\nlxc.prlimit.nofile = 111:222\nlxc.sysctl.net.ipv4.ip_forward = 1\n"
        "lxc.environment = COLOUR=blue\nlxc.cap.drop = net_raw CAP_SYS_NICE\nlxc.init.cmd = /sbin/init"
    )
    lxpyd.cli("launch", "bb", name, "-c", f"raw.lxc={raw}")
    assert lxpyd.sh(name, "ulimit -n; cat /proc/sys/net/ipv4/ip_forward").stdout.split() == ["111", "1"]
    assert "COLOUR=blue" in lxpyd.sh(name, "tr '\\0' '\\n' < /proc/1/environ").stdout
    for process in ("1", "self"):
        bounding = int(lxpyd.sh(name, f"grep CapBnd /proc/{process}/status").stdout.split()[1], 16)
        assert not bounding >> 13 & 1 and not bounding >> 23 & 1, process
    assert {"net_raw", "sys_nice"} <= set(
        lxpyd.json("info", "--isolation", name, "-f", "json")["capabilities"]["missing"]
    )


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("raw.lxc=lxc.mount.entry = /srv srv none bind 0 0", "use a disk device"),
        ("raw.lxc=lxc.hook.start = /bin/x", "no programs of the host are run"),
        ("raw.lxc=lxc.idmap = u 0 0 1", "use raw.idmap"),
        ("raw.lxc=hello", "no line of the form"),
        ("raw.lxc=lxc.cap.drop = fly", "no capability 'fly'"),
        ("raw.idmap=both 0 0", "maps root"),
        ("raw.idmap=both 1000-1002 1000-1001", "not of one length"),
        ("raw.idmap=everyone", "no line of the form"),
        ("security.idmap.base=1000", "lower ids are the host's own"),
        ("security.idmap.size=10", "users up to 65534"),
        ("security.idmap.isolated=false", "every instance has an id map of its own"),
        ("security.syscalls.deny=flyaway", "no system call 'flyaway'"),
        ("security.syscalls.deny=mount maybe", "no line of it"),
        ("security.syscalls.intercept.mknod=true", "intercepts no system calls"),
        ("linux.sysctl.vm.swappiness=1", "belongs to the whole host"),
        ("linux.sysctl.net.../../kernel/x=1", "no name of a kernel setting"),
        ("linux.kernel_modules=a b", "no name of a kernel module"),
        ("nvidia.runtime=true", "unix-char"),
        ("migration.incremental.memory=true", "does not move running memory"),
        ("cluster.evacuate=auto", "there are no clusters"),
        ("raw.seccomp=2", "security.syscalls.deny"),
        ("raw.qemu=-x", "virtual machines"),
        ("security.secureboot=true", "virtual machines"),
        ("oci.entrypoint=/x", "no application images"),
        ("limits.memory.oom_priority=5", "the kernel chooses"),
    ],
)
def test_what_is_refused_says_why(lxpyd: Lxpyd, stopped: str, pair: str, words: str) -> None:
    before = lxpyd.instance(stopped)["config"]
    refused = lxpyd.cli("config", "set", stopped, pair, check=False)
    assert refused.returncode == 1 and words in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert "by this version" not in refused.stderr
    assert lxpyd.instance(stopped)["config"] == before


@pytest.fixture(scope="module")
def stopped(lxpyd: Lxpyd) -> str:
    lxpyd.cli("create", "bb", "refusals")
    return "refusals"


def test_what_is_off_anyway_may_be_said(lxpyd: Lxpyd, stopped: str) -> None:
    lxpyd.cli(
        "config", "set", stopped, "security.protection.shift=true", "security.syscalls.intercept.mknod=false",
        "nvidia.runtime=false", "migration.incremental.memory=false", "security.secureboot=false",
    )  # fmt: skip
    lxpyd.cli("start", stopped)
    lxpyd.cli("stop", "-f", stopped)


def test_a_restricted_project_allows_none_of_it(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli(
        "project",
        "create",
        name,
        "-c",
        "restricted=true",
        "-c",
        "features.images=false",
        "-c",
        "features.profiles=false",
    )
    try:
        for pair in ("security.syscalls.deny_default=false", "raw.lxc=lxc.cap.drop = mknod", "raw.idmap=both 1000 1000",
                     "security.idmap.size=100000", "limits.kernel.nofile=9", "linux.kernel_modules=x"):  # fmt: skip
            refused = lxpyd.cli("create", "bb", f"{name}-p", "-c", pair, "--project", name, check=False)
            assert refused.returncode == 1 and "restricted.containers.lowlevel" in refused.stderr, refused.stderr
    finally:
        lxpyd.cli("project", "delete", name)

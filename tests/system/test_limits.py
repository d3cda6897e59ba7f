"""Each limit, run into by a program inside; and what is said of a limit that this host cannot keep."""

import json
import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from lxpy.linux import caps, cgroups
from tests.support.daemon import Lxpyd, until


def _group(lxpyd: Lxpyd, name: str, controller: str) -> pathlib.Path:
    """The cgroup of an instance in whichever hierarchy holds a controller (by its v1 name)."""
    found = cgroups.hierarchies()
    return pathlib.Path(found.v1.get(controller) or found.unified, f"{lxpyd.layout.cgroup_prefix}.payload.{name}")


def _is_v1(controller: str) -> bool:
    return controller in cgroups.hierarchies().v1


def _cpus(lxpyd: Lxpyd, name: str) -> str:
    return lxpyd.sh(name, "grep Cpus_allowed_list /proc/1/status").stdout.split()[1]


def _warnings(lxpyd: Lxpyd, name: str) -> list[str]:
    return [
        one["last_message"] for one in lxpyd.json("query", "/1.0/warnings?recursion=1")
        if one["entity_url"] == f"/1.0/instances/{name}" and one["status"] == "new"
    ]  # fmt: skip


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_is_run_out_of(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.memory=24MiB", "-c", "limits.memory.swap=false")
    # In one system call: a program near its limit reads its own pages again and again instead.
    eater = "dd if=/dev/zero of=/dev/null bs=50M count=1"
    assert lxpyd.sh(name, eater, check=False).returncode == 137
    assert lxpyd.json("query", f"/1.0/instances/{name}/state")["memory"]["oom_kills"] >= 1
    lxpyd.cli("config", "set", name, "limits.memory=200MiB")
    lxpyd.sh(name, eater)


def test_soft_memory_takes_what_is_free(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.memory=1%", "-c", "limits.memory.enforce=soft")
    soft = int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 100)
    file = "memory.soft_limit_in_bytes" if _is_v1("memory") else "memory.high"
    assert soft - 4096 <= int((_group(lxpyd, name, "memory") / file).read_text()) <= soft
    hard = "memory.limit_in_bytes" if _is_v1("memory") else "memory.max"
    assert (_group(lxpyd, name, "memory") / hard).read_text().strip() in ("max", "9223372036854771712")


def test_swap_and_its_priority(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.memory=64MiB", "-c", "limits.memory.swap=false")
    group = _group(lxpyd, name, "memory")
    if _is_v1("memory"):
        assert int((group / "memory.memsw.limit_in_bytes").read_text()) == 64 << 20
        lxpyd.cli("config", "set", name, "limits.memory.swap=true", "limits.memory.swap.priority=3")
        assert (group / "memory.swappiness").read_text().strip() == "67"
        assert int((group / "memory.memsw.limit_in_bytes").read_text()) > 1 << 60
        lxpyd.cli("config", "unset", name, "limits.memory.swap.priority")
        assert (group / "memory.swappiness").read_text().strip() == "60"
    else:
        assert (group / "memory.swap.max").read_text().strip() == "0"
        lxpyd.cli("config", "set", name, "limits.memory.swap=true", "limits.memory.swap.priority=3")
        assert (group / "memory.swap.max").read_text().strip() == "max"
        assert any("limits.memory.swap.priority" in line for line in _warnings(lxpyd, name))


# -- CPUs --------------------------------------------------------------------------------------------------------------


def test_counts_are_spread_over_the_cpus_and_again_when_one_ends(lxpyd: Lxpyd, name: str) -> None:
    names = [f"{name}-{letter}" for letter in "abcd"]
    for one in names:
        lxpyd.cli("launch", "bb", one, "-c", "limits.cpu=1")
    assert [lxpyd.sh(one, "nproc").stdout.strip() for one in names] == ["1"] * 4
    where = [_cpus(lxpyd, one) for one in names]
    few = min(os.cpu_count() or 1, 4)
    assert len(set(where)) == few, where
    # Two of one CPU go: one of the others moves over.
    same = [one for one, cpu in zip(names, where, strict=True) if cpu == where[0]]
    for one in same:
        lxpyd.cli("stop", "-f", one)
    left = [one for one in names if one not in same]
    assert len({_cpus(lxpyd, one) for one in left}) == min(few, len(left))
    # A set that is pinned makes the others yield; a daemon that was killed shares out no other way.
    pinned = _cpus(lxpyd, left[0])
    before = {one: _cpus(lxpyd, one) for one in left}
    lxpyd.restart(kill=True)
    assert {one: _cpus(lxpyd, one) for one in left} == before
    lxpyd.cli("config", "set", left[1], f"limits.cpu={pinned}-{pinned}")
    assert _cpus(lxpyd, left[1]) == pinned
    assert (_cpus(lxpyd, left[0]) != pinned) == (few > 1)


def test_nodes_and_cpus_that_there_are_not(lxpyd: Lxpyd, name: str) -> None:
    there = pathlib.Path("/sys/devices/system/node/node0/cpulist").read_text().strip()
    lxpyd.cli("launch", "bb", name, "-c", "limits.cpu.nodes=0")
    assert _cpus(lxpyd, name) == there
    refused = lxpyd.cli("config", "set", name, "limits.cpu.nodes=900", check=False)
    assert refused.returncode == 1 and "this host has no NUMA node 900" in refused.stderr
    assert lxpyd.out("config", "get", name, "limits.cpu.nodes") == "0"
    refused = lxpyd.cli("config", "set", name, "limits.cpu=0,4000", check=False)
    assert "CPU 4000 is not in limits.cpu.nodes=0" in refused.stderr
    assert _cpus(lxpyd, name) == there


@pytest.mark.parametrize("pair", ["limits.cpu.allowance=10%", "limits.cpu.priority=0"])
def test_who_gets_a_busy_cpu(lxpyd: Lxpyd, name: str, pair: str) -> None:
    names = (f"{name}-a", f"{name}-b")
    burners = []
    for one in names:
        lxpyd.cli("launch", "bb", one, "-c", "limits.cpu=0-0", *(["-c", pair] if one == names[1] else []))
        burners.append(lxpyd.spawn("exec", one, "-n", "-T", "--", "sh", "-c", "while :; do :; done"))

    def used() -> list[int]:
        return [lxpyd.json("query", f"/1.0/instances/{one}/state")["cpu"]["usage"] for one in names]

    until(lambda: min(used()) > 5_000_000, 10, "they do not run")
    before = used()
    until(lambda: used()[0] - before[0] > 600_000_000, 20, "the first gets nothing")
    first, second = (now - then for now, then in zip(used(), before, strict=True))
    assert first > 4 * second, (first, second)  # 9 or 10 times as much, were nobody else here
    lxpyd.cli("config", "unset", names[1], pair.partition("=")[0])
    file = "cpu.shares" if _is_v1("cpu") else "cpu.weight"
    assert len({(_group(lxpyd, one, "cpu") / file).read_text() for one in names}) == 1
    for one, burner in zip(names, burners, strict=True):
        lxpyd.cli("delete", "-f", one)
        burner.communicate(timeout=10)


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def btrfs_pool(lxpyd: Lxpyd) -> Iterator[str]:
    lxpyd.cli("storage", "create", "fast", "btrfs", "size=300MiB")
    yield "fast"
    lxpyd.cli("storage", "delete", "fast")


def _seconds(lxpyd: Lxpyd, name: str, dd: str) -> float:
    start = time.monotonic()
    lxpyd.sh(name, f"dd {dd} 2>/dev/null")
    return time.monotonic() - start


@pytest.mark.parametrize("pool", ["default", "plain", "btrfs"])
def test_a_root_disk_is_as_fast_as_it_may(lxpyd: Lxpyd, name: str, pool: str, request: pytest.FixtureRequest) -> None:
    pool = request.getfixturevalue("btrfs_pool") if pool == "btrfs" else pool
    lxpyd.cli("launch", "bb", name, "-s", pool)
    write = "if=/dev/zero of=/root/f bs=64k count=20 oflag=direct conv=fsync"
    read = "if=/root/f of=/dev/null bs=64k iflag=direct"
    lxpyd.sh(name, f"dd {write}")
    lxpyd.cli("config", "device", "set", name, "root", "limits.max=1MiB")
    assert _seconds(lxpyd, name, write) > 1
    assert _seconds(lxpyd, name, read) > 1
    lxpyd.cli("config", "device", "unset", name, "root", "limits.max")
    lxpyd.cli("config", "device", "set", name, "root", "limits.read=15iops")
    assert _seconds(lxpyd, name, read) > 1
    assert _seconds(lxpyd, name, write) < 1
    # Written down: the next daemon and the next start have it, too.
    lxpyd.cli("restart", "-f", name)
    assert _seconds(lxpyd, name, read) > 1
    lxpyd.cli("config", "device", "unset", name, "root", "limits.read")
    assert _seconds(lxpyd, name, read) < 1


def test_disks_with_limits_come_and_go(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    lxpyd.cli("launch", "bb", name)
    shared = tmp_path / "shared"
    shared.mkdir()
    add = ("config", "device", "add", name)
    lxpyd.cli(*add, "work", "disk", f"source={shared}", "path=/work", "limits.write=30iops")
    write = "if=/dev/zero of=/work/f bs=4k count=50 oflag=direct"
    assert _seconds(lxpyd, name, write) > 1.2
    lxpyd.cli("config", "device", "remove", name, "work")
    lxpyd.cli(*add, "work", "disk", f"source={shared}", "path=/work")
    assert _seconds(lxpyd, name, write) < 1.2
    # The file systems of memory have no disk behind them.
    refused = lxpyd.cli(*add, "shm", "disk", "source=/dev/shm", "path=/shm", "limits.max=1MB", check=False)
    assert refused.returncode == 1
    assert "'shm' cannot be limited: it lies on no block device (/dev/shm); remove its limits.*" in refused.stderr
    assert "shm" not in lxpyd.out("config", "device", "list", name)
    assert lxpyd.sh(name, "mount").stdout.count("/shm") == 1  # its own


def test_the_priority_of_a_disk_is_weighed_or_spoken_of(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli("launch", "bb", name, "-c", "limits.disk.priority=8")
    group = _group(lxpyd, name, "blkio")
    weights = [one.read_text() for one in group.glob("*.weight") if one.name.startswith(("io", "blkio"))]
    assert all("160" in one or "800" in one for one in weights)
    # The files alone mean nothing: a disk has to be scheduled by them.
    schedulers = [one.read_text() for one in pathlib.Path("/sys/block").glob("*/queue/scheduler")]
    costs = [
        one for one in pathlib.Path(cgroups.hierarchies().unified).glob("io.cost.qos") if "enable=1" in one.read_text()
    ]
    weighed = bool(weights) and (any("[bfq]" in one for one in schedulers) or bool(costs))
    said = [line for line in _warnings(lxpyd, name) if "limits.disk.priority" in line]
    assert bool(said) != weighed
    assert ("Not kept on this host: limits.disk.priority" in lxpyd.out("info", name)) != weighed
    lxpyd.cli("config", "unset", name, "limits.disk.priority")
    assert not _warnings(lxpyd, name)


# -- huge pages, processes, resource limits ----------------------------------------------------------------------------

_HUGE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
int main(int argc, char **argv) {
    size_t size = atol(argv[1]) * 2 << 20;
    char *m = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (m == MAP_FAILED) { perror("mmap"); return 1; }
    for (size_t i = 0; i < size; i += 4096) m[i] = 1;
    puts("had");
    return 0;
}
"""


@pytest.fixture
def huge_pages() -> Iterator[None]:
    """Four of 2 MiB on the host."""
    knob = pathlib.Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    before = int(knob.read_text())
    knob.write_text(str(before + 4))
    yield
    knob.write_text(str(before))


@pytest.mark.usefixtures("huge_pages")
def test_huge_pages(lxpyd: Lxpyd, name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "huge.c").write_text(_HUGE)
    subprocess.run(["gcc", "-static", "-O1", "-o", tmp_path / "huge", tmp_path / "huge.c"], check=True)
    lxpyd.cli("launch", "bb", name, "-c", "limits.hugepages.2MB=2MiB")
    lxpyd.cli("config", "device", "add", name, "tools", "disk", f"source={tmp_path}", "path=/tools")
    assert lxpyd.sh(name, "/tools/huge 1").stdout == "had\n"
    refused = lxpyd.sh(name, "/tools/huge 2", check=False)
    assert refused.returncode == 1 and "Cannot allocate memory" in refused.stderr
    lxpyd.cli("config", "set", name, "limits.hugepages.2MB=4MiB")
    assert lxpyd.sh(name, "/tools/huge 2").stdout == "had\n"
    lxpyd.cli("config", "unset", name, "limits.hugepages.2MB")
    assert lxpyd.sh(name, "/tools/huge 3").stdout == "had\n"
    lxpyd.cli("config", "set", name, "limits.hugepages.1GB=1GiB")
    refused = lxpyd.cli("config", "set", name, "limits.hugepages.2MB=3MB", check=False)
    assert "no whole number of pages" in refused.stderr


def test_resource_limits_hold_for_init_and_for_commands(lxpyd: Lxpyd, name: str) -> None:
    lxpyd.cli(
        "launch", "bb", name, "-c", "limits.kernel.nofile=50:200", "-c", "limits.kernel.fsize=1000000",
        "-c", "limits.kernel.core=0",
    )  # fmt: skip
    of_init = lxpyd.sh(name, "cat /proc/1/limits").stdout
    for words in ("Max open files 50 200", "Max file size 1000000 1000000", "Max core file size 0 0"):
        assert words in " ".join(of_init.split()), of_init
    assert lxpyd.sh(name, "ulimit -n; ulimit -Hn").stdout.split() == ["50", "200"]
    script = 'exec 2>&1; i=3; while [ $i -lt 99 ]; do eval "exec $i</dev/null" || exit; i=$((i+1)); done; echo all'
    assert "all" not in lxpyd.sh(name, script, check=False).stdout
    big = "dd if=/dev/zero of=/root/big bs=100k count=20"
    assert lxpyd.sh(name, big, check=False).returncode != 0
    assert int(lxpyd.sh(name, "stat -c %s /root/big").stdout) == 1_000_000
    # From the next start on; commands have what their init has.
    lxpyd.cli("config", "set", name, "limits.kernel.nofile=70")
    assert lxpyd.sh(name, "ulimit -n").stdout.strip() == "50"
    lxpyd.restart(kill=True)
    assert lxpyd.sh(name, "ulimit -n").stdout.strip() == "50"
    lxpyd.cli("restart", "-f", name)
    assert lxpyd.sh(name, "ulimit -n; ulimit -Hn").stdout.split() == ["70", "70"]


def test_a_resource_limit_above_roots_own(lxpyd: Lxpyd, name: str) -> None:
    """Without CAP_SYS_RESOURCE nobody raises what he has himself."""
    own = int(subprocess.run(["bash", "-c", "ulimit -Hn"], capture_output=True, text=True, check=True).stdout)
    lxpyd.cli("launch", "bb", name, "-c", f"limits.kernel.nofile={own + 1}")
    said = [line for line in _warnings(lxpyd, name) if "limits.kernel.nofile" in line]
    if caps.effective() >> caps.SYS_RESOURCE & 1:
        assert not said and lxpyd.sh(name, "ulimit -Hn").stdout.strip() == str(own + 1)
    else:
        assert "has no CAP_SYS_RESOURCE" in said[0] and lxpyd.sh(name, "ulimit -Hn").stdout.strip() == str(own)


# -- network -----------------------------------------------------------------------------------------------------------


def test_the_priority_of_an_instances_packets(lxpyd: Lxpyd, name: str) -> None:
    """By the rules of its nics, whatever the version of cgroups is; a nic's own priority comes first."""
    profile = f"{name}-p"
    lxpyd.cli("profile", "create", profile)
    lxpyd.cli("launch", "bb", name, "-p", "default", "-p", profile)
    lxpyd.wait_address(name)
    rule = "add rule inet lxtp in meta priority 0:{0} icmp type echo-request counter"
    script = "add table inet lxtp; add chain inet lxtp in {{ type filter hook input priority 0; }}; " + rule
    try:
        subprocess.run(["nft", f"{script.format(7)}; {rule.format(4)}"], check=True)

        def counted() -> list[int]:
            listing = subprocess.run(["nft", "-j", "list", "table", "inet", "lxtp"], capture_output=True, check=True)
            rules = [one["rule"]["expr"] for one in json.loads(listing.stdout)["nftables"] if "rule" in one]
            return [part["counter"]["packets"] for expression in rules for part in expression if "counter" in part]

        ping = f"ping -c 1 {lxpyd.address}"
        lxpyd.sh(name, ping)
        assert counted() == [0, 0]
        lxpyd.cli("profile", "set", profile, "limits.network.priority=7")
        lxpyd.sh(name, ping)
        assert counted() == [1, 0]
        lxpyd.cli("config", "device", "override", name, "eth0", "limits.priority=4")
        lxpyd.sh(name, ping)
        assert counted() == [1, 1]
        lxpyd.cli("config", "device", "remove", name, "eth0")
        lxpyd.cli("profile", "unset", profile, "limits.network.priority")
        lxpyd.wait_address(name)
        lxpyd.sh(name, ping)
        assert counted() == [1, 1]
    finally:
        subprocess.run(["nft", "delete table inet lxtp"], check=False)
        lxpyd.cli("delete", "-f", name)
        lxpyd.cli("profile", "delete", profile)


def test_a_profile_changes_all_or_none(lxpyd: Lxpyd, name: str) -> None:
    profile, names = f"{name}-p", [f"{name}-a", f"{name}-b"]
    lxpyd.cli("profile", "create", profile)
    try:
        for one in names:
            lxpyd.cli("launch", "bb", one, "-p", "default", "-p", profile)

        def given() -> list[str]:
            return [(_group(lxpyd, one, "pids") / "pids.max").read_text().strip() for one in names]

        lxpyd.cli("profile", "set", profile, "limits.processes=44", "limits.cpu=1")
        assert given() == ["44", "44"] and [lxpyd.sh(one, "nproc").stdout.strip() for one in names] == ["1", "1"]
        assert len({_cpus(lxpyd, one) for one in names}) == min(2, os.cpu_count() or 1)
        refused = lxpyd.cli("profile", "set", profile, "limits.processes=55", "limits.cpu.nodes=900", check=False)
        assert refused.returncode == 1 and "no NUMA node 900" in refused.stderr
        assert given() == ["44", "44"] and "55" not in lxpyd.out("profile", "show", profile)
    finally:
        lxpyd.cli("delete", "-f", *names)
        lxpyd.cli("profile", "delete", profile)


# -- bad values --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pair", "word"),
    [
        ("limits.cpu.priority=11", "no priority, 0 to 10"),
        ("limits.disk.priority=high", "no priority, 0 to 10"),
        ("limits.network.priority=-1", "no priority, 0 to 10"),
        ("limits.cpu.nodes=x", "not a CPU set"),
        ("limits.hugepages.3MB=3MB", "limits.hugepages"),
        ("limits.kernel.nofile=many", "SOFT:HARD"),
        ("limits.kernel.nofile=9:8", "above the hard one"),
        ("limits.kernel.nofile=unlimited:8", "above the hard one"),
        ("limits.kernel.files=9", "limits.kernel."),
    ],
)
def test_values_that_mean_nothing(lxpyd: Lxpyd, busybox: str, pair: str, word: str) -> None:
    before = lxpyd.instance(busybox)["config"]
    refused = lxpyd.cli("config", "set", busybox, pair, check=False)
    assert refused.returncode == 1 and word in refused.stderr and refused.stderr.count("\n") == 1, refused.stderr
    assert lxpyd.instance(busybox)["config"] == before


@pytest.mark.parametrize("value", ["fast", "0", "10MB/h", "-1iops", "1 2iops"])
def test_rates_that_are_none(lxpyd: Lxpyd, busybox: str, value: str) -> None:
    command = ("config", "device", "override", busybox, "root", f"limits.read={value}")
    refused = lxpyd.cli(*command, check=False)
    assert refused.returncode == 1 and ("is no rate" in refused.stderr or "not a size" in refused.stderr)
    both = lxpyd.cli(*command[:-1], "limits.read=1MB", "limits.max=1MB", check=False)
    assert "limits.max stands for both" in both.stderr

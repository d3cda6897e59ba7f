"""Limits and isolation on pure cgroup v2: the files are others than on v1, what a program inside meets is the same."""

import json

import pytest

from tests.vm.conftest import Vm

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2400)]

_GROUP = "/sys/fs/cgroup/lxpy.payload.limited"


@pytest.fixture(scope="module")
def limited(vm: Vm) -> str:
    vm.run("lxpy launch builtin:busybox limited -c limits.kernel.nofile=50:200")
    return "limited"


def test_memory(vm: Vm, limited: str) -> None:
    vm.run("lxpy config set limited limits.memory=50MiB limits.memory.swap=false")
    assert vm.run(f"cd {_GROUP} && cat memory.max memory.swap.max").split() == [str(50 << 20), "0"]
    assert "rc 137" in vm.run(
        "lxpy exec limited -- sh -c 'dd if=/dev/zero of=/dev/null bs=200M count=1; echo rc $?' 2>&1"
    )
    vm.run("lxpy config set limited limits.memory.enforce=soft limits.memory.swap= limits.memory.swap.priority=2")
    assert vm.run(f"cd {_GROUP} && cat memory.max memory.high memory.swap.max").split() == ["max", str(50 << 20), "max"]
    assert "limits.memory.swap.priority (cgroup v2" in vm.run("lxpy info limited")
    vm.run("lxpy config set limited limits.memory= limits.memory.enforce= limits.memory.swap.priority=")
    assert "limits.memory" not in vm.run("lxpy info limited; lxpy warning list -f csv | grep limited || true")


def test_processors(vm: Vm, limited: str) -> None:
    vm.run("lxpy config set limited limits.cpu=0-0 limits.cpu.allowance=20% limits.cpu.nodes=0")
    assert vm.run(f"cd {_GROUP} && cat cpuset.cpus cpu.weight").split() == ["0", "20"]
    vm.run("lxpy config set limited limits.cpu.allowance= limits.cpu.priority=0")
    assert vm.run(f"cat {_GROUP}/cpu.weight") in ("10", "11")
    vm.run("lxpy config set limited limits.cpu= limits.cpu.priority= limits.cpu.nodes=")
    assert vm.run(f"cat {_GROUP}/cpu.weight") == "100"


def test_disks(vm: Vm, limited: str) -> None:
    """Also what is written without O_DIRECT, which v1 cannot hold back."""
    vm.run("lxpy config device override limited root limits.write=1MiB limits.read=300iops")
    line = vm.run(f"cat {_GROUP}/io.max")
    assert "wbps=1048576" in line and "riops=300" in line
    write = "rm -f /root/f; dd if=/dev/zero of=/root/f bs=1M count=8 conv=fsync 2>/dev/null"
    script = f"read a b < /proc/uptime; {write}; read c d < /proc/uptime; echo $a $c"
    first, last = vm.run(f"lxpy exec limited -- sh -c '{script}'").split()
    assert float(last) - float(first) > 5
    vm.run("lxpy config device remove limited root")
    assert vm.run(f"cat {_GROUP}/io.max") == ""


def test_processes_huge_pages_and_resource_limits(vm: Vm, limited: str) -> None:
    vm.run("lxpy config set limited limits.processes=30 limits.hugepages.2MB=4MiB")
    assert vm.run(f"cd {_GROUP} && cat pids.max hugetlb.2MB.max hugetlb.2MB.rsvd.max").split() == [
        "30",
        *[str(4 << 20)] * 2,
    ]
    vm.run("lxpy config set limited limits.processes= limits.hugepages.2MB=")
    assert vm.run(f"cd {_GROUP} && cat pids.max hugetlb.2MB.max").split() == ["max", "max"]
    assert vm.run("lxpy exec limited -- sh -c 'ulimit -n; ulimit -Hn'").split() == ["50", "200"]
    # Root may raise it here, but not beyond what the kernel gives anybody.
    vm.run("lxpy config set limited limits.kernel.nofile=2000000 && lxpy restart -f limited")
    assert vm.run("lxpy exec limited -- sh -c 'ulimit -n'") == vm.run("cat /proc/sys/fs/nr_open")
    assert "fs.nr_open" in vm.run("lxpy info limited")


def test_isolation_and_use(vm: Vm, limited: str) -> None:
    found = json.loads(vm.run("lxpy info --isolation limited -f json"))
    assert [one["version"] for one in found["cgroups"]] == [2] and "memory" in found["cgroups"][0]["controllers"]
    assert found["apparmor"].startswith("lxpy") and not any(
        one["host"] for one in found["namespaces"] if one["name"] != "time"
    )
    rows = {one["name"]: one for one in json.loads(vm.run("lxpy top -f json -d 1"))}
    assert rows["limited"]["memory"] > 0 and rows["limited"]["processes"] > 1
    assert rows["limited"]["disk_written"] >= 0
    vm.run("lxpy delete -f limited")

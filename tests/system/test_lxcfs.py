"""With lxcfs, programs inside see the memory, CPUs and uptime of their instance and not the host's."""

import os
import pathlib
import subprocess
import time
from collections.abc import Iterator

import pytest

from lxpy.api.layout import Layout
from lxpy.host import checks
from tests.support import leftovers, namespace
from tests.support.daemon import Lxpyd, until

_PLACE = "/var/lib/lxcfs"


@pytest.fixture(scope="module")
def with_lxcfs() -> Iterator[tuple[Lxpyd, subprocess.Popen[bytes]]]:
    """A daemon in a mount and network namespace of its own, in which lxcfs is mounted; and lxcfs."""
    os.makedirs(_PLACE, exist_ok=True)
    with namespace.own_network():
        holder = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sleep", "infinity"])
        inside = ["nsenter", "-t", str(holder.pid), "--mount"]
        until(lambda: os.readlink(f"/proc/{holder.pid}/ns/mnt") != os.readlink("/proc/self/ns/mnt"), 5, "no namespace")
        # Copies of what other tests have mounted would keep their loop devices from going.
        copied = [line.split()[4] for line in pathlib.Path(f"/proc/{holder.pid}/mountinfo").read_text().splitlines()]
        for target in reversed([one for one in copied if one.startswith("/var/tmp/lxpy-t-")]):
            subprocess.run([*inside, "umount", "-l", target], check=True)
        pidfile = namespace.path("lxcfs.pid")
        lxcfs = subprocess.Popen(
            [*inside, "lxcfs", "-f", "-p", str(pidfile), _PLACE], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        daemon = Lxpyd("l", int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) + 230)
        daemon.prefix = inside
        try:
            mounted = f"/proc/{holder.pid}/mountinfo"
            until(lambda: f" {_PLACE} " in pathlib.Path(mounted).read_text(), 10, "lxcfs does not come up")
            daemon.start()
            daemon.initialise()
            yield daemon, lxcfs
            daemon.destroy()
        finally:
            lxcfs.terminate()
            lxcfs.wait(10)
            holder.kill()
            holder.wait()
        leftovers.check(daemon)


def _memory(lxpyd: Lxpyd, name: str) -> list[int]:
    """Total and used kilobytes, from where procps' `free` and `top` have them (busybox's `free` asks sysinfo(2))."""

    def read() -> dict[str, int]:
        lines = (line.split() for line in lxpyd.sh(name, "cat /proc/meminfo").stdout.splitlines())
        found = {line[0]: int(line[1]) for line in lines if line[2:] == ["kB"]}
        return found if {"MemTotal:", "MemAvailable:"} <= found.keys() else {}

    # lxcfs cuts what has become longer since it was opened.
    found = until(read, 5, "no whole reading of /proc/meminfo")
    return [found["MemTotal:"], found["MemTotal:"] - found["MemAvailable:"]]


def test_programs_inside_see_their_own(with_lxcfs: tuple[Lxpyd, subprocess.Popen[bytes]]) -> None:
    lxpyd, _ = with_lxcfs
    lxpyd.cli("launch", "bb", "inside", "-c", "limits.memory=200MiB", "-c", "limits.cpu=1")
    total, used = _memory(lxpyd, "inside")
    assert total == 200 << 10 and used < 100 << 10
    assert lxpyd.sh("inside", "nproc").stdout.strip() == "1"
    assert lxpyd.sh("inside", "grep -c ^processor /proc/cpuinfo").stdout.strip() == "1"
    assert lxpyd.sh("inside", "grep -c '^cpu[0-9]' /proc/stat").stdout.strip() == "1"
    assert (
        lxpyd.sh("inside", "cat /sys/devices/system/cpu/online").stdout.strip()
        == (lxpyd.sh("inside", "grep Cpus_allowed_list /proc/self/status").stdout.split()[1])
    )
    # It has been up for as long as it runs, not as long as the host.
    time.sleep(1)
    assert float(lxpyd.sh("inside", "cat /proc/uptime").stdout.split()[0]) < 60
    assert "load average" in lxpyd.sh("inside", "uptime").stdout
    shown = lxpyd.sh("inside", "top -b -n 1").stdout
    assert "init" in shown
    # What changes while it runs is seen at once.
    lxpyd.cli("config", "set", "inside", "limits.memory=300MiB")
    assert _memory(lxpyd, "inside")[0] == 300 << 10
    mib = 60
    eater = lxpyd.spawn("exec", "inside", "-n", "-T", "--", "sh", "-c", f"dd if=/dev/zero bs={mib}M count=1 | sleep 20")
    until(lambda: _memory(lxpyd, "inside")[1] > used + (mib << 10) // 2, 10, "what is used does not show")
    lxpyd.cli("delete", "-f", "inside")
    eater.communicate(timeout=10)


def test_lxcfs_outlives_the_daemon_and_its_death_is_told(with_lxcfs: tuple[Lxpyd, subprocess.Popen[bytes]]) -> None:
    lxpyd, lxcfs = with_lxcfs
    lxpyd.cli("launch", "bb", "inside", "-c", "limits.memory=200MiB")
    lxpyd.restart(kill=True)
    assert _memory(lxpyd, "inside")[0] == 200 << 10
    assert "not mounted" not in lxpyd.cli("doctor", check=False).stdout
    lxcfs.kill()  # its mount stays, and nobody answers
    lxcfs.wait(10)
    assert "lxcfs has died" in lxpyd.cli("doctor", check=False).stdout
    # What starts now has the host's files, and runs.
    lxpyd.cli("restart", "-f", "inside")
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 10
    assert abs(_memory(lxpyd, "inside")[0] - host) < host / 10
    lxpyd.cli("delete", "-f", "inside")


def test_doctor_tells_when_it_is_not_mounted(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    monkeypatch.setattr(checks, "_LXCFS", str(tmp_path))
    findings = {one.id: one for one in checks.everything(Layout(str(tmp_path)))}
    assert findings["tool.lxcfs"].status == checks.OK
    assert findings["tool.lxcfs.mounted"].status == checks.NOTE
    assert "lxcfs" in findings["tool.lxcfs.mounted"].todo

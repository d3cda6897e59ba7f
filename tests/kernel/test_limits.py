"""Limits that bite, change while the guest runs, and freezing."""

import asyncio
import os
import time

from lxpy.linux import cgroups
from tests.kernel.conftest import Guest, Lab


async def test_processes(lab: Lab) -> None:
    guest = await lab.start(limits={"processes": 20})
    done = await guest.run("sh", "-c", "i=0; while [ $i -lt 40 ]; do sleep 5 & i=$((i+1)); done; wait")
    assert b"fork" in done.err, done
    await guest.stop()


async def test_memory(lab: Lab) -> None:
    guest = await lab.start(limits={"memory": 24 << 20, "swap": False})
    done = await guest.run("sh", "-c", "head -c 60000000 /dev/zero | tail -c 50000000 > /dev/null; exit $?")
    assert guest.cgroup.oom_kills() >= 1, done
    assert await guest.sh("echo alive") == "alive"


async def test_cpu_quota_and_live_change(lab: Lab) -> None:
    guest = await lab.start(limits={"cpu_quota": (10_000, 100_000)})
    burner = asyncio.create_task(guest.run("sh", "-c", "while :; do :; done"))

    async def share(seconds: float) -> float:
        before, t = guest.cgroup.usage()["cpu_ns"], time.monotonic()
        await asyncio.sleep(seconds)
        return (guest.cgroup.usage()["cpu_ns"] - before) / (time.monotonic() - t) / 1e9

    def throttled() -> int:
        return cgroups.read_keyed(f"{guest.cgroup.v1('cpu') or guest.cgroup.unified}/cpu.stat")["nr_throttled"]

    for _ in range(20):  # others use this machine, too: the guest may have to wait for its tenth of a processor
        assert await share(1.0) < 0.15
        if throttled():
            break
    assert throttled()
    guest.cgroup.apply({})
    shares = []
    while len(shares) < 20 and max(shares, default=0) < 0.15:
        shares.append(await share(1.0))
    assert max(shares) >= 0.15, shares
    await guest.stop()
    await burner


async def test_all_limits_live(guest: Guest) -> None:
    guest.cgroup.apply(
        {
            "memory": 64 << 20,
            "swap": False,
            "cpuset": "0",
            "cpu_quota": (50_000, 100_000),
            "cpu_shares": 512,
            "processes": 50,
        }
    )
    assert "Cpus_allowed_list:\t0" in await guest.sh("cat /proc/1/status")
    guest.cgroup.apply({"memory": 32 << 20})
    guest.cgroup.apply({"memory": 128 << 20, "memory_soft": True})
    guest.cgroup.apply({})
    usage = guest.cgroup.usage()
    assert usage["processes"] >= 2
    assert usage["cpu_ns"] > 0
    assert 0 < usage["memory"] < 64 << 20
    assert usage["memory_peak"] >= usage["memory"]
    if (os.cpu_count() or 1) > 1:
        assert "Cpus_allowed_list:\t0\n" not in await guest.sh("cat /proc/1/status")


async def test_freeze_and_thaw(guest: Guest) -> None:
    ticker = asyncio.create_task(guest.run("sh", "-c", "while :; do echo x >> /tmp/ticks; sleep 0.01; done"))
    path = f"/proc/{guest.supervisor.init_pid}/root/tmp/ticks"

    async def longer(than: int) -> bool:
        for _ in range(1000):
            if os.path.exists(path) and os.stat(path).st_size > than:
                return True
            await asyncio.sleep(0.01)
        return False

    assert await longer(0)
    guest.cgroup.freeze()
    assert guest.cgroup.frozen()
    size = os.stat(path).st_size
    await asyncio.sleep(0.15)
    assert os.stat(path).st_size == size
    guest.cgroup.thaw()
    assert await longer(size)
    # A frozen guest can be killed.
    guest.cgroup.freeze()
    assert (await guest.stop()).reason == "signal"
    await ticker

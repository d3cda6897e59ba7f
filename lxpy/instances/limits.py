"""From ``limits.*`` to what the kernel is told, and which CPUs an instance with a CPU count gets."""

import os
from collections.abc import Iterable

from lxpy.api import values
from lxpy.api.objects import Config
from lxpy.runtime.spec import Limits


def host_memory() -> int:
    """Bytes of memory of the host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def from_config(config: Config, taken: Iterable[str] = ()) -> Limits:
    """The limits of an instance.

    Args:
        config: expanded configuration.
        taken: the cpusets of the other running instances that were chosen by count: the least used CPUs come first.
    """
    limits: Limits = {}
    if memory := config.get("limits.memory"):
        if memory.endswith("%"):
            limits["memory"] = host_memory() * int(memory[:-1]) // 100
        else:
            limits["memory"] = values.size_bytes("limits.memory", memory)
        limits["memory_soft"] = config.get("limits.memory.enforce") == "soft"
        limits["swap"] = values.boolean("limits.memory.swap", config.get("limits.memory.swap") or "true")
    if cpu := config.get("limits.cpu"):
        limits["cpuset"] = choose_cpus(int(cpu), taken) if cpu.isdigit() else cpu
    if allowance := config.get("limits.cpu.allowance"):
        if allowance.endswith("%"):
            # LXD: a percentage is a share of the CPU when it is contended; 1024 is a full one.
            limits["cpu_shares"] = max(2, 1024 * int(allowance[:-1]) // 100)
        else:
            quota, period = allowance.split("/")
            limits["cpu_quota"] = (int(quota[:-2]) * 1000, int(period[:-2]) * 1000)
    if processes := config.get("limits.processes"):
        limits["processes"] = int(processes)
    return limits


def choose_cpus(count: int, taken: Iterable[str]) -> str:
    """`count` CPUs of those this host has, the least used first; all of them when there are no more."""
    online = sorted(os.sched_getaffinity(0))
    load = dict.fromkeys(online, 0)
    for cpuset in taken:
        for cpu in values.cpu_set("cpuset", cpuset):
            if cpu in load:
                load[cpu] += 1
    chosen = sorted(online, key=lambda cpu: (load[cpu], cpu))[:count]
    return ",".join(str(cpu) for cpu in sorted(chosen))

"""From ``limits.*`` to what the kernel is told: cgroups, resource limits, disks. CPUs are chosen in `cpus`."""

import os
import re

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.api.objects import Config, Devices
from lxpy.linux import blockdev, caps, libc
from lxpy.linux.libc import RLIMITS
from lxpy.runtime.spec import Limits, Throttle

PAGE_SIZES = {"64KB": 64 << 10, "1MB": 1 << 20, "2MB": 2 << 20, "1GB": 1 << 30}  # bytes by the kernel's name
_NR_OPEN = 1048576  # fs.nr_open is at least this
_DISK_LIMITS = {"limits.read": ("r",), "limits.write": ("w",), "limits.max": ("r", "w")}


def host_memory() -> int:
    """Bytes of memory of the host."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def from_config(config: Config) -> Limits:
    """The limits of an instance but its CPUs and disks, from expanded configuration."""
    limits: Limits = {}
    if memory := config.get("limits.memory"):
        limits["memory"] = memory_bytes(memory)
        limits["memory_soft"] = config.get("limits.memory.enforce") == "soft"
    if (swap := config.get("limits.memory.swap")) or memory:
        limits["swap"] = values.boolean("limits.memory.swap", swap or "true")
    if (priority := config.get("limits.memory.swap.priority")) and limits.get("swap", True):
        # LXD: 10, the highest, is the kernel's usual 60; the lower, the sooner it is swapped out.
        limits["swappiness"] = 70 - int(priority)
    if shares := _cpu_shares(config):
        limits["cpu_shares"] = shares
    allowance = config.get("limits.cpu.allowance", "")
    if "/" in allowance:
        quota, period = allowance.split("/")
        limits["cpu_quota"] = (int(quota[:-2]) * 1000, int(period[:-2]) * 1000)
    if processes := config.get("limits.processes"):
        limits["processes"] = int(processes)
    if priority := config.get("limits.disk.priority"):
        limits["io_weight"] = max(1, int(priority) * 20)  # 5, the middle, is the kernel's usual 100
    pages = {size: config[f"limits.hugepages.{size}"] for size in PAGE_SIZES if config.get(f"limits.hugepages.{size}")}
    if pages:
        limits["hugepages"] = {size: values.size_bytes("size", value) for size, value in pages.items()}
    return limits


def memory_bytes(value: str) -> int:
    """Bytes of a ``limits.memory``, percent of the host's included."""
    if value.endswith("%"):
        return host_memory() * int(value[:-1]) // 100
    return values.size_bytes("limits.memory", value)


def _cpu_shares(config: Config) -> int:
    """Of 1024; 0 where nothing says anything.

    LXD: a percentage is a share of the CPU when it is contended. A priority below 10 takes away: LXD some thousandths,
    which nothing notices; here each step is one of `nice`, a factor of 1.25 (kernel/sched/core.c).
    """
    allowance, priority = config.get("limits.cpu.allowance", ""), config.get("limits.cpu.priority", "")
    if not allowance.endswith("%") and not priority:
        return 0
    shares = 1024 * int(allowance[:-1]) / 100 if allowance.endswith("%") else 1024.0
    return max(2, round(shares / 1.25 ** (10 - int(priority or 10))))


# -- resource limits ---------------------------------------------------------------------------------------------------


def check_rlimit(key: str, value: str) -> tuple[int, int]:
    """Soft and hard limit of a ``limits.kernel.*`` key; -1: none. Raises `BadRequest`."""
    name = key.removeprefix("limits.kernel.")
    if name not in RLIMITS:
        raise BadRequest(f"Unknown configuration key {key!r}: there is limits.kernel.{{{','.join(sorted(RLIMITS))}}}")
    parts = value.split(":")
    if len(parts) > 2 or not all(re.fullmatch(r"\d{1,18}|unlimited", part) for part in parts):
        raise BadRequest(f"Invalid value for {key}: {value!r} is no number, unlimited, or SOFT:HARD of them")
    soft, hard = (-1 if part == "unlimited" else int(part) for part in (parts * 2)[:2])
    if hard != -1 and (soft == -1 or soft > hard):
        raise BadRequest(f"Invalid value for {key}: the soft limit {parts[0]} is above the hard one {parts[-1]}")
    if name == "nofile" and hard == -1:
        soft, hard = (_NR_OPEN if number == -1 else number for number in (soft, hard))  # the kernel knows no infinity
    return soft, hard


def rlimits(config: Config) -> tuple[dict[str, tuple[int, int]], list[str]]:
    """The resource limits of an instance's init, and those that this host cannot give as asked, each as "KEY (why)".

    They are as high as root's own where root may not raise those.
    """
    found, less = {}, []
    raising = bool(caps.effective() >> caps.SYS_RESOURCE & 1)
    for key, value in config.items():
        if not key.startswith("limits.kernel.") or not value:
            continue
        name = key.removeprefix("limits.kernel.")
        soft, hard = check_rlimit(key, value)
        if name == "nofile" and hard > (most := _nr_open()):
            less.append(f"{key} (no process may have more than fs.nr_open={most}; raise that by sysctl)")
            soft, hard = min(soft, most), most
        own = libc.rlimit(RLIMITS[name])[1]
        if not raising and own != libc.INFINITY and (hard == -1 or hard > own):
            less.append(f"{key} (root has no CAP_SYS_RESOURCE here and cannot go above its own {own})")
            soft, hard = own if soft == -1 else min(soft, own), own
        found[name] = (soft, hard)
    return found, less


def _nr_open() -> int:
    with open("/proc/sys/fs/nr_open", encoding="ascii") as file:
        return int(file.read())


# -- disks -------------------------------------------------------------------------------------------------------------


def check_disk_limit(what: str, value: str) -> tuple[str, int]:
    """``("bps", bytes)`` or ``("iops", operations)`` per second. Raises `BadRequest`."""
    if match := re.fullmatch(r"(\d{1,9})\s*iops", value):
        kind, number = "iops", int(match[1])
    elif match := re.fullmatch(r"(.+?)(?:/s)?", value):
        kind, number = "bps", values.size_bytes(what, match[1])
    if not match or number < 1:
        raise BadRequest(f"Invalid value for {what}: {value!r} is no rate (examples: 20MB, 1MiB, 500iops)")
    return kind, number


def throttles(places: dict[str, str], devices: Devices) -> list[Throttle]:
    """What the limits of disks mean for the block devices behind them.

    Several disks on one block device share it: the strictest limit holds for all of them, and for whatever else the
    instance has there.

    Args:
        places: a path of the host on each disk with a limit, by the device's name.

    Raises:
        BadRequest: there is no block device behind a disk.
    """
    found: dict[str, dict[str, int]] = {}
    for name, path in places.items():
        try:
            numbers = found.setdefault(blockdev.behind(path), {})
        except OSError as error:
            raise BadRequest(
                f"The disk {name!r} cannot be limited: {error.strerror} ({path}); remove its limits.*"
            ) from None
        for key, directions in _DISK_LIMITS.items():
            if value := devices[name].get(key):
                kind, number = check_disk_limit(key, value)
                for direction in directions:
                    field = f"{direction}{kind}"
                    numbers[field] = min(number, numbers.get(field, number))
    return [Throttle(device=device, **numbers) for device, numbers in sorted(found.items())]  # type: ignore[typeddict-item]


def limited_disks(devices: Devices) -> list[str]:
    """The names of disks with a limit."""
    return [name for name, one in devices.items() if one.get("type") == "disk" and any(map(one.get, _DISK_LIMITS))]

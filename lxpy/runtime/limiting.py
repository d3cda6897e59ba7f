"""What the cgroups of an instance are told of its limits, on v1, hybrid and v2 hosts.

A limit that this host cannot keep (its controller, or that file of it, is not there) is left out and named by `unmet`:
who applies limits tells the administrator.
"""

import errno
import os

from lxpy.linux import cgroups

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from lxpy.runtime.cgroup import InstanceCgroup
    from lxpy.runtime.spec import Limits, Throttle

_V1_UNLIMITED = "-1"
_SWAPPINESS = "60"  # the kernel's default
# The files that weigh disk access, the first that is there counts: BFQ's own, then those of other schedulers.
_WEIGHTS = ("blkio.bfq.weight", "blkio.weight"), ("io.bfq.weight", "io.weight")
_THROTTLES = {
    "rbps": "blkio.throttle.read_bps_device", "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device", "wiops": "blkio.throttle.write_iops_device",
}  # fmt: skip


def apply(group: "InstanceCgroup", limits: "Limits", fresh: bool = False) -> None:
    """Sets the limits; what `limits` leaves out is lifted (unless `fresh`: a new cgroup has none).

    Raises:
        OSError: EBUSY when memory in use cannot be brought under the new limit, EINVAL and ENODEV for CPUs and
            devices that there are not.
    """
    _memory(group, limits, fresh)
    _cpu(group, limits, fresh)
    processes = limits.get("processes")
    if processes is not None or not fresh:
        _set(group, "pids", "pids.max", "pids.max", "max" if processes is None else str(processes))
    _disk(group, limits, fresh)
    _hugepages(group, limits, fresh)


def unmet(group: "InstanceCgroup", limits: "Limits") -> list[str]:
    """The limits that this host cannot keep, each as "KEY (why)"; of an instance that runs."""
    wanted = [
        ("memory", "limits.memory", "memory", "memory.limit_in_bytes", "memory.max"),
        ("swap", "limits.memory.swap", "memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
        ("cpuset", "limits.cpu", "cpuset", "cpuset.cpus", "cpuset.cpus"),
        ("cpu_quota", "limits.cpu.allowance", "cpu", "cpu.cfs_quota_us", "cpu.max"),
        ("cpu_shares", "limits.cpu.allowance or limits.cpu.priority", "cpu", "cpu.shares", "cpu.weight"),
        ("processes", "limits.processes", "pids", "pids.max", "pids.max"),
        ("throttles", "limits.read, limits.write and limits.max of disks", "blkio", _THROTTLES["rbps"], "io.max"),
    ]
    found = []
    for field, key, controller, v1, v2 in wanted:
        value = limits.get(field)
        if (value if field != "swap" else value is False) and not os.path.exists(_file(group, controller, v1, v2)):
            found.append(f"{key} (no {'io' if controller == 'blkio' else controller} controller here, or no {v2})")
    if "swappiness" in limits and not group.v1("memory"):
        found.append("limits.memory.swap.priority (cgroup v2 has no swappiness of one cgroup)")
    if "io_weight" in limits and not (_weight_file(group) and _weighed(group)):
        found.append("limits.disk.priority (no disk of this host has a scheduler with weights: bfq, or io.cost)")
    for size in limits.get("hugepages", {}):
        if not os.path.exists(_hugepage_file(group, size)):
            found.append(f"limits.hugepages.{size} (no hugetlb controller here, or no pages of that size)")
    return found


def _file(group: "InstanceCgroup", controller: str, v1: str, v2: str) -> str:
    path = group.v1(controller)
    return f"{path}/{v1}" if path else f"{group.unified}/{v2}"


def _write(path: str, value: str) -> bool:
    """Whether the file is there."""
    try:
        cgroups.write(path, value)
    except FileNotFoundError:
        return False
    return True


def _set(group: "InstanceCgroup", controller: str, v1: str, v2: str, value: str, value_v2: str = "") -> None:
    _write(_file(group, controller, v1, v2), value if group.v1(controller) else value_v2 or value)


def _memory(group: "InstanceCgroup", limits: "Limits", fresh: bool) -> None:
    memory, path = limits.get("memory"), group.v1("memory")
    if path and ("swappiness" in limits or not fresh):
        _write(f"{path}/memory.swappiness", str(limits.get("swappiness", _SWAPPINESS)))
    swap_off = limits.get("swap") is False
    if memory is None and fresh and not swap_off:
        return
    soft = limits.get("memory_soft", False)
    hard = memory if memory is not None and not soft else None
    low = memory if memory is not None and soft else None
    if not path:
        if not fresh or low is not None:
            # memory.high throttles and reclaims above the limit: the nearest there is to v1's soft limit.
            _set(group, "memory", "", "memory.high", "max" if low is None else str(low))
        if not fresh or hard is not None:
            _set(group, "memory", "", "memory.max", "max" if hard is None else str(hard))
        if not fresh or swap_off:
            _set(group, "memory", "", "memory.swap.max", "0" if swap_off else "max")
        return
    if not fresh or low is not None:
        cgroups.write(f"{path}/memory.soft_limit_in_bytes", _V1_UNLIMITED if low is None else str(low))
    limit = ("memory.limit_in_bytes", _V1_UNLIMITED if hard is None else str(hard))
    memsw = ("memory.memsw.limit_in_bytes", limit[1] if swap_off else _V1_UNLIMITED)
    # memsw may never be below the limit: raise it first, lower it last.
    writes = [limit, memsw] if swap_off else [memsw, limit]
    for name, value in writes:
        try:
            _write(f"{path}/{name}", value)  # memsw is there only with swap accounting
        except OSError as error:
            if error.errno != errno.EINVAL or name != limit[0]:
                raise
            cgroups.write(f"{path}/{memsw[0]}", _V1_UNLIMITED)
            cgroups.write(f"{path}/{name}", value)
    if swap_off and "swappiness" not in limits:
        # Without a hard limit there is no sum of memory and swap to hold it to: it is asked not to swap at all.
        _write(f"{path}/memory.swappiness", "0")


def _cpu(group: "InstanceCgroup", limits: "Limits", fresh: bool) -> None:
    quota = limits.get("cpu_quota")
    if quota is not None or not fresh:
        path = group.v1("cpu")
        if path:
            if quota:
                cgroups.write(f"{path}/cpu.cfs_period_us", str(quota[1]))
            cgroups.write(f"{path}/cpu.cfs_quota_us", str(quota[0]) if quota else _V1_UNLIMITED)
        else:
            _set(group, "cpu", "", "cpu.max", f"{quota[0]} {quota[1]}" if quota else "max")
    shares = limits.get("cpu_shares")
    if shares is not None or not fresh:
        v1 = 1024 if shares is None else max(2, shares)
        # 1024 is one full CPU's share there, 100 here.
        v2 = max(1, min(10000, round(v1 * 100 / 1024)))
        _set(group, "cpu", "cpu.shares", "cpu.weight", str(v1), str(v2))
    if limits.get("cpuset") is not None or not fresh:
        set_cpus(group, limits.get("cpuset", ""))


def set_cpus(group: "InstanceCgroup", cpus: str) -> None:
    """The CPUs it may run on, such as ``0,2-3``; "" for all."""
    path = group.v1("cpuset")
    if not cpus:
        # All, by name: a cgroup with processes in it cannot be given back its empty list (ENOSPC).
        root = os.path.dirname(path or group.unified)
        try:
            cpus = cgroups.read(f"{root}/cpuset.cpus" if path else f"{root}/cpuset.cpus.effective")
        except FileNotFoundError:
            return  # no such controller, so there was no limit
    _set(group, "cpuset", "cpuset.cpus", "cpuset.cpus", cpus)


def cpus(group: "InstanceCgroup") -> str:
    """The CPUs it may run on, as the kernel writes them; "" where nothing says so."""
    try:
        return cgroups.read(_file(group, "cpuset", "cpuset.cpus", "cpuset.cpus"))
    except OSError:
        return ""


# -- disks -------------------------------------------------------------------------------------------------------------


def _weight_file(group: "InstanceCgroup") -> str:
    path = group.v1("blkio")
    names = [f"{path}/{name}" for name in _WEIGHTS[0]] if path else [f"{group.unified}/{name}" for name in _WEIGHTS[1]]
    return next((name for name in names if os.path.exists(name)), "")


def _weighed(group: "InstanceCgroup") -> bool:
    """Whether any disk is scheduled by weights: the files are there without, too, and mean nothing then."""
    if _weight_file(group).endswith("blkio.weight"):
        return True  # CFQ, before Linux 5.0
    try:
        if "enable=1" in cgroups.read(f"{os.path.dirname(group.unified)}/io.cost.qos"):
            return True
    except OSError:
        pass
    for disk in os.listdir("/sys/block"):
        try:
            if "[bfq]" in cgroups.read(f"/sys/block/{disk}/queue/scheduler"):
                return True
        except OSError:
            continue
    return False


def _disk(group: "InstanceCgroup", limits: "Limits", fresh: bool) -> None:
    if ("io_weight" in limits or not fresh) and (path := _weight_file(group)):
        weight = limits.get("io_weight", 100)
        # blkio.weight has 500 in the middle, the others 100.
        cgroups.write(path, str(max(10, min(1000, weight * 5)) if path.endswith("blkio.weight") else weight))
    wanted = limits.get("throttles", [])
    if fresh and not wanted:
        return
    old = {device for device, _ in _throttled(group)} if not fresh else set[str]()
    lifted: list[Throttle] = [{"device": device} for device in old - {one["device"] for one in wanted}]
    for one in [*lifted, *wanted]:
        if group.v1("blkio"):
            for field, name in _THROTTLES.items():
                _throttle(f"{group.v1('blkio')}/{name}", one, f"{one['device']} {one.get(field) or 0}")
        else:
            words = " ".join(f"{field}={one.get(field) or 'max'}" for field in _THROTTLES)
            _throttle(f"{group.unified}/io.max", one, f"{one['device']} {words}")


def _throttle(path: str, one: "Throttle", value: str) -> None:
    try:
        _write(path, value)
    except OSError as error:
        if error.errno != errno.ENODEV or len(one) > 1:
            raise
        # the device that is to be free again is gone


def _throttled(group: "InstanceCgroup") -> "Iterator[tuple[str, str]]":
    """The devices with a limit, and it."""
    path = group.v1("blkio")
    names = [f"{path}/{name}" for name in _THROTTLES.values()] if path else [f"{group.unified}/io.max"]
    for name in names:
        try:
            for line in cgroups.read(name).splitlines():
                device, _, rest = line.partition(" ")
                yield device, rest
        except FileNotFoundError:
            continue


# -- huge pages --------------------------------------------------------------------------------------------------------


def _hugepage_file(group: "InstanceCgroup", size: str, reserved: bool = False) -> str:
    middle = ".rsvd" if reserved else ""
    v1, v2 = f"hugetlb.{size}{middle}.limit_in_bytes", f"hugetlb.{size}{middle}.max"
    return _file(group, "hugetlb", v1, v2)


def _hugepages(group: "InstanceCgroup", limits: "Limits", fresh: bool) -> None:
    wanted = limits.get("hugepages", {})
    if wanted and not group.v1("hugetlb"):
        cgroups.enable_controllers(os.path.dirname(group.unified), ("hugetlb",))
    for size in ("64KB", "1MB", "2MB", "1GB"):
        if size not in wanted and fresh:
            continue
        # Reservations too: without, a mapping above the limit is made, and its user killed by SIGBUS.
        for reserved in (True, False):
            path = _hugepage_file(group, size, reserved)
            unlimited = str((1 << 63) - 1) if group.v1("hugetlb") else "max"
            _write(path, str(wanted[size]) if size in wanted else unlimited)

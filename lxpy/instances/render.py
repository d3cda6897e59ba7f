"""Rows and live instances as the API's objects."""

from collections.abc import Callable
from typing import Any

from lxpy.api import status
from lxpy.api.objects import Config, Devices, Instance, InstanceState
from lxpy.instances import limits
from lxpy.instances.live import Live
from lxpy.state.store import Document, InstanceRow

ALL_FIELDS = frozenset({"cpu", "memory", "network", "disk", "processes"})


def instance(row: InstanceRow, code: int, expanded: tuple[Config, Devices]) -> Instance:
    """``/1.0/instances/{name}`` without its state."""
    doc = row.doc
    return {
        "name": row.name,
        "project": row.project,
        "type": "container",
        "status": status.TEXT[code],
        "status_code": code,
        "architecture": doc["architecture"],
        "description": doc["description"],
        "ephemeral": doc["ephemeral"],
        "stateful": False,
        "location": "none",
        "created_at": doc["created_at"],
        "last_used_at": doc["last_used_at"],
        "profiles": doc["profiles"],
        "config": doc["config"],
        "devices": doc["devices"],
        "expanded_config": expanded[0],
        "expanded_devices": expanded[1],
    }


def snapshot(name: str, doc: Document, expanded: tuple[Config, Devices], size: int | None) -> dict[str, Any]:
    """``/1.0/instances/{name}/snapshots/{snapshot}``; a size of -1 is not known."""
    return {
        "name": name,
        "created_at": doc["created_at"],
        "expires_at": doc["expires_at"],
        "last_used_at": doc["last_used_at"],
        "stateful": False,
        "architecture": doc["architecture"],
        "ephemeral": doc["ephemeral"],
        "profiles": doc["profiles"],
        "config": doc["config"],
        "devices": doc["devices"],
        "expanded_config": expanded[0],
        "expanded_devices": expanded[1],
        "size": -1 if size is None else size,
    }


def state(
    row: InstanceRow, live: Live | None, fields: "set[str] | None", shown_as: Callable[[str], str]
) -> InstanceState:
    """``/1.0/instances/{name}/state``; a stopped instance has zeros and no network.

    Args:
        shown_as: the interface of the host for the host name of a nic.
    """
    wanted = ALL_FIELDS if fields is None else fields
    if live is None:
        return {
            "status": status.TEXT[status.STOPPED],
            "status_code": status.STOPPED,
            "pid": 0,
            "processes": 0,
            "cpu": {"usage": 0},
            "memory": {"usage": 0, "usage_peak": 0, "total": 0, "swap_usage": 0, "swap_usage_peak": 0},
            "disk": {},
            "network": None,
        }
    code = live.status_code(row)
    shown: InstanceState = {
        "status": status.TEXT[code],
        "status_code": code,
        "pid": live.supervisor.init_pid,
        "processes": 0,
        "cpu": {"usage": 0},
        "memory": {"usage": 0, "usage_peak": 0, "total": 0, "swap_usage": 0, "swap_usage_peak": 0},
        "disk": {},
        "network": None,
    }
    if wanted & {"cpu", "memory", "processes"}:
        usage = live.cgroup.usage()
        shown["processes"] = max(0, usage["processes"])
        shown["cpu"] = {"usage": max(0, usage["cpu_ns"])}
        shown["memory"] = {
            "usage": max(0, usage["memory"]),
            "usage_peak": max(0, usage["memory_peak"]),
            "total": live.limits.get("memory") or limits.host_memory(),
            "swap_usage": max(0, usage["swap"]),
            "swap_usage_peak": 0,
            "oom_kills": live.cgroup.oom_kills(),  # ours: processes the kernel killed inside for want of memory
        }
    if fields is None:
        shown["lxpy_limits"] = {**live.limits, "unmet": live.unmet}
    if "network" in wanted and live.watch is not None:
        if fields is None:
            live.watch.refresh()
        shown["network"] = {
            name: {**interface, "host_name": shown_as(live.nics.get(name, interface.get("host_name", "")))}
            for name, interface in live.watch.state.items()
        }
    return shown

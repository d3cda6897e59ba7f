"""The limits of an instance in words, each with what is used of it."""

from __future__ import annotations

from lxpy.cli import render

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NIC_LIMITS = ("limits.ingress", "limits.egress", "limits.max", "limits.priority")


def lines(instance: dict[str, Any], state: dict[str, Any]) -> list[str]:
    """For ``info`` of an instance that runs; empty where it has none."""
    # What holds, by a server of ours; configuration and devices otherwise say what should.
    limits, config = state.get("lxpy_limits") or {}, instance["expanded_config"]
    out = []
    if memory := limits.get("memory"):
        used = state["memory"]["usage"]
        kind = ", soft" if limits.get("memory_soft") else ""
        swap = ", no swap" if limits.get("swap") is False else ""
        out.append(f"Memory: {render.size(used)} of {render.size(memory)} ({100 * used // memory}%){kind}{swap}")
    if processes := limits.get("processes"):
        out.append(f"Processes: {state['processes']} of {processes}")
    if cpus := limits.get("cpuset"):
        out.append(f"CPUs: {cpus}" + (" (chosen)" if config.get("limits.cpu", "").isdigit() else ""))
    if quota := limits.get("cpu_quota"):
        out.append(f"CPU time: {quota[0] / 1000:g} ms in every {quota[1] / 1000:g} ms")
    if shares := limits.get("cpu_shares"):
        out.append(f"CPU share when CPUs are short: {shares} (others have 1024)")
    out += _disks(instance, state, limits)
    for size, count in limits.get("hugepages", {}).items():
        out.append(f"Huge pages of {size}: {render.size(count)}")
    for name, device in instance["expanded_devices"].items():
        wanted = {key.removeprefix("limits."): device[key] for key in _NIC_LIMITS if device.get(key)}
        priority = config.get("limits.network.priority")
        if device.get("type") == "nic" and priority:
            wanted.setdefault("priority", priority)
        if device.get("type") == "nic" and wanted:
            out.append(f"Network card {name}: " + ", ".join(f"{key} {value}" for key, value in wanted.items()))
    kernel = {
        key.removeprefix("limits.kernel."): one for key, one in config.items() if key.startswith("limits.kernel.")
    }
    if kernel:
        out.append("Of the kernel: " + ", ".join(f"{key} {value}" for key, value in sorted(kernel.items())))
    out += [f"Not kept on this host: {one}" for one in limits.get("unmet", [])]
    return ["  Limits:", *(f"    {line}" for line in out)] if out else []


def _disks(instance: dict[str, Any], state: dict[str, Any], limits: dict[str, Any]) -> list[str]:
    out = []
    for name, device in instance["expanded_devices"].items():
        if device.get("type") == "disk" and device.get("size"):
            used = (state.get("disk") or {}).get(name, {}).get("usage", 0)
            out.append(f"Disk {name}: {render.size(used)} of {device['size']}")
    for one in limits.get("throttles", []):
        words = [
            f"{verb} {render.size(one[key]) if unit else one[key]}{unit or ' operations'}/s"
            for key, verb, unit in (
                ("rbps", "read", " "), ("wbps", "write", " "), ("riops", "read", ""), ("wiops", "write", "")
            )
            if one.get(key)
        ]  # fmt: skip
        out.append(f"Block device {one['device']}: " + ", ".join(word.replace(" /s", "/s") for word in words))
    if weight := limits.get("io_weight"):
        out.append(f"Disk weight: {weight} (others have 100)")
    return out

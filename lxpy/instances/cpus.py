"""Which CPUs the instances run on: sets as they are asked for, counts spread over the host's CPUs.

An instance with a count gets the CPUs that the others use least. Whenever an instance starts, ends or changes, the
counts of all are spread anew, and nobody is moved who need not be.
"""

import logging
import os
from collections.abc import Iterable

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.api.objects import Config
from lxpy.instances.live import Live
from lxpy.runtime import limiting

log = logging.getLogger("lxpy.instances")


def online() -> list[int]:
    """The CPUs that instances may have."""
    return sorted(os.sched_getaffinity(0))


def _of_nodes(nodes: str) -> list[int]:
    found: list[int] = []
    for node in values.cpu_set("limits.cpu.nodes", nodes):
        try:
            with open(f"/sys/devices/system/node/node{node}/cpulist", encoding="ascii") as file:
                found += values.cpu_set("cpulist", file.read().strip() or "0")
        except FileNotFoundError:
            raise BadRequest(f"limits.cpu.nodes={nodes} cannot be kept: this host has no NUMA node {node}") from None
    return found


def wanted(config: Config) -> tuple[str, int, tuple[int, ...]]:
    """From expanded configuration: a fixed set ("" for none), or a count (0 for none) of these CPUs.

    Raises:
        BadRequest: CPUs or nodes that this host does not have.
    """
    limit, nodes, there = config.get("limits.cpu", ""), config.get("limits.cpu.nodes", ""), online()
    if nodes:
        there = [cpu for cpu in there if cpu in set(_of_nodes(nodes))]
        if not there:
            raise BadRequest(f"limits.cpu.nodes={nodes} cannot be kept: no CPU of that node is online")
    if limit and not limit.isdigit():
        asked = values.cpu_set("limits.cpu", limit)
        if missing := [str(cpu) for cpu in asked if cpu not in there]:
            where = f"in limits.cpu.nodes={nodes}" if nodes else f"on this host (it has {_text(there)})"
            raise BadRequest(f"limits.cpu={limit} cannot be kept: CPU {', '.join(missing)} is not {where}")
        return _text(asked), 0, ()
    if limit and int(limit) < len(there):
        return "", int(limit), tuple(there)
    # As many as there are, or more: all, and no part of the sharing out.
    return (_text(there) if nodes or limit else ""), 0, ()


class Cpus:
    """Shares out the CPUs of the host."""

    def place(self, config: Config, others: Iterable[Live], now: str = "") -> str:
        """The CPUs that an instance gets beside these others; "" for all. Raises `BadRequest` as `wanted`."""
        fixed, count, among = wanted(config)
        return choose(count, among, _load(others), now) if count else fixed

    def balance(self, running: Iterable[Live]) -> None:
        """Spreads the counts anew, in the order in which the instances came."""
        everybody = list(running)
        load = _load(live for live in everybody if not live.cpu_count)
        for live in everybody:
            if not live.cpu_count:
                continue
            chosen = choose(live.cpu_count, live.cpu_among, load, live.cpuset)
            for cpu in values.cpu_set("cpuset", chosen):
                load[cpu] = load.get(cpu, 0) + 1
            if chosen != live.cpuset:
                try:
                    limiting.set_cpus(live.cgroup, chosen)
                except OSError as error:  # it is about to end, or a CPU has just gone
                    log.warning("moving %s to the CPUs %s: %s", live.cgroup.payload, chosen, error)
                    continue
                live.cpuset = live.limits["cpuset"] = chosen


def _load(running: Iterable[Live]) -> dict[int, int]:
    load: dict[int, int] = {}
    for live in running:
        for cpu in values.cpu_set("cpuset", live.cpuset) if live.cpuset else []:
            load[cpu] = load.get(cpu, 0) + 1
    return load


def choose(count: int, among: Iterable[int], load: dict[int, int], now: str) -> str:
    """`count` of these CPUs, the least used first; among equals those it has `now`."""
    has = values.cpu_set("cpuset", now) if now else []
    return _text(sorted(among, key=lambda cpu: (load.get(cpu, 0), cpu not in has, cpu))[:count])


def _text(cpus: Iterable[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))

"""What all running instances use at one moment, for ``lxpy top`` and the app: the extension ``lxpy_usage``.

``GET /1.0/usage`` (``?project=``, ``?all-projects=true``) answers with counters; whoever asks twice has rates.
Nothing is sampled while nobody asks. One reading opens a handful of cgroup files for each instance and asks netlink
once for the counters of all interfaces: no process is started and no namespace entered.
With 200 instances and a reading every two seconds that is about a hundredth of a core.
"""

import time
from collections.abc import Callable
from typing import TypedDict

from lxpy.api import status, values
from lxpy.api.errors import BadRequest
from lxpy.instances import cpus, limits
from lxpy.instances.live import Live
from lxpy.instances.records import Records
from lxpy.linux import rtnetlink
from lxpy.state.store import InstanceRow


class InstanceUsage(TypedDict):
    """Bytes and numbers since the instance's start, and what it has now; -1 where that is not known.

    `cpu_ns`: nanoseconds of CPU time, of all its CPUs. `*_limit`: 0 for none. `cpus`: how many it may run on.
    `disk_*`: what went to and came from block devices on its own account. `network_*`: as the instance sees it.
    """

    name: str
    project: str
    status: str
    pid: int
    started_at: float
    cpu_ns: int
    cpus: int
    memory: int
    memory_limit: int
    swap: int
    processes: int
    processes_limit: int
    disk_read: int
    disk_written: int
    network_received: int
    network_sent: int


class Usage(TypedDict):
    """One reading. `at`: nanoseconds of a clock that only goes forward, to divide by."""

    at: int
    cpus: int
    memory: int
    instances: list[InstanceUsage]


class Meter:
    """Reads what instances use.

    Args:
        live: the running instance of a row, if it runs.
        shown_as: the interface of the host for the host name of a nic.
    """

    def __init__(
        self, records: Records, live: Callable[[InstanceRow], Live | None], shown_as: Callable[[str], str]
    ) -> None:
        self._records, self._live, self._shown_as = records, live, shown_as

    def running(self, project: str, name: str) -> Live:
        """Raises `NotFound`, and `BadRequest` when it does not run."""
        row = self._records.get(project, name)
        live = self._live(row)
        if live is None:
            raise BadRequest(f"Instance {name!r} is not running: start it with `lxpy start {name}`")
        return live

    def read(self, projects: Callable[[str], bool]) -> Usage:
        """The running instances of the projects that `projects` is true for, by name."""
        wanted = [(row, live) for row in self._records if projects(row.project) and (live := self._live(row))]
        counters = _counters() if wanted else {}
        online = len(cpus.online())
        found = [self._instance(row, live, counters, online) for row, live in wanted]
        return {
            "at": time.monotonic_ns(), "cpus": online, "memory": limits.host_memory(),
            "instances": sorted(found, key=lambda one: (one["name"], one["project"])),
        }  # fmt: skip

    def _instance(
        self, row: InstanceRow, live: Live, counters: dict[str, tuple[int, int]], online: int
    ) -> InstanceUsage:
        used, (read, written) = live.cgroup.usage(peak=False), live.cgroup.transferred()
        sent = received = 0
        if live.watch is not None and (
            unseen := [n for n, h in live.nics.items() if self._shown_as(h) not in counters]
        ):
            live.watch.refresh()  # an interface given to it whole: only the inside counts
            for name in unseen:
                if inside := live.watch.state.get(name):
                    received += inside["counters"].get("bytes_received", 0)
                    sent += inside["counters"].get("bytes_sent", 0)
        for host_name in live.nics.values():
            # What the host's end receives, the instance has sent.
            out, into = counters.get(self._shown_as(host_name), (0, 0))
            sent, received = sent + out, received + into
        return {
            "name": row.name, "project": row.project, "status": status.TEXT[live.status_code(row)],
            "pid": live.supervisor.init_pid, "started_at": live.supervisor.started_at,
            "cpu_ns": used["cpu_ns"], "cpus": len(values.cpu_set("cpuset", live.cpuset)) if live.cpuset else online,
            "memory": used["memory"], "memory_limit": live.limits.get("memory", 0), "swap": used["swap"],
            "processes": used["processes"], "processes_limit": live.limits.get("processes", 0),
            "disk_read": read, "disk_written": written, "network_received": received, "network_sent": sent,
        }  # fmt: skip


def _counters() -> dict[str, tuple[int, int]]:
    """Bytes received and sent by the interfaces of the host."""
    with rtnetlink.Rtnetlink() as netlink:
        return {link.name: (link.counters[2], link.counters[3]) for link in netlink.links() if link.counters}

"""What the daemon knows of a running instance and does not store: supervisor, cgroup, nics, addresses."""

import asyncio
from dataclasses import dataclass, field

from lxpy.api import status
from lxpy.api.objects import Devices
from lxpy.networks.watch import Watch
from lxpy.runtime.cgroup import InstanceCgroup
from lxpy.runtime.spawner_client import Supervisor
from lxpy.runtime.spec import Limits
from lxpy.state.store import InstanceRow


@dataclass
class Live:
    """One running instance.

    Attributes:
        nics: guest interface name to host interface name.
        devices: the expanded devices it runs with.
        cpuset: the CPUs it may run on, "" for all.
        limits: those in force.
        cpu_count: how many it is to have, 0 when that does not matter; `cpu_among`: of which.
        unmet: the limits it should have and that this host cannot keep, each as "KEY (why)".
        stopping: who ends it wants no restart and no deletion on the way ("stop", "restart", "delete"), else "".
        ended: resolved when the exit has been dealt with: the network is detached, the record written.
    """

    supervisor: Supervisor
    cgroup: InstanceCgroup
    nics: dict[str, str] = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    watch: Watch | None = None
    frozen: bool = False
    cpuset: str = ""
    cpu_count: int = 0
    cpu_among: tuple[int, ...] = ()
    unmet: list[str] = field(default_factory=list)
    limits: Limits = field(default_factory=lambda: Limits())
    stopping: str = ""
    ended: "asyncio.Future[None]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def status_code(self, row: InstanceRow) -> int:
        """Of ``api.status``; `row` knows whether the guest has said that it is ready."""
        if self.frozen:
            return status.FROZEN
        return status.READY if said_ready(row) else status.RUNNING


def said_ready(row: InstanceRow) -> bool:
    """Whether the guest has said so, by the guest API, since it was started."""
    return bool(row.doc["config"].get("volatile.last_state.ready") == "true")

"""What an instance has besides its root, its nics and its limits, and when in its life each part is seen to."""

from lxpy.api.objects import Devices
from lxpy.instances import hotplug
from lxpy.instances.disks import Disks
from lxpy.instances.live import Live
from lxpy.instances.nodes import KINDS, Nodes
from lxpy.instances.proxies import Proxies
from lxpy.runtime.spec import Mount, Node
from lxpy.state.store import InstanceRow


class Attachments:
    """The devices that are no nics."""

    def __init__(self, disks: Disks, nodes: Nodes, proxies: Proxies) -> None:
        self.disks, self.nodes, self.proxies = disks, nodes, proxies

    def kinds(self) -> dict[str, hotplug.Kind]:
        """For the table of `hotplug`."""
        return {"disk": self.disks, "proxy": self.proxies, **dict.fromkeys(KINDS, self.nodes)}

    def prepare(self, row: InstanceRow, devices: Devices) -> tuple[InstanceRow, list[Mount], list[Node]]:
        """Before a start: what the runtime is to make.

        Raises:
            ApiError: a required device is not there.
        """
        row, nodes = self.nodes.at_start(self.disks.forget(row), devices)
        return row, self.disks.mounts(row.project, devices), nodes

    async def adopt(self, row: InstanceRow, live: Live) -> InstanceRow:
        """After a restart of the daemon."""
        row = await self.disks.adopt(row, live)
        await self.proxies.adopt(row, live)
        return await self.nodes.adopt(row, live)

    async def ended(self, row: InstanceRow, live: Live) -> None:
        """It has ended: what was of it on the host goes."""
        await self.proxies.ended(row, live)

    def forget(self, row: InstanceRow) -> InstanceRow:
        """It has ended, and so has what was noted of it."""
        return self.nodes.forget(row)

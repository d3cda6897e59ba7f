"""What a guest may ask of its host: the directory with the socket of the guest API, and what is answered there.

Each running instance has a directory of its own, ``guest`` in its run directory, mounted read-only at ``/dev/lxd`` and
``/dev/incus``. The daemon listens on ``sock`` in it. Which guest asks follows from the socket that it reached, and no
guest can reach another's; the process id of a peer, which LXD goes by, may be another guest's process by the time
it is looked at.
"""

import os
from collections.abc import Awaitable, Callable

from lxpy.api import values
from lxpy.api.errors import BadRequest, Forbidden, NotFound
from lxpy.api.layout import Layout
from lxpy.api.objects import Config, Devices
from lxpy.instances import seeds
from lxpy.instances.live import said_ready
from lxpy.instances.records import Records
from lxpy.runtime.spec import Mount
from lxpy.state.store import Document, InstanceRow

PLACES = ("/dev/lxd", "/dev/incus")
SHOWN = ("cloud-init.", "user.")  # the keys a guest may read
READY, STARTED = "Ready", "Started"


class Guests:
    """The directories, and the answers.

    Args:
        emit: makes a lifecycle event.

    Attributes:
        listen: an instance runs, and has that directory; the daemon listens there as long as the instance `serves`.
        leave: the instance of that id has ended.
    """

    def __init__(
        self, records: Records, layout: Layout, emit: Callable[[str, str, str, Document | None], None]
    ) -> None:
        self._records, self._layout, self._emit = records, layout, emit
        self.listen: Callable[[InstanceRow, str], Awaitable[None]] | None = None
        self.leave: Callable[[int], None] = lambda instance_id: None

    # -- the instance comes and goes ---------------------------------------------------------------------------

    def directory(self, row: InstanceRow) -> str:
        return f"{self._layout.instance_run(row.id)}/guest"

    async def prepare(self, row: InstanceRow) -> list[Mount]:
        """Before the start: make the directory and listen in it. What is to be mounted in the guest."""
        os.makedirs(self.directory(row), mode=0o755, exist_ok=True)
        await self.adopt(row)
        return [
            {
                "source": self.directory(row),
                "target": place,
                "readonly": True,
                "shift": False,
                "recursive": False,
                "required": True,
                "options": ["nosuid", "nodev", "noexec"],
            }
            for place in PLACES
        ]

    async def adopt(self, row: InstanceRow) -> None:
        """Listen for an instance that an earlier daemon started."""
        # There is no directory where that daemon had no guest API.
        if self.listen is not None and os.path.isdir(self.directory(row)):
            await self.listen(row, self.directory(row))

    def serves(self, row: InstanceRow) -> bool:
        return _flag(self._records.expanded(row)[0], "security.devlxd", "true")

    def current(self, row: InstanceRow) -> InstanceRow:
        """Raises `NotFound` when the instance has gone."""
        found = self._records.current(row)
        if found is None:
            raise NotFound("The instance has been deleted")
        return found

    # -- what it is told ---------------------------------------------------------------------------------------

    def config(self, row: InstanceRow) -> Config:
        """The keys a guest may read, with what profiles set."""
        config, _ = self._records.expanded(row)
        return {key: value for key, value in seeds.effective(config).items() if key.startswith(SHOWN)}

    def value(self, row: InstanceRow, key: str) -> str:
        """Raises `Forbidden` for a key of another group, `NotFound` for one that is not set."""
        if not key.startswith(SHOWN):
            raise Forbidden("not authorized: a guest may read user.* and cloud-init.* only")
        try:
            return self.config(row)[key]
        except KeyError:
            raise NotFound(f"{key} is not set") from None

    def devices(self, row: InstanceRow) -> Devices:
        """Its devices; nics with the address they have been given."""
        config, devices = self._records.expanded(row)
        given = {name: config.get(f"volatile.{name}.hwaddr", "") for name in devices}
        return {
            name: {"hwaddr": given[name], **device} if device.get("type") == "nic" and given[name] else device
            for name, device in devices.items()
        }

    def metadata(self, row: InstanceRow) -> str:
        """What cloud-init calls meta-data, YAML."""
        return "#cloud-config\n" + seeds.metadata(row.name, self._records.expanded(row)[0])

    def may_export(self, row: InstanceRow) -> bool:
        return _flag(self._records.expanded(row)[0], "security.devlxd.images", "false")

    def state(self, row: InstanceRow) -> str:
        return READY if said_ready(row) else STARTED

    def set_state(self, row: InstanceRow, state: object) -> None:
        """The guest says how far it is. Raises `BadRequest` for a word that is none of the two."""
        if state not in (READY, STARTED):
            raise BadRequest(f"Invalid state {state!r}: use {READY} or {STARTED}")
        if state == self.state(row):
            return
        self._records.set_volatile(row, last_state__ready="true" if state == READY else None)
        if state == READY:
            self._emit("instance-ready", f"/1.0/instances/{row.name}", row.project, None)


def _flag(config: Config, key: str, default: str) -> bool:
    return values.boolean(key, config.get(key) or default)

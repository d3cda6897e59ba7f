"""Limits of running instances: what they start with, changes, the CPUs of all of them, and what cannot be kept."""

from collections.abc import Callable, Iterable

from lxpy.api.errors import ApiError, BadRequest
from lxpy.api.layout import qualified
from lxpy.api.notices import LIMITS, UNMET, Notice, Over
from lxpy.api.objects import Config, Devices
from lxpy.instances import cpus, limits, nics
from lxpy.instances.devices import is_root
from lxpy.instances.disks import Disks
from lxpy.instances.live import Live
from lxpy.instances.records import Records
from lxpy.runtime import limiting
from lxpy.runtime.spec import InstanceSpec, Limits
from lxpy.state.store import InstanceRow
from lxpy.storage.manager import StorageManager


class Limiter:
    """Keeps the limits of the instances that run.

    Args:
        running: those instances.
        warn: records a warning for the administrator.
    """

    def __init__(
        self, records: Records, storage: StorageManager, disks: Disks, running: Callable[[], Iterable[Live]],
        warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._records, self._storage, self._disks = records, storage, disks
        self._running, self._warn = running, warn
        self._cpus = cpus.Cpus()

    def prepare(self, row: InstanceRow, config: Config, devices: Devices, spec: InstanceSpec) -> None:
        """Puts the limits into what an instance is to start with.

        Raises:
            BadRequest: CPUs that there are not, or a disk that cannot be limited.
        """
        limit = self._of(row, config, devices)
        if cpuset := self._cpus.place(config, self._running()):
            limit["cpuset"] = cpuset
        spec["limits"] = limit
        if rlimits := limits.rlimits(config)[0]:
            spec.setdefault("confine", {})["rlimits"] = rlimits

    def started(self, row: InstanceRow, live: Live, config: Config, devices: Devices, limit: Limits) -> None:
        """An instance runs with these limits: the others make room on the CPUs."""
        self._remember(live, config, limit)
        self._tell(row, live, devices, config, limit, limits.rlimits(config)[1])
        self.balance()

    def adopt(self, row: InstanceRow, live: Live) -> None:
        """An instance of an earlier daemon, which may have been killed amid a change: what is written down holds."""
        live.cpuset = limiting.cpus(live.cgroup)
        self.restore(row, live)

    def apply(self, row: InstanceRow, live: Live) -> None:
        """Gives a running instance the limits of its present configuration.

        Raises:
            BadRequest: one that cannot be; what it had before may be changed in part.
        """
        config, devices = self._records.expanded(row)
        limit = self._of(row, config, devices)
        if cpuset := self._cpus.place(config, [one for one in self._running() if one is not live], live.cpuset):
            limit["cpuset"] = cpuset
        try:
            live.cgroup.apply(limit)
        except OSError as error:
            raise BadRequest(f"Cannot apply the limits to {row.name!r}: {error.strerror} ({error.filename})") from error
        self._remember(live, config, limit)
        self._tell(row, live, devices, config, limit, [])
        self.balance()

    def restore(self, row: InstanceRow, live: Live) -> None:
        """As `apply` where nobody waits for an answer: a failure becomes a warning."""
        try:
            self.apply(row, live)
        except ApiError as error:
            self._warn(Notice(str(error), LIMITS, f"/1.0/instances/{row.name}", row.project))

    def balance(self) -> None:
        """Spreads the instances that have a number of CPUs over those of the host."""
        self._cpus.balance(self._running())

    def _of(self, row: InstanceRow, config: Config, devices: Devices) -> Limits:
        limit = limits.from_config(config)
        if names := limits.limited_disks(devices):
            limit["throttles"] = limits.throttles({name: self._place(row, devices[name]) for name in names}, devices)
        return limit

    def _place(self, row: InstanceRow, device: dict[str, str]) -> str:
        if is_root(device):
            return self._storage.pool(row.pool).instance_dir(qualified(row.project, row.name))
        return self._disks.source(row.project, device)

    def _remember(self, live: Live, config: Config, limit: Limits) -> None:
        _, live.cpu_count, live.cpu_among = cpus.wanted(config)
        live.cpuset, live.limits = limit.get("cpuset", ""), limit

    def _tell(
        self, row: InstanceRow, live: Live, devices: Devices, config: Config, limit: Limits, less: list[str]
    ) -> None:
        url = f"/1.0/instances/{row.name}"
        live.unmet = [*limiting.unmet(live.cgroup, limit), *less, *nics.unweighed(config, devices)]
        if live.unmet:
            text = f"Limits of instance {row.name!r} that this host cannot keep: {'; '.join(live.unmet)}"
            self._warn(Notice(text, UNMET, url, row.project))
        else:
            self._warn(Over(UNMET, url, row.project))

"""The cgroups of one instance, on v1, hybrid and v2 hosts.

``PREFIX.payload.NAME`` holds the guest, ``PREFIX.supervisor.NAME`` its supervisor, both at the root of each hierarchy:
outside the daemon's own cgroup, whose end they outlive. Limits are set from outside. Freezing and killing go through
the unified hierarchy wherever there is one, hybrid hosts included.
"""

import os
import select
import signal
import time

from lxpy.linux import cgroups, devices
from lxpy.runtime import limiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.runtime.spec import Limits


class InstanceCgroup:
    """The cgroups of the instance `name` (qualified) under `prefix`. Makes nothing by itself; see `create`."""

    def __init__(self, prefix: str, name: str) -> None:
        self.payload = f"{prefix}.payload.{name}"
        self.supervisor = f"{prefix}.supervisor.{name}"
        self._h = cgroups.hierarchies()
        self.unified = f"{self._h.unified}/{self.payload}" if self._h.unified else ""

    def create(self, owner: int | None = None, allowed: "tuple[devices.Device, ...]" = devices.ALLOWED) -> None:
        """Makes the payload cgroups, confines their devices and gives the unified one to the mapped root `owner`."""
        for root in self._h.v1_roots:
            _mkdir(f"{root}/{self.payload}")
        if cpuset := self.v1("cpuset"):
            root = self._h.v1["cpuset"]
            for name in ("cpuset.cpus", "cpuset.mems"):
                # A new v1 cpuset is empty and takes no process.
                cgroups.write(f"{cpuset}/{name}", cgroups.read(f"{root}/{name}"))
        if path := self.v1("devices"):
            devices.restrict_v1(path, allowed)
        if not self.unified:
            return
        cgroups.enable_controllers(self._h.unified)
        _mkdir(self.unified)
        fd = os.open(self.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if "devices" not in self._h.v1:
                devices.restrict_v2(fd, allowed)
            if owner:
                os.fchown(fd, owner, owner)
                for name in cgroups.delegated_files():
                    try:
                        os.chown(name, owner, owner, dir_fd=fd)
                    except FileNotFoundError:
                        pass  # a controller that is not enabled
        finally:
            os.close(fd)

    def allow_devices(self, allowed: "tuple[devices.Device, ...]") -> None:
        """Brings a running guest's rules to these devices. One that it has open stays open."""
        if path := self.v1("devices"):
            devices.change_v1(path, allowed)
        elif self.unified:
            fd = self.open_unified()
            try:
                devices.change_v2(fd, allowed)
            finally:
                os.close(fd)

    def open_unified(self) -> int:
        """A descriptor for ``CLONE_INTO_CGROUP``; -1 without a unified hierarchy."""
        return os.open(self.unified, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if self.unified else -1

    def join_v1(self) -> None:
        """Moves this (single-threaded) process into the v1 payload cgroups.

        By ``0`` into ``tasks``: moving oneself as a thread takes no global lock, while ``cgroup.procs`` waits
        6 to 15 ms for RCU (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
        """
        for root in self._h.v1_roots:
            cgroups.write(f"{root}/{self.payload}/tasks", "0")

    # The supervisor's own cgroup: where systemd would look for it (name=systemd, unified) and its memory.
    def _supervisor_v1(self) -> list[str]:
        return [self._h.v1[name] for name in ("name=systemd", "memory") if name in self._h.v1]

    def open_supervisor(self) -> int:
        """Makes the supervisor's unified cgroup; a descriptor of it for ``CLONE_INTO_CGROUP``, or -1."""
        if not self.unified:
            return -1
        _mkdir(f"{self._h.unified}/{self.supervisor}")
        return os.open(f"{self._h.unified}/{self.supervisor}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join_supervisor(self, placed: bool) -> None:
        """Moves this process into the supervisor's cgroups; `placed`: it was born in the unified one."""
        for root in self._supervisor_v1():
            _mkdir(f"{root}/{self.supervisor}")
            cgroups.write(f"{root}/{self.supervisor}/tasks", "0")
        if self.unified and not placed:
            _mkdir(f"{self._h.unified}/{self.supervisor}")
            cgroups.write(f"{self._h.unified}/{self.supervisor}/cgroup.procs", "0")

    def leave_supervisor(self) -> None:
        """Moves this process to the roots and removes the supervisor's cgroups: its last act."""
        for root in self._supervisor_v1():
            cgroups.write(f"{root}/tasks", "0")
            cgroups.remove(f"{root}/{self.supervisor}", 0.2)
        if self.unified:
            cgroups.write(f"{self._h.unified}/cgroup.procs", "0")
            cgroups.remove(f"{self._h.unified}/{self.supervisor}", 0.2)

    def apply(self, limits: "Limits", fresh: bool = False) -> None:
        """Sets the limits, see `limiting.apply`."""
        limiting.apply(self, limits, fresh)

    def freeze(self, timeout: float = 5.0) -> None:
        """Stops every process of the guest; back once they stand still.

        Raises:
            OSError: ETIMEDOUT after `timeout` seconds (a process sits in the kernel); the freeze stays asked for.
        """
        self._freeze("1", timeout)

    def thaw(self, timeout: float = 5.0) -> None:
        self._freeze("0", timeout)

    def _freeze(self, value: str, timeout: float) -> None:
        if not self.unified:
            if path := self.v1("freezer"):
                state = "FROZEN" if value == "1" else "THAWED"
                cgroups.write(f"{path}/freezer.state", state)
                deadline = time.monotonic() + timeout
                while cgroups.read(f"{path}/freezer.state") != state and time.monotonic() < deadline:
                    time.sleep(0.002)
            return
        deadline = time.monotonic() + timeout
        events = os.open(f"{self.unified}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(events, select.POLLPRI)
            cgroups.write(f"{self.unified}/cgroup.freeze", value)
            while f"frozen {value}" not in os.pread(events, 4096, 0).decode():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(110, "processes did not stop in time", self.unified)
                poll.poll(min(left, 0.05) * 1000)
        finally:
            os.close(events)

    def frozen(self) -> bool:
        """Whether a freeze is in force."""
        try:
            if self.unified:
                return cgroups.read(f"{self.unified}/cgroup.freeze") == "1"
            path = self.v1("freezer")
            return bool(path) and cgroups.read(f"{path}/freezer.state") == "FROZEN"
        except FileNotFoundError:
            return False

    def kill(self) -> None:
        """SIGKILL to every process of the guest at once, frozen or not. None there is fine."""
        if self.unified:
            try:
                cgroups.write(f"{self.unified}/cgroup.kill", "1")
                return
            except FileNotFoundError:
                if not os.path.exists(self.unified):
                    return  # else a kernel before 5.14
        for pid in self.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def pids(self) -> list[int]:
        """The processes of the guest, those in cgroups it made itself included."""
        top = self.unified or next(iter(self._h.v1_roots), "") + f"/{self.payload}"
        found: list[int] = []
        for directory, _, _ in os.walk(top):
            try:
                with open(f"{directory}/cgroup.procs", "rb") as file:
                    found += [int(line) for line in file]
            except OSError:
                pass
        return found

    def usage(self, peak: bool = True) -> dict[str, int]:
        """What it uses: ``cpu_ns`` ``memory`` ``memory_peak`` ``swap`` (bytes) ``processes``; -1 where not known.

        `peak`: whether that is asked for.
        """
        result = dict.fromkeys(("cpu_ns", "memory", "memory_peak", "swap", "processes"), -1)
        path = self.v1("cpuacct")
        if path:
            result["cpu_ns"] = _number(f"{path}/cpuacct.usage")
        elif self.unified:
            try:
                result["cpu_ns"] = cgroups.read_keyed(f"{self.unified}/cpu.stat").get("usage_usec", 0) * 1000
            except OSError:
                pass
        path = self.v1("memory")
        if path:
            result["memory"] = _number(f"{path}/memory.usage_in_bytes")
            if peak:
                result["memory_peak"] = _number(f"{path}/memory.max_usage_in_bytes")
            both = _number(f"{path}/memory.memsw.usage_in_bytes")
            result["swap"] = max(0, both - result["memory"]) if both >= 0 else -1
        else:
            result["memory"] = _number(f"{self.unified}/memory.current")
            if peak:
                result["memory_peak"] = _number(f"{self.unified}/memory.peak")
            result["swap"] = _number(f"{self.unified}/memory.swap.current")
        result["processes"] = _number(f"{self.v1('pids') or self.unified}/pids.current")
        return result

    def transferred(self) -> tuple[int, int]:
        """Bytes read from and written to block devices on its account; -1 where nothing counts them."""
        path = self.v1("blkio")
        read = written = 0
        try:
            if path:
                for line in cgroups.read(f"{path}/blkio.throttle.io_service_bytes_recursive").splitlines():
                    words = line.split()
                    if len(words) == 3 and words[1] == "Read":
                        read += int(words[2])
                    elif len(words) == 3 and words[1] == "Write":
                        written += int(words[2])
            else:
                for word in cgroups.read(f"{self.unified}/io.stat").split():
                    key, _, number = word.partition("=")
                    if key == "rbytes":
                        read += int(number)
                    elif key == "wbytes":
                        written += int(number)
        except OSError:
            return -1, -1
        return read, written

    def oom_kills(self) -> int:
        """Processes killed for want of memory since it was made."""
        path = self.v1("memory")
        try:
            return cgroups.read_keyed(f"{path}/memory.oom_control" if path else f"{self.unified}/memory.events").get(
                "oom_kill", 0
            )
        except OSError:
            return 0

    def remove(self, patience: float = 2.0, supervisor: bool = False) -> bool:
        """Removes the payload cgroups (and the `supervisor`'s), waiting up to `patience` seconds for processes to go.

        Returns:
            Whether all are gone.
        """
        names = [self.payload, self.supervisor] if supervisor else [self.payload]
        roots = self._h.v1_roots + ([self._h.unified] if self._h.unified else [])
        gone = [cgroups.remove(f"{root}/{name}", patience) for name in names for root in roots]
        return all(gone)

    def v1(self, controller: str) -> str:
        """Its cgroup in the hierarchy of a v1 controller; "" where that is not one of v1."""
        root = self._h.v1.get(controller)
        return f"{root}/{self.payload}" if root else ""


def _mkdir(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass


def _number(path: str) -> int:
    try:
        return int(cgroups.read(path))
    except (OSError, ValueError):
        return -1

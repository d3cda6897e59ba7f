"""Starting, stopping and what happens when an instance ends."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from lxpy.api import values
from lxpy.api.errors import ApiError, BadRequest, Conflict, Forbidden, InternalError
from lxpy.api.layout import Layout, qualified
from lxpy.api.notices import AUTOSTART, Notice
from lxpy.api.objects import Config, Devices
from lxpy.images.manager import ImageManager
from lxpy.instances import apparmor, confinement, hotplug, idmaps, nics, rootsize
from lxpy.instances import devices as device_rules
from lxpy.instances.attachments import Attachments
from lxpy.instances.busy import InstanceLock
from lxpy.instances.guests import Guests
from lxpy.instances.limiter import Limiter
from lxpy.instances.live import Live
from lxpy.instances.nodewatch import NodeWatch
from lxpy.instances.records import Records, now, underscored
from lxpy.networks.manager import NetworkManager
from lxpy.runtime.cgroup import InstanceCgroup
from lxpy.runtime.spawner_client import Exit, Spawner, Supervisor, adopt
from lxpy.runtime.spec import InstanceSpec
from lxpy.state.store import Document, InstanceRow
from lxpy.storage.manager import StorageManager
from lxpy.storage.trees import finish

log = logging.getLogger("lxpy.instances")

Emit = Callable[[str, str, str, Document | None], None]

# LXD's default of boot.host_shutdown_timeout: what a guest gets to shut down when nobody names a time.
DEFAULT_TIMEOUT = 30
# A killed process goes at once, unless it waits in the kernel for a disk or a file server that does not answer.
_KILL_SECONDS = 10
# PID 1 ignores signals it has no handler for yet; a guest stopped while it boots is asked again.
_ASK_AGAIN = (0.5, 1.5, 4.0, 10.0)

_REASONS = {
    "halt": "shut down",
    "reboot": "rebooted",
    "oom": "killed: out of memory",
    "lost": "its supervisor was killed",
}


class Lifecycle:
    """Runs instances. One lock per instance: what changes its state waits for what is changing it."""

    def __init__(
        self,
        records: Records,
        layout: Layout,
        spawner: Spawner,
        images: ImageManager,
        networks: NetworkManager,
        storage: StorageManager,
        attached: Attachments,
        guests: Guests,
        emit: Emit,
        warn: Callable[[str], None],
    ) -> None:
        self._records, self._layout, self._spawner = records, layout, spawner
        self._images, self._networks, self._storage, self._attached = images, networks, storage, attached
        self._guests, self._emit, self._warn = guests, emit, warn
        self._apparmor = apparmor.Profiles(layout)
        self._live: dict[int, Live] = {}
        self._limiter = Limiter(records, storage, attached.disks, self._live.values, warn)
        self._locks: dict[int, InstanceLock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.release: Callable[[InstanceRow], Awaitable[None]] = _nothing  # who uses the files of a stopped root
        self.plugs: hotplug.Kinds = {**attached.kinds(), "nic": hotplug.NicPlugs(records, networks)}
        attached.proxies.lock = self.lock
        self._node_watch = NodeWatch(attached.nodes, self.running, self.lock, records.current)
        self.before_start: Callable[[InstanceRow], InstanceRow] = lambda row: row
        self.after_start: list[Callable[[InstanceRow], None]] = []
        self.ended_by_itself: Callable[[InstanceRow, Exit], None] = lambda row, exit_: None
        self.delete_ephemeral: Callable[[InstanceRow], asyncio.Future[None] | None] = lambda row: None

    def live(self, row: InstanceRow) -> Live | None:
        return self._live.get(row.id)

    def running(self) -> list[tuple[InstanceRow, Live]]:
        """All running instances."""
        return [(row, live) for row in self._records if (live := self._live.get(row.id))]

    def host_names(self) -> set[str]:
        """The host's ends of the nics of all running instances."""
        return {host_name for live in self._live.values() for host_name in live.nics.values()}

    def lock(self, row: InstanceRow) -> InstanceLock:
        return self._locks.setdefault(row.id, InstanceLock())

    def forget(self, row: InstanceRow) -> None:
        self._locks.pop(row.id, None)

    def require(self, row: InstanceRow) -> Live:
        """Raises `BadRequest` when it is not running, or frozen."""
        live = self._live.get(row.id)
        if live is None:
            raise BadRequest(f"Instance {row.name!r} is not running: start it with `lxpy start {row.name}`")
        if live.frozen:
            raise BadRequest(f"Instance {row.name!r} is frozen: `lxpy resume {row.name}` first")
        return live

    def cgroup(self, row: InstanceRow) -> InstanceCgroup:
        return InstanceCgroup(self._layout.cgroup_prefix, qualified(row.project, row.name))

    # -- start -------------------------------------------------------------------------------------------------

    async def start(self, row: InstanceRow) -> None:
        """From a stopped record to a running init. Everything is undone when a step fails.

        One who is cancelled meanwhile (Ctrl-C in a launch) still sees it through: what the spawner has been told to
        make cannot be taken back half-made. Then the cancellation follows.

        Raises:
            BadRequest: it runs already, or its configuration cannot be started.
        """
        await finish(self._start(row))

    async def check_start(self, row: InstanceRow) -> tuple[Config, Devices]:
        """What an instance is to run with.

        Raises:
            ApiError: it could not be started, as far as that can be told while it may still run.
        """
        config, devices = self._records.expanded(row)
        if values.boolean("security.protection.start", config.get("security.protection.start") or "false"):
            raise Forbidden(f"Instance {row.name!r} is protected: unset security.protection.start to start it")
        device_rules.validate(devices, expanded=True)
        config = confinement.effective(config)
        if config.get("linux.kernel_modules"):
            await asyncio.to_thread(confinement.load_modules, config)
        self._attached.disks.mounts(row.project, devices)
        return config, devices

    async def _start(self, row: InstanceRow) -> None:
        if row.id in self._live:
            raise BadRequest(f"The instance {row.name!r} is already running")
        config, devices = await self.check_start(row)
        row = self._records.fit_idmap(row, config)
        await self.release(row)
        devices = nics.weighed(config, devices)
        row = self.before_start(row)
        await rootsize.apply(self._storage, row, devices)
        run_dir = self._layout.instance_run(row.id)
        async with self._apparmor.ready(config) as profile, contextlib.AsyncExitStack() as undo:
            os.makedirs(run_dir, mode=0o700, exist_ok=True)
            undo.callback(shutil.rmtree, run_dir, ignore_errors=True)
            os.makedirs(self._layout.instance_log(row.project, row.name), mode=0o700, exist_ok=True)
            row, wanted = nics.prepare(self._records, self._networks, row, devices, starting=True)
            row, mounts, nodes = self._attached.prepare(row, devices)
            spec = self._spec(row, config, devices)
            spec["mounts"], spec["nodes"] = mounts, nodes
            spec["apparmor"] = profile
            spec["mounts"] = await self._guests.prepare(row) + spec["mounts"]
            undo.callback(self._guests.leave, row.id)
            if confine := spec.get("confine"):
                with open(f"{run_dir}/confine.json", "w", encoding="ascii") as file:
                    json.dump(confine, file)
            attached: dict[str, str] = {}

            async def connect(netns_fd: int, _pid: int) -> None:
                for device, nic in wanted.items():
                    guest_name = nic["name"]
                    host_name = await self._networks.nics.attach(nic, device, row.name, netns_fd)
                    attached[guest_name] = host_name
                    undo.push_async_callback(self._networks.nics.detach, host_name)
                watches.append(self._networks.nics.watch(netns_fd, lambda _state: None))
                undo.callback(watches[0].close)

            watches: list = []  # type: ignore[type-arg]
            supervisor = await self._spawner.launch(spec, connect)
            undo.pop_all()
        live = Live(supervisor, self.cgroup(row), nics=attached, devices=devices, watch=watches[0])
        self._take_in(row, live)
        self._limiter.started(row, live, config, devices, spec["limits"])
        volatile = {f"{device}.host_name": attached[nic["name"]] for device, nic in wanted.items()}
        row = self._records.get(row.project, row.name)
        row = self._records.set_volatile(
            row,
            last_state__power="RUNNING",
            last_state__reason=None,
            **underscored(volatile),
        )
        row = self._records.change(row, last_used_at=now(), started=time.time(), stopping=False)
        try:
            await self._attached.proxies.started(row, live)
        except BaseException:
            live.stopping = "start"
            with contextlib.suppress(ApiError):
                await live.supervisor.kill()
            await live.ended
            raise
        for hook in self.after_start:
            hook(row)
        self._emit("instance-started", f"/1.0/instances/{row.name}", row.project, None)

    def _take_in(self, row: InstanceRow, live: Live) -> None:
        self._live[row.id] = live
        live.supervisor.exited.add_done_callback(lambda future: self._spawn(self._on_exit(row, live, future)))
        self._node_watch.follow()

    def _spawn(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _spec(self, row: InstanceRow, config: Config, devices: Devices) -> InstanceSpec:
        privileged = values.boolean("security.privileged", config.get("security.privileged") or "false")
        pool = self._storage.pool(row.pool)
        volume = qualified(row.project, row.name)
        if not privileged and row.idmap_base is None:
            raise InternalError(f"Instance {row.name!r} has no id map")
        environment = {k[len("environment.") :]: v for k, v in config.items() if k.startswith("environment.")}
        spec: InstanceSpec = {
            "name": volume,
            "hostname": row.name,
            "run_dir": self._layout.instance_run(row.id),
            "console_log": f"{self._layout.instance_log(row.project, row.name)}/console.log",
            "idmap": idmaps.spec(row.idmap_base, config),
            "root": pool.root(volume),
            "mounts": [],
            "init": ["/sbin/init"],
            "environment": environment,
            "limits": {},
            "nesting": values.boolean("security.nesting", config.get("security.nesting") or "false"),
            "cgroup_prefix": self._layout.cgroup_prefix,
        }
        self._limiter.prepare(row, config, devices, spec)
        confinement.prepare(config, spec)
        return spec

    def sweep_profiles(self) -> None:
        """Removes AppArmor profiles that no instance wants any more."""
        self._apparmor.sweep(self._records.expanded(row)[0] for row in self._records)

    # -- devices of a running instance -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def plugged(self, row: InstanceRow, config: Config, devices: Devices) -> AsyncIterator[None]:
        """An instance that runs gets its devices, and gives them back when the body fails."""
        if (live := self.live(row)) is None:
            yield
            return
        try:
            async with hotplug.applied(self.plugs, hotplug.Running(row, live), nics.weighed(config, devices)):
                await self._attached.proxies.settle(row, live)
                yield
        finally:
            await self._attached.proxies.settle(row, live)
            self._node_watch.follow()

    # -- limits of a running instance --------------------------------------------------------------------------

    def apply_limits(self, row: InstanceRow) -> None:
        """Give a running instance the limits of its present configuration; nothing when it is stopped."""
        if live := self._live.get(row.id):
            self._limiter.apply(row, live)

    def restore_limits(self, row: InstanceRow) -> None:
        """As `apply_limits` where nobody waits for an answer: a failure becomes a warning."""
        if live := self._live.get(row.id):
            self._limiter.restore(row, live)

    # -- stop, restart, freeze ---------------------------------------------------------------------------------

    async def stop(self, row: InstanceRow, timeout: float, force: bool, why: str = "stop") -> str:
        """End a running instance.

        Args:
            timeout: seconds its init gets to shut down; negative: `DEFAULT_TIMEOUT`, or the instance's own.
            force: end it at once.
            why: "stop", "restart" or "delete".

        Returns:
            What had to be done beyond asking, in one line; "" when the guest shut down by itself.
        """
        live = self._live.get(row.id)
        if live is None:
            raise BadRequest(f"The instance {row.name!r} is already stopped")
        live.stopping = why
        if "boot.autorestart" in self._records.expanded(row)[0] and not row.doc["ephemeral"]:
            row = self._records.change(row, stopping=True)  # for a daemon that finds it ended
        said = ""
        if live.frozen and not force:
            with contextlib.suppress(TimeoutError):
                await asyncio.to_thread(live.cgroup.thaw)
            live.frozen = False
        if not force:
            if timeout < 0:
                config, _ = self._records.expanded(row)
                timeout = float(config.get("boot.host_shutdown_timeout") or DEFAULT_TIMEOUT)
            if not await self._ask(live, timeout):
                still = _names_of(live.cgroup.pids())
                said = f"{row.name} did not shut down within {timeout:g} s (still running: {still}) and was killed"
                log.warning(said)
                force = True
        if force:
            await live.supervisor.kill()
            try:
                await asyncio.wait_for(asyncio.shield(live.ended), _KILL_SECONDS)
            except TimeoutError:
                stuck = _names_of(live.cgroup.pids(), where=True)
                raise Conflict(
                    f"{row.name} has been killed and is not gone after {_KILL_SECONDS} s: the kernel waits for "
                    f"something on behalf of {stuck}; it ends when that is over"
                ) from None
        await live.ended
        return said

    async def _ask(self, live: Live, timeout: float) -> bool:
        """Ask init to shut down until it has ended or the time is up."""
        deadline = time.monotonic() + timeout
        waits = [*_ASK_AGAIN, timeout]
        for wait in waits:
            try:
                live.supervisor.signal(await live.supervisor.halt_signal())
            except ProcessLookupError:
                return True
            left = deadline - time.monotonic()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(asyncio.shield(live.supervisor.exited), max(0.0, min(wait, left)))
                return True
            if left <= wait:
                return False
        return False

    async def freeze(self, row: InstanceRow) -> None:
        """Raises `BadRequest` when it is not running, or frozen already."""
        live = self._live.get(row.id)
        if live is None:
            raise BadRequest(f"Instance {row.name!r} is not running")
        if live.frozen:
            raise BadRequest(f"The instance {row.name!r} is already frozen")
        try:
            await asyncio.to_thread(live.cgroup.freeze)
        except TimeoutError:
            stuck = _names_of(live.cgroup.pids(), where=True)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(live.cgroup.thaw)
            raise Conflict(f"Instance {row.name!r} cannot be paused: the kernel waits on behalf of {stuck}") from None
        live.frozen = True
        self._emit("instance-paused", f"/1.0/instances/{row.name}", row.project, None)

    async def thaw(self, row: InstanceRow) -> None:
        """Raises `BadRequest` when it is not frozen."""
        live = self._live.get(row.id)
        if live is None:
            raise BadRequest(f"Instance {row.name!r} is not running")
        if not live.frozen:
            raise BadRequest(f"The instance {row.name!r} is not frozen")
        await asyncio.to_thread(live.cgroup.thaw)
        live.frozen = False
        self._emit("instance-resumed", f"/1.0/instances/{row.name}", row.project, None)

    # -- the end -----------------------------------------------------------------------------------------------

    async def _on_exit(self, row: InstanceRow, live: Live, future: "asyncio.Future[Exit]") -> None:
        if future.cancelled():
            return  # the daemon is going; the instance is not
        try:
            await self._settle(row, live, future.result())
        except Exception:
            log.exception("dealing with the end of %s", row.name)
        finally:
            self._live.pop(row.id, None)
            self._node_watch.follow()
            self._limiter.balance()
            if not live.ended.done():
                live.ended.set_result(None)
        current = self._records.current(row)
        if current is None or live.stopping:
            return
        if future.result().reason == "reboot":
            await self._reboot(current)
        elif current.doc["ephemeral"]:
            self.delete_ephemeral(current)
        else:
            self.ended_by_itself(current, future.result())

    async def _settle(self, row: InstanceRow, live: Live, exit_: Exit) -> None:
        """Take away what the running instance had on the host, and write down how it ended."""
        if live.watch is not None:
            live.watch.close()
        await self._attached.ended(row, live)
        for host_name in live.nics.values():
            await self._networks.nics.detach(host_name)
        live.cgroup.remove(0)  # its supervisor has done it, unless that was killed
        self._guests.leave(row.id)
        shutil.rmtree(self._layout.instance_run(row.id), ignore_errors=True)
        current = self._records.current(row)
        if current is not None:
            self.record_end(self._attached.forget(current), exit_, live.stopping)

    def record_end(self, row: InstanceRow, exit_: Exit, stopping: str = "") -> None:
        """Write the end of an instance into its record and tell the world."""
        reason = describe(exit_)
        if stopping and exit_.reason == "signal" and exit_.code == signal.SIGKILL:
            reason = "stopped by force"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(exit_.at))
        self._records.set_volatile(
            row, last_state__power="STOPPED", last_state__ready=None, last_state__reason=reason, last_state__at=stamp
        )
        action = {"reboot": "instance-restarted", "halt": "instance-shutdown"}.get(exit_.reason, "instance-stopped")
        self._emit(action, f"/1.0/instances/{row.name}", row.project, {"reason": reason})

    async def _reboot(self, row: InstanceRow) -> None:
        async with self.lock(row):
            current = self._records.current(row)
            if current is None or current.id in self._live:
                return
            try:
                await self.start(current)
            except (ApiError, OSError) as error:
                self._warn(
                    Notice(
                        f"Instance {row.name!r} asked for a reboot and could not be started again: {error}",
                        AUTOSTART,
                        f"/1.0/instances/{row.name}",
                        row.project,
                    )
                )

    # -- the daemon comes and goes -----------------------------------------------------------------------------

    async def adopt(self, row: InstanceRow) -> str:
        """Take in an instance that an earlier daemon started: "running", "ended", "reboot" or "" (nothing there)."""
        run_dir = self._layout.instance_run(row.id)
        found = await adopt(run_dir) if os.path.isdir(run_dir) else None
        if isinstance(found, Supervisor):
            devices = nics.weighed(*self._records.expanded(row))
            row, wanted = nics.prepare(self._records, self._networks, row, devices, adopting=True)
            stored = row.doc["config"]
            attached = {
                nic["name"]: stored[f"volatile.{device}.host_name"]
                for device, nic in wanted.items()
                if self._networks.nics.connected(stored.get(f"volatile.{device}.host_name", ""), found.init_pid)
            }
            for device, nic in wanted.items():
                if nic["name"] in attached:
                    await self._networks.nics.rejoin(nic, device, row.name, attached[nic["name"]])
            # What a daemon that was killed amid a change had, or had not, plugged in.
            missing = {device for device, nic in wanted.items() if nic["name"] not in attached}
            for device in missing:
                if half_made := stored.get(f"volatile.{device}.host_name", ""):
                    await self._networks.nics.detach(half_made, found.init_pid)
            row = await self._unplug_strays(row, devices, found.init_pid)
            devices = {name: device for name, device in devices.items() if name not in missing}
            netns = os.open(f"/proc/{found.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                watch = self._networks.nics.watch(netns, lambda _state: None)
            finally:
                os.close(netns)
            frozen = self.cgroup(row).frozen()
            live = Live(found, self.cgroup(row), nics=attached, devices=devices, watch=watch, frozen=frozen)
            live.stopping = "stop" if row.doc.get("stopping") else ""
            row = await self._attached.adopt(row, live)
            await self._guests.adopt(row)
            self._take_in(row, live)
            self._limiter.adopt(row, live)
            return "running"
        self.cgroup(row).remove(0)
        await self.clear_run(row)
        if found is None:
            return ""
        for key, host_name in row.doc["config"].items():
            if key.startswith("volatile.") and key.endswith(".host_name"):
                await self._networks.nics.detach(host_name)
        self.record_end(row, found)
        if found.reason != "reboot" and not row.doc["ephemeral"] and not row.doc.get("stopping"):
            self.ended_by_itself(self._records.current(row) or row, found)
        return "reboot" if found.reason == "reboot" else "ended"

    async def adopted(self) -> None:
        """All instances that run have been taken in."""
        await self._attached.proxies.adopted()

    async def clear_run(self, row: InstanceRow) -> None:
        """The run directory of an instance that does not run, with what it tells of, goes."""
        await self._attached.proxies.clear(row)
        shutil.rmtree(self._layout.instance_run(row.id), ignore_errors=True)

    async def _unplug_strays(self, row: InstanceRow, devices: Devices, pid: int) -> InstanceRow:
        """Takes away nics that were plugged in for a change that was never written down."""
        cleared: dict[str, str | None] = {}
        for key, host_name in row.doc["config"].items():
            device = key.removeprefix("volatile.").removesuffix(".host_name")
            if key == f"volatile.{device}.host_name" and device not in devices:
                await self._networks.nics.detach(host_name, pid)
                cleared |= {f"{device}.host_name": None, f"{device}.name": None}
        return self._records.set_volatile(row, **underscored(cleared)) if cleared else row

    async def close(self) -> None:
        """Let go of the instances without touching them."""
        self._node_watch.close()
        self._attached.proxies.close()
        for live in self._live.values():
            if live.watch is not None:
                live.watch.close()
        for task in self._tasks:
            task.cancel()


def describe(exit_: Exit) -> str:
    """How an instance ended, for ``volatile.last_state.reason``."""
    if exit_.reason == "signal":
        try:
            name = signal.Signals(exit_.code).name
        except ValueError:
            name = str(exit_.code)
        return f"init was killed by {name}"
    if exit_.reason == "exit":
        return f"init exited with status {exit_.code}"
    return _REASONS.get(exit_.reason, exit_.reason)


def _names_of(pids: list[int], where: bool = False) -> str:
    """Some processes by name and number; with `where` only those that no signal reaches, and where they wait."""
    names = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                comm, _, rest = file.read().partition("(")[2].rpartition(")")
            place = ""
            if where:
                if rest.split()[0] != "D":
                    continue
                with open(f"/proc/{pid}/wchan", encoding="ascii") as file:
                    place = f", {file.read()}"
            names.append(f"{comm} ({pid}{place})")
        except OSError:
            continue
    if where and not names:
        return _names_of(pids)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more or "nothing"


async def _nothing(_row: InstanceRow) -> None:
    pass

"""The instance manager: what the API's instance routes ask for."""

import asyncio
import builtins
import contextlib
import logging
import os
import shutil
import socket
from collections.abc import Callable
from typing import Any

from lxpy.api import status, values
from lxpy.api.errors import CHANGED, ApiError, BadRequest, Forbidden, NotFound, PreconditionFailed
from lxpy.api.layout import Layout, qualified
from lxpy.api.notices import ADOPTION, LEFTOVERS, Kind, Notice
from lxpy.api.objects import Config, Devices, Instance, InstanceState
from lxpy.images.manager import ImageManager, Progress
from lxpy.instances import boot, changes, hotplug, idmaps, keys, render, rootsize
from lxpy.instances import devices as device_rules
from lxpy.instances.attachments import Attachments
from lxpy.instances.autorestart import AutoRestart
from lxpy.instances.backups import Backups
from lxpy.instances.boot import Boot
from lxpy.instances.copies import Copies
from lxpy.instances.create import Creation
from lxpy.instances.disks import Disks
from lxpy.instances.exports import Exports
from lxpy.instances.files import Files
from lxpy.instances.guests import Guests
from lxpy.instances.imagefiles import ImageFiles
from lxpy.instances.imports import Imports
from lxpy.instances.lifecycle import Emit, Lifecycle
from lxpy.instances.moves import Moves
from lxpy.instances.nodes import Nodes
from lxpy.instances.parts import Parts
from lxpy.instances.projectrules import ProjectRules
from lxpy.instances.proxies import Proxies
from lxpy.instances.publish import Publishing
from lxpy.instances.rebuild import Rebuilding
from lxpy.instances.records import Records
from lxpy.instances.recover import Recovery
from lxpy.instances.seeds import Seeds
from lxpy.instances.snapshotkeeper import SnapshotKeeper
from lxpy.instances.snapshots import Snapshots
from lxpy.instances.templating import Templates
from lxpy.instances.usage import Meter
from lxpy.instances.waiting import Waiting
from lxpy.networks.leases import holder
from lxpy.networks.manager import NetworkManager
from lxpy.profiles.manager import ProfileManager
from lxpy.runtime.cgroup import InstanceCgroup
from lxpy.runtime.spawner_client import ExecFiles, ExecRequest, Spawner
from lxpy.state.store import Document, InstanceRow, Store
from lxpy.state.volumes import VolumeRow
from lxpy.storage import retention
from lxpy.storage.manager import StorageManager
from lxpy.storage.volumes import VolumeManager

log = logging.getLogger("lxpy.instances")

# The PATH a login on Debian has; LXD gives the same six.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class InstanceManager:
    """Creates, changes, runs and deletes instances.

    Args:
        emit: makes a lifecycle event (action, source URL, project, context).
        warn: records a warning for the administrator.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        spawner: Spawner,
        images: ImageManager,
        networks: NetworkManager,
        storage: StorageManager,
        volumes: VolumeManager,
        profiles: ProfileManager,
        emit: Emit,
        warn: Callable[[str], None],
    ) -> None:
        self._layout, self._spawner = layout, spawner
        self._images, self._networks, self._storage, self._profiles = images, networks, storage, profiles
        self._emit, self._warn = emit, warn
        self._records = Records(store, profiles.expand)
        self.rules = ProjectRules(self._records, store)
        self._disks = Disks(self._records, volumes, spawner, warn, self.rules.disk_paths)
        self.guests = Guests(self._records, layout, emit)
        attached = Attachments(
            self._disks, Nodes(self._records, spawner, warn), Proxies(layout, spawner, networks.proxies, warn)
        )
        self._life = Lifecycle(
            self._records, layout, spawner, images, networks, storage, attached, self.guests, emit, warn
        )
        self._life.delete_ephemeral = self._delete_later
        self.meter = Meter(self._records, self._life.live, networks.nics.shown)
        self.files = Files(self._records, self._life, storage, spawner)
        self._templates = Templates(self._records, images, storage, warn)
        self._life.before_start = Seeds(self._records, storage, self._templates.before_start, warn).before_start
        self._creation = Creation(
            self._records, images, storage, profiles, self._templates, self._check_references, self.rules
        )
        self.backups = Backups(self._records, store, storage, profiles, warn)
        self.snapshots = Snapshots(
            self._records, store, storage, profiles, self._life, self.rules, self.backups, self._check_references, emit
        )
        parts = Parts(
            store, layout, self._records, self._life, images, storage, profiles, self._templates, self._creation,
            self.rules, self.snapshots, self._check_references, emit, warn, self.backups.save,
        )  # fmt: skip
        self.publishing, self.exports, self.imports = Publishing(parts), Exports(parts), Imports(parts)
        self.rebuilding, self.image_files = Rebuilding(parts), ImageFiles(parts)
        self.recovery = Recovery(parts, volumes, networks, self.snapshots)
        self.keeper = SnapshotKeeper(self._records, store, self._life, self.snapshots, warn)
        self._life.after_start += [self.backups.started, self.keeper.started]
        self.copies = Copies(parts, self.snapshots)
        self.moves = Moves(parts, self.snapshots, self._release)
        self._tasks: set[asyncio.Task[None]] = set()
        self.boot = Boot(self._records, self._life, spawner, lambda row: self._begin(row), warn)
        self.restarts = AutoRestart(self._records, self._life, lambda row: self._begin(row), warn)
        self._life.ended_by_itself = self.restarts.ended
        self.waiting = Waiting(parts, self._undo_half_made, self.moves, self.snapshots, self.boot.autostart)

    # -- the daemon comes and goes -----------------------------------------------------------------------------

    async def start(self) -> None:
        """Finish or undo what a crash left half done, adopt what runs, start what should run."""
        os.makedirs(self._layout.instances, mode=0o700, exist_ok=True)
        wanted: list[InstanceRow] = []
        for row in self._records:
            if row.doc.get("creating") or row.doc.get("deleting"):
                await self._undo_half_made(row)
                continue
            ran = row.doc["config"].get("volatile.last_state.power") == "RUNNING"
            try:
                row = await self.moves.settle(row)
                row = await self.snapshots.settle(await self.rebuilding.settle(row))
                found = await self._life.adopt(row)
                row, again = await self.snapshots.settle_restore(self._records.current(row) or row)
            except (ApiError, OSError) as error:
                self._warn(_notice(row, f"Instance {row.name!r} could not be taken over: {error}", ADOPTION))
                continue
            current = self._records.current(row) or row
            try:
                async with self._life.plugged(current, *self._records.expanded(current)):
                    pass
            except (ApiError, OSError) as error:
                self._warn(
                    _notice(row, f"A device of instance {row.name!r} could not be plugged in again: {error}", ADOPTION)
                )
            again = (again and not self._life.live(row)) or (found == "" and self.boot.wants(current, ran))
            if found == "reboot" or again:
                wanted.append(current)
            elif found == "" and ran:
                self._records.set_volatile(current, last_state__power="STOPPED")
            elif found == "ended" and current.doc["ephemeral"]:
                self._delete_later(current)
            elif found == "":
                self.restarts.resume(current)
        await self._life.adopted()
        self._sweep()
        self.backups.start()
        self.exports.start()
        self._life.sweep_profiles()
        await self._networks.nics.sweep(self._life.host_names())
        self.waiting.add(wanted)
        if wanted:
            self._keep(self.boot.autostart(wanted))

    async def close(self) -> None:
        """Let go of the instances without touching them."""
        self.restarts.close()
        self.waiting.close()
        for task in self._tasks:
            task.cancel()
        await self.files.close()
        await self._life.close()
        await self.backups.close()
        self.exports.close()

    async def shutdown(self) -> None:
        """The host goes down: every instance is stopped; see `Boot.shutdown`."""
        self.restarts.close()
        await self.boot.shutdown()

    async def _undo_half_made(self, row: InstanceRow) -> None:
        word = "created" if row.doc.get("creating") else "deleted"
        text = f"Instance {row.name!r} was being {word} when the daemon ended; what was left of it is removed"
        self._warn(_notice(row, text, LEFTOVERS))
        try:
            await self._remove(row)
        except (ApiError, OSError) as error:
            self._warn(_notice(row, f"The rest of instance {row.name!r} could not be removed: {error}", LEFTOVERS))

    def _sweep(self) -> None:
        """Remove run directories that belong to no instance."""
        known = {str(row.id) for row in self._records}
        for entry in os.listdir(self._layout.instances):
            if entry not in known:
                shutil.rmtree(f"{self._layout.instances}/{entry}", ignore_errors=True)

    def _keep(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- reading -----------------------------------------------------------------------------------------------

    def list(self, project: str, all_projects: bool = False) -> list[Instance]:
        """All instances by name, without state."""
        merged: dict[str, Any] = {}
        rows = sorted((r for r in self._records if all_projects or r.project == project), key=lambda r: r.name)
        return [self._object(row, merged) for row in rows if not row.doc.get("creating")]

    def get(self, project: str, name: str) -> Instance:
        """Raises `NotFound`."""
        return self._object(self._records.get(project, name), {})

    def _object(self, row: InstanceRow, merged: dict[str, Any]) -> Instance:
        live = self._life.live(row)
        expanded = self._expand_cached(row, merged)
        return render.instance(row, live.status_code(row) if live else status.STOPPED, expanded)

    def _expand_cached(self, row: InstanceRow, merged: dict[str, Any]) -> tuple[Config, Devices]:
        """Profiles are merged once per list of profiles, not once per instance."""
        key = "\0".join((row.project, *row.doc["profiles"]))
        if key not in merged:
            merged[key] = self._profiles.expand(row.project, row.doc["profiles"], {}, {})
        config, devices = merged[key]
        return {**config, **row.doc["config"]}, {**devices, **row.doc["devices"]}

    def render_state(self, project: str, name: str, fields: "set[str] | None" = None) -> InstanceState:
        """The state of one instance; `fields` (cpu, memory, network, disk, processes) says which parts are wanted."""
        row = self._records.get(project, name)
        state = render.state(row, self._life.live(row), fields, self._networks.nics.shown)
        if fields is None or "disk" in fields:
            state["disk"] = rootsize.usage(self._storage, row, self._records.expanded(row)[1])
        return state

    def used_by(self, kind: str, name: str) -> builtins.list[str]:
        """URLs of the instances that use a profile, network, storage-pool or image."""
        found = []
        for row in self._records:
            if self._records.uses(row, kind, name):
                suffix = "" if row.project == "default" else f"?project={row.project}"
                found.append(f"/1.0/instances/{row.name}{suffix}")
        return found

    def using_volume(self, volume: VolumeRow, *, running: bool = False) -> builtins.list[InstanceRow]:
        """The instances that a custom volume is attached to; with `running` only those that run."""
        return [row for row in self._disks.users(volume) if not running or self._life.live(row)]

    def check_profile(self, home: str, name: str) -> None:
        """A profile is to become what it is now: refuse what an instance of it could not live with.

        Raises:
            BadRequest: an instance would lose its root disk, move to another pool or change its privilege.
            Forbidden: a project of an instance, or of the profile, does not allow it.
        """
        users = self._profile_users(home, name)
        for project in {home, *(row.project for row in users)}:
            self.rules.check_project(project, asks=f"profile {name!r}")
        for row in users:
            config, devices = self._records.expanded(row)
            try:
                boot.check_circle(self._records, row.project, row.name, config)
                retention.check_plans(config)
                device_rules.validate(devices, expanded=True)
            except BadRequest as error:
                raise BadRequest(f"Instance {row.name!r} uses this profile: {error}") from None
            if device_rules.root_pool(devices) != row.pool:
                raise BadRequest(f"Instance {row.name!r} uses this profile and lies on the pool {row.pool!r}")
            self._check_references(devices, row.project)
            rootsize.check(self._storage, row.pool, devices)
            if idmaps.privileged(config) != (row.idmap_base is None):
                raise BadRequest(
                    f"Instance {row.name!r} uses this profile: set security.privileged on the instance itself"
                )

    async def profile_changed(self, home: str, name: str) -> None:
        """A profile has changed: its instances get their new devices and limits, or none of them does."""
        users = self._profile_users(home, name)
        async with contextlib.AsyncExitStack() as undo:
            for row in users:
                await undo.enter_async_context(self._life.lock(row))
                if current := self._records.current(row):
                    config, devices = self._records.expanded(current)
                    await undo.enter_async_context(self._life.plugged(current, config, devices))
                    await undo.enter_async_context(rootsize.applied(self._storage, current, devices))
            for row in users:
                self._life.apply_limits(row)
        for row in users:
            self.backups.save(row)

    def profile_restored(self, home: str, name: str) -> None:
        """A change was taken back: the limits that instances already had from it go, too."""
        for row in self._profile_users(home, name):
            self._life.restore_limits(row)

    def _profile_users(self, home: str, name: str) -> builtins.list[InstanceRow]:
        return [r for r in self._records if name in r.doc["profiles"] and self._profiles.home(r.project) == home]

    # -- create ------------------------------------------------------------------------------------------------

    def validate_config(self, config: Config, devices: Devices) -> None:
        """What profiles are checked with: keys and devices, no root disk asked for.

        Raises:
            BadRequest, NotFound: a fault in them, or a pool or network that is not there.
        """
        keys.validate_config(config)
        device_rules.validate(devices)
        self._check_references(devices)

    def _check_references(self, devices: Devices, project: str = "") -> None:
        """Raises `NotFound` for a pool, network or (with the project that asks) custom volume that is not there."""
        if project:
            self._disks.check(project, devices)
        for device in devices.values():
            if device.get("type") == "disk" and device.get("pool"):
                self._storage.pool(device["pool"])
            elif device.get("type") == "nic" and (network := device.get("network")):
                self._networks.get(network)

    def validate_create(self, project: str, body: dict[str, Any]) -> None:
        """The faults of a create request that can be told before any work; fills in a name when there is none.

        Raises:
            BadRequest, NotFound, Conflict: the request cannot succeed.
        """
        self._creation.validate(project, body)

    async def create(self, project: str, body: dict[str, Any], progress: Progress) -> str:
        """From a request to a stopped instance; with ``start: true`` in it, to a running one.

        Returns:
            Its name.
        """
        row = await self._creation.create(project, body, progress)
        self.backups.save(row)
        self._emit("instance-created", f"/1.0/instances/{row.name}", project, None)
        if body.get("start"):
            progress("create_instance_from_image_unpack_progress", "")
            try:
                if said := await self.set_state(project, row.name, "start", -1, False):
                    progress("note", said)
            except asyncio.CancelledError:
                # Whoever takes a launch back wants no stopped instance in its place.
                await self.delete(project, row.name, force=True)
                raise
        return row.name

    # -- update, rename, delete --------------------------------------------------------------------------------

    def validate_update(self, project: str, name: str, body: dict[str, Any], patch: bool = False) -> Document:
        """The faults of a change that can be told before any work.

        Returns:
            What the instance is now, for `update`.

        Raises:
            BadRequest, NotFound, Forbidden: the change cannot succeed.
        """
        row = self._records.get(project, name)
        self._changed(row, body, patch)
        return row.doc

    def _changed(self, row: InstanceRow, body: dict[str, Any], patch: bool) -> tuple[Document, Config, Devices]:
        """The document that an instance is to have, and its expanded configuration and devices, checked."""
        doc = {**row.doc, **changes.merged(row.doc, body, patch)}
        keys.validate_config(doc["config"])
        keys.check_volatile(doc["config"], row.doc["config"])
        device_rules.validate(doc["devices"])
        config, devices = self._profiles.expand(row.project, doc["profiles"], doc["config"], doc["devices"])
        keys.validate_config(config)
        boot.check_circle(self._records, row.project, row.name, config)
        retention.check_plans(config)
        device_rules.validate(devices, expanded=True)
        if device_rules.root_pool(devices) != row.pool:
            raise BadRequest(f"The root disk of {row.name!r} cannot change its pool: it lies on {row.pool!r}")
        self._check_references(devices, row.project)
        self.rules.check(row.project, row.name, config, devices)
        self.rules.check_volatile(row.project, row.name, doc["config"], row.doc["config"])
        self._check_privilege(row, config)
        return doc, config, devices

    async def update(
        self, project: str, name: str, body: dict[str, Any], read: Document, *, patch: bool = False, alone: bool = False
    ) -> None:
        """Change description, ephemeral, profiles, config, devices. PUT replaces, PATCH merges; limits act at once.

        Args:
            read: what the instance was when the change was asked for; others may have changed it since.
            alone: then it is refused (``If-Match``).
        """
        async with self._life.lock(self._records.get(project, name)):
            before = row = self._records.get(project, name)
            if alone and changes.asked(row.doc) != changes.asked(read):
                raise PreconditionFailed(CHANGED)
            doc, config, devices = self._changed(row, changes.without_known(body, read), patch)
            row = self._records.set_privileged(row, idmaps.privileged(config))
            async with self._life.plugged(row, config, devices), rootsize.applied(self._storage, row, devices):
                self._check_references(devices, project)  # a volume may have gone while others were plugged in
                self.rules.check(project, name, config, devices)
                row = self._records.get(project, name)
                doc["config"] = hotplug.merged(doc["config"], before.doc["config"], row.doc["config"])
                row = self._records.change(row, **{k: doc[k] for k in changes.MUTABLE})
                if not self._life.live(row):
                    # What it asks for no more others may have, before it is started again.
                    for device, had in self._records.expanded(before)[1].items():
                        if devices.get(device) != had:
                            self._release(row, {device: had}, device)
                try:
                    self._life.apply_limits(row)
                except ApiError:
                    row = self._records.change(row, **{k: before.doc[k] for k in changes.MUTABLE})
                    self._life.restore_limits(row)
                    raise
        self.backups.save(row)
        self._emit("instance-updated", f"/1.0/instances/{name}", project, None)

    def _check_privilege(self, row: InstanceRow, config: Config) -> None:
        if idmaps.privileged(config) != (row.idmap_base is None) and self._life.live(row):
            raise BadRequest(f"security.privileged of {row.name!r} cannot change while it runs: stop it first")

    def validate_delete(self, project: str, name: str, force: bool) -> InstanceRow:
        """The instance, if it may be deleted.

        Raises:
            BadRequest: it is running, without `force`.
            Forbidden: ``security.protection.delete`` is set.
        """
        row = self._records.get(project, name)
        config, _ = self._records.expanded(row)
        if values.boolean("security.protection.delete", config.get("security.protection.delete") or "false"):
            raise Forbidden(f"Instance {name!r} is protected: unset security.protection.delete to delete it")
        if self._life.live(row) and not force:
            raise BadRequest(f"Instance {name!r} is running: stop it first, or delete it with -f")
        return row

    async def delete(self, project: str, name: str, force: bool = False) -> None:
        """Delete a stopped instance; with `force` a running one is ended first. Raises as `validate_delete`."""
        row = self.validate_delete(project, name, force)
        config, _ = self._records.expanded(row)
        async with self._life.lock(row):
            row = self.validate_delete(project, name, force)
            if self._life.live(row):
                await self._life.stop(row, 0, force=True, why="delete")
                row = self._records.get(project, name)
            self._storage.need(row.pool)
            await self._remove(self._records.change(row, deleting=True))
        self._life.forget(row)
        if "raw.apparmor" in config:
            self._life.sweep_profiles()
        self._emit("instance-deleted", f"/1.0/instances/{name}", project, None)

    async def _remove(self, row: InstanceRow) -> None:
        """Take away all an instance has; safe to repeat after a crash."""
        await self.files.release(row)
        with contextlib.suppress(NotFound):
            self._release(row, self._records.expanded(row)[1])
        await asyncio.to_thread(_clear_cgroup, self._life.cgroup(row))
        await self._life.clear_run(row)
        with contextlib.suppress(NotFound):
            await self._storage.pool(row.pool).delete_instance(qualified(row.project, row.name))
        shutil.rmtree(self._layout.instance_log(row.project, row.name), ignore_errors=True)
        self.exports.forget(row)
        self._records.delete(row)
        self.snapshots.forget(row)

    def _release(self, row: InstanceRow, devices: Devices, name: str = "") -> None:
        """The addresses of a stopped instance: of one nic, or of all that it ever had on these nics' networks."""
        for device in devices.values():
            if device.get("type") == "nic" and (network := device.get("network")):
                with contextlib.suppress(ApiError):
                    self._networks.nics.release(network, holder(row.project, row.name), name)

    def _delete_later(self, row: InstanceRow) -> None:
        async def work() -> None:
            try:
                await self.delete(row.project, row.name)
            except (ApiError, OSError) as error:
                self._warn(
                    _notice(row, f"The ephemeral instance {row.name!r} could not be deleted: {error}", LEFTOVERS)
                )

        self._keep(work())

    # -- state, exec, console ----------------------------------------------------------------------------------

    async def set_state(self, project: str, name: str, action: str, timeout: float, force: bool) -> str:
        """start, stop, restart, freeze or unfreeze. Returns a line worth telling, or ""."""
        row = self._records.get(project, name)
        if action not in ("start", "stop", "restart", "freeze", "unfreeze"):
            raise BadRequest(f"Unknown state action {action!r}: use start, stop, restart, freeze or unfreeze")
        if action == "stop" and not self._life.live(row) and self.restarts.cancel(row):
            return f"{name} was waiting to be started again; it stays stopped"
        if action == "start" and not self._life.live(row):
            self.restarts.cancel(row)
            return await self._begin(self._records.get(project, name))
        async with self._life.lock(row):
            row = self._records.get(project, name)
            if action == "start" and (live := self._life.live(row)) and live.frozen:
                action = "unfreeze"  # as LXD's start does
            if action == "start":
                await self._life.start(row)
            elif action == "freeze":
                await self._life.freeze(row)
            elif action == "unfreeze":
                await self._life.thaw(row)
            elif action == "stop":
                said = await self._life.stop(row, timeout, force)
                if row.doc["ephemeral"]:
                    self._delete_later(row)
                return said
            else:
                if self._life.live(row):
                    await self._life.check_start(row)  # while it is not down yet
                said = await self._life.stop(row, timeout, force, why="restart")
                await self._life.start(self._records.get(project, name))
                self._emit("instance-restarted", f"/1.0/instances/{name}", project, None)
                return said
        return ""

    async def _begin(self, row: InstanceRow) -> str:
        """Start it, after what it requires. A line about what was waited for in vain, or ""."""
        said = await self.boot.satisfy(row)
        async with self._life.lock(row):
            row = self._records.get(row.project, row.name)
            if not self.boot.begun(row):
                await self._life.start(row)
        return said

    async def exec(self, project: str, name: str, request: ExecRequest) -> ExecFiles:
        """Run a command inside. Fills in what the request leaves open: PATH, HOME, USER, LANG, environment.* keys."""
        row = self._records.get(project, name)
        live = self._life.require(row)
        if not request["command"]:
            raise BadRequest("No command given")
        config, _ = self._records.expanded(row)
        environment = {"PATH": _PATH, "LANG": "C.UTF-8"}
        if request["user"] == 0:
            environment |= {"HOME": "/root", "USER": "root"}
        environment |= {k[len("environment.") :]: v for k, v in config.items() if k.startswith("environment.")}
        request["environment"] = environment | request["environment"]
        return await self._spawner.exec(live.supervisor, request)

    async def console(self, project: str, name: str) -> socket.socket:
        """A stream of the console: what the ring buffer holds, then live, both ways."""
        return await self._life.require(self._records.get(project, name)).supervisor.console()

    async def resize_console(self, project: str, name: str, width: int, height: int) -> None:
        live = self._life.require(self._records.get(project, name))
        await live.supervisor.resize_console(width, height)

    def clear_console_log(self, project: str, name: str) -> None:
        row = self._records.get(project, name)
        with contextlib.suppress(FileNotFoundError):
            os.truncate(f"{self._layout.instance_log(row.project, row.name)}/console.log", 0)


def _clear_cgroup(cgroup: InstanceCgroup) -> None:
    """For what a crash left behind; after an orderly end there is nothing to do."""
    cgroup.kill()
    cgroup.remove(supervisor=True)


def _notice(row: InstanceRow, text: str, kind: Kind) -> Notice:
    return Notice(text, kind, f"/1.0/instances/{row.name}", row.project)

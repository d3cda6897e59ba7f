"""Devices that come, go and change while their instance runs: a table of kinds, each undone by its own inverse.

A kind that is not in the table takes effect at the next start.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from lxpy.api.errors import Conflict
from lxpy.api.objects import Config, Devices
from lxpy.instances import nics
from lxpy.instances.live import Live
from lxpy.instances.records import Records, underscored
from lxpy.linux import pidfd
from lxpy.networks.leases import holder
from lxpy.networks.manager import NetworkManager
from lxpy.networks.nicextras import IN_PLACE
from lxpy.networks.nics import random_host_name
from lxpy.state.store import InstanceRow

Device = dict[str, str]


@dataclass
class Running:
    """A running instance whose devices change to `wanted`; its lock is held."""

    row: InstanceRow
    live: Live
    wanted: Devices = field(default_factory=dict)


class Kind(Protocol):
    """One type of device. What it raises is an `ApiError` with one line, and then it has changed nothing."""

    async def plug(self, running: Running, name: str, device: Device) -> None: ...

    async def unplug(self, running: Running, name: str, device: Device) -> None: ...


@runtime_checkable
class Changing(Kind, Protocol):
    """A kind some of whose devices change without going."""

    def in_place(self, old: Device, new: Device) -> bool: ...

    async def change(self, running: Running, name: str, device: Device) -> None: ...


Kinds = Mapping[str, Kind]


@contextlib.asynccontextmanager
async def applied(kinds: Kinds, running: Running, devices: Devices) -> AsyncIterator[None]:
    """Gives a running instance these expanded devices; a failure on the way or in the body brings the old ones back.

    What goes, goes before anything comes: an address or interface name may pass from one device to another.

    Raises:
        ApiError: of the device that could not be changed.
    """
    old, running.wanted = running.live.devices, devices
    changed = {name for name, one in devices.items() if name in old and _in_place(kinds, old[name], one)}
    gone = [
        (name, one)
        for name, one in old.items()
        if devices.get(name) != one and one.get("type") in kinds and name not in changed
    ]
    come = [
        (name, one)
        for name, one in devices.items()
        if old.get(name) != one and one.get("type") in kinds and name not in changed
    ]
    # Mounts below others go before them, and come after; so do those that stay and would be covered.
    places = [place for one in come if (place := _place(one))]
    covered = [
        (name, one)
        for name, one in old.items()
        if devices.get(name) == one
        and (place := _place((name, one)))
        and any(place[: len(above)] == above and place != above for above in places)
    ]
    gone += covered
    come += covered
    gone.sort(key=_place, reverse=True)
    come.sort(key=_place)
    async with contextlib.AsyncExitStack() as undo:
        for name, device in gone:
            kind = kinds[device["type"]]
            await kind.unplug(running, name, device)
            undo.push_async_callback(kind.plug, running, name, device)
        for name in changed:
            kind = kinds[devices[name]["type"]]
            assert isinstance(kind, Changing)
            undo.push_async_callback(kind.change, running, name, old[name])
            await kind.change(running, name, devices[name])
        for name, device in come:
            kind = kinds[device["type"]]
            await kind.plug(running, name, device)
            undo.push_async_callback(kind.unplug, running, name, device)
        running.live.devices = devices
        undo.callback(setattr, running.live, "devices", old)
        yield
        undo.pop_all()


def _place(named: tuple[str, Device]) -> list[str]:
    device = named[1]
    return device.get("path", "").strip("/").split("/") if device.get("type") == "disk" else []


def _in_place(kinds: Kinds, old: Device, new: Device) -> bool:
    kind = kinds.get(new.get("type", ""))
    return old != new and old.get("type") == new.get("type") and isinstance(kind, Changing) and kind.in_place(old, new)


class NicPlugs:
    """Hot-plugs nics."""

    def __init__(self, records: Records, networks: NetworkManager) -> None:
        self._records, self._networks = records, networks

    async def plug(self, running: Running, name: str, device: Device) -> None:
        live = running.live
        row = self._records.current(running.row) or running.row
        known = row.doc["config"].get(f"volatile.{name}.hwaddr")
        row, wanted = nics.prepare(self._records, self._networks, row, {name: device}, set(live.nics))
        nic = wanted[name]
        try:
            if nic["name"] in live.nics:
                raise Conflict(f"The nic {name!r} cannot be called {nic['name']!r} inside: another nic has that name")
            # Written down first: killed at any moment, the next daemon knows what to look for.
            nic.setdefault("host_name", random_host_name())
            volatile = {f"{name}.host_name": nic["host_name"], f"{name}.name": nic["name"]}
            row = self._records.set_volatile(row, **underscored(volatile))
            netns = os.open(f"/proc/{live.supervisor.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                if not pidfd.alive(live.supervisor.init_pidfd):
                    raise Conflict(f"Instance {row.name!r} has just stopped")
                host_name = await self._networks.nics.attach(nic, name, row.name, netns)
            finally:
                os.close(netns)
        except BaseException:
            cleared: dict[str, str | None] = {f"{name}.host_name": None, f"{name}.name": None, f"{name}.hwaddr": known}
            running.row = self._records.set_volatile(self._records.current(row) or row, **underscored(cleared))
            if network := nic.get("network"):
                self._networks.nics.release(network, holder(row.project, row.name), name)
            raise
        live.nics[nic["name"]] = host_name
        running.row = row

    def in_place(self, old: Device, new: Device) -> bool:
        differ = {key for key in {*old, *new} if old.get(key) != new.get(key)}
        return differ <= IN_PLACE and old.get("nictype") != "routed"

    async def change(self, running: Running, name: str, device: Device) -> None:
        row = self._records.current(running.row) or running.row
        config = row.doc["config"]
        hwaddr = device.get("hwaddr") or config.get(f"volatile.{name}.hwaddr", "")
        await self._networks.nics.change({**device, "hwaddr": hwaddr}, name, config[f"volatile.{name}.host_name"])

    async def unplug(self, running: Running, name: str, device: Device) -> None:
        row = self._records.current(running.row) or running.row
        config = row.doc["config"]
        host_name = config.get(f"volatile.{name}.host_name", "")
        if host_name:
            await self._networks.nics.detach(host_name, running.live.supervisor.init_pid)
            await self._networks.nics.gone(host_name)
        live = running.live
        live.nics = {guest: host for guest, host in live.nics.items() if host != host_name}
        if network := device.get("network"):
            self._networks.nics.release(network, holder(row.project, row.name), name)
        cleared: dict[str, str | None] = {f"{name}.host_name": None, f"{name}.name": None}
        running.row = self._records.set_volatile(row, **underscored(cleared))


def merged(wanted: Config, before: Config, now: Config) -> Config:
    """A configuration to be written, with the volatile keys that plugging has changed meanwhile."""
    changed = {key for key in {*before, *now} if key.startswith("volatile.") and before.get(key) != now.get(key)}
    return {key: value for key, value in wanted.items() if key not in changed} | {
        key: now[key] for key in changed if key in now
    }

"""Proxy devices of running instances: one process each, or rules of the kernel's (nat).

A process outlives the daemon. What is known of it lies in the instance's run directory (``proxy-NAME.json``), written
before it may serve: the next daemon takes it in, or ends it when no device is like that any more.
"""

import asyncio
import json
import os
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lxpy.api.errors import ApiError, BadRequest, Conflict, InternalError
from lxpy.api.layout import Layout, qualified
from lxpy.api.notices import PROXY, Notice
from lxpy.api.objects import Devices
from lxpy.instances import proxyrules
from lxpy.instances.hotplug import Device, Running
from lxpy.instances.live import Live
from lxpy.linux import pidfd
from lxpy.networks.proxynat import Lead, ProxyNat
from lxpy.runtime.attach import guest_path
from lxpy.runtime.proxy import remove_stale
from lxpy.runtime.spawner_client import Spawner
from lxpy.runtime.spec import ProxyAddress, ProxySpec
from lxpy.state.store import InstanceRow

_END_SECONDS = 1.0
_AGAIN = (0.5, 1.0, 2.0, 5.0, 10.0)  # seconds before a process that died is started again
_YOUNG = 60.0  # seconds; who lived longer starts counting anew
_HIDDEN_SECONDS = 8  # how long a booting guest may mount something over a socket that was made in it


@dataclass
class _Process:
    """A proxy's process. `deaths`: how often in a row it has died soon."""

    row: InstanceRow
    live: Live
    device: Device
    pid: int
    fd: int
    since: float
    deaths: int = 0


class Proxies:
    """What proxy devices mean; a kind of `hotplug`. Its caller holds the instance's lock."""

    def __init__(self, layout: Layout, spawner: Spawner, nat: ProxyNat, warn: Callable[[str], None]) -> None:
        self._layout, self._spawner, self._nat, self._warn = layout, spawner, nat, warn
        self._processes: dict[tuple[int, str], _Process] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.lock: Callable[[InstanceRow], asyncio.Lock] = lambda row: asyncio.Lock()

    # -- the instance starts and ends --------------------------------------------------------------------------

    async def started(self, row: InstanceRow, live: Live) -> None:
        """Its init runs. Raises `ApiError` for a proxy that cannot be had."""
        for name, device in live.devices.items():
            if device.get("type") == "proxy":
                await self._begin(row, live, name, device, booting=True)

    async def ended(self, row: InstanceRow, live: Live) -> None:
        """It has ended, and its proxies do: back when they have."""
        mine = [key for key in self._processes if key[0] == row.id]
        for key in mine:
            await self._end(key)
        for name in live.devices:
            await self._nat.lead(row.id, name, None)
        if mine:
            live.cgroup.remove(0.2, supervisor=True)  # the supervisor could not, with a proxy in it

    async def clear(self, row: InstanceRow) -> None:
        """Takes away what proxies of an instance that does not run may have left."""
        for name, note in self._notes(row):
            await self._clear(row, name, note, patience=0 if note["pid"] else 1)

    # -- while it runs -----------------------------------------------------------------------------------------

    async def plug(self, running: Running, name: str, device: Device) -> None:
        await self._begin(running.row, running.live, name, device, devices=running.wanted)

    async def unplug(self, running: Running, name: str, device: Device) -> None:
        if proxyrules.nat(device):
            await self._nat.lead(running.row.id, name, None)
            _hairpin(running.live, any(_is_nat(one) for other, one in running.live.devices.items() if other != name))
            return
        await self._end((running.row.id, name))
        await self._clean_inside(running.live, device)

    async def settle(self, row: InstanceRow, live: Live) -> None:
        """Devices have changed: proxies with nat lead where the nics are now."""
        for name, device in live.devices.items():
            if _is_nat(device):
                try:
                    await self._nat.lead(row.id, name, self._lead(row, live.devices, name, device))
                    _hairpin(live, True)
                except ApiError as error:
                    self._tell(row, str(error))

    async def adopt(self, row: InstanceRow, live: Live) -> None:
        """After a restart of the daemon: takes in the processes that fit, ends others; the rest is plugged in again."""
        for name, note in self._notes(row):
            fd = pidfd.open_verified(note["pid"], note["start"]) if note["pid"] else -1
            if fd >= 0 and live.devices.get(name) == note["device"]:
                self._watch(_Process(row, live, note["device"], note["pid"], fd, _now()), name)
                continue
            if fd >= 0:
                os.close(fd)
            await self._clear(row, name, note, patience=0 if note["pid"] else 1)
            await self._clean_inside(live, note["device"])
        for name, device in list(live.devices.items()):
            if device.get("type") == "proxy" and not proxyrules.nat(device) and (row.id, name) not in self._processes:
                live.devices = {key: one for key, one in live.devices.items() if key != name}

        await self.settle(row, live)

    async def adopted(self) -> None:
        """All instances have been taken in: the rules are what they are to be."""
        try:
            await self._nat.load()
        except ApiError as error:
            self._warn(Notice(str(error), PROXY))

    def close(self) -> None:
        """Lets go of the processes without touching them."""
        for task in self._tasks:
            task.cancel()
        loop = asyncio.get_running_loop()
        for process in self._processes.values():
            loop.remove_reader(process.fd)
            os.close(process.fd)
        self._processes.clear()

    # -- one proxy ---------------------------------------------------------------------------------------------

    async def _begin(
        self, row: InstanceRow, live: Live, name: str, device: Device, *, booting: bool = False, deaths: int = 0,
        devices: Devices | None = None,
    ) -> None:  # fmt: skip
        if proxyrules.nat(device):
            lead = self._lead(row, live.devices if devices is None else devices, name, device)
            await self._nat.lead(row.id, name, lead)
            _hairpin(live, True)
            return
        proxy = self._spec(row, name, device)

        def listening(pid: int, start: int) -> None:
            fd = pidfd.open_verified(pid, start)
            if fd < 0:
                raise Conflict(f"The process of proxy {name!r} was killed")
            try:
                self._note(row, name, {"device": device, "pid": pid, "start": start})
            except BaseException:
                os.close(fd)
                raise
            self._watch(_Process(row, live, device, pid, fd, _now(), deaths), name)

        # Written down first: killed at any moment, the next daemon knows what socket there may be.
        self._note(row, name, {"device": device, "pid": 0, "start": 0})
        try:
            await self._spawner.proxy(live.supervisor, proxy, listening)
        except BaseException as error:
            if booting and isinstance(error, ApiError) and _in_guest_files(device):
                # The guest has not made, or mounted, the directory yet.
                self._keep(self._see_to(row, live, name, device))
                return
            await self._clear(row, name, {"device": device, "pid": 0, "start": 0})
            raise
        if booting and _in_guest_files(device):
            self._keep(self._see_to(row, live, name, device))

    async def _end(self, key: tuple[int, str]) -> None:
        """Ends a process, and takes away its note and its socket on the host."""
        process = self._processes.pop(key, None)
        if process is None:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(process.fd)
        try:
            pidfd.send(process.fd, signal.SIGTERM)
            if not await _gone(process.fd):
                pidfd.send(process.fd, signal.SIGKILL)
                await _gone(process.fd)
        finally:
            os.close(process.fd)
        await self._clear(process.row, key[1], {"device": process.device, "pid": 0, "start": 0})

    async def _clear(self, row: InstanceRow, name: str, note: dict[str, Any], patience: float = 0) -> None:
        """Ends the process of a note that is still there, and takes away its socket on the host and the note.

        `patience`: seconds that a process which nobody has told to serve may take to find out.
        """
        fd = pidfd.open_verified(note["pid"], note["start"]) if note["pid"] else -1
        if fd >= 0:
            pidfd.send(fd, signal.SIGKILL)
            await _gone(fd)
            os.close(fd)
        device = note["device"]
        path = "" if proxyrules.in_instance(device) else _listen(device).path
        end = _now() + patience
        while path:
            await asyncio.to_thread(_remove_stale, path)
            if _now() >= end or not _is_socket(path):
                break
            await asyncio.sleep(0.05)
        try:
            os.unlink(self._path(row, name))
        except FileNotFoundError:
            pass

    async def _clean_inside(self, live: Live, device: Device) -> None:
        """The socket that was listened on inside goes, too."""
        if not _in_guest_files(device):
            return
        try:
            await self._spawner.remove_socket(live.supervisor, _listen(device).path)
        except ApiError:
            pass  # it is stopping, or has made something else of the place

    def _watch(self, process: _Process, name: str) -> None:
        key = (process.row.id, name)
        self._processes[key] = process
        loop = asyncio.get_running_loop()

        def died() -> None:
            loop.remove_reader(process.fd)
            self._keep(self._again(key, process))

        loop.add_reader(process.fd, died)

    async def _again(self, key: tuple[int, str], process: _Process) -> None:
        """A process has ended. With its instance: fine. Otherwise it is started anew, and that is told."""
        deaths = process.deaths + 1 if _now() - process.since < _YOUNG else 0
        await asyncio.sleep(_AGAIN[min(deaths, len(_AGAIN) - 1)])
        async with self.lock(process.row):
            live = process.live
            if self._processes.get(key) is not process or live.stopping or live.supervisor.exited.done():
                return
            await self._end(key)
            await self._clean_inside(live, process.device)
            try:
                await self._begin(process.row, live, key[1], process.device, deaths=deaths)
            except ApiError as error:
                self._tell(process.row, str(error))
                return
            self._tell(process.row, f"The proxy {key[1]!r} of {process.row.name!r} was killed and is started again")

    async def _see_to(self, row: InstanceRow, live: Live, name: str, device: Device) -> None:
        """While a guest boots it may mount something over the socket that was just made in it: then it is made anew."""
        key = (row.id, name)
        for _ in range(_HIDDEN_SECONDS * 2):
            await asyncio.sleep(0.5)
            async with self.lock(row):
                if live.stopping or live.supervisor.exited.done() or live.devices.get(name) != device:
                    return
                if key in self._processes and _is_inside(live, _listen(device).path):
                    continue
                await self._end(key)
                try:
                    await self._begin(row, live, name, device)
                except ApiError:
                    continue
        if key not in self._processes:
            self._tell(row, f"The proxy {name!r} of {row.name!r} has no place to listen: {device['listen']}")

    def _spec(self, row: InstanceRow, name: str, device: Device) -> ProxySpec:
        listen, connect = proxyrules.addresses(f"device {name!r}", device)
        inside = proxyrules.in_instance(device)
        ids = {key: int(device.get(key) or 0) for key in ("uid", "gid", "security.uid", "security.gid")}
        for key in ("uid", "gid") if inside else ("security.uid", "security.gid"):
            if row.idmap_base is not None and ids[key] >= 65536:
                raise BadRequest(f"Invalid {key} {ids[key]} on device {name!r}: {row.name!r} has the ids 0 to 65535")
        return {
            "instance": qualified(row.project, row.name), "device": name, "prefix": self._layout.cgroup_prefix,
            "inside": inside, "listen": _wire(listen), "connect": _wire(connect), "uid": ids["uid"], "gid": ids["gid"],
            "mode": int(device.get("mode") or "0644", 8), "as_uid": ids["security.uid"],
            "as_gid": ids["security.gid"], "header": proxyrules.proxy_protocol(device),
        }  # fmt: skip

    def _lead(self, row: InstanceRow, devices: Devices, name: str, device: Device) -> Lead:
        where = f"device {name!r}"
        listen, connect = proxyrules.addresses(where, device)
        target = proxyrules.nat_target(where, device, devices)
        to = connect.ports
        same = to == listen.ports
        lead = Lead(
            listen.kind, listen.host, listen.port_text(), target,
            to[0] if len(to) == 1 and not same else 0,
            tuple(zip(listen.ports, to, strict=True)) if len(to) > 1 and not same else (),
        )  # fmt: skip
        if self._nat.clash(row.id, name, lead, set(listen.ports)):
            raise Conflict(f"Another instance's proxy leads {device['listen']} elsewhere already")
        return lead

    # -- notes -------------------------------------------------------------------------------------------------

    def _path(self, row: InstanceRow, name: str) -> str:
        return f"{self._layout.instance_run(row.id)}/proxy-{name}.json"

    def _note(self, row: InstanceRow, name: str, note: dict[str, Any]) -> None:
        path = self._path(row, name)
        with open(f"{path}.new", "w", encoding="utf-8") as file:
            json.dump(note, file)
        os.rename(f"{path}.new", path)

    def _notes(self, row: InstanceRow) -> list[tuple[str, dict[str, Any]]]:
        directory = self._layout.instance_run(row.id)
        found = []
        for entry in os.listdir(directory) if os.path.isdir(directory) else []:
            if entry.startswith("proxy-") and entry.endswith(".json"):
                try:
                    with open(f"{directory}/{entry}", encoding="utf-8") as file:
                        found.append((entry[len("proxy-") : -len(".json")], json.load(file)))
                except (OSError, ValueError):
                    continue
        return found

    def _keep(self, coroutine: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, row: InstanceRow, text: str) -> None:
        self._warn(Notice(text, PROXY, f"/1.0/instances/{row.name}", row.project))


def _is_nat(device: Device) -> bool:
    return device.get("type") == "proxy" and proxyrules.nat(device)


def _hairpin(live: Live, on: bool) -> None:
    """Lets an instance reach itself by way of the host's address.

    Where bridged packets pass the firewall (br_netfilter, as Docker has it) they are led on in the bridge, which sends
    none back to the port it came from unless it is told to.
    """
    try:
        with open("/proc/sys/net/bridge/bridge-nf-call-iptables", encoding="ascii") as file:
            if file.read().strip() == "0":
                return
    except OSError:
        return
    for host_name in live.nics.values():
        try:
            with open(f"/sys/class/net/{host_name}/brport/hairpin_mode", "w", encoding="ascii") as file:
                file.write(str(int(on)))
        except OSError:
            continue  # not a port of a bridge


def _now() -> float:
    return asyncio.get_running_loop().time()


def _wire(address: proxyrules.Address) -> ProxyAddress:
    return {"kind": address.kind, "host": address.host, "spans": list(address.spans)}


def _listen(device: Device) -> proxyrules.Address:
    return proxyrules.addresses("", device)[0]


def _in_guest_files(device: Device) -> bool:
    """Whether it listens on a socket that is a file of the guest's."""
    return proxyrules.in_instance(device) and bool(_listen(device).path)


async def _gone(fd: int) -> bool:
    """Waits for the end of a process; whether it came in time."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(fd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), _END_SECONDS)
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(fd)


def _remove_stale(path: str) -> None:
    try:
        remove_stale(path)
    except OSError:
        pass


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def _is_inside(live: Live, path: str) -> bool:
    """Whether there is a socket at a path of the guest."""
    try:
        with guest_path(live.supervisor, path) as fd:
            return stat.S_ISSOCK(os.fstat(fd).st_mode)
    except InternalError:
        return True
    except OSError:
        return False

"""One dnsmasq for each bridge: started, adopted after a restart of the daemon, restarted when it dies, reloaded.

It runs in a session of its own and outlives the daemon. Reservations are one file for each nic in a directory that
dnsmasq watches (inotify): a new one needs no signal. Changes and removals need SIGHUP, which is sent once for many.
"""

import asyncio
import contextlib
import os
import pwd
import signal
import tempfile
from collections.abc import Callable

from lxpy.api.errors import InternalError
from lxpy.api.notices import DNSMASQ, NETWORK_MENDED, Notice, Over
from lxpy.api.objects import Config
from lxpy.linux import pidfd
from lxpy.networks import config as keys
from lxpy.networks.leases import LeaseFile, Reservation, bare, parse_reservation

_RELOAD_DELAY = 0.05  # seconds; deleting a hundred instances is one reload
_STABLE = 30.0  # seconds a dnsmasq must have lived for its death to be the first again
_LONGEST_PAUSE = 60.0

_PORT_PAUSES = (0.02, 0.05, 0.1, 0.3, 1.0)  # seconds


class Dnsmasq:
    """The DHCP and DNS server of one bridge.

    Args:
        name: the bridge.
        directory: of this network; leases, pid file and reservations lie there.
        warn: told when dnsmasq died and when it cannot be started again.
    """

    def __init__(self, name: str, directory: str, warn: Callable[[str], None]) -> None:
        self.name = name
        self._url = f"/1.0/networks/{name}"
        self._dir = directory
        self._warn = warn
        self._hosts = f"{directory}/dnsmasq.hosts"
        self._pid_file = f"{directory}/dnsmasq.pid"
        self._arguments: list[str] = []
        self._pidfd = -1
        self._born = 0.0
        self._pause = 0.0
        self._reload: asyncio.TimerHandle | None = None
        self._revival: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._named = True
        self.leases = LeaseFile(f"{directory}/dnsmasq.leases")

    # -- the process --------------------------------------------------------------------------------------------------

    async def ensure(self, config: Config, *, fresh: bool = False) -> None:
        """Makes sure that a dnsmasq with this configuration runs and answers; or none, when there is nothing to serve.

        Args:
            fresh: do not keep a running one (its bridge was made anew).

        Raises:
            InternalError: it does not start; with its own reason.
        """
        async with self._lock:
            os.makedirs(self._hosts, mode=0o755, exist_ok=True)
            raw = f"{self._dir}/dnsmasq.raw"
            old_raw = _read(raw)
            wanted = arguments(self.name, self._dir, config)
            self._names(config.get("dns.mode", "") in ("", "managed"))
            same = wanted == self._arguments and old_raw == config.get("raw.dnsmasq", "")
            _write(raw, config.get("raw.dnsmasq", ""))
            if self._pidfd >= 0 and same and not fresh:
                return
            if self._pidfd < 0 and not fresh and old_raw == config.get("raw.dnsmasq", "") and self._adopt(wanted):
                return
            await self._stop()
            if wanted:
                await self._start(wanted)

    async def stop(self) -> None:
        """Ends it; idempotent."""
        async with self._lock:
            await self._stop()

    def forget(self) -> None:
        """Stops watching it and leaves it running: the daemon ends."""
        if self._reload is not None:
            self._reload.cancel()
            self._signal_reload()
        if self._revival is not None:
            self._revival.cancel()
            self._revival = None
        self._drop()

    @property
    def running(self) -> bool:
        return self._pidfd >= 0

    def _adopt(self, wanted: list[str]) -> bool:
        found = self._find()
        if self._pidfd < 0 or found != wanted:
            return False
        self._arguments = wanted
        self._watch()
        return True

    def _find(self) -> list[str]:
        """Takes hold of a dnsmasq of ours that an earlier daemon started; its command line, or nothing."""
        try:
            return self._hold(int(_read(self._pid_file)))
        except ValueError:
            return []

    def _hold(self, pid: int) -> list[str]:
        try:
            fd = os.pidfd_open(pid)
        except OSError:
            return []
        # The pidfd came before the look at its command line, and it is alive after: that is one and the same process.
        line = _command_line(pid)
        if f"--pid-file={self._pid_file}" in line and line[0].endswith("dnsmasq") and pidfd.alive(fd):
            self._drop()
            self._pidfd = fd
            return line
        os.close(fd)
        return []

    def _find_stray(self) -> bool:
        """As `_find`, of one whose pid file was never written: the daemon was killed while it started."""
        return any(self._hold(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())

    async def _start(self, wanted: list[str]) -> None:
        if (reason := await self._spawn(wanted)) and self._find_stray():
            await self._end()
            reason = await self._spawn(wanted)
        for pause in _PORT_PAUSES:
            if "in use" not in reason:
                break
            # One that was just killed has lost its command line already and its sockets not yet.
            await asyncio.sleep(pause)
            reason = await self._spawn(wanted)
        if reason:
            raise InternalError(f"Network {self.name!r}: dnsmasq does not start: {reason}")
        self._arguments = wanted
        self._watch()

    async def _spawn(self, wanted: list[str]) -> str:
        """Starts it; gives why it did not, or nothing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._pid_file)
        # A file and not a pipe: whatever keeps the descriptor open, this never waits for more than the process.
        with tempfile.TemporaryFile() as messages:
            try:
                process = await asyncio.create_subprocess_exec(
                    *wanted, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=messages,
                    cwd="/", start_new_session=True,
                )  # fmt: skip
            except FileNotFoundError:
                return "it was not found, install the package dnsmasq-base"
            # It forks; the first process ends when the sockets are bound and the pid file is written.
            status = await process.wait()
            messages.seek(0)
            lines = messages.read().decode(errors="replace").strip().splitlines()
        if status == 0 and self._find():
            return ""
        return lines[0].removeprefix("dnsmasq: ").strip() if lines else f"exit status {status}"

    async def _stop(self) -> None:
        if self._revival is not None:
            self._revival.cancel()
            self._revival = None
        if self._pidfd < 0:
            self._find()
        await self._end()
        self._arguments = []
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._pid_file)

    async def _end(self) -> None:
        if self._pidfd >= 0:
            loop = asyncio.get_running_loop()
            loop.remove_reader(self._pidfd)
            gone = asyncio.Event()
            pidfd.send(self._pidfd, signal.SIGTERM)
            loop.add_reader(self._pidfd, gone.set)
            try:
                await asyncio.wait_for(gone.wait(), 5)
            except TimeoutError:
                pidfd.send(self._pidfd, signal.SIGKILL)
                await gone.wait()
        self._drop()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._born = loop.time()
        loop.add_reader(self._pidfd, self._died)

    def _drop(self) -> None:
        if self._pidfd >= 0:
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1

    def _died(self) -> None:
        self._drop()
        loop = asyncio.get_running_loop()
        self._pause = 0.0 if loop.time() - self._born > _STABLE else self._pause
        self._warn(
            Notice(
                f"dnsmasq of network {self.name!r} ended unexpectedly and is started again", NETWORK_MENDED, self._url
            )
        )
        self._revival = loop.create_task(self._revive(self._arguments))

    async def _revive(self, wanted: list[str]) -> None:
        failed = False
        while True:
            pause, self._pause = self._pause, min(max(self._pause * 2, 1.0), _LONGEST_PAUSE)
            await asyncio.sleep(pause)
            async with self._lock:
                if self._pidfd >= 0:
                    return
                try:
                    await self._start(wanted)
                    self._revival = None
                    if failed:
                        self._warn(Over(DNSMASQ, self._url))
                    return
                except InternalError as error:
                    failed = True
                    self._warn(Notice(error.message, DNSMASQ, self._url))

    # -- reservations -------------------------------------------------------------------------------------------------

    def reserve(self, instance: str, device: str, hwaddr: str, ipv4: str, ipv6: str) -> None:
        """Name and addresses of one nic; takes effect at its next request.

        Args:
            instance: as `leases.holder` has it.
        """
        os.makedirs(self._hosts, mode=0o755, exist_ok=True)
        path = self._path(instance, device)
        # Of several nics on one network the first has the name: dnsmasq gives a name to one client only.
        others = {other: _reservation(other) for other in self._files(bare(instance), every=True) if other != path}
        for other, one in others.items():
            if one and one.hwaddr == hwaddr:  # written when the project was not yet part of the name
                os.unlink(other)
                one = None
            others[other] = one
        name = "" if not self._named or any(one and one.name for one in others.values()) else bare(instance)
        line = _line(hwaddr, ipv4, ipv6, name)
        old = _read(path)
        if old == line:
            return
        # In place of a rename: dnsmasq's inotify wants the file written and closed under its own name, and it ignores
        # names that start with a dot.
        _write(path, line)
        if old:
            self._reload_soon()

    def release(self, instance: str, device: str = "") -> list[Reservation]:
        """Takes all reservations of an instance, or of one `device` of it, away; gives what they were."""
        found = []
        for path in [self._path(instance, device)] if device else self._files(instance):
            if one := _reservation(path):
                found.append(one)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        if found:
            self._reload_soon()
        return found

    def reservations(self) -> dict[str, list[Reservation]]:
        """All of them, by `leases.holder`."""
        found: dict[str, list[Reservation]] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(os.listdir(self._hosts)):
                if one := _reservation(f"{self._hosts}/{entry}"):
                    found.setdefault(entry.partition(".")[0], []).append(one)
        return found

    def _names(self, named: bool) -> None:
        """Whether reservations give names (dns.mode managed); rewrites those that say otherwise."""
        self._named = named
        by_instance: dict[str, dict[str, Reservation]] = {}
        for entry in sorted(os.listdir(self._hosts)):
            if one := _reservation(f"{self._hosts}/{entry}"):
                by_instance.setdefault(bare(entry.partition(".")[0]), {})[entry] = one
        for instance, found in by_instance.items():
            named_already = any(one.name for one in found.values())
            if named_already != named:
                for entry, one in found.items():
                    _write(f"{self._hosts}/{entry}", _line(one.hwaddr, one.ipv4, one.ipv6, instance if named else ""))
                    if named:
                        break
                self._reload_soon()

    def _path(self, instance: str, device: str) -> str:
        return f"{self._hosts}/{instance}.{device}" if device else f"{self._hosts}/{instance}"

    def _files(self, instance: str, every: bool = False) -> list[str]:
        """Those of an instance; with `every` of all that are called so, whatever their projects."""
        try:
            entries = os.listdir(self._hosts)
        except FileNotFoundError:
            return []
        whose = ((one, one.partition(".")[0]) for one in entries)
        return sorted(f"{self._hosts}/{one}" for one, name in whose if (bare(name) if every else name) == instance)

    def _reload_soon(self) -> None:
        if self._reload is None:
            try:
                self._reload = asyncio.get_running_loop().call_later(_RELOAD_DELAY, self._signal_reload)
            except RuntimeError:
                self._signal_reload()

    def _signal_reload(self) -> None:
        self._reload = None
        if self._pidfd >= 0:
            pidfd.send(self._pidfd, signal.SIGHUP)


def arguments(name: str, directory: str, config: Config) -> list[str]:
    """The command line for a bridge; empty when it has no address to serve."""
    four, six = keys.interface4(config), keys.interface6(config)
    if four is None and six is None:
        return []
    mode = config.get("dns.mode", "") or "managed"
    domain = config.get("dns.domain", "") or keys.DEFAULT_DOMAIN
    result = [
        "dnsmasq", "--conf-file=" + (f"{directory}/dnsmasq.raw" if config.get("raw.dnsmasq") else ""),
        f"--pid-file={directory}/dnsmasq.pid", f"--log-facility={directory}/dnsmasq.log", f"--user={_user(directory)}",
        f"--interface={name}", "--except-interface=lo", "--bind-interfaces", "--strict-order", "--no-hosts",
        "--no-ping", "--quiet-dhcp", "--quiet-dhcp6", "--quiet-ra",
    ]  # fmt: skip
    if mode != "none":
        result += [f"--domain={domain}", f"--local=/{domain}/", f"--interface-name=_gateway.{domain},{name}"]
    if mode != "dynamic":
        # A guest may not take a name it was not given: names come from our reservations only.
        result.append("--dhcp-ignore-names")
    serving = False
    if four:
        result.append(f"--listen-address={four.ip}")
        if keys.enabled(config, "ipv4.dhcp", True):
            serving = True
            expiry = config.get("ipv4.dhcp.expiry", "") or "1h"
            ranges = keys.dhcp_ranges("ipv4.dhcp.ranges", config.get("ipv4.dhcp.ranges", ""))
            lowest = four.network[2] if four.ip == four.network[1] else four.network[1]
            for first, last in ranges or [(lowest, four.network[-2])]:
                result.append(f"--dhcp-range={first},{last},{four.network.netmask},{expiry}")
            if mtu := config.get("bridge.mtu"):
                result.append(f"--dhcp-option-force=26,{mtu}")
            if gateway := config.get("ipv4.dhcp.gateway"):
                result.append(f"--dhcp-option-force=3,{gateway}")
            elif not keys.enabled(config, "ipv4.routing", True):
                result.append("--dhcp-option=3")
    if six:
        serving = True
        result += [f"--listen-address={six.ip}", "--enable-ra"]
        expiry = config.get("ipv6.dhcp.expiry", "") or "1h"
        if not keys.enabled(config, "ipv6.dhcp", True):
            result.append(f"--dhcp-range=::,constructor:{name},ra-only")
        elif keys.enabled(config, "ipv6.dhcp.stateful", False):
            highest = six.network[min(six.network.num_addresses, 1 << 64) - 1]
            ranges6 = keys.dhcp6_ranges("ipv6.dhcp.ranges", config.get("ipv6.dhcp.ranges", ""))
            for low, high in ranges6 or [(six.network[2], highest)]:
                result.append(f"--dhcp-range={low},{high},{six.network.prefixlen},{expiry}")
        else:
            result.append(f"--dhcp-range=::,constructor:{name},ra-stateless,ra-names")
    if serving:
        result += [
            "--dhcp-authoritative", "--dhcp-rapid-commit", "--dhcp-lease-max=65536",
            f"--dhcp-leasefile={directory}/dnsmasq.leases", f"--dhcp-hostsdir={directory}/dnsmasq.hosts",
        ]  # fmt: skip
        if search := keys.words(config, "dns.search"):
            result.append(f"--dhcp-option-force=119,{','.join(search)}")
            if six:
                result.append(f"--dhcp-option=option6:domain-search,{','.join(search)}")
        if servers := keys.words(config, "dns.nameservers"):
            four_servers = [one for one in servers if ":" not in one]
            six_servers = [f"[{one}]" for one in servers if ":" in one]
            if four_servers:
                result.append(f"--dhcp-option-force=6,{','.join(four_servers)}")
            if six and six_servers:
                result.append(f"--dhcp-option=option6:dns-server,{','.join(six_servers)}")
    return result


def _user(directory: str) -> str:
    """An unprivileged user, if one can reach the directory; else root, as reservations must be read later on."""
    path = directory
    while path != "/":
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o001:
            return "root"
    for user in ("dnsmasq", "nobody"):
        try:
            pwd.getpwnam(user)
            return user
        except KeyError:
            continue
    return "root"


def _reservation(path: str) -> Reservation | None:
    return parse_reservation(_read(path))


def _line(hwaddr: str, ipv4: str, ipv6: str, name: str) -> str:
    return ",".join(filter(None, (hwaddr, ipv4, f"[{ipv6}]" if ipv6 else "", name))) + "\n"


def _command_line(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").removesuffix("\0").split("\0")
    except OSError:
        return [""]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(file.fileno(), 0o644)

"""Which instances start with the host and in which order, what a start waits for, and the order of a shutdown.

``boot.requires`` names instances of the same project: ``db, cache:ready``. Before an instance starts, those it requires
are started and waited for, up to ``boot.requires.timeout`` seconds. What is waited for:

=============  ====================================================================================================
``running``    its init runs
``address``    it has an address of global scope on a network card
``ready``      it has said so by the guest API; of a systemd guest also: systemd says ``running`` or ``degraded``
(no word)      ``address`` where it has a network card, else ``running``
=============  ====================================================================================================
"""

import asyncio
import contextlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import NamedTuple

from lxpy.api import values
from lxpy.api.errors import ApiError, BadRequest
from lxpy.api.notices import AUTOSTART, REQUIRES, Notice
from lxpy.api.objects import Config
from lxpy.instances.lifecycle import Lifecycle
from lxpy.instances.live import Live, said_ready
from lxpy.instances.records import Records
from lxpy.runtime.spawner_client import ExecRequest, Spawner
from lxpy.state.store import InstanceRow

WORDS = ("running", "address", "ready")
DEFAULT_TIMEOUT = 60
_LOOK_SECONDS = 0.1
_SYSTEMD_SECONDS = 0.5


class Requirement(NamedTuple):
    """`word` of `WORDS`, or empty."""

    name: str
    word: str


def check(key: str, value: str) -> list[Requirement]:
    """What a value of ``boot.requires`` says. Raises `BadRequest`."""
    found = []
    for part in value.split(","):
        name, colon, word = part.strip().partition(":")
        if colon and word not in WORDS:
            raise BadRequest(f"Invalid value for {key}: {word!r} is none of {', '.join(WORDS)}")
        try:
            found.append(Requirement(values.instance_name(name), word))
        except BadRequest as error:
            raise BadRequest(f"Invalid value for {key}: {error}") from None
    return found


def requirements(config: Config) -> list[Requirement]:
    return check("boot.requires", config["boot.requires"]) if config.get("boot.requires") else []


def check_circle(records: Records, project: str, name: str, config: Config) -> None:
    """Raises `BadRequest` when what an instance of that expanded configuration requires, requires it in turn."""
    seen: set[str] = set()

    def walk(wanted: list[Requirement], path: list[str]) -> None:
        for one in wanted:
            if one.name == name:
                raise BadRequest(f"boot.requires of {name!r} makes a circle: {' -> '.join([*path, name])}")
            other = records.find(project, one.name)
            if other is not None and one.name not in seen:
                seen.add(one.name)
                walk(requirements(records.expanded(other)[0]), [*path, one.name])

    walk(requirements(config), [name])


def startable(config: Config) -> bool:
    return not values.boolean("security.protection.start", config.get("security.protection.start") or "false")


class Boot:
    """Starts in order.

    Args:
        start: the whole way to a running instance, what it requires included.
        warn: told of what could not be started, or not waited for.
    """

    def __init__(
        self,
        records: Records,
        life: Lifecycle,
        spawner: Spawner,
        start: Callable[[InstanceRow], Awaitable[str]],
        warn: Callable[[str], None],
    ) -> None:
        self._records, self._life, self._spawner, self._start, self._warn = records, life, spawner, start, warn
        self._wanted: dict[int, int] = {}  # by id: how many starts wait for an instance they have started

    # -- with the host -----------------------------------------------------------------------------------------

    def wants(self, row: InstanceRow, ran: bool) -> bool:
        """Whether it is to start with the daemon. LXD: unset means as it was when the host went down."""
        config, _ = self._records.expanded(row)
        autostart = config.get("boot.autostart", "")
        return startable(config) and (ran if autostart == "" else values.boolean("boot.autostart", autostart))

    async def autostart(self, rows: Iterable[InstanceRow]) -> None:
        """The highest ``boot.autostart.priority`` first; who has to wait for another does not hold up the rest."""
        waiting = []
        for row in sorted(rows, key=lambda row: self._number(row, "boot.autostart.priority"), reverse=True):
            if requirements(self._records.expanded(row)[0]):
                waiting.append(asyncio.create_task(self._autostart(row)))
                await asyncio.sleep(0)
            else:
                await self._autostart(row)
            await asyncio.sleep(self._number(row, "boot.autostart.delay"))
        await asyncio.gather(*waiting)

    async def _autostart(self, row: InstanceRow) -> None:
        if self._life.live(row):
            return  # another has required it
        try:
            await self._start(row)
        except (ApiError, OSError) as error:
            self._warn(_notice(row, f"Instance {row.name!r} could not be started: {error}"))

    async def shutdown(self) -> None:
        """Stop every instance, the highest ``boot.stop.priority`` first; in one priority, who requires another goes
        before it. It is remembered that they ran."""
        running = [row for row in self._records if self._life.live(row)]
        depth = {row.id: self._depth(row, frozenset()) for row in running}
        order = {row.id: (self._number(row, "boot.stop.priority"), depth[row.id]) for row in running}
        for level in sorted(set(order.values()), reverse=True):
            await asyncio.gather(*(self._stop(row) for row in running if order[row.id] == level))

    async def _stop(self, row: InstanceRow) -> None:
        with contextlib.suppress(ApiError):
            await self._life.stop(row, -1, force=False)
        if current := self._records.current(row):
            self._records.set_volatile(current, last_state__power="RUNNING")

    def _number(self, row: InstanceRow, key: str) -> int:
        return int(self._records.expanded(row)[0].get(key) or 0)

    def _depth(self, row: InstanceRow, above: frozenset[int]) -> int:
        below = [one for one in self._required(row) if one.id not in above | {row.id}]
        return 1 + max((self._depth(one, above | {row.id}) for one in below), default=0)

    def _required(self, row: InstanceRow) -> list[InstanceRow]:
        names = [one.name for one in requirements(self._records.expanded(row)[0])]
        return [found for name in names if (found := self._records.find(row.project, name))]

    # -- what a start waits for --------------------------------------------------------------------------------

    def begun(self, row: InstanceRow) -> bool:
        """Whether it has been started because another requires it: who asks for that as well has what he wants."""
        return row.id in self._wanted and self._life.live(row) is not None

    async def satisfy(self, row: InstanceRow) -> str:
        """Start what the instance requires and wait. A line about what was waited for in vain; the start goes on.

        Raises:
            BadRequest: an instance is not there, or could not be started.
        """
        config, _ = self._records.expanded(row)
        wanted = requirements(config)
        if not wanted or self._life.live(row):
            return ""
        check_circle(self._records, row.project, row.name, config)
        timeout = float(config.get("boot.requires.timeout") or DEFAULT_TIMEOUT)
        said = await asyncio.gather(*(self._one(row, one, timeout) for one in wanted))
        return "; ".join(filter(None, said))

    async def _one(self, row: InstanceRow, wanted: Requirement, timeout: float) -> str:
        other = self._records.find(row.project, wanted.name)
        if other is None:
            raise BadRequest(f"Instance {row.name!r} requires {wanted.name!r}, which is not there")
        with self._marked(other):
            if self._life.live(other) is None:
                try:
                    await self._start(other)
                except (ApiError, OSError) as error:
                    if self._life.live(other) is None:
                        text = f"Instance {row.name!r} requires {other.name!r}, which could not be started: {error}"
                        raise BadRequest(text) from None
            deadline = time.monotonic() + timeout
            asked = 0.0
            while not self._met(other, wanted.word):
                if wanted.word == "ready" and time.monotonic() - asked > _SYSTEMD_SECONDS:
                    if await self._systemd_up(other):
                        break
                    asked = time.monotonic()
                if time.monotonic() > deadline:
                    what = {"address": "to have an address", "running": "to run"}.get(self._word(other, wanted.word))
                    text = f"{row.name}: waited {timeout:g} s in vain for {other.name!r} {what or 'to be ready'}"
                    self._warn(Notice(text, REQUIRES, f"/1.0/instances/{row.name}", row.project))
                    return text
                await asyncio.sleep(_LOOK_SECONDS)
        return ""

    @contextlib.contextmanager
    def _marked(self, row: InstanceRow) -> Iterator[None]:
        self._wanted[row.id] = self._wanted.get(row.id, 0) + 1
        try:
            yield
        finally:
            self._wanted[row.id] -= 1
            if not self._wanted[row.id]:
                del self._wanted[row.id]

    def _word(self, row: InstanceRow, word: str) -> str:
        if word:
            return word
        devices = self._records.expanded(row)[1].values()
        return "address" if any(device.get("type") == "nic" for device in devices) else "running"

    def _met(self, row: InstanceRow, word: str) -> bool:
        live, word = self._life.live(row), self._word(row, word)
        if live is None or live.frozen:
            return False
        if word == "address":
            return _addressed(live)
        current = self._records.current(row)
        return word == "running" or bool(current and said_ready(current))

    async def _systemd_up(self, row: InstanceRow) -> bool:
        live = self._life.live(row)
        if live is None or live.frozen or not _is_systemd(live):
            return False
        request: ExecRequest = {
            "command": ["systemctl", "is-system-running"],
            "environment": {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            "cwd": "/",
            "user": 0,
            "group": 0,
            "interactive": False,
        }
        with contextlib.suppress(ApiError, OSError):
            files = await self._spawner.exec(live.supervisor, request)
            try:
                return await asyncio.to_thread(os.read, files.stdout, 64) in (b"running\n", b"degraded\n")
            finally:
                for fd in files:
                    if fd >= 0:
                        os.close(fd)
        return False


def _addressed(live: Live) -> bool:
    if live.watch is None:
        return False
    return any(
        address["scope"] == "global"
        for name, interface in live.watch.state.items()
        for address in interface["addresses"]
        if name != "lo"
    )


def _is_systemd(live: Live) -> bool:
    try:
        with open(f"/proc/{live.supervisor.init_pid}/comm", "rb") as file:
            return file.read() == b"systemd\n"
    except OSError:
        return False


def _notice(row: InstanceRow, text: str) -> Notice:
    return Notice(text, AUTOSTART, f"/1.0/instances/{row.name}", row.project)

"""The live model: what the daemon has, kept current by its events, for whoever draws it.

Loading happens on the gateway's threads, everything else on the app's loop. Changes are told as messages:
`Changed` with the parts that changed, `Connection`, `Finished` for ended operations.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar, runtime_checkable

from textual.message import Message

from lxpy.api.errors import ApiError, NotFound
from lxpy.api.status import CANCELLED, FAILURE, FINAL, SUCCESS
from lxpy.tui import gateway as way
from lxpy.tui.catalogue import Catalogues
from lxpy.tui.gateway import Cancelled, Gateway, RemoteInfo, explain
from lxpy.tui.objects import KINDS, USED, ObjectRow
from lxpy.tui.reach import Reach
from lxpy.tui.rows import ImageRow, InstanceRow
from lxpy.tui.usage import History

DEBOUNCE_SECONDS = 0.05  # a launch makes several events at once; one reading answers them all
REST, LONGEST_REST = 20, 2.0  # after a reading a rest so many times as long, at most so many seconds
MORE_REST, TIRED_REST = 1.5, 1.0  # each of several rests is so many times the last one, up to so many seconds
EVENTS_SECONDS, LONGEST_EVENTS_SECONDS = 0.02, 0.25  # between two looks at the events; the more come, the longer
FEW = 8  # so many changed instances are read one by one; more by one bulk request
KEEP_FINISHED = 30
KEEP_FAILED = 200
T = TypeVar("T")


@runtime_checkable
class Follower(Protocol):
    """A dialog that shows what the model knows, and hears of changes while it is in front."""

    def changed(self, message: "Changed") -> None: ...


class Changed(Message):
    """`parts` of the model changed: instances, usage, images, remotes, reach, catalogue, operations, host, or a kind of
    `objects`."""

    def __init__(self, *parts: str) -> None:
        super().__init__()
        self.parts = frozenset(parts)


class Connection(Message):
    """The connection came up or went down; `Model.connected` and `Model.reason` say which."""


class Finished(Message):
    """An operation has ended."""

    def __init__(self, operation: dict[str, Any]) -> None:
        super().__init__()
        self.operation = operation


class Model:
    """What the panes show.

    Attributes:
        connected: None until the first answer.
        reason: why it is not connected, one line.
        waited: seconds for which an answer has been waited for, 0 while that is no matter.
        objects: rows by kind, of the kinds that somebody has looked at; see `want`.
        about: what operations are about, by id, where they do not say it themselves.
        operations: by id, running ones and the last finished ones, oldest first.
        load: the host's load average, "" where unknown; `memory` is (used, total) bytes.
    """

    def __init__(self, gateway: Gateway, post: Callable[[Message], object], refresh: float = 2.0) -> None:
        self.gateway = gateway
        self._post = post
        self._refresh = refresh
        self.connected: bool | None = None
        self.reason = ""
        self.waited = 0  # seconds without an answer, once there is something to say about it
        self.server: dict[str, Any] = {}
        self.instances: dict[str, InstanceRow] = {}
        self.images: list[ImageRow] = []
        self.remotes: list[RemoteInfo] = []
        self.objects: dict[str, list[ObjectRow]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        self.about: dict[str, str] = {}
        self.loaded = False
        self.fresh: bool | None = None  # whether nothing has been set up here; asked once, where there are no instances
        self.history = History()
        self.catalogues = Catalogues(gateway, lambda: post(Changed("catalogue")))
        self.reach = Reach(gateway, lambda: post(Changed("reach")))
        self.load = ""
        self.memory = (0, 0)
        self.focused = True
        self._dirty: set[str] = set()
        self._settling: dict[str, float] = {}  # just started, no address yet: until when to look often
        self._flushing = False
        self._read_at, self._rest = 0.0, DEBOUNCE_SECONDS
        self._images_dirty = False
        self._wanted: set[str] = set()
        self._kinds_dirty: set[str] = set()
        self._waiters: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._doing: dict[str, str] | None = None  # what `busy` says, until an operation changes
        self._untold: set[str] = set()  # parts of a `Changed` that is about to be posted
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = threading.Event()
        self._again = threading.Event()  # the listener need not wait before it tries once more
        self._wake = asyncio.Event()
        self._listener: threading.Thread | None = None

    def start(self) -> None:
        """Begins: events on a thread of their own, usage by a timer task."""
        loop = asyncio.get_running_loop()
        self._listener = threading.Thread(target=self._listen, args=(loop,), name="lxpy-tui-events", daemon=True)
        self._listener.start()
        self._spawn(self._sample())
        self._spawn(self._watch())

    def stop(self) -> None:
        """Ends every task; threads end with their present call."""
        self._stopped.set()
        self._again.set()
        for task in self._tasks:
            task.cancel()
        self.gateway.close()
        if self._listener is not None:
            self._listener.join(0.3)

    def look_elsewhere(self, remote: str, project: str) -> None:
        """At another remote or project from now on: all that was known is of the old one."""
        self.connected, self.loaded, self.reason, self.fresh = None, False, "", None
        self.instances, self.images, self.objects, self.server = {}, [], {}, {}
        self.operations, self.history, self._doing = {}, History(), None
        self.load, self.memory = "", (0, 0)
        self._settling.clear()
        self._dirty.clear()
        self.gateway.retarget(remote, project)
        self._again.set()
        self._post(Connection())
        self._tell("instances", "images", "operations", *KINDS)

    def refresh_every(self, seconds: float) -> None:
        """How often usage is read from now on."""
        self._refresh = seconds
        self._wake.set()

    def busy(self) -> dict[str, str]:
        """What is being done to which instance: name to the operation's description."""
        if self._doing is None:
            self._doing = {}
            for operation in self.running():
                for source in (operation.get("resources") or {}).get("instances") or []:
                    self._doing[_name(source)] = operation.get("description", "")
        return self._doing

    def running(self) -> list[dict[str, Any]]:
        """The operations still going on, oldest first; shells and consoles are not work."""
        return [o for o in self.operations.values() if o["status_code"] not in FINAL and o.get("class") != "websocket"]

    async def follow(self, operation: Any) -> dict[str, Any]:
        """The operation once it has ended, as the events tell; asks now and then, in case one was missed.

        Raises:
            ApiError: the operation's error; `Cancelled`.
        """
        if not isinstance(operation, dict) or "status_code" not in operation or "id" not in operation:
            return operation if isinstance(operation, dict) else {}
        ident = operation["id"]
        if ident not in self.operations:
            self._operation(operation)
        current = self.operations[ident]
        while current["status_code"] not in FINAL:
            waiter = self._waiters.setdefault(ident, asyncio.get_running_loop().create_future())
            try:
                current = await asyncio.wait_for(asyncio.shield(waiter), 2.0)
            except TimeoutError:
                try:
                    current = await self._read(lambda c: c.get(f"/1.0/operations/{ident}"))
                except NotFound:
                    current = {**current, "status_code": SUCCESS}  # ended and forgotten: its effect is what counts
                except (ApiError, OSError):
                    continue  # daemon away: the connection line says so
                self._operation(current)
        if current["status_code"] == CANCELLED:
            raise Cancelled("Operation cancelled")
        if current["status_code"] != SUCCESS:
            raise ApiError(current.get("err") or "The operation failed without a reason")
        return current

    async def reload(self) -> None:
        """Everything anew. Instances first: they are what the user looks at."""
        try:
            await self._load_instances()
            server, images, remotes, operations = await asyncio.gather(
                self._read(lambda c: c.get("/1.0")),
                self._read(lambda c: c.get("/1.0/images", recursion="1")),
                self._read(lambda _: list(self.gateway.remotes())),
                self._read(lambda c: c.get("/1.0/operations", recursion="1")),
            )
        except (ApiError, OSError, EOFError) as error:
            self.reason = explain(error)
            self._post(Connection())
            return
        self.server, self.remotes = server, remotes
        self.images = [ImageRow(raw) for raw in images]
        for listed in operations.values() if isinstance(operations, dict) else [operations]:
            for operation in listed or []:
                self._operation(operation)
        self._tell("images", "remotes", "operations", "host")
        self._touch_kinds(*self._wanted)
        if not self.instances and self.fresh is None:
            await self._look_whether_fresh()

    async def _look_whether_fresh(self) -> None:
        try:
            self.fresh = not await self._read(lambda c: c.get("/1.0/storage-pools"))
        except (ApiError, OSError, EOFError):
            return  # it is asked again with the next reading
        self._tell("fresh")

    def want(self, kind: str) -> None:
        """Somebody looks at the objects of a kind: they are read, and kept current from now on."""
        if kind not in self._wanted and kind in KINDS:
            self._wanted.add(kind)
            if self.connected:
                self._touch_kinds(kind)

    def changed_kind(self, kind: str) -> None:
        """Something of a kind has been changed by us; not every daemon tells of it."""
        self._touch_kinds(kind)

    def _touch_kinds(self, *kinds: str) -> None:
        self._kinds_dirty.update(kind for kind in kinds if kind in self._wanted)
        if self._kinds_dirty:
            self._kick()

    async def _load_kind(self, kind: str) -> None:
        found = KINDS[kind]
        raws = await self._read(lambda c: c.get(found.path, recursion="1"))
        if kind == "storage-pools":
            spaces = await asyncio.gather(*(self._space(raw["name"]) for raw in raws))
            for raw, space in zip(raws, spaces, strict=True):
                raw["resources"] = space
        self.objects[kind] = [found.row(raw) for raw in raws]
        self._tell(kind)

    async def _space(self, pool: str) -> Any:
        try:
            return await self._read(lambda c: c.get(f"/1.0/storage-pools/{pool}/resources"))
        except ApiError:
            return {}  # it is away: its row says so without the bar

    async def _load_instances(self) -> None:
        raws = await self._read(lambda c: c.get("/1.0/instances", recursion="2"))
        before, self.instances = self.instances, {raw["name"]: InstanceRow(raw) for raw in raws}
        self.loaded = True
        self._settle(self.instances.values(), before)
        self._tell("instances")

    def _settle(self, rows: Iterable[InstanceRow], before: Mapping[str, InstanceRow]) -> None:
        """Looks often at those that run now and have no address yet; some never get one."""
        for row in rows:
            was = before.get(row.name)
            if not row.running or row.ipv4:
                self._settling.pop(row.name, None)
            elif was is None or not was.running or was.ipv4:
                self._settling.setdefault(row.name, time.monotonic() + 10)
            if was is not None and was.running and row.running:
                row.cpu, row.processes = was.cpu, was.processes  # until the next reading
        if self._settling:
            self._wake.set()

    # Events

    def _listen(self, loop: asyncio.AbstractEventLoop) -> None:
        delay = 0.1
        while not self._stopped.is_set():
            reason, home = "The daemon closed the connection", self.gateway.home
            rest = EVENTS_SECONDS
            try:
                for events in self.gateway.subscribe():
                    delay = 0.1
                    if not events:
                        loop.call_soon_threadsafe(self._up)
                        continue
                    loop.call_soon_threadsafe(self._apply_all, events)
                    # The first one is told at once. Of a flood many are taken together: waking up is what costs.
                    rest = min(max(EVENTS_SECONDS, rest * len(events) / 2), LONGEST_EVENTS_SECONDS)
                    self._stopped.wait(rest)
            except RuntimeError:
                return  # the loop is closed: the app has gone
            except Exception as error:
                reason = explain(error)
            reason = self.gateway.take_fault() or reason
            if home != self.gateway.home:
                delay = 0.1
                continue  # we have been told to look elsewhere, and how the old one ended is no news
            try:
                loop.call_soon_threadsafe(self._down, reason)
            except RuntimeError:
                return
            self._again.wait(delay)
            self._again.clear()
            delay = min(delay * 2, 2.0)

    def _apply_all(self, events: list[dict[str, Any]]) -> None:
        for event in events:
            self.apply(event)

    def _up(self) -> None:
        self.connected, self.reason = True, ""
        self._post(Connection())
        self._spawn(self.reload())

    def _down(self, reason: str) -> None:
        if self._stopped.is_set():
            return
        self.connected, self.reason = False, reason
        self._post(Connection())

    def apply(self, event: dict[str, Any]) -> None:
        """One event of ``/1.0/events``."""
        metadata = event.get("metadata") or {}
        if event.get("type") == "operation":
            self._operation(metadata)
            return
        action, source = str(metadata.get("action", "")), str(metadata.get("source", ""))
        if action.startswith("instance-"):
            name = _name(source)
            context = metadata.get("context") or {}
            if action == "instance-deleted":
                self._forget(name)
            else:
                if action == "instance-renamed" and context.get("old_name"):
                    self._forget(str(context["old_name"]))
                self._touch(name)
            if action in ("instance-created", "instance-deleted", "instance-updated", "instance-renamed"):
                self._touch_kinds(*USED)
        elif action.startswith("image-"):
            self._images_dirty = True
            self._kick()
        else:
            if action == "storage-pool-created" and self.fresh:
                self.fresh = False
                self._post(Changed("fresh"))
            self._touch_kinds(*(kind for kind, known in KINDS.items() if action.startswith(known.events)))

    def _operation(self, operation: dict[str, Any]) -> None:
        ident = operation["id"]
        known = self.operations.get(ident)
        if known is not None and known["status_code"] in FINAL:
            return
        self.operations[ident] = operation
        self._doing = None
        if operation["status_code"] in FINAL:
            waiter = self._waiters.pop(ident, None)
            if waiter is not None and not waiter.done():
                waiter.set_result(operation)
            self._post(Finished(operation))
            for source in (operation.get("resources") or {}).get("instances") or []:
                if _name(source) in self.instances:
                    self._touch(_name(source))
            # The daemon forgets its operations soon; here those that failed stay longest, to be read.
            for failed, keep in ((False, KEEP_FINISHED), (True, KEEP_FAILED)):
                finished = [
                    i for i, o in self.operations.items()
                    if o["status_code"] in FINAL and (o["status_code"] == FAILURE) == failed
                ]  # fmt: skip
                for old in finished[:-keep]:
                    del self.operations[old]
        self._tell("operations")

    def _forget(self, name: str) -> None:
        self._dirty.discard(name)
        if self.instances.pop(name, None) is not None:
            self._tell("instances")

    def _touch(self, name: str) -> None:
        self._dirty.add(name)
        self._kick()

    def _kick(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._spawn(self._flush())

    async def _flush(self) -> None:
        try:
            while self._dirty or self._images_dirty or self._kinds_dirty:
                await asyncio.sleep(max(DEBOUNCE_SECONDS, self._read_at + self._rest - time.monotonic()))
                began = time.monotonic()
                dirty, self._dirty = self._dirty, set()
                images, self._images_dirty = self._images_dirty, False
                kinds, self._kinds_dirty = self._kinds_dirty, set()
                try:
                    if images:
                        raws = await self._read(lambda c: c.get("/1.0/images", recursion="1"))
                        self.images = [ImageRow(raw) for raw in raws]
                        self._tell("images")
                    if len(dirty) > FEW:
                        await self._load_instances()
                    elif dirty:
                        await asyncio.gather(*(self._load_one(name) for name in dirty))
                        self._tell("instances")
                    for kind in kinds:
                        await self._load_kind(kind)
                except (ApiError, OSError, EOFError):
                    return  # the connection is gone; all is read anew when it is back
                self._tire(began)
        finally:
            self._flushing = False

    def _tire(self, began: float) -> None:
        """Says how long no more is read: others may do so much that reading and drawing would be all that we do."""
        now = time.monotonic()
        tired = min(self._rest * MORE_REST, TIRED_REST) if began - self._read_at < 2 * TIRED_REST else 0.0
        self._rest = max(DEBOUNCE_SECONDS, tired, min(REST * (now - began), LONGEST_REST))
        self._read_at = now

    async def _load_one(self, name: str) -> None:
        try:
            raw = await self._read(lambda c: c.get(f"/1.0/instances/{name}", recursion="1"))
        except NotFound:
            self.instances.pop(name, None)
            return
        row = InstanceRow(raw)
        self._settle([row], self.instances)
        self.instances[name] = row

    async def _watch(self) -> None:
        """Tells of answers that do not come, and gives up in the end."""
        while True:
            await asyncio.sleep(min(1.0, way.PATIENCE))
            self.gateway.check()
            seconds = self.gateway.waited()
            waited = round(seconds) if seconds > way.TELL_SECONDS else 0
            if waited != self.waited:
                self.waited = waited
                self._post(Connection())

    async def _read(self, work: Callable[[Any], T]) -> T:
        """What `work` reads with a client; given up when it takes too long."""
        return await self.gateway.call(work, patience=way.PATIENCE)

    # Usage

    async def _sample(self) -> None:
        """What running instances use, and addresses still awaited: bulk requests, only while somebody looks."""
        read = time.monotonic()
        while True:
            self._wake.clear()
            wait = max(0.0, read + self._refresh - time.monotonic())
            try:
                await asyncio.wait_for(self._wake.wait(), min(wait, 0.25) if self._settling else wait)
                await asyncio.sleep(0.1)
            except TimeoutError:
                pass
            due = time.monotonic() - read >= self._refresh
            if due:
                read = time.monotonic()
            if not self.connected:
                continue
            parts = ["host"] if due and self.focused and self._host() else []
            try:
                changed = due and self.focused and any(row.running for row in self.instances.values())
                changed = changed and await self._usage()
                if self._settling:
                    changed |= await self._addresses()
            except (ApiError, OSError, EOFError):
                changed = False  # the connection's own end is told by the events
            if changed:
                parts.append("usage")
            if parts:
                self._tell(*parts)

    async def _usage(self) -> bool:
        """CPU, memory, network and disk of all that run; whether anything shown has changed."""
        reading = await self._read(lambda c: c.get("/1.0/usage"))
        self.history.take(reading)
        self.history.keep(set(self.instances))
        changed = False
        for one in reading["instances"]:
            row = self.instances.get(one["name"])
            if row is None or not row.running:
                self._touch(one["name"])
            else:
                changed |= row.apply_usage(one, self.history.last(row.name))
        return changed

    async def _addresses(self) -> bool:
        query = {"recursion": "2", "fields": "state.network"}
        raws = await self._read(lambda c: c.get("/1.0/instances", **query))
        now, changed = time.monotonic(), False
        for raw in raws:
            row = self.instances.get(raw["name"])
            if row is not None and row.running:
                changed |= row.apply_state(raw.get("state"))
                if row.ipv4 or now > self._settling.get(row.name, now):
                    self._settling.pop(row.name, None)
        for name in [n for n, until in self._settling.items() if now > until or n not in self.instances]:
            del self._settling[name]
        return changed

    def _host(self) -> bool:
        # Only the local daemon shares our kernel; a far one's load is not ours to guess.
        if self.gateway.remote not in ("", "local"):
            return False
        try:
            with open("/proc/loadavg", encoding="ascii") as file:
                load = file.read().split()[0]
            facts: dict[str, int] = {}
            with open("/proc/meminfo", encoding="ascii") as file:
                for line in file:
                    name, _, value = line.partition(":")
                    if name in ("MemTotal", "MemAvailable"):
                        facts[name] = int(value.split()[0]) * 1024
                    if len(facts) == 2:
                        break
        except (OSError, ValueError, IndexError):
            return False
        total = facts.get("MemTotal", 0)
        memory = (total - facts.get("MemAvailable", total), total)
        changed = load != self.load or abs(memory[0] - self.memory[0]) > total // 200
        if changed:
            self.load, self.memory = load, memory
        return changed

    def _tell(self, *parts: str) -> None:
        """Posts `Changed`; once for all that changes in this turn of the loop."""
        if not self._untold:
            asyncio.get_running_loop().call_soon(self._told)
        self._untold.update(parts)

    def _told(self) -> None:
        parts, self._untold = self._untold, set()
        self._post(Changed(*parts))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """No usage sampling inside, e.g. while a shell has the terminal."""
        before, self.focused = self.focused, False
        try:
            yield
        finally:
            self.focused = before


def _name(source: str) -> str:
    path = source.partition("?")[0].rstrip("/").split("/")
    # /1.0/instances/NAME, or deeper: /1.0/instances/NAME/snapshots/S
    return path[3] if len(path) > 3 else path[-1]

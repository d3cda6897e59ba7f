"""Mends what others break of our networks, at once and with a warning: the answer to what the guards hear."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from lxpy.api.errors import ApiError
from lxpy.api.layout import Layout
from lxpy.api.notices import FIREWALL, NETWORK_MENDED, NETWORK_UNAVAILABLE, Notice, Over
from lxpy.networks import firewall
from lxpy.networks.guard import LinkGuard, RulesGuard
from lxpy.state.store import Store

_SETTLE = 0.05  # seconds; who flushes a ruleset usually loads another one right after
_OFTEN, _WITHIN, _REST = 5, 10.0, 60.0  # so many times in so many seconds is a fight: rest before the next

Documents = dict[str, dict[str, Any]]
Mend = Callable[[str, dict[str, Any], list[int]], Awaitable[str]]


class Mender:
    """Watches from `start` to `close`.

    Args:
        lock: the manager's; held while anything is mended.
        mend: brings a bridge back and says what was wrong, or nothing.
        load: loads the rules of all networks.
        mend_nics: loads the filters and limits of nics that are missing, and says whether any were.
        carrier: told of an interface (or of "", any) that has got its carrier.
        firewalld: told when its rules change.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        lock: asyncio.Lock,
        mend: Mend,
        load: Callable[[Documents], Awaitable[None]],
        mend_nics: Callable[[], Awaitable[bool]],
        carrier: Callable[[str], None],
        firewalld: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        self._store, self._layout, self._lock = store, layout, lock
        self._mend, self._load, self._mend_nics = mend, load, mend_nics
        self._carrier, self._firewalld, self._warn = carrier, firewalld, warn
        self._links: LinkGuard | None = None
        self._rules: RulesGuard | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ports: dict[str, set[int]] = {}
        self._mended: dict[str, list[float]] = {}
        self._failing: set[str] = set()

    def start(self) -> None:
        if self._links is not None:
            return
        try:
            self._links = LinkGuard(self._lost, lambda name: self._lost(name, []), self._carrier)
            layout = self._layout
            self._rules = RulesGuard(
                {layout.nft_table, layout.nft_nic_table, layout.nft_proxy_table}, self._flushed, self._docker,
                layout.nft_nics_table, lambda: self._later("the rules of nics", self._look_at_nics),
                self._firewalld,
            )  # fmt: skip
        except OSError as error:
            text = f"Nobody will notice when bridges or firewall rules are removed by hand: {error.strerror}"
            self._warn(Notice(text, FIREWALL))

    def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        for guard in (self._links, self._rules):
            if guard is not None:
                guard.close()
        self._links = self._rules = None

    @contextlib.contextmanager
    def own_change(self) -> Iterator[list[int]]:
        """A change of the rules by ourselves; the body appends how many transactions it took."""
        guard, count = self._rules, list[int]()
        if guard is not None:
            guard.begin()
        try:
            yield count
        finally:
            if guard is not None and guard is self._rules:
                guard.end(sum(count))

    def _later(self, key: str, work: Callable[[], Awaitable[None]], url: str = "/1.0/networks") -> None:
        """Runs `work` once, however often it is asked for meanwhile."""
        if key in self._tasks:
            return
        loop = asyncio.get_running_loop()

        async def run() -> None:
            try:
                await asyncio.sleep(self._pause(key, loop.time()))
                async with self._lock:
                    del self._tasks[key]  # what is heard from here on is something new
                    await work()
                if key in self._failing:
                    self._failing.discard(key)
                    self._warn(Over(NETWORK_UNAVAILABLE, url))
            except (ApiError, OSError) as error:
                self._failing.add(key)
                self._warn(Notice(f"Mending {key} failed: {error}", NETWORK_UNAVAILABLE, url))
            finally:
                if self._tasks.get(key) is task:
                    del self._tasks[key]

        task = self._tasks[key] = loop.create_task(run())

    def _pause(self, key: str, now: float) -> float:
        recent = self._mended[key] = [when for when in self._mended.get(key, []) if when > now - _WITHIN]
        return _REST if len(recent) >= _OFTEN else _SETTLE

    def _done(self, key: str, what: Notice) -> None:
        self._mended.setdefault(key, []).append(asyncio.get_running_loop().time())
        self._warn(what)

    def _lost(self, name: str, ports: list[int]) -> None:
        for one in [name] if name else self._store.networks.all():
            if self._store.networks.get(one) is None:
                continue
            self._ports.setdefault(one, set()).update(ports)
            url = f"/1.0/networks/{one}"
            self._later(f"network {one!r}", lambda one=one: self._look(one), url)  # type: ignore[misc]

    async def _look(self, name: str) -> None:
        document = self._store.networks.get(name)
        ports = sorted(self._ports.pop(name, set()))
        if document is not None and (what := await self._mend(name, document, ports)):
            self._done(
                f"network {name!r}", Notice(f"Network {name!r}: {what}", NETWORK_MENDED, f"/1.0/networks/{name}")
            )

    def _flushed(self, certain: bool) -> None:
        self._later("the firewall rules", lambda: self._reload(certain))

    async def _reload(self, certain: bool) -> None:
        if documents := self._store.networks.all():
            await self._load(documents)
            if certain:
                self._done(
                    "the firewall rules",
                    Notice(
                        "The firewall rules of the networks were removed or changed by somebody and are loaded again",
                        FIREWALL,
                    ),
                )

    async def _look_at_nics(self) -> None:
        if await self._mend_nics():
            self._done(
                "the rules of nics",
                Notice("Filters or limits of nics were removed or changed by somebody and are loaded again", FIREWALL),
            )

    def _docker(self) -> None:
        self._later("the rules for Docker", self._reload_docker)

    async def _reload_docker(self) -> None:
        if documents := self._store.networks.all():
            with self.own_change() as count:
                count.append(await firewall.docker(self._layout.nft_table, documents))

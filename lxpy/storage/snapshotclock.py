"""When snapshots are made and go by themselves: one alarm for all that have a schedule or an expiry.

Whoever keeps snapshots (of instances, of custom volumes) is a `Keeper`. Nothing is looked at between two alarms; what
was due while no daemon ran is not made up for, what has expired meanwhile goes at the start.
"""

import asyncio
import datetime
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Protocol

from lxpy.api.errors import ApiError, NotFound
from lxpy.api.notices import EXPIRY, SCHEDULE, Kind, Notice
from lxpy.storage import retention
from lxpy.storage.retention import Plan

_SETTLE = 0.5  # seconds after a change until the next alarm is set: changes come in crowds
_LONGEST = 3600.0  # the clock may be set meanwhile: look again every hour
_RETRY = 300.0  # seconds until a snapshot that could not be deleted is tried again


class Keeper(Protocol):
    """Who has snapshots."""

    def expiring(self) -> Iterable[tuple[str, Any]]:
        """(when, which) of those that are not kept for ever; when: RFC 3339."""

    def scheduled(self) -> Iterable[tuple[Hashable, dict[str, str]]]:
        """What may have a schedule, and its (expanded) configuration."""

    async def expire(self, which: Any) -> None: ...

    async def take(self, what: Any, plan: Plan) -> None:
        """Make a snapshot by a plan, if there should be one now, and delete those that it keeps no longer."""

    def place(self, what: Any) -> tuple[str, str, str]:
        """Of an item of either list: how messages call it, its URL, its project."""


class SnapshotClock:
    """The alarm.

    Args:
        warn: told of a snapshot that could not be made or deleted.
    """

    def __init__(self, keepers: list[Keeper], warn: Callable[[str], None]) -> None:
        self._keepers, self._warn = keepers, warn
        self._handled: dict[Hashable, datetime.datetime] = {}  # by plan: up to when its times have been dealt with
        self._soon: asyncio.TimerHandle | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        for timer in (self._soon, self._alarm):
            if timer is not None:
                timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def changed(self) -> None:
        """Something may have another schedule or expiry now."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_SETTLE, self._settle)

    def _settle(self) -> None:
        self._soon = None
        self._set()

    def _set(self, at_least: float = 0.0) -> None:
        """Set the alarm for what comes next."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        due = [when for *_, when in self._planned()]
        due += [_moment(when) for keeper in self._keepers for when, _ in keeper.expiring()]
        if due:
            wait = (min(due) - _now()).total_seconds()
            self._alarm = asyncio.get_running_loop().call_later(max(at_least, min(wait, _LONGEST)), self._ring)

    def _planned(self) -> list[tuple[Keeper, Any, Plan, Hashable, datetime.datetime]]:
        """Every plan that comes round, and when next; a new one begins now."""
        found: list[tuple[Keeper, Any, Plan, Hashable, datetime.datetime]] = []
        before, now = self._handled, _now()
        self._handled = {}
        for number, keeper in enumerate(self._keepers):
            for what, config in keeper.scheduled():
                for plan in retention.plans(config):
                    key = (number, what, plan.name, plan.spec)
                    since = self._handled[key] = before.get(key, now)
                    if (when := plan.schedule.after(since)) is not None:
                        found.append((keeper, what, plan, key, when))
        return found

    def _ring(self) -> None:
        self._alarm = None
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        failed, now = False, _now()
        for keeper in self._keepers:
            for when, which in list(keeper.expiring()):
                if _moment(when) <= now:
                    failed |= not await self._try(keeper, which, EXPIRY, "could not be deleted", keeper.expire(which))
        for keeper, what, plan, key, due in self._planned():
            if due <= now:
                self._handled[key] = now
                await self._try(keeper, what, SCHEDULE, "could not be snapshotted as planned", keeper.take(what, plan))
        self._set(_RETRY if failed else 0.0)

    async def _try(self, keeper: Keeper, what: Any, kind: Kind, failed: str, work: Any) -> bool:
        try:
            await work
        except NotFound:
            pass  # it has gone by itself
        except (ApiError, OSError) as error:
            name, url, project = keeper.place(what)
            self._warn(Notice(f"{name} {failed}: {error}", kind, url, project))
            return False
        return True


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)

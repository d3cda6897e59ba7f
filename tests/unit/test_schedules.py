"""Schedules of snapshots: when they come round, what they are called, which go; and the one alarm for all."""

import asyncio
import datetime
import os
import time
from collections.abc import Hashable, Iterator
from typing import Any

import pytest

from lxpy.api.errors import BadRequest, InternalError, NotFound
from lxpy.storage import cron, retention
from lxpy.storage.retention import Plan
from lxpy.storage.snapshotclock import SnapshotClock


@pytest.fixture(params=["UTC0", "CET-1CEST,M3.5.0,M10.5.0/3"])
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The host's time zone, by POSIX rules: no database is needed."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def _next(expression: str, at: str) -> str:
    found = cron.parse("k", expression).after(datetime.datetime.fromisoformat(at).astimezone())
    assert found is not None
    return found.strftime("%Y-%m-%d %H:%M")


@pytest.mark.parametrize(
    ("expression", "at", "then"),
    [
        ("* * * * *", "2026-02-03 10:00:00", "2026-02-03 10:01"),
        ("* * * * *", "2026-02-03 10:00:59", "2026-02-03 10:01"),
        ("0 6 * * *", "2026-02-03 06:00:00", "2026-02-04 06:00"),
        ("*/20 9-17 * * *", "2026-02-03 17:41:00", "2026-02-04 09:00"),
        ("5/20 * * * *", "2026-02-03 10:26:00", "2026-02-03 10:45"),
        ("0,30 * * * *", "2026-02-03 10:00:00", "2026-02-03 10:30"),
        ("0 0 29 2 *", "2026-03-01 00:00:00", "2028-02-29 00:00"),
        ("0 0 * * 0", "2026-02-03 00:00:00", "2026-02-08 00:00"),
        ("0 0 * * 7", "2026-02-03 00:00:00", "2026-02-08 00:00"),
        ("0 0 * * mon-fri", "2026-02-06 00:00:00", "2026-02-09 00:00"),
        ("0 0 13 * fri", "2026-02-06 00:00:00", "2026-02-13 00:00"),
        ("0 0 10 * fri", "2026-02-06 00:00:00", "2026-02-10 00:00"),  # either day
        ("15 14 1 jan,JUL *", "2026-02-03 00:00:00", "2026-07-01 14:15"),
        ("59 23 31 12 *", "2026-12-31 23:59:00", "2027-12-31 23:59"),
        ("@hourly", "2026-02-03 10:00:00", "2026-02-03 11:00"),
        ("@daily", "2026-02-28 10:00:00", "2026-03-01 00:00"),
        ("@weekly", "2026-02-03 00:00:00", "2026-02-08 00:00"),
        ("@monthly", "2026-02-03 00:00:00", "2026-03-01 00:00"),
        ("@yearly", "2026-02-03 00:00:00", "2027-01-01 00:00"),
        ("@monthly, @weekly", "2026-02-23 00:00:00", "2026-03-01 00:00"),
        ("@hourly,@startup", "2026-02-03 10:59:59", "2026-02-03 11:00"),
    ],
)
def test_when(zone: str, expression: str, at: str, then: str) -> None:
    assert _next(expression, at) == then


def test_hours_that_are_left_out_or_come_twice() -> None:
    os.environ["TZ"] = "CET-1CEST,M3.5.0,M10.5.0/3"
    time.tzset()
    try:
        spring = datetime.datetime(2026, 3, 29, 0, 59, tzinfo=datetime.UTC)  # 01:59; next comes 03:00
        found = cron.parse("k", "*/30 * * * *").after(spring)
        assert found is not None and found > spring and found - spring <= datetime.timedelta(minutes=31)
        autumn = datetime.datetime(2026, 10, 25, 0, 30, tzinfo=datetime.UTC)
        moment, seen = autumn, []
        for _ in range(6):
            after = cron.parse("k", "0 * * * *").after(moment)
            assert after is not None and after > moment
            moment = after
            seen.append(moment)
        assert seen[-1] - seen[0] <= datetime.timedelta(hours=6)
    finally:
        del os.environ["TZ"]
        time.tzset()


@pytest.mark.parametrize(
    "wrong",
    ["", "*", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8",
     "5-1 * * * *",
     "*/0 * * * *", "*/x * * * *", "a * * * *", "-1 * * * *", "1,, * * * *", "@often", "@daily,0 0 * * *", "0 0 30 2 *",
     "٣ * * * *"],
)  # fmt: skip
def test_what_is_no_schedule(wrong: str) -> None:
    if not wrong:
        assert cron.parse("k", wrong) == cron.Schedule((), False)
        return
    with pytest.raises(BadRequest, match="Invalid value for k"):
        cron.parse("k", wrong)


def test_startup_and_never() -> None:
    assert cron.parse("k", "@startup") == cron.Schedule((), True)
    assert cron.parse("k", "@never").after(datetime.datetime.now(datetime.UTC)) is None


def test_plans() -> None:
    config = {
        "snapshots.schedule": "@daily", "snapshots.expiry": "2w", "snapshots.pattern": "p%d",
        "snapshots.schedules.hourly": "@hourly", "snapshots.schedules.hourly.expiry": "1d",
        "snapshots.schedules.hourly.keep": "3", "snapshots.schedules.w": "0 3 * * sun",
        "snapshots.schedules.w.pattern": "week-%d", "user.x": "1",
    }  # fmt: skip
    retention.check_plans(config)
    for key, value in config.items():
        if key.startswith(retention.SCHEDULES):
            retention.check_schedules(key, value)
    found = {plan.name: (plan.pattern, plan.expiry, plan.keep) for plan in retention.plans(config)}
    assert found == {"": ("p%d", "2w", None), "hourly": ("hourly-%d", "1d", 3), "w": ("week-%d", "2w", None)}
    assert retention.plans({"user.x": "1"}) == []
    for key, value in (
        ("snapshots.schedules.x", "soon"), ("snapshots.schedules.X", "@daily"), ("snapshots.schedules.", "@daily"),
        ("snapshots.schedules.x.keep", "0"), ("snapshots.schedules.x.keep", "many"),
        ("snapshots.schedules.x.expiry", "soon"), ("snapshots.schedules.x.pattern", "{{ x }}"),
        ("snapshots.schedules.x.nope", "1"),
    ):  # fmt: skip
        with pytest.raises(BadRequest):
            retention.check_schedules(key, value)
    with pytest.raises(BadRequest, match=r"set snapshots\.schedules\.x, too"):
        retention.check_plans({"snapshots.schedules.x.keep": "3"})


def test_names_count_on() -> None:
    at = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    assert retention.snapshot_name("", (), at) == "snap0"
    assert retention.snapshot_name("", {"snap1": {}, "snap7": {}, "snapx": {}}, at) == "snap8"
    assert retention.snapshot_name("a-%d-z", ["a-1-z", "a-2-y"], at) == "a-2-z"
    daily = "{{ creation_date|date:'2006-01-02' }}"
    assert retention.snapshot_name(daily, (), at) == "2026-02-03"
    assert retention.snapshot_name(daily, ["2026-02-03"], at) == "2026-02-03-0"
    plan = retention.plans({"snapshots.schedules.h": "@hourly", "snapshots.schedules.h.keep": "2"})[0]
    docs: dict[str, dict[str, object]] = {f"h-{n}": {"schedule": "h"} for n in range(4)}
    assert retention.surplus(plan, {"mine": {}, **docs, "other": {"schedule": "g"}}) == ["h-0", "h-1"]


class _Keeper:
    """Snapshots in memory; every take is noted."""

    def __init__(self) -> None:
        self.config: dict[int, dict[str, str]] = {}
        self.ends: dict[str, str] = {}
        self.taken: list[tuple[int, str]] = []
        self.gone: list[str] = []
        self.fail: Exception | None = None

    def expiring(self) -> list[tuple[str, Any]]:
        return [(when, name) for name, when in self.ends.items()]

    def scheduled(self) -> list[tuple[Hashable, dict[str, str]]]:
        return list(self.config.items())

    async def expire(self, which: str) -> None:
        if self.fail:
            raise self.fail
        del self.ends[which]
        self.gone.append(which)

    async def take(self, what: int, plan: Plan) -> None:
        self.taken.append((what, plan.name))

    def place(self, what: Any) -> tuple[str, str, str]:
        return str(what), "/1.0/x", "default"


async def test_the_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of the test's own: nothing before its time, each plan once, a new plan begins when it is set."""
    from lxpy.storage import snapshotclock

    now = datetime.datetime(2026, 2, 3, 10, 0, 30).astimezone()
    monkeypatch.setattr(snapshotclock, "_now", lambda: now)
    monkeypatch.setattr(snapshotclock, "_SETTLE", 0.0)
    keeper, told = _Keeper(), list[str]()
    clock = SnapshotClock([keeper], told.append)

    async def at(hour: int, minute: int, second: int = 0) -> None:
        nonlocal now
        now = now.replace(hour=hour, minute=minute, second=second)
        clock.changed()
        await asyncio.sleep(0.02)

    keeper.config = {1: {"snapshots.schedule": "@hourly"}, 2: {"snapshots.schedules.q": "*/15 * * * *"}}
    keeper.ends = {"old": now.isoformat(), "young": now.replace(hour=12).isoformat()}
    await at(10, 0, 31)
    assert keeper.gone == ["old"] and keeper.taken == []
    await at(10, 14, 59)
    assert keeper.taken == []
    await at(10, 15)
    await at(10, 15, 30)
    assert keeper.taken == [(2, "q")]
    keeper.config[3] = {"snapshots.schedule": "0 * * * *"}
    await at(10, 20)
    assert keeper.taken == [(2, "q")]
    await at(11, 7)  # the machine slept: each is made once
    assert sorted(keeper.taken) == [(1, ""), (2, "q"), (2, "q"), (3, "")]
    keeper.fail = InternalError("no")
    await at(12, 0, 31)
    assert told == ["young could not be deleted: no"] and "young" in keeper.ends
    keeper.fail = NotFound("gone")
    clock._ring()
    await asyncio.sleep(0.02)
    assert len(told) == 1
    keeper.config, keeper.ends = {}, {}
    clock.changed()
    await asyncio.sleep(0.02)
    assert clock._alarm is None  # nobody has a schedule: no timer at all
    clock.close()

"""When a schedule comes round: cron expressions of five fields, and their aliases.

As crontab(5) has them: minute, hour, day of the month, month, day of the week; ``*``, numbers, names of months and
days, ranges, lists, steps. Where both days are given, either will do. Times are the host's own. A library for this
would cost the daemon more memory than these lines (croniter brings dateutil).
"""

import datetime
from typing import NamedTuple

from lxpy.api.errors import BadRequest

ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@annually": "0 0 1 1 *", "@yearly": "0 0 1 1 *",
}  # fmt: skip
STARTUP, NEVER = "@startup", "@never"
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DAYS = "sun mon tue wed thu fri sat".split()
_FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 7))
_FAR = 366 * 9  # days: the 29th of February may be eight years away, once in a century


class Cron(NamedTuple):
    """One expression.

    Attributes:
        either: both days are restricted, and one of them is enough.
    """

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    either: bool

    def after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """The next time after `moment` (both aware), in local time; None for one that never comes."""
        local = moment.astimezone().replace(tzinfo=None)
        start = local.replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
        day = start.date()
        for _ in range(_FAR):
            if self._day(day):
                first = start.hour if day == start.date() else 0
                for hour in sorted(number for number in self.hours if number >= first):
                    for minute in sorted(self.minutes):
                        found = datetime.datetime(day.year, day.month, day.day, hour, minute)
                        # An hour that the clock leaves out or has twice may come out before what was asked.
                        if found >= start and found.astimezone() > moment:
                            return found.astimezone()
            day += datetime.timedelta(days=1)
        return None

    def _day(self, day: datetime.date) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (in_month or in_week if self.either else in_month and in_week)


class Schedule(NamedTuple):
    """What a value of ``snapshots.schedule`` says: expressions, and whether it also means every start."""

    crons: tuple[Cron, ...]
    startup: bool

    def after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """The earliest of `Cron.after`."""
        return min(filter(None, (cron.after(moment) for cron in self.crons)), default=None)


def parse(key: str, value: str) -> Schedule:
    """A cron expression, or aliases with commas between them. Raises `BadRequest`."""
    words = [word.strip() for word in value.split(",")]
    if any(word.startswith("@") for word in words):
        for word in words:
            if word not in ALIASES and word not in (STARTUP, NEVER):
                known = ", ".join((*ALIASES, STARTUP, NEVER))
                raise BadRequest(f"Invalid value for {key}: {word!r} is none of {known}")
        expressions = [ALIASES[word] for word in words if word in ALIASES]
        return Schedule(tuple(_cron(key, one) for one in dict.fromkeys(expressions)), STARTUP in words)
    return Schedule((_cron(key, value),) if value.strip() else (), False)


def _cron(key: str, text: str) -> Cron:
    fields = text.split()
    if len(fields) != 5:
        raise BadRequest(
            f"Invalid value for {key}: {text!r} is no cron expression (minute hour day month weekday) "
            f"and no alias ({', '.join(ALIASES)})"
        )
    sets = [_field(key, field, *rule) for field, rule in zip(fields, _FIELDS, strict=True)]
    weekdays = frozenset(number % 7 for number in sets[4])
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    cron = Cron(sets[0], sets[1], sets[2], sets[3], weekdays, either)
    if cron.after(datetime.datetime.now(datetime.UTC)) is None:
        raise BadRequest(f"Invalid value for {key}: {text!r} never comes")
    return cron


def _field(key: str, field: str, what: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in field.lower().split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = low, high
        else:
            begin = _number(key, field, first, what, low, high)
            end = _number(key, field, last, what, low, high) if dash else high if slash else begin
        if (slash and (not step.isdigit() or not int(step))) or begin > end:
            raise BadRequest(f"Invalid value for {key}: {field!r} is no {what}")
        found.update(range(begin, end + 1, int(step) if slash else 1))
    return frozenset(found)


def _number(key: str, field: str, text: str, what: str, low: int, high: int) -> int:
    names = {"month": (_MONTHS, 1), "day of the week": (_DAYS, 0)}.get(what, ([], 0))
    if text in names[0]:
        return names[0].index(text) + names[1]
    if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
        raise BadRequest(f"Invalid value for {key}: {field!r} is no {what} ({low} to {high})")
    return int(text)

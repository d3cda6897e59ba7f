"""What snapshots are called, when they are made and how long they are kept: the ``snapshots.*`` keys.

``snapshots.pattern``, ``.expiry`` and ``.schedule`` are LXD's. Ours: any number of schedules with names, each with its
own retention: ``snapshots.schedules.NAME``, ``.NAME.expiry``, ``.NAME.keep``, ``.NAME.pattern``.
"""

import datetime
import functools
import re
from collections.abc import Collection
from typing import NamedTuple

from lxpy.api import expiry
from lxpy.api.errors import BadRequest
from lxpy.storage import cron
from lxpy.storage.cron import Schedule

SCHEDULES = "snapshots.schedules."  # the keys of schedules with names
_DATE = re.compile(r"\{\{\s*creation_date\s*(?:\|\s*date\s*:\s*(['\"])([^'\"]*)\1\s*)?\}\}")
# Go writes a layout by example; longer parts first.
_LAYOUT = {
    "2006": "%Y", "January": "%B", "Monday": "%A", "Jan": "%b", "Mon": "%a", "MST": "%Z", "01": "%m", "02": "%d",
    "15": "%H", "03": "%I", "04": "%M", "05": "%S", "06": "%y", "PM": "%p",
}  # fmt: skip
_PARTS = re.compile("|".join(_LAYOUT))


def check_pattern(key: str, value: str) -> None:
    """Raises `BadRequest` for a pattern that would not give a name."""
    try:
        name = snapshot_name(value, (), datetime.datetime.now(datetime.UTC))
    except BadRequest as error:
        raise BadRequest(f"Invalid value for {key}: {error}") from None
    if value.count("%d") > 1:
        raise BadRequest(f"Invalid value for {key}: {value!r} has more than one %d")
    if "/" in name or " " in name:
        raise BadRequest(f"Invalid value for {key}: {value!r} gives {name!r}, and a name has no slash or space")


def snapshot_name(pattern: str, taken: Collection[str], at: datetime.datetime) -> str:
    """The name of the next snapshot.

    Args:
        pattern: with ``%d``, the lowest number above those there are, and ``{{ creation_date|date:'2006-01-02' }}``;
            empty: ``snap%d``. Without ``%d`` a name that is taken gets ``-%d`` behind it, as in LXD.
    """
    name = _DATE.sub(lambda match: _format(match[2], at), pattern or "snap%d")
    if "{{" in name or "{%" in name:
        raise BadRequest(f"{pattern!r} can hold %d and {{{{ creation_date|date:'2006-01-02_15-04-05' }}}} only")
    if "%d" not in name:
        if name not in taken:
            return name
        name += "-%d"
    before, _, after = name.partition("%d")
    form = re.compile(rf"{re.escape(before)}(\d+){re.escape(after)}\Z")
    numbers = [int(match[1]) for one in taken if (match := form.match(one))]
    return f"{before}{max(numbers, default=-1) + 1}{after}"


def _format(layout: str | None, at: datetime.datetime) -> str:
    layout = layout or "2006-01-02_15-04-05"
    return at.strftime(_PARTS.sub(lambda match: _LAYOUT[match[0]], layout.replace("%", "%%")))


# -- schedules -------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """One schedule.

    Attributes:
        name: "" for ``snapshots.schedule``.
        spec: what it was read from: another text is another plan.
        keep: how many of its snapshots there may be; None: any number.
    """

    name: str
    spec: str
    schedule: Schedule
    pattern: str
    expiry: str
    keep: int | None


_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}\Z")
_parsed = functools.lru_cache(256)(cron.parse)


def check_schedule(key: str, value: str) -> None:
    """Raises `BadRequest` unless `value` is a cron expression or a list of aliases."""
    _parsed(key, value)


def check_schedules(key: str, value: str) -> None:
    """A key that begins with `SCHEDULES`: ``NAME``, ``NAME.expiry``, ``NAME.keep`` or ``NAME.pattern``."""
    name, _, part = key.removeprefix(SCHEDULES).partition(".")
    if not _NAME.match(name):
        raise BadRequest(f"Invalid name of a schedule in {key}: use lower-case letters, digits and dashes")
    if not part:
        check_schedule(key, value)
    elif part == "expiry":
        expiry.check(key, value)
    elif part == "pattern":
        check_pattern(key, value)
    elif part != "keep":
        raise BadRequest(f"Unknown key {key!r}: a schedule has expiry, keep and pattern")
    elif not (value.isascii() and value.isdigit()) or not int(value):
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a number of snapshots")


def check_plans(config: dict[str, str]) -> None:
    """Raises `BadRequest` where (expanded, checked) configuration says something of a schedule that is not there."""
    for key, value in config.items():
        if key.startswith(SCHEDULES) and value:
            name = key.removeprefix(SCHEDULES).partition(".")[0]
            if not config.get(f"{SCHEDULES}{name}"):
                raise BadRequest(f"{key} is for a schedule that is not set: set {SCHEDULES}{name}, too")


def plans(config: dict[str, str]) -> list[Plan]:
    """The schedules of (expanded, checked) configuration."""
    found = []
    if value := config.get("snapshots.schedule"):
        schedule = _parsed("snapshots.schedule", value)
        found.append(
            Plan("", value, schedule, config.get("snapshots.pattern", ""), config.get("snapshots.expiry", ""), None)
        )
    for key, value in config.items():
        name = key.removeprefix(SCHEDULES)
        if key.startswith(SCHEDULES) and value and "." not in name:
            keep = config.get(f"{key}.keep")
            found.append(
                Plan(
                    name, value, _parsed(key, value), config.get(f"{key}.pattern") or f"{name}-%d",
                    config.get(f"{key}.expiry") or config.get("snapshots.expiry", ""), int(keep) if keep else None,
                )
            )  # fmt: skip
    return found


def surplus(plan: Plan, snapshots: "dict[str, dict[str, object]]") -> list[str]:
    """Names of those that a plan keeps no longer, of snapshots in the order they were made."""
    mine = [name for name, doc in snapshots.items() if doc.get("schedule") == plan.name]
    return mine[: -plan.keep] if plan.keep and plan.name else []

"""What snapshots are called and how long they are kept: ``snapshots.pattern`` and ``snapshots.expiry`` of LXD."""

import calendar
import datetime
import re
from collections.abc import Container

from lxpy.api.errors import BadRequest

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, LXD's word for "no expiry"
_EXPIRY = re.compile(r"(\d+)([MHdwmy])\Z")
_DATE = re.compile(r"\{\{\s*creation_date\s*(?:\|\s*date\s*:\s*(['\"])([^'\"]*)\1\s*)?\}\}")
# Go writes a layout by example; longer parts first.
_LAYOUT = {
    "2006": "%Y", "January": "%B", "Monday": "%A", "Jan": "%b", "Mon": "%a", "MST": "%Z", "01": "%m", "02": "%d",
    "15": "%H", "03": "%I", "04": "%M", "05": "%S", "06": "%y", "PM": "%p",
}  # fmt: skip
_PARTS = re.compile("|".join(_LAYOUT))


def check_expiry(key: str, value: str) -> None:
    """Raises `BadRequest` unless `value` is a list such as ``1d 2H``."""
    expires(key, value, datetime.datetime.now(datetime.UTC))


def expires(key: str, value: str, at: datetime.datetime) -> str:
    """When something made at `at` and kept for `value` goes: RFC 3339, or `NEVER` for an empty value.

    M minutes, H hours, d days, w weeks, m months, y years; several are added up.
    """
    if not value.strip():
        return NEVER
    for word in value.split():
        match = _EXPIRY.match(word)
        if not match:
            raise BadRequest(
                f"Invalid value for {key}: {value!r}; write numbers with M, H, d, w, m or y (minutes to years), "
                "for example 2w 3d"
            )
        count, unit = int(match[1]), match[2]
        try:
            if unit in "my":
                months = at.month - 1 + count * (12 if unit == "y" else 1)
                year, month = at.year + months // 12, months % 12 + 1
                at = at.replace(year=year, month=month, day=min(at.day, calendar.monthrange(year, month)[1]))
            else:
                at += count * datetime.timedelta(
                    minutes=unit == "M", hours=unit == "H", days=unit == "d", weeks=unit == "w"
                )
        except (ValueError, OverflowError):
            raise BadRequest(f"Invalid value for {key}: {value!r} lies beyond the year 9999") from None
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> str:
    """An RFC 3339 time in UTC, to the second; "" and Go's zero time are `NEVER`. Raises `BadRequest`."""
    if not text or text.startswith("0001-"):
        return NEVER
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"Invalid expires_at {text!r}: write it as 2026-12-31T23:59:59Z") from None
    found = found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
    return found.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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


def snapshot_name(pattern: str, taken: Container[str], at: datetime.datetime) -> str:
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
    number = 0
    while (found := name.replace("%d", str(number))) in taken:
        number += 1
    return found


def _format(layout: str | None, at: datetime.datetime) -> str:
    layout = layout or "2006-01-02_15-04-05"
    return at.strftime(_PARTS.sub(lambda match: _LAYOUT[match[0]], layout.replace("%", "%%")))

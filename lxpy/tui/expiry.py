"""How long a snapshot is kept, as a person types it: spans as the ``snapshots.expiry`` key has them, or a date."""

import calendar
import re
from datetime import UTC, datetime, timedelta

from lxpy.api.errors import BadRequest

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, LXD's word for no expiry
_SPAN = re.compile(r"(\d{1,6})([MHdwmy])")


def expires_at(text: str, now: datetime | None = None) -> str:
    """RFC 3339 of ``2w 3d``, ``2027-01-31``, ``2027-01-31 18:00`` (UTC), or ``never``.

    M minutes, H hours, d days, w weeks, m months, y years; several are added up.

    Raises:
        BadRequest: it is none of these, or past.
    """
    at = before = now or datetime.now(UTC)
    if text.strip().lower() in ("never", ""):
        return NEVER
    spans = [_SPAN.fullmatch(word) for word in text.split()]
    try:
        if all(spans):
            for match in spans:
                assert match is not None
                count, unit = int(match[1]), match[2]
                if unit in "my":
                    months = at.month - 1 + count * (12 if unit == "y" else 1)
                    year, month = at.year + months // 12, months % 12 + 1
                    at = at.replace(year=year, month=month, day=min(at.day, calendar.monthrange(year, month)[1]))
                else:
                    hours = {"M": 1 / 60, "H": 1, "d": 24, "w": 168}[unit]
                    at += timedelta(hours=count * hours)
        else:
            at = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise BadRequest(
            f"{text!r} is no time to keep it: write 2w 3d, 12H, a date such as 2027-01-31, or never"
        ) from None
    if at <= before:
        raise BadRequest(f"{text!r} is past: it would be deleted at once")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

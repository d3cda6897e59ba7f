"""How long things are kept: spans as the ``*.expiry`` keys have them, and the moments that come of them."""

import calendar
import datetime
import re

from lxpy.api.errors import BadRequest

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time, LXD's word for "no expiry"
_SPAN = re.compile(r"(\d+)([MHdwmy])\Z")


def check(key: str, value: str) -> None:
    """Raises `BadRequest` unless `value` is a list such as ``1d 2H``."""
    expires(key, value, datetime.datetime.now(datetime.UTC))


def expires(key: str, value: str, at: datetime.datetime) -> str:
    """When something made at `at` and kept for `value` goes: RFC 3339, or `NEVER` for an empty value.

    M minutes, H hours, d days, w weeks, m months, y years; several are added up.
    """
    if not value.strip():
        return NEVER
    for word in value.split():
        match = _SPAN.match(word)
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


def typed(text: str, now: datetime.datetime | None = None) -> str:
    """When what a person keeps for ``2w 3d``, or until ``2027-01-31`` or ``2027-01-31 18:00`` (UTC), goes: RFC 3339.

    ``never`` and an empty text are `NEVER`.

    Raises:
        BadRequest: it is none of these, or past.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    if text.strip().lower() in ("", "never"):
        return NEVER
    try:
        found = moment(text.strip()) if "-" in text else expires("", text, now)
    except BadRequest:
        raise BadRequest(
            f"{text!r} is no time to keep it: write 2w 3d, 12H, a date such as 2027-01-31, or never"
        ) from None
    if datetime.datetime.fromisoformat(found) <= now.replace(microsecond=0):
        raise BadRequest(f"{text!r} is past: it would be deleted at once")
    return found

"""What stands in the YAML of backups: written without tricks, read without trust."""

import datetime
import re
from typing import Any

import yaml

from lxpy.api import expiry


def dump(document: Any) -> bytes:
    """As YAML, without anchors for what occurs twice."""
    found: str = yaml.dump(document, Dumper=_Plain, sort_keys=False)
    return found.encode()


class _Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    def ignore_aliases(self, data: object) -> bool:
        return True


def text(value: Any) -> str:
    """The value of a configuration key: YAML makes numbers and booleans of what looks like them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def moment(value: Any) -> str:
    """A time as the API has it, which YAML may have made a date of; `expiry.NEVER` for what is none."""
    found = expiry.NEVER
    if isinstance(value, datetime.datetime):
        value = value if value.tzinfo else value.replace(tzinfo=datetime.UTC)
        if value.year > 1:
            found = value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    elif isinstance(value, str) and re.match(r"\d{4}-\d\d-\d\dT", value):
        found = value
    return found

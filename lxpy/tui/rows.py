"""What the panes show, computed once per change from the API's objects: rows, ages, sizes, the filter language."""

import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from lxpy.api.values import size_bytes
from lxpy.tui.usage import Sample

# state -> (glyph, tone). Glyphs differ in shape, so that NO_COLOR loses nothing.
STATES: dict[str, tuple[str, str]] = {
    "Running": ("●", "ok"),
    "Ready": ("●", "ok"),
    "Stopped": ("○", "dim"),
    "Frozen": ("❄", "info"),
    "Error": ("✖", "bad"),
}
BUSY = ("◌", "warn")


class InstanceRow:
    """One instance as the table shows it.

    Args:
        raw: ``/1.0/instances/NAME`` with `state` (recursion 1 of one, 2 of all).
    """

    __slots__ = (
        "cpu", "created", "image", "ipv4", "ipv6", "memory", "memory_limit", "name", "processes", "raw", "snapshots",
        "status", "type",
    )  # fmt: skip

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.name: str = raw["name"]
        self.status: str = raw.get("status", "")
        self.type: str = raw.get("type", "container")
        self.image = image_text(raw.get("expanded_config") or raw.get("config") or {})
        self.created = epoch(raw.get("created_at", ""))
        self.memory_limit = _limit(raw)
        self.snapshots = len(raw.get("snapshots") or [])
        self.ipv4 = self.ipv6 = ""
        self.cpu = -1.0  # percent of one CPU, once two readings are there
        self.memory = self.processes = 0
        self.apply_state(raw.get("state"))

    @property
    def key(self) -> str:
        return self.name

    @property
    def kind(self) -> str:
        return "instances"

    @property
    def running(self) -> bool:
        return self.status in ("Running", "Ready")

    def apply_state(self, state: dict[str, Any] | None) -> bool:
        """Takes addresses and memory of `state`; true when anything shown has changed."""
        before = (self.ipv4, self.ipv6, self.memory)
        state = state or {}
        if "network" in state or not state:
            self.ipv4 = first_address(state, "inet")
            self.ipv6 = first_address(state, "inet6")
        if "memory" in state or not state:
            self.memory = int((state.get("memory") or {}).get("usage", 0))
        kept = self.raw.get("state")
        if state and isinstance(kept, dict):
            kept.update({k: v for k, v in state.items() if k in ("network", "memory", "cpu", "processes", "disk")})
        elif state:
            self.raw["state"] = dict(state)
        return before != (self.ipv4, self.ipv6, self.memory)

    def apply_usage(self, reading: dict[str, Any], sample: Sample | None) -> bool:
        """Takes what ``/1.0/usage`` says; true when anything shown has changed."""
        before = (self.cpu, self.memory, self.processes)
        self.memory, self.processes = max(reading["memory"], 0), max(reading["processes"], 0)
        self.memory_limit = reading.get("memory_limit") or self.memory_limit
        self.cpu = round(sample.cpu, 1) if sample else -1.0
        return before != (self.cpu, self.memory, self.processes)


class ImageRow:
    """One local image, or one line of a remote's catalogue (then `remote` names it)."""

    __slots__ = ("aliases", "architecture", "created", "description", "fingerprint", "raw", "remote", "size")

    def __init__(self, raw: dict[str, Any], remote: str = "") -> None:
        self.raw = raw
        self.remote = remote
        self.fingerprint: str = raw.get("fingerprint", "")
        self.aliases: list[str] = [a["name"] for a in raw.get("aliases") or []]
        properties = raw.get("properties") or {}
        self.description: str = properties.get("description") or image_text(
            {f"image.{k}": v for k, v in properties.items()}
        )
        self.architecture: str = raw.get("architecture", "")
        self.size = int(raw.get("size") or 0)
        self.created = epoch(raw.get("uploaded_at") or raw.get("created_at") or "")

    @property
    def kind(self) -> str:
        return "images"

    @property
    def key(self) -> str:
        return f"{self.remote}:{self.fingerprint or self.title}"

    @property
    def title(self) -> str:
        """The shortest alias, as a person would type it; else the short fingerprint."""
        return min(self.aliases, key=lambda a: (len(a), a)) if self.aliases else self.fingerprint[:12]

    @property
    def reference(self) -> str:
        """What `lxpy launch` takes."""
        return f"{self.remote}:{self.title}" if self.remote else self.title


def first_address(state: dict[str, Any], family: str) -> str:
    """The first global address of `family` on the interfaces of the guest, else ``""``."""
    for name, nic in sorted((state.get("network") or {}).items()):
        if name == "lo":
            continue
        for address in nic.get("addresses") or []:
            if address.get("family") == family and address.get("scope") == "global":
                return str(address["address"])
    return ""


def image_text(config: dict[str, str]) -> str:
    """A short name of the image an instance came from."""
    system, release = config.get("image.os", ""), config.get("image.release", "")
    if system:
        return f"{system} {release}".strip()
    return config.get("image.description", "") or config.get("volatile.base_image", "")[:12]


@lru_cache(1 << 14)
def epoch(stamp: str) -> float:
    """Seconds since 1970 of an RFC 3339 stamp; 0 where it is empty, broken or LXD's zero date."""
    if len(stamp) < 19 or stamp.startswith(("0001", "1970")):
        return 0.0
    text = re.sub(r"\.(\d{1,6})\d*", lambda m: f".{m[1]:0<6}", stamp.replace("Z", "+00:00"))
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0


def age(since: float, now: float | None = None) -> str:
    """``8s``, ``5m``, ``3h``, ``12d``, ``5y``: as k9s counts ages."""
    if not since:
        return "–"
    seconds = max(0, int((time.time() if now is None else now) - since))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m"
    if seconds < 86400:
        return f"{seconds // 3600}h"
    days = seconds // 86400
    return f"{days}d" if days < 1000 else f"{days // 365}y"


def size(count: float) -> str:
    """``812K``, ``54.0M``, ``1.2G``: four or five cells, binary units."""
    if count <= 0:
        return "–"
    for unit in "BKMGTP":
        if count < 999.5 or unit == "P":
            break
        count /= 1024
    return f"{count:.0f}{unit}" if unit == "B" or count >= 99.95 else f"{count:.1f}{unit}"


def _limit(raw: dict[str, Any]) -> int:
    value = (raw.get("expanded_config") or raw.get("config") or {}).get("limits.memory", "")
    if not value or value.endswith("%"):
        return 0
    try:
        return size_bytes("limits.memory", value)
    except Exception:
        return 0  # the daemon judges values; a bar without a limit is all that is lost here


def matcher(query: str) -> Callable[[Any], bool]:
    """A test for rows. Words are joined by AND: ``text``; ``state:running``, ``type:``, ``image:``, ``ip:``, ``arch:``
    for a part of that; ``os:``, ``release:``, ``variant:`` for the beginning of a word of it; ``os:=debian`` for the
    whole of it and ``os:any`` for anything; ``key=value`` of the configuration, ``~regex``, and ``!`` before any of
    them for its opposite."""
    tests = [_term(word) for word in query.lower().split()]
    return lambda row: all(test(row) for test in tests)


def named(query: str) -> set[str]:
    """The fields that a query asks about: ``{"os"}`` of ``os:debian cloud``."""
    return {word.lstrip("!").partition(":")[0] for word in query.lower().split() if ":" in word}


def _term(word: str) -> Callable[[Any], bool]:
    if len(word) > 1 and word[0] == "!":
        inner = _term(word[1:])
        return lambda row: not inner(row)
    if word[:1] == "~" and len(word) > 1:
        try:
            pattern = re.compile(word[1:], re.IGNORECASE)
        except re.error:
            return lambda row: False  # it is still being typed
        return lambda row: pattern.search(haystack(row)) is not None
    name, colon, value = word.partition(":")
    if colon and name in _FIELDS:
        known = _FIELDS[name]
        if value == "any":
            return lambda row: True
        if value[:1] == "=":
            return lambda row: value[1:] in known(row)
        if name in _BEGINNINGS:
            return lambda row: any(text.startswith(value) for text in known(row))
        return lambda row: any(value in text for text in known(row))
    key, equals, wanted = word.partition("=")
    if equals:
        return lambda row: any(
            k.lower() == key and wanted in str(v).lower()
            for k, v in ((row.raw.get("expanded_config") or row.raw.get("properties") or {}).items())
        )
    return lambda row: word in haystack(row)


def _attribute(*names: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda row: tuple(str(getattr(row, name, "")).lower() for name in names)


def _states(row: Any) -> tuple[str, ...]:
    """What ``state:`` finds it by: one that is ready is running, too."""
    status = str(getattr(row, "status", "")).lower()
    return (status, "running") if status == "ready" else (status,)


def _image_fact(name: str) -> Callable[[Any], tuple[str, ...]]:
    def known(row: Any) -> tuple[str, ...]:
        facts = getattr(row, "facts", None)
        if facts is not None:
            return facts.get(name, ())  # type: ignore[no-any-return]
        raw = getattr(row, "raw", None) or {}
        values = raw.get("properties") or {}
        config = raw.get("expanded_config") or {}
        return image_facts(values or {k[6:]: v for k, v in config.items() if k.startswith("image.")}, raw, name)

    return known


def image_facts(properties: dict[str, Any], raw: dict[str, Any], name: str) -> tuple[str, ...]:
    """What the filter language knows of an image by the field `name`: texts in small letters, without blanks."""
    keys = {"arch": ("architecture",), "release": ("release", "version")}.get(name, (name,))
    found = [str(properties.get(key) or "") for key in keys]
    if name == "arch":
        found.append(str(raw.get("architecture") or ""))
    return tuple(dict.fromkeys("-".join(text.lower().split()) for text in found if text))


# What the filter language calls things, and the texts of a row by that name.
_FIELDS: dict[str, Callable[[Any], tuple[str, ...]]] = {
    "state": _states,
    "status": _attribute("status"),
    "type": _attribute("type"),
    "image": _attribute("image"),
    "ip": _attribute("ipv4", "ipv6"),
    **{name: _image_fact(name) for name in ("os", "release", "variant", "arch", "versions")},
}
_BEGINNINGS = frozenset({"os", "release", "variant", "versions"})  # release:12 is not 3.12


def haystack(row: Any) -> str:
    """All the text of a row that plain words search."""
    if text := getattr(row, "text", ""):
        return str(text)
    names = ("name", "ipv4", "ipv6", "image", "description", "fingerprint", "url", "protocol")
    parts: Iterable[str] = (str(getattr(row, n, "")) for n in names)
    return " ".join((*parts, *getattr(row, "aliases", ()))).lower()

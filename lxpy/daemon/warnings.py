"""Warnings: what the administrator should know of, counted, until it is over, acknowledged or deleted."""

import asyncio
import logging
import time
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from lxpy.api.errors import BadRequest, NotFound
from lxpy.api.notices import APPARMOR, CGROUP, UNKNOWN, Kind, Notice, Over
from lxpy.daemon.events import timestamp
from lxpy.state.store import Store

log = logging.getLogger("lxpyd")
_KEPT = 86400.0  # seconds a resolved warning can still be looked at (LXD's day)
_TICK = 3600.0
_NEEDED = ("cpu", "cpuset", "memory", "pids")  # controllers that limits.* work by; the v1 names, too

Document = dict[str, Any]


class Warnings:
    """The table of warnings; one per kind and object.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._table = store.warnings
        self._begun = timestamp()
        # By kind and object; `_open` are those not resolved: lifecycle events come often, and few mean anything here.
        self._known = {_key(doc): str(doc["uuid"]) for doc in self._table.all().values()}
        self._open = {_key(doc) for doc in self._table.all().values() if doc["status"] != "resolved"}
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, text: str) -> None:
        """Record a warning, or the end of one (`Over`). This is the managers' ``warn``."""
        notice = text if isinstance(text, Notice) else Notice(text, UNKNOWN)
        key = (notice.kind.name, notice.url, notice.project, "" if notice.url else str(text))
        if isinstance(notice, Over):
            self._resolve(key)
            return
        log.warning("%s", text)
        now = timestamp()
        old = self._table.get(self._known[key]) if key in self._known else None
        if old is not None:
            status = "acknowledged" if old["status"] == "acknowledged" else "new"
            doc = {**old, "status": status, "count": old["count"] + 1, "last_seen_at": now, "last_message": str(text)}
            doc.pop("resolved_at", None)
        else:
            suffix = f"?project={quote(notice.project)}" if notice.project not in ("", "default") else ""
            doc = {
                "uuid": str(uuid.uuid4()), "type": notice.kind.name, "severity": notice.kind.severity,
                "status": "new", "count": 1, "project": notice.project, "location": "none",
                "entity_url": notice.url + suffix, "first_seen_at": now, "last_seen_at": now,
                "last_message": str(text),
            }  # fmt: skip
        self._table.put(doc["uuid"], doc)
        self._known[key] = doc["uuid"]
        self._open.add(key)

    def happened(self, action: str, source: str, project: str) -> None:
        """A lifecycle event: an object that is gone, or works again, has no warnings of that any more."""
        for key in [key for key in self._open if key[1] == source and key[2] in ("", project)]:
            if action.endswith("-deleted") or action in _ENDS.get(key[0], ()):
                self._resolve(key)

    def started(self) -> None:
        """The daemon is up: what it has not met again is over. Resolved warnings go after a day from here on."""
        for doc in self._table.all().values():
            if doc["last_seen_at"] < self._begun:
                self._resolve(_key(doc))
        self._prune()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _resolve(self, key: tuple[str, str, str, str]) -> None:
        if key in self._open:
            self._open.discard(key)
            doc = self._row(self._known[key])
            self._table.put(doc["uuid"], {**doc, "status": "resolved", "resolved_at": timestamp()})

    def _prune(self) -> None:
        self.prune(time.time())
        self._timer = asyncio.get_running_loop().call_later(_TICK, self._prune)

    def prune(self, now: float) -> None:
        """Forget what was over a day before `now` (seconds since the epoch)."""
        limit = datetime.fromtimestamp(now - _KEPT, UTC).isoformat()
        for doc in self._table.all().values():
            if doc["status"] == "resolved" and str(doc.get("resolved_at") or doc["last_seen_at"]) < limit:
                self.delete(doc["uuid"])

    # -- the API -------------------------------------------------------------------------------------------------

    def all(self) -> list[Document]:
        """As the API has them, in the order in which they were last seen."""
        return sorted(map(_shown, self._table.all().values()), key=lambda doc: str(doc["last_seen_at"]))

    def get(self, found: str) -> Document:
        """Raises `NotFound`."""
        return _shown(self._row(found))

    def _row(self, found: str) -> Document:
        doc = self._table.get(found)
        if doc is None:
            raise NotFound(f"Warning {found!r} not found")
        return doc

    def set_status(self, found: str, status: str) -> None:
        """Raises `BadRequest` for anything but new and acknowledged: what is resolved is not for the client to say."""
        doc = self._row(found)
        if status not in ("new", "acknowledged"):
            raise BadRequest(f"A warning can be set to new or acknowledged, not to {status!r}")
        if doc["status"] == "resolved":
            raise BadRequest("This warning is resolved already: it goes by itself within a day, or delete it")
        self._table.put(found, {**doc, "status": status})

    def delete(self, found: str) -> None:
        """Raises `NotFound`."""
        doc = self._row(found)
        self._table.delete(found)
        self._known.pop(_key(doc), None)
        self._open.discard(_key(doc))


def host_notices() -> list[Notice]:
    """What this host lacks that every instance would use; two small files are read."""
    from lxpy.host import probes
    from lxpy.linux import cgroups

    there = cgroups.hierarchies()
    available = set(there.v1)
    if there.unified:
        try:
            available |= set(cgroups.read(f"{there.unified}/cgroup.controllers").split())
        except OSError:
            pass
    found = [
        Notice(f"The cgroup controller {name} is missing: limits that need it are refused",
               Kind(CGROUP.name.format(name), CGROUP.severity))
        for name in _NEEDED if name not in available
    ]  # fmt: skip
    if reason := probes.apparmor_off():
        found.append(Notice(f"Instances run without AppArmor profiles: {reason}", APPARMOR))
    return found


def _shown(doc: Document) -> Document:
    return {key: value for key, value in doc.items() if key != "resolved_at"}


def _key(doc: Document) -> tuple[str, str, str, str]:
    # What is about no object is known by what it says.
    message = "" if doc["entity_url"] else doc["last_message"]
    return doc["type"], doc["entity_url"].partition("?")[0], doc["project"], message


def _ends() -> dict[str, tuple[str, ...]]:
    from lxpy.api import notices

    return {kind.name: kind.ends for kind in vars(notices).values() if isinstance(kind, Kind) and kind.ends}


_ENDS = _ends()

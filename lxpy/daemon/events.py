"""Events: what happened, sent to every websocket that asked for it."""

import asyncio
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest

if TYPE_CHECKING:
    from lxpy.daemon.operations import Operation

TYPES = ("lifecycle", "logging", "operation")
_BACKLOG = 2000  # events a listener may lag behind before it is cut off: it has stopped reading


def timestamp() -> str:
    """Now, as the API writes times: RFC 3339, UTC."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


class Subscription:
    """One listener. `queue` holds encoded frames; None ends it."""

    def __init__(self, types: frozenset[str], projects: frozenset[str] | None, server: bool) -> None:
        self.types = types
        self.projects = projects
        self.server = server
        self.queue: asyncio.Queue[str | None] = asyncio.Queue()

    def put(self, frame: str) -> None:
        if self.queue.qsize() > _BACKLOG:
            self.queue.put_nowait(None)
            self.types = frozenset()
        else:
            self.queue.put_nowait(frame)


class Events:
    """The fan-out. Costs nothing while nobody listens."""

    def __init__(self) -> None:
        self._listeners: set[Subscription] = set()
        self._handler = _LogHandler(self)

    @contextmanager
    def subscribe(self, types: str, projects: frozenset[str] | None, *, server: bool = True) -> Iterator[Subscription]:
        """Listen while the context is open.

        Args:
            types: comma-separated; empty for all.
            projects: only their events and those of no project; None for every project.
            server: those of no project, too, and the log.
        """
        chosen = frozenset(types.split(",")) if types else frozenset(TYPES)
        if not chosen <= set(TYPES):
            raise BadRequest(f"Invalid event type {types!r}: choose from {', '.join(TYPES)}")
        listener = Subscription(chosen if server else chosen - {"logging"}, projects, server)
        self._listeners.add(listener)
        self._watch_log()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._watch_log()

    def close(self) -> None:
        """End every listener."""
        for listener in self._listeners:
            listener.queue.put_nowait(None)

    def lifecycle(self, action: str, source: str, project: str, context: dict[str, Any] | None = None) -> None:
        """Something happened to an object. This is the managers' `Emit`."""
        if self._listeners:
            metadata: dict[str, Any] = {"action": action, "source": source, "project": project}
            if context:
                metadata["context"] = context
            self._send("lifecycle", metadata, project)

    def operation(self, operation: "Operation") -> None:
        """An operation changed."""
        if self._listeners:
            self._send("operation", operation.render(), operation.project)

    def log(self, level: str, message: str) -> None:
        self._send("logging", {"level": level, "message": message, "context": {}}, "")

    def _send(self, type_: str, metadata: dict[str, Any], project: str) -> None:
        frame = ""
        for listener in self._listeners:
            if type_ not in listener.types or not (project or listener.server):
                continue
            if project and listener.projects is not None and project not in listener.projects:
                continue
            if not frame:
                event = {"type": type_, "timestamp": timestamp(), "metadata": metadata, "location": "none"}
                if project:
                    event["project"] = project
                frame = json.dumps(event, separators=(",", ":"))
            listener.put(frame)

    def _watch_log(self) -> None:
        root = logging.getLogger()
        if any("logging" in listener.types for listener in self._listeners):
            if self._handler not in root.handlers:
                root.addHandler(self._handler)
        else:
            root.removeHandler(self._handler)


class _LogHandler(logging.Handler):
    def __init__(self, events: Events) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.log(record.levelname.lower(), record.getMessage())

"""Operations: work that outlives its request. Waited for by event, by ``/wait``, or looked at in the list."""

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api import status
from lxpy.api.errors import ApiError, BadRequest, NotFound
from lxpy.daemon.events import Events, timestamp

log = logging.getLogger("lxpyd")
_KEPT = 30.0  # seconds a finished operation can still be asked for (LXD: 5)
_PROGRESS_EVERY = 0.1  # seconds between two progress events of one operation

Work = Callable[["Operation"], Awaitable[None]]


class Operation:
    """One piece of work; the task that does it holds this object and may change `metadata`."""

    def __init__(
        self,
        owner: "Operations",
        class_: str,
        description: str,
        resources: dict[str, list[str]],
        project: str,
        may_cancel: bool,
    ) -> None:
        self.id = str(uuid.uuid4())
        self.class_ = class_
        self.description = description
        self.resources = resources
        self.project = project
        self.may_cancel = may_cancel
        self.metadata: dict[str, Any] = {}
        self.created_at = self.updated_at = timestamp()
        self.status_code = status.RUNNING
        self.error = ""
        self.error_status = 0
        self.done = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.streams: Any = None  # the websockets of an exec or console (`lxpy.daemon.streams.Streams`)
        self.on_cancel: Callable[[], None] | None = None  # called before it is cancelled by a client
        self._owner = owner
        self._last_progress = 0.0

    @property
    def url(self) -> str:
        return f"/1.0/operations/{self.id}"

    def progress(self, key: str, text: str) -> None:
        """Show `text` under metadata key `key` (clients look for keys ending in ``_progress``)."""
        if self.metadata.get(key) == text:
            return
        self.metadata[key] = text
        now = time.monotonic()
        if now - self._last_progress >= _PROGRESS_EVERY:
            self._last_progress = now
            self.changed()

    def changed(self) -> None:
        """Tell the listeners."""
        self.updated_at = timestamp()
        self._owner.events.operation(self)

    def render(self) -> dict[str, Any]:
        """The Operation object of the API."""
        return {
            "id": self.id,
            "class": self.class_,
            "description": self.description,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "status": status.TEXT[self.status_code],
            "status_code": self.status_code,
            "resources": self.resources,
            "metadata": self.metadata or None,
            "may_cancel": self.may_cancel and not self.done.is_set(),
            "err": self.error,
            "location": "none",
        }


class Operations:
    """All operations, running and lately ended."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self._all: dict[str, Operation] = {}

    def run(
        self,
        class_: str,
        description: str,
        resources: dict[str, list[str]],
        work: Work,
        project: str = "default",
        *,
        may_cancel: bool = False,
        metadata: dict[str, Any] | None = None,
    ) -> Operation:
        """Start `work` as a task and return at once.

        Args:
            class_: ``task``, ``websocket`` or ``token``.
            resources: URLs by kind, for example ``{"instances": ["/1.0/instances/c1"]}``.
            work: a coroutine function; what it raises becomes the operation's error.
        """
        operation = Operation(self, class_, description, resources, project, may_cancel)
        if metadata:
            operation.metadata.update(metadata)
        self._all[operation.id] = operation
        operation.task = asyncio.create_task(self._run(operation, work), name=f"operation {description}")
        operation.changed()
        return operation

    async def _run(self, operation: Operation, work: Work) -> None:
        try:
            await work(operation)
        except asyncio.CancelledError:
            operation.status_code, operation.error = status.CANCELLED, "Operation cancelled"
        except Exception as error:
            operation.status_code = status.FAILURE
            operation.error_status, operation.error = explain(error, operation.description)
        else:
            operation.status_code = status.SUCCESS
        finally:
            operation.done.set()
            operation.changed()
            asyncio.get_running_loop().call_later(_KEPT, self._all.pop, operation.id, None)

    def get(self, operation_id: str) -> Operation:
        """Raises `NotFound`."""
        operation = self._all.get(operation_id)
        if operation is None:
            raise NotFound("Operation not found")
        return operation

    def all(self, project: str | None = None) -> list[Operation]:
        """Those of one project, or of every project with None."""
        return [one for one in self._all.values() if project in (None, one.project)]

    def running(self) -> list[Operation]:
        return [one for one in self._all.values() if not one.done.is_set()]

    def cancel(self, operation_id: str) -> None:
        """Raises `BadRequest` when it has ended or cannot be cancelled. Asked again it waits for the first time."""
        operation = self.get(operation_id)
        if operation.status_code == status.CANCELLING:
            return  # another cancellation would end the cleaning up
        if operation.done.is_set():
            raise BadRequest("Operation has already ended")
        if not operation.may_cancel or operation.task is None:
            raise BadRequest(f"Operation {operation.description!r} can't be cancelled")
        if operation.on_cancel is not None:
            operation.on_cancel()
        operation.status_code = status.CANCELLING
        operation.changed()
        operation.task.cancel()


def explain(error: BaseException, doing: str) -> tuple[int, str]:
    """The one place where an exception becomes (HTTP status, one line). Bugs go to the log with their traceback."""
    if isinstance(error, ApiError):
        return error.status, " ".join(error.message.split())
    if isinstance(error, OSError) and error.errno is not None:
        # ENOSPC, EIO, EACCES...: the host's trouble, and strerror with the path says it best.
        where = f": {error.filename}" if error.filename else ""
        log.error("%s: %s%s", doing, error.strerror, where, exc_info=error)
        return 500, f"{doing}: {error.strerror}{where}"
    log.error("%s failed", doing, exc_info=error)
    return 500, f"{doing}: internal error ({type(error).__name__}); the daemon's log has the details"

"""The app's only way to the daemon: blocking client calls on daemon threads, and errors as one readable line.

Client objects are synchronous and belong to one thread, so each thread keeps its own. The threads are daemons: a
remote that hangs for a minute never keeps the app from quitting, which asyncio's own executor would.
"""

import asyncio
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from lxpy.api.errors import ApiError, Forbidden, NotFound, Unavailable

T = TypeVar("T")

TELL_SECONDS = 4.0  # no answer for so long is worth a word
PATIENCE = 30.0  # seconds for an answer to what only reads; then the daemon is taken for gone, and asked anew


class ClientLike(Protocol):
    """What the app uses of `lxpy.client.Client`; a test hands in its own."""

    def get(self, path: str, **query: str) -> Any: ...
    def post(self, path: str, body: Any = None) -> Any: ...
    def get_etag(self, path: str) -> tuple[Any, str]: ...
    def put(self, path: str, body: Any = None, etag: str = "") -> Any: ...
    def patch(self, path: str, body: Any = None, etag: str = "") -> Any: ...
    def delete(self, path: str, body: Any = None) -> Any: ...
    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None) -> Any: ...
    def websocket(self, path: str, **query: str) -> Any: ...
    def hang_up(self) -> None: ...
    def close(self) -> None: ...


class _Wait:
    """A question without an answer yet.

    Attributes:
        until: when it is given up.
        fail: what tells the one who waits.
        alone: whether it may take long, on a thread of its own.
        client: who asks, once it has a thread.
    """

    def __init__(self, patience: float | None, fail: Callable[[], None], alone: bool = False) -> None:
        self.since = time.monotonic()
        self.until = self.since + patience if patience else float("inf")
        self.fail, self.alone = fail, alone
        self.client: ClientLike | None = None


class RemoteInfo(NamedTuple):
    """One line of the Remotes pane. `protocol` is ``lxd``, ``simplestreams`` or ``builtin``."""

    name: str
    url: str
    protocol: str
    public: bool
    default: bool
    static: bool = False  # part of lxpy


class Gateway:
    """Runs client calls off the event loop.

    Args:
        connect: opens a client of a remote and project; called once per thread and again after a broken connection.
        remotes: reads the known remotes.
        remote, project: what this app looks at; ``""`` is the default one.
    """

    def __init__(
        self, connect: Callable[[str, str], ClientLike], remotes: Callable[[], Sequence[RemoteInfo]],
        remote: str = "", project: str = "",
    ) -> None:  # fmt: skip
        self._connect = connect
        self.remotes = remotes
        self.remote, self.project = remote, project
        self._generation = 0  # of `remote` and `project`: clients of an older one are not used again
        self._local = threading.local()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._events: Any = None
        self._waits: set[_Wait] = set()
        self._fault = ""  # why we have hung up
        self._closed = False

    def connect(self) -> ClientLike:
        """A new client."""
        return self._connect(self.remote, self.project)

    @property
    def home(self) -> tuple[str, str]:
        """Remote and project: names mean something else elsewhere."""
        return (self.remote, self.project)

    def retarget(self, remote: str, project: str) -> None:
        """Another remote or project: every client is opened anew, and the events begin anew."""
        self.remote, self.project = remote, project
        self._generation += 1
        self._abandon([wait for wait in list(self._waits) if not wait.alone])
        self._hang_up()

    async def elsewhere(self, remote: str, work: Callable[[ClientLike], T], *, patience: float | None = None) -> T:
        """The result of `work` with a client of another remote, on a thread of its own; `patience` as `call` has it."""

        def there(wait: _Wait) -> T:
            client = wait.client = self._connect(remote, "")
            try:
                return work(client)
            finally:
                client.close()

        return await self._run(there, alone=True, patience=patience)

    async def call(
        self, work: Callable[[ClientLike], T], *, alone: bool = False, patience: float | None = None,
        unwanted: Callable[[T], None] | None = None,
    ) -> T:  # fmt: skip
        """The result of `work` with a client, run on a thread.

        Args:
            work: given the thread's client; what it raises is raised here.
            alone: on a thread of its own, for calls that may take long (a far catalogue).
            patience: seconds; then `TimeoutError` is raised here, and `check` hangs up.
            unwanted: given a result that nobody waits for any more.
        """
        return await self._run(
            lambda wait: self._with_client(work, wait), alone=alone, patience=patience, unwanted=unwanted
        )

    async def _run(
        self, work: Callable[[_Wait], T], *, alone: bool, patience: float | None = None,
        unwanted: Callable[[T], None] | None = None,
    ) -> T:  # fmt: skip
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def fail() -> None:
            if not future.done():
                future.set_exception(TimeoutError())

        wait = _Wait(patience, fail, alone)

        def settle(result: T | None, error: BaseException | None) -> None:
            if future.done():
                if unwanted is not None and error is None:
                    unwanted(result)  # type: ignore[arg-type]
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def job() -> None:
            result: T | None = None
            error: BaseException | None = None
            try:
                result = work(wait)
            except Exception as exc:
                error = exc
            try:
                loop.call_soon_threadsafe(settle, result, error)
            except RuntimeError:
                pass  # the app has closed meanwhile: nobody waits any more

        if alone:

            def once() -> None:
                job()
                self._drop()

            threading.Thread(target=once, name="lxpy-tui-alone", daemon=True).start()
        else:
            if len(self._threads) < 4:
                thread = threading.Thread(target=self._serve, name="lxpy-tui-client", daemon=True)
                self._threads.append(thread)
                thread.start()
            self._jobs.put(job)
        self._waits.add(wait)
        try:
            return await future
        finally:
            self._waits.discard(wait)

    def waited(self) -> float:
        """Seconds since the oldest question without an answer was asked, but for those that may take long."""
        return max((time.monotonic() - wait.since for wait in list(self._waits) if not wait.alone), default=0.0)

    def check(self) -> None:
        """Gives up what has waited too long. The daemon is then taken for gone: everything is hung up, and events too.

        To be called now and then by the loop's thread.
        """
        now = time.monotonic()
        late = [wait for wait in list(self._waits) if now > wait.until]
        self._abandon(late)
        late = [wait for wait in late if not wait.alone]
        if late:
            seconds = round(now - min(wait.since for wait in late))
            self._fault = f"{self.remote or 'The daemon'} has not answered for {seconds} s; it is asked again"
            self._generation += 1
            self._hang_up()

    def _abandon(self, waits: Sequence[_Wait]) -> None:
        for wait in waits:
            wait.fail()
            self._waits.discard(wait)
            if wait.client is not None:
                wait.client.hang_up()

    def take_fault(self) -> str:
        """Why we have hung up, if we have; once."""
        fault, self._fault = self._fault, ""
        return fault

    def subscribe(self) -> Iterator[list[dict[str, Any]]]:
        """Events of operations and life cycles until the connection ends. Blocks: for a thread of its own.

        What has come meanwhile is given together. The subscription stands when the first item, ``[]``, is given, so
        that what is loaded after it misses nothing.
        """
        import json

        client = self.connect()
        wait = _Wait(PATIENCE, lambda: None)
        wait.client = client
        self._waits.add(wait)
        try:
            try:
                stream = self._events = client.websocket("/1.0/events", type="operation,lifecycle")
            finally:
                self._waits.discard(wait)
            try:
                yield []
                while (message := stream.receive()) is not None:
                    found = [json.loads(message[1])]
                    while stream.pending() and (message := stream.receive()) is not None:
                        found.append(json.loads(message[1]))
                    yield found
            finally:
                self._events = None
                stream.close()
        finally:
            client.close()

    def close(self) -> None:
        """Ends the events and the threads. Waits a blink for idle ones; busy ones end with the process."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        self._hang_up()
        until = time.monotonic() + 0.3
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _hang_up(self) -> None:
        if self._events is not None:
            try:
                self._events.sock.shutdown(socket.SHUT_RDWR)  # wakes its reader, which closes it
            except OSError:
                pass  # ended by itself meanwhile

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None and not self._closed:
            job()
        self._drop()

    def _with_client(self, work: Callable[[ClientLike], T], wait: _Wait) -> T:
        if getattr(self._local, "generation", -1) != self._generation:
            self._drop()
            self._local.generation = self._generation
        fresh = getattr(self._local, "client", None) is None
        if fresh:
            self._local.client = self.connect()
        wait.client = self._local.client
        try:
            return work(self._local.client)
        except ApiError as error:
            if isinstance(error, Unavailable):
                self._drop()
            raise
        except (OSError, EOFError):
            # The daemon restarted under a kept connection: nothing was sent for certain only if it was stale, and
            # every call of the app is safe to repeat (a repeated create answers "exists").
            self._drop()
            if fresh or time.monotonic() > wait.until:
                raise
            wait.client = self._local.client = self.connect()
            return work(self._local.client)

    def _drop(self) -> None:
        client = getattr(self._local, "client", None)
        self._local.client = None
        if client is not None:
            try:
                client.close()
            except Exception:
                pass  # closing what is broken already


def local_gateway(remote: str = "", project: str = "") -> Gateway:
    """The gateway to the real daemon of `remote`."""

    def connect(remote: str, project: str) -> ClientLike:
        from lxpy.client.client import connect as open_client

        client = open_client(remote)
        if project:
            client.project = project
        found: ClientLike = client
        return found

    return Gateway(connect, load_remotes, remote, project)


def load_remotes() -> list[RemoteInfo]:
    """The remotes of the user's configuration, the default one first in nothing but its flag."""
    from lxpy.client import remotes as known

    config = known.load()
    return [
        RemoteInfo(r.name, r.url, r.protocol, bool(r.public), r.name == config.default, r.static)
        for _, r in sorted(config.remotes.items())
    ]


class Cancelled(ApiError):
    """An operation that somebody has cancelled."""


def explain(error: BaseException) -> str:
    """`error` as one line for a person: what is wrong and what to do. Never a traceback, never a bare errno."""
    if isinstance(error, NotFound | Forbidden | ApiError):
        return error.message
    if isinstance(error, OSError) and isinstance(error.filename, str | bytes):
        return f"{error.filename!s}: {error.strerror}"  # a file of this machine
    if isinstance(error, FileNotFoundError | ConnectionRefusedError):
        return "The lxpy daemon is not running: start it with `systemctl start lxpyd`, or as root with `lxpyd`"
    if isinstance(error, PermissionError):
        return "No access to the lxpy daemon: run as root or join the group lxpy (`usermod -aG lxpy $USER`)"
    if isinstance(error, TimeoutError):
        return "No answer in time: the daemon or the remote is busy or unreachable; try again"
    if isinstance(error, ConnectionError | EOFError):
        return "The connection to the daemon was lost; the app reconnects by itself"
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"{type(error).__name__}: {error}"

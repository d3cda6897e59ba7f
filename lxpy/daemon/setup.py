"""A whole set-up at once (``POST /1.0/preseed``): all or nothing, whoever is killed meanwhile.

It runs over the daemon's own API, in a thread. The journal beside the database holds the steps that take it back; it
is written before each step and goes when all is done, so that one found at the start means: take them back.
"""

import asyncio
import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError, BadRequest
from lxpy.api.notices import LEFTOVERS, Notice
from lxpy.daemon.operations import Operation
from lxpy.host import sysctls

if TYPE_CHECKING:
    from lxpy.client.client import Client
    from lxpy.daemon.daemon import Daemon

_PASSWORD = "core.trust_password"


class Setup:
    """One set-up after the other.

    Args:
        daemon: its API is what is called.
    """

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._journal = f"{daemon.layout.root}/setup.json"
        self._lock = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._keep = False  # the journal: we end before everything could be taken back

    async def recover(self) -> None:
        """Take back what a daemon that was killed left half done. The API must be served."""
        async with self._lock:
            try:
                with open(self._journal, encoding="utf-8") as file:
                    journal = json.load(file)
            except FileNotFoundError:
                return
            stuck = await asyncio.to_thread(self._take_back, journal, self._client(), journal["undo"])
            os.unlink(self._journal)
            text = "A set-up was cut off and has been taken back"
            if stuck:
                text += f", but for what could not be: {'; '.join(stuck)}"
            self._daemon.warnings.tell(Notice(text, LEFTOVERS, "/1.0/preseed"))

    async def apply(self, operation: Operation, document: dict[str, Any], limits: bool) -> None:
        """Apply a preseed.

        Args:
            operation: shows what is being done; its metadata gets ``limits``, the changes of the host's limits.
            limits: raise those, too.

        Raises:
            ApiError: what went wrong; nothing has changed.
        """
        from lxpy.client.preseed import Apply, check

        try:
            check(document)
        except ApiError as error:
            raise BadRequest(error.message) from None
        async with self._lock:
            stop = threading.Event()
            journal: dict[str, Any] = {"password": self._daemon.store.config.all().get(_PASSWORD), "undo": []}

            def note(undo: list[Any]) -> None:
                journal["undo"] = undo
                self._write(journal)

            def show(text: str) -> None:
                self._loop.call_soon_threadsafe(operation.progress, "setup_progress", text)

            def then(apply: Apply) -> None:
                if not limits or not (before := sysctls.state())["values"]:
                    return
                apply.step(["LIMITS", "", before], lambda: changes.extend(sysctls.raise_low()))

            changes: list[sysctls.Change] = []
            client = self._client()
            work = Apply(client, show, note, stop.is_set, lambda client, undo: self._take_back(journal, client, undo))
            running = asyncio.ensure_future(asyncio.to_thread(work.run, document, then))
            try:
                await asyncio.shield(running)
            except asyncio.CancelledError:
                stop.set()
                with contextlib.suppress(ApiError):
                    await running
                    return  # it was done already
                raise
            finally:
                client.close()
                if running.done() and not self._keep:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(self._journal)
            operation.metadata["limits"] = [list(change) for change in changes]

    def _client(self) -> "Client":
        from lxpy.client import wire
        from lxpy.client.client import Client
        from lxpy.client.remotes import Remote

        path = self._daemon.layout.socket
        return Client(lambda: wire.unix_socket(path), "lxpy", Remote("local", "unix://"))

    def _take_back(self, journal: dict[str, Any], client: "Client", undo: list[Any]) -> list[str]:
        from lxpy.client.preseed import take_back

        stuck = []
        for step in [one for one in undo if one[0] == "LIMITS"]:
            try:
                sysctls.restore(step[2])
            except OSError as error:
                stuck.append(f"{error.strerror}: {error.filename}")
        stuck += take_back(client, [one for one in undo if one[0] != "LIMITS"])
        self._keep = bool(stuck) and self._daemon.stopping.is_set()
        if any(one[1] == "/1.0" for one in undo):
            # The API shows that there is a password, and takes that back as "the one there is".
            self._loop.call_soon_threadsafe(self._put_password, journal["password"])
        return stuck

    def _put_password(self, hashed: str | None) -> None:
        config = self._daemon.store.config.all()
        config.pop(_PASSWORD, None)
        self._daemon.store.config.replace(config if hashed is None else {**config, _PASSWORD: hashed})

    def _write(self, journal: dict[str, Any]) -> None:
        new = f"{self._journal}.new"
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(journal, file)
            file.flush()
            os.fsync(fd)
        os.rename(new, self._journal)

"""Backups that the daemon keeps until they are fetched or expire: one file each, and a record with their owner's.

The record is written first, marked ``creating``; the file gets its name when it is whole. What a daemon that was
killed has left of one is removed by the next.
"""

import asyncio
import contextlib
import datetime
import errno
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any

from lxpy.api import expiry, values
from lxpy.api.errors import ApiError, BadRequest, Conflict, InternalError, NotFound, Unavailable
from lxpy.state.store import ConfigTable, Document
from lxpy.storage import compression
from lxpy.storage.trees import finish

DEFAULT_COMPRESSION = "gzip"  # LXD's
_PROGRESS = "create_backup_progress"
_LOOK_EVERY = 3600.0  # seconds: the clock may be set meanwhile
_RETRY = 300.0

Names = dict[str, Document]


class BackupFiles:
    """Backups by the id of their owner, and name.

    Args:
        directory: where the files lie.
        owners: the ids of all owners.
        read: the records of one owner's; write: replaces them.
        config: the server's.
        only: what the API calls that a backup has no snapshots.
    """

    def __init__(
        self,
        directory: str,
        owners: Callable[[], Iterable[int]],
        read: Callable[[int], Names],
        write: Callable[[int, Names], None],
        config: ConfigTable,
        only: tuple[str, ...],
    ) -> None:
        self._directory, self._owners, self._read, self._write = directory, owners, read, write
        self._config, self._only = config, only
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Drop what is half made, and files that belong to nothing."""
        known: dict[str, Names] = {}
        for owner in self._owners():
            kept = {
                name: doc for name, doc in self._read(owner).items()
                if not doc.get("creating") and os.path.exists(self.path(owner, name))
            }  # fmt: skip
            if kept != self._read(owner):
                self._write(owner, kept)
            if kept:
                known[str(owner)] = kept
        with contextlib.suppress(FileNotFoundError):
            for folder in os.listdir(self._directory):
                for name in os.listdir(f"{self._directory}/{folder}"):
                    if name not in known.get(folder, {}):
                        os.unlink(f"{self._directory}/{folder}/{name}")
                if folder not in known:
                    os.rmdir(f"{self._directory}/{folder}")
        self._plan()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def of(self, owner: int) -> Names:
        """The records of those that are whole, by name."""
        return {name: doc for name, doc in self._read(owner).items() if not doc.get("creating")}

    def get(self, owner: int, name: str) -> Document:
        """Raises `NotFound`."""
        doc = self.of(owner).get(name)
        if doc is None:
            raise NotFound(f"Backup {name!r} not found")
        return doc

    def path(self, owner: int, name: str) -> str:
        """Of the file."""
        return f"{self._directory}/{owner}/{name}"

    def free(self, owner: int, name: str) -> str:
        """`name`, or the next free one for "".

        Raises:
            BadRequest: it may not be one. Conflict: it is taken.
        """
        taken = self._read(owner)
        if not name:
            return next(name for number in range(len(taken) + 1) if (name := f"backup{number}") not in taken)
        values.object_name("backup", name)
        if name in taken:
            raise Conflict(f"Backup {name!r} already exists")
        return name

    def asked(self, owner: int, body: dict[str, Any]) -> str:
        """The name of the backup that a request asks for. Raises `BadRequest`, `Conflict`."""
        record(body)
        compression.check("compression_algorithm", self.compression(body))
        return self.free(owner, str(body.get("name") or "").rpartition("/")[2])

    def compression(self, body: dict[str, Any]) -> str:
        """How the backup that a request asks for is compressed."""
        asked = str(body.get("compression_algorithm") or "")
        return asked or self._config.all().get("backups.compression_algorithm") or DEFAULT_COMPRESSION

    def rendered(self, owner: int, owner_name: str, name: str) -> dict[str, Any]:
        """As the API has it. Raises `NotFound`."""
        doc = self.get(owner, name)
        return {
            "name": f"{owner_name}/{name}",
            "created_at": doc["created_at"],
            "expires_at": doc["expires_at"],
            **dict.fromkeys(self._only, doc["only"]),
            "optimized_storage": False,
        }

    async def make(
        self, owner: int, name: str, body: dict[str, Any], doing: str, write: Callable[[int], Awaitable[None]]
    ) -> None:  # fmt: skip
        """Make one.

        Args:
            body: the request.
            doing: for errors, such as ``Export instance c1``.
            write: writes the file to the descriptor it is given.
        """
        name, doc = self.free(owner, name), record(body) | {"compression": self.compression(body)}
        path = self.path(owner, name)
        self._write(owner, {**self._read(owner), name: {**doc, "creating": True}})
        try:
            with _disk(doing, self._directory):
                os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
                fd = os.open(f"{path}.new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                try:
                    await write(fd)
                    await finish(asyncio.to_thread(os.fsync, fd))
                finally:
                    os.close(fd)
                os.rename(f"{path}.new", path)
        except BaseException:
            for leftover in (f"{path}.new", path):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(leftover)
            with contextlib.suppress(NotFound):
                self._put(owner, name, None)
            raise
        self._put(owner, name, doc)
        self._plan()

    def rename(self, owner: int, old: str, new: str) -> None:
        """Raises `NotFound`, `BadRequest`, `Conflict`."""
        doc = self.get(owner, old)
        new = self.free(owner, new)
        # A second name first: a crash leaves the one or the other with a record, and the next start sweeps the rest.
        os.link(self.path(owner, old), self.path(owner, new))
        self._write(owner, {new if n == old else n: d for n, d in self._read(owner).items()} | {new: doc})
        os.unlink(self.path(owner, old))

    def delete(self, owner: int, name: str) -> None:
        """Raises `NotFound`."""
        self.get(owner, name)
        self._put(owner, name, None)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(owner, name))
        with contextlib.suppress(OSError):  # there are others
            os.rmdir(os.path.dirname(self.path(owner, name)))

    def forget(self, owner: int) -> None:
        """The owner goes."""
        shutil.rmtree(f"{self._directory}/{owner}", ignore_errors=True)

    def _put(self, owner: int, name: str, doc: Document | None) -> None:
        rest = {n: d for n, d in self._read(owner).items() if n != name}
        self._write(owner, rest if doc is None else {**rest, name: doc})

    # Expiry.

    def _plan(self, at_least: float = 0.0) -> None:
        self.close()
        moments = [doc["expires_at"] for owner in self._owners() for doc in self.of(owner).values()]
        if found := [one for one in moments if one != expiry.NEVER]:
            wait = (datetime.datetime.fromisoformat(min(found)) - _now()).total_seconds()
            self._timer = asyncio.get_running_loop().call_later(max(at_least, min(wait, _LOOK_EVERY)), self._prune)

    def _prune(self) -> None:
        failed = False
        for owner in list(self._owners()):
            for name, doc in self.of(owner).items():
                if doc["expires_at"] != expiry.NEVER and datetime.datetime.fromisoformat(doc["expires_at"]) <= _now():
                    try:
                        self.delete(owner, name)
                    except (ApiError, OSError):
                        failed = True
        self._plan(_RETRY if failed else 0.0)


def blocking_in(thread: Executor) -> Callable[..., Awaitable[Any]]:
    """A function that runs another in a thread of one's own, to its end even when cancelled meanwhile."""
    loop = asyncio.get_running_loop()

    async def blocking(work: Callable[..., Any], *arguments: Any) -> Any:
        result: list[Any] = []

        async def run() -> None:
            result.append(await loop.run_in_executor(thread, work, *arguments))

        await finish(run())
        return result[0]

    return blocking


def record(body: dict[str, Any]) -> Document:
    """The record of a backup that a request asks for.

    Raises:
        BadRequest: its ``expires_at`` is no date, or it asks for a storage driver's own format.
    """
    if body.get("optimized_storage"):
        raise BadRequest(
            "--optimized-storage is not supported: backups of lxpy are tarballs, which a pool of any driver takes"
        )
    only = body.get("instance_only") or body.get("container_only") or body.get("volume_only")
    return {
        "created_at": _now().strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "expires_at": expiry.moment(str(body.get("expires_at") or "")),
        "only": bool(only),
    }


def file_name(owner: str, compress: str) -> str:
    """What to save a backup as."""
    return f"{owner}.tar{compression.suffix(compress)}"


def telling(progress: Callable[[str, str], None]) -> Callable[[int], None]:
    """What shows in an operation how many bytes there are."""

    def tell(size: int) -> None:
        if size:
            progress(_PROGRESS, f"Backing up: {values.human_bytes(size)}")

    return tell


@contextlib.contextmanager
def _disk(doing: str, directory: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            free = shutil.disk_usage(os.path.dirname(directory)).free
            raise Unavailable(
                f"{doing}: no space left in {directory} ({values.human_bytes(free)} free): "
                "export to a file of yours (lxpy export NAME FILE), or make room"
            ) from None
        raise InternalError(f"{doing}: {error.strerror}") from None


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)

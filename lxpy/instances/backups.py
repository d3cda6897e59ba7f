"""``backup.yaml`` beside each root file system: the instance's whole configuration, and what it leans on.

A pool can be read back into an empty database from these files (`instances/recover.py`). One task writes them, one
after the other; an instance that changes again meanwhile is written once.
"""

import asyncio
import os
from collections.abc import Callable

from lxpy.api.errors import ApiError, NotFound, Unavailable
from lxpy.api.layout import qualified
from lxpy.api.notices import BACKUP_FILE, Notice
from lxpy.instances.records import Records
from lxpy.profiles.manager import ProfileManager
from lxpy.state.store import Document, InstanceRow, Store
from lxpy.storage import files
from lxpy.storage.manager import StorageManager

# Marks of work under way: whoever reads the file back has nothing to finish.
TRANSIENT = ("creating", "deleting", "renaming", "restoring", "rebuilding", "moving", "freezing", "exports")


class Backups:
    """Keeps the files as the records are.

    Args:
        warn: told of a file that could not be written; the instance goes on without it.
    """

    def __init__(
        self, records: Records, store: Store, storage: StorageManager, profiles: ProfileManager,
        warn: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._records, self._store, self._storage, self._profiles, self._warn = records, store, storage, profiles, warn
        self._waiting: dict[int, bool] = {}  # instances by id, and whether the file has to reach the disk
        self._nics: dict[int, dict[str, str]] = {}  # the MAC addresses that were written last
        self._later: set[int] = set()  # instances whose pool is away
        self._task: asyncio.Task[None] | None = None

    async def pool_returned(self, pool: str) -> None:
        """A pool that was away is back."""
        for row in [row for row in self._records if row.pool == pool and row.id in self._later]:
            self._later.discard(row.id)
            self.save(row)

    def start(self) -> None:
        """Write what is missing: a daemon was killed between making an instance and this."""
        for row in self._records:
            try:
                if not os.path.exists(f"{self._directory(row)}/backup.yaml"):
                    self.save(row)
            except ApiError:
                continue  # its pool is away

    def save(self, row: InstanceRow, *, durable: bool = True) -> None:
        """Have the file written soon.

        Args:
            durable: forced to the disk, unless it is the first.
        """
        self._waiting[row.id] = self._waiting.get(row.id, False) or durable
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    def started(self, row: InstanceRow) -> None:
        """An instance has been started: its nics may have got their MAC addresses in that."""
        if self._nics.get(row.id) != _addresses(row):
            self.save(row, durable=False)

    async def close(self) -> None:
        """Returns when everything is written."""
        if self._task is not None:
            await self._task

    async def _work(self) -> None:
        while self._waiting:
            number = next(iter(self._waiting))
            durable = self._waiting.pop(number)
            row = self._records.by_id(number)
            if row is None or row.doc.get("creating") or row.doc.get("deleting"):
                self._nics.pop(number, None)
                continue
            self._nics[number] = _addresses(row)
            try:
                await asyncio.to_thread(_write, self._directory(row), self._content(row), durable)
            except (FileNotFoundError, NotFound):
                pass  # deleted or renamed meanwhile
            except Unavailable:
                self._later.add(number)
            except (ApiError, OSError) as error:
                self._warn(
                    Notice(
                        f"backup.yaml of {row.name!r} could not be written: {error}",
                        BACKUP_FILE,
                        f"/1.0/instances/{row.name}",
                        row.project,
                    )
                )

    def _directory(self, row: InstanceRow) -> str:
        return self._storage.pool(row.pool).instance_dir(qualified(row.project, row.name))

    def _content(self, row: InstanceRow) -> Document:
        home = self._profiles.home(row.project)
        doc = {key: value for key, value in row.doc.items() if key not in TRANSIENT}
        return {
            "instance": {"name": row.name, "project": row.project, "idmap_base": row.idmap_base} | doc,
            "snapshots": [
                {"name": name} | {key: value for key, value in snapshot.items() if key not in TRANSIENT}
                for name, snapshot in self._store.snapshots.of(row.id).items()
                if not snapshot.get("creating")
            ],
            "pool": {"name": row.pool} | (self._store.pools.get(row.pool) or {}),
            "profiles": {name: self._store.profiles.get(home, name) or {} for name in row.doc["profiles"]},
            "project": self._store.projects.get(row.project) or {},
        }


def _addresses(row: InstanceRow) -> dict[str, str]:
    return {key: value for key, value in row.doc["config"].items() if key.endswith(".hwaddr")}


def _write(directory: str, content: Document, durable: bool) -> None:
    path = f"{directory}/backup.yaml"
    # A new root file system is no further on the disk than this file: to force only this one would make ext4 write
    # all of the other out first. Later versions must not be lost.
    durable = durable and os.path.exists(path)
    files.write_yaml(path, content, durable=durable)

"""The tables of custom volumes and their snapshots."""

import json
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lxpy.api.errors import Conflict
from lxpy.state.snapshots import SnapshotTable

if TYPE_CHECKING:
    from lxpy.state.store import Document, Store

_COLUMNS = "id, pool, project, name, doc"


@dataclass(frozen=True)
class VolumeRow:
    """One custom volume. `doc` holds description, content_type, created_at, config and the marks of work under way."""

    id: int
    pool: str
    project: str
    name: str
    doc: "Document" = field(hash=False)


class VolumeTable:
    """Custom volumes."""

    def __init__(self, store: "Store") -> None:
        self._store = store
        self._snapshots = SnapshotTable(store, "volume_snapshots", "volume")

    def all(self, pool: str | None = None, project: str | None = None) -> list[VolumeRow]:
        """Of one pool or project, or of all with None; by name."""
        where = "WHERE (?1 IS NULL OR pool = ?1) AND (?2 IS NULL OR project = ?2)"
        rows = self._store.execute(f"SELECT {_COLUMNS} FROM volumes {where} ORDER BY pool, name", pool, project)
        return [_row(row) for row in rows]

    def get(self, pool: str, project: str, name: str) -> VolumeRow | None:
        row = self._store.execute(
            f"SELECT {_COLUMNS} FROM volumes WHERE pool = ? AND project = ? AND name = ?", pool, project, name
        ).fetchone()
        return None if row is None else _row(row)

    def insert(self, pool: str, project: str, name: str, doc: "Document") -> VolumeRow:
        """Raises `Conflict` when the name is taken."""
        try:
            cursor = self._store.execute(
                "INSERT INTO volumes (pool, project, name, doc) VALUES (?, ?, ?, ?)",
                pool, project, name, json.dumps(doc),
            )  # fmt: skip
        except sqlite3.IntegrityError:
            if self.get(pool, project, name):
                raise Conflict(f"Storage volume {name!r} already exists on pool {pool!r}") from None
            raise
        return VolumeRow(int(cursor.lastrowid or 0), pool, project, name, doc)

    def update(self, row: VolumeRow) -> VolumeRow:
        """Writes project, name and document of the row with that id."""
        self._store.execute(
            "UPDATE volumes SET project = ?, name = ?, doc = ? WHERE id = ?",
            row.project, row.name, json.dumps(row.doc), row.id,
        )  # fmt: skip
        return row

    def delete(self, row: VolumeRow) -> None:
        self._store.execute("DELETE FROM volumes WHERE id = ?", row.id)

    # Snapshots: documents by name, with created_at, expires_at, description, config.

    def snapshots(self, row: VolumeRow) -> "dict[str, Document]":
        """In the order they were made."""
        return self._snapshots.of(row.id)

    def expiring(self) -> list[tuple[str, int, str]]:
        """(when, volume's id, snapshot) of those that are not kept for ever, the next to go first."""
        return self._snapshots.expiring()

    def put_snapshot(self, row: VolumeRow, name: str, doc: "Document") -> None:
        """Insert or replace."""
        self._snapshots.put(row.id, name, doc)

    def rename_snapshot(self, row: VolumeRow, old: str, new: str, doc: "Document") -> None:
        self._snapshots.rename(row.id, old, new, doc)

    def delete_snapshot(self, row: VolumeRow, name: str) -> None:
        self._snapshots.delete(row.id, name)


def _row(row: tuple[int, str, str, str, str]) -> VolumeRow:
    return VolumeRow(row[0], row[1], row[2], row[3], json.loads(row[4]))

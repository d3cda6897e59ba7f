"""The tables of snapshots: of custom volumes, of instances. They have the same shape."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lxpy.state.store import Document, Store


class SnapshotTable:
    """Documents by the id of what they are snapshots of, and name; each has created_at, expires_at and config.

    Args:
        table: its name.
        owner: the column with the id.
    """

    def __init__(self, store: "Store", table: str, owner: str) -> None:
        self._store, self._table, self._owner = store, table, owner

    def all(self) -> "dict[int, dict[str, Document]]":
        """By owner and name, in the order they were made."""
        found: dict[int, dict[str, Document]] = {}
        for owner, name, doc in self._store.execute(
            f"SELECT {self._owner}, name, doc FROM {self._table} ORDER BY rowid"
        ):
            found.setdefault(owner, {})[name] = json.loads(doc)
        return found

    def of(self, owner: int) -> "dict[str, Document]":
        """Those of one owner, in the order they were made."""
        rows = self._store.execute(
            f"SELECT name, doc FROM {self._table} WHERE {self._owner} = ? ORDER BY rowid", owner
        )  # fmt: skip
        return {name: json.loads(doc) for name, doc in rows}

    def expiring(self) -> list[tuple[str, int, str]]:
        """(when, owner, name) of those that are not kept for ever, the next to go first."""
        return self._store.execute(
            f"SELECT doc ->> '$.expires_at' AS at, {self._owner}, name FROM {self._table} WHERE at > '0002' ORDER BY at"
        ).fetchall()

    def put(self, owner: int, name: str, doc: "Document") -> None:
        """Insert or replace."""
        self._store.execute(
            f"INSERT INTO {self._table} VALUES (?, ?, ?) "
            f"ON CONFLICT ({self._owner}, name) DO UPDATE SET doc = excluded.doc",
            owner, name, json.dumps(doc),
        )  # fmt: skip

    def rename(self, owner: int, old: str, new: str, doc: "Document") -> None:
        self._store.execute(
            f"UPDATE {self._table} SET name = ?, doc = ? WHERE {self._owner} = ? AND name = ?",
            new, json.dumps(doc), owner, old,
        )  # fmt: skip

    def delete(self, owner: int, name: str) -> None:
        self._store.execute(f"DELETE FROM {self._table} WHERE {self._owner} = ? AND name = ?", owner, name)

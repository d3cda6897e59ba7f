"""The store: one SQLite file (WAL, foreign keys), small synchronous transactions, typed tables.

Each call is one transaction unless it runs inside ``with store.transaction():``, which may be nested. A call
takes well under a millisecond, so the daemon makes it on its event loop; the store must stay on that thread.
Documents are JSON-compatible dictionaries; what they hold is the managers' business.
"""

import contextlib
import datetime
import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from lxpy.api.errors import Conflict, InternalError
from lxpy.state.snapshots import SnapshotTable
from lxpy.state.volumes import VolumeTable

Document = dict[str, Any]
SCHEMA_VERSION = 5


@dataclass(frozen=True)
class InstanceRow:
    """One instance. `doc` holds type, architecture, ephemeral, description, dates, profiles, config, devices."""

    id: int
    project: str
    name: str
    pool: str
    idmap_base: int | None
    doc: Document = field(hash=False)


class Store:
    """The daemon's memory.

    Args:
        path: the database file; created with its schema when missing, migrated (after a backup beside it) when old.

    Raises:
        InternalError: the file is newer than this lxpy.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._db = sqlite3.connect(path, isolation_level=None)
        os.chmod(path, 0o600)
        self._db.execute("PRAGMA journal_mode = WAL")
        # NORMAL: a power cut may lose the last commits but never the file; instances also carry backup.yaml.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("PRAGMA foreign_keys = ON")
        self._depth = 0
        self._migrate()
        self.config = ConfigTable(self)
        self.projects = NamedTable(self, "projects")
        self.profiles = ProjectTable(self, "profiles", "name")
        self.pools = NamedTable(self, "pools")
        self.networks = NamedTable(self, "networks")
        self.network_acls = NamedTable(self, "network_acls")
        self.instances = InstanceTable(self)
        self.images = ProjectTable(self, "images", "fingerprint")
        self.aliases = AliasTable(self)
        self.warnings = NamedTable(self, "warnings", "uuid")
        self.certificates = NamedTable(self, "certificates", "fingerprint")
        self.certificate_tokens = NamedTable(self, "certificate_tokens")
        self.volumes = VolumeTable(self)
        self.snapshots = SnapshotTable(self, "instance_snapshots", "instance")

    def close(self) -> None:
        self._db.close()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested uses join the outermost."""
        if self._depth:
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        else:
            self._db.execute("COMMIT")
        finally:
            self._depth = 0

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        """For the tables of this module."""
        return self._db.execute(sql, values)

    def _migrate(self) -> None:
        version: int = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise InternalError(
                f"{self.path} was written by a newer lxpy (schema {version}, this one knows {SCHEMA_VERSION}): "
                "install that version again, or restore the backup beside the file"
            )
        if 0 < version < SCHEMA_VERSION:
            stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy2(self.path, f"{self.path}.schema-{version}.{stamp}")
        for number in range(version + 1, SCHEMA_VERSION + 1):
            with open(f"{os.path.dirname(__file__)}/schema-{number}.sql", encoding="utf-8") as file:
                script = file.read()
            self._db.executescript(f"BEGIN;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")


class ConfigTable:
    """The server's configuration: ``core.https_address`` and the like."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> dict[str, str]:
        return dict(self._store.execute("SELECT key, value FROM server_config ORDER BY key").fetchall())

    def replace(self, config: dict[str, str]) -> None:
        with self._store.transaction():
            self._store.execute("DELETE FROM server_config")
            for key, value in config.items():
                self._store.execute("INSERT INTO server_config VALUES (?, ?)", key, value)


class NamedTable:
    """Documents by one name."""

    def __init__(self, store: Store, table: str, key: str = "name") -> None:
        self._store, self._table, self._key = store, table, key

    def all(self) -> dict[str, Document]:
        rows = self._store.execute(f"SELECT {self._key}, doc FROM {self._table} ORDER BY {self._key}")
        return {name: json.loads(doc) for name, doc in rows}

    def get(self, name: str) -> Document | None:
        row = self._store.execute(f"SELECT doc FROM {self._table} WHERE {self._key} = ?", name).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, name: str, doc: Document) -> None:
        """Insert or replace."""
        self._store.execute(
            f"INSERT INTO {self._table} ({self._key}, doc) VALUES (?, ?) "
            f"ON CONFLICT ({self._key}) DO UPDATE SET doc = excluded.doc",
            name, json.dumps(doc),
        )  # fmt: skip

    def rename(self, old: str, new: str) -> None:
        self._store.execute(f"UPDATE {self._table} SET {self._key} = ? WHERE {self._key} = ?", new, old)

    def delete(self, name: str) -> None:
        self._store.execute(f"DELETE FROM {self._table} WHERE {self._key} = ?", name)


class ProjectTable:
    """Documents by project and name."""

    def __init__(self, store: Store, table: str, key: str) -> None:
        self._store, self._table, self._key = store, table, key

    def all(self, project: str) -> dict[str, Document]:
        rows = self._store.execute(
            f"SELECT {self._key}, doc FROM {self._table} WHERE project = ? ORDER BY {self._key}", project
        )
        return {name: json.loads(doc) for name, doc in rows}

    def get(self, project: str, name: str) -> Document | None:
        row = self._store.execute(
            f"SELECT doc FROM {self._table} WHERE project = ? AND {self._key} = ?", project, name
        ).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, project: str, name: str, doc: Document) -> None:
        """Insert or replace."""
        self._store.execute(
            f"INSERT INTO {self._table} (project, {self._key}, doc) VALUES (?, ?, ?) "
            f"ON CONFLICT (project, {self._key}) DO UPDATE SET doc = excluded.doc",
            project, name, json.dumps(doc),
        )  # fmt: skip

    def rename(self, project: str, old: str, new: str) -> None:
        self._store.execute(
            f"UPDATE {self._table} SET {self._key} = ? WHERE project = ? AND {self._key} = ?",
            new,
            project,
            old,
        )

    def delete(self, project: str, name: str) -> None:
        self._store.execute(f"DELETE FROM {self._table} WHERE project = ? AND {self._key} = ?", project, name)


@dataclass(frozen=True)
class AliasRow:
    project: str
    name: str
    fingerprint: str
    description: str


class AliasTable:
    """Image aliases; they go with their image."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self, project: str) -> list[AliasRow]:
        rows = self._store.execute(
            "SELECT project, name, fingerprint, description FROM image_aliases WHERE project = ? ORDER BY name",
            project,
        )
        return [AliasRow(*row) for row in rows]

    def get(self, project: str, name: str) -> AliasRow | None:
        row = self._store.execute(
            "SELECT project, name, fingerprint, description FROM image_aliases WHERE project = ? AND name = ?",
            project, name,
        ).fetchone()  # fmt: skip
        return None if row is None else AliasRow(*row)

    def put(self, alias: AliasRow) -> None:
        """Insert or replace."""
        self._store.execute(
            "INSERT INTO image_aliases VALUES (?, ?, ?, ?) ON CONFLICT (project, name) "
            "DO UPDATE SET fingerprint = excluded.fingerprint, description = excluded.description",
            alias.project, alias.name, alias.fingerprint, alias.description,
        )  # fmt: skip

    def delete(self, project: str, name: str) -> None:
        self._store.execute("DELETE FROM image_aliases WHERE project = ? AND name = ?", project, name)


class InstanceTable:
    """Instances, and the allocation of their id maps (a map is taken by the row that names it)."""

    _COLUMNS = "id, project, name, pool, idmap_base, doc"

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self, project: str | None = None) -> list[InstanceRow]:
        """The instances of one project, or of all with None, by name."""
        where, values = ("WHERE project = ?", (project,)) if project is not None else ("", ())
        rows = self._store.execute(f"SELECT {self._COLUMNS} FROM instances {where} ORDER BY name", *values)
        return [_instance_row(row) for row in rows]

    def get(self, project: str, name: str) -> InstanceRow | None:
        row = self._store.execute(
            f"SELECT {self._COLUMNS} FROM instances WHERE project = ? AND name = ?", project, name
        ).fetchone()
        return None if row is None else _instance_row(row)

    def insert(self, project: str, name: str, pool: str, idmap_base: int | None, doc: Document) -> InstanceRow:
        """Raises `Conflict` when the name is taken."""
        try:
            cursor = self._store.execute(
                "INSERT INTO instances (project, name, pool, idmap_base, doc) VALUES (?, ?, ?, ?, ?)",
                project, name, pool, idmap_base, json.dumps(doc),
            )  # fmt: skip
        except sqlite3.IntegrityError:
            if self.get(project, name):
                raise Conflict(f"Instance {name!r} already exists") from None
            raise
        return InstanceRow(int(cursor.lastrowid or 0), project, name, pool, idmap_base, doc)

    def update(self, row: InstanceRow) -> None:
        """Writes project, name, pool, map and document of the row with that id."""
        self._store.execute(
            "UPDATE instances SET project = ?, name = ?, pool = ?, idmap_base = ?, doc = ? WHERE id = ?",
            row.project, row.name, row.pool, row.idmap_base, json.dumps(row.doc), row.id,
        )  # fmt: skip

    def delete(self, instance_id: int) -> None:
        self._store.execute("DELETE FROM instances WHERE id = ?", instance_id)

    def idmap_bases(self) -> set[int]:
        """The first host id of every map in use."""
        return {row[0] for row in self._store.execute("SELECT idmap_base FROM instances WHERE idmap_base NOTNULL")}


def _instance_row(row: tuple[int, str, str, str, int | None, str]) -> InstanceRow:
    return InstanceRow(row[0], row[1], row[2], row[3], row[4], json.loads(row[5]))

"""Instance records: the daemon's only copy of the rows in memory, written through to the store.

Every list and every look-up reads memory; every change goes to SQLite first.
"""

import datetime
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from lxpy.api.errors import Conflict, NotFound
from lxpy.api.objects import Config, Devices
from lxpy.instances import idmaps
from lxpy.state.store import Document, InstanceRow, Store

Expand = Callable[[str, list[str], Config, Devices], tuple[Config, Devices]]


def now() -> str:
    """The time as the API writes it: RFC 3339, UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Records:
    """All instances by project and name."""

    def __init__(self, store: Store, expand: Expand) -> None:
        self._store = store
        self._expand = expand
        self._rows = {(row.project, row.name): row for row in store.instances.all()}

    def __iter__(self) -> Iterator[InstanceRow]:
        return iter(list(self._rows.values()))

    def names(self, project: str) -> set[str]:
        return {name for owner, name in self._rows if owner == project}

    def find(self, project: str, name: str) -> InstanceRow | None:
        return self._rows.get((project, name))

    def get(self, project: str, name: str) -> InstanceRow:
        """Raises `NotFound` when there is no such instance."""
        row = self._rows.get((project, name))
        if row is None:
            raise NotFound(f"Instance {name!r} not found")
        return row

    def by_id(self, number: int) -> InstanceRow | None:
        return next((row for row in self._rows.values() if row.id == number), None)

    def current(self, row: InstanceRow) -> InstanceRow | None:
        """The present state of the row with that id: it may have been renamed, changed or deleted since."""
        found = self._rows.get((row.project, row.name))
        if found is not None and found.id == row.id:
            return found
        return self.by_id(row.id)

    def insert(self, project: str, name: str, pool: str, idmap_base: int | None, doc: Document) -> InstanceRow:
        """Raises `Conflict` when the name is taken."""
        if (project, name) in self._rows:
            raise Conflict(f"Instance {name!r} already exists")
        doc = _sized(doc, idmaps.SIZE)  # of a copy: the map of the one it is copied from is that one's
        row = self._store.instances.insert(project, name, pool, idmap_base, doc)
        self._rows[project, name] = row
        return row

    def take(self, row: InstanceRow) -> None:
        """A row that has come into the store by itself."""
        self._rows[row.project, row.name] = row

    def change(self, row: InstanceRow, **doc: Any) -> InstanceRow:
        """Replace keys of the row's document; the new row."""
        fresh = replace(row, doc=row.doc | doc)
        self._store.instances.update(fresh)
        self._rows[row.project, row.name] = fresh
        return fresh

    def set_volatile(self, row: InstanceRow, **volatile: str | None) -> InstanceRow:
        """Set (or with None unset) ``volatile.*`` keys; double underscores in the names stand for dots."""
        return self.set_keys(row, {"volatile." + key.replace("__", "."): value for key, value in volatile.items()})

    def set_keys(self, row: InstanceRow, changes: dict[str, str | None]) -> InstanceRow:
        """Set (or with None unset) keys of the configuration; nothing is written when all are so already."""
        config = dict(row.doc["config"])
        for key, value in changes.items():
            if value is None:
                config.pop(key, None)
            else:
                config[key] = value
        return row if config == row.doc["config"] else self.change(row, config=config)

    def set_idmap(self, row: InstanceRow, base: int | None, size: int = idmaps.SIZE) -> InstanceRow:
        """An id map of its own, or None. The size is written down with it: what is asked for may change meanwhile."""
        fresh = replace(row, idmap_base=base, doc=_sized(row.doc, size))
        self._store.instances.update(fresh)
        self._rows[row.project, row.name] = fresh
        return fresh

    def set_privileged(self, row: InstanceRow, privileged: bool) -> InstanceRow:
        """With an id map of its own, or with none. Of a stopped instance: owners on the disk are 0-based either way."""
        if privileged == (row.idmap_base is None):
            return row
        return self.set_idmap(row, None if privileged else idmaps.allocate(self.idmap_bases())["base"])

    def move(self, row: InstanceRow, project: str, name: str, pool: str, doc: Document) -> InstanceRow:
        """Everything of a row but its id and map may become another."""
        fresh = replace(row, project=project, name=name, pool=pool, doc=doc)
        self._store.instances.update(fresh)
        del self._rows[row.project, row.name]
        self._rows[project, name] = fresh
        return fresh

    def delete(self, row: InstanceRow) -> None:
        self._store.instances.delete(row.id)
        self._rows.pop((row.project, row.name), None)

    def expanded(self, row: InstanceRow) -> tuple[Config, Devices]:
        """Configuration and devices with the profiles merged in."""
        doc = row.doc
        return self._expand(row.project, doc["profiles"], doc["config"], doc["devices"])

    def uses(self, row: InstanceRow, kind: str, name: str) -> bool:
        """Whether an instance uses that profile, storage-pool, image or network."""
        if kind == "profile":
            return name in row.doc["profiles"]
        if kind == "storage-pool":
            return row.pool == name
        if kind == "image":
            return bool(row.doc["config"].get("volatile.base_image") == name)
        devices = self.expanded(row)[1].values()
        return any(d.get("type") == "nic" and name in (d.get("network"), d.get("parent")) for d in devices)

    def idmap_bases(self) -> set[int]:
        """Where new maps cannot lie: see `idmaps.slots`."""
        return {slot for _, base, size in self._idmaps() for slot in idmaps.slots(base, size)}

    def _idmaps(self) -> Iterator[tuple[InstanceRow, int, int]]:
        for row in self._rows.values():
            if row.idmap_base is not None:
                yield row, row.idmap_base, row.doc.get("idmap_size", idmaps.SIZE)

    def fit_idmap(self, row: InstanceRow, config: Config) -> InstanceRow:
        """Before a start: the id map that ``security.idmap.*`` asks for. Owners on disk know nothing of it.

        Raises:
            Conflict: it overlaps with another instance's.
            Unavailable: there is no room for it.
        """
        base, size = idmaps.wanted(config)
        if row.idmap_base is None:
            return row
        if size == row.doc.get("idmap_size", idmaps.SIZE) and base in (None, row.idmap_base):
            return row
        others = [(one, first, count) for one, first, count in self._idmaps() if one.id != row.id]
        if base is None:
            taken = {slot for _, first, count in others for slot in idmaps.slots(first, count)}
            base = idmaps.allocate(taken, size)["base"]
        for one, first, count in others:
            if base < first + count and first < base + size:
                raise Conflict(
                    f"The ids {base}-{base + size - 1} of {row.name!r} overlap with those of instance {one.name!r}, "
                    f"{first}-{first + count - 1}: change security.idmap.base or security.idmap.size"
                )
        return self.set_idmap(row, base, size)


def _sized(doc: Document, size: int) -> Document:
    rest = {key: value for key, value in doc.items() if key != "idmap_size"}
    return rest if size == idmaps.SIZE else rest | {"idmap_size": size}


def underscored(volatile: "dict[str, str] | dict[str, str | None]") -> dict[str, str | None]:
    """Volatile keys as the keywords of `Records.set_volatile`."""
    return {key.replace(".", "__"): value for key, value in volatile.items()}

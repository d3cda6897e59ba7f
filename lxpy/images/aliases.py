"""Image aliases: the names users give images. Texts of the errors are LXD's."""

from collections.abc import Callable
from typing import Any, TypedDict

from lxpy.api import values
from lxpy.api.errors import Conflict, NotFound
from lxpy.state.store import AliasRow, Store

Emit = Callable[[str, str, str, dict[str, Any] | None], None]

# Inside the class, `list` is the method.
Pairs = list[dict[str, str]]


class Alias(TypedDict):
    """``/1.0/images/aliases/{name}``."""

    name: str
    description: str
    target: str
    type: str


class Aliases:
    """Args:
    find: the full fingerprint for (project, prefix); `NotFound` when there is none.
    home: the project that holds a project's images.
    """

    def __init__(self, store: Store, emit: Emit, find: Callable[[str, str], str], home: Callable[[str], str]) -> None:
        self._store, self._emit, self._find, self._home = store, emit, find, home

    def create(self, project: str, name: str, target: str, description: str = "") -> None:
        """Raises `Conflict` when the name is taken, `NotFound` when no image has that fingerprint."""
        values.image_alias(name)
        project = self._home(project)
        if self._store.aliases.get(project, name):
            raise Conflict(f'Alias "{name}" already exists')
        self._store.aliases.put(AliasRow(project, name, self._find(project, target), description))
        self._tell("created", project, name, {"target": target})

    def get(self, project: str, name: str) -> Alias:
        return _wire(self._row(project, name))

    def list(self, project: str) -> list[Alias]:
        """By name."""
        return [_wire(row) for row in self._store.aliases.all(self._home(project))]

    def update(self, project: str, name: str, target: str | None = None, description: str | None = None) -> None:
        """Changes what is not None."""
        row = self._row(project, name)
        fingerprint = row.fingerprint if target is None else self._find(project, target)
        text = row.description if description is None else description
        self._store.aliases.put(AliasRow(row.project, name, fingerprint, text))
        self._tell("updated", project, name, {"target": fingerprint})

    def give(self, project: str, name: str, target: str, description: str = "") -> None:
        """Makes the alias, or takes it from the image that has it."""
        if self.resolve(project, name) is None:
            self.create(project, name, target, description)
        else:
            self.update(project, name, target=target, description=description or None)

    def rename(self, project: str, name: str, new: str) -> None:
        """Raises `Conflict` when the new name is taken."""
        row = self._row(project, name)
        project = row.project
        if new == name:
            return
        values.image_alias(new)
        with self._store.transaction():
            if self._store.aliases.get(project, new):
                raise Conflict(f'Alias "{new}" already exists')
            self._store.aliases.delete(project, name)
            self._store.aliases.put(AliasRow(project, new, row.fingerprint, row.description))
        self._tell("renamed", project, new, {"old_name": name})

    def delete(self, project: str, name: str) -> None:
        self._store.aliases.delete(self._row(project, name).project, name)
        self._tell("deleted", project, name, None)

    def resolve(self, project: str, name: str) -> str | None:
        """The fingerprint an alias stands for, None when there is no such alias."""
        row = self._store.aliases.get(self._home(project), name)
        return row.fingerprint if row else None

    def by_fingerprint(self, project: str) -> dict[str, Pairs]:
        """For image objects: fingerprint -> ``[{"name", "description"}]``."""
        found: dict[str, Pairs] = {}
        for row in self._store.aliases.all(self._home(project)):
            found.setdefault(row.fingerprint, []).append({"name": row.name, "description": row.description})
        return found

    def move_all(self, project: str, old: str, new: str) -> None:
        """Lets every alias of one image stand for another."""
        for row in self._store.aliases.all(self._home(project)):
            if row.fingerprint == old:
                self._store.aliases.put(AliasRow(row.project, row.name, new, row.description))

    def _row(self, project: str, name: str) -> AliasRow:
        row = self._store.aliases.get(self._home(project), name)
        if row is None:
            raise NotFound("Image alias not found")
        return row

    def _tell(self, what: str, project: str, name: str, context: dict[str, Any] | None) -> None:
        self._emit(f"image-alias-{what}", f"/1.0/images/aliases/{name}", self._home(project), context)


def _wire(row: AliasRow) -> Alias:
    return {"name": row.name, "description": row.description, "target": row.fingerprint, "type": "container"}

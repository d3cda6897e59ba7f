"""The project manager. ``default`` always exists and has every feature."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, Forbidden, NotFound
from lxpy.projects import rules
from lxpy.state.store import Store

Emit = Callable[[str, str, str, dict[str, Any] | None], None]

# Feature, and whether a new project has it (LXD 5.0's answers).
FEATURES = {
    "features.images": "true",
    "features.profiles": "true",
    "features.storage.volumes": "true",
    "features.storage.buckets": "true",
    "features.networks": "false",
    "features.networks.zones": "false",
}


class ProjectManager:
    """Projects by name: ``{"description", "config"}``.

    Attributes:
        validate: takes a project's name and the configuration it is to have, and raises `Forbidden` when what it holds
            does not keep to that; set by the daemon, since instances are strangers here.
    """

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self.validate: Callable[[str, dict[str, str]], None] = lambda name, config: None
        doc = store.projects.get("default") or {"description": "Default lxpy project", "config": {}}
        store.projects.put("default", {**doc, "config": {**dict.fromkeys(FEATURES, "true"), **doc["config"]}})

    def list(self) -> list[dict[str, Any]]:
        """By name."""
        return [self._render(name, doc) for name, doc in self._store.projects.all().items()]

    def get(self, name: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        return self._render(name, self._document(name))

    def exists(self, name: str) -> bool:
        return name == "default" or self._store.projects.get(name) is not None

    def home(self, project: str, feature: str) -> str:
        """The project that holds `project`'s objects of a kind: itself, or ``default`` where the feature is off.

        Args:
            feature: ``images``, ``profiles``, ``networks``, ``storage.volumes``.
        """
        if project == "default":
            return project
        config = self._document(project)["config"]
        return project if values.boolean(feature, config.get(f"features.{feature}", "false")) else "default"

    def create(self, body: dict[str, Any]) -> str:
        """Create from ``{name, description, config}``; the name."""
        name = self.free(str(body.get("name") or ""))
        given = self.checked(name, body.get("config"))
        config = {key: value for key, value in {**FEATURES, **given}.items() if value}
        self._store.projects.put(name, {"description": str(body.get("description") or ""), "config": config})
        self._emit("project-created", f"/1.0/projects/{name}", name, None)
        return name

    def update(self, name: str, body: dict[str, Any], *, patch: bool = False) -> None:
        """Replace the content, or with `patch` merge into it. Features of a project in use stay as they are."""
        old = self._document(name)
        config = self.checked(name, body.get("config"))
        if patch:
            config = {**old["config"], **config}
        config = {key: value for key, value in config.items() if value != ""}
        self.fits(name, config)
        description = str(body.get("description", old["description"] if patch else "") or "")
        self._store.projects.put(name, {"description": description, "config": config})
        self._emit("project-updated", f"/1.0/projects/{name}", name, None)

    def fits(self, name: str, config: dict[str, str]) -> None:
        """Whether a project could have a `checked` configuration with what it holds.

        Raises:
            NotFound: there is no such project. BadRequest: a feature of one that is not empty would change.
            Forbidden: what it holds does not keep to the limits.
        """
        old = self._document(name)
        changed = [key for key in FEATURES if config.get(key, "false") != old["config"].get(key, "false")]
        if changed and name == "default":
            raise BadRequest(f"{changed[0]} of the default project cannot be changed")
        if changed and self._content(name):
            raise BadRequest(f"{changed[0]} can only be changed while the project is empty")
        self.validate(name, config)

    def validate_rename(self, name: str, new: str) -> None:
        """LXD's rule: only while it is empty, since the names of much on the disk begin with the project's.

        Raises:
            Forbidden: it is ``default``. Conflict: it is not empty, or the new name is taken.
        """
        self._document(name)
        if name == "default":
            raise Forbidden("The default project cannot be renamed")
        self.free(new)
        self._refuse_if_used(name, "renamed")

    def rename(self, name: str, new: str) -> None:
        """Raises as `validate_rename`."""
        self.validate_rename(name, new)
        with self._store.transaction():  # rows that name a project want it there at every moment
            self._store.projects.put(new, self._document(name))
            if (profile := self._store.profiles.get(name, "default")) is not None:
                self._store.profiles.delete(name, "default")
                self._store.profiles.put(new, "default", profile)
            self._store.projects.delete(name)
        self._emit("project-renamed", f"/1.0/projects/{new}", new, {"old_name": name})

    def delete(self, name: str) -> None:
        """Raises `Forbidden` for ``default``, `Conflict` when it is not empty."""
        self._document(name)
        if name == "default":
            raise Forbidden("The default project cannot be deleted")
        self._refuse_if_used(name, "deleted")
        with self._store.transaction():
            self._store.profiles.delete(name, "default")
            self._store.projects.delete(name)
        self._emit("project-deleted", f"/1.0/projects/{name}", name, None)

    def free(self, name: str) -> str:
        """`name` if a new project can have it. Raises `BadRequest`, `Conflict`."""
        values.object_name("project", name)
        # An instance's qualified name is project_name: with the separator in both, two could be the same.
        if "_" in name:
            raise BadRequest(f"Invalid project name {name!r}: underscores are not possible here")
        if self._store.projects.get(name) is not None:
            raise Conflict(f"Project {name!r} already exists")
        return name

    def _refuse_if_used(self, name: str, doing: str) -> None:
        if content := self._content(name):
            # "instances/c1", "volumes/custom/v": as the API names them, without what all have in common.
            shown = [url.removeprefix("/1.0/").partition("?")[0] for url in content]
            more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
            raise Conflict(f"Project {name!r} cannot be {doing}: it holds {', '.join(shown[:3])}{more}")

    def _document(self, name: str) -> dict[str, Any]:
        doc = self._store.projects.get(name)
        if doc is None:
            raise NotFound(f"Project {name!r} not found")
        return doc

    def _content(self, name: str) -> Sequence[str]:
        """What keeps a project from being empty: URLs; its default profile does not count."""
        found = [f"/1.0/instances/{row.name}?project={name}" for row in self._store.instances.all(name)]
        found += [f"/1.0/images/{fingerprint}?project={name}" for fingerprint in self._store.images.all(name)]
        found += [f"/1.0/profiles/{p}?project={name}" for p in self._store.profiles.all(name) if p != "default"]
        found += [
            f"/1.0/storage-pools/{row.pool}/volumes/custom/{row.name}?project={name}"
            for row in self._store.volumes.all(project=name)
        ]
        return found

    def _render(self, name: str, doc: dict[str, Any]) -> dict[str, Any]:
        used_by = [*self._content(name)]
        if self.home(name, "profiles") == name:
            used_by.append("/1.0/profiles/default" + ("" if name == "default" else f"?project={name}"))
        return {
            "name": name,
            "description": doc["description"],
            "config": doc["config"],
            "used_by": [url.removesuffix("?project=default") for url in used_by],
        }

    def checked(self, name: str, config: Any) -> dict[str, str]:
        """A request's configuration for a project, there or not, as text; what it had before it may keep.

        Raises:
            BadRequest: for the first key or value that cannot be.
        """
        if config is None:
            return {}
        if not isinstance(config, dict):
            raise BadRequest("config must be a set of keys and values")
        old: dict[str, str] = (self._store.projects.get(name) or {}).get("config", {})
        if name != "default" and config.get("limits.networks") not in (None, ""):
            raise BadRequest(
                "limits.networks is for the project default only: networks belong to the whole server, to no other "
                "project"
            )
        checked: dict[str, str] = {}
        for key, value in config.items():
            if value is not None and not isinstance(value, (str, int, float)):
                raise BadRequest(f"Invalid value for {key}: {value!r} is not text")
            checked[key] = str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)
            if key in FEATURES:
                on = values.boolean(key, checked[key])
                if on and "networks" in key and checked[key] != old.get(key):
                    raise BadRequest(f"{key} is not supported: networks belong to the whole server")
            elif checked[key] and not key.startswith("user.") and not rules.check_key(key, checked[key]):
                raise _unknown(key)
        return checked


def _unknown(key: str) -> BadRequest:
    near = difflib.get_close_matches(key, [*FEATURES, *rules.known()], n=1, cutoff=0.75)
    hint = f"did you mean {near[0]!r}?" if near else "known are features.*, limits.*, restricted.* and user.*"
    return BadRequest(f"Unknown project configuration key {key!r}: {hint}")

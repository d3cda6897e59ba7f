"""The profile manager. Profiles of a project without ``features.profiles`` are those of ``default``."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, Forbidden, NotFound
from lxpy.api.objects import Config, Devices, Profile
from lxpy.state.store import Store

Emit = Callable[[str, str, str, dict[str, Any] | None], None]
Users = dict[str, list[str]]
Changed = Callable[[str, str], Awaitable[None]]


class ProfileManager:
    """Profiles by project and name.

    Attributes:
        validate: checks configuration and devices; set by the daemon, since the key tables belong to the instances.
        allow: takes the project, name, configuration and devices of a new profile, and raises `Forbidden` when the
            project does not allow them; set by the daemon, too.
        checks: called with (project, name) while the change is there and not yet written; one that raises is its end.
        on_change: awaited with (project, name) after a profile's content changed; one that raises `ApiError` (an
            instance could not live with it) takes the change back.
        on_back: called with (project, name) when that has happened, for what a hook had already done with it.
    """

    def __init__(self, store: Store, emit: Emit) -> None:
        self._store = store
        self._emit = emit
        self.validate: Callable[[Config, Devices], None] = lambda config, devices: None
        self.allow: Callable[[str, str, Config, Devices], None] = lambda project, name, config, devices: None
        self.checks: list[Callable[[str, str], None]] = []
        self.on_change: list[Changed] = []
        self.on_back: list[Callable[[str, str], None]] = []
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._cache: dict[tuple[str, str], dict[str, Any]] = {}
        with store.transaction():
            if store.projects.get("default") is None:
                store.projects.put("default", {"description": "Default project", "config": {}})
            for project in store.projects.all():
                self.ensure_default(project)

    def ensure_default(self, project: str) -> None:
        """Every project that has profiles of its own has one named ``default``."""
        if self.home(project) == project and self._store.profiles.get(project, "default") is None:
            self._store.profiles.put(project, "default", _document("Default lxpy profile", {}, {}))

    def home(self, project: str) -> str:
        """The project whose profiles `project` uses."""
        if project == "default":
            return project
        doc = self._store.projects.get(project)
        config = (doc or {}).get("config", {})
        own = values.boolean("features.profiles", config.get("features.profiles", "true"))
        return project if own else "default"

    # -- reading ---------------------------------------------------------------------------------------------

    def list(self, project: str) -> list[Profile]:
        """By name."""
        home = self.home(project)
        users = self._users(home)
        return [_render(name, doc, users.get(name, [])) for name, doc in self._store.profiles.all(home).items()]

    def names(self, project: str) -> Sequence[str]:
        return tuple(self._store.profiles.all(self.home(project)))

    def get(self, project: str, name: str) -> Profile:
        """Raises `NotFound`."""
        home = self.home(project)
        return _render(name, self._document(home, name), self._users(home).get(name, []))

    def expand(self, project: str, profiles: Sequence[str], config: Config, devices: Devices) -> tuple[Config, Devices]:
        """Configuration and devices with the profiles merged in.

        Later profiles win over earlier ones and the instance's own over all; a device replaces one of the same
        name whole, never key by key (LXD's rule).

        Raises:
            NotFound: there is no such profile.
        """
        home = self.home(project) if profiles else project
        merged_config: Config = {}
        merged_devices: Devices = {}
        for name in profiles:
            doc = self._document(home, name)
            merged_config.update(doc["config"])
            merged_devices.update(doc["devices"])
        return {**merged_config, **config}, {**merged_devices, **devices}

    # -- changing --------------------------------------------------------------------------------------------

    def create(self, project: str, body: dict[str, Any]) -> str:
        """Create from ``{name, description, config, devices}``; the name."""
        home = self.home(project)
        name = values.object_name("profile", str(body.get("name") or ""))
        if self._store.profiles.get(home, name) is not None:
            raise Conflict(f"Profile {name!r} already exists")
        doc = self._checked(body)
        self.allow(home, name, doc["config"], doc["devices"])
        self._store.profiles.put(home, name, doc)
        self._emit("profile-created", f"/1.0/profiles/{name}", home, None)
        return name

    async def update(self, project: str, name: str, body: dict[str, Any], *, patch: bool = False) -> None:
        """Replace the content, or with `patch` merge into it (an empty value unsets a key)."""
        home = self.home(project)
        # One at a time: what a change that fails puts back must not be older than what another has made of it.
        async with self._locks.setdefault((home, name), asyncio.Lock()):
            await self._update(home, name, body, patch)

    async def _update(self, home: str, name: str, body: dict[str, Any], patch: bool) -> None:
        old = self._document(home, name)
        if patch:
            config = {**old["config"], **_mapping(body, "config")}
            body = {
                "description": body.get("description", old["description"]),
                "config": config,
                "devices": {**old["devices"], **_mapping(body, "devices")},
            }
        new = self._checked(body)
        if new == old:
            return
        try:
            with self._store.transaction():
                self._store.profiles.put(home, name, new)
                self._cache.pop((home, name), None)
                for check in self.checks:
                    check(home, name)
        except BaseException:
            self._cache.pop((home, name), None)
            raise
        try:
            for changed in self.on_change:
                await changed(home, name)
        except BaseException:
            self._store.profiles.put(home, name, old)
            self._cache.pop((home, name), None)
            for taken_back in self.on_back:
                taken_back(home, name)
            raise
        self._emit("profile-updated", f"/1.0/profiles/{name}", home, None)

    def rename(self, project: str, name: str, new: str) -> None:
        """Raises `Forbidden` for ``default``, `Conflict` when the new name is taken or the profile is in use."""
        home = self.home(project)
        self._document(home, name)
        if name == "default":
            raise Forbidden("The default profile cannot be renamed")
        values.object_name("profile", new)
        if self._store.profiles.get(home, new) is not None:
            raise Conflict(f"Profile {new!r} already exists")
        self._refuse_if_used(home, name, "renamed")
        self._store.profiles.rename(home, name, new)
        self._cache.pop((home, name), None)
        self._emit("profile-renamed", f"/1.0/profiles/{new}", home, {"old_name": name})

    def delete(self, project: str, name: str) -> None:
        """Raises `Forbidden` for ``default``, `Conflict` when instances use it."""
        home = self.home(project)
        self._document(home, name)
        if name == "default":
            raise Forbidden("The default profile cannot be deleted")
        self._refuse_if_used(home, name, "deleted")
        self._store.profiles.delete(home, name)
        self._cache.pop((home, name), None)
        self._emit("profile-deleted", f"/1.0/profiles/{name}", home, None)

    # -- inside ----------------------------------------------------------------------------------------------

    def _document(self, home: str, name: str) -> dict[str, Any]:
        # Expanding happens for every instance of a list, so the documents are kept parsed.
        doc = self._cache.get((home, name))
        if doc is None:
            doc = self._store.profiles.get(home, name)
            if doc is None:
                raise NotFound(f"Profile {name!r} not found")
            self._cache[home, name] = doc
        return doc

    def forget(self, project: str) -> None:
        """A project is gone, with its profiles."""
        for key in [key for key in self._cache if key[0] == project]:
            del self._cache[key]

    def _checked(self, body: dict[str, Any]) -> dict[str, Any]:
        config = {str(key): _text(key, value) for key, value in _mapping(body, "config").items()}
        config = {key: value for key, value in config.items() if value != ""}
        devices: Devices = {}
        for name, device in values.stated(_mapping(body, "devices")).items():
            if not isinstance(device, dict):
                raise BadRequest(f"Device {name!r} must be a set of keys and values")
            devices[str(name)] = {str(key): _text(key, value) for key, value in device.items()}
        for key in config:
            if key.startswith(("volatile.", "image.")):
                raise BadRequest(f"A profile cannot set {key}: it belongs to one instance")
        self.validate(config, devices)
        return _document(str(body.get("description") or ""), config, devices)

    def _users(self, home: str) -> Users:
        """Instances by profile: URLs."""
        found: Users = {}
        for row in self._store.instances.all():
            if self.home(row.project) == home:
                suffix = "" if row.project == "default" else f"?project={row.project}"
                for name in row.doc.get("profiles", ()):
                    found.setdefault(name, []).append(f"/1.0/instances/{row.name}{suffix}")
        return found

    def _refuse_if_used(self, home: str, name: str, doing: str) -> None:
        if users := self._users(home).get(name):
            names = ", ".join(url.removeprefix("/1.0/instances/") for url in users[:3])
            more = f" and {len(users) - 3} more" if len(users) > 3 else ""
            raise Conflict(f"Profile {name!r} cannot be {doing}: it is in use by {names}{more}")


def _document(description: str, config: Config, devices: Devices) -> dict[str, Any]:
    return {"description": description, "config": config, "devices": devices}


def _render(name: str, doc: dict[str, Any], used_by: list[str]) -> Profile:
    return {
        "name": name,
        "description": doc["description"],
        "config": doc["config"],
        "devices": doc["devices"],
        "used_by": used_by,
    }


def _mapping(body: dict[str, Any], key: str) -> dict[str, Any]:
    value = body.get(key) or {}
    if not isinstance(value, dict):
        raise BadRequest(f"{key} must be a set of keys and values")
    return value


def _text(key: str, value: Any) -> str:
    """YAML gives numbers and booleans where LXD's API wants text; both are taken."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise BadRequest(f"Invalid value for {key}: {value!r} is not text")

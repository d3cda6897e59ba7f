"""Network ACLs: kept in the store; `firewall` puts them on bridges, `nicacls` on nics."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.networks import config as keys
from lxpy.networks.aclrules import DIRECTIONS, checked_rule
from lxpy.state.store import Store

Full = list[dict[str, Any]]
Urls = list[str]
Documents = dict[str, dict[str, Any]]


class Acls:
    """All network ACLs of one daemon.

    Args:
        lock: the network manager's.
        load: makes the rules on the host those of the given ACLs.
    """

    def __init__(
        self,
        store: Store,
        lock: asyncio.Lock,
        load: Callable[[Documents], Awaitable[None]],
        emit: Callable[[str, str, str, dict[str, Any] | None], None],
    ) -> None:
        self._store, self._lock, self._load, self._emit = store, lock, load, emit

    def list(self) -> Full:
        return [self._api(name, document) for name, document in self._store.network_acls.all().items()]

    def get(self, name: str) -> dict[str, Any]:
        """Raises `NotFound`."""
        return self._api(name, self._document(name))

    def _document(self, name: str) -> dict[str, Any]:
        document = self._store.network_acls.get(name)
        if document is None:
            raise NotFound(f"Network ACL {name!r} not found")
        return document

    def _api(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        return {"name": name, **document, "used_by": self.used_by(name)}

    def used_by(self, name: str) -> Urls:
        """URLs of the networks, instances and profiles that name an ACL."""
        networks = self._store.networks.all().items()
        found = [f"/1.0/networks/{one}" for one, doc in networks if name in keys.words(doc["config"], "security.acls")]
        owners = [(one.project, "instances", one.name, one.doc) for one in self._store.instances.all()]
        for project in self._store.projects.all():
            owners += [(project, "profiles", one, doc) for one, doc in self._store.profiles.all(project).items()]
        for project, kind, owner, doc in owners:
            if any(name in keys.words(device, "security.acls") for device in doc["devices"].values()):
                found.append(f"/1.0/{kind}/{owner}" + ("" if project == "default" else f"?project={project}"))
        return found

    def check(self, config: dict[str, str]) -> None:
        """Raises `BadRequest` when ``security.acls`` of a network or nic names an ACL that is not there."""
        for name in keys.words(config, "security.acls"):
            if self._store.network_acls.get(name) is None:
                raise BadRequest(f"security.acls: the network ACL {name!r} does not exist")

    async def create(self, body: dict[str, Any]) -> str:
        """Gives the name. Raises `BadRequest`, `Conflict`."""
        name = values.object_name("network ACL", str(body.get("name") or ""))
        document = checked(body)
        async with self._lock:
            if self._store.network_acls.get(name) is not None:
                raise Conflict(f"The network ACL {name!r} already exists")
            self._store.network_acls.put(name, document)
        self._emit("network-acl-created", f"/1.0/network-acls/{name}", "default", None)
        return name

    async def update(self, name: str, body: dict[str, Any]) -> None:
        """Replaces description, configuration and rules; acts at once. Raises `NotFound`, `BadRequest`."""
        document = checked(body)
        async with self._lock:
            before = self._document(name)
            if document != before and self.used_by(name):
                try:
                    await self._load({**self._store.network_acls.all(), name: document})
                except BaseException:
                    await self._load(self._store.network_acls.all())
                    raise
            self._store.network_acls.put(name, document)
        self._emit("network-acl-updated", f"/1.0/network-acls/{name}", "default", None)

    async def rename(self, name: str, new: str) -> None:
        """Raises `NotFound`, `BadRequest`, and `Conflict` while anything uses it."""
        values.object_name("network ACL", new)
        async with self._lock:
            self._unused(name, "renamed")
            if self._store.network_acls.get(new) is not None:
                raise Conflict(f"The network ACL {new!r} already exists")
            self._store.network_acls.rename(name, new)
        self._emit("network-acl-renamed", f"/1.0/network-acls/{new}", "default", {"old_name": name})

    async def delete(self, name: str) -> None:
        """Raises `NotFound`, and `Conflict` while anything uses it."""
        async with self._lock:
            self._unused(name, "deleted")
            self._store.network_acls.delete(name)
        self._emit("network-acl-deleted", f"/1.0/network-acls/{name}", "default", None)

    def _unused(self, name: str, what: str) -> None:
        self._document(name)
        if users := self.used_by(name):
            more = f" and {len(users) - 1} more" if len(users) > 1 else ""
            user = users[0].removeprefix("/1.0/")
            raise Conflict(f"The network ACL {name!r} is in use by {user}{more}: only an unused one can be {what}")


def checked(body: dict[str, Any]) -> dict[str, Any]:
    """The document of a request. Raises `BadRequest` with the first fault."""
    given = body.get("config") or {}
    if not isinstance(given, dict):
        raise BadRequest("config must be a set of keys and values")
    config = {str(key): str(value) for key, value in given.items() if value not in (None, "")}
    if wrong := next((key for key in config if not key.startswith("user.")), ""):
        raise BadRequest(f"Invalid network ACL configuration key {wrong!r}: an ACL has user.* only")
    document: dict[str, Any] = {"description": str(body.get("description") or "")}
    for direction in DIRECTIONS:
        rules = body.get(direction) or []
        if not isinstance(rules, list):
            raise BadRequest(f"{direction} must be a list of rules")
        found = [checked_rule(f"{direction} rule {number}", rule) for number, rule in enumerate(rules, 1)]
        if twice := next((n for n, rule in enumerate(found, 1) if rule in found[: n - 1]), 0):
            raise BadRequest(f"Invalid {direction} rule {twice}: the same rule stands before it")
        document[direction] = found
    return {**document, "config": config}

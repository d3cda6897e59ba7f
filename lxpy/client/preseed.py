"""A server's set-up by a preseed: every object it names is created or updated, all of it or nothing.

The daemon runs this on itself, over its own API, and keeps the journal; for servers that cannot (LXD), the command
line does, and then a killed command line leaves half of it.
"""

from __future__ import annotations

from lxpy.api.errors import ApiError, NotFound, Unavailable
from lxpy.client.wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client

    Document = dict[str, Any]
    Undo = list[Any]  # method, path, body: a request that takes a step back, whether it was done or not

# (key of the preseed, path, what PUT takes), in the order in which they need each other
KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("storage_pools", "/1.0/storage-pools", ("config", "description")),
    ("networks", "/1.0/networks", ("config", "description")),
    ("projects", "/1.0/projects", ("config", "description")),
    ("profiles", "/1.0/profiles", ("config", "description", "devices")),
)
MADE_WITH = {"storage_pools": ("driver",), "networks": ("type",)}  # what can only be said when it is made


class Stopped(ApiError):
    """The user does not want it any more; everything has been taken back."""


def check(document: Any) -> Document:
    """Raises `ApiError` when `document` is no preseed; nothing is asked of a server."""
    if not isinstance(document, dict):
        raise ApiError("The preseed is not a YAML mapping (config, networks, storage_pools, profiles, projects)")
    known = {"config", *(key for key, _, _ in KINDS)}
    # What LXD prints at the end of its set-up has "cluster: null": nothing is asked for by that.
    unknown = sorted(str(key) for key, value in document.items() if key not in known and value)
    if "cluster" in unknown:
        raise ApiError("The preseed's cluster section is not supported yet: nothing was changed")
    if unknown:
        raise ApiError(f"Unknown section {unknown[0]!r} in the preseed (known: {', '.join(sorted(known))})")
    if not isinstance(document.get("config") or {}, dict):
        raise ApiError("The preseed's config must be a set of keys and values: nothing was changed")
    for key, _, fields in KINDS:
        entries = document.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(one, dict) and one.get("name") for one in entries):
            raise ApiError(f"The preseed's {key} must be a list of entries with a name: nothing was changed")
        allowed = {"name", *fields, *MADE_WITH.get(key, ())}
        for one in entries:
            if strange := sorted(set(map(str, one)) - allowed - {"project"}):
                where = f"{key} entry {one['name']!r}"
                raise ApiError(
                    f"Unknown key {strange[0]!r} in the preseed's {where} (known: {', '.join(sorted(allowed))})"
                )
    return document


class Apply:
    """One application of a preseed.

    Args:
        show: told what is being set up.
        note: given the undo steps known so far, before each step that they undo is taken.
        stopped: asked between two steps whether to end instead.
        undo: takes steps back; the lines of what it could not (default `take_back`).
    """

    def __init__(
        self,
        client: Client,
        show: Callable[[str], None],
        note: Callable[[list[Undo]], None] = lambda undo: None,
        stopped: Callable[[], bool] = lambda: False,
        undo: Callable[[Client, list[Undo]], list[str]] | None = None,
    ) -> None:
        self._client, self._show, self._note, self._stopped = client, show, note, stopped
        self._take_back = undo or take_back
        self._undo: list[Undo] = []

    def run(self, document: Document, then: Callable[[Apply], None] = lambda apply: None) -> None:
        """Make the server as `document` says.

        Args:
            then: takes more steps (`step`) that belong to it.

        Raises:
            ApiError: what went wrong; everything done has been taken back.
        """
        try:
            self._run(document)
            then(self)
        except BaseException as error:
            if stuck := self._take_back(self._client, self._undo):
                raise ApiError(f"{error}; and taking back what was done failed too: {'; '.join(stuck)}") from error
            raise

    def step(self, undo: Undo, work: Callable[[], Any]) -> None:
        """Does `work`, whose undoing is noted first."""
        if self._stopped():
            raise Stopped("Stopped: what had been done is taken back")
        self._undo.append(undo)
        self._note(self._undo)
        try:
            work()
        except Unavailable:
            raise  # it may have been done
        except ApiError:
            self._undo.pop()  # refused: what has that name now is somebody else's
            self._note(self._undo)
            raise

    def _run(self, document: Document) -> None:
        client = self._client
        changes = {str(key): text(value) for key, value in (document.get("config") or {}).items()}
        if changes:
            old = client.get("/1.0").get("config") or {}
            self.step(["PUT", "/1.0", {"config": old}], lambda: client.put("/1.0", {"config": {**old, **changes}}))
        for key, path, fields in KINDS:
            for given in document.get(key) or []:
                self._one(path, fields, given)

    def _one(self, path: str, fields: tuple[str, ...], given: Document) -> None:
        client, name = self._client, str(given["name"])
        url = f"{path}/{quote(name)}" + (f"?project={quote(str(given['project']))}" if given.get("project") else "")
        self._show(f"Setting up {path.rpartition('/')[2].removesuffix('s').replace('-', ' ')} {name}")
        wanted: Document = {field: given[field] for field in fields if given.get(field) is not None}
        for field in ("config", "devices"):
            if isinstance(wanted.get(field), dict):
                wanted[field] = strings(wanted[field])
        try:
            there, etag = client.get_etag(url)
        except NotFound:
            kept = {field: given[field] for field in ("driver", "type") if given.get(field)}
            target = path + (f"?project={quote(str(given['project']))}" if given.get("project") else "")
            body = {"name": name, "config": {}, **kept, **wanted}
            self.step(["DELETE", url, None], lambda: client.wait(client.post(target, body)))
            return
        if there.get("managed") is False:
            raise ApiError(f"{name} is an interface of the host that lxpy does not manage: choose another name")
        if given.get("driver") and given["driver"] != there.get("driver"):
            raise ApiError(f"Storage pool {name} exists with driver {there.get('driver')}, not {given['driver']}")
        before = {field: there[field] for field in fields if field in there}
        for key, value in list((wanted.get("config") or {}).items()):
            if value == "auto" and before.get("config", {}).get(key, "none") != "none":
                del wanted["config"][key]  # it was found automatically already: asking again must not move it
        after = {**before, **wanted}
        if "config" in wanted:
            after["config"] = {**before.get("config", {}), **wanted["config"]}
        if "devices" in wanted:
            after["devices"] = {**before.get("devices", {}), **wanted["devices"]}
        if after != before:
            self.step(["PUT", url, before], lambda: client.wait(client.put(url, after, etag)))


def take_back(client: Client, undo: list[Undo]) -> list[str]:
    """Undoes the steps, the last one first; what could not be undone, a line each."""
    stuck = []
    for method, path, body in reversed(undo):
        try:
            client.wait(client.delete(path) if method == "DELETE" else client.put(path, body))
        except NotFound:
            pass  # the step had not been taken, or took itself back
        except (ApiError, OSError) as other:
            stuck.append(str(other))
    return stuck


def strings(value: Any) -> Any:
    """YAML's numbers and booleans as the strings the API wants."""
    if isinstance(value, dict):
        return {str(key): strings(inner) for key, inner in value.items()}
    return text(value)


def text(value: Any) -> str:
    """A scalar of YAML as a configuration value."""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)

"""Rows of the plain panes: pools, networks, profiles, warnings, and of the projects; and where the daemon has them.

A `Kind` says which request gives all of them and which events tell that some have changed. The model reads a kind
when it is first looked at, and from then on whenever an event says so.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from lxpy.tui.rows import epoch


class ObjectRow:
    """One object.

    Attributes:
        kind: plural, as the pane and the API's path name it.
        key: what tells it from others of its kind; `raw` is the API's object.
    """

    __slots__ = ("description", "key", "kind", "name", "raw", "users")

    def __init__(self, kind: str, raw: dict[str, Any], key: str = "name") -> None:
        self.kind, self.raw = kind, raw
        self.key: str = raw[key]
        self.name: str = raw.get("name", self.key)
        self.description: str = raw.get("description", "")
        self.users = len(raw.get("used_by") or [])

    @property
    def path(self) -> str:
        """Its address in the API."""
        from urllib.parse import quote

        return f"/1.0/{self.kind}/{quote(self.key)}"


class PoolRow(ObjectRow):
    """A storage pool. `used` and `total` are bytes, 0 until they are known."""

    __slots__ = ("driver", "source", "total", "used")

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__("storage-pools", raw)
        self.driver: str = raw.get("driver", "")
        self.source: str = (raw.get("config") or {}).get("source", "")
        space = (raw.get("resources") or {}).get("space") or {}
        self.used, self.total = int(space.get("used") or 0), int(space.get("total") or 0)


class NetworkRow(ObjectRow):
    """A network, managed or the host's own."""

    __slots__ = ("ipv4", "ipv6", "managed", "type")

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__("networks", raw)
        config = raw.get("config") or {}
        self.type: str = raw.get("type", "")
        self.managed = bool(raw.get("managed"))
        self.ipv4: str = config.get("ipv4.address", "")
        self.ipv6: str = config.get("ipv6.address", "")


class ProfileRow(ObjectRow):
    """A profile."""

    __slots__ = ()

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__("profiles", raw)

    @property
    def devices(self) -> str:
        return ", ".join(sorted(self.raw.get("devices") or {}))


class WarningRow(ObjectRow):
    """A warning of the daemon's. `name` is its type, `message` what it says."""

    __slots__ = ("count", "message", "seen", "severity", "status", "subject")

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__("warnings", raw, "uuid")
        self.name = raw.get("type", "")
        self.message = self.description = raw.get("last_message", "")
        self.status: str = raw.get("status", "")
        self.severity: str = raw.get("severity", "")
        self.count = int(raw.get("count") or 1)
        self.seen = epoch(raw.get("last_seen_at", ""))
        self.subject = raw.get("entity_url", "").removeprefix("/1.0/")


class ProjectRow(ObjectRow):
    """A project. `contents` are what it holds, in words (``instance web1``): its default profile does not count."""

    __slots__ = ("contents",)

    def __init__(self, raw: dict[str, Any]) -> None:
        super().__init__("projects", raw)
        paths = [url.partition("?")[0].removeprefix("/1.0/").split("/") for url in raw.get("used_by") or []]
        words = [f"{'volume' if 'volumes' in path else path[0].removesuffix('s')} {path[-1]}" for path in paths]
        self.contents = [one for one in words if one != "profile default"]

    @property
    def features(self) -> str:
        """What it has of its own, beside instances."""
        config = self.raw.get("config") or {}
        names = {"images": "images", "profiles": "profiles", "storage.volumes": "volumes", "networks": "networks"}
        return ", ".join(word for key, word in names.items() if config.get(f"features.{key}") == "true")


class Kind(NamedTuple):
    """Attributes:
    path: lists all objects, with ``recursion=1``.
    row: makes a row of one.
    events: lifecycle actions that begin so tell of a change.
    """

    path: str
    row: Callable[[dict[str, Any]], ObjectRow]
    events: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "storage-pools": Kind("/1.0/storage-pools", PoolRow, ("storage-pool-", "storage-volume-")),
    "networks": Kind("/1.0/networks", NetworkRow, ("network-",)),
    "profiles": Kind("/1.0/profiles", ProfileRow, ("profile-",)),
    "projects": Kind("/1.0/projects", ProjectRow, ("project-",)),
    "warnings": Kind("/1.0/warnings", WarningRow, ("warning-",)),
}
# Instances come and go: how many use a pool, network or profile changes with them.
USED = ("storage-pools", "networks", "profiles")

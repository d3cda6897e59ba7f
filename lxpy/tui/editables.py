"""What the form of keys edits: where it is read, what explains and checks it, how it is saved. No Textual."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from lxpy.tui import guides
from lxpy.tui.objects import PoolRow
from lxpy.tui.rows import InstanceRow
from lxpy.tui.rules import Faults, KeyInfo
from lxpy.tui.verbs.objects import WRITABLE, where
from lxpy.tui.volumerows import VolumeRow

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_PLAIN = ("config", "description")
_ENTITIES = {"instances": "instance", "profiles": "instance", "networks": "network-bridge", "projects": "project"}
_KINDS = {"instances": "instance", "profiles": "profile", "networks": "network", "storage-pools": "storage-pool",
          "projects": "project"}  # fmt: skip


class Loaded(NamedTuple):
    """What is there now.

    Attributes:
        own: keys and values of the object itself.
        inherited: what profiles give, with the name of the last one that does; `own` comes before it.
        raw, etag: the object as the API has it.
    """

    own: dict[str, str]
    inherited: dict[str, tuple[str, str]]
    raw: dict[str, Any]
    etag: str


class Editable:
    """One object's keys.

    Attributes:
        title: what is edited, for people.
        ready: whether it may be saved without a change: it is not there yet.
        own: what the origin of its own keys is called.
    """

    title = ""
    ready = False
    own: ClassVar[str] = "own"

    def __init__(self, app: "LxpyApp") -> None:
        self.app = app

    async def keys(self) -> dict[str, KeyInfo]:
        """What may be set."""
        raise NotImplementedError

    async def load(self) -> Loaded:
        """What is set now."""
        raise NotImplementedError

    async def check(self, own: Mapping[str, str], loaded: Loaded) -> Faults:
        """What is wrong with it, by key."""
        raise NotImplementedError

    async def save(self, own: Mapping[str, str], loaded: Loaded) -> None:
        """Makes `own` what is set. Raises `PreconditionFailed` when somebody else was there since it was `loaded`."""
        raise NotImplementedError

    def yaml(self) -> bool:
        """Opens the whole as YAML instead; whether that can be done."""
        return False

    async def _put(self, path: str, body: dict[str, Any], etag: str) -> None:
        await self.app.model.follow(await self.app.gateway.call(lambda c: c.put(path, body, etag)))


class ConfigOf(Editable):
    """The configuration of an instance, profile, network, pool or project, and its few properties."""

    def __init__(self, app: "LxpyApp", row: Any) -> None:
        super().__init__(app)
        self.row = row
        self.kind, self.path = where(row)
        self.title = f"{row.name} · {_KINDS[self.kind].replace('-', ' ')}"
        self.fields = {"description": KeyInfo("description", text="What it is for")}
        if isinstance(row, InstanceRow):
            self.fields |= {
                "profiles": KeyInfo("profiles", text="Applied in this order, separated by commas; the last one wins"),
                "ephemeral": KeyInfo("ephemeral", "bool", "It is deleted when it stops", "false", ("true", "false")),
            }

    async def keys(self) -> dict[str, KeyInfo]:
        if isinstance(self.row, PoolRow):
            return self.fields | await self.app.rules.keys(f"storage-{self.row.driver}", "pool-conf")
        return self.fields | await self.app.rules.keys(_ENTITIES[self.kind])

    async def load(self) -> Loaded:
        raw, etag = await self.app.gateway.call(lambda c: c.get_etag(self.path))
        own = {k: v for k, v in (raw.get("config") or {}).items() if not k.startswith("volatile.")}
        own |= {name: text for name in self.fields if (text := _shown(raw.get(name)))}
        inherited: dict[str, tuple[str, str]] = {}
        if isinstance(self.row, InstanceRow):
            for name, profile in (await profiles_of(self.app, raw)).items():
                inherited |= {key: (value, f"profile {name}") for key, value in (profile.get("config") or {}).items()}
            expanded = raw.get("expanded_config") or {}
            inherited |= {
                key: (value, "image") for key, value in expanded.items()
                if key.startswith("image.") and key not in own and key not in inherited
            }  # fmt: skip
        return Loaded(own, inherited, raw, etag)

    async def check(self, own: Mapping[str, str], loaded: Loaded) -> Faults:
        config = {key: value for key, value in own.items() if key not in self.fields}
        if self.kind == "instances":
            # What excludes another key may be a profile's.
            config = {k: v for k, (v, _) in loaded.inherited.items() if not k.startswith("image.")} | config
        more = {"pool": self.row.name} if isinstance(self.row, PoolRow) else {}
        more |= {"project": self.row.name} if self.kind == "projects" else {}
        faults = await self.app.rules.faults(_KINDS[self.kind], config, **more)
        if "ephemeral" in self.fields and own.get("ephemeral", "false") not in ("true", "false"):
            faults["ephemeral"] = "Invalid value for ephemeral: true or false"
        return faults

    async def save(self, own: Mapping[str, str], loaded: Loaded) -> None:
        body = {key: loaded.raw[key] for key in WRITABLE.get(self.kind, _PLAIN) if key in loaded.raw}
        kept = {k: v for k, v in (loaded.raw.get("config") or {}).items() if k.startswith("volatile.")}
        body["config"] = kept | {key: value for key, value in own.items() if key not in self.fields}
        body["description"] = own.get("description", "")
        if "profiles" in self.fields:
            body["profiles"] = [name for name in own.get("profiles", "").replace(",", " ").split() if name]
            body["ephemeral"] = own.get("ephemeral") == "true"
        await self._put(self.path, body, loaded.etag)
        self.app.model.changed_kind(self.kind)

    def yaml(self) -> bool:
        from lxpy.tui.verbs.objects import edit_yaml

        edit_yaml(self.app, self.row)
        return True


class DeviceOf(Editable):
    """One device of an instance or profile. A profile's that is edited for an instance becomes the instance's own.

    Args:
        row: whose it is, or is to be.
        inherited: it is a profile's, and `device` what it has now.
    """

    def __init__(self, app: "LxpyApp", row: Any, name: str, device: Mapping[str, str], inherited: bool = False) -> None:
        super().__init__(app)
        self.row, self.name, self.device, self.ready = row, name, dict(device), inherited
        self.path = where(row)[1]
        kind = device.get("nictype") or device.get("type", "")
        self.title = f"{row.name} · device {name} ({kind})" + (" · instead of the profile's" if inherited else "")

    async def keys(self) -> dict[str, KeyInfo]:
        return await self.app.rules.keys(guides.entity(self.device))

    async def load(self) -> Loaded:
        raw, etag = await self.app.gateway.call(lambda c: c.get_etag(self.path))
        device = (raw.get("devices") or {}).get(self.name) or (self.device if self.ready else {})
        return Loaded({k: v for k, v in device.items() if k not in _FIXED}, {}, raw, etag)

    def _whole(self, own: Mapping[str, str]) -> dict[str, str]:
        return {key: self.device[key] for key in _FIXED if key in self.device} | dict(own)

    async def check(self, own: Mapping[str, str], loaded: Loaded) -> Faults:
        device = self._whole(own)
        expanded = None
        if "expanded_devices" in loaded.raw:
            expanded = {**loaded.raw["expanded_devices"], self.name: device}
        return await self.app.rules.device_faults(self.name, device, expanded)

    async def save(self, own: Mapping[str, str], loaded: Loaded) -> None:
        kind = where(self.row)[0]
        body = {key: loaded.raw[key] for key in WRITABLE[kind] if key in loaded.raw}
        body["devices"] = {**(loaded.raw.get("devices") or {}), self.name: self._whole(own)}
        await self._put(self.path, body, loaded.etag)
        self.app.model.changed_kind(kind)


class VolumeOf(Editable):
    """The configuration of a custom volume."""

    def __init__(self, app: "LxpyApp", row: VolumeRow) -> None:
        super().__init__(app)
        self.row = row
        self.title = f"{row.name} · volume of {row.pool}"
        self.fields = {"description": KeyInfo("description", text="What it is for")}

    async def keys(self) -> dict[str, KeyInfo]:
        return self.fields | await self.app.rules.keys(f"storage-{self.row.driver}", "volume-conf")

    async def load(self) -> Loaded:
        raw, etag = await self.app.gateway.call(lambda c: c.get_etag(self.row.path))
        own = {k: v for k, v in (raw.get("config") or {}).items() if not k.startswith("volatile.")}
        own |= {"description": raw["description"]} if raw.get("description") else {}
        return Loaded(own, {}, raw, etag)

    async def check(self, own: Mapping[str, str], loaded: Loaded) -> Faults:
        config = {key: value for key, value in own.items() if key not in self.fields}
        return await self.app.rules.faults("storage-volume", config, pool=self.row.pool)

    async def save(self, own: Mapping[str, str], loaded: Loaded) -> None:
        kept = {k: v for k, v in (loaded.raw.get("config") or {}).items() if k.startswith("volatile.")}
        config = kept | {key: value for key, value in own.items() if key not in self.fields}
        await self._put(self.row.path, {"config": config, "description": own.get("description", "")}, loaded.etag)
        self.app.model.changed_kind("storage-pools")


_FIXED = ("type", "nictype")


async def profiles_of(app: "LxpyApp", raw: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The profiles of an instance, in their order."""
    found = await app.gateway.call(lambda c: c.get("/1.0/profiles", recursion="1"))
    known = {profile["name"]: profile for profile in found}
    return {name: known[name] for name in raw.get("profiles") or [] if name in known}


def _shown(value: Any) -> str:
    """A property as the form has it."""
    if isinstance(value, bool):
        return "true" if value else ""
    return ", ".join(value) if isinstance(value, list) else str(value or "")

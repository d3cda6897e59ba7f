"""config: an instance's configuration and devices, or the server's."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.certificates import TRUST
from lxpy.cli.context import Context, edit_document, pairs, settings
from lxpy.cli.objects import Kind, get_property, quote, set_properties
from lxpy.cli.rebuild import METADATA, TEMPLATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client


class Instances(Kind):
    """Instances, and as ``NAME/SNAPSHOT`` their snapshots, of which only the expiry can be changed."""

    def url(self, name: str) -> str:
        name, slash, snapshot = name.partition("/")
        return super().url(name) + (f"/snapshots/{quote(snapshot)}" if slash else "")

    def save(self, client: Client, url: str, document: dict[str, Any], etag: str) -> None:
        if "/snapshots/" not in url:
            super().save(client, url, document, etag)
        elif "expires_at" in document:
            client.wait(client.put(url, {"expires_at": document["expires_at"]}, etag))


INSTANCE = Instances(
    "instance",
    "/1.0/instances",
    ("architecture", "config", "description", "devices", "ephemeral", "profiles", "stateful"),
)
_EXPANDED = Option("-e --expanded", help="Show the expanded configuration")
_PROPERTY = Option("-p --property", help="Treat the key as a property of the instance, not as configuration")


def _where(context: Context, ref: str) -> tuple[Client, str]:
    """Client and URL of an instance, or of the server for "" and a bare remote."""
    client, name = context.resolve(ref if ref else ":")
    return client, INSTANCE.url(name) if name else "/1.0"


def _properties(url: str) -> tuple[str, ...]:
    """Those that can be set."""
    if url == "/1.0":
        raise UsageError("--property is for instances: the server has its configuration only")
    return ("expires_at",) if "/snapshots/" in url else ("description", "ephemeral")


def _save(client: Client, url: str, document: dict[str, Any], etag: str) -> None:
    if url == "/1.0":
        client.put(url, {"config": document.get("config") or {}}, etag)
    else:
        INSTANCE.save(client, url, document, etag)


def _show(context: Context, args: Args) -> None:
    client, url = _where(context, args.at(0))
    document = client.get(url)
    if url == "/1.0":
        document = {"config": document.get("config") or {}}
    elif args.flag("expanded"):
        document["config"], document["devices"] = document["expanded_config"], document["expanded_devices"]
    hidden = ("expanded_config", "expanded_devices", "state", "snapshots", "backups")
    shown = {key: value for key, value in sorted(document.items()) if key not in hidden}
    sys.stdout.write(render.yaml(render.ordered(shown)))


def _get(context: Context, args: Args) -> None:
    *where, key = args.rest
    client, url = _where(context, where[0] if where else "")
    document = client.get(url)
    if args.flag("property"):
        sys.stdout.write(f"{get_property(document, key)}\n")
        return
    config = document["expanded_config"] if args.flag("expanded") and url != "/1.0" else document.get("config") or {}
    sys.stdout.write(f"{config.get(key, '')}\n")


def _set(context: Context, args: Args) -> None:
    words = list(args.rest)
    # "key=value", or LXD's old "key value" for the server; anything else begins with the instance.
    server = "=" in words[0] or (len(words) == 2 and "=" not in words[1] and "." in words[0] and ":" not in words[0])
    ref = "" if server else words.pop(0)
    if not words:
        raise UsageError("missing <key>=<value>")
    client, url = _where(context, ref)
    changes = settings(words)
    document, etag = client.get_etag(url)
    if args.flag("property"):
        set_properties(document, changes, _properties(url))
    elif "/snapshots/" in url:
        raise ApiError("Only the property expires_at of a snapshot can be changed: config set -p ... expires_at=...")
    else:
        document.setdefault("config", {})
        for key, value in changes.items():
            if value == "" and url == "/1.0":
                document["config"].pop(key, None)
            else:
                document["config"][key] = value
    _save(client, url, document, etag)


def _unset(context: Context, args: Args) -> None:
    *where, key = args.rest
    client, url = _where(context, where[0] if where else "")
    document, etag = client.get_etag(url)
    if args.flag("property"):
        set_properties(document, {key: ""}, _properties(url))
    elif "/snapshots/" in url:
        raise ApiError("Only the property expires_at of a snapshot can be changed: config unset -p ... expires_at")
    elif (document.get("config") or {}).pop(key, None) is None:
        raise ApiError(f"Can't unset key '{key}', it's not currently set")
    elif key.startswith("volatile."):
        document["config"][key] = ""  # what is only left out stays: these are the server's own
    _save(client, url, document, etag)


def _edit(context: Context, args: Args) -> None:
    client, url = _where(context, args.at(0))
    document, etag = client.get_etag(url)
    keys = ("config",) if url == "/1.0" else (*INSTANCE.writable, "name")
    if "/snapshots/" in url:
        keys = ("expires_at", "name")
    shown = {key: document[key] for key in sorted(keys) if key in document}
    head = "### The configuration as YAML. Lines that begin with # are ignored; the name is shown only.\n"
    tag = etag if sys.stdin.isatty() else ""
    text = head + render.yaml(render.ordered(shown))
    edit_document(text, lambda changed: _save(client, url, changed, tag), known={*document, *keys})


class Devices:
    """``device add|remove|list|show|get|set|unset|override`` of instances and profiles."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind

    def _load(self, context: Context, args: Args) -> tuple[Client, str, dict[str, Any], str]:
        client, url = self.kind.resolve(context, args.rest[0])
        document, etag = client.get_etag(url)
        return client, url, document, etag

    def _device(self, document: dict[str, Any], name: str) -> dict[str, str]:
        device: dict[str, str] | None = document["devices"].get(name)
        if device is None:
            if name in document.get("expanded_devices", {}):
                raise ApiError(
                    f"Device {name!r} comes from a profile: override it for this instance "
                    f"(config device override), or change the profile (profile device set)"
                )
            known = ", ".join(sorted(document["devices"])) or "none"
            raise ApiError(f"The device {name!r} doesn't exist (there are: {known})")
        return device

    def add(self, context: Context, args: Args) -> None:
        client, url, document, etag = self._load(context, args)
        name, kind = args.rest[1:3]
        if name in document["devices"]:
            raise ApiError(f"The device {name!r} already exists")
        document["devices"][name] = {"type": kind, **pairs(args.rest[3:], "device option")}
        self.kind.save(client, url, document, etag)
        context.say(f"Device {name} added to {args.rest[0]}")

    def remove(self, context: Context, args: Args) -> None:
        client, url, document, etag = self._load(context, args)
        for name in args.rest[1:]:
            self._device(document, name)
            del document["devices"][name]
        self.kind.save(client, url, document, etag)
        for name in args.rest[1:]:
            context.say(f"Device {name} removed from {args.rest[0]}")

    def override(self, context: Context, args: Args) -> None:
        client, url, document, etag = self._load(context, args)
        name = args.rest[1]
        if name in document["devices"]:
            raise ApiError(f"The device {name!r} already exists")
        inherited = document.get("expanded_devices", {}).get(name)
        if inherited is None:
            raise ApiError(f"The profile device {name!r} doesn't exist")
        document["devices"][name] = {**inherited, **pairs(args.rest[2:], "device option")}
        self.kind.save(client, url, document, etag)
        context.say(f"Device {name} overridden for {args.rest[0]}")

    def list(self, context: Context, args: Args) -> None:
        document = self._load(context, args)[2]
        for name in sorted(document["devices"]):
            sys.stdout.write(name + "\n")

    def show(self, context: Context, args: Args) -> None:
        sys.stdout.write(render.yaml(self._load(context, args)[2]["devices"]))

    def get(self, context: Context, args: Args) -> None:
        device = self._device(self._load(context, args)[2], args.rest[1])
        sys.stdout.write(device.get(args.rest[2], "") + "\n")

    def set(self, context: Context, args: Args) -> None:
        client, url, document, etag = self._load(context, args)
        self._device(document, args.rest[1]).update(settings(args.rest[2:]))
        self.kind.save(client, url, document, etag)

    def unset(self, context: Context, args: Args) -> None:
        client, url, document, etag = self._load(context, args)
        self._device(document, args.rest[1]).pop(args.rest[2], None)
        self.kind.save(client, url, document, etag)

    def commands(self) -> dict[str, Command]:
        place = self.kind.place
        found = {
            "add": Command(self.add, f"{place} <device> <type> [key=value...]", "Add a device", (), 3, None),
            "get": Command(self.get, f"{place} <device> <key>", "Get an option of a device", (), 3, 3),
            "list": Command(self.list, place, "List the devices", (), 1, 1),
            "remove": Command(self.remove, f"{place} <device>...", "Remove devices", (), 2, None),
            "set": Command(self.set, f"{place} <device> <key>=<value>...", "Set options of a device", (), 3, None),
            "show": Command(self.show, place, "Show the devices in full", (), 1, 1),
            "unset": Command(self.unset, f"{place} <device> <key>", "Unset an option of a device", (), 3, 3),
        }
        if self.kind is INSTANCE:
            text = f"{place} <device> [key=value...]"
            found["override"] = Command(self.override, text, "Copy a profile's device and override it", (), 2, None)
        return found


COMMANDS = {
    "config": {
        "device": Devices(INSTANCE).commands(),
        "edit": Command(_edit, "[<remote>:][<instance>]", "Edit the configuration as YAML", (), 0, 1),
        "get": Command(
            _get, "[<remote>:][<instance>] <key>", "Get a configuration value", (_EXPANDED, _PROPERTY), 1, 2,
        ),
        "metadata": METADATA,
        "set": Command(
            _set, "[<remote>:][<instance>] <key>=<value>...", "Set configuration values", (_PROPERTY,), 1, None,
        ),
        "show": Command(_show, "[<remote>:][<instance>[/<snapshot>]]", "Show the configuration", (_EXPANDED,), 0, 1),
        "template": TEMPLATE,
        "trust": TRUST,
        "unset": Command(_unset, "[<remote>:][<instance>] <key>", "Unset a configuration value", (_PROPERTY,), 1, 2),
    }
}  # fmt: skip

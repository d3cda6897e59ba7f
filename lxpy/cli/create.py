"""launch and create: from an image reference to an instance, in one request."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError, NotFound
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, known_only, pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client
    from lxpy.client.remotes import Remote

OPTIONS = (
    Option("-c --config", "KEY=VALUE", "Config key/value to apply to the new instance", many=True),
    Option("-d --device", "NAME,KEY=VALUE...", "New key/value to apply to a specific device", many=True),
    Option("-e --ephemeral", help="Ephemeral instance"),
    Option("--empty", help="Create an empty instance"),
    Option("-n --network", "NETWORK", "Network name"),
    Option("--no-profiles", help="Create the instance with no profiles applied"),
    Option("-p --profile", "PROFILE", "Profile to apply to the new instance", many=True),
    Option("-s --storage", "POOL", "Storage pool name"),
    Option("-t --type", "TYPE", "Instance type (c1-m2: one CPU, 2 GiB)"),
    Option("--vm", help="Create a virtual machine (not possible)"),
    Option("--target", "MEMBER", "Cluster member name"),
    Option("--console", help="Immediately attach to the console"),
)


def image_source(context: Context, client: Client, ref: str) -> dict[str, Any]:
    """The ``source`` of POST /1.0/instances for an image reference."""
    remote, alias = context.remotes.parse_ref(ref)
    if not ref.partition(":")[1] and remote.is_image_server:
        remote = context.remotes.get("local")
    if remote.is_image_server:
        return _public(remote, alias)
    if remote.name != client.remote.name:
        from lxpy.cli.imagecopy import launch_source

        return launch_source(context, remote, alias)
    if not alias:
        raise UsageError(f"missing the image in {ref!r}")
    # The daemon resolves aliases and fingerprints by itself; one question more only where a remote could be meant.
    first = alias.partition("/")[0]
    if ":" not in ref and first in context.remotes.remotes and not _known(client, alias):
        other = context.remotes.get(first)
        if other.is_image_server:
            rest = alias.partition("/")[2] or "default"
            print(f'The local image "{alias}" couldn\'t be found, trying "{first}:{rest}" instead.', file=sys.stderr)
            return _public(other, rest)
    return {"type": "image", "alias": alias}


def _known(client: Client, alias: str) -> bool:
    from lxpy.client.wire import quote

    for path in (f"/1.0/images/aliases/{quote(alias)}", f"/1.0/images/{quote(alias)}"):
        try:
            client.get(path)
            return True
        except ApiError:
            continue
    return False


def _public(remote: Remote, alias: str) -> dict[str, Any]:
    return {
        "type": "image",
        "mode": "pull",
        "server": remote.url,
        "protocol": remote.protocol,
        "alias": alias or "default",
    }


# What an instance's object has: `lxpy config show c1 | lxpy launch IMAGE c2` works.
_KNOWN = ("architecture", "config", "created_at", "description", "devices", "ephemeral", "expanded_config",
          "expanded_devices", "last_used_at", "location", "name", "profiles", "project", "snapshots", "backups",
          "state", "stateful", "status", "status_code", "type")  # fmt: skip


def _stdin_config() -> dict[str, Any]:
    """YAML piped in (``lxpy launch IMAGE NAME < config.yaml``). Only files and pipes that already hold data or have
    ended are read, so that a script's idle standard input never hangs us."""
    import os
    import select
    import stat

    try:
        mode = os.fstat(0).st_mode
    except OSError:
        return {}
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)) or (stat.S_ISFIFO(mode) and not _fifo_speaks(select)):
        return {}
    text = sys.stdin.read()
    if not text.strip():
        return {}
    from lxpy.cli.render import parse_yaml

    document = parse_yaml(text, "The configuration on standard input")
    if not isinstance(document, dict):
        raise ApiError("The configuration on standard input is not a YAML mapping (config:, devices:, profiles:...)")
    known_only(document, _KNOWN)
    devices = document.get("devices") or {}
    for key, given in (("config", document.get("config")), ("devices", devices)):
        if not isinstance(given or {}, dict):
            raise ApiError(f"{key} on standard input must be a set of keys and values")
    for name, options in devices.items():
        if not isinstance(options, dict):
            raise ApiError(f"The device {name!r} on standard input must be a set of keys and values")
    return document


def _fifo_speaks(select: Any) -> bool:
    # `echo ... | lxpy launch` may be a moment late; an idle pipe of a supervisor costs this once.
    poll = select.poll()
    poll.register(0, select.POLLIN)
    return bool(poll.poll(50))


def _type_config(text: str) -> dict[str, str]:
    """``c2-m4`` as limits."""
    config = {}
    for part in text.split("-"):
        if part[:1] == "c" and part[1:].isdigit():
            config["limits.cpu"] = part[1:]
        elif part[:1] == "m" and part[1:].replace(".", "", 1).isdigit():
            config["limits.memory"] = f"{int(float(part[1:]) * 1024)}MiB"
        else:
            raise UsageError(f"Unknown instance type {text!r}: use cN-mN (c2-m4 is 2 CPUs and 4 GiB)")
    return config


def request_body(context: Context, client: Client, args: Args, image: str, name: str) -> dict[str, Any]:
    """The body of POST /1.0/instances."""
    given = _stdin_config() if not sys.stdin.isatty() else {}
    body: dict[str, Any] = {"name": name, "type": "container"}
    for key in ("description", "architecture"):
        if given.get(key):
            body[key] = given[key]
    config = {str(key): _text(value) for key, value in (given.get("config") or {}).items()}
    if args.value("type"):
        config |= _type_config(args.value("type"))
    config |= pairs(args.values("config"))
    devices: dict[str, dict[str, str]] = {
        str(device): {str(key): _text(value) for key, value in options.items()}
        for device, options in (given.get("devices") or {}).items()
    }
    if pool := args.value("storage"):
        devices.setdefault("root", {}).update({"type": "disk", "path": "/", "pool": pool})
    if network := args.value("network"):
        devices["eth0"] = {"type": "nic", "name": "eth0", "network": network}
    for word in args.values("device"):
        device, comma, rest = word.partition(",")
        if not comma:
            raise UsageError(f"Bad syntax, expecting <device>,<key>=<value>: {word!r}")
        options = devices.get(device)
        if options is None:
            options = devices[device] = _inherited(client, args, given, device)
        said = pairs(_options(rest), "device option")
        if said.get("type", kind := options.get("type")) != kind:
            options.clear()  # nothing of a card is left in what masks it
        options.update(said)
    body["config"], body["devices"] = config, devices
    if args.flag("no-profiles"):
        body["profiles"] = []
    elif args.values("profile"):
        body["profiles"] = args.values("profile")
    elif "profiles" in given:
        body["profiles"] = given["profiles"] or []
    if args.flag("ephemeral") or given.get("ephemeral"):
        body["ephemeral"] = True
    body["source"] = {"type": "none"} if args.flag("empty") else image_source(context, client, image)
    return body


def _options(text: str) -> list[str]:
    """``key=value`` words between commas; one without an equals sign goes on with the value before it: ``80,443``."""
    words: list[str] = []
    for part in text.split(","):
        if words and "=" not in part:
            words[-1] += f",{part}"
        else:
            words.append(part)
    return words


def _inherited(client: Client, args: Args, given: dict[str, Any], device: str) -> dict[str, str]:
    """The device as the profiles have it: ``-d eth0,ipv4.address=...`` overrides one option of it."""
    profiles = args.values("profile") or given.get("profiles") or ["default"]
    found: dict[str, str] = {}
    if not args.flag("no-profiles"):
        for profile in profiles:
            try:
                found = client.get(f"/1.0/profiles/{profile}")["devices"].get(device, found)
            except NotFound:
                pass  # the create request will say so
    return dict(found)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _create(start: bool) -> Any:
    def run(context: Context, args: Args) -> int:
        words = list(args.rest)
        if args.flag("vm"):
            raise ApiError("lxpy runs system containers only: leave --vm away")
        if not words and not args.flag("empty"):
            raise UsageError("missing argument: [<remote>:]<image>")
        image = "" if args.flag("empty") else words.pop(0)
        ref = words.pop(0) if words else ""
        if words:
            raise UsageError(f"too many arguments: {' '.join(words)}")
        if not ref and image and args.flag("empty"):
            raise UsageError("missing the name")
        client, name = _target(context, ref)
        body = request_body(context, client, args, image, name)
        verb = "Starting" if start else "Creating"
        if start:
            body["start"] = True
        if name:
            context.say(f"Creating {name}")
        else:
            context.say("Creating the instance")
        operation = context.begin(client, "/1.0/instances", body)
        ended = context.wait(client, operation)
        if not name:
            name = _name_of(ended)
            context.say(f"Instance name is: {name}")
        if start:
            context.say(f"{verb} {name}")
            if args.flag("console"):
                from lxpy.cli.run import attach

                return attach(context, client, name)
        return 0

    return run


def _target(context: Context, ref: str) -> tuple[Client, str]:
    remote, colon, name = ref.partition(":")
    if colon:
        return context.client(remote), name
    default = context.remotes.get("")
    return (context.client("local") if default.is_image_server else context.client()), ref


def _name_of(operation: dict[str, Any]) -> str:
    for url in (operation.get("resources") or {}).get("instances") or []:
        return str(url).partition("?")[0].rpartition("/")[2]
    return ""


create = Command(
    _create(False), "[<remote>:]<image> [<remote>:][<name>]", "Create instances from images", OPTIONS, 0, 2,
)  # fmt: skip
COMMANDS = {
    "launch": Command(
        _create(True), "[<remote>:]<image> [<remote>:][<name>]", "Create and start instances from images",
        OPTIONS, 1, 2,
        text="Examples:\n  lxpy launch images:alpine/3.20 my-alpine\n"
        "  lxpy launch builtin:debian/12 -c limits.memory=1GiB\n"
        "  lxpy launch ubuntu:24.04 u1 < config.yaml",
    ),
    "create": create,
}  # fmt: skip

"""init: set up the server (``--auto``, ``--minimal``, ``--preseed``, ``--dump``), or create an instance."""

from __future__ import annotations

import sys
from functools import partial

from lxpy.api.errors import ApiError, NotFound
from lxpy.cli import create, render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, steady
from lxpy.cli.objects import quote
from lxpy.client.setup import free_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client

    Document = dict[str, Any]
else:
    import _signal  # signal itself costs an enum

_SETUP = (
    Option("--auto", help="Automatic (non-interactive) mode"),
    Option("--minimal", help="A pool and a bridge with sensible settings, no questions"),
    Option("--preseed", help="Apply the YAML of a file, or of standard input"),
    Option("--dump", help="Dump the configuration as YAML (for --preseed elsewhere)"),
    Option("--network-address", "ADDRESS", "Address to bind to (default: none)"),
    Option("--network-port", "PORT", "Port to bind to", "8443"),
    Option("--storage-backend", "DRIVER", "Storage backend to use", "overlay"),
    Option("--storage-create-device", "DEVICE", "Set up device based storage using DEVICE"),
    Option("--storage-create-loop", "GIB", "Set up loop based storage with SIZE in GiB"),
    Option("--storage-pool", "POOL", "Storage pool to use or create"),
    Option("--trust-password", "PASSWORD", "Password required to add new clients"),
)
_MODES = ("auto", "minimal", "preseed", "dump")
# (key of the preseed, path, what identifies one, what PUT takes)
_KINDS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("storage_pools", "/1.0/storage-pools", ("config", "description")),
    ("networks", "/1.0/networks", ("config", "description")),
    ("projects", "/1.0/projects", ("config", "description")),
    ("profiles", "/1.0/profiles", ("config", "description", "devices")),
)
_MADE_WITH = {"storage_pools": ("driver",), "networks": ("type",)}  # what can only be said when it is made


def _init(context: Context, args: Args) -> int | None:
    modes = [mode for mode in _MODES if args.flag(mode)]
    if not modes:
        if not args.rest and not args.flag("empty"):
            from lxpy.cli import wizard

            return wizard.run(context, context.client())
        status = create.create.run(context, args)
        return status
    if len(modes) > 1:
        raise UsageError(f"Can't use --{modes[0]} and --{modes[1]} together")
    if args.rest and (modes != ["preseed"] or len(args.rest) > 1):
        raise UsageError(f"too many arguments: {' '.join(args.rest)}")
    client = context.client()
    if modes == ["dump"]:
        sys.stdout.write(render.yaml(dump(client)))
    elif modes == ["preseed"]:
        apply(context, client, _preseed(args.at(0)))
    else:
        apply(context, client, _auto(client, args))
    return 0


def _preseed(path: str) -> Document:
    if path and path != "-":
        with open(path, encoding="utf-8") as file:
            text = file.read()
    elif sys.stdin.isatty():
        raise UsageError("missing the preseed: name a file, or give it on standard input")
    else:
        text = sys.stdin.read()
    document = render.parse_yaml(text, "The preseed")
    if not isinstance(document, dict):
        raise ApiError("The preseed is not a YAML mapping (config, networks, storage_pools, profiles, projects)")
    known = {"config", *(key for key, _, _ in _KINDS)}
    unknown = sorted(set(document) - known)
    if "cluster" in unknown:
        raise ApiError("The preseed's cluster section is not supported yet: nothing was changed")
    if unknown:
        raise ApiError(f"Unknown section {unknown[0]!r} in the preseed (known: {', '.join(sorted(known))})")
    for key, _, fields in _KINDS:
        entries = document.get(key) or []
        if not isinstance(entries, list) or not all(isinstance(one, dict) and one.get("name") for one in entries):
            raise ApiError(f"The preseed's {key} must be a list of entries with a name: nothing was changed")
        allowed = {"name", *fields, *_MADE_WITH.get(key, ())}
        for one in entries:
            if strange := sorted(set(map(str, one)) - allowed - {"project"}):
                where = f"{key} entry {one['name']!r}"
                raise ApiError(
                    f"Unknown key {strange[0]!r} in the preseed's {where} (known: {', '.join(sorted(allowed))})"
                )
    return document


def _auto(client: Client, args: Args) -> Document:
    """What --auto and --minimal make: a pool and a bridge unless there are some, and the default profile's devices."""
    document: Document = {"config": {}, "storage_pools": [], "networks": [], "profiles": []}
    if address := args.value("network-address"):
        port = args.number("network-port", 8443)
        host = f"[{address}]" if ":" in address and not address.startswith("[") else address
        document["config"]["core.https_address"] = f"{'' if host == 'all' else host}:{port}"
    if args.value("trust-password"):
        document["config"]["core.trust_password"] = args.value("trust-password")
    pools = [one["name"] for one in client.get("/1.0/storage-pools", recursion="1")]
    pool = args.value("storage-pool") or (pools[0] if pools and "default" not in pools else "default")
    if pool not in pools:
        config = {}
        if args.value("storage-create-device"):
            config["source"] = args.value("storage-create-device")
        if args.value("storage-create-loop"):
            config["size"] = f"{args.number('storage-create-loop', 0)}GiB"
        document["storage_pools"].append({"name": pool, "driver": args.value("storage-backend"), "config": config})
    networks = client.get("/1.0/networks", recursion="1")
    managed = [one["name"] for one in networks if one["managed"]]
    network = managed[0] if managed else free_bridge([one["name"] for one in networks])
    if not managed:
        document["networks"].append({"name": network, "type": "bridge", "config": {}})
    devices: Document = client.get("/1.0/profiles/default")["devices"]
    if not any(one.get("type") == "disk" and one.get("path") == "/" for one in devices.values()):
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    if not any(one.get("type") == "nic" for one in devices.values()):
        devices["eth0"] = {"type": "nic", "name": "eth0", "network": network}
    document["profiles"].append({"name": "default", "devices": devices})
    return document


def dump(client: Client) -> Document:
    """The server's set-up in LXD's preseed shape; `apply` takes it back."""
    document: Document = {"config": client.get("/1.0").get("config") or {}}
    for key, path, fields in _KINDS:
        found = [one for one in client.get(path, recursion="1") if one.get("managed", True)]
        extra = _MADE_WITH.get(key, ())
        document[key] = [{field: one.get(field) for field in ("name", *extra, *fields)} for one in found]
    # What belongs to this machine alone: the password (shown as "true") and places lxpy has chosen itself.
    document["config"].pop("core.trust_password", None)
    for pool in document["storage_pools"]:
        name, source = pool["name"], str(pool["config"].get("source", ""))
        own = {"source"} if source.endswith((f"/storage-pools/{name}", f"/disks/{name}.img")) else set()
        pool["config"] = {k: v for k, v in pool["config"].items() if k not in own and not k.startswith("volatile.")}
    order = ("config", "networks", "storage_pools", "profiles", "projects")
    return {key: document[key] for key in order}


def apply(context: Context, client: Client, document: Document) -> None:
    """Make the server as `document` says: what is missing is created, what is there updated; all or nothing.

    Raises:
        ApiError: what went wrong; everything done so far has been taken back.
    """
    undo: list[Callable[[], Any]] = []
    try:
        _apply(context, client, document, undo)
    except BaseException as error:
        context.clear()
        if isinstance(error, KeyboardInterrupt):
            print("Taking back what was done", file=sys.stderr)
        stuck = []
        _signal.signal(_signal.SIGINT, _signal.SIG_IGN)  # a second Ctrl-C must not leave half of it
        for step in reversed(undo):
            try:
                step()
            except (ApiError, OSError) as other:
                stuck.append(str(other))
        if stuck and isinstance(error, ApiError):
            raise ApiError(f"{error}; and taking back what was done failed too: {'; '.join(stuck)}") from error
        raise


def _apply(context: Context, client: Client, document: Document, undo: list[Callable[[], Any]]) -> None:
    changes = {str(key): create._text(value) for key, value in (document.get("config") or {}).items()}

    def configure() -> None:
        old = client.get("/1.0").get("config") or {}
        client.put("/1.0", {"config": {**old, **changes}})
        undo.append(lambda: client.put("/1.0", {"config": old}))

    steps: list[Callable[[], None]] = [configure] if changes else []
    for key, path, fields in _KINDS:
        for given in document.get(key) or []:
            steps.append(partial(_apply_one, context, client, path, fields, given, undo))
    for step in steps:
        # Ctrl-C waits for the end of a step: half of one could not be taken back.
        if steady(step)[1]:
            raise KeyboardInterrupt


def _apply_one(
    context: Context, client: Client, path: str, fields: tuple[str, ...], given: Document, undo: list[Callable[[], Any]]
) -> None:
    name = str(given["name"])
    url = f"{path}/{quote(name)}"
    context.show(f"Setting up {path.rpartition('/')[2].removesuffix('s').replace('-', ' ')} {name}")
    wanted: Document = {field: given[field] for field in fields if given.get(field) is not None}
    for field in ("config", "devices"):
        if isinstance(wanted.get(field), dict):
            wanted[field] = _strings(wanted[field])
    try:
        there, etag = client.get_etag(url)
    except NotFound:
        kept = {field: given[field] for field in ("driver", "type") if given.get(field)}
        context.wait(client, client.post(path, {"name": name, "config": {}, **kept, **wanted}))
        undo.append(lambda: client.wait(client.delete(url)))
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
        client.wait(client.put(url, after, etag))
        undo.append(lambda: client.wait(client.put(url, before)))


def _strings(value: Any) -> Any:
    """YAML's numbers and booleans as the strings the API wants."""
    if isinstance(value, dict):
        return {str(key): _strings(inner) for key, inner in value.items()}
    return create._text(value)


_TEXT = """
Without an image: sets up the server, with questions or by one of --auto, --minimal, --preseed, --dump.
With an image: creates an instance, as lxpy create does."""

COMMANDS: dict[str, Command | dict[str, Command]] = {
    "init": Command(
        _init, "[<image> [<name>]] | [<preseed file>]", "Set up the server, or create an instance",
        (*_SETUP, *create.OPTIONS), 0, 2, text=_TEXT,
    ),
    "admin": {
        "init": Command(_init, "[<preseed file>]", "Set up the server", _SETUP, 0, 1),
    },
}  # fmt: skip

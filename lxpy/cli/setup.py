"""init: set up the server (``--auto``, ``--minimal``, ``--preseed``, ``--dump``), or create an instance."""

from __future__ import annotations

import sys

from lxpy.cli import create, render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, text_of
from lxpy.client import preseed
from lxpy.client.setup import free_bridge

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
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
    Option("--network-port", "PORT", "Port to bind to (default: 8443)"),
    Option("--storage-backend", "DRIVER", "Storage backend to use (default: overlay, btrfs with a device or loop)"),
    Option("--storage-create-device", "DEVICE", "Set up device based storage using DEVICE"),
    Option("--storage-create-loop", "GIB", "Set up loop based storage with a size of GIB"),
    Option("--storage-pool", "POOL", "Storage pool to use or create"),
    Option("--trust-password", "PASSWORD", "Password required to add new clients"),
)
_MODES = ("auto", "minimal", "preseed", "dump")
_DETAILS = ("network-address", "network-port", "storage-backend", "storage-create-device", "storage-create-loop",
            "storage-pool", "trust-password")  # fmt: skip


def _init(context: Context, args: Args) -> int | None:
    modes = [mode for mode in _MODES if args.flag(mode)]
    _check_details(args, modes)
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


def _check_details(args: Args, modes: list[str]) -> None:
    """LXD's rules of what goes with what: nothing is given and then left out."""
    given = [f"--{name}" for name in _DETAILS if args.value(name)]
    if given and not {"auto", "minimal"}.intersection(modes):
        raise UsageError(f"{given[0]} goes with --auto or --minimal only")
    for name in ("network-port", "trust-password"):
        if args.value(name) and not args.value("network-address"):
            raise UsageError(f"--{name} needs --network-address: without it the server is not on the network")
    if args.value("storage-create-device") and args.value("storage-create-loop"):
        raise UsageError("--storage-create-device and --storage-create-loop are two places for one pool: give one")
    for name in ("storage-create-device", "storage-create-loop"):
        if args.value(name) and args.value("storage-backend") not in ("", "btrfs"):
            raise UsageError(f"--{name} is for --storage-backend btrfs: the others keep pools in directories")
    if args.value("storage-create-loop") and args.number("storage-create-loop", 0) < 1:
        raise UsageError("--storage-create-loop takes a size of at least 1 GiB")
    if args.value("network-port") and not 1 <= args.number("network-port", 0) <= 65535:
        raise UsageError(f"--network-port {args.value('network-port')} is no port: 1 to 65535")


def _preseed(path: str) -> Document:
    document = render.parse_yaml(text_of(path, "the preseed"), "The preseed")
    return preseed.check(document)


def _auto(client: Client, args: Args) -> Document:
    """What --auto and --minimal make: a pool and a bridge unless there are some, and the default profile's devices."""
    document: Document = {"config": {}, "storage_pools": [], "networks": [], "profiles": []}
    if address := args.value("network-address"):
        port = args.number("network-port", 8443)
        host = f"[{address}]" if ":" in address and not address.startswith("[") else address
        document["config"]["core.https_address"] = f"{'' if host == 'all' else host}:{port}"
    if args.value("trust-password"):
        document["config"]["core.trust_password"] = args.value("trust-password")
    pools = {one["name"]: one["driver"] for one in client.get("/1.0/storage-pools", recursion="1")}
    pool = args.value("storage-pool") or (next(iter(pools)) if pools and "default" not in pools else "default")
    if pool not in pools:
        config = {}
        if args.value("storage-create-device"):
            config["source"] = args.value("storage-create-device")
        if args.value("storage-create-loop"):
            config["size"] = f"{args.number('storage-create-loop', 0)}GiB"
        driver = args.value("storage-backend") or ("btrfs" if config else "overlay")
        document["storage_pools"].append({"name": pool, "driver": driver, "config": config})
    elif args.value("storage-create-device") or args.value("storage-create-loop"):
        raise UsageError(f"The storage pool {pool} is there already: name a new one with --storage-pool")
    elif args.value("storage-backend") not in ("", pools[pool]):
        raise UsageError(
            f"The storage pool {pool} is there already, with the driver {pools[pool]}: name a new one (--storage-pool)"
        )
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
    for key, path, fields in preseed.KINDS:
        found = [one for one in client.get(path, recursion="1") if one.get("managed", True)]
        extra = preseed.MADE_WITH.get(key, ())
        document[key] = [{field: one.get(field) for field in ("name", *extra, *fields)} for one in found]
    for project in document["projects"]:
        if project["name"] == "default" or project["config"].get("features.profiles") != "true":
            continue
        for one in client.get("/1.0/profiles", recursion="1", project=project["name"]):
            shown = {field: one.get(field) for field in ("config", "description", "devices")}
            document["profiles"].append({"name": one["name"], "project": project["name"], **shown})
    # What belongs to this machine alone: the password (shown as "true") and places lxpy has chosen itself.
    document["config"].pop("core.trust_password", None)
    for pool in document["storage_pools"]:
        name, source = pool["name"], str(pool["config"].get("source", ""))
        own = {"source"} if source.endswith((f"/storage-pools/{name}", f"/disks/{name}.img")) else set()
        pool["config"] = {k: v for k, v in pool["config"].items() if k not in own and not k.startswith("volatile.")}
    order = ("config", "networks", "storage_pools", "profiles", "projects")
    return {key: document[key] for key in order}


def apply(context: Context, client: Client, document: Document, limits: bool = False) -> Document:
    """Make the server as `document` says: what is missing is created, what is there updated; all or nothing.

    Args:
        limits: raise the host's limits, too.

    Returns:
        What the operation tells: ``limits`` are the changes of them.

    Raises:
        ApiError: what went wrong; everything done so far has been taken back.
    """
    document = _plain(document)
    if "lxpy_preseed" in client.get("/1.0")["api_extensions"]:
        # The server takes it back itself, and so it does when we, or it, are killed meanwhile.
        body = {"preseed": document, "raise_limits": limits}
        return dict(context.wait(client, context.begin(client, "/1.0/preseed", body)).get("metadata") or {})
    pressed = _signal.getsignal(_signal.SIGINT)
    stop: list[int] = []
    _signal.signal(_signal.SIGINT, lambda number, frame: stop.append(number))
    try:
        preseed.Apply(client, context.show, stopped=lambda: bool(stop)).run(document)
    finally:
        _signal.signal(_signal.SIGINT, pressed)
        context.clear()
    return {}


def _plain(value: Any) -> Any:
    """YAML's dates and the like as text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


_TEXT = """
Without an image: sets up the server, with questions or by one of --auto, --minimal, --preseed, --dump.
With an image: creates an instance, as lxpy create does."""

COMMANDS: dict[str, Command | dict[str, Command]] = {
    "init": Command(
        _init, "[<image> [<name>]] | [<preseed file>]", "Set up the server, or create an instance",
        (*_SETUP, *create.OPTIONS), 0, 2, text=_TEXT,
    ),
}  # fmt: skip
ADMIN_INIT = Command(_init, "[<preseed file>]", "Set up the server", _SETUP, 0, 1)

"""copy and move."""

from __future__ import annotations

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.config import INSTANCE
from lxpy.cli.context import Context, pairs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client


def _ends(context: Context, args: Args) -> tuple[Client, str, Client, str]:
    """Server and source as ``NAME[/SNAPSHOT]``; server and name of what is to be ("": the same)."""
    client, source = context.resolve(args.rest[0])
    if not source.partition("/")[0]:
        raise UsageError(f"missing the instance's name in {args.rest[0]!r}")
    if args.value("target"):
        raise ApiError("There is no cluster: leave --target away")
    if args.value("mode") not in ("pull", "push", "relay"):
        raise UsageError(f"--mode must be pull, push or relay, not {args.value('mode')!r}")
    # As LXD has it: without a remote the target is on the default one, wherever the source is.
    target, name = context.resolve(args.at(1)) if len(args.rest) > 1 else (client, "")
    return client, source, target, name


def _overrides(client: Client, args: Args, source: str, pool: str) -> dict[str, Any]:
    """What ``-c -d -p -s --no-profiles`` ask for, as a request has it."""
    body: dict[str, Any] = {}
    if args.values("config"):
        body["config"] = pairs(args.values("config"))
    if args.values("device") or pool:
        had = client.get(INSTANCE.url(source))["expanded_devices"]
        devices: dict[str, dict[str, str]] = {}
        for word in args.values("device"):
            device, comma, rest = word.partition(",")
            if not comma:
                raise UsageError(f"Bad syntax, expecting <device>,<key>=<value>: {word!r}")
            devices.setdefault(device, dict(had.get(device, {}))).update(pairs(rest.split(","), "device option"))
        if pool:
            roots = [name for name, one in had.items() if one.get("type") == "disk" and one.get("path") == "/"]
            root = roots[0] if roots else "root"
            devices.setdefault(root, dict(had.get(root, {"type": "disk", "path": "/"})))["pool"] = pool
        body["devices"] = devices
    if args.flag("no-profiles"):
        body["profiles"] = []
    elif args.values("profile"):
        body["profiles"] = args.values("profile")
    return body


def _copy(context: Context, args: Args) -> None:
    client, source, target, name = _ends(context, args)
    if target is not client:
        return _to_another_server(context, args, client, source, target, name, move=False)
    project = args.value("target-project")
    if not name:
        if not project:
            raise UsageError("missing argument: the name of the copy")
        name = source.partition("/")[0]
    body = _overrides(client, args, source, args.value("storage")) | {
        "name": name,
        "type": "container",
        "ephemeral": args.flag("ephemeral"),
        "source": {
            "type": "copy",
            "source": source,
            "project": client.project or "default",
            "instance_only": args.flag("instance-only"),
            "refresh": args.flag("refresh"),
            "allow_inconsistent": args.flag("allow-inconsistent"),
        },
    }
    query = {"project": project} if project else {}
    done = context.wait(client, context.begin(client, "/1.0/instances", body, **query)).get("metadata") or {}
    if done.get("frozen_ms"):
        context.say(f"{source} stood still for {done['frozen_ms']:g} ms")


def _to_another_server(
    context: Context, args: Args, client: Client, source: str, target: Client, name: str, *, move: bool
) -> None:
    from lxpy.cli import relay

    overrides = _overrides(client, args, source, "")  # the pool is told by itself
    relay.instance(context, args, client, source, target, name or source, overrides, move=move)


def _move(context: Context, args: Args) -> None:
    client, source, target, name = _ends(context, args)
    if target is not client:
        return _to_another_server(context, args, client, source, target, name, move=True)
    project, pool = args.value("target-project"), args.value("storage")
    if "/" in source:
        if _overrides(client, args, source, args.value("storage")) or project:
            raise UsageError("a snapshot can only be renamed: copy it to make an instance of it")
        instance, slash, new = name.partition("/")
        if slash and instance not in ("", source.partition("/")[0]):
            raise UsageError("a snapshot stays with its instance: copy it to make an instance of it")
        context.wait(client, client.post(INSTANCE.url(source), {"name": new or name}))
        return
    body: dict[str, Any] = {"name": name or source}
    changed = _overrides(client, args, source, args.value("storage"))
    if changed or pool or project:
        body |= changed | {"migration": True, "instance_only": args.flag("instance-only")}
        body["project"] = project or client.project or "default"
        if pool:
            body["pool"] = pool
    elif not name:
        raise UsageError("missing argument: the new name")
    context.wait(client, context.begin(client, INSTANCE.url(source), body))


_OPTIONS = (
    Option("-c --config", "KEY=VALUE", "Config key/value to apply to the target instance", many=True),
    Option("-d --device", "NAME,KEY=VALUE...", "New key/value to apply to a specific device", many=True),
    Option("-p --profile", "PROFILE", "Profile to apply to the target instance", many=True),
    Option("--no-profiles", help="Take all profiles away"),
    Option("-s --storage", "POOL", "Storage pool name"),
    Option("--target-project", "NAME", "Copy or move to this project"),
    Option("--instance-only", help="Without the snapshots"),
    Option("--stateless", help="Without the memory of its processes (always so)"),
    Option("--allow-inconsistent", help="Ignore files that change meanwhile (none do: a running source is frozen)"),
    Option("--mode", "MODE", "Transfer mode between servers: pull, push or relay", "pull"),
    Option("--target", "MEMBER", "Cluster member name"),
)
COMMANDS = {
    "copy": Command(
        _copy, "[<remote>:]<source>[/<snapshot>] [[<remote>:]<destination>]", "Copy instances",
        (
            *_OPTIONS[:5],
            Option("-e --ephemeral", help="Ephemeral instance"),
            Option("--refresh", help="Bring an earlier copy up to date: only what has changed is copied"),
            *_OPTIONS[5:],
        ), 1, 2,
        text="The copy has the source's profiles, configuration, devices and snapshots, an id map and MAC addresses\n"
        "of its own. A running source stands still while its root is copied (to another pool: snapshotted).",
    ),
    "move": Command(
        _move, "[<remote>:]<instance>[/<snapshot>] [[<remote>:]<destination>]", "Move or rename instances", _OPTIONS,
        1, 2, text="To another name, to another pool (-s), to another project (--target-project): while it is stopped.",
    ),
}  # fmt: skip

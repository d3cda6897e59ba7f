"""start, stop, restart, pause, resume, delete, rename: many names at once, all requests before the first wait."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError, NotFound
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client


def _by_client(context: Context, refs: list[str]) -> list[tuple[Client, list[str]]]:
    groups: list[tuple[Client, list[str]]] = []
    for ref in refs:
        client, name = context.resolve(ref)
        if not name:
            raise UsageError(f"missing the instance's name in {ref!r}")
        for other, names in groups:
            if other is client:
                names.append(name)
                break
        else:
            groups.append((client, [name]))
    return groups


def _path(name: str) -> str:
    """The URL of an instance, or of a snapshot ``NAME/SNAPSHOT``."""
    from lxpy.client.wire import quote

    name, slash, snapshot = name.partition("/")
    return f"/1.0/instances/{quote(name)}" + (f"/snapshots/{quote(snapshot)}" if slash else "")


def _change(action: str) -> Any:
    def run(context: Context, args: Args) -> int:
        groups = _by_client(context, args.rest)
        if args.flag("all"):
            if args.rest:
                raise UsageError("Both --all and instance name given")
            client = context.client()
            skip = {"start": (103, 113), "stop": (102,), "restart": (102,)}.get(action, ())
            everyone = client.get("/1.0/instances", recursion="1")
            groups = [(client, [one["name"] for one in everyone if one["status_code"] not in skip])]
        elif not groups:
            raise UsageError("missing argument: <instance>...")
        body = {
            "action": action,
            "timeout": args.number("timeout", -1),
            "force": args.flag("force"),
            "stateful": False,
        }
        status = 0
        for client, names in groups:
            results = client.many([("PUT", f"{_path(name)}/state", body) for name in names])
            status |= context.wait_all(client, names, results, action)
        if args.flag("console") and status == 0 and action == "start" and len(args.rest) == 1:
            from lxpy.cli.run import attach

            return attach(context, *context.resolve(args.rest[0]))
        return status

    return run


def _delete(context: Context, args: Args) -> int:
    if args.flag("interactive"):
        for ref in args.rest:
            sys.stdout.write(f"Remove {ref} (yes/no): ")
            sys.stdout.flush()
            if sys.stdin.readline().strip().lower() not in ("yes", "y"):
                raise ApiError("User aborted delete operation")
    status = 0
    force = args.flag("force")
    for client, names in _by_client(context, args.rest):
        suffix = "?force=true" if force else ""
        requests: list[tuple[str, str, Any]] = []
        for name in names:
            requests.append(("DELETE", _path(name) + ("" if "/" in name else suffix), None))
        results = client.many(requests)
        if force:  # an ephemeral one may be gone by itself meanwhile
            results = [
                {} if isinstance(result, NotFound) and len(names) > 1 and names.count(name) > 1 else result
                for name, result in zip(names, results, strict=True)
            ]
        status |= context.wait_all(client, names, results, "delete")
    return status


def _rename(context: Context, args: Args) -> int:
    client, name = context.resolve(args.rest[0])
    new = args.rest[1]
    remote, colon, rest = new.partition(":")
    if colon:
        if context.client(remote) is not client:
            raise UsageError("Can't specify a different remote for rename")
        new = rest
    if "/" in name:
        instance, slash, snapshot = new.partition("/")
        if slash and instance not in ("", name.partition("/")[0]):
            raise UsageError("a snapshot stays with its instance: copy it to make an instance of it")
        new = snapshot or new
    context.wait(client, client.post(_path(name), {"name": new}))
    return 0


_ALL = Option("--all", help="Run against all instances")
_FORCE = Option("-f --force", help="Force the instance to stop")
_TIMEOUT = Option("--timeout", "SECONDS", "Time to wait for the instance to shut down cleanly", "-1")
_MANY = "[<remote>:]<instance> [[<remote>:]<instance>...]"

COMMANDS = {
    "start": Command(
        _change("start"), _MANY, "Start instances",
        (_ALL, Option("--console", help="Immediately attach to the console")), 0, None,
    ),
    "stop": Command(_change("stop"), _MANY, "Stop instances", (_ALL, _FORCE, _TIMEOUT), 0, None),
    "restart": Command(_change("restart"), _MANY, "Restart instances", (_ALL, _FORCE, _TIMEOUT), 0, None),
    "pause": Command(_change("freeze"), _MANY, "Pause instances", (_ALL,), 0, None),
    "resume": Command(_change("unfreeze"), _MANY, "Resume paused instances", (_ALL,), 0, None),
    "delete": Command(
        _delete, _MANY.replace("<instance>", "<instance>[/<snapshot>]"), "Delete instances and snapshots",
        (
            Option("-f --force", help="Force the removal of running instances"),
            Option("-i --interactive", help="Require user confirmation"),
        ), 1, None,
    ),
    "rename": Command(
        _rename, "[<remote>:]<instance>[/<snapshot>] <new name>", "Rename instances and snapshots", (), 2, 2
    ),
}  # fmt: skip

"""snapshot and restore."""

from __future__ import annotations

from lxpy.api.errors import NotFound
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.config import INSTANCE
from lxpy.cli.context import Context
from lxpy.cli.objects import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NEVER = "0001-01-01T00:00:00Z"


def _snapshot(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    if "/" in name:
        raise UsageError(f"{name} is a snapshot: write <instance> <snapshot>")
    place = f"{INSTANCE.url(name)}/snapshots"
    body: dict[str, Any] = {"name": args.at(1), "stateful": args.flag("stateful")}
    if args.flag("no-expiry"):
        body["expires_at"] = _NEVER
    if args.flag("reuse") and body["name"]:
        try:
            context.wait(client, client.delete(f"{place}/{quote(body['name'])}"))
        except NotFound:
            pass
    done = context.wait(client, context.begin(client, place, body)).get("metadata") or {}
    made = done.get("name") or body["name"]
    stood = f", {name} stood still for {done['frozen_ms']:g} ms" if done.get("frozen_ms") else ""
    context.say(f"Snapshot {name}/{made} taken{stood}" if made else f"Snapshot of {name} taken")


def _restore(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    snapshot = args.at(1)
    if not snapshot:
        name, _, snapshot = name.partition("/")
    if not snapshot or "/" in name:
        raise UsageError("missing argument: <snapshot>")
    body = {"restore": f"{name}/{snapshot.rpartition('/')[2]}", "stateful": args.flag("stateful")}
    context.wait(client, client.put(INSTANCE.url(name), body))


COMMANDS = {
    "snapshot": Command(
        _snapshot, "[<remote>:]<instance> [<snapshot>]", "Create a snapshot of an instance",
        (
            Option("--no-expiry", help="Ignore snapshots.expiry: keep it for ever"),
            Option("--reuse", help="Replace a snapshot of that name"),
            Option("--stateful", help="With the memory of its processes (not possible)"),
        ), 1, 2,
        text="A running instance stands still while its root is copied, and is told for how long.\n"
        "Without a name it gets the next one by snapshots.pattern (snap0, snap1 ...).",
    ),
    "restore": Command(
        _restore, "[<remote>:]<instance> <snapshot>", "Restore an instance from a snapshot",
        (Option("--stateful", help="With the memory of its processes (not possible)"),), 1, 2,
        text="Root and configuration become what they were. A running instance is ended first and started again.",
    ),
}  # fmt: skip

"""warning: what the server wants its administrator to know."""

from __future__ import annotations

import sys

from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.cli.objects import FORMAT, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "c": ("COUNT", lambda one: str(one["count"])),
    "f": ("FIRST SEEN", lambda one: render.date(one["first_seen_at"])),
    "l": ("LAST SEEN", lambda one: render.date(one["last_seen_at"])),
    "L": ("LOCATION", lambda one: str(one["location"])),
    "m": ("MESSAGE", lambda one: str(one["last_message"])),
    "p": ("PROJECT", lambda one: str(one["project"])),
    "s": ("SEVERITY", lambda one: str(one["severity"]).upper()),
    "S": ("STATUS", lambda one: str(one["status"]).upper()),
    "t": ("TYPE", lambda one: str(one["type"])),
    "u": ("UUID", lambda one: str(one["uuid"])),
}
_SEVERITIES = ("high", "moderate", "low")


def _list(context: Context, args: Args) -> None:
    letters = args.value("columns").replace(",", "")
    for letter in letters:
        if letter not in _COLUMNS:
            raise UsageError(f"Unknown column {letter!r}: choose from {''.join(sorted(_COLUMNS))}")
    client, _ = context.resolve(args.at(0) or ":")
    found = client.get("/1.0/warnings", recursion="1") or []
    if not args.flag("all"):
        found = [one for one in found if one["status"] == "new"]
    found.sort(key=lambda one: (_SEVERITIES.index(one["severity"]), str(one["last_seen_at"])))
    rows = [[_COLUMNS[letter][1](one) for letter in letters] for one in found]
    header = [_COLUMNS[letter][0] for letter in letters]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _show(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    sys.stdout.write(render.yaml(client.get(f"/1.0/warnings/{quote(name)}")))


def _acknowledge(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, name = context.resolve(ref)
        client.patch(f"/1.0/warnings/{quote(name)}", {"status": "acknowledged"})


def _delete(context: Context, args: Args) -> None:
    refs = list(args.rest)
    if args.flag("all"):
        if any(not ref.endswith(":") for ref in refs):
            raise UsageError("--all takes no <uuid>")
        for ref in refs or [":"]:
            client, _ = context.resolve(ref)
            for one in client.get("/1.0/warnings", recursion="1") or []:
                client.delete(f"/1.0/warnings/{quote(one['uuid'])}")
        return
    if not refs:
        raise UsageError("missing argument: <uuid>, or --all")
    for ref in refs:
        client, name = context.resolve(ref)
        client.delete(f"/1.0/warnings/{quote(name)}")


COMMANDS: dict[str, dict[str, Command]] = {
    "warning": {
        "acknowledge": Command(
            _acknowledge, "[<remote>:]<uuid>...", "Acknowledge warnings: they are known, and no longer listed", (),
            1, None,
        ),
        "delete": Command(
            _delete, "[<remote>:][<uuid>...]", "Delete warnings", (Option("-a --all", help="All of them"),), 0, None,
        ),
        "list": Command(
            _list, "[<remote>:]", "List warnings",
            (
                FORMAT, Option("-a --all", help="Acknowledged and resolved ones too"),
                Option("-c --columns", "COLUMNS", "Columns", "utSscpLl"),
            ), 0, 1,
            text="Columns: u UUID, t type, S status, s severity, c count, p project, L location, l last seen,\n"
            "f first seen, m message. A warning that is over resolves itself and goes a day later.",
        ),
        "show": Command(_show, "[<remote>:]<uuid>", "Show a warning", (), 1, 1),
    },
}  # fmt: skip

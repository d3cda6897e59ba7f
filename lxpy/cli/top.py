"""top: what all running instances use, live."""

from __future__ import annotations

import sys

from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.cli.topcolumns import COLUMNS, ordered, rows_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Row = dict[str, Any]


class _Source:
    """Readings of one server, each with the one before it."""

    def __init__(self, context: Context, args: Args) -> None:
        self._client, _ = context.resolve(args.at(0) or ":")
        self._query = {"all-projects": "true"} if args.flag("all-projects") else {}
        self._before: dict[str, Any] | None = None
        self.now: dict[str, Any] = {}

    def read(self) -> list[Row]:
        from lxpy.api.errors import ApiError, NotFound

        try:
            self.now = self._client.get("/1.0/usage", **self._query)
        except NotFound:
            raise ApiError("The server does not tell what instances use (extension lxpy_usage)") from None
        rows = rows_of(self._before, self.now)
        self._before = self.now
        return rows


def _top(context: Context, args: Args) -> None:
    name = args.at(0)
    if name and not name.endswith(":"):
        raise UsageError(f"top takes a remote such as {name}:, not an instance; lxpy info {name} shows one")
    column = args.value("sort")
    reverse, column = column.startswith("-"), column.lstrip("-")
    if column not in COLUMNS:
        raise UsageError(f"unknown column {column!r} for --sort: {', '.join(COLUMNS)}")
    try:
        delay = float(args.value("delay"))
    except ValueError:
        delay = 0.0
    if not 0.1 <= delay <= 3600:
        raise UsageError(f"--delay takes seconds, 0.1 to 3600, not {args.value('delay')!r}")
    rounds, fmt = args.number("iterations", 0), args.value("format")
    if rounds < 0:
        raise UsageError("--iterations takes a number, 1 or more")
    source, columns = _Source(context, args), [one for one in COLUMNS if one != "project" or args.flag("all-projects")]
    if sys.stdout.isatty() and sys.stdin.isatty() and not fmt and not rounds:
        from lxpy.cli import topscreen

        topscreen.run(source.read, lambda: source.now, columns, column, reverse, delay)
        return
    if fmt not in ("", "table", "csv", "json", "compact"):
        raise UsageError(f"unknown format {fmt!r}: table, csv, compact or json")
    import time

    source.read()
    for number in range(rounds or 1):
        time.sleep(delay)
        rows = ordered(source.read(), column, reverse)
        if fmt == "json":
            sys.stdout.write(render.json(rows) + "\n")
        else:
            if number and fmt in ("", "table", "compact"):
                sys.stdout.write("\n")
            heading = [COLUMNS[one][0] for one in columns]
            cells = [[COLUMNS[one][1](row) for one in columns] for row in rows]
            sys.stdout.write(render.show(fmt or "table", heading, cells, rows))
        sys.stdout.flush()


COMMANDS = {
    "top": Command(
        _top, "[<remote>:]", "Show what running instances use, live",
        (
            Option("--sort", "COLUMN", f"Sort by {', '.join(COLUMNS)}; with a dash in front, backwards", default="cpu"),
            Option("-d --delay", "SECONDS", "Time between two readings", default="2"),
            Option("-n --iterations", "NUMBER", "Print so many times and end (1 where there is no terminal)"),
            Option("-f --format", "FORMAT", "Print as table, csv, compact or json"),
            Option("--all-projects", help="Instances of all projects"),
        ), 0, 1,
        text="On a terminal it fills the screen: the letter of a column sorts by it (again: backwards), q ends.",
    )
}  # fmt: skip

"""top: what all running instances use, live."""

from __future__ import annotations

import sys

from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Row = dict[str, Any]

_COUNTERS = ("cpu_ns", "disk_read", "disk_written", "network_received", "network_sent")
_NANO = 1_000_000_000


def _bytes(count: float) -> str:
    """Short, for columns: ``12.3M``."""
    for unit in ("", "K", "M", "G", "T"):
        if count < 1000:
            return f"{count:.0f}{unit}" if not unit or count >= 100 else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.0f}P"


def _limited(use: str, limit: str) -> Callable[[Row], str]:
    def cell(row: Row) -> str:
        if row[use] < 0:
            return "-"
        shown = _bytes if use == "memory" else str
        return f"{shown(row[use])}/{shown(row[limit])}" if row[limit] else shown(row[use])

    return cell


def _rate(key: str) -> Callable[[Row], str]:
    return lambda row: _bytes(row[key]) if row[key] >= 0 else "-"


# Column: heading, cell, what it is sorted by (numbers downwards), the key that sorts by it on the screen.
COLUMNS: dict[str, tuple[str, Callable[[Row], str], Callable[[Row], Any], str]] = {
    "name": ("NAME", lambda row: row["name"], lambda row: row["name"], "n"),
    "project": ("PROJECT", lambda row: row["project"], lambda row: row["project"], "j"),
    "state": ("STATE", lambda row: row["state"].upper(), lambda row: row["state"], "s"),
    "cpu": ("CPU%", lambda row: f"{row['cpu']:.1f}", lambda row: -row["cpu"], "c"),
    "time": ("TIME", lambda row: _time(row["cpu_seconds"]), lambda row: -row["cpu_seconds"], "t"),
    "memory": ("MEMORY", _limited("memory", "memory_limit"), lambda row: -row["memory"], "m"),
    "swap": ("SWAP", _rate("swap"), lambda row: -row["swap"], "w"),
    "read": ("READ/s", _rate("disk_read"), lambda row: -row["disk_read"], "r"),
    "write": ("WRITE/s", _rate("disk_written"), lambda row: -row["disk_written"], "d"),
    "in": ("IN/s", _rate("network_received"), lambda row: -row["network_received"], "i"),
    "out": ("OUT/s", _rate("network_sent"), lambda row: -row["network_sent"], "o"),
    "processes": ("PROCESSES", _limited("processes", "processes_limit"), lambda row: -row["processes"], "p"),
}
_TEXTS = ("name", "project", "state")


def _time(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def rows_of(before: dict[str, Any] | None, now: dict[str, Any]) -> list[Row]:
    """Rows from two readings of ``/1.0/usage``: rates are bytes a second, ``cpu`` percent of one CPU."""
    old = {(one["project"], one["name"], one["pid"]): one for one in (before or {}).get("instances", [])}
    seconds = (now["at"] - before["at"]) / _NANO if before else 0.0
    rows = []
    for one in now["instances"]:
        then = old.get((one["project"], one["name"], one["pid"]))
        row = {
            key: one[key] for key in ("name", "project", "pid", "cpus", "memory", "memory_limit", "swap",
                                      "processes", "processes_limit")
        }  # fmt: skip
        row["state"], row["cpu_seconds"] = one["status"], round(max(0, one["cpu_ns"]) / _NANO, 2)
        for key in _COUNTERS:
            grown = max(0, one[key] - then[key]) if then and one[key] >= 0 else 0
            rate = grown / seconds if seconds > 0 else 0.0
            if key == "cpu_ns":
                row["cpu"] = round(rate / _NANO * 100, 1)
            else:
                row[key] = round(rate) if one[key] >= 0 else -1
        rows.append(row)
    return rows


def ordered(rows: list[Row], column: str, reverse: bool) -> list[Row]:
    """By a column, the largest first (names: A first); equals by name."""
    key = COLUMNS[column][2]
    rows = sorted(rows, key=lambda row: (row["name"], row["project"]))
    return sorted(rows, key=key, reverse=reverse)


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

"""The columns of ``lxpy top``: rows from two readings, their cells and their order."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Row = dict[str, Any]

_COUNTERS = ("cpu_ns", "disk_read", "disk_written", "network_received", "network_sent")
_NANO = 1_000_000_000


def amount(count: float) -> str:
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
        shown = amount if use == "memory" else str
        return f"{shown(row[use])}/{shown(row[limit])}" if row[limit] else shown(row[use])

    return cell


def _rate(key: str) -> Callable[[Row], str]:
    return lambda row: amount(row[key]) if row[key] >= 0 else "-"


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
TEXTS = ("name", "project", "state")


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

"""Pane 1: the instances."""

from collections.abc import Callable
from typing import Any

from textual.binding import Binding

from lxpy.tui.panes.base import ListPane
from lxpy.tui.rows import BUSY, STATES, InstanceRow, age, size
from lxpy.tui.widgets.table import Column, Part

_PROGRESSIVE = {
    "start": "Starting", "stop": "Stopping", "restart": "Restarting", "freez": "Pausing", "unfreez": "Resuming",
    "delet": "Deleting", "creat": "Creating", "renam": "Renaming", "shut": "Stopping",
}  # fmt: skip


def _state(busy: Callable[[], dict[str, str]]) -> Callable[[InstanceRow, int], tuple[Part, ...]]:
    def cells(row: InstanceRow, room: int) -> tuple[Part, ...]:
        doing = busy().get(row.name)
        if doing is not None:
            glyph, tone = BUSY
            low = doing.lower()
            text = next((t for stem, t in reversed(_PROGRESSIVE.items()) if low.startswith(stem)), row.status)
        else:
            glyph, tone = STATES.get(row.status, BUSY)
            text = row.status
        return ((f"{glyph} ", tone), (text, tone))

    return cells


def _memory(row: InstanceRow, room: int) -> tuple[Part, ...]:
    if not row.running or not row.memory:
        return (("–", "dim"),)
    text = size(row.memory)
    if not row.memory_limit or room < 12:
        return ((text, ""),)
    share = min(1.0, row.memory / row.memory_limit)
    filled = round(share * 5)
    tone = "ok" if share < 0.7 else "warn" if share < 0.9 else "bad"
    return (("━" * filled, tone), ("━" * (5 - filled), "dim"), (f" {text:>6}", ""))


def _cpu(row: InstanceRow, room: int) -> tuple[Part, ...]:
    if not row.running or row.cpu < 0:
        return (("–", "dim"),)
    tone = "dim" if row.cpu < 1 else "" if row.cpu < 60 else "warn" if row.cpu < 95 else "bad"
    return ((f"{row.cpu:.0f}%" if row.cpu >= 10 else f"{row.cpu:.1f}%", tone),)


def _snapshots(row: InstanceRow, room: int) -> tuple[Part, ...]:
    return ((str(row.snapshots), ""),) if row.snapshots else (("–", "dim"),)


class InstancesPane(ListPane):
    """The instances, with their verbs."""

    number = 1
    kind = "instances"
    short = "Insts"
    MARKABLE = True
    BINDINGS = [
        Binding("n", "app.launch", "New", id="instance.launch"),
        Binding("s", "app.verb('shell')", "Shell", id="instance.shell"),
        Binding("S", "app.verb('fullshell')", "Full-screen shell", show=False, id="instance.full-shell"),
        Binding("K", "app.verb('console')", "Console", show=False, id="instance.console"),
        Binding("l", "app.verb('log')", "Log", id="instance.log"),
        Binding("d", "app.describe", "Describe", show=False, id="instance.describe"),
        Binding("u", "app.verb('start')", "Start", id="instance.start"),
        Binding("x", "app.verb('stop')", "Stop", id="instance.stop"),
        Binding("ctrl+x", "app.verb('kill')", "Force-stop", show=False, id="instance.force-stop"),
        Binding("r", "app.verb('restart')", "Restart", id="instance.restart"),
        Binding("p", "app.verb('pause')", "Pause/resume", show=False, id="instance.pause"),
        Binding("ctrl+d", "app.verb('delete')", "Delete", key_display="^d", id="instance.delete"),
        Binding("e", "app.verb('edit')", "Edit", show=False, id="instance.edit"),
        Binding("a", "app.verb('snapshot')", "Snapshot", show=False, id="instance.snapshot"),
        Binding("z", "app.verb('restore')", "Restore a snapshot", show=False, id="instance.restore"),
        Binding("c", "app.verb('copy-instance')", "Copy", show=False, id="instance.copy-instance"),
        Binding("R", "app.verb('rename')", "Rename", show=False, id="instance.rename"),
        Binding("m", "app.verb('move')", "Move to a pool or project", show=False, id="instance.move"),
        Binding("B", "app.verb('rebuild')", "Rebuild from an image", show=False, id="instance.rebuild"),
        Binding("equals_sign", "app.verb('configure')", "Set a key", show=False, key_display="=", id="instance.set"),
        Binding("F", "app.verb('profiles')", "Profiles", show=False, id="instance.profiles"),
        Binding(
            "exclamation_mark",
            "app.verb('execute')",
            "Run a command",
            show=False,
            key_display="!",
            id="instance.execute",
        ),
        Binding("greater_than_sign", "app.verb('push')", "Push files", show=False, key_display=">", id="instance.push"),
        Binding("less_than_sign", "app.verb('pull')", "Get files", show=False, key_display="<", id="instance.pull"),
        Binding("P", "app.verb('publish')", "Publish as an image", show=False, id="instance.publish"),
        Binding("E", "app.verb('export')", "Export", show=False, id="instance.export"),
        Binding("y", "app.copy", "Copy to the clipboard", show=False, id="instance.copy"),
        Binding("space", "mark", "Mark", show=False, id="instance.mark"),
        Binding("asterisk", "mark_all", "Mark all shown", show=False, key_display="*", id="instance.mark-all"),
        Binding("ctrl+@", "mark_range", "Mark up to here", show=False, key_display="^space", id="instance.mark-range"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="instance.unmark"),
        Binding("v", "columns", "Choose columns", show=False, id="instance.columns"),
        Binding("N", "sort_by('name')", "Sort by name", show=False, id="instance.sort-name"),
        Binding("T", "sort_by('state')", "Sort by state", show=False, id="instance.sort-state"),
        Binding("I", "sort_by('image')", "Sort by image", show=False, id="instance.sort-image"),
        Binding("M", "sort_by('memory')", "Sort by memory", show=False, id="instance.sort-memory"),
        Binding("C", "sort_by('cpu')", "Sort by CPU", show=False, id="instance.sort-cpu"),
        Binding("A", "sort_by('age')", "Sort by age", show=False, id="instance.sort-age"),
    ]

    def __init__(self, busy: Callable[[], dict[str, str]], **kwargs: Any) -> None:
        columns = [
            Column("name", "NAME", lambda r, w: ((r.name, "strong"),), lambda r: r.name, 8, 32, 2),
            Column("state", "STATE", _state(busy), lambda r: (r.status != "Running", r.status), 10, 12),
            Column("ipv4", "IPV4", lambda r, w: _text(r.ipv4), lambda r: _ip(r.ipv4), 13, 15, 0, 1),
            Column("ipv6", "IPV6", lambda r, w: _text(r.ipv6, "dim"), lambda r: r.ipv6, 14, 39, 0, 6),
            Column("type", "TYPE", lambda r, w: _text(r.type, "dim"), lambda r: r.type, 9, 9, 0, 7),
            Column("image", "IMAGE", lambda r, w: _text(r.image), lambda r: r.image, 14, 24, 1, 3),
            Column("cpu", "CPU", _cpu, lambda r: -r.cpu, 5, 6, 0, 2, True),
            Column("memory", "MEMORY", _memory, lambda r: -r.memory, 8, 12, 0, 2, True),
            Column("snapshots", "SNAPS", _snapshots, lambda r: -r.snapshots, 5, 5, 0, 5, True),
            Column("age", "AGE", lambda r, w: _text(age(r.created), "dim"), lambda r: -r.created, 5, 5, 0, 4, True),
        ]
        self.bare = False  # whether this server was never set up
        super().__init__(columns, **kwargs)

    def action_columns(self) -> None:
        """Asks which columns are shown."""
        from lxpy.tui.screens.form import Answers, Form, Question

        shown = {column.key for column in self.columns}

        async def submit(answers: Answers) -> None:
            self.choose_columns([column.key for column in self.all_columns if answers[column.key]])

        questions = [
            Question(c.key, c.title, value="yes" if c.key in shown else "", flag=True) for c in self.all_columns
        ]
        note = "For as long as the app is open; for good in the settings (,)."
        self.app.push_screen(Form("Columns", questions, submit, verb="Show", note=note))

    def action_sort_by(self, key: str) -> None:
        self.sort_by(key)

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        if self.bare:
            return [
                (("This server is not set up yet", "strong"),),
                (("Press ", "dim"), ("n", "accent"), (" for the questions", "dim")),
                (("or run  ", "dim"), ("lxpy init", "info")),
            ]
        return [
            (("No instances yet", "strong"),),
            (("Press ", "dim"), ("n", "accent"), (" to launch one", "dim")),
            (("or run  ", "dim"), ("lxpy launch builtin:busybox first", "info")),
        ]


def _text(value: str, tone: str = "") -> tuple[Part, ...]:
    return ((value, tone),) if value else (("–", "dim"),)


def _ip(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split(".") if part.isdigit()) or (999,)

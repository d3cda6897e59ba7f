"""Pane 8: the daemon's warnings."""

from typing import Any

from textual.binding import Binding
from textual.content import Content

from lxpy.tui.objects import WarningRow
from lxpy.tui.panes.base import ListPane
from lxpy.tui.rows import age
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.table import Column, Part

_TONES = {"high": "bad", "moderate": "warn", "low": "dim"}


class WarningsPane(ListPane):
    """What somebody should look at."""

    number = 8
    kind = "warnings"
    short = "Warn"
    MARKABLE = True
    BINDINGS = [
        Binding("a", "app.verb('acknowledge')", "Acknowledge", id="warning.acknowledge"),
        Binding("ctrl+d", "app.verb('delete-object')", "Delete", key_display="^d", id="warning.delete"),
        Binding("y", "app.copy", "Copy to the clipboard", show=False, id="warning.copy"),
        Binding("space", "mark", "Mark", show=False, id="warning.mark"),
        Binding("asterisk", "mark_all", "Mark all shown", show=False, key_display="*", id="warning.mark-all"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        def severity(row: WarningRow, _: int) -> tuple[Part, ...]:
            return ((row.severity, _TONES.get(row.severity, "dim") if row.status == "new" else "dim"),)

        def message(row: WarningRow, _: int) -> tuple[Part, ...]:
            return ((row.message, "strong" if row.status == "new" else "dim"),)

        columns = [
            Column("severity", "SEVERITY", severity, lambda r: (r.status != "new", r.severity), 8, 9),
            Column("message", "WHAT", message, None, 20, 90, 1),
            Column("status", "STATUS", lambda r, w: ((r.status, "dim"),), lambda r: r.status, 8, 12, 0, 3),
            Column("count", "TIMES", lambda r, w: ((str(r.count), "dim"),), lambda r: -r.count, 5, 5, 0, 4, True),
            Column("seen", "SEEN", lambda r, w: ((age(r.seen), "dim"),), lambda r: -r.seen, 5, 5, 0, 2, True),
        ]  # fmt: skip
        super().__init__(columns, **kwargs)

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        return [(("All is well: no warnings", "ok"),)]

    def facts(self, row: WarningRow) -> Content:
        facts = Facts()
        facts.text(row.message, "bold")
        facts.title("About it")
        facts.line("Severity", row.severity)
        facts.line("Status", row.status)
        facts.line("Kind", row.name)
        facts.line("Of", row.subject)
        facts.line("Seen", f"{row.count} times, last {age(row.seen)} ago")
        return facts.content()

"""Pane 7: what is being done, and what has been."""

from collections.abc import Mapping
from typing import Any

from textual.binding import Binding
from textual.content import Content

from lxpy.api.status import CANCELLED, CANCELLING, FINAL, SUCCESS
from lxpy.tui.panes.base import ListPane
from lxpy.tui.rows import age, epoch
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.bars import describe, progress
from lxpy.tui.widgets.table import Column, Part


class OperationRow:
    """An operation as a table row."""

    __slots__ = ("created", "description", "key", "kind", "name", "raw")

    def __init__(self, raw: dict[str, Any], about: Mapping[str, str] = {}) -> None:
        self.raw, self.kind = raw, "operations"
        self.key: str = raw["id"]
        self.name = describe(raw, about)
        self.description = raw.get("err") or progress(raw)
        self.created = epoch(raw.get("created_at", ""))

    @property
    def ended(self) -> bool:
        return self.raw["status_code"] in FINAL

    @property
    def state(self) -> Part:
        code = self.raw["status_code"]
        if code == SUCCESS:
            return ("✔ done", "ok")
        if code == CANCELLED:
            return ("○ cancelled", "dim")
        if code == CANCELLING:
            return ("◌ cancelling", "warn")
        return ("✖ failed", "bad") if code in FINAL else ("◌ running", "warn")


class OperationsPane(ListPane):
    """The newest first; errors stay readable in the detail."""

    number = 7
    kind = "operations"
    short = "Ops"
    MARKABLE = True
    BINDINGS = [
        Binding("ctrl+d", "app.verb('cancel')", "Cancel it", key_display="^d", id="operation.cancel"),
        Binding("y", "app.copy", "Copy to the clipboard", show=False, id="operation.copy"),
        Binding("space", "mark", "Mark", show=False, id="operation.mark"),
        Binding("asterisk", "mark_all", "Mark all shown", show=False, key_display="*", id="operation.mark-all"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="operation.unmark"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        columns = [
            Column("what", "WHAT", lambda r, w: ((r.name, "strong"),), None, 20, 60, 1),
            Column("state", "STATE", lambda r, w: (r.state,), None, 12, 12),
            Column("note", "", lambda r, w: ((r.description, "dim"),), None, 0, 40, 1, 3),
            Column("age", "AGE", lambda r, w: ((age(r.created), "dim"),), lambda r: -r.created, 5, 5, 0, 2, True),
        ]
        super().__init__(columns, **kwargs)
        self.sort_key = ""  # as they came, the newest first

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        return [(("Nothing has been done since the app was opened", "dim"),)]

    def facts(self, row: OperationRow) -> Content:
        text, tone = row.state
        facts = Facts()
        facts.line("State", text, {"ok": "$success", "bad": "$error", "warn": "$warning"}.get(tone, ""))
        facts.line("Begun", f"{age(row.created)} ago" if row.created else "")
        facts.line("Id", row.key)
        if error := row.raw.get("err"):
            facts.title("Why")
            facts.text(str(error), "$error")
        elif note := progress(row.raw):
            facts.line("Progress", note)
        resources = dict(row.raw.get("resources") or {})
        if "instances" in resources:
            resources.pop("containers", None)  # LXD's older word for the same
        for kind, sources in resources.items():
            facts.line(kind.capitalize(), ", ".join(s.partition("?")[0].rsplit("/", 1)[-1] for s in sources or []))
        return facts.content()

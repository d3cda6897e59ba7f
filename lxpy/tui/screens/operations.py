"""Running and ended operations, with their errors to read in peace."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.api.status import CANCELLED, FINAL, SUCCESS
from lxpy.tui.model import Model
from lxpy.tui.rows import age, epoch
from lxpy.tui.widgets.bars import describe, progress
from lxpy.tui.widgets.table import Column, Part, Table


class OperationRow:
    """An operation as a table row."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.key: str = raw["id"]


def _state(row: OperationRow, _: int) -> tuple[Part, ...]:
    code = row.raw["status_code"]
    if code == SUCCESS:
        return (("✔ done", "ok"),)
    if code == CANCELLED:
        return (("○ cancelled", "dim"),)
    return (("✖ failed", "bad"),) if code in FINAL else (("◌ running", "warn"),)


def _age(row: OperationRow, _: int) -> tuple[Part, ...]:
    return ((age(epoch(row.raw.get("created_at", ""))), "dim"),)


class OperationsScreen(ModalScreen[None]):
    """The list; below it the whole text of the selected one."""

    BINDINGS = [
        Binding("escape,q,o", "dismiss", "Close", id="operations.close"),
        Binding("ctrl+d", "cancel", "Cancel it", key_display="^d", id="operations.cancel"),
    ]

    def __init__(self, model: Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def compose(self) -> ComposeResult:
        table = Table(
            [
                Column("what", "WHAT", lambda r, w: ((describe(r.raw), "strong"),), None, 20, 60, 1),
                Column("state", "STATE", _state, None, 11, 12),
                Column("note", "", lambda r, w: ((r.raw.get("err") or progress(r.raw), "dim"),), None, 0, 40, 1, 3),
                Column("age", "AGE", _age, None, 5, 5, 0, 2),
            ],
            id="operations-table",
        )  # fmt: skip
        table.empty = [(("Nothing has been done since the app was opened", "dim"),)]
        with Vertical(classes="dialog", id="operations") as box:
            box.border_title = "Operations"
            box.border_subtitle = "^d cancels  ·  esc closes"
            yield table
            yield Static(id="operations-text", markup=False)

    def on_mount(self) -> None:
        self.query_one(Table).focus()
        self.work_changed()

    def work_changed(self) -> None:
        """The model's operations changed."""
        self.query_one(Table).show([OperationRow(o) for o in reversed(self.model.operations.values())])

    def on_table_highlighted(self) -> None:
        row = self.query_one(Table).current
        text = (row.raw.get("err") or progress(row.raw) or row.raw.get("status", "")) if row else ""
        self.query_one("#operations-text", Static).update(text)

    def action_cancel(self) -> None:
        row = self.query_one(Table).current
        if row is None or row.raw["status_code"] in FINAL:
            return

        async def work() -> None:
            try:
                await self.model.gateway.call(lambda c: c.delete(f"/1.0/operations/{row.key}"))
            except Exception as error:
                self.app.fail("Cannot cancel it", error)  # type: ignore[attr-defined]

        self.app.run_worker(work(), group="verbs", exit_on_error=False)

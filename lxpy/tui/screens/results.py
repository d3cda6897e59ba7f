"""The results of work on many objects: a line each, while it goes on and afterwards."""

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import ModalScreen
from textual.widgets import Button, Static

from lxpy.tui.bulk import DONE, FAILED, LEFT, RUNNING, SKIPPED, WAITING, Batch, Item
from lxpy.tui.widgets.table import Column, Part, Table

_LOOKS: dict[str, tuple[str, str]] = {
    WAITING: ("·", "dim"), RUNNING: ("◌", "warn"), DONE: ("✔", "ok"), FAILED: ("✖", "bad"), SKIPPED: ("–", "dim"),
    LEFT: ("○", "dim"),
}  # fmt: skip


class ResultsTable(Table):
    """One line an object, in the order in which they were given."""

    def __init__(self, **kwargs: Any) -> None:
        def state(item: Item, _: int) -> tuple[Part, ...]:
            glyph, tone = _LOOKS[item.state]
            return ((f"{glyph} {item.state}", tone),)

        def result(item: Item, _: int) -> tuple[Part, ...]:
            return ((" ".join(item.text.split()), "bad" if item.state == FAILED else "dim"),)

        super().__init__(
            [
                Column("name", "NAME", lambda i, w: ((i.name, "strong"),), None, 8, 30),
                Column("state", "STATE", state, None, 10, 10),
                Column("result", "RESULT", result, None, 10, 200, 1),
            ],
            **kwargs,
        )


class ResultsScreen(ModalScreen[None]):
    """Closing it leaves the work as it is; `again` starts the batch once more."""

    BINDINGS = [
        Binding("escape,q", "dismiss", "Close", id="results.close"),
        Binding("c", "stop", "Stop the rest", id="results.stop"),
        Binding("r", "again", "Try the failed again", id="results.again"),
        Binding("y", "copy", "Copy all results", show=False, id="results.copy"),
    ]

    def __init__(self, batch: Batch, again: Callable[[Batch], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.work, self._again = batch, again
        # Held, not looked up: the last results may come while the screen is being taken down.
        self.table = ResultsTable(id="results-table")
        self.box, self.text = Vertical(classes="dialog", id="results"), Static(id="results-text", markup=False)
        self.rest = Button("Stop the rest", id="stop", compact=True)
        self.retry = Button("Try the failed again", id="again", compact=True)
        self._seen_end = self._drawn = False

    def compose(self) -> ComposeResult:
        with self.box:
            self.box.border_title = self.work.title.replace("[", "\\[")
            yield self.table
            yield self.text
            with Horizontal(classes="buttons"):
                yield self.rest
                yield self.retry
                yield Button("Close", id="close", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.table.styles.height = len(self.work.items) + 1
        self.table.focus()
        self._drawn = True
        self.update()

    def update(self) -> None:
        """Draws what there is now."""
        if not self._drawn or not self.is_attached:
            return
        batch = self.work
        self.table.show(batch.items)
        if batch.ended and not self._seen_end:  # what went wrong is what matters then
            bad = next((n for n, item in enumerate(self.table.rows) if item.state == FAILED), -1)
            if bad >= 0:
                self.table.action_to(bad)
        self._seen_end = batch.ended
        keys = ["esc closes, it goes on" if not batch.ended else "esc closes"]
        keys += ["c stops the rest"] if not batch.ended else []
        keys += ["r tries again"] if batch.ended and batch.count(FAILED, LEFT) else []
        self.box.border_subtitle = "  ·  ".join([batch.summary(), *keys])
        self.rest.display = not batch.ended
        self.retry.display = batch.ended and bool(batch.count(FAILED, LEFT))
        self.on_table_highlighted()

    def on_table_highlighted(self) -> None:
        item = self.table.current
        shown = "" if item is None else item.more or item.text
        if item is not None and shown and not shown.startswith(item.name):
            shown = f"{item.name}: {shown}"
        self.text.display = bool(shown)
        self.text.update(shown)

    def on_table_chosen(self, event: Table.Chosen) -> None:
        """The whole of a long result."""
        from lxpy.tui.screens.text import TextScreen

        event.stop()
        self.app.push_screen(TextScreen(event.row.name, event.row.more or event.row.text or event.row.state))

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "stop":
            self.action_stop()
        elif event.button.id == "again":
            self.action_again()
        else:
            self.dismiss(None)

    def action_stop(self) -> None:
        self.work.stop()

    def action_again(self) -> None:
        if self.work.ended and self.work.again():
            self.table.focus()
            self._again(self.work)

    def action_copy(self) -> None:
        """Every result as a line of text."""
        lines = [f"{item.name}\t{item.state}\t{item.more or item.text}" for item in self.work.items]
        self.app.copy_to_clipboard("\n".join(lines))
        self.app.notify(f"{len(lines)} results", title="Copied", timeout=2)

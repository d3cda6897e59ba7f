"""A small menu."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from lxpy.tui.widgets.table import Column, Table


class Choice:
    """One line of a menu.

    Args:
        shown: stands beside the label instead of `value`.
    """

    def __init__(self, label: str, value: str, shown: str = "") -> None:
        self.label = label
        self.key = f"{label} {value}"  # two may be called the same
        self.value = value
        self.shown = shown or value


class Choose(ModalScreen[str]):
    """Answers with the chosen value, or with its label."""

    BINDINGS = [Binding("escape,q", "dismiss", "Cancel", id="choose.cancel")]

    def __init__(self, title: str, choices: list[Choice], by_label: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._title, self.choices, self._by_label = title, choices, by_label

    def compose(self) -> ComposeResult:
        table = Table(
            [
                Column("label", "", lambda r, w: ((r.label, "strong"),), None, 8, 30),
                Column("value", "", lambda r, w: ((r.shown, "dim"),), None, 10, 200, 1),
            ],
            header=False, classes="dialog", id="choose",
        )  # fmt: skip
        table.border_title = self._title
        yield table

    def on_mount(self) -> None:
        table = self.query_one(Table)
        table.styles.height = len(self.choices) + 2
        table.show(self.choices)
        table.focus()

    def on_table_chosen(self, event: Table.Chosen) -> None:
        self.dismiss(event.row.label if self._by_label else event.row.value)

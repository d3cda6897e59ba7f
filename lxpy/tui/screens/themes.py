"""The choice of a theme: the whole app shows each one as the cursor comes to it."""

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from lxpy.tui.widgets.table import Column, Table


class ThemeRow:
    """One theme."""

    def __init__(self, name: str, dark: bool, own: bool) -> None:
        self.key = self.name = name
        self.about = ("dark" if dark else "light") + (", made for lxpy" if own else "")


class ThemeScreen(ModalScreen[str]):
    """Answers with the name of the chosen theme; None, with the old one back in place, when it was left.

    Args:
        show: shows a theme.
    """

    BINDINGS = [Binding("escape,q", "leave", "As before", id="theme.leave")]

    def __init__(self, show: Callable[[str], None], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._show = show
        self._before = ""

    def compose(self) -> ComposeResult:
        table = Table(
            [
                Column("name", "", lambda r, w: ((r.name, "strong"),), None, 20, 30),
                Column("about", "", lambda r, w: ((r.about, "dim"),), None, 10, 30, 1),
            ],
            header=False, classes="dialog", id="themes",
        )  # fmt: skip
        table.border_title = "Theme"
        table.border_subtitle = "enter keeps it  ·  esc as before"
        yield table

    def on_mount(self) -> None:
        self._before = self.app.theme
        table = self.query_one(Table)
        themes = sorted(
            self.app.available_themes.values(), key=lambda theme: (not theme.name.startswith("lxpy"), theme.name)
        )
        table.show([ThemeRow(theme.name, theme.dark, theme.name.startswith("lxpy")) for theme in themes])
        table.action_to(next((n for n, row in enumerate(table.rows) if row.name == self._before), 0))
        table.focus()

    def on_table_highlighted(self, event: Table.Highlighted) -> None:
        row = event.table.current
        if row is not None and self._before and row.name != self.app.theme:
            self._show(row.name)

    def on_table_chosen(self, event: Table.Chosen) -> None:
        self.dismiss(event.row.name)

    def action_leave(self) -> None:
        if self.app.theme != self._before:
            self._show(self._before)
        self.dismiss(None)

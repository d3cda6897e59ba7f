"""The filter line: acts as it is typed; enter keeps it, escape clears it."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widgets import Input, Static

from lxpy.tui.panes.base import ListPane
from lxpy.tui.widgets.field import Field


class FilterBar(Horizontal):
    """One line above the keys."""

    BINDINGS = [
        Binding("enter", "keep", "Keep", id="filter.keep"),
        Binding("escape", "clear", "Clear", id="filter.clear"),
        Binding("down", "move(1)", "Down", show=False, id="filter.down"),
        Binding("up", "move(-1)", "Up", show=False, id="filter.up"),
    ]

    def __init__(self, pane: ListPane, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pane = pane
        hint = "text  state:running  image:debian  key=value  ~regex  !not"
        self.field = Field(self, pane.query_text, placeholder=hint, id="filter-input")

    def compose(self) -> ComposeResult:
        yield Static(" / ", id="filter-mark")
        yield self.field

    def on_input_changed(self, event: Input.Changed) -> None:
        self.pane.filter(event.value)

    def entered(self, field: Input) -> None:
        self.pane.filter(field.value)  # the last key's change may not have been seen yet
        self._leave()

    def action_keep(self) -> None:
        self.entered(self.field)

    def action_move(self, by: int) -> None:
        """The cursor of the list: what is looked for is often seen before its name is typed out."""
        self.pane.action_move(by)

    def action_clear(self) -> None:
        self.pane.filter("")
        self._leave()

    def _leave(self) -> None:
        self.screen.set_focus(self.pane)
        self.remove()

"""The filter line: acts as it is typed; enter keeps it, escape clears it."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.suggester import Suggester
from textual.widgets import Input, Static

from lxpy.tui.panes.base import ListPane
from lxpy.tui.widgets.field import Field


class Completion(Suggester):
    """What a pane knows to follow, behind the cursor."""

    def __init__(self, pane: ListPane) -> None:
        super().__init__(use_cache=False)
        self.pane = pane

    async def get_suggestion(self, value: str) -> str | None:
        found = self.pane.completed(value)
        return found if found.startswith(value) else None


class FilterBar(Horizontal):
    """One line above the keys."""

    BINDINGS = [
        Binding("enter", "keep", "Keep", id="filter.keep"),
        Binding("escape", "clear", "Clear", id="filter.clear"),
        Binding("down", "move(1)", "Down", show=False, id="filter.down"),
        Binding("up", "move(-1)", "Up", show=False, id="filter.up"),
        Binding("tab", "complete", "Complete", id="filter.complete", show=False, priority=True),
    ]

    def __init__(self, pane: ListPane, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pane = pane
        self.field = Field(self, pane.query_text, placeholder=pane.HINT, id="filter-input")
        self.field.suggester = Completion(pane)

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

    def action_complete(self) -> None:
        """Takes what is shown behind the cursor."""
        if found := self.pane.completed(self.field.value):
            self.field.value = found
            self.field.cursor_position = len(found)

    def action_clear(self) -> None:
        self.pane.filter("")
        self._leave()

    def _leave(self) -> None:
        self.screen.set_focus(self.pane)
        self.remove()

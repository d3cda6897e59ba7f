"""The filter line: acts as it is typed; enter keeps it, escape clears it."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.widgets import Input, Static

from lxpy.tui.panes.base import ListPane


class FilterBar(Horizontal):
    """One line above the keys."""

    BINDINGS = [Binding("escape", "clear", "Clear", id="filter.clear")]

    def __init__(self, pane: ListPane, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pane = pane

    def compose(self) -> ComposeResult:
        yield Static(" / ", id="filter-mark")
        yield Input(
            self.pane.query_text, placeholder="text  state:running  image:debian  key=value  !not", compact=True,
            id="filter-input",
        )  # fmt: skip

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.pane.filter(event.value)

    async def on_input_submitted(self) -> None:
        await self._leave()

    async def action_clear(self) -> None:
        self.pane.filter("")
        await self._leave()

    async def _leave(self) -> None:
        self.pane.focus()
        await self.remove()

"""The console log of one instance over the whole screen: follows, searches."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from lxpy.tui.gateway import Gateway, explain
from lxpy.tui.model import console_log
from lxpy.tui.widgets.bars import KeyBar
from lxpy.tui.widgets.field import Field
from lxpy.tui.widgets.logview import LogView


class LogScreen(Screen[None]):
    """See the module's text."""

    BINDINGS = [
        Binding("escape,q", "back", "Back", id="logs.back"),
        Binding("slash", "search", "Search", key_display="/", id="logs.search"),
        Binding("n", "next(1)", "Next", id="logs.next"),
        Binding("N", "next(-1)", "Previous", id="logs.previous"),
    ]

    def __init__(self, gateway: Gateway, name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gateway, self.instance_name = gateway, name
        self.view = LogView(empty="The console has been silent so far", classes="pane", id="log")
        self.view.border_title = f"{name} [dim]· console log[/dim]"

    def compose(self) -> ComposeResult:
        yield self.view
        search = Field(self, placeholder="search", id="log-search")
        search.display = False
        yield search
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.view.focus()
        self.set_interval(1.5, self._read)
        self._read()

    def _read(self) -> None:
        self.run_worker(self._load(), group="log", exclusive=True, exit_on_error=False)

    async def _load(self) -> None:
        try:
            self.view.show(await self.gateway.call(lambda c: console_log(c, self.instance_name)))
            self.view.border_subtitle = "following" if self.view.following else ""
        except Exception as error:
            self.view.border_subtitle = explain(error).replace("[", "\\[")
            self.view.border_subtitle = self.view.border_subtitle[: max(10, self.size.width - 8)]

    def action_search(self) -> None:
        search = self.query_one(Input)
        search.display = True
        self.set_focus(search)

    def entered(self, field: Input) -> None:
        field.display = False
        self.set_focus(self.view)
        self.action_next(1)

    def action_next(self, step: int) -> None:
        pattern = self.query_one(Input).value
        if pattern and not self.view.find(pattern, step):
            self.notify(f"Not found: {pattern}", timeout=2, markup=False)

    def action_back(self) -> None:
        search = self.query_one(Input)
        if search.display:
            search.display = False
            self.view.focus()
        else:
            self.dismiss()

"""The console log of the selected instance."""

from typing import Any

from textual.app import ComposeResult
from textual.widget import Widget

from lxpy.tui.gateway import explain
from lxpy.tui.model import console_log
from lxpy.tui.rows import InstanceRow
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.logview import LogView


class LogTab(Tab):
    TITLE = "Console log"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.view = LogView(empty="The console has been silent so far", id="detail-log")

    def compose(self) -> ComposeResult:
        yield self.view

    def inside(self) -> Widget:
        return self.view

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.view.show("")
            self.view.following = True
        if came or (other and self.seen):
            self.tick()

    def tick(self) -> None:
        self.run_worker(self._read(), group="log", exclusive=True, exit_on_error=False)

    async def _read(self) -> None:
        row = self.subject
        if not isinstance(row, InstanceRow):
            return
        try:
            text = await self.lxpy.gateway.call(lambda c: console_log(c, row.name))
        except Exception as error:
            text = explain(error)
        if self.subject is not None and self.subject.key == row.key:
            self.view.show(text)

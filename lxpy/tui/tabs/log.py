"""The console log of the selected instance."""

from typing import Any

from textual.app import ComposeResult
from textual.widget import Widget

from lxpy.client import logs
from lxpy.tui.gateway import explain
from lxpy.tui.logs import LogFeed, Source
from lxpy.tui.rows import InstanceRow
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.logview import LogView


class LogTab(Tab):
    TITLE = "Console log"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.view = LogView(empty="The console has been silent so far", id="detail-log")
        self._feed: LogFeed | None = None

    def compose(self) -> ComposeResult:
        yield self.view

    def inside(self) -> Widget:
        return self.view

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self._feed = None
            self.view.clear([])
            self.view.following = True
        if came or (other and self.seen):
            self.tick()

    def tick(self) -> None:
        self.soon(self._read)

    async def _read(self) -> None:
        row = self.subject
        if not isinstance(row, InstanceRow):
            return
        if self._feed is None:
            self._feed = LogFeed(self.lxpy.gateway, self.view, [Source(row.name, logs.console(row.name))])
        await self._fill(self._feed, self._feed.read())

    async def on_log_view_older(self) -> None:
        if self._feed is not None:
            await self._fill(self._feed, self._feed.older())

    async def _fill(self, feed: LogFeed, work: Any) -> None:
        try:
            await work
        except Exception as error:
            if feed is self._feed:
                self._feed = None
                self.view.show(explain(error))

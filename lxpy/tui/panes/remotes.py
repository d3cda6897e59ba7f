"""Pane 3: the remotes: where images and other servers are."""

from typing import Any

from textual.binding import Binding

from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.panes.base import ListPane
from lxpy.tui.widgets.table import Column


class RemoteRow:
    """A remote as a table row."""

    __slots__ = ("default", "key", "name", "protocol", "public", "raw", "url")

    def __init__(self, info: RemoteInfo) -> None:
        self.key = self.name = info.name
        self.url, self.protocol, self.public, self.default = info.url, info.protocol, info.public, info.default
        self.raw: dict[str, Any] = {}


class RemotesPane(ListPane):
    """Remotes; enter launches from one's catalogue."""

    number = 3
    kind = "remotes"
    short = "Remote"
    BINDINGS = [
        Binding("n", "app.launch", "New instance from it", id="remote.launch"),
        Binding("a", "app.verb('add-remote')", "Add", id="remote.add"),
        Binding("ctrl+d", "app.verb('remove-remote')", "Remove", key_display="^d", id="remote.remove"),
        Binding("y", "app.copy", "Copy", show=False, id="remote.copy"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        columns = [
            Column(
                "name", "NAME",
                lambda r, w: ((r.name, "strong"), *(((" ★", "accent"),) if r.default else ())),
                lambda r: r.name, 8, 24,
            ),
            Column("protocol", "PROTOCOL", lambda r, w: ((r.protocol, "dim"),), None, 9, 13, 0, 2),
            Column("url", "URL", lambda r, w: ((r.url, ""),), None, 12, 60, 1, 4),
        ]  # fmt: skip
        super().__init__(columns, **kwargs)

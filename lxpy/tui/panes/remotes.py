"""Pane 3: the remotes: where images and other servers are."""

from typing import Any

from textual.binding import Binding
from textual.content import Content

from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.model import Model
from lxpy.tui.panes.base import ListPane
from lxpy.tui.reach import told
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.table import Column, Part


class RemoteRow:
    """A remote as a table row."""

    __slots__ = ("default", "info", "key", "kind", "name", "protocol", "public", "raw", "static", "url")

    def __init__(self, info: RemoteInfo) -> None:
        self.info, self.kind = info, "remotes"
        self.key = self.name = info.name
        self.url, self.protocol, self.public, self.default = info.url, info.protocol, info.public, info.default
        self.static = info.static
        self.raw: dict[str, Any] = {}

    @property
    def access(self) -> str:
        """How one gets in there."""
        if self.protocol == "builtin":
            return "here"
        if self.url.startswith("unix:"):
            return "socket"
        return "public" if self.public or self.protocol != "lxd" else "tls"


class RemotesPane(ListPane):
    """Remotes; enter shows what one offers, t tests it. Nothing is asked of any of them before that."""

    number = 3
    kind = "remotes"
    short = "Remote"
    MARKABLE = True
    BINDINGS = [
        Binding("t", "app.verb('test-remote')", "Test", id="remote.test"),
        Binding("a", "app.verb('add-remote')", "Add", id="remote.add"),
        Binding("s", "app.verb('switch-remote')", "Switch to it", id="remote.switch"),
        Binding("n", "app.launch", "Launch from it", id="remote.launch"),
        Binding("e", "app.verb('remote-url')", "Address", show=False, id="remote.url"),
        Binding("R", "app.verb('rename-remote')", "Rename", show=False, id="remote.rename"),
        Binding("D", "app.verb('default-remote')", "Make it the default one", show=False, id="remote.default"),
        Binding("ctrl+d", "app.verb('remove-remote')", "Remove", key_display="^d", id="remote.remove"),
        Binding("y", "app.copy", "Copy", show=False, id="remote.copy"),
        Binding("space", "mark", "Mark", show=False, id="remote.mark"),
        Binding("asterisk", "mark_all", "Mark all shown", show=False, key_display="*", id="remote.mark-all"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="remote.unmark"),
    ]

    def __init__(self, model: Model, **kwargs: Any) -> None:
        self.model = model
        columns = [
            Column("name", "NAME", self._called, lambda r: r.name, 8, 24),
            Column("protocol", "PROTOCOL", lambda r, w: ((r.protocol, "dim"),), None, 9, 13, 0, 1),
            Column("url", "ADDRESS", lambda r, w: ((r.url, ""),), lambda r: r.url, 12, 60, 1, 4),
            Column("access", "ACCESS", lambda r, w: ((r.access, "dim"),), None, 6, 6, 0, 5),
            Column("latency", "LATENCY", self._latency, self._order, 7, 9, 0, 3, True),
            Column("state", "STATE", self._state, None, 12, 50, 1, 2),
        ]
        super().__init__(columns, **kwargs)

    def _called(self, row: RemoteRow, room: int) -> tuple[Part, ...]:
        marks: tuple[Part, ...] = ((" ★", "accent"),) if row.default else ()
        if row.name == self.model.gateway.remote:
            marks += ((" ● here", "ok"),)
        return ((row.name, "strong"), *marks)

    def _latency(self, row: RemoteRow, room: int) -> tuple[Part, ...]:
        answer = self.model.reach.of(row.info)
        if answer is None or answer.milliseconds < 0 or row.protocol == "builtin":
            return (("–", "dim"),)
        tone = "ok" if answer.milliseconds < 100 else "" if answer.milliseconds < 500 else "warn"
        return ((told(answer.milliseconds), tone),)

    def _order(self, row: RemoteRow) -> float:
        answer = self.model.reach.of(row.info)
        return answer.milliseconds if answer is not None and answer.milliseconds >= 0 else 1e9

    def _state(self, row: RemoteRow, room: int) -> tuple[Part, ...]:
        answer = self.model.reach.of(row.info)
        if self.model.reach.asking(row.name):
            return (("◌ asking …", "warn"),)
        if answer is None:
            return (("not tested", "dim"),)
        return ((f"✖ {answer.fault}", "bad"),) if answer.fault else (("● answers", "ok"),)

    def facts(self, row: RemoteRow) -> Content:
        facts = Facts()
        facts.line("Address", row.url)
        facts.line("Protocol", row.protocol)
        facts.line("Access", _ACCESS[row.access])
        facts.line("Default", "yes: names without a remote mean this one" if row.default else "")
        facts.line("Kept by", "lxpy itself: it cannot be changed" if row.static else "you")
        answer = self.model.reach.of(row.info)
        if answer is None:
            facts.text("\nIt was not asked for anything yet: t tests it.", "$faint")
        else:
            facts.title("Last answer")
            if answer.fault:
                facts.text(answer.fault, "$error")
            facts.line("Latency", told(answer.milliseconds) if answer.milliseconds >= 0 else "")
            facts.line("It says", answer.note)
        facts.text("\nenter shows its images" + ("" if row.protocol != "lxd" else ", s looks at that server"), "$faint")
        return facts.content()


_ACCESS = {
    "here": "built here from lxpy's own recipes", "socket": "a socket of this machine",
    "public": "open to everybody", "tls": "this client's certificate",
}  # fmt: skip

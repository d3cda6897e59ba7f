"""Logs over the whole screen, of one or several instances or of a network ACL: follows, searches, filters, saves."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Input

from lxpy.api.errors import ApiError
from lxpy.client import logs
from lxpy.tui.gateway import Gateway, explain
from lxpy.tui.logs import LogFeed, Source
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.widgets.bars import KeyBar
from lxpy.tui.widgets.field import Field
from lxpy.tui.widgets.logview import LogView

_SHOWN, _WHOLE = "what is shown here", "the whole log"


class LogScreen(Screen[None]):
    """See the module's text.

    Args:
        sources: what is shown, of each its end first.
        what: what they are, for the title.
        empty: what is said while there is nothing.
    """

    BINDINGS = [
        Binding("escape,q", "back", "Back", id="logs.back"),
        Binding("slash", "search", "Search", key_display="/", id="logs.search"),
        Binding("n", "next(1)", "Next", show=False, id="logs.next"),
        Binding("N", "next(-1)", "Previous", show=False, id="logs.previous"),
        Binding("ampersand", "filter", "Filter", key_display="&", id="logs.filter"),
        Binding("ctrl+s", "save", "Save", id="logs.save"),
    ]

    def __init__(self, gateway: Gateway, sources: Sequence[Source], what: str, empty: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.gateway = gateway
        self.view = LogView(empty=empty, classes="pane", id="log")
        self._fault = ""
        self._show(sources, what)

    def _show(self, sources: Sequence[Source], what: str) -> None:
        self.view.following = True
        self.feed = LogFeed(self.gateway, self.view, sources)
        names = ", ".join(source.name for source in sources)
        self.view.border_title = f"{names} [dim]· {what}[/dim]"

    def compose(self) -> ComposeResult:
        yield self.view
        for ident, hint in (("log-search", "search"), ("log-filter", "show only lines with")):
            field = Field(self, placeholder=hint, id=ident)
            field.display = False
            yield field
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.view.focus()
        self.set_interval(1.5, self._read)
        self._read()

    # Reading

    def _read(self) -> None:
        self.run_worker(self._load(older=False), group="log", exclusive=True, exit_on_error=False)

    def on_log_view_older(self) -> None:
        # A group of its own: the next reading does not break it off.
        self.run_worker(self._load(older=True), group="older", exclusive=True, exit_on_error=False)

    async def _load(self, older: bool) -> None:
        feed = self.feed
        try:
            await (feed.older() if older else feed.read())
            self._fault = ""
        except Exception as error:
            self._fault = explain(error)
        if feed is self.feed:
            self._tell()

    def on_log_view_changed(self) -> None:
        self._tell()

    def _tell(self) -> None:
        view = self.view
        notes = ["following"] if view.following else []
        if self.feed.bytes_before:
            notes.append(f"{_size(self.feed.bytes_before)} before (g)")
        if view.filtered:
            notes.append(f"&{view.filtered}")
        if view.stamped:
            notes.append("times: the log's own, else of arrival here")
        text = self._fault or " · ".join(notes)
        view.border_subtitle = text[: max(10, self.size.width - 8)].replace("[", "\\[")

    # Searching and filtering

    def action_search(self) -> None:
        self._ask("#log-search")

    def action_filter(self) -> None:
        self._ask("#log-filter")

    def _ask(self, ident: str) -> None:
        field = self.query_one(ident, Input)
        field.display = True
        self.set_focus(field)

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input.id == "log-filter":
            self.view.filter(event.value)

    def entered(self, field: Input) -> None:
        field.display = False
        self.set_focus(self.view)
        if field.id == "log-search":
            self.action_next(1)
        else:
            self.view.filter(field.value)

    def action_next(self, step: int) -> None:
        pattern = self.query_one("#log-search", Input).value
        if pattern and not self.view.find(pattern, step):
            self.notify(f"Not found: {pattern}", timeout=2, markup=False)

    def action_back(self) -> None:
        """Closes the field, or clears the filter, or goes."""
        focused = self.focused
        if isinstance(focused, Input):
            focused.display = False
            self.view.focus()
            if focused.id == "log-filter":
                focused.value = ""
        elif self.view.filtered:
            self.query_one("#log-filter", Input).value = ""
            self.view.filter("")
        else:
            self.dismiss()

    # Saving

    def action_save(self) -> None:
        alone = len(self.feed.sources) == 1
        first = self.feed.sources[0]
        file = first.path.rpartition("/")[2].removesuffix(".log")
        what = (_SHOWN, _WHOLE) if alone else (_SHOWN,)

        async def submit(answers: Answers) -> None:
            path = os.path.expanduser(answers["file"])
            if answers["what"] == _SHOWN:
                await asyncio.to_thread(_write, path, self.view.text())
            else:
                await self.gateway.call(lambda client: _fetch(client, first.path, path), alone=True)
            self.notify(path, title="Saved", markup=False)

        name = "-".join(source.name for source in self.feed.sources[:4])
        questions = [
            Question("file", "File", "where to", f"{name}-{file}.log"),
            Question("what", "What", choices=what),
        ]
        self.app.push_screen(Form("Save the log", questions, submit, verb="Save"))


class InstanceLogs(LogScreen):
    """The console logs of instances first; what else the server keeps of them at a key."""

    BINDINGS = [Binding("o", "other", "Other logs", id="logs.other")]

    def __init__(self, gateway: Gateway, names: Sequence[str], **kwargs: Any) -> None:
        self.names = tuple(names)
        self._files: dict[str, Source] = {}
        super().__init__(gateway, self._consoles(), "console log", "The console has been silent so far", **kwargs)

    def _consoles(self) -> list[Source]:
        return [Source(name, logs.console(name)) for name in self.names]

    def action_other(self) -> None:
        self.run_worker(self._other(), group="other", exclusive=True, exit_on_error=False)

    async def _other(self) -> None:
        choices: list[Choice] = []
        self._files = {}
        for name in self.names:
            try:
                found = await self.gateway.call(lambda c, name=name: logs.names(c, name))  # type: ignore[misc]
            except Exception as error:
                self.notify(explain(error), title="Other logs", severity="error", markup=False)
                return
            for file, path in {"console": logs.console(name), **found}.items():
                choices.append(Choice(name, file))
                choices[-1].key = path
                self._files[path] = Source(name, path)
        if len(self.names) > 1:
            choices.insert(0, Choice("all", "consoles"))

        def chosen(value: str | None) -> None:
            row = next((c for c in choices if c.key == value), None)
            if row is None:
                return
            if row.key in self._files:
                self._show([self._files[row.key]], row.value.replace("[", "\\["))
            else:
                self._show(self._consoles(), "console log")
            self._read()

        self.app.push_screen(_Files("Logs", choices), chosen)


class _Files(Choose):
    """Answers with the key, the path of the log."""

    def on_table_chosen(self, event: Any) -> None:
        event.stop()
        event.prevent_default()
        self.dismiss(event.row.key)


@contextlib.contextmanager
def _new_file(path: str) -> Iterator[BinaryIO]:
    """A file that is not there yet, and is gone again when the body fails."""
    try:
        with contextlib.ExitStack() as undo, open(path, "xb") as file:
            undo.callback(os.unlink, path)
            yield file
            file.flush()
            undo.pop_all()
    except OSError as error:
        if error.filename == path or error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise ApiError(f"{path}: {error.strerror}") from None
        raise  # the connection's


def _write(path: str, text: str) -> None:
    with _new_file(path) as file:
        file.write(text.encode())


def _fetch(client: logs.Asks, source: str, path: str) -> None:
    """The whole log, as it is, a piece at a time."""
    with _new_file(path) as file:
        at = 0
        while data := logs.between(client, source, at, at + 4 * 1024 * 1024).data:
            file.write(data)
            at += len(data)


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB" if count >= 2**20 else f"{count / 1024:.0f} KiB"

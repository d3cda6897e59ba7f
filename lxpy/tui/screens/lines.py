"""A value of several lines."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.tui.widgets.area import Area
from lxpy.tui.widgets.bars import KeyBar


class Lines(ModalScreen[str]):
    """Answers with the text, None when it is to stay as it was.

    Args:
        note: what it is for.
    """

    BINDINGS = [
        Binding("ctrl+s", "take", "Take it", id="lines.take"),
        Binding("ctrl+e", "external", "$EDITOR", priority=True, id="lines.external"),
        Binding("escape", "dismiss", "Leave", priority=True, id="lines.leave"),
    ]

    def __init__(self, title: str, text: str, note: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heading, self.text, self.note = title, text, note

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="lines") as box:
            box.border_title = self.heading.replace("[", "\\[")
            yield Area(self.text, id="lines-text", show_line_numbers=True, tab_behavior="indent")
            yield Static(self.note, id="lines-note", classes="note", markup=False)
            yield KeyBar(id="editor-keys")

    def on_mount(self) -> None:
        self.query_one(Area).focus()

    def action_take(self) -> None:
        self.dismiss(self.query_one(Area).text.rstrip("\n"))

    def action_external(self) -> None:
        from lxpy.tui.editing import in_editor

        area = self.query_one(Area)
        text, fault = in_editor(self.app, area.text, ".txt")
        if text is not None:
            area.text = text
        self.query_one("#lines-note", Static).update(fault or self.note)

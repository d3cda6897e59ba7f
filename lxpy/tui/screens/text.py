"""A text to read: a file, a difference."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from lxpy.tui.widgets.logview import LogView


class TextScreen(ModalScreen[None]):
    """Scrolls; escape closes it."""

    BINDINGS = [Binding("escape,q", "dismiss", "Close", id="text.close")]

    def __init__(self, title: str, text: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.view = LogView(empty="It is empty", classes="dialog", id="text")
        self.view.border_title = title.replace("[", "\\[")
        self.view.border_subtitle = "esc closes"
        self.view.following = False
        self.text = text

    def compose(self) -> ComposeResult:
        yield self.view

    def on_mount(self) -> None:
        self.view.show(self.text)
        self.view.focus()

"""A question before something is lost, naming what it is about."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static


class Confirm(ModalScreen[bool]):
    """Answers True for yes. Enter presses the focused button, which is "Cancel" at first.

    Args:
        question: the title.
        names: the objects, one a line.
        verb: the word on the button.
        note: what else follows.
    """

    BINDINGS = [
        Binding("escape,n", "answer(False)", "Cancel", id="confirm.no"),
        Binding("y", "answer(True)", "Yes", id="confirm.yes"),
        Binding("left,right,h,l", "other", "Other button", show=False, id="confirm.other"),
    ]

    def __init__(self, question: str, names: list[str], verb: str, note: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.question, self.names, self.verb, self.note = question, names, verb, note

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="confirm") as box:
            box.border_title = self.question.replace("[", "\\[")
            box.border_subtitle = f"y {self.verb}  ·  esc cancel"
            with VerticalScroll(id="confirm-names"):
                yield Static("\n".join(self.names), markup=False)
            if self.note:
                yield Static(self.note, classes="note", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button(self.verb.capitalize(), id="yes", variant="error", compact=True)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)

    def action_other(self) -> None:
        self.focus_next()

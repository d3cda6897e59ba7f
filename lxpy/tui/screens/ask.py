"""One question with one line for an answer."""

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from lxpy.tui.widgets.field import Field


class Ask(ModalScreen[str]):
    """Answers with the text, None when it was cancelled.

    Args:
        question: the title.
        hint: what is wanted, in the empty field.
        value: the answer so far.
        check: gives what is wrong with an answer, "" for nothing.
        note: what follows from it.
    """

    BINDINGS = [Binding("escape", "dismiss", "Cancel", id="ask.cancel")]

    def __init__(
        self, question: str, hint: str = "", value: str = "", check: Callable[[str], str] | None = None,
        note: str = "", **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.question, self.hint, self.value, self.note = question, hint, value, note
        self.check = check or (lambda _: "")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="ask") as box:
            box.border_title = self.question.replace("[", "\\[")
            box.border_subtitle = "enter  ·  esc cancel"
            yield Field(self, self.value, placeholder=self.hint, id="ask-answer")
            yield Static(self.note, classes="note", id="ask-note", markup=False)

    def on_mount(self) -> None:
        self.query_one(Field).focus()
        self.query_one("#ask-note").display = bool(self.note)

    def entered(self, field: Input) -> None:
        if wrong := self.check(field.value):
            note = self.query_one("#ask-note", Static)
            note.display = True
            note.update(wrong)
        else:
            self.dismiss(field.value)

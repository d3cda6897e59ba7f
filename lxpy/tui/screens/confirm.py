"""A question before something is lost, naming what it is about."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Static

FEW = 8  # names that are told; of more the rest is counted


class Confirm(ModalScreen[bool]):
    """Answers True for yes. Enter presses the focused button, which is "Cancel" at first.

    Args:
        question: the title.
        names: the objects, one a line; of many the first ones and how many more, all at a key.
        verb: the word on the button.
        note: what else follows.
    """

    BINDINGS = [
        Binding("escape,n", "answer(False)", "Cancel", id="confirm.no"),
        Binding("y", "answer(True)", "Yes", id="confirm.yes"),
        Binding("down,j", "scroll(1)", show=False, id="confirm.down"),
        Binding("up,k", "scroll(-1)", show=False, id="confirm.up"),
        Binding("v", "unfold", "All names", show=False, id="confirm.all"),
        Binding("left,right,h,l", "other", "Other button", show=False, id="confirm.other"),
    ]

    def __init__(self, question: str, names: list[str], verb: str, note: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.question, self.names, self.verb, self.note = question, names, verb, note
        self.folded = len(names) > FEW + 1

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="confirm") as box:
            box.border_title = self.question.replace("[", "\\[")
            box.border_subtitle = f"y {self.verb}  ·  esc cancel"
            with VerticalScroll(id="confirm-names", can_focus=False):
                yield Static(self._shown(), id="confirm-list", markup=False)
            if self.note:
                yield Static(self.note, classes="note", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button(self.verb.capitalize(), id="yes", variant="error", compact=True)

    def _shown(self) -> str:
        if self.folded:
            return "\n".join([*self.names[:FEW], f"and {len(self.names) - FEW} more (v names all)"])
        return "\n".join(self.names)

    def action_unfold(self) -> None:
        self.folded = False
        self.query_one("#confirm-list", Static).update(self._shown())

    def action_scroll(self, by: int) -> None:
        self.query_one("#confirm-names").scroll_relative(y=by, animate=False)

    def on_mount(self) -> None:
        self.query_one("#no", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        self.dismiss(yes)

    def action_other(self) -> None:
        self.focus_next()

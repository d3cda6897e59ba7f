"""One of many: typing narrows them down, enter takes the one that is marked."""

from collections.abc import Sequence
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from lxpy.tui.widgets.field import Field
from lxpy.tui.widgets.table import Column, Table


class Option:
    """Attributes:
    label: what is read; `note` stands at the right.
    value: what is answered.
    """

    def __init__(self, label: str, note: str, value: str) -> None:
        self.key = self.label = label
        self.note, self.value = note, value


class Pick(ModalScreen[str]):
    """Answers with the value of an option, None when it was cancelled.

    Args:
        title: the question.
        options: in this order.
        now: the value that is marked at first.
    """

    BINDINGS = [
        Binding("escape", "dismiss", "Cancel", id="pick.cancel"),
        Binding("down", "move(1)", "Next", show=False, id="pick.next", priority=True),
        Binding("up", "move(-1)", "Previous", show=False, id="pick.previous", priority=True),
        Binding("pagedown", "move(8)", "Page down", show=False, id="pick.page-down", priority=True),
        Binding("pageup", "move(-8)", "Page up", show=False, id="pick.page-up", priority=True),
    ]

    def __init__(self, title: str, options: Sequence[Option], now: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._title, self.options, self._now = title, list(options), now
        self._narrowed = ""  # what the table shows the answers to
        self.table = Table(
            [
                Column("label", "", lambda r, w: ((r.label, "strong"),), None, 10, 32, 1),
                Column("note", "", lambda r, w: ((r.note, "dim"),), None, 4, 44, 0, 4, True),
            ],
            header=False, id="pick-options",
        )  # fmt: skip
        self.table.can_focus = False
        self.field = Field(self, placeholder="type to find one", id="pick-typed")

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="pick") as box:
            box.border_title = self._title.replace("[", "\\[")
            box.border_subtitle = "↑↓  ·  enter  ·  esc cancel"
            yield self.field
            yield self.table

    def on_mount(self) -> None:
        self.table.styles.height = min(len(self.options), 16)
        self.table.empty = [(("nothing like that", "dim"),)]
        self.table.show(self.options)
        at = next((i for i, option in enumerate(self.options) if option.value == self._now), 0)
        self.call_after_refresh(self.table.action_to, at)
        self.field.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._narrow(event.value)

    def _narrow(self, typed: str) -> None:
        """Shows what fits; may be called before the field has told of its last change, and then once more by that."""
        if typed == self._narrowed:
            return
        self._narrowed = typed
        words = typed.lower().split()
        fitting = [o for o in self.options if all(w in o.label.lower() for w in words)]
        begin = [o for o in fitting if words and o.label.lower().startswith(words[0])]
        if words:
            self.table.cursor = 0
        self.table.show(begin + [o for o in fitting if o not in begin])
        if words:
            self.table.action_to(0)

    def entered(self, field: Input) -> None:
        self._narrow(field.value)
        if self.table.current is not None:
            self.dismiss(self.table.current.value)

    def action_move(self, by: int) -> None:
        self._narrow(self.field.value)
        self.table.action_move(by)

    def on_click(self, event: Any) -> None:
        if self.table.region.contains(event.screen_x, event.screen_y) and self.table.current is not None:
            self.dismiss(self.table.current.value)

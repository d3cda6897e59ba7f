"""Fields of a dialog, that lose no key."""

from typing import Any, Protocol

from textual import events
from textual.suggester import Suggester
from textual.widgets import Checkbox, Input, Select

from lxpy.tui.widgets.inturn import InTurn


class Form(Protocol):
    """Who holds fields: told of enter at once, in the order of the keys."""

    def entered(self, field: Input) -> None: ...


class Field(InTurn, Input):
    """An input of a `Form`."""

    def __init__(
        self, form: Form, value: str = "", *, placeholder: str = "", id: str | None = None,
        suggester: Suggester | None = None,
    ) -> None:  # fmt: skip
        super().__init__(value, placeholder=placeholder, compact=True, id=id, suggester=suggester)
        self.form = form

    async def done(self, event: events.Key) -> bool:
        if event.key == "enter":
            self.form.entered(self)
            return True
        return await super().done(event)


class Box(InTurn, Checkbox):
    """A box to tick, empty while it is off: Textual's has its cross either way, and tells by the colour alone."""

    TAKES_TEXT = False

    @property
    def BUTTON_INNER(self) -> str:  # type: ignore[override]
        return "X" if self.value else " "


class Pulldown(InTurn, Select[Any]):
    """One of several."""

    TAKES_TEXT = False

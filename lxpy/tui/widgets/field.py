"""An input that loses no key: what is typed ahead of a slow screen ends up where the keyboard is by then."""

from typing import Protocol

from textual import events
from textual.suggester import Suggester
from textual.widgets import Input


class Form(Protocol):
    """Who holds fields: told of enter at once, in the order of the keys."""

    def entered(self, field: Input) -> None: ...


class Field(Input):
    """An input of a `Form`. Enter comes to the form here and not by the binding: that goes round through the app
    and arrives after the keys that follow it."""

    def __init__(
        self, form: Form, value: str = "", *, placeholder: str = "", id: str | None = None,
        suggester: Suggester | None = None,
    ) -> None:  # fmt: skip
        super().__init__(value, placeholder=placeholder, compact=True, id=id, suggester=suggester)
        self.form = form

    async def on_key(self, event: events.Key) -> None:
        focused = self.screen.focused
        if focused is not None and focused is not self:
            # Sent to this field while the enter before it was still being read.
            focused.post_message(events.Key(event.key, event.character))  # a copy: this one is stopped below
        elif event.key == "enter":
            self.form.entered(self)
        else:
            return
        event.stop()
        event.prevent_default()

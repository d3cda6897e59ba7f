"""A text of several lines in a dialog."""

from textual import events
from textual.widgets import TextArea

from lxpy.tui.widgets.inturn import InTurn


class Area(InTurn, TextArea):
    """Tab is a part of the text."""

    async def done(self, event: events.Key) -> bool:
        return event.key not in ("enter", "tab") and await super().done(event)

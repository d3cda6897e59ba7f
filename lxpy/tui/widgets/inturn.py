"""What takes the keys that are typed into it each in its turn, whatever they do.

Textual sends a bound key round through the app, and does one with priority before all that still waits: in a burst (a
paste, a slow line) ctrl+u would come after the text that follows it, and an arrow before the text that it follows.
What is typed ahead of a slow screen ends up where the keyboard is by then.
"""

from typing import TYPE_CHECKING, cast

from textual import events

if TYPE_CHECKING:
    from textual.widget import Widget

    from lxpy.tui.app import LxpyApp
else:
    Widget = object  # Textual gives a class the styles of its first widget: that is the input's


class InTurn(Widget):
    """Gets every key that is typed while it has the keyboard, also those that are bound elsewhere."""

    TAKES_TEXT = True  # whether letters are text here, and not keys

    async def on_key(self, event: events.Key) -> None:
        focused = self.screen.focused
        if focused is not None and focused is not self:
            # Sent here while the key before it, which moved the keyboard, was still being read.
            focused.post_message(events.Key(event.key, event.character))  # a copy: this one is stopped below
        elif not (self.screen.is_current and await self.done(event)):
            return
        event.stop()
        event.prevent_default()

    async def done(self, event: events.Key) -> bool:
        """Does what is bound to the key; whether anything is. Not that of keys which are text here."""
        return await cast("LxpyApp", self.app).key_in_turn(event.key, text=self.TAKES_TEXT and event.is_printable)

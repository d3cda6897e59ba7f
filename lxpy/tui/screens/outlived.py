"""Dialogs whose work goes on when they are closed: what it fails of must not be lost with them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from textual.screen import Screen

from lxpy.tui.gateway import explain

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

    _Base = Screen[Any]
else:
    _Base = object


class Outlived(_Base):
    """A screen that may be gone when its work ends."""

    @property
    def open(self) -> bool:
        """Whether it is still there to be read."""
        return self in self.app.screen_stack

    def fail(self, error: Exception, what: str, about: str, here: Callable[[str], object]) -> None:
        """Tells why it failed: by `here` while the screen is open, in a message of the app otherwise.

        Args:
            what: the title of the message; begins with "Cannot".
            about: the object.
        """
        if self.open:
            here(explain(error))
        else:
            cast("LxpyApp", self.app).fail(what, error, about)

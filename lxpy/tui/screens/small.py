"""Instead of a picture that nobody could read: what the terminal is too small for."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.widgets import Static

# Below these nothing of the app can be used.
LEAST = Size(40, 9)


def too_small(size: Size) -> bool:
    return size.width < LEAST.width or size.height < LEAST.height


class SmallScreen(ModalScreen[None]):
    """Goes by itself when the terminal grows; what was under it is as it was."""

    BINDINGS = [Binding("q", "app.quit", "Quit", id="small.quit")]

    def compose(self) -> ComposeResult:
        yield Static(id="small")

    def on_resize(self) -> None:
        size = self.app.size
        text = "lxpy needs 80x24"
        more = f"{text}, and this is {size.width}x{size.height}"
        self.query_one(Static).update(more if len(more) <= size.width else text)

"""Help for the focused pane, made from the bindings themselves, so that it cannot be wrong."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.tui.screens.main import MainScreen

_GROUPS = (
    ("instance", "Instances"), ("image", "Images"), ("remote", "Remotes"), ("pool", "Storage"),
    ("network", "Networks"), ("profile", "Profiles"), ("operation", "Operations"), ("warning", "Warnings"),
    ("detail", "Details"), ("snapshot", "Snapshots"), ("files", "Files"),
    ("shell", "Shell"), ("config", "Config"), ("log", "Log"),
    ("pane", "This pane"), ("table", "Moving"), ("main", "Panes"), ("app", "Everywhere"),
)  # fmt: skip

FILTERS = (
    ("text", "rows that contain it"),
    ("state:running", "also type: image: ip: arch:"),
    ("limits.memory=1GiB", "a configuration key"),
    ("~^web[0-9]", "a regular expression"),
    ("!text", "rows that do not match"),
)


class HelpScreen(ModalScreen[None]):
    """Every key that works where the keyboard was."""

    BINDINGS = [
        Binding("escape,q,question_mark", "dismiss", "Close", id="help.close"),
        Binding("down,j", "scroll(1)", show=False, id="help.down"),
        Binding("up,k", "scroll(-1)", show=False, id="help.up"),
    ]

    def __init__(self, main: MainScreen, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        groups: dict[str, dict[str, list[str]]] = {}
        for active in main.active_bindings.values():
            binding = active.binding
            group = (binding.id or "").partition(".")[0]
            if binding.description and group:
                keys = groups.setdefault(group, {}).setdefault(binding.description, [])
                key = binding.key_display or main.app.get_key_display(binding)
                if key not in keys:
                    keys.append(key)
        self._groups = groups

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", id="help") as box:
            box.border_title = "Keys here"
            box.border_subtitle = "esc closes"
            yield Static(self._content())

    def _content(self) -> Content:
        lines: list[Content] = []
        for group, title in _GROUPS:
            if group not in self._groups:
                continue
            lines.append(Content.assemble((title, "bold $primary")))
            for text, keys in self._groups[group].items():
                lines.append(Content.assemble((f"  {'  '.join(keys):<16}", "$accent"), text))
            lines.append(Content(""))
        lines.append(Content.assemble(("Filter language", "bold $primary")))
        lines += [Content.assemble((f"  {what:<20}", "$accent"), text) for what, text in FILTERS]
        return Content("\n").join(lines)

    def action_scroll(self, by: int) -> None:
        self.query_one("#help").scroll_relative(y=by * 2, animate=False)

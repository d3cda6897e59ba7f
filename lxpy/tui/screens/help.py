"""Help, made from the bindings themselves, so that it cannot be wrong: the keys here, and at a key those everywhere."""

import itertools
from collections.abc import Mapping
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.tui.screens.main import MainScreen

# In this order; what is not named here comes behind, under its own word.
_GROUPS = {
    "instance": "Instances", "image": "Images", "catalogue": "Images of a remote",
    "remote": "Remotes", "pool": "Storage", "network": "Networks",
    "profile": "Profiles", "project": "Projects", "operation": "Operations", "warning": "Warnings", "detail": "Details",
    "device": "Devices", "volume": "Volumes", "forward": "Forwards", "acl": "ACLs",
    "snapshot": "Snapshots", "files": "Files", "shell": "Shell", "config": "Config", "log": "Log",
    "pane": "This pane", "table": "Moving", "main": "Panes", "app": "Everywhere",
}  # fmt: skip

TWO = 120  # cells of the screen, from which on there are two columns
COLUMN = 54  # cells of one
FILTERS = (
    ("text", "rows that contain it"),
    ("state:running", "also type: image: ip: arch:"),
    ("os:debian release:12", "of images: also variant:cloud"),
    ("limits.memory=1GiB", "a configuration key"),
    ("~^web[0-9]", "a regular expression"),
    ("!text", "rows that do not match"),
)

Groups = dict[str, dict[str, list[str]]]  # group, description, keys


class HelpScreen(ModalScreen[None]):
    """Every key that works where the keyboard was; `a` shows those of everywhere."""

    BINDINGS = [
        Binding("escape,q,question_mark", "dismiss", "Close", id="help.close"),
        Binding("a", "all", "All keys", id="help.all"),
        Binding("down,j", "scroll(1)", show=False, id="help.down"),
        Binding("up,k", "scroll(-1)", show=False, id="help.up"),
        Binding("pagedown,space", "scroll(10)", show=False, id="help.page-down"),
        Binding("pageup", "scroll(-10)", show=False, id="help.page-up"),
    ]

    def __init__(self, main: MainScreen, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._groups: Groups = {}
        self._keys: Mapping[str, str] = main.app.settings.keys  # type: ignore[attr-defined]
        for active in main.active_bindings.values():
            _add(self._groups, active.binding, main.app.get_key_display(active.binding))
        self.everywhere = False

    def compose(self) -> ComposeResult:
        self.set_class(self.app.size.width >= TWO, "-two")
        with VerticalScroll(classes="dialog", id="help") as box:
            box.border_title = "Keys here"
            box.border_subtitle = "a all keys  ·  esc closes"
            yield Static(self._content(), id="help-text")

    def _content(self) -> Content:
        groups: list[list[Content]] = []
        for group in sorted(self._groups, key=_rank):
            groups.append([Content.assemble((_GROUPS.get(group, group.capitalize()), "bold $primary"))])
            for text, keys in self._groups[group].items():
                groups[-1].append(Content.assemble((f"  {'  '.join(keys):<16}", "$accent"), text))
        groups.append([Content.assemble(("Filter language", "bold $primary"))])
        groups[-1] += [Content.assemble((f"  {what:<22}", "$accent"), text) for what, text in FILTERS]
        return _beside(groups) if self.app.size.width >= TWO and not self.everywhere else _below(groups)

    def action_all(self) -> None:
        """The keys of every pane, tab and dialog, with their ids for the settings; and back."""
        from lxpy.tui import keymap

        self.everywhere = not self.everywhere
        here = self._groups
        if self.everywhere:
            found: Groups = {}
            mine = self._keys
            for _, binding in keymap.bindings():
                keys = keymap.keys_of(mine[str(binding.id)]) if binding.id in mine else binding.key.split(",")
                shown = [self.app.get_key_display(Binding(key.strip(), "")) for key in keys]
                _add(found, binding, " ".join(shown), note=str(binding.id))
            self._groups = found
        box = self.query_one("#help")
        box.set_class(self.everywhere, "-all")
        box.border_title = "All keys" if self.everywhere else "Keys here"
        box.border_subtitle = "a keys here  ·  esc closes" if self.everywhere else "a all keys  ·  esc closes"
        self.query_one("#help-text", Static).update(self._content())
        box.scroll_home(animate=False)
        if self.everywhere:
            self._groups = here

    def action_scroll(self, by: int) -> None:
        self.query_one("#help").scroll_relative(y=by * 2, animate=False)


def _rank(group: str) -> tuple[int, str]:
    order = list(_GROUPS)
    return (order.index(group) if group in order else len(order), group)


def _add(groups: Groups, binding: Binding, key: str, note: str = "") -> None:
    group = (binding.id or "").partition(".")[0]
    if binding.description and group:
        text = f"{binding.description:<26} {note}" if note else binding.description
        keys = groups.setdefault(group, {}).setdefault(text, [])
        key = binding.key_display or key
        if key not in keys:
            keys.append(key)


def _below(groups: list[list[Content]]) -> Content:
    return Content("\n\n").join(Content("\n").join(group) for group in groups)


def _beside(groups: list[list[Content]]) -> Content:
    """In two columns, about as long as each other."""
    total, left = sum(len(group) + 1 for group in groups), 0
    first = 0
    while first < len(groups) - 1 and left + len(groups[first]) / 2 < total / 2:
        left += len(groups[first]) + 1
        first += 1
    columns = [[line for group in part for line in (*group, Content(""))] for part in (groups[:first], groups[first:])]
    lines = []
    for here, there in itertools.zip_longest(*columns, fillvalue=Content("")):
        lines.append(Content.assemble(here, " " * max(2, COLUMN - here.cell_length), there))
    return Content("\n").join(lines)

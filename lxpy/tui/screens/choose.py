"""A small menu."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import ModalScreen

from lxpy.tui.rows import ImageRow, InstanceRow
from lxpy.tui.widgets.table import Column, Table


class Choice:
    """One line of a menu.

    Args:
        shown: stands beside the label instead of `value`.
    """

    def __init__(self, label: str, value: str, shown: str = "") -> None:
        self.key = self.label = label
        self.value = value
        self.shown = shown or value


class Choose(ModalScreen[str]):
    """Answers with the chosen value, or with its label."""

    BINDINGS = [Binding("escape,q", "dismiss", "Cancel", id="choose.cancel")]

    def __init__(self, title: str, choices: list[Choice], by_label: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._title, self.choices, self._by_label = title, choices, by_label

    def compose(self) -> ComposeResult:
        table = Table(
            [
                Column("label", "", lambda r, w: ((r.label, "strong"),), None, 8, 16),
                Column("value", "", lambda r, w: ((r.shown, "dim"),), None, 10, 80, 1),
            ],
            header=False, classes="dialog", id="choose",
        )  # fmt: skip
        table.border_title = self._title
        yield table

    def on_mount(self) -> None:
        table = self.query_one(Table)
        table.styles.height = len(self.choices) + 2
        table.show(self.choices)
        table.focus()

    def on_table_chosen(self, event: Table.Chosen) -> None:
        self.dismiss(event.row.label if self._by_label else event.row.value)


def copy_menu(row: Any) -> Choose:
    """What may be copied of a row."""
    if isinstance(row, InstanceRow):
        choices = [
            ("Name", row.name), ("IPv4", row.ipv4), ("IPv6", row.ipv6), ("Shell", f"lxpy shell {row.name}"),
            ("Info", f"lxpy info {row.name}"),
        ]  # fmt: skip
    elif isinstance(row, ImageRow):
        choices = [
            ("Alias", row.title), ("Fingerprint", row.fingerprint), ("Launch", f"lxpy launch {row.reference}"),
        ]  # fmt: skip
    elif hasattr(row, "url"):
        choices = [("Name", row.name), ("URL", row.url), ("Images", f"lxpy image list {row.name}:")]
    else:
        words = {"storage-pools": "storage", "networks": "network", "profiles": "profile"}
        show = f"lxpy {words[row.kind]} show {row.name}" if row.kind in words else ""
        choices = [("Name", row.name), ("Show", show), ("API", getattr(row, "path", ""))]
    menu = [Choice(label, value) for label, value in choices if value]
    if raw := getattr(row, "raw", None):
        from lxpy.tui.screens.edit import dump

        text = dump({key: value for key, value in raw.items() if key not in ("state", "resources")})
        menu.append(Choice("YAML", text, f"the whole of it, {text.count(chr(10))} lines"))
    return Choose("Copy", menu)

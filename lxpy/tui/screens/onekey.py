"""A form for one configuration key: says what the key is for, what it is now, and completes its values."""

from collections.abc import Mapping
from typing import Any

from textual.suggester import SuggestFromList
from textual.widgets import Input, Static

from lxpy.tui.rules import KeyInfo, explained, info_of
from lxpy.tui.screens.form import Form


class OneKey(Form):
    """Has the questions ``key`` and ``value``.

    Args:
        infos: what is known of keys.
        now: keys and values in force, "" for unknown ones.
    """

    def __init__(self, *args: Any, infos: Mapping[str, KeyInfo], now: Mapping[str, str], **more: Any) -> None:
        super().__init__(*args, **more)
        self._infos, self._now, self._told = infos, now, ""

    def _show_line(self) -> None:
        super()._show_line()
        if not self.is_attached:
            return
        key = self.answers()["key"]
        info = info_of(self._infos, key)
        text = explained(info) if info.text else ""
        if key in self._now:
            value = " ".join(self._now[key].split())
            text += f"{' · ' if text else ''}it is {value[:60]} now"
        self.query_one(".note", Static).update(text or self.note)
        if key != self._told:
            self._told = key
            field = self.query_one("#ask-value", Input)
            field.suggester = SuggestFromList(info.values, case_sensitive=False) if info.values else None
            usual = " | ".join(info.values) or info.default
            field.placeholder = f"left empty: the key is taken away{f'; {usual}' if usual else ''}"

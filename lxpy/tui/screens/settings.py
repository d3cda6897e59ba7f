"""The settings as a form. What is wrong with a value is told below its field; a theme is shown as it is chosen."""

from collections.abc import Callable
from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Select, Static

from lxpy.tui import settings
from lxpy.tui.settings import Settings, SettingsError
from lxpy.tui.widgets.field import Box, Field

FITTING = "what fits the terminal"
_HINTS = {
    "columns": "names in their order; left empty: as many as fit",
    "refresh": "seconds between two readings, 1 to 60",
    "asked": "such as stop: yes, delete: no; left empty: as above",
    "shell": "a command line, such as bash -l",
}
_LABELS = {
    "theme": "Theme", "columns": "Columns", "refresh": "Refresh", "confirm": "Ask first", "asked": "… but for",
    "shell": "Shell", "read_only": "Read-only",
}  # fmt: skip
_LEVELS = {"deletes": "before deleting", "changes": "before stopping and restarting, too"}


class SettingsScreen(ModalScreen[None]):
    """Saves what has changed, and nothing else.

    Args:
        now: the settings in force.
        themes: those that there are.
        show: shows a theme.
        save: writes the changed ones and takes them over; raises `SettingsError`.
    """

    BINDINGS = [
        Binding("escape", "leave", "Cancel", id="settings.cancel"),
        Binding("ctrl+s", "save", "Save", id="settings.save"),
    ]

    def __init__(
        self, now: Settings, themes: list[str], show: Callable[[str], None], save: Callable[[dict[str, Any]], None],
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.now, self.themes, self._show, self._save = now, themes, show, save
        self._before = ""
        self._ready = False

    def compose(self) -> ComposeResult:
        now = self.now
        with Vertical(classes="dialog", id="settings") as box:
            box.border_title = "Settings"
            box.border_subtitle = "tab next field  ·  ^s save  ·  esc cancel"
            with VerticalScroll(id="settings-fields"):
                options = [(FITTING, ""), *((name, name) for name in self.themes)]
                yield from self._field("theme", Select(options, value=now.theme, allow_blank=False, compact=True))
                yield from self._field("columns", self._input(" ".join(now.columns), "columns", settings.COLUMNS))
                yield from self._field("refresh", self._input(f"{now.refresh:g}", "refresh"))
                levels = [(text, level) for level, text in _LEVELS.items()]
                yield from self._field("confirm", Select(levels, value=now.confirm, allow_blank=False, compact=True))
                asked = ", ".join(f"{verb}: {'yes' if answer else 'no'}" for verb, answer in now.asked.items())
                yield from self._field("asked", self._input(asked, "asked", settings.ASKABLE))
                yield from self._field("shell", self._input(settings.shell_line(now), "shell"))
                yield from self._field(
                    "read_only", Box("refuse whatever changes something", now.read_only, compact=True)
                )
            yield Static(f"Kept in {settings.path()}; your comments there stay.", classes="note", markup=False)
            yield Static(id="settings-fault", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button("Save", id="yes", variant="primary", compact=True)

    def _input(self, value: str, name: str, among: Any = ()) -> Field:
        suggester = _LastWord(tuple(among)) if among else None
        return Field(self, value, placeholder=_HINTS[name], suggester=suggester)

    def _field(self, name: str, field: Widget) -> ComposeResult:
        field.id = f"set-{name}"
        with Horizontal(classes="field"):
            yield Static(_LABELS[name], classes="label")
            yield field
        fault = Static(id=f"fault-{name}", classes="fault", markup=False)
        fault.display = False
        yield fault

    def on_mount(self) -> None:
        self._before = self.app.theme
        self.query_one("#settings-fault").display = False
        self.query_one("#set-theme").focus()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self._ready = True  # what the fields say while they come is no choice

    def entered(self, field: Input) -> None:
        self.focus_next()

    def on_select_changed(self, event: Select.Changed) -> None:
        if self._ready and event.select.id == "set-theme":
            self._show(str(event.value) or self._before)

    def on_input_changed(self) -> None:
        if self._ready:
            self._tell(self._read()[1])

    def _read(self) -> tuple[dict[str, Any], dict[str, str]]:
        """What is in the fields, as the file has it; and what is wrong with it, by field."""

        def text(name: str) -> str:
            return str(self.query_one(f"#set-{name}", Input).value).strip()

        theme, level = (str(self.query_one(f"#set-{name}", Select).value) for name in ("theme", "confirm"))
        found: dict[str, Any] = {"read_only": bool(self.query_one("#set-read_only", Checkbox).value)}
        found["theme"] = theme or None
        found["columns"] = text("columns").replace(",", " ").split() or None
        found["shell"] = text("shell") or None
        wrong: dict[str, str] = {}
        try:
            found["refresh"] = float(text("refresh") or "2")
        except ValueError:
            wrong["refresh"] = "it must be a number of seconds, 1 to 60"
        asked: dict[str, Any] = {}
        for word in filter(None, (one.strip() for one in text("asked").split(","))):
            verb, _, answer = word.partition(":")
            asked[verb.strip()] = {"yes": True, "no": False}.get(answer.strip().lower(), answer.strip())
        found["confirm"] = {"level": level, **asked} if asked else level
        for name, value in found.items():
            if value is None:
                continue
            try:
                settings.checked({name: value})
            except SettingsError as error:
                wrong["asked" if name == "confirm" else name] = error.text
        return found, wrong

    def _tell(self, wrong: dict[str, str]) -> None:
        for name in _LABELS:
            fault = self.query_one(f"#fault-{name}", Static)
            fault.display = name in wrong
            fault.update(wrong.get(name, ""))

    def action_save(self) -> None:
        found, wrong = self._read()
        self._tell(wrong)
        if wrong:
            self.query_one(f"#set-{next(iter(wrong))}").focus()
            return
        before = settings.document(self.now)
        try:
            self._save({name: value for name, value in found.items() if value != before.get(name)})
        except SettingsError as error:
            fault = self.query_one("#settings-fault", Static)
            fault.display = True
            fault.update(str(error))
        else:
            self.dismiss(None)

    def action_leave(self) -> None:
        if self.app.theme != self._before:
            self._show(self._before)
        self.dismiss(None)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self.action_save()
        else:
            self.action_leave()


class _LastWord(SuggestFromList):
    """Offers words for the last one that is being typed."""

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__(words)
        self._words = words

    async def get_suggestion(self, value: str) -> str | None:
        head, last = value[: len(value.rstrip())], value.replace(",", " ").split(" ")[-1]
        if not last:
            return None
        found = next((word for word in self._words if word.startswith(last) and word != last), None)
        return head[: len(head) - len(last)] + found if found else None

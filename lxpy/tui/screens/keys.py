"""Keys and values of one object, each with what it is for, where it comes from and what is wrong with it."""

from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.timer import Timer
from textual.widgets import Button, Input, Static

from lxpy.api.errors import PreconditionFailed
from lxpy.tui.editables import Editable, Loaded
from lxpy.tui.gateway import explain
from lxpy.tui.rules import Faults, KeyInfo, explained, info_of, matching
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.form import PAUSE_SECONDS
from lxpy.tui.screens.outlived import Outlived
from lxpy.tui.widgets.field import Field
from lxpy.tui.widgets.table import Column, Part, Table

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class KeyRow:
    """One key in the table.

    Attributes:
        value: what will be in force; `origin`: who says so, "" where nobody does.
        changed: whether it is not what it was.
    """

    __slots__ = ("changed", "fault", "info", "key", "origin", "value")

    def __init__(self, info: KeyInfo, value: str, origin: str, changed: bool, fault: str) -> None:
        self.info, self.key, self.value, self.origin = info, info.name, value, origin
        self.changed, self.fault = changed, fault


class KeysForm(Outlived, ModalScreen[bool]):
    """Answers True once everything is saved. Nothing is sent before that but the question what is wrong.

    One table has the keys that are set, and below them all that could be. What is typed into the upper field finds
    among them; enter goes to the value below.
    """

    BINDINGS = [
        Binding("ctrl+s", "save", "Save", id="keys.save"),
        Binding("ctrl+d", "unset", "Unset", priority=True, key_display="^d", id="keys.unset"),
        Binding("ctrl+o", "open", "Several lines", priority=True, key_display="^o", id="keys.open"),
        Binding("ctrl+e", "yaml", "YAML", priority=True, key_display="^e", id="keys.yaml"),
        Binding("escape", "leave", "Leave", id="keys.leave"),
        Binding("down", "move(1)", "Next key", show=False, priority=True, id="keys.next"),
        Binding("up", "move(-1)", "Previous key", show=False, priority=True, id="keys.previous"),
        Binding("pagedown", "move(10)", "Further", show=False, priority=True, id="keys.page-down"),
        Binding("pageup", "move(-10)", "Back", show=False, priority=True, id="keys.page-up"),
    ]

    def __init__(self, subject: Editable, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subject = subject
        self.infos: dict[str, KeyInfo] = {}
        self.loaded: Loaded | None = None
        self.changes: dict[str, str | None] = {}  # None: unset
        self.faults: Faults = {}
        self._soon: Timer | None = None
        self._refused = ""  # what the last saving met
        self._asked = self._busy = False
        self._found = self._seen = ""  # what of both fields has been taken

    @property
    def lxpy(self) -> "LxpyApp":
        return cast("LxpyApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="keys-form") as box:
            box.border_title = self.subject.title.replace("[", "\\[")
            more = "  ·  ^e YAML" if type(self.subject).yaml is not Editable.yaml else ""
            box.border_subtitle = f"↑↓ key  ·  enter value  ·  ^d unset  ·  ^s save{more}  ·  esc"
            with Horizontal(classes="field"):
                yield Static("Find", classes="label")
                yield Field(self, placeholder="a key or what it does: memory, autostart, user.colour", id="keys-find")
            yield Table(
                [
                    Column("key", "KEY", _key, None, 14, 38),
                    Column("value", "VALUE", _value, None, 10, 60, 1, 1),
                    Column("from", "FROM", _origin, None, 4, 20),
                ],
                id="keys-table",
            )  # fmt: skip
            yield Static(id="keys-about")
            with Horizontal(classes="field"):
                yield Static("Value", classes="label")
                yield Field(self, id="keys-value")
            yield Static(id="keys-fault", classes="fault", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Unset", id="unset", compact=True)
                yield Button("Cancel", id="no", compact=True)
                yield Button("Save", id="yes", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.table = self.query_one(Table)
        self.table.can_focus = False
        self.table.empty = [(("reading …", "dim"),)]
        self.find, self.value = self.query_one("#keys-find", Field), self.query_one("#keys-value", Field)
        self.set_focus(self.find)
        self.run_worker(self._load(), exit_on_error=False)

    async def _load(self) -> None:
        try:
            self.infos = await self.subject.keys()
            self.loaded = await self.subject.load()
        except Exception as error:
            self.table.empty = [((explain(error), "bad"),)]
            self.table.refresh()
            return
        self.changes = {key: value for key, value in self.changes.items() if self.loaded.own.get(key) != value}
        self._fill()
        self._look_soon()

    # What is shown

    def own(self) -> dict[str, str]:
        """What would be saved."""
        assert self.loaded is not None
        kept = {key: value for key, value in self.loaded.own.items() if key not in self.changes}
        return kept | {key: value for key, value in self.changes.items() if value is not None}

    def _row(self, info: KeyInfo, own: dict[str, str]) -> KeyRow:
        assert self.loaded is not None
        inherited = self.loaded.inherited.get(info.name, ("", ""))
        value, origin = (own[info.name], self.subject.own) if info.name in own else inherited
        return KeyRow(info, value, origin, info.name in self.changes, self.faults.get(info.name, ""))

    def _info(self, key: str) -> KeyInfo:
        return info_of(self.infos, key)

    def _fill(self) -> None:
        if self.loaded is None:
            return
        own, typed = self.own(), self.find.value.strip()
        other, self._found = typed != self._found, typed
        held = {*own, *self.loaded.inherited, *self.changes}
        held = {key for key in held if not key.startswith("image.")}
        known = {key: self._info(key) for key in (*held, *self.infos)}
        chosen = matching(known.values(), typed)
        exact = typed and " " not in typed and typed not in known
        if exact and (not chosen or self._info(typed).text):
            chosen.insert(0, self._info(typed))  # of the user's own choosing: environment.LANG, user.colour
        chosen.sort(key=lambda info: info.name not in held) if not typed else None
        self.table.empty = [(("no key is called so or does that", "dim"),)]
        before = self.table.current
        self.table.show([self._row(info, own) for info in chosen if not info.family or info.name != typed])
        if typed and other and before is not None and self.find.has_focus:
            self.table.action_to(0)
        self._tell()

    def _catch_up(self) -> None:
        """Takes what is in the field although it has not told of its last change yet: a key may have come at once."""
        if self.value.has_focus and self.value.value != self._seen:
            self._seen = self.value.value
            self._set(self._seen)
        if self.find.value.strip() != self._found:
            self._fill()

    def _tell(self) -> None:
        """What is said of the key under the cursor."""
        row: KeyRow | None = self.table.current
        about, fault = self.query_one("#keys-about", Static), self.query_one("#keys-fault", Static)
        told = Content.assemble((row.key, "bold"), "  ", (explained(row.info), "$faint")) if row else Content("")
        about.update(told)
        wrong = (row.fault if row else "") or self._refused or self.faults.get("", "")
        if not wrong and self._asked:
            wrong = "It has changed: ctrl+s saves it, esc once more leaves it as it was"
        fault.update(wrong)
        fault.display = bool(wrong)

    def _show_value(self) -> None:
        """The value of the key under the cursor into the field below."""
        row: KeyRow | None = self.table.current
        with self.prevent(Input.Changed):
            text = row.value if row else ""
            self.value.value = text if "\n" not in text else f"{text.count(chr(10)) + 1} lines: ctrl+o opens them"
            self.value.cursor_position = len(self.value.value)
        self._seen = self.value.value
        self.value.disabled = row is None or "\n" in row.value or bool(row.info.family and row.key == row.info.name)
        info = row.info if row else KeyInfo("")
        self.value.placeholder = " | ".join(info.values) or info.default or info.type
        self.value.suggester = SuggestFromList(info.values, case_sensitive=False) if info.values else None

    # The keyboard and the mouse

    def on_input_changed(self, event: Input.Changed) -> None:
        if event.input in (self.find, self.value):
            self._catch_up()

    def _set(self, text: str | None) -> None:
        row: KeyRow | None = self.table.current
        if row is None or self.loaded is None:
            return
        self._asked, self._refused = False, ""
        before = self.loaded.own.get(row.key)
        text = text or None  # the daemon means the same by nothing
        if text == before:
            self.changes.pop(row.key, None)
        else:
            self.changes[row.key] = text
        self.faults.pop(row.key, None)
        self._redraw()
        if self._soon is not None:
            self._soon.stop()
        self._soon = self.set_timer(PAUSE_SECONDS, self._look_soon)

    def _redraw(self) -> None:
        own = self.own()
        fresh = {row.key: self._row(row.info, own) for row in self.table.rows}
        self.table.show([fresh[row.key] for row in self.table.rows])
        self._tell()

    def _look_soon(self) -> None:
        self.run_worker(self._look(), group="check", exclusive=True, exit_on_error=False)

    async def _look(self) -> bool:
        """Asks what is wrong; whether nothing is."""
        if self.loaded is None:
            return False
        own = self.own()
        try:
            faults = await self.subject.check(own, self.loaded)
        except Exception as error:
            faults = {"": explain(error)}
        if self.is_mounted and own == self.own():
            self.faults = faults
            self._redraw()
        return not faults

    def on_table_highlighted(self) -> None:
        if not self.value.has_focus or self.table.current is None:
            self._show_value()
        self._tell()

    def on_table_chosen(self) -> None:
        self._edit()

    def on_click(self, event: Any) -> None:
        if event.widget is self.table and self.table.current is not None:
            self._show_value()
            self._tell()

    def action_move(self, by: int) -> None:
        self._catch_up()
        self.table.action_move(by)
        self._show_value()

    def entered(self, field: Input) -> None:
        self._catch_up()
        if field is self.find:
            self._edit()
        else:
            self._done()

    def _edit(self) -> None:
        row: KeyRow | None = self.table.current
        if row is None:
            return
        if row.info.family and row.key == row.info.name:  # environment.NAME: the name is to be written first
            self.find.value = row.info.family
            self.find.cursor_position = len(row.info.family)
            self.set_focus(self.find)
        elif "\n" in row.value:
            self.action_open()
        else:
            self._show_value()
            self.set_focus(self.value)

    def _done(self) -> None:
        """The value is written: on to the next key."""
        self.set_focus(self.find)
        with self.prevent(Input.Changed):
            self.find.value = ""
        self._fill()

    def action_unset(self) -> None:
        row: KeyRow | None = self.table.current
        if row is None or self.loaded is None:
            return
        if row.key in self.own():
            self._set(None)
            self._show_value()
        elif row.key in self.loaded.inherited:
            self.notify(f"It comes from {self.loaded.inherited[row.key][1]}: an own value goes before it",
                        title="Not its own", severity="warning", markup=False)  # fmt: skip

    def action_open(self) -> None:
        """The value in a field of several lines."""
        from lxpy.tui.screens.lines import Lines

        row: KeyRow | None = self.table.current
        if row is None or (row.info.family and row.key == row.info.name):
            return

        def take(text: str | None) -> None:
            if text is not None:
                self._set(text)
                self._show_value()

        self.app.push_screen(Lines(row.key, row.value, explained(row.info)), take)

    def action_yaml(self) -> None:
        if self.changes:
            self.notify("ctrl+s saves them, ctrl+d takes them back", title="There are changes here", markup=False)
        elif self.subject.yaml():
            self.dismiss(False)

    def action_leave(self) -> None:
        self._catch_up()
        if self.value.has_focus:
            self._done()
        elif self.find.value:
            self.find.value = ""
        elif not self.changes or self._asked:
            self.dismiss(False)
        else:
            self._asked = True
            self._tell()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self.action_save()
        elif event.button.id == "unset":
            self.action_unset()
        else:
            self.dismiss(False)

    # Saving

    def action_save(self) -> None:
        if self.loaded is None or self._busy:
            return
        self._catch_up()
        if not self.changes and not self.subject.ready:
            self.dismiss(False)
            return
        self._busy = True
        self.lxpy.run_worker(self._save(), group="verbs", exit_on_error=False)

    async def _save(self) -> None:
        try:
            if self.loaded is None or not await self._look():
                self._to_fault()
                return
            await self.subject.save(self.own(), self.loaded)
        except Exception as error:
            if self.open and isinstance(error, PreconditionFailed):
                self._conflict()
            else:
                self.fail(error, "Cannot save", self.subject.title, self._refuse)
        else:
            if self.open:
                self.dismiss(True)
        finally:
            self._busy = False

    def _refuse(self, why: str) -> None:
        self._refused = why
        self._tell()

    def _to_fault(self) -> None:
        """Puts the cursor on what is wrong."""
        if self.is_mounted and (key := next((key for key in self.faults if key), "")):
            if key not in {row.key for row in self.table.rows}:
                self.find.value = ""
                self._fill()
            place = next((i for i, row in enumerate(self.table.rows) if row.key == key), None)
            if place is not None:
                self.table.action_to(place)
                self._show_value()

    def _conflict(self) -> None:
        def chosen(choice: str | None) -> None:
            if choice == "Reload":
                self.run_worker(self._load(), exit_on_error=False)
            elif choice == "Overwrite":
                self._busy = True
                self.lxpy.run_worker(self._overwrite(), group="verbs", exit_on_error=False)

        self.app.push_screen(
            Choose("Somebody else has changed it meanwhile", [
                Choice("Reload", "show theirs; what you changed stays, not saved"),
                Choice("Overwrite", "save what you changed over theirs"),
            ], by_label=True), chosen,
        )  # fmt: skip

    async def _overwrite(self) -> None:
        try:
            self.loaded = await self.subject.load()
        except Exception as error:
            self.fail(error, "Cannot save", self.subject.title, self._refuse)
            self._busy = False
            return
        await self._save()


def _key(row: KeyRow, _: int) -> tuple[Part, ...]:
    mark = ("✖ ", "bad") if row.fault else ("● ", "accent") if row.changed else ("", "")
    return (mark, (row.key, "strong" if row.origin else "dim"))


def _value(row: KeyRow, _: int) -> tuple[Part, ...]:
    if not row.origin:
        return (("unset" if row.changed else row.info.default or "–", "dim"),)
    first, _newline, rest = row.value.partition("\n")
    return ((first, "bad" if row.fault else ""), (" …" if rest else "", "dim"))


def _origin(row: KeyRow, _: int) -> tuple[Part, ...]:
    return ((row.origin, "ok" if row.origin == "own" else "info"),)

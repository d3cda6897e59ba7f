"""`lxpy` on a terminal: the app itself, its keys and what they start.

The frame is painted first and filled from the daemon afterwards; dialogs are imported when they are opened.
"""

import gc
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from textual import events
from textual.app import App
from textual.binding import Binding
from textual.filter import LineFilter
from textual.geometry import Size
from textual.notifications import SeverityLevel
from textual.screen import Screen

from lxpy.api.status import SUCCESS
from lxpy.tui.actions import Actions
from lxpy.tui.gateway import Cancelled, Gateway, explain, local_gateway
from lxpy.tui.harmless import Harmless
from lxpy.tui.model import Changed, Connection, Finished, Follower, Model
from lxpy.tui.rows import ImageRow
from lxpy.tui.rules import Rules
from lxpy.tui.screens.main import TALL, WIDE, MainScreen
from lxpy.tui.settings import Settings, SettingsError, line_of
from lxpy.tui.settings import load as load_settings
from lxpy.tui.theme import THEMES, derived
from lxpy.tui.widgets.inturn import InTurn

if TYPE_CHECKING:
    from textual.command import Provider


def _objects() -> "type[Provider]":
    from lxpy.tui.commands import Everything

    return Everything


_SIGNS = {"information": "·", "warning": "!", "error": "✖"}


class LxpyApp(App[int]):
    """The app.

    Args:
        gateway: the way to the daemon.
        settings: the user's.
        read_only: whether nothing may be changed, whatever the settings say.
    """

    TITLE = "lxpy"
    CSS_PATH = "app.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL, "-tall")]
    COMMANDS = {_objects}
    ENABLE_COMMAND_PALETTE = True
    COMMAND_PALETTE_BINDING = "ctrl+p"
    BINDINGS: ClassVar[list[Any]] = [
        Binding("colon", "command_palette", "Commands", key_display=":", id="app.palette"),
        Binding("question_mark", "help", "Help", key_display="?", id="app.help"),
        Binding("q", "quit", "Quit", id="app.quit"),
        Binding("o", "operations", "Operations", show=False, id="app.operations"),
        Binding("b", "verb('results')", "Results of work on many", show=False, id="app.results"),
        Binding("f2", "switch('project')", "Project", show=False, id="app.project"),
        Binding("f3", "switch('remote')", "Remote", show=False, id="app.remote"),
        Binding("ctrl+r", "reload", "Read everything anew", show=False, id="app.reload"),
        Binding("h", "messages", "Messages so far", show=False, id="app.messages"),
        Binding("comma", "settings", "Settings", show=False, key_display=",", id="app.settings"),
        Binding("ctrl+q", "quit", "Quit", show=False, id="app.quit-always"),
    ]

    def __init__(self, gateway: Gateway, settings: Settings | None = None, read_only: bool = False) -> None:
        super().__init__()
        self.gateway = gateway
        self.settings = settings or Settings()
        self._looks_only = read_only  # whatever the settings say
        self.read_only = read_only or self.settings.read_only
        self.model = Model(gateway, self.post_message, self.settings.refresh)
        self.rules = Rules(gateway)
        self.actions = Actions(self)
        self.main = MainScreen(self.model)
        self.fault: Exception | None = None
        self._harmless = Harmless()
        self.messages: list[str] = []  # the last ones, oldest first
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = "lxpy-16" if few_colours(os.environ) else "lxpy-dark"
        self.main.panes[0].choose_columns(self.settings.columns)
        self._settings_faults = self._settle()

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return {} if self.current_theme in THEMES else derived(self.current_theme)

    def get_line_filters(self) -> Sequence[LineFilter]:
        return [*super().get_line_filters(), self._harmless]

    def get_default_screen(self) -> Screen[Any]:
        # As the first resize will find it: everything would be styled and laid out once more otherwise.
        width, height = self.size
        self.main.set_class(True, "-wide" if width >= WIDE else "-narrow", "-tall" if height >= TALL else "-short")
        return self.main

    def _settle(self) -> list[str]:
        """Takes over theme and keys; gives what cannot be."""
        faults: list[SettingsError] = []
        if self.settings.theme in self.available_themes:
            self.theme = self.settings.theme
        elif self.settings.theme:
            names = ", ".join(sorted(self.available_themes))
            faults.append(SettingsError(f"{self.settings.theme!r} is none of {names}", "theme"))
        if self.settings.keys:
            from lxpy.tui import keymap

            faults += keymap.faults(self.settings.keys)
        self.set_keymap(dict(self.settings.keys))
        return [str(SettingsError(one.text, one.key, one.within, line_of(one.key, one.within))) for one in faults]

    def show_theme(self, name: str) -> None:
        """Shows a theme; "" for the one that fits the terminal."""
        self.theme = name or ("lxpy-16" if few_colours(os.environ) else "lxpy-dark")

    def change_settings(self, changes: dict[str, Any]) -> None:
        """Writes settings into the user's file, and takes them over at once.

        Raises:
            SettingsError: they cannot be written.
        """
        from lxpy.tui.settingsfile import save

        if changes:
            self.settings = save(changes)
        self.show_theme(self.settings.theme if self.settings.theme in self.available_themes else "")
        self.main.panes[0].choose_columns(self.settings.columns)
        self.model.refresh_every(self.settings.refresh)
        self.read_only = self._looks_only or self.settings.read_only
        self.main.refresh(layout=True)

    def action_settings(self) -> None:
        """The settings as a form."""
        from lxpy.tui.screens.settings import SettingsScreen

        if self.on_main:
            themes = sorted(self.available_themes, key=lambda name: (not name.startswith("lxpy"), name))
            self.push_screen(SettingsScreen(self.settings, themes, self.show_theme, self.change_settings))

    def action_change_theme(self) -> None:
        """Choosing a theme by looking at it; the choice is kept for good."""
        from lxpy.tui.screens.themes import ThemeScreen

        def chosen(name: str | None) -> None:
            if name is None:
                return
            try:
                self.change_settings({"theme": name})
            except SettingsError as error:
                self.theme = name  # at least for now
                self.notify(str(error), title="The theme is not kept", severity="warning", timeout=12, markup=False)
            else:
                self.notify(f"{name} is kept in config.yaml", title="Theme", timeout=3, markup=False)

        self.push_screen(ThemeScreen(self.show_theme), chosen)

    def on_mount(self) -> None:
        for fault in self._settings_faults:
            self.notify(fault, title="Settings", severity="warning", timeout=12, markup=False)
        # After the first frame: painting comes before asking.
        self.call_after_refresh(self._begin)

    async def _begin(self) -> None:
        self.model.start()
        if self.screen_stack:
            await self.main.complete()
            self._fit(self.size)
        if not self.is_headless:
            # What has been made until now stays: to look through it again and again would only make the app stutter.
            gc.freeze()
            gc.enable()

    async def on_unmount(self) -> None:
        self.model.stop()

    @property
    def on_main(self) -> bool:
        """Whether the main screen has the keyboard, no dialog."""
        return self.screen_stack[-1:] == [self.main]

    @property
    def in_shell(self) -> bool:
        """Whether all keys belong to a shell inside."""
        return bool(getattr(self.focused, "typing", False))

    async def _check_bindings(self, key: str, priority: bool = False) -> bool:
        # Where text is typed a key waits for those before it, with priority or without: the field asks in its turn.
        return not (priority and isinstance(self.focused, InTurn)) and await super()._check_bindings(key, priority)

    async def key_in_turn(self, key: str, *, text: bool) -> bool:
        """Does what a key is bound to, from the field that it has come to; whether there is anything.

        Args:
            text: it is text there, so that only a binding with priority counts.
        """
        return await super()._check_bindings(key, True) or (not text and await super()._check_bindings(key))

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a shell no key is the app's, not even those with priority."""
        return not self.in_shell

    # The model speaks; while the app closes its screens go first, and what is said then is for nobody

    def on_changed(self, message: Changed) -> None:
        if self.screen_stack:
            self.main.changed(message)
            if not self.on_main and isinstance(self.screen, Follower):
                self.screen.changed(message)
            if "fresh" in message.parts and self.model.fresh and not self.read_only:
                self.actions.do("setup", [])

    def on_connection(self, message: Connection) -> None:
        if self.screen_stack:
            self.main.connection(message)

    def on_finished(self, message: Finished) -> None:
        # Failures of others' work (another client's) are seen in the operations list; ours are told by the verb.
        if self.screen_stack and message.operation["status_code"] == SUCCESS and self.main.detail.display:
            self.main.detail.tab.tick()

    def on_resize(self, event: events.Resize) -> None:
        self._fit(event.size)

    def _fit(self, size: Size) -> None:
        """Says so instead of drawing what nobody could read."""
        from lxpy.tui.screens.small import SmallScreen, too_small

        if not self.screen_stack:
            return  # it is still to come
        if not too_small(size):
            if isinstance(self.screen, SmallScreen):
                self.pop_screen()
        elif not any(isinstance(screen, SmallScreen) for screen in self.screen_stack):
            self.push_screen(SmallScreen())

    def on_app_focus(self, event: events.AppFocus) -> None:
        self.model.focused = True

    def on_app_blur(self, event: events.AppBlur) -> None:
        self.model.focused = False

    # What can be done

    def action_verb(self, verb: str) -> None:
        """Does `verb` to the marked or selected objects."""
        self.actions.do(verb, self.main.targets())

    def action_describe(self) -> None:
        self.main.action_open_detail()

    def action_launch(self, image: str = "") -> None:
        """Opens the launch dialog; from the Images and Remotes panes with the selected one filled in."""
        if self.read_only:
            self.actions.refuse("launch")
            return
        if self.model.fresh:  # there is nowhere to put an instance yet
            self.actions.do("setup", [])
            return
        from lxpy.tui.screens.launch import LaunchDialog

        row = self.main.active.current
        if not image and isinstance(row, ImageRow):
            image = row.reference
        elif not image and row is not None and getattr(row, "protocol", "lxd") != "lxd":
            image = f"{row.name}:"
        self.push_screen(LaunchDialog(self.model, self.actions.launch, image))

    async def action_filter(self) -> None:
        from lxpy.tui.widgets.filter import FilterBar

        if self.on_main and not self.main.query(FilterBar):
            bar = FilterBar(self.main.active)
            await self.main.mount(bar, before="#keys")  # the keys typed after the slash wait until it is there
            self.main.set_focus(bar.field)

    def action_help(self) -> None:
        from lxpy.tui.screens.help import HelpScreen

        if self.on_main:
            self.push_screen(HelpScreen(self.main))

    def action_operations(self) -> None:
        if self.on_main:
            self.main.action_pane(self.main.pane("operations").number)

    def action_copy(self) -> None:
        from lxpy.tui.verbs import clipboard

        clippings = getattr(self.main.detail.tab, "clippings", None) if self.main.detail.has_focus_within else None
        if clippings is not None:
            found = clippings()
        else:
            row = self.main.active.current
            found = [] if row is None else clipboard.clips(self, row)
        if found:
            clipboard.menu(self, found)

    def action_switch(self, what: str) -> None:
        """Asks for another project or remote, and looks at that one from then on."""
        if self.on_main:
            from lxpy.tui.verbs.places import switch

            switch(self, what)

    async def action_reload(self) -> None:
        await self.model.reload()

    def action_go(self, kind: int, key: str) -> None:
        """Puts the cursor on an object of pane `kind`; the command palette's way to objects."""
        pane = self.main.panes[kind - 1]
        if all(row.key != key for row in pane.all_rows):
            self.main.changed(Changed(pane.kind))  # the model has it already, and the message is under way
        if pane.query_text and key not in {row.key for row in pane.rows}:
            pane.filter("")
        if self.focused is not pane:
            self.main.action_pane(kind)
        place = next((i for i, row in enumerate(pane.rows) if row.key == key), None)
        if place is not None:
            pane.action_to(place)

    # Failing readably

    def notify(self, message: str, *, title: str = "", severity: SeverityLevel = "information", **more: Any) -> None:
        """Tells something, and keeps it for `action_messages`."""
        at = datetime.now().astimezone().strftime("%H:%M:%S")
        self.messages = [*self.messages[-499:], f"{at}  {_SIGNS[severity]} {title + ': ' if title else ''}{message}"]
        super().notify(message, title=title, severity=severity, **more)

    def action_messages(self) -> None:
        """What the app has told so far: messages go before everybody has read them."""
        from lxpy.tui.screens.text import TextScreen

        if self.on_main:
            self.push_screen(TextScreen("Messages", "\n".join(reversed(self.messages)) or "None yet"))

    def fail(self, what: str, error: BaseException, about: str = "") -> None:
        """Tells that `what` did not work, why, and what to do.

        Args:
            what: begins with "Cannot".
            about: the object, where `what` does not name it.
        """
        named = f"{about}: " if about else ""
        if isinstance(error, Cancelled):
            doing = what.removeprefix("Cannot ")
            self.notify(f"{named}{doing[:1].upper()}{doing[1:]}", title="Cancelled", timeout=4, markup=False)
        else:
            self.notify(f"{named}{explain(error)}", title=what, severity="error", timeout=12, markup=False)

    def _handle_exception(self, error: Exception) -> None:
        # A fault of ours. The part of the app that met it has ended, so the app leaves, with one line instead of a
        # traceback; `run` prints it. Tests want the exception itself.
        if self.is_headless:
            super()._handle_exception(error)
        elif self.fault is None:
            self.fault = error
            self.exit(return_code=1)


def binding_ids() -> dict[str, tuple[str, str]]:
    """Key and description of each binding that settings may change, by id."""
    from lxpy.tui import keymap

    return {str(b.id): (b.key, b.description) for _, b in keymap.bindings()}


def few_colours(environment: Mapping[str, str]) -> bool:
    """Whether the terminal says it has 16 colours: then its own palette is used, not approximations of ours."""
    term = environment.get("TERM", "")
    rich = "truecolor" in environment.get("COLORTERM", "") or "24bit" in environment.get("COLORTERM", "")
    return term in ("linux", "xterm", "screen", "vt100", "vt220", "ansi", "xterm-color", "rxvt") and not rich


def run(remote: str = "", project: str = "", read_only: bool = False) -> int:
    """Shows the app on this terminal; gives the exit status.

    Args:
        remote: whose daemon, "" for the default one's.
        project: "" for the remote's own.
        read_only: refuse whatever would change something.
    """
    try:
        settings, fault = load_settings(), ""
    except SettingsError as error:
        settings, fault = error.settings, str(error)
    app = LxpyApp(local_gateway(remote.rstrip(":"), project), settings, read_only)
    if fault:
        app._settings_faults.append(f"{fault}\nWhat is faulty is as usual.")
    result = app.run()
    if app.fault is not None:
        print(f"Error: the app met a fault of its own: {_record(app.fault)}", file=sys.stderr)
        return 1
    return result or app.return_code or 0


def _record(fault: BaseException) -> str:
    """Writes the whole story of `fault` for a bug report; gives one line that says what and where."""
    import traceback

    from lxpy.client.remotes import config_dir

    line = f"{type(fault).__name__}: {fault}".splitlines()[0]
    path = f"{config_dir()}/tui-fault.log"
    try:
        os.makedirs(config_dir(), mode=0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write("".join(traceback.format_exception(fault)))
    except OSError:
        return line
    return f"{line} (details for a report: {path})"

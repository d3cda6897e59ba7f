"""The detail area: the selected object in tabs. The tabs themselves are in `tabs/`."""

import importlib
from collections.abc import Iterable
from typing import Any, TypeVar

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding, BindingsMap
from textual.containers import Vertical

from lxpy.tui.rows import InstanceRow
from lxpy.tui.tabs import ALL, Tab
from lxpy.tui.widgets.links import Titled, by_mouse, window

T = TypeVar("T", bound=Tab)


class Detail(Titled, Vertical):
    """Shows one object; the screen's `[` and `]` turn its tabs, and `+` gives it the whole width."""

    BINDINGS = [
        Binding("escape", "screen.close_detail", "Back", id="detail.back"),
        Binding("plus", "screen.zoom", "Zoom", key_display="+", show=False, id="detail.zoom"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subject: Any = None
        self.tabs: list[Tab] = _tabs(ALL[:1])
        self._tab = self.tabs[0]
        self._own = self._bindings
        self._lent: type | None = None  # the pane whose verbs' keys work here, too

    def compose(self) -> ComposeResult:
        yield from self.tabs

    def on_mount(self) -> None:
        self.set_interval(2.0, self._tick)
        self._arrange()

    async def complete(self) -> None:
        """Adds all tabs but the first, which nobody can see before there is something to select."""
        rest = _tabs(ALL[1:])
        self.tabs[1:1] = rest
        for tab in rest:
            tab.display = False
        await self.mount_all(rest, after=0)
        self._arrange()

    def find(self, kind: type[T]) -> T:
        """The tab of that class."""
        return next(tab for tab in self.tabs if isinstance(tab, kind))

    @property
    def tab(self) -> Tab:
        """The tab that is seen."""
        return self._tab

    def show(self, subject: Any) -> None:
        """A row of one of the panes, or None."""
        self.subject = subject
        self._arrange()

    def fitting(self) -> list[Tab]:
        """The tabs of the selected object: its own shells come last."""
        return [tab for tab in self.tabs if tab.belongs(self.subject)]

    def turn(self, by: int) -> None:
        """To the next or previous tab."""
        tabs = self.fitting()
        at = tabs.index(self._tab) if self._tab in tabs else 0
        self.choose(tabs[(at + by) % len(tabs)])

    def choose(self, tab: Tab) -> None:
        """Shows a tab."""
        self._tab = tab
        self._arrange()

    def focus_inside(self) -> None:
        """Puts the keyboard on the visible tab."""
        self._tab.inside().focus()

    def _arrange(self) -> None:
        if not self.is_mounted:
            return
        tabs = self.fitting()
        if self._tab not in tabs:
            self._tab = self._stand_in(tabs)
        had_focus = self.has_focus_within and not self.has_focus
        self._lend()
        self.screen.set_class(self._tab.TYPED_INTO, "-shell")
        for tab in self.tabs:
            tab.display = tab is self._tab
            tab.tell(self.subject, tab is self._tab and self.display)
        if had_focus and not self._tab.has_focus_within:
            self.call_after_refresh(self.focus_inside)
        self.sweep()
        self.retitle()

    def sweep(self) -> None:
        """Takes away what nobody can come to any more: ended shells of instances that are gone."""
        for tab in [tab for tab in self.tabs if tab is not self._tab and tab.is_orphan()]:
            self.tabs.remove(tab)
            tab.remove()

    def _lend(self) -> None:
        """What can be done to the object in its list can be done here with the same keys; a tab's own come first.

        Not beside a shell: what is typed into one that does not listen must not stop its instance.
        """
        lender = None if self.subject is None or self._tab.TYPED_INTO else type(self.screen.active)  # type: ignore[attr-defined]
        if lender is self._lent:
            return
        self._lent = lender
        verbs = (
            [b for b in lender.BINDINGS if b.action.startswith("app.") and b.action != "app.filter"] if lender else []
        )
        self._bindings = BindingsMap.merge([self._own, BindingsMap(verbs)])
        self.refresh_bindings()

    def _stand_in(self, tabs: list[Tab]) -> Tab:
        """What to show of an object that has no such tab: of the same kind (another instance's shell), or the first."""
        return next((tab for tab in tabs if type(tab) is type(self._tab)), tabs[0])

    def retitle(self) -> None:
        """Draws the names of the tabs into the border."""
        subject = self.subject
        name = getattr(subject, "name", "") or getattr(subject, "title", "")
        tabs = self.fitting()
        name = name.replace("[", "\\[")
        if len(tabs) < 2:
            self.entitle(name or "Nothing selected")
            return
        room = max(self.size.width, 30) - cell_len(name) - 3  # blanks at both ends
        first, last = window([cell_len(tab.title) + 3 for tab in tabs], tabs.index(self._tab), room)
        links = []
        for number in range(first, last):
            weight = "b" if tabs[number] is self._tab else "dim"
            links.append(by_mouse(f"tab_at({number})", f"[{weight}]{tabs[number].title}[/{weight}]"))
        before = by_mouse(f"tab_at({first - 1})", "[dim]‹[/dim] ") if first else ""
        after = by_mouse(f"tab_at({last})", " [dim]›[/dim]") if last < len(tabs) else ""
        self.entitle(f"{name} [dim]·[/dim] {before}" + " [dim]│[/dim] ".join(links) + after)

    def on_resize(self) -> None:
        self.retitle()

    def _tick(self) -> None:
        model = self._tab.lxpy.model
        if self.display and model.connected and self.screen.is_current:
            self._tab.tick()

    # Shells

    def open_shell(self, row: InstanceRow, another: bool = False, console: bool = False) -> None:
        """To the shell of an instance: the last one, or a new one where there is none or `another` is wanted.

        Args:
            console: to its console instead, of which there is one.
        """
        from lxpy.tui.tabs.shell import ConsoleTab, ShellTab

        self.subject = row
        kind = ConsoleTab if console else ShellTab
        shells = [tab for tab in self.fitting() if type(tab) is kind]
        going = [tab for tab in shells if not tab.ended]
        if going and (console or not another):
            tab = going[-1]
        else:
            tab = kind(row, max((s.number for s in shells), default=0) + 1, classes="tab")
            self.tabs.append(tab)
            self.mount(tab)
        self.choose(tab)
        self.call_after_refresh(self.focus_inside)

    def on_terminal_view_another(self) -> None:
        if isinstance(self.subject, InstanceRow):
            self.open_shell(self.subject, another=True)

    async def on_terminal_view_shut(self, event: Any) -> None:
        tab = event.view.parent
        if tab not in self.tabs:
            return
        seen, had_focus = tab is self._tab, tab.has_focus_within
        if had_focus:  # or the keyboard goes to whatever comes next on the screen
            self.screen.set_focus(None)
        self.tabs.remove(tab)
        await tab.remove()
        if seen:
            shells = [t for t in self.fitting() if type(t) is type(tab)]
            self._tab = shells[-1] if shells else self.tabs[0]
        self._arrange()
        if had_focus and type(self._tab) is type(tab):
            self.focus_inside()
        elif had_focus:
            self.border_subtitle = ""
            self.screen.action_close_detail()  # type: ignore[attr-defined]

    def on_terminal_view_typing(self) -> None:
        self.border_subtitle = self._hint()

    def on_descendant_focus(self) -> None:
        self.border_subtitle = self._hint()

    def on_descendant_blur(self) -> None:
        self.border_subtitle = ""

    def _hint(self) -> str:
        view = self._tab.inside()
        if not view.has_focus or not hasattr(view, "typing"):
            return by_mouse("back_at()", "esc back") if self.screen.has_class("-detail") else ""
        if view.typing:
            return by_mouse("back_at()", "[$accent]ctrl+] leaves the shell[/]")
        return f"enter types · {by_mouse('zoom_at()', '+ zooms')} · {by_mouse('back_at()', 'esc back')}"


def _tabs(which: Iterable[tuple[str, str]]) -> list[Tab]:
    return [getattr(importlib.import_module(f"lxpy.tui.tabs.{module}"), name)(classes="tab") for module, name in which]

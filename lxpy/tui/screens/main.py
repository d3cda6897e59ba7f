"""The main screen: header, panes, detail, running work, keys."""

from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen

from lxpy.tui.model import Changed, Connection, Model
from lxpy.tui.panes.base import ListPane
from lxpy.tui.panes.detail import Detail
from lxpy.tui.panes.images import ImagesPane
from lxpy.tui.panes.instances import InstancesPane
from lxpy.tui.panes.remotes import RemoteRow, RemotesPane
from lxpy.tui.rows import InstanceRow
from lxpy.tui.widgets.bars import HeaderBar, KeyBar, WorkBar
from lxpy.tui.widgets.table import Table

# Below these the panes fold (the app's breakpoints).
WIDE, TALL = 110, 30


class MainScreen(Screen[None]):
    """Three numbered panes and a detail area.

    Below 110 columns or 30 lines the panes fold: one is seen at a time, and the detail opens over it with enter.
    """

    BINDINGS: ClassVar[list[Any]] = [
        Binding("1", "pane(1)", "Instances", show=False, id="main.pane-1"),
        Binding("2", "pane(2)", "Images", show=False, id="main.pane-2"),
        Binding("3", "pane(3)", "Remotes", show=False, id="main.pane-3"),
        Binding("tab", "cycle(1)", "Next pane", show=False, id="main.next-pane"),
        Binding("shift+tab", "cycle(-1)", "Previous pane", show=False, id="main.previous-pane"),
        Binding("left_square_bracket", "tab(-1)", "Previous tab", show=False, key_display="[", id="detail.previous"),
        Binding("right_square_bracket", "tab(1)", "Next tab", show=False, key_display="]", id="detail.next"),
    ]

    def __init__(self, model: Model) -> None:
        super().__init__(id="main")
        self.model = model
        self.panes: list[ListPane] = [
            InstancesPane(model.busy, id="instances", classes="pane -active"),
            ImagesPane(id="images", classes="pane"),
            RemotesPane(id="remotes", classes="pane"),
        ]
        self.detail = Detail(id="detail", classes="pane")
        self.active = self.panes[0]

    def compose(self) -> ComposeResult:
        yield HeaderBar(self.model, id="header")
        with Horizontal(id="body"):
            with Vertical(id="lists"):
                yield self.panes[0]
                with Horizontal(id="lower"):
                    yield self.panes[1]
                    yield self.panes[2]
            yield self.detail
        yield WorkBar(self.model, id="work")
        yield KeyBar(id="keys")

    def on_mount(self) -> None:
        self.query_one(WorkBar).display = False
        for pane in self.panes:
            pane.empty = [(("Loading …", "dim"),)]
        self.panes[0].focus()
        self.set_interval(20, self._ages)

    # The model speaks

    def changed(self, message: Changed) -> None:
        parts = message.parts
        if "instances" in parts:
            self.panes[0].fill(list(self.model.instances.values()))
        elif "usage" in parts:
            if self.panes[0].sort_key == "memory":
                self.panes[0].fill(list(self.model.instances.values()))
            else:
                self.panes[0].refresh()
                self._show_detail()
        elif "operations" in parts:
            self.panes[0].refresh()
        if "images" in parts:
            self.panes[1].fill(list(self.model.images))
        if "remotes" in parts:
            self.panes[2].fill([RemoteRow(info) for info in self.model.remotes])
        if "operations" in parts:
            for bar in self.query(WorkBar):
                bar.update_work()
        for header in self.query(HeaderBar):  # none while the screen goes
            header.refresh()

    def connection(self, _: Connection) -> None:
        if self.model.connected is False and not self.model.loaded:
            self.panes[0].empty = [
                (("Not connected", "bad"),),
                *(((line, "dim"),) for line in _fold(self.model.reason, max(30, self.panes[0].size.width - 6))),
                (("The app connects as soon as the daemon answers.", "dim"),),
            ]
            self.panes[0].refresh()
        for bar in self.query(WorkBar):
            bar.update_work()
        for header in self.query(HeaderBar):  # none while the screen goes
            header.refresh()

    def on_resize(self, event: events.Resize) -> None:
        folded = event.size.width < WIDE or event.size.height < TALL
        others = [f"[b]{p.number}[/b] {p.kind.capitalize()}" for p in self.panes]
        for i, pane in enumerate(self.panes):
            pane.others = [text for j, text in enumerate(others) if j != i] if folded else []
            pane.retitle()

    def _ages(self) -> None:
        for pane in self.panes:
            pane.refresh()

    # Panes

    def on_table_highlighted(self, event: Table.Highlighted) -> None:
        if event.table is self.active:
            self._show_detail()

    def on_table_chosen(self, event: Table.Chosen) -> None:
        if event.table is self.panes[2]:
            self.app.action_launch()  # type: ignore[attr-defined]
        else:
            self.action_open_detail()

    def on_descendant_focus(self) -> None:
        focused = self.focused
        if isinstance(focused, ListPane) and focused is not self.active:
            self.active = focused
            for pane in self.panes:
                pane.set_class(pane is focused, "-active")
            self.query_one("#lower").set_class(focused is not self.panes[0], "-active")
            self._show_detail()

    def _show_detail(self) -> None:
        self.detail.show(self.active.current)

    def action_pane(self, number: int) -> None:
        self.remove_class("-detail", "-zoom")
        pane = self.panes[number - 1]
        for other in self.panes:
            other.set_class(other is pane, "-active")
        self.query_one("#lower").set_class(pane is not self.panes[0], "-active")
        # What was folded away gets its place only with the next layout; focus needs it.
        self.call_after_refresh(pane.focus)

    def action_cycle(self, by: int) -> None:
        self.action_pane((self.panes.index(self.active) + by) % len(self.panes) + 1)

    def action_tab(self, by: int) -> None:
        if not self.detail.display:
            self.action_open_detail()
        self.detail.turn(by)

    def action_open_detail(self) -> None:
        self.add_class("-detail")
        self._show_detail()
        self.call_after_refresh(self.detail.focus_inside)

    def action_zoom(self) -> None:
        """The detail over the whole width, and back."""
        self.toggle_class("-zoom")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a shell no key is the screen's."""
        return not bool(getattr(self.focused, "typing", False))

    def action_close_detail(self) -> None:
        self.remove_class("-detail", "-zoom")
        self.call_after_refresh(self.active.focus)

    def targets(self) -> list[Any]:
        """What verbs act on."""
        return self.active.targets()

    def instance(self) -> InstanceRow | None:
        """The selected instance."""
        row = self.active.current
        return row if isinstance(row, InstanceRow) else None


def _fold(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width) or [""]

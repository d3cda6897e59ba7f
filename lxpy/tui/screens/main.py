"""The main screen: header, panes, detail, running work, keys."""

from typing import Any, ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.widget import AwaitMount

from lxpy.tui.model import Changed, Connection, Model
from lxpy.tui.panes.base import ListPane
from lxpy.tui.panes.catalogue import CataloguePane, ChoiceBar
from lxpy.tui.panes.detail import Detail
from lxpy.tui.panes.images import ImagesPane
from lxpy.tui.panes.instances import InstancesPane
from lxpy.tui.panes.networks import NetworksPane
from lxpy.tui.panes.operations import OperationRow, OperationsPane
from lxpy.tui.panes.profiles import ProfilesPane
from lxpy.tui.panes.remotes import RemoteRow, RemotesPane
from lxpy.tui.panes.storage import StoragePane
from lxpy.tui.panes.warnings import WarningsPane
from lxpy.tui.rows import InstanceRow
from lxpy.tui.widgets.bars import HeaderBar, KeyBar, WorkBar
from lxpy.tui.widgets.links import BY_MOUSE
from lxpy.tui.widgets.table import Table

# Below these the panes fold (the app's breakpoints).
WIDE, TALL = 110, 30
FIRST = 3  # so many of the panes are there from the first frame on


class MainScreen(Screen[None]):
    """Numbered panes and a detail area: the instances on top, below them the images, and one of the others beside.

    Below 110 columns or 30 lines the panes fold: one is seen at a time, and the detail opens over it with enter.
    """

    BINDINGS: ClassVar[list[Any]] = [
        Binding("1", "pane(1)", "Instances", show=False, id="main.pane-1"),
        Binding("2", "pane(2)", "Images", show=False, id="main.pane-2"),
        Binding("3", "pane(3)", "Remotes", show=False, id="main.pane-3"),
        Binding("4", "pane(4)", "Storage", show=False, id="main.pane-4"),
        Binding("5", "pane(5)", "Networks", show=False, id="main.pane-5"),
        Binding("6", "pane(6)", "Profiles", show=False, id="main.pane-6"),
        Binding("7", "pane(7)", "Operations", show=False, id="main.pane-7"),
        Binding("8", "pane(8)", "Warnings", show=False, id="main.pane-8"),
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
            RemotesPane(model, id="remotes", classes="pane other -shown"),
            StoragePane(id="storage", classes="pane other"),
            NetworksPane(id="networks", classes="pane other"),
            ProfilesPane(id="profiles", classes="pane other"),
            OperationsPane(id="operations-pane", classes="pane other"),
            WarningsPane(id="warnings", classes="pane other"),
        ]
        self.catalogue = CataloguePane(model, id="catalogue", classes="pane")
        self.detail = Detail(id="detail", classes="pane")
        self.active = self.panes[0]
        self._before_catalogue = 2

    def compose(self) -> ComposeResult:
        yield HeaderBar(self.model, id="header")
        with Horizontal(id="body"):
            with Vertical(id="lists"):
                yield self.panes[0]
                with Horizontal(id="lower"):
                    yield from self.panes[1:FIRST]
            yield self.detail
        yield WorkBar(self.model, id="work")
        yield KeyBar(id="keys")

    async def complete(self) -> None:
        """Adds what the first frame does without: it would cost a quarter of the time until then."""
        await self._rest()
        browser = Vertical(ChoiceBar(self.catalogue, id="choices"), self.catalogue, id="browser")
        await self.query_one("#body").mount(browser, after="#lists")
        await self.detail.complete()

    def _rest(self) -> AwaitMount:
        """The other panes; somebody may want one before the first frame."""
        return self.query_one("#lower").mount_all([pane for pane in self.panes[FIRST:] if not pane.is_attached])

    def on_mount(self) -> None:
        self.query_one(WorkBar).display = False
        for pane in self.panes:
            pane.empty = [(("Loading …", "dim"),)]
        self.panes[0].focus()
        self.set_interval(20, self._ages)

    # The model speaks

    def changed(self, message: Changed) -> None:
        parts = message.parts
        if "fresh" in parts:
            self.panes[0].bare = bool(self.model.fresh)  # type: ignore[attr-defined]
        if parts & {"instances", "fresh"}:
            self.panes[0].fill(list(self.model.instances.values()))
        elif "usage" in parts:
            if self.panes[0].sort_key in ("memory", "cpu"):
                self.panes[0].fill(list(self.model.instances.values()))
            else:
                self.panes[0].redraw()
                self._show_detail()
        elif "operations" in parts:
            self.panes[0].redraw()
        if "images" in parts:
            self.panes[1].fill(list(self.model.images))
        if "remotes" in parts:
            self.panes[2].fill([RemoteRow(info) for info in self.model.remotes])
            self.panes[1].retitle()
        if "reach" in parts:
            self.panes[2].fill(self.panes[2].all_rows)
        if self.browsing and parts & {"images", "operations"}:
            self.catalogue.downloads_changed()
        if self.browsing and parts & {"catalogue", "remotes"}:
            self.catalogue.renew()
        for pane in self.panes:
            if pane.kind in parts and pane.kind in self.model.objects:
                pane.fill(list(self.model.objects[pane.kind]))
        if "operations" in parts:
            self.pane("operations").fill(
                [OperationRow(o, self.model.about) for o in reversed(self.model.operations.values())]
            )
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
        for pane in self.panes:
            pane.others = self._beside(pane, folded)
            pane.retitle()

    def _beside(self, pane: ListPane, folded: bool) -> list[tuple[int, str]]:
        """The panes that are behind this one: number and name."""
        if folded or pane.has_class("other"):
            behind = (p for p in self.panes if p is not pane and (folded or p.has_class("other")))
            return [(p.number, p.short) for p in behind]
        return []

    def _ages(self) -> None:
        for pane in self.panes:
            pane.redraw()

    # Panes

    def on_table_highlighted(self, event: Table.Highlighted) -> None:
        if event.table is self.active:
            self._show_detail()

    def on_table_chosen(self, event: Table.Chosen) -> None:
        if event.table is self.panes[2]:
            self.browse(event.row.name)
        else:
            self.action_open_detail()

    def on_descendant_focus(self) -> None:
        focused = self.focused
        if not isinstance(focused, ListPane) or focused is self.active:
            return
        if self.browsing and self.has_class("-browse"):
            # Given the focus because what had it is hidden now, and not by anybody.
            self.call_after_refresh(self.catalogue.focus)
        else:
            self._activate(focused)

    def _show_detail(self) -> None:
        if self.detail.is_attached:  # it goes before the screen does while the app closes
            self.detail.show(self.active.current)

    def action_pane(self, number: int) -> None:
        self.remove_class("-detail", "-zoom", "-browse")
        pane = self.panes[number - 1]
        if not pane.is_attached:
            self._rest()
        self._activate(pane)
        self._focus(pane)

    def _focus(self, pane: ListPane) -> None:
        """At once, for the next key may have been typed already; and once more, as what was folded away must wait."""
        self.set_focus(pane, scroll_visible=False)
        # What was folded away gets its place only with the next layout; focus needs it.
        self.call_after_refresh(pane.focus)

    def _activate(self, pane: ListPane) -> None:
        self.active = pane
        self.model.want(pane.kind)
        for other in (*self.panes, self.catalogue):
            other.set_class(other is pane, "-active")
            if pane.has_class("other"):
                other.set_class(other is pane, "-shown")
        self.query_one("#lower").set_class(pane is not self.panes[0], "-active")
        self.panes[1].retitle()  # it names the remotes while it is in front
        self._show_detail()

    def pane(self, kind: str) -> ListPane:
        """The pane of a kind of objects."""
        return next(pane for pane in self.panes if pane.kind == kind)

    def action_cycle(self, by: int) -> None:
        self.action_pane((self.active.number - 1 + by) % len(self.panes) + 1)

    def action_tab(self, by: int) -> None:
        if not self.detail.display:
            self.action_open_detail()
        self.detail.turn(by)

    # A remote's images, in place of the panes

    @property
    def browsing(self) -> bool:
        """Whether the catalogue is in front."""
        return self.active is self.catalogue

    def browse(self, source: str, at_once: bool = True) -> None:
        """To the images of a remote; those of this server, named "" or by its own name, are in their pane."""
        if source not in self.catalogue.sources()[1:] or not self.catalogue.is_attached:
            self.catalogue.source = ""
            self.action_pane(2)
            return
        if not self.browsing:
            self._before_catalogue = self.active.number
        self.remove_class("-detail", "-zoom")
        self.add_class("-browse")
        self._activate(self.catalogue)
        self.catalogue.open(source, at_once)
        self._focus(self.catalogue)

    def leave_catalogue(self) -> None:
        """Back to the pane that it was opened from."""
        self.action_pane(self._before_catalogue)

    # What is clicked in borders

    def action_source_at(self, number: int) -> None:
        names = self.catalogue.sources()
        if number < len(names):
            self.browse(names[number])

    def action_pane_at(self, number: int) -> None:
        self.action_pane(number)

    def action_tab_at(self, number: int) -> None:
        tabs = self.detail.fitting()
        if number < len(tabs):
            self.detail.choose(tabs[number])
            self.call_after_refresh(self.detail.focus_inside)

    def action_back_at(self) -> None:
        self.action_close_detail()

    def action_zoom_at(self) -> None:
        self.action_zoom()

    def action_open_detail(self) -> None:
        self.add_class("-detail")
        self._show_detail()
        self.call_after_refresh(self.detail.focus_inside)

    def action_zoom(self) -> None:
        """The detail over the whole width, and back."""
        self.toggle_class("-zoom")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """In a shell no key is the screen's."""
        return action in BY_MOUSE or not bool(getattr(self.focused, "typing", False))

    def action_close_detail(self) -> None:
        self.remove_class("-detail", "-zoom")
        self._focus(self.active)

    def targets(self) -> list[Any]:
        """What verbs act on: in the detail its object, else the marked ones or the selected one of the list."""
        if self.detail.has_focus_within and self.detail.subject is not None:
            return [self.detail.subject]
        return self.active.targets()

    def instance(self) -> InstanceRow | None:
        """The selected instance."""
        row = self.active.current
        return row if isinstance(row, InstanceRow) else None


def _fold(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width) or [""]

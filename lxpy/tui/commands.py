"""The command palette's content: every action, and every object by name.

Actions come from the bindings themselves: those that work where the keyboard is, those of the tab that is seen, then
those of the other panes, then the verbs that have no key. Objects are those of all panes, the snapshots of all
instances, and volumes.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote

from textual.binding import Binding
from textual.command import DiscoveryHit, Hit, Hits, Provider

from lxpy.api.errors import ApiError
from lxpy.tui.verbs import PALETTE
from lxpy.tui.verbs.common import called
from lxpy.tui.widgets.table import Table

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp
    from lxpy.tui.panes.base import ListPane

_MOVING = ("table.", "pane.back", "main.", "help.", "detail.back", "app.palette")
_COMMON = ("pane.", "app.", "detail.")
FEW = 100  # objects of a kind that are offered before anything is typed


class Entry(NamedTuple):
    """One line of the palette."""

    text: str
    about: str
    run: Callable[[], Any]
    is_object: bool = False


class Everything(Provider):
    """Actions on the selection first, then the app's, then objects to go to; in that order while nothing is typed."""

    async def startup(self) -> None:
        app = cast("LxpyApp", self.app)
        self._volumes: list[Entry] = []
        if self.screen is app.main:
            for kind in ("storage-pools", "networks", "profiles", "warnings"):
                app.model.want(kind)  # they come while the first letters are typed
            self._volumes = await _volumes(app)

    def _all(self) -> list[Entry]:
        app = cast("LxpyApp", self.app)
        return [*commands(app), *self._volumes] if self.screen is app.main else []

    async def discover(self) -> Hits:
        counts: dict[str, int] = {}
        for entry in self._all():
            kind = entry.about.partition(" ")[0] if entry.is_object else ""
            counts[kind] = counts.get(kind, 0) + 1
            if not kind or counts[kind] <= FEW:
                yield DiscoveryHit(entry.text, entry.run, help=entry.about)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        words = query.lower().split()
        for entry in self._all():
            text = entry.text.lower()
            # Of thousands of objects only those that hold what was typed are looked at closely.
            if entry.is_object and not all(word in text for word in words):
                continue
            score = matcher.match(entry.text)
            if score > 0:
                yield Hit(score, matcher.highlight(entry.text), entry.run, help=entry.about)


def commands(app: "LxpyApp") -> Iterator[Entry]:
    """Everything, in the order of the module's text."""
    here, tab = list(_here(app)), list(_in_tab(app))
    yield from (*tab, *here) if app.main.detail.tab.inside().has_focus else (*here, *tab)
    yield from _palette(app)
    for pane in app.main.panes:
        yield Entry(f"Go to {pane.called}", f"Pane {pane.number}", partial(app.main.action_pane, pane.number))
    yield from _elsewhere(app)
    yield from _objects(app)


def _about(app: "LxpyApp", binding: Binding) -> str:
    return f"Key {app.get_key_display(binding)}"


def _here(app: "LxpyApp") -> Iterator[Entry]:
    """The bindings that work now; verbs on the selection name it."""
    names = called(app.main.targets())
    inside = app.main.detail.tab.inside()
    seen: set[str] = set()
    # What is for the selection first; a stable sort keeps the order of the bindings otherwise.
    for active in sorted(app.main.active_bindings.values(), key=lambda a: (a.binding.id or "").startswith(_COMMON)):
        binding = active.binding
        ident = binding.id or ""
        if not binding.description or not ident or ident.startswith(_MOVING) or ident in seen:
            continue
        seen.add(ident)
        if active.node is inside and isinstance(inside, Table) and binding in type(inside).BINDINGS:
            continue  # `_in_tab` has it
        on_rows = binding.action.startswith("app.verb(") and not ident.startswith("app.") and "create" not in ident
        text = f"{binding.description}: {names}" if on_rows and names else binding.description
        if ident.endswith((".launch", ".create")) and " " not in text:
            text = f"{text} {ident.partition('.')[0]}"  # "New" alone says little in a list of everything
        yield Entry(text, _about(app, binding), partial(_act, app, binding.action, active.node))


def _act(app: "LxpyApp", action: str, node: Any) -> Any:
    return app.run_action(action, node)


def _object_of(app: "LxpyApp", binding: Binding) -> str:
    """``: web``, what a verb of the tab acts on: the row under its cursor; what is made belongs to the tab's object."""
    tab = app.main.detail.tab
    makes = str(binding.id).endswith((".create", ".add"))
    row = tab.subject if makes else getattr(tab.inside(), "current", None)
    name = getattr(row, "name", "") or getattr(row, "title", "") if row is not None else ""
    return f"{' for' if makes else ':'} {name}" if name else ""


def _in_tab(app: "LxpyApp") -> Iterator[Entry]:
    """What the tab can do that is seen, wherever the keyboard is, if it is a list of objects."""
    detail = app.main.detail
    inside = detail.tab.inside()
    if not detail.display or not isinstance(inside, Table):
        return
    for binding in type(inside).BINDINGS:
        if isinstance(binding, Binding) and binding.description and not str(binding.id).startswith(_MOVING):
            text = f"{detail.tab.title}: {binding.description}{_object_of(app, binding)}"
            yield Entry(text, _about(app, binding), partial(_do_inside, app, inside, binding.action))


def _do_inside(app: "LxpyApp", inside: Table, action: str) -> None:
    app.main.set_focus(inside)
    app.call_after_refresh(app.run_action, action, inside)


def _palette(app: "LxpyApp") -> Iterator[Entry]:
    names = called(app.main.panes[0].targets())
    for verb, (title, about) in PALETTE.items():
        if "*" not in title:
            yield Entry(title, about, partial(app.action_verb, verb))
        elif names:
            yield Entry(title.replace("*", names), about, partial(app.actions.do, verb, app.main.panes[0].targets()))
    for source in app.main.catalogue.sources()[1:]:
        yield Entry(f"Images of {source}", "What it offers (b)", partial(app.main.browse, source))
    yield Entry("Theme", "Choose the colours by looking at them", app.action_change_theme)
    yield Entry("Messages", "What the app has told so far", app.action_messages)


def _elsewhere(app: "LxpyApp") -> Iterator[Entry]:
    """What the other panes can do, to what is selected there."""
    for pane in app.main.panes:
        if pane is app.main.active:
            continue
        for binding in type(pane).BINDINGS:
            if isinstance(binding, Binding) and binding.description and not str(binding.id).startswith(_MOVING):
                names = called(pane.targets()) if "create" not in binding.action else ""
                text = f"{pane.called}: {binding.description}" + (f" {names}" if names else "")
                yield Entry(text, _about(app, binding), partial(_there, app, pane, binding.action))


def _there(app: "LxpyApp", pane: "ListPane", action: str) -> None:
    app.main.action_pane(pane.number)
    app.call_after_refresh(app.run_action, action, pane)


def _objects(app: "LxpyApp") -> Iterator[Entry]:
    for number, pane in enumerate(app.main.panes, 1):
        for row in pane.all_rows:
            name = getattr(row, "name", "") or row.title
            about = getattr(row, "status", "") or getattr(row, "description", "") or getattr(row, "url", "")
            yield Entry(name, f"{pane.kind[:-1]} · {about}", partial(app.action_go, number, row.key), True)
    for instance in app.main.panes[0].all_rows:
        for raw in instance.raw.get("snapshots") or []:
            name = str(raw["name"]).rpartition("/")[2]
            run = partial(go_to_snapshot, app, instance.key, name)
            yield Entry(f"{instance.name}/{name}", "snapshot", run, True)


async def _volumes(app: "LxpyApp") -> list[Entry]:
    """The volumes of all pools; those of a pool that cannot be asked are left out."""

    def ask(client: Any) -> list[Entry]:
        found: list[Entry] = []
        for pool in client.get("/1.0/storage-pools", recursion="1"):
            path = f"/1.0/storage-pools/{quote(pool['name'])}/volumes"
            try:
                raws = client.get(path, recursion="1")
            except (ApiError, OSError):
                continue
            for raw in raws:
                if raw["type"] == "custom":
                    run = partial(go_to_volume, app, pool["name"], f"custom {raw['name']}")
                    found.append(Entry(f"{pool['name']}/{raw['name']}", "volume", run, True))
        return found

    try:
        return await app.gateway.call(ask)
    except (ApiError, OSError, EOFError):
        return []


def go_to_volume(app: "LxpyApp", pool: str, key: str) -> None:
    """To the volumes of a pool, the cursor on one."""
    from lxpy.tui.tabs.volumes import VolumesTab

    app.action_go(4, pool)
    app.main.action_open_detail()
    tab = app.main.detail.find(VolumesTab)
    app.main.detail.choose(tab)
    tab.go_to(key)
    app.call_after_refresh(app.main.detail.focus_inside)


def go_to_snapshot(app: "LxpyApp", instance: str, name: str) -> None:
    """To the snapshots of an instance, the cursor on one."""
    from lxpy.tui.tabs.snapshots import SnapshotsTab

    app.action_go(1, instance)
    app.main.action_open_detail()
    tab = app.main.detail.find(SnapshotsTab)
    app.main.detail.choose(tab)
    tab.go_to(name)
    app.call_after_refresh(app.main.detail.focus_inside)

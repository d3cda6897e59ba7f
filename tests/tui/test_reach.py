"""Everything can be reached and copied: palette, clipboard menu, help, sorting by any column, operations, messages."""

from typing import Any

import pytest
from textual.command import CommandList, CommandPalette
from textual.widgets import Input

from lxpy.api.errors import BadRequest
from lxpy.tui import keymap
from lxpy.tui.commands import commands
from lxpy.tui.panes.base import ListPane
from lxpy.tui.screens.choose import Choose
from lxpy.tui.screens.help import HelpScreen
from lxpy.tui.screens.text import TextScreen
from lxpy.tui.tabs import Tab
from lxpy.tui.tabs.devices import DevicesTab
from lxpy.tui.tabs.network import AclsTab, ForwardsTab
from lxpy.tui.tabs.snapshots import SnapshotsTab
from lxpy.tui.tabs.volumes import VolumesTab
from lxpy.tui.verbs import PALETTE
from tests.tui import screen
from tests.tui.fake import FakeDaemon, instance
from tests.tui.test_app import SMALL, WIDE, daemon, notices, opened, wait
from tests.tui.test_snapshots_tab import shot, tree
from tests.tui.test_tabs import at, names

__all__ = ["daemon", "tree"]


@pytest.fixture
def clipboard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What has been copied."""
    found: list[str] = []
    monkeypatch.setattr("lxpy.tui.app.LxpyApp.copy_to_clipboard", lambda app, text: found.append(text))
    return found


def offered(app: Any) -> dict[str, str]:
    return {choice.label: choice.shown for choice in app.screen.choices}


async def choose(pilot: Any, label: str) -> None:
    table = pilot.app.screen.query_one("#choose")
    await wait(pilot, lambda: table.rows)
    table.action_to(next(n for n, row in enumerate(table.rows) if row.label == label))
    await pilot.press("enter")


async def by_palette(pilot: Any, text: str) -> None:
    """Types a line of the palette whole, and takes it."""
    await pilot.press("colon")
    await wait(pilot, lambda: isinstance(pilot.app.screen, CommandPalette))
    pilot.app.screen.query_one(Input).value = text
    options = pilot.app.screen.query_one(CommandList)

    def place() -> int:
        lines = [str(options.get_option_at_index(n).prompt).splitlines()[0] for n in range(options.option_count)]
        return next((n for n, line in enumerate(lines) if line.strip().startswith(text)), -1)

    await wait(pilot, lambda: place() >= 0, 10)
    options.highlighted = place()
    await pilot.press("enter")


KINDS: list[tuple[str, str, dict[str, str]]] = [
    ("1", "web1", {"Name": "web1", "IPv4 eth0": "10.71.4.11", "IPv6 eth0": "fd42:9c1a::b", "Shell": "lxpy shell web1",
                   "API": "/1.0/instances/web1"}),
    ("2", "bb", {"Alias": "bb", "Launch": "lxpy launch bb", "Info": "lxpy image info bb"}),
    ("3", "images", {"Name": "images", "URL": "https://images.linuxcontainers.org", "List": "lxpy image list images:"}),
    ("4", "fast", {"Name": "fast", "Source": "/dev/sdb", "Show": "lxpy storage show fast"}),
    ("5", "lxpybr0", {"Name": "lxpybr0", "IPv4": "10.71.4.1/24", "Show": "lxpy network show lxpybr0"}),
    ("6", "small", {"Name": "small", "Show": "lxpy profile show small"}),
    ("8", "0b1c", {"Message": "Instance 'db' could not be started: no space left", "Show": "lxpy warning show 0b1c"}),
]  # fmt: skip


@pytest.mark.parametrize(("pane", "key", "wanted"), KINDS, ids=[k for _, k, _ in KINDS])
async def test_y_copies_of_every_kind(
    daemon: FakeDaemon, clipboard: list[str], pane: str, key: str, wanted: dict[str, str]
) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press(pane)
        active = app.main.panes[int(pane) - 1]
        await wait(pilot, lambda: app.focused is active and active.rows)
        place = next(
            n for n, r in enumerate(active.rows) if key in (r.key, getattr(r, "title", ""), getattr(r, "name", ""))
        )
        active.action_to(place)
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        assert wanted.items() <= offered(app).items()
        label, text = list(wanted.items())[-1]
        await choose(pilot, label)
        await wait(pilot, lambda: app.on_main and clipboard == [text])
        assert any(f"Copied: {text}" in n for n in notices(app)), "and it is shown"
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await choose(pilot, "YAML")
        await wait(pilot, lambda: isinstance(app.screen, TextScreen))
        assert app.screen.text == clipboard[-1] and ": " in clipboard[-1]


async def test_y_copies_operations_and_snapshots(tree: FakeDaemon, clipboard: list[str]) -> None:
    tree.instances["broken"] = instance("broken", "Stopped")
    async with opened(tree) as pilot:
        app = pilot.app
        app.action_go(1, "broken")
        await pilot.press("u")
        await wait(pilot, lambda: notices(app))
        await pilot.press("7")
        await wait(pilot, lambda: app.main.active.rows and app.focused is app.main.active)
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        assert "no /sbin/init" in offered(app)["Error"]
        await choose(pilot, "Error")
        await wait(pilot, lambda: clipboard and "no /sbin/init" in clipboard[-1])
        tab = await at(pilot, "web1", SnapshotsTab)
        await wait(pilot, lambda: len(names(tab)) == 5)
        tab.table.action_to(1)
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        found = offered(app)
        assert found["Reference"] == "web1/try" and found["Restore"] == "lxpy restore web1 try"


async def test_a_yaml_that_cannot_be_had_says_why(daemon: FakeDaemon, clipboard: list[str]) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press("y")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        daemon.fail["GET", "/1.0/instances/build"] = BadRequest("build is being deleted")
        await choose(pilot, "YAML")
        await wait(pilot, lambda: any("build is being deleted" in n for n in notices(app)))
        assert not clipboard


async def test_the_palette_has_every_action_and_every_object(tree: FakeDaemon) -> None:
    tree.instances["web1"]["snapshots"] = [shot("before", 1)]
    async with opened(tree) as pilot:
        app = pilot.app
        for number in range(1, 9):
            await pilot.press(str(number))
            await wait(pilot, lambda number=number: app.main.active.number == number)  # type: ignore[misc]
        await wait(pilot, lambda: all(app.main.pane(kind).rows for kind in ("profiles", "warnings", "networks")))
        for number in range(1, 9):
            app.main.action_pane(number)
            await pilot.pause()
            entries = list(commands(app))
            texts = [entry.text for entry in entries]
            for active in app.main.active_bindings.values():
                binding = active.binding
                if (
                    binding.description
                    and binding.id
                    and not str(binding.id).startswith(("table.", "main.", "pane.back", "app.palette"))
                ):
                    assert any(text.startswith(binding.description) for text in texts), (number, binding.id)
            for pane in app.main.panes:
                if pane is not app.main.active:
                    for binding in type(pane).BINDINGS:
                        wanted = f"{pane.called}: {binding.description}"
                        assert any(text.startswith(wanted) for text in texts), wanted
        for title, _ in PALETTE.values():
            assert any(text.startswith(title.split("*")[0]) for text in texts), title
        for name in ("web1", "debian/13", "images", "fast", "lxpybr0", "small", "web1/before", "Theme", "Messages"):
            assert name in texts


async def test_the_palette_goes_to_a_snapshot_and_does_what_another_pane_can(tree: FakeDaemon) -> None:
    tree.instances["web1"]["snapshots"] = tree.snapshots["web1"]
    async with opened(tree) as pilot:
        app = pilot.app
        await by_palette(pilot, "web1/good")
        tab = app.main.detail.find(SnapshotsTab)
        await wait(pilot, lambda: app.main.detail.tab is tab and tab.table.current and tab.table.current.name == "good")
        await by_palette(pilot, "Networks: New network")
        await wait(pilot, lambda: app.screen.query("#form"))
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        await by_palette(pilot, "fast/data/later")
        volumes = app.main.detail.find(VolumesTab)
        await wait(pilot, lambda: app.main.detail.tab is volumes and volumes.table.current)
        await wait(pilot, lambda: volumes.table.current.name == "data/later")


@pytest.mark.parametrize(
    ("pane", "key", "tab", "wanted"),
    [
        (1, "web1", DevicesTab, {"Add for web1", "Edit: eth0", "Mask: eth0", "Remove: eth0"}),
        (5, "lxpybr0", ForwardsTab, {"New for lxpybr0", "Add a port: 192.0.2.7", "Delete: 192.0.2.7"}),
        (5, "lxpybr0", AclsTab, {"New for lxpybr0", "Add a rule: none", "Log: none", "Rename: none", "Delete: none"}),
    ],
)  # fmt: skip
async def test_the_palette_has_the_verbs_of_the_tab_that_is_seen(
    daemon: FakeDaemon, pane: int, key: str, tab: type[Tab], wanted: set[str]
) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press(str(pane))
        await wait(pilot, lambda: key in [row.key for row in app.main.active.rows])
        app.action_go(pane, key)
        app.main.detail.choose(app.main.detail.find(tab))
        table = app.main.detail.tab.inside()
        await wait(pilot, lambda: app.main.detail.tab.subject.key == key and table.rows)
        texts = {entry.text for entry in commands(app)}
        assert {f"{tab.TITLE}: {text}" for text in wanted} <= texts
        app.main.detail.focus_inside()
        await wait(pilot, lambda: app.focused is table)
        texts = [entry.text for entry in commands(app)]
        assert {f"{tab.TITLE}: {text}" for text in wanted} <= set(texts[: len(type(table).BINDINGS)])
        app.main.set_focus(app.main.active)
        await by_palette(pilot, f"{tab.TITLE}: Add")
        await wait(pilot, lambda: not app.on_main and not app.screen.query("#palette-input"))
        await wait(pilot, lambda: app.screen.query("#form, #choose"))


async def test_two_thousand_objects_are_all_found(daemon: FakeDaemon) -> None:
    daemon.instances = {f"c{i:04}": instance(f"c{i:04}", ip=i % 250 + 1) for i in range(2000)}
    async with opened(daemon) as pilot:
        await by_palette(pilot, "c1987")
        await wait(pilot, lambda: pilot.app.on_main and pilot.app.main.active.current.name == "c1987")


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize("name", ["sort", "help-all", "palette", "copy-yaml", "messages"])
async def test_screens_look_as_they_did(
    daemon: FakeDaemon, clipboard: list[str], monkeypatch: pytest.MonkeyPatch, name: str, size: tuple[int, int]
) -> None:
    async with opened(daemon, size) as pilot:
        app = pilot.app
        Input.cursor_blink = False  # type: ignore[assignment]
        keys = {"sort": ["O"], "help-all": ["question_mark", "a"], "palette": ["colon"], "copy-yaml": ["6", "y"]}
        for key in keys.get(name, []):
            await pilot.press(key)
            await wait(pilot, lambda: app.main.active.rows)
            await pilot.pause(0.1)
        if name == "copy-yaml":
            await choose(pilot, "YAML")
        if name == "messages":
            app.messages = ["10:00:00  ✖ Cannot stop: web1: it is locked", "10:00:01  · Copied: web1"]
            await pilot.press("h")
        await screen.settled(pilot, f"{name}-{size[0]}x{size[1]}")


async def test_help_has_every_binding_there_is(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("question_mark", "a")
        await wait(pilot, lambda: isinstance(pilot.app.screen, HelpScreen) and pilot.app.screen.everywhere)
        text = str(pilot.app.screen.query_one("#help-text").render())
        for _, binding in keymap.bindings():
            if binding.description:
                assert str(binding.id) in text, binding.id
        await pilot.press("a")
        await wait(pilot, lambda: "Keys here" in str(pilot.app.screen.query_one("#help").border_title))


async def test_every_column_can_be_sorted_by(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        for number in range(1, 9):
            await pilot.press(str(number))
            await wait(pilot, lambda number=number: app.main.active.number == number)  # type: ignore[misc]
            pane: ListPane = app.main.active
            await wait(pilot, lambda pane=pane: pane.rows or pane.number == 7)  # type: ignore[misc]
            for column in pane.columns:
                if column.title:
                    pane.sort_by(column.key)
                    assert pane.sort_key == column.key, (pane.kind, column.key)
        await pilot.press("1")
        await wait(pilot, lambda: app.main.active.number == 1)
        await pilot.press("O")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await choose(pilot, "SNAPS")
        await wait(pilot, lambda: app.on_main and app.main.panes[0].sort_key == "snapshots")


async def test_operations_are_cancelled_and_failures_stay(daemon: FakeDaemon) -> None:
    daemon.instances["broken"] = instance("broken", "Stopped")
    async with opened(daemon) as pilot:
        app = pilot.app
        app.action_go(1, "broken")
        await pilot.press("u")
        await wait(pilot, lambda: notices(app))
        for n in range(60):
            daemon.operation(f"Work {n}", "web1", lambda: None)
        await wait(pilot, lambda: "Work 59 web1" in [app.main.panes[6].rows and r.name for r in app.main.panes[6].rows])
        daemon.operations.clear()  # the daemon has long forgotten them
        await app.model.reload()
        await pilot.press("7")
        await wait(pilot, lambda: app.focused is app.main.panes[6])
        row = next(r for r in app.main.active.rows if r.raw.get("err"))
        app.action_go(7, row.key)
        await pilot.press("enter")
        await wait(pilot, lambda: "`raw.init`" in screen.text(app))
        await pilot.press("escape")
        daemon.hold = True
        for n in range(2):
            daemon.operation(f"Long {n}", "web1", lambda: None)
        await wait(pilot, lambda: len(app.model.running()) == 2)
        running = [o["id"] for o in app.model.running()]
        app.main.active.marks = set(running)
        daemon.fail["DELETE", f"/1.0/operations/{running[1]}"] = BadRequest(
            "Operation cannot be cancelled: wait for it"
        )
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: app.actions.batches and app.actions.batches[-1].ended)
        assert [item.state for item in app.actions.batches[-1].items].count("failed") == 1
        await wait(pilot, lambda: "wait for it" in screen.text(app))


async def test_messages_are_kept(daemon: FakeDaemon) -> None:
    daemon.fail["PUT", "/1.0/instances/web1"] = BadRequest("web1 is locked: wait for its backup to end")
    async with opened(daemon) as pilot:
        app = pilot.app
        app.action_go(1, "web1")
        await pilot.press("r")
        await wait(pilot, lambda: notices(app))
        app.clear_notifications()
        await pilot.press("h")
        await wait(pilot, lambda: isinstance(app.screen, TextScreen) and "wait for its backup" in screen.text(app))

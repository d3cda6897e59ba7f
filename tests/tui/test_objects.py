"""Devices, configuration forms and what belongs to pools and networks, in front of an imagined daemon."""

import asyncio
import shlex
from typing import Any

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Checkbox, Input, Static, TextArea

from lxpy.api.errors import BadRequest, PreconditionFailed
from lxpy.tui.guides import GUIDES
from lxpy.tui.screens.choose import Choose
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.keys import KeysForm
from lxpy.tui.screens.launch import LaunchDialog
from lxpy.tui.screens.lines import Lines
from lxpy.tui.tabs import Tab
from lxpy.tui.tabs.devices import DevicesTab
from lxpy.tui.tabs.network import AclsTab, ForwardsTab
from lxpy.tui.tabs.volumes import VolumesTab
from lxpy.tui.widgets.table import Table
from tests.tui import screen
from tests.tui.fake import FakeDaemon
from tests.tui.test_app import SMALL, WIDE, daemon, notices, opened, wait
from tests.tui.test_mouse import click

__all__ = ["daemon"]


@pytest.fixture(autouse=True)
def steady(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Input, "cursor_blink", False)
    monkeypatch.setattr(TextArea, "cursor_blink", False)


async def at(pilot: Pilot[Any], kind: type[Tab], pane: int = 1, key: str = "web1") -> Any:
    """A tab of an object, with the keyboard in it."""
    app = pilot.app
    await wait(pilot, lambda: app.on_main)
    if app.main.active.number != pane:
        app.main.action_pane(pane)
        await wait(pilot, lambda: app.main.active.rows)
    app.action_go(pane, key)
    app.main.action_open_detail()
    tab = app.main.detail.find(kind)
    app.main.detail.choose(tab)
    await wait(pilot, lambda: tab.display)
    app.main.detail.focus_inside()
    await wait(pilot, lambda: app.focused is tab.inside() and app.main.detail.border_subtitle)
    return tab


def put(daemon: FakeDaemon) -> Any:
    """The body of the last change."""
    return next(body for method, _, body in reversed(daemon.requests) if method == "PUT")


def fault(app: Any, of: str) -> str:
    line = app.screen.query_one(of, Static)
    return str(line.render()) if line.display else ""


async def pictures(pilot: Pilot[Any], size: tuple[int, int], steps: list[tuple[str, list[str]]]) -> None:
    """Compares the screen with a snapshot after each step: a name, and the keys before it."""
    for name, keys in steps:
        for key in keys:
            await pilot.press(key)
            await pilot.pause(0.0 if len(key) == 1 else 0.1)
        await pilot.pause(0.3)
        await screen.settled(pilot, f"{name}-{size[0]}x{size[1]}")


SIZES = pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])


@SIZES
async def test_devices_look_as_they_did(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with opened(daemon, size) as pilot:
        await at(pilot, DevicesTab)
        await pictures(pilot, size, [
            ("devices", []),
            ("device-kinds", ["n"]),
            ("device-share", ["enter", "tab", *"/home/me", "tab", *"srv"]),
            ("device-keys", ["escape", "e", *"limits.eg", "enter", *"fast"]),
        ])  # fmt: skip


async def test_a_device_is_added_once_it_is_right(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, DevicesTab)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("down", "down", "enter")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press("tab", *"tcp:localhost:80")
        await wait(pilot, lambda: "an IP address, not a name" in fault(app, "#fault-listen"))
        assert not fault(app, "#fault-connect")  # nobody has been there yet
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "Missing connect" in fault(app, "#fault-connect") or fault(app, "#fault-listen"))
        assert not [r for r in daemon.requests if r[0] == "PUT"]
        app.screen.query_one("#ask-listen", Input).value = "tcp:127.0.0.1:80"
        app.screen.query_one("#ask-connect", Input).value = "tcp:127.0.0.1:8080"
        app.screen.query_one("#ask-more", Input).value = "security.uid=33"
        await wait(pilot, lambda: "security.uid=33" in str(app.screen.query_one("#form-line", Static).render()))
        line = str(app.screen.query_one("#form-line", Static).render())
        assert shlex.split(line)[1:] == [
            "lxpy", "config", "device", "add", "web1", "web", "proxy", "listen=tcp:127.0.0.1:80",
            "connect=tcp:127.0.0.1:8080", "security.uid=33",
        ]  # fmt: skip
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and "web" in [row.name for row in tab.table.rows])
        assert put(daemon)["devices"] == {
            "web": {"type": "proxy", "listen": "tcp:127.0.0.1:80", "connect": "tcp:127.0.0.1:8080",
                    "security.uid": "33"}
        }  # fmt: skip


async def test_a_profiles_device_is_masked_overridden_and_back(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, DevicesTab)
        await wait(pilot, lambda: tab.table.rows and tab.table.rows[0].origin == "profile default")

        async def sure(key: str) -> None:
            await pilot.press(key)
            await wait(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await wait(pilot, lambda: app.on_main)

        await sure("ctrl+d")
        await wait(pilot, lambda: tab.table.rows[0].kind == "none" and tab.table.rows[0].own)
        assert daemon.instances["web1"]["devices"] == {"eth0": {"type": "none"}}
        await sure("ctrl+d")
        await wait(pilot, lambda: tab.table.rows[0].kind == "nic" and not tab.table.rows[0].own)
        await pilot.press("e")
        await wait(pilot, lambda: isinstance(app.screen, KeysForm) and app.screen.loaded is not None)
        await pilot.press(*"ipv4.address", "enter", *"10.71.4.50")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and tab.table.rows[0].own)
        assert tab.table.rows[0].over == "profile default"
        assert daemon.instances["web1"]["devices"]["eth0"] == {
            "type": "nic", "network": "lxpybr0", "name": "eth0", "ipv4.address": "10.71.4.50",
        }  # fmt: skip


async def test_every_kind_of_device_can_be_asked_about(daemon: FakeDaemon) -> None:
    """The form of each opens, tells what is missing rather than failing, and asks about keys that there are."""
    async with opened(daemon, SMALL) as pilot:
        app = pilot.app
        await at(pilot, DevicesTab)
        for number, guide in enumerate(GUIDES):
            known = await app.rules.keys(guide.entity)
            assert {one.key for one in guide.asked} <= set(known)
            await pilot.press("n")
            await wait(pilot, lambda: isinstance(app.screen, Choose))
            app.screen.query_one(Table).action_to(number)
            await pilot.press("enter")
            await wait(pilot, lambda: isinstance(app.screen, Form))
            app.screen.query_one("#ask-more", Input).value = "nonsense=1"
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: any(line.display for line in app.screen.query(".fault, #form-fault")))
            assert isinstance(app.screen, Form) and not [r for r in daemon.requests if r[0] == "PUT"]
            await pilot.press("escape")
            await wait(pilot, lambda: app.on_main)


async def test_a_read_only_app_adds_no_device(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.read_only = True
        await at(pilot, DevicesTab)
        await pilot.press("n")
        await wait(pilot, lambda: any("read-only" in n for n in notices(pilot.app)))
        assert pilot.app.on_main


async def test_a_device_by_the_mouse_alone(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        await click(pilot, "web1")
        await wait(pilot, lambda: app.main.detail.subject and app.main.detail.subject.name == "web1")
        await click(pilot, "Devices")
        await wait(pilot, lambda: isinstance(app.main.detail.tab, DevicesTab))
        await click(pilot, "Add", last=True)
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await click(pilot, "unix-char", times=2)
        await wait(pilot, lambda: isinstance(app.screen, Form))
        await pilot.click("#ask-source")
        await pilot.press(*"/dev/ttyUSB0")
        await wait(pilot, lambda: "/dev/ttyUSB0" in str(app.screen.query_one("#form-line", Static).render()))
        await pilot.click("#form #yes")
        await wait(pilot, lambda: app.on_main)
        assert put(daemon)["devices"] == {"serial": {"type": "unix-char", "source": "/dev/ttyUSB0"}}
        await click(pilot, "serial")
        await click(pilot, "Remove", last=True)
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.click("#confirm #yes")
        await wait(pilot, lambda: daemon.instances["web1"]["devices"] == {})


# -- the form of keys ----------------------------------------------------------------------------------------------


async def form(pilot: Pilot[Any], instance: str = "web1") -> Any:
    pilot.app.action_go(1, instance)
    await pilot.press("e")
    await wait(pilot, lambda: isinstance(pilot.app.screen, KeysForm) and pilot.app.screen.loaded is not None)
    await pilot.pause(0.05)
    return pilot.app.screen


@SIZES
async def test_the_form_of_keys_looks_as_it_did(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with opened(daemon, size) as pilot:
        await form(pilot)
        await pictures(pilot, size, [
            ("keys", []),
            ("keys-find", [*"restart", "down"]),
            ("keys-wrong", ["escape", *"limits.memory", "enter", "x"]),
            ("keys-lines", ["enter", *"cloud-init.user", "ctrl+o"]),
        ])  # fmt: skip


async def test_values_are_judged_as_they_are_typed_and_nothing_bad_is_sent(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        keys = await form(pilot)
        await pilot.press(*"limits.memory", "enter", "ctrl+u", *"12")
        await wait(pilot, lambda: "below 1MiB" in fault(pilot.app, "#keys-fault"))
        await pilot.press("ctrl+s")
        await pilot.pause(0.2)
        assert pilot.app.screen is keys and not [r for r in daemon.requests if r[0] == "PUT"]
        await pilot.press(*"MiB")
        await wait(pilot, lambda: not fault(pilot.app, "#keys-fault"))
        await pilot.press("enter", *"user.colour", "enter", *"deep blue", "enter")
        await pilot.press(*"limits.cpu", "ctrl+d", "ctrl+s")
        await wait(pilot, lambda: pilot.app.on_main)
        assert put(daemon)["config"] == {"limits.memory": "12MiB", "user.colour": "deep blue"}
        assert put(daemon)["profiles"] == ["default"] and put(daemon)["ephemeral"] is False


async def test_a_key_that_does_not_exist_is_refused_with_the_nearest(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await form(pilot)
        await pilot.press(*"limits.memry", "enter", *"1GiB")
        await wait(pilot, lambda: "did you mean 'limits.memory'" in fault(pilot.app, "#keys-fault"))


async def test_what_was_changed_is_not_lost_by_one_escape(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        keys = await form(pilot)
        await pilot.press(*"boot.autostart", "enter", *"true", "escape", "escape")
        await wait(pilot, lambda: "It has changed" in fault(pilot.app, "#keys-fault"))
        await pilot.press("ctrl+e")
        assert pilot.app.screen is keys  # nor by the way to the YAML
        await pilot.press("escape")
        await wait(pilot, lambda: pilot.app.on_main)
        assert not [r for r in daemon.requests if r[0] == "PUT"]


async def test_several_lines(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await form(pilot)
        await pilot.press(*"cloud-init.user-data", "ctrl+o")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Lines))
        await pilot.press(*"#cloud-config", "enter", *"packages: []", "ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, KeysForm))
        await wait(pilot, lambda: "2 lines" in screen.text(pilot.app))
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: pilot.app.on_main)
        assert put(daemon)["config"]["cloud-init.user-data"] == "#cloud-config\npackages: []"


@pytest.mark.parametrize("choice", ["Reload", "Overwrite"])
async def test_somebody_else_was_there_meanwhile(daemon: FakeDaemon, choice: str) -> None:
    async with opened(daemon) as pilot:
        keys = await form(pilot)
        await pilot.press(*"boot.autostart", "enter", *"true")
        daemon.instances["web1"]["config"]["limits.cpu"] = "1"  # theirs
        daemon.fail["PUT", "/1.0/instances/web1"] = PreconditionFailed("The object has changed since it was read")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Choose))
        daemon.fail.clear()
        await pilot.press(*(["down"] if choice == "Overwrite" else []), "enter")
        if choice == "Reload":
            await wait(pilot, lambda: pilot.app.screen is keys and keys.loaded.own["limits.cpu"] == "1")
            assert keys.changes == {"boot.autostart": "true"}
            await pilot.press("ctrl+s")
        await wait(pilot, lambda: pilot.app.on_main)
        assert put(daemon)["config"] == {"limits.memory": "256MiB", "limits.cpu": "1", "boot.autostart": "true"}


async def test_a_server_without_explanations_still_edits(daemon: FakeDaemon) -> None:
    from lxpy.api.errors import NotFound

    daemon.fail["GET", "/1.0/metadata"] = daemon.fail["POST", "/1.0/metadata"] = NotFound("not found")
    daemon.fail["PUT", "/1.0/instances/web1"] = BadRequest("Invalid value for limits.cpu: nonsense")
    async with opened(daemon) as pilot:
        await form(pilot)
        await pilot.press(*"limits.cpu", "enter", *"x", "ctrl+s")
        await wait(pilot, lambda: "nonsense" in fault(pilot.app, "#keys-fault"))


async def test_the_form_by_the_mouse(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        keys = await form(pilot)
        place = next(i for i, row in enumerate(keys.table.rows) if row.key == "limits.cpu")
        await pilot.click("#keys-table", offset=(6, place + 1))
        await wait(pilot, lambda: keys.value.value == "2")
        await pilot.click("#keys-value")
        await pilot.press("end", "backspace", "3")
        await pilot.click("#keys-form #yes")
        await wait(pilot, lambda: pilot.app.on_main)
        assert put(daemon)["config"]["limits.cpu"] == "3"


async def test_the_yaml_meets_a_conflict(daemon: FakeDaemon) -> None:
    from lxpy.tui.screens.edit import Editor

    async with opened(daemon) as pilot:
        await form(pilot)
        await pilot.press("ctrl+e")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Editor))
        editor = pilot.app.screen
        daemon.fail["PUT", "/1.0/instances/web1"] = PreconditionFailed("The object has changed since it was read")
        editor.query_one("#editor-text").text = "config: {user.a: b}\n"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Choose))
        await pilot.press("enter")  # theirs
        await wait(
            pilot, lambda: pilot.app.screen is editor and "limits.memory" in editor.query_one("#editor-text").text
        )
        editor.query_one("#editor-text").text = "config: {user.a: b}\n"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Choose))
        daemon.fail.clear()
        await pilot.press("down", "enter")
        await wait(pilot, lambda: pilot.app.on_main)
        assert put(daemon)["config"] == {"user.a": "b"}


@pytest.mark.parametrize("which", ["form", "yaml"])
async def test_what_fails_after_its_dialog_was_closed_is_told(daemon: FakeDaemon, which: str) -> None:
    from lxpy.tui.screens.edit import Editor

    ready = asyncio.Event()

    async def refuse(*_: object) -> None:
        await ready.wait()
        raise BadRequest("web1 is locked: wait for its backup to end")

    async with opened(daemon) as pilot:
        app, keys = pilot.app, await form(pilot)
        if which == "form":
            keys.subject.save = refuse
            await pilot.press(*"boot.autostart", "enter", *"true", "escape")
        else:
            await pilot.press("ctrl+e")
            await wait(pilot, lambda: isinstance(app.screen, Editor))
            app.screen._save = refuse
            app.screen.query_one("#editor-text").text = "config: {user.a: b}\n"
        await pilot.press("ctrl+s", "escape", "escape", "escape")
        await wait(pilot, lambda: app.on_main)
        ready.set()
        await wait(pilot, lambda: any("Cannot save: web1" in n and "web1 is locked" in n for n in notices(app)))


# -- pools -------------------------------------------------------------------------------------------------------------


@SIZES
async def test_volumes_look_as_they_did(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with opened(daemon, size) as pilot:
        tab = await at(pilot, VolumesTab, 4, "fast")
        await wait(pilot, lambda: tab.table.rows and tab.table.rows[0].used > 0)
        await pictures(pilot, size, [
            ("volumes", ["down"]),
            ("volume-new", ["n", *"x", "tab", *"lots"]),
            ("volume-attach", ["escape", "t", "tab", *"srv"]),
            ("volumes-marked", ["escape", "asterisk"]),
            ("volumes-profile", ["p", "tab", *"/srv/{name}"]),
            ("volumes-export", ["escape", "E"]),
            ("volume-edit", ["escape", "ctrl+backslash", "e", *"size"]),
        ])  # fmt: skip


def sent(daemon: FakeDaemon) -> tuple[str, str, Any]:
    """The last change that was asked for."""
    return next(
        (method, path, body) for method, path, body in reversed(daemon.requests)
        if method != "GET" and not path.endswith("/check")
    )  # fmt: skip


async def test_volumes_are_in_order_with_what_they_take(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        tab = await at(pilot, VolumesTab, 4, "default")
        await wait(pilot, lambda: "Nothing in this pool" in screen.text(pilot.app))
        await pilot.press("escape")
        tab = await at(pilot, VolumesTab, 4, "fast")
        await wait(pilot, lambda: tab.table.rows and tab.table.rows[0].used > 0)
        names = [row.name[:11] for row in tab.table.rows]
        assert names == ["attic", "data", "data/before", "data/later", "web1", "3fa9c1e03fa"]
        assert tab.table.rows[1].users == ["instance web1", "instance db (lab)"]
        assert tab.table.rows[5].used == 54_000_000


@pytest.mark.parametrize(
    ("at_row", "key", "answers", "wanted"),
    [
        ("custom data", "z", {"size": "20GiB"}, ("PATCH", "custom/data", {"config": {"size": "20GiB"}})),
        ("custom data", "a", {"name": "now"}, ("POST", "custom/data/snapshots", {"name": "now"})),
        ("custom data", "R", {"name": "facts"}, ("POST", "custom/data", {"name": "facts"})),
        ("custom data/later", "R", {"name": "x"}, ("POST", "custom/data/snapshots/later", {"name": "x"})),
        ("custom data/before", "r", None, ("PUT", "custom/data", {"restore": "before"})),
        ("custom data/before", "ctrl+d", None, ("DELETE", "custom/data/snapshots/before", None)),
        ("custom attic", "ctrl+d", None, ("DELETE", "custom/attic", None)),
        ("custom data/before", "c", {"name": "old"}, ("POST", "custom", {
            "name": "old", "type": "custom", "config": {},
            "source": {"type": "copy", "pool": "fast", "name": "data/before", "volume_only": False, "refresh": False},
        })),
        ("custom data", "c", {"name": "attic", "refresh": "yes"}, ("POST", "custom", {
            "name": "attic", "type": "custom", "config": {},
            "source": {"type": "copy", "pool": "fast", "name": "data", "volume_only": False, "refresh": True},
        })),
        ("custom data", "n", {"name": "new", "size": "5GiB", "more": "user.a=b"}, ("POST", "custom", {
            "name": "new", "description": "", "type": "custom", "content_type": "filesystem",
            "config": {"size": "5GiB", "user.a": "b"},
        })),
        ("custom attic", "t", {"path": "/srv"}, ("PUT", "", {
            "attic": {"type": "disk", "pool": "fast", "source": "attic", "path": "/srv"},
        })),
    ],
)  # fmt: skip
async def test_what_is_done_to_volumes(
    daemon: FakeDaemon, at_row: str, key: str, answers: dict[str, str] | None, wanted: tuple[str, str, Any]
) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, VolumesTab, 4, "fast")
        await wait(pilot, lambda: tab.table.rows)
        tab.table.action_to([row.key for row in tab.table.rows].index(at_row))
        await pilot.press(key)
        await wait(pilot, lambda: not app.on_main)
        if answers is None:
            assert isinstance(app.screen, Confirm)
            await pilot.press("y")
        else:
            for name, text in answers.items():
                field = app.screen.query_one(f"#ask-{name}")
                if isinstance(field, Checkbox):
                    field.value = bool(text)
                else:
                    app.screen.query_one(f"#ask-{name}", Input).value = text
            line = app.screen.query_one("#form-line", Static)
            await wait(pilot, lambda: shlex.split(str(line.render()))[1:4] == ["lxpy", "storage", "volume"])
            await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and sent(daemon)[0] == wanted[0])
        _, path, body = sent(daemon)
        if wanted[1]:
            assert (path, body) == (f"/1.0/storage-pools/fast/volumes/{wanted[1]}", wanted[2])
        else:
            assert path == "/1.0/instances/build" and body["devices"] == wanted[2]


async def test_keys_typed_ahead_of_a_form_are_in_their_order(daemon: FakeDaemon) -> None:
    """All in one go, as from a fast hand in front of a slow app: tab, backspace and arrows keep their place."""
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, VolumesTab, 4, "fast")
        await wait(pilot, lambda: tab.table.rows)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        keys = [*"noxx", "backspace", "backspace", "left", "w", "tab", *"5GiBx", "backspace", "tab", "b", "shift+tab"]
        for key in [*keys, "end", "backspace", "ctrl+s"]:
            app.post_message(events.Key(key, key if len(key) == 1 else None))
        await wait(pilot, lambda: fault(app, "#fault-size"))
        assert [app.screen.answers()[name] for name in ("name", "size", "about")] == ["nwo", "5Gi", "b"]
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        await pilot.press("E")  # with a list to choose from and boxes to tick between
        await wait(pilot, lambda: isinstance(app.screen, Form))
        for key in ("tab", "tab", "space", "tab", *["shift+tab"] * 3, "end", "x"):
            app.post_message(events.Key(key, {"space": " "}.get(key, key if len(key) == 1 else None)))
        await wait(pilot, lambda: app.screen.answers()["file"].endswith("gzx"))
        assert [app.screen.answers()[name] for name in ("only", "replace")] == ["yes", ""]


async def test_only_volumes_of_ones_own_are_marked_and_some_verbs_take_one(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, VolumesTab, 4, "fast")
        await wait(pilot, lambda: tab.table.rows)
        await pilot.press("asterisk")
        assert tab.table.marks == {"custom attic", "custom data", "custom data/before", "custom data/later"}
        await pilot.press("R")
        await wait(pilot, lambda: any("2 volumes are marked: Only one" in notice for notice in notices(app)))
        await pilot.press("ctrl+backslash", "end", "space", "E")  # an image's
        await wait(pilot, lambda: any("comes and goes with its image" in notice for notice in notices(app)))
        assert app.on_main and not tab.table.marks


async def test_bad_sizes_and_names_of_volumes_are_not_sent(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, VolumesTab, 4, "fast")
        await wait(pilot, lambda: tab.table.rows)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press(*"a/b", "tab", *"lots", "ctrl+s")
        await wait(pilot, lambda: "Invalid storage volume name" in fault(app, "#fault-name"))
        assert "not a size" in fault(app, "#fault-size")
        assert not [r for r in daemon.requests if r[0] == "POST" and not r[1].endswith("/check")]
        await pilot.press("escape")
        tab.table.action_to(4)
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: any("comes and goes with its instance" in n for n in notices(app)))


# -- networks ----------------------------------------------------------------------------------------------------------


@SIZES
async def test_forwards_and_acls_look_as_they_did(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with opened(daemon, size) as pilot:
        tab = await at(pilot, ForwardsTab, 5, "lxpybr0")
        await wait(pilot, lambda: tab.table.rows)
        await pictures(pilot, size, [
            ("forwards", ["down"]),
            ("forward-new", ["n", *"127.0.0.1"]),
        ])  # fmt: skip
        await pilot.press("escape")
        tab = await at(pilot, AclsTab, 5, "lxpybr0")
        await wait(pilot, lambda: tab.table.rows)
        await pictures(pilot, size, [("acls", ["G"]), ("acl-rule", ["a"])])


async def test_forwards_are_made_and_go(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, ForwardsTab, 5, "lxpybr0")
        await wait(pilot, lambda: tab.table.rows)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        for name, text in (("listen_address", "192.0.2.8"), ("listen_port", "80"), ("target_address", "10.9.9.9")):
            app.screen.query_one(f"#ask-{name}", Input).value = text
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "is not inside 10.71.4.0/24" in fault(app, "#fault-target_address"))
        app.screen.query_one("#ask-target_address", Input).value = "10.71.4.11"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main)
        assert sent(daemon) == ("POST", "/1.0/networks/lxpybr0/forwards", {
            "listen_address": "192.0.2.8", "description": "", "config": {},
            "ports": [{"protocol": "tcp", "listen_port": "80", "target_address": "10.71.4.11"}],
        })  # fmt: skip
        tab.table.action_to(2)
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: sent(daemon)[0] == "PUT")
        assert [port["protocol"] for port in sent(daemon)[2]["ports"]] == ["tcp"]
        await pilot.press("g", "a")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        for name, text in (("listen_port", "443"), ("target_address", "10.71.4.11")):
            app.screen.query_one(f"#ask-{name}", Input).value = text
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "tcp port 443 is forwarded already" in screen.text(app))


async def test_acls_are_made_ruled_used_and_go(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        tab = await at(pilot, AclsTab, 5, "lxpybr0")
        await wait(pilot, lambda: tab.table.rows)
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        await pilot.press(*"web", "ctrl+s")
        await wait(pilot, lambda: "already exists" in fault(app, "#fault-name"))
        await pilot.press(*"2", "ctrl+s")
        await wait(pilot, lambda: app.on_main)
        assert sent(daemon)[2] == {"name": "web2", "description": "", "config": {}, "ingress": [], "egress": []}
        await pilot.press("g", "u")  # none: not used here yet
        await wait(pilot, lambda: sent(daemon)[1] == "/1.0/networks/lxpybr0")
        assert sent(daemon)[2]["config"]["security.acls"] == "web,none"
        await pilot.press("a")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#ask-source", Input).value = "nowhere"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "not an address" in fault(app, "#fault-source"))
        app.screen.query_one("#ask-source", Input).value = "10.0.0.0/8"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main)
        assert sent(daemon)[:2] == ("PUT", "/1.0/network-acls/none")
        assert sent(daemon)[2]["ingress"] == [{"action": "allow", "source": "10.0.0.0/8", "state": "enabled"}]
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: sent(daemon)[:2] == ("DELETE", "/1.0/network-acls/none"))


# -- devices of a launch -----------------------------------------------------------------------------------------------


async def test_a_launch_with_devices(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, LaunchDialog) and app.screen._profiles)
        dialog = app.screen
        await pilot.press(*"bb", "enter", *"shop", "ctrl+o")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("down", "down", "enter")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#ask-listen", Input).value = "tcp:0.0.0.0:80,443"
        app.screen.query_one("#ask-connect", Input).value = "tcp:127.0.0.1:80"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.screen is dialog)
        assert "web: tcp:0.0.0.0:80,443 → tcp:127.0.0.1:80" in screen.text(app)
        line = str(dialog.query_one("#launch-line", Static).render()).replace("\n", " ")
        assert shlex.split(line)[-2:] == ["-d", "web,type=proxy,listen=tcp:0.0.0.0:80,443,connect=tcp:127.0.0.1:80"]
        await pilot.click("#add-device")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        for name, text in (("source", "/home"), ("path", "/mnt")):
            app.screen.query_one(f"#ask-{name}", Input).value = text
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.screen is dialog)
        await pilot.click("#take-device")
        await wait(pilot, lambda: isinstance(app.screen, Choose))
        await pilot.press("enter")  # web goes again
        await wait(pilot, lambda: app.screen is dialog)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: any(r[:2] == ("POST", "/1.0/instances") for r in daemon.requests))
        body = next(r[2] for r in daemon.requests if r[:2] == ("POST", "/1.0/instances"))
        assert body["devices"] == {"share": {"type": "disk", "source": "/home", "path": "/mnt", "owner": "0"}}

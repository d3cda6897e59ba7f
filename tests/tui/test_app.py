"""The app's screens, keys and error paths in front of an imagined daemon."""

import asyncio
import importlib
import pathlib
import pkgutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import yaml
from rich.color import ColorType
from textual import events
from textual.color import Color
from textual.events import Key
from textual.pilot import Pilot
from textual.widgets import Input, TextArea

import lxpy.tui
from lxpy.api.errors import BadRequest, Unavailable
from lxpy.tui import actions, settings
from lxpy.tui import app as app_module
from lxpy.tui.app import LxpyApp, few_colours
from lxpy.tui.model import Changed
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.help import HelpScreen
from lxpy.tui.screens.launch import LaunchDialog
from lxpy.tui.screens.log import LogScreen
from tests.tui import screen
from tests.tui.fake import FakeDaemon, instance

WIDE, SMALL = (160, 50), (80, 24)


@asynccontextmanager
async def opened(daemon: FakeDaemon, size: tuple[int, int] = WIDE) -> AsyncIterator[Any]:
    app = LxpyApp(daemon.gateway(), settings.Settings(refresh=3600.0))  # readings come when a test says so
    app.theme = "lxpy-dark"
    async with app.run_test(size=size) as pilot:
        app.model._host = lambda: False  # type: ignore[method-assign]  # this machine's load is no part of a picture
        await wait(pilot, lambda: app.model.remotes and app.main.panes[2].rows)
        await pilot.pause()
        yield pilot


async def wait(pilot: Pilot[Any], condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s; {notices(pilot.app)}\n{screen.text(pilot.app)}"
        await pilot.pause(0.01)


def notices(app: Any) -> list[str]:
    return [f"{n.title}: {n.message}" for n in app._notifications]


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> FakeDaemon:
    # Ages would change every day.
    monkeypatch.setattr("lxpy.tui.rows.time.time", lambda: 1577836800 + 3 * 3600)
    return FakeDaemon()


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("main", ["down"]),
        ("detail", ["G", "k", "enter"]),
        ("images", ["2"]),
        ("remotes", ["3"]),
        ("storage", ["4"]),
        ("networks", ["5", "enter"]),
        ("profiles", ["6"]),
        ("operations", ["u", "7"]),
        ("warnings", ["8"]),
        ("new-network", ["5", "n"]),
        ("edit", ["6", "e"]),
        ("edit-yaml", ["2", "e"]),
        ("snapshot", ["a"]),
        ("marks", ["space", "space", "T"]),
        ("filter", ["slash", *"state:run", "enter"]),
        ("nothing-matches", ["slash", *"zzz", "enter"]),
        ("launch", ["n", *"alp"]),
        ("delete", ["space", "space", "ctrl+d"]),
        ("help", ["question_mark"]),
        ("copy", ["G", "y"]),
        ("log", ["l"]),
    ],
)
async def test_every_screen_looks_as_it_did(
    daemon: FakeDaemon, name: str, keys: list[str], size: tuple[int, int]
) -> None:
    async with opened(daemon, size) as pilot:
        pilot.app.set_class(True, "-test")
        Input.cursor_blink = TextArea.cursor_blink = False  # type: ignore[assignment]
        for key in keys:
            await pilot.press(key)
            await pilot.pause()
            if key in "45678":  # its objects are asked for now
                await wait(pilot, lambda: pilot.app.main.active.rows)
        await screen.settled(pilot, f"{name}-{size[0]}x{size[1]}")


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
async def test_an_empty_house_says_what_to_do(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    daemon.instances.clear()
    daemon.images = []
    async with opened(daemon, size) as pilot:
        await screen.settled(pilot, f"empty-{size[0]}x{size[1]}")


@pytest.mark.parametrize(
    ("key", "target", "action", "force"),
    [
        ("u", "build", "start", False),
        ("x", "web1", "stop", False),
        ("ctrl+x", "web1", "stop", True),
        ("r", "web1", "restart", False),
        ("p", "web1", "freeze", False),
        ("p", "db", "unfreeze", False),
    ],
)
async def test_state_keys(daemon: FakeDaemon, key: str, target: str, action: str, force: bool) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, target)
        await pilot.press(key)
        await wait(pilot, lambda: any(m == "PUT" for m, _, _ in daemon.requests))
        _, path, body = next(r for r in daemon.requests if r[0] == "PUT")
        assert (path, body["action"], body["force"]) == (f"/1.0/instances/{target}/state", action, force)
        wanted = daemon.instances[target]["status"]
        await wait(pilot, lambda: pilot.app.model.instances[target].status == wanted)


async def test_a_verb_that_does_not_fit_says_so(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "build")
        await pilot.press("x")
        await wait(pilot, lambda: notices(pilot.app))
        assert notices(pilot.app) == ["Nothing to stop: build: already stopped"]
        assert not [r for r in daemon.requests if r[0] == "PUT"]


async def test_many_are_asked_about_by_name(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("space", "space", "x")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        assert str(pilot.app.screen.query_one("#confirm-names Static").render()).split() == ["web1", "web2"]
        await pilot.press("y")
        await wait(pilot, lambda: all(daemon.instances[n]["status"] == "Stopped" for n in ("web1", "web2")))
        await wait(pilot, lambda: not pilot.app.main.panes[0].marks)


async def test_no_is_the_answer_to_a_bare_enter(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(pilot.app.screen, Confirm))
        await pilot.press("enter")
        await wait(pilot, lambda: pilot.app.on_main)
        assert not [r for r in daemon.requests if r[0] == "DELETE"]


async def test_delete_stops_what_runs(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("ctrl+d", "y")
        await wait(pilot, lambda: "web1" not in pilot.app.model.instances)
        assert [r[:2] for r in daemon.requests if r[0] in ("PUT", "DELETE")] == [
            ("PUT", "/1.0/instances/web1/state"),
            ("DELETE", "/1.0/instances/web1"),
        ]


async def test_delete_an_image(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("2")
        await pilot.pause()
        await pilot.press("ctrl+d", "y")
        await wait(pilot, lambda: len(pilot.app.model.images) == 1)


async def test_a_failed_operation_is_readable_and_kept(daemon: FakeDaemon) -> None:
    daemon.instances["broken"] = instance("broken", "Stopped")
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "broken")
        await pilot.press("u")
        await wait(pilot, lambda: notices(pilot.app))
        assert "its image has no /sbin/init; set `raw.init`" in notices(pilot.app)[0]
        await pilot.press("o")
        await wait(pilot, lambda: "failed" in screen.text(pilot.app) and "`raw.init`" in screen.text(pilot.app))


async def test_a_refused_request_is_readable(daemon: FakeDaemon) -> None:
    daemon.fail["PUT", "/1.0/instances/web1"] = BadRequest("web1 is locked: wait for its backup to end")
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("r")
        await wait(pilot, lambda: notices(pilot.app))
        assert notices(pilot.app) == ["Cannot restart: web1: web1 is locked: wait for its backup to end"]


async def test_work_is_shown_while_it_goes_on(daemon: FakeDaemon) -> None:
    daemon.hold = True
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("r")
        await wait(pilot, lambda: "Restarting instance web1" in screen.text(pilot.app))
        await wait(pilot, lambda: "◌ Restarting" in screen.text(pilot.app))
        operation = daemon.operations["op-1"]
        operation["metadata"] = {"x_progress": "45%"}  # also for who asks, as the app does after two seconds
        daemon.emit("operation", {k: v for k, v in operation.items() if k != "_done"})
        await wait(pilot, lambda: "45%" in screen.text(pilot.app))
        operation |= {"status_code": 104, "status": "Cancelling"}
        daemon.emit("operation", {k: v for k, v in operation.items() if k != "_done"})
        await pilot.press("7")
        await wait(pilot, lambda: "◌ cancelling" in screen.text(pilot.app))
        assert "Restarting instance web1  cancelling" in screen.text(pilot.app)
        daemon.finish("op-1")
        await wait(pilot, lambda: "cancelling" not in screen.text(pilot.app))


async def test_launch_from_a_catalogue(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("n", *"images:alp")
        await wait(pilot, lambda: "images:alpine/3.20" in screen.text(pilot.app))
        await pilot.press("enter", *"shop")
        await pilot.pause()
        assert "$ lxpy launch images:alpine/3.20 shop" in screen.text(pilot.app)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: getattr(pilot.app.model.instances.get("shop"), "status", "") == "Running")
        body = next(r[2] for r in daemon.requests if r[0] == "POST")
        assert body["source"] == {
            "type": "image", "alias": "alpine/3.20", "server": "https://images.linuxcontainers.org",
            "protocol": "simplestreams", "mode": "pull",
        }  # fmt: skip
        await wait(pilot, lambda: any("shop is running" in n for n in notices(pilot.app)))


@pytest.mark.parametrize(
    ("name", "profiles", "complaint"),
    [
        ("web1", "default", "an instance 'web1' already"),
        ("a_b", "default", "Invalid instance name"),
        ("ok", "zz", "no profile 'zz'"),
    ],
)
async def test_the_launch_dialog_checks_before_it_asks(
    daemon: FakeDaemon, name: str, profiles: str, complaint: str
) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(pilot.app.screen, LaunchDialog) and pilot.app.screen._profiles)
        pilot.app.screen.query_one("#image", Input).value = "bb"
        pilot.app.screen.query_one("#name", Input).value = name
        pilot.app.screen.query_one("#profiles", Input).value = profiles
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: complaint in screen.text(pilot.app))
        assert isinstance(pilot.app.screen, LaunchDialog)
        assert not [r for r in daemon.requests if r[0] == "POST"]


@pytest.mark.parametrize("size", [(80, 24), (80, 29), (109, 30), (110, 30), (200, 60)])
async def test_the_launch_dialog_is_seen_whole(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with opened(daemon, size) as pilot:
        await pilot.press("n")
        await wait(pilot, lambda: "Launch an instance" in screen.text(pilot.app))
        button = pilot.app.screen.query_one("#yes")
        assert button in pilot.app.screen._compositor.visible_widgets and "More" in screen.text(pilot.app)
        await pilot.click("#yes")
        await wait(pilot, lambda: len(daemon.instances) == 5)


async def test_the_best_match_is_what_is_launched(daemon: FakeDaemon) -> None:
    daemon.images.append(daemon.catalogue[1] | {"aliases": [{"name": "old-debian", "description": ""}]})
    async with opened(daemon) as pilot:
        await pilot.press("n", *"deb")
        await wait(pilot, lambda: "$ lxpy launch debian/13" in screen.text(pilot.app))
        await pilot.press("down")
        await wait(pilot, lambda: "$ lxpy launch old-debian" in screen.text(pilot.app))
        await pilot.press("i")  # another search begins at the top
        await wait(pilot, lambda: "$ lxpy launch debian/13" in screen.text(pilot.app))


async def test_an_image_that_comes_while_one_is_looked_for_is_offered(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("n", *"late")
        await wait(pilot, lambda: "$ lxpy launch late" in screen.text(pilot.app))
        assert "latecomer" not in screen.text(pilot.app)
        daemon.images.append(daemon.catalogue[1] | {"aliases": [{"name": "latecomer", "description": ""}]})
        daemon.lifecycle("image-created", "cc33dd44", "images")
        await wait(pilot, lambda: "latecomer" in screen.text(pilot.app))


async def test_a_refused_launch_keeps_what_was_typed(daemon: FakeDaemon) -> None:
    daemon.fail["POST", "/1.0/instances"] = BadRequest("Invalid value for limits.memory: 'lots' is no size")
    async with opened(daemon) as pilot:
        await pilot.press("n", *"bb", "enter", *"shop", "ctrl+s")
        await wait(pilot, lambda: "'lots' is no size" in screen.text(pilot.app))
        assert isinstance(pilot.app.screen, LaunchDialog)
        daemon.fail.clear()
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: getattr(pilot.app.model.instances.get("shop"), "status", "") == "Running")
        assert pilot.app.on_main


async def test_the_keys_of_the_list_work_in_the_detail(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web2")
        await pilot.press("space", "up", "enter")
        await wait(pilot, lambda: pilot.app.main.detail.has_focus_within)
        assert "x Stop" in screen.text(pilot.app)
        subject = pilot.app.main.detail.subject.name
        await pilot.press("a")
        await wait(pilot, lambda: f"Snapshot of {subject}" in screen.text(pilot.app))
        await pilot.press("escape", "ctrl+x")
        await wait(pilot, lambda: any(m == "PUT" for m, _, _ in daemon.requests))
        changed = [path for method, path, _ in daemon.requests if method == "PUT"]
        assert changed == [f"/1.0/instances/{subject}/state"], "what is looked at, and not what is marked"


async def test_a_catalogue_that_is_away_says_so_in_the_dialog(daemon: FakeDaemon) -> None:
    daemon.fail["GET", "/1.0/image-servers"] = Unavailable(
        "images is unreachable; builtin: offers busybox and debian/12"
    )
    async with opened(daemon) as pilot:
        await pilot.press("n", *"images:")
        await wait(pilot, lambda: "builtin: offers busybox" in screen.text(pilot.app))


async def test_another_client_is_seen_at_once(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        daemon.instances["late"] = instance("late", ip=99)
        daemon.lifecycle("instance-created", "late")
        await wait(pilot, lambda: "10.71.4.99" in screen.text(pilot.app), 2)
        del daemon.instances["late"]
        daemon.lifecycle("instance-deleted", "late")
        await wait(pilot, lambda: "late" not in screen.text(pilot.app), 2)


async def test_the_daemon_goes_and_comes_back(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        daemon.drop(ConnectionRefusedError(111, "Connection refused"))
        await wait(pilot, lambda: "disconnected" in screen.text(pilot.app))
        await wait(pilot, lambda: "The lxpy daemon is not running" in screen.text(pilot.app))
        assert "web1" in screen.text(pilot.app)
        daemon.instances["new"] = instance("new", ip=77)
        daemon.come_back()
        await wait(pilot, lambda: "10.71.4.77" in screen.text(pilot.app))
        assert "disconnected" not in screen.text(pilot.app)


async def test_opened_without_a_daemon(daemon: FakeDaemon) -> None:
    daemon.away = PermissionError(13, "Permission denied")
    app = LxpyApp(daemon.gateway())
    async with app.run_test(size=SMALL) as pilot:
        await wait(pilot, lambda: "Not connected" in screen.text(app))
        assert "join the group lxpy" in screen.text(app).replace("\n", " ").replace("  ", " ")
        await pilot.press("n", "escape", "x")
        daemon.come_back()
        await wait(pilot, lambda: "web1" in screen.text(app))


async def test_shell_suspends_and_always_comes_back(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """`suspend` itself needs a terminal: the tmux session does it; here is what may go wrong around it."""
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "build")
        await pilot.press("s")
        await wait(pilot, lambda: any("u starts it" in n for n in notices(pilot.app)))
        pilot.app.action_go(1, "web1")
        await pilot.press("S")  # no terminal here: refused readably, nothing lost
        await wait(pilot, lambda: len(notices(pilot.app)) == 2)
        await pilot.press("j")
        assert pilot.app.is_running
    monkeypatch.setattr(actions.subprocess, "run", lambda *a, **k: (_ for _ in ()).throw(OSError(2, "No such file")))
    assert "not running" in actions._shell("x") or "No such" in actions._shell("x")


async def test_keys_typed_ahead_of_the_filter_are_in_it(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pane = pilot.app.main.panes[0]
        for key in ("slash", *"web", "enter", "end"):  # as a terminal sends what is typed in one go: no pause
            pilot.app.post_message(events.Key(key, key if len(key) == 1 else None))
        await wait(pilot, lambda: pane.query_text == "web" and pane.current is pane.rows[-1])
        assert pilot.app.focused is pane and len(pane.rows) > 1


async def test_log_search_and_follow(daemon: FakeDaemon) -> None:
    daemon.log = "".join(f"line {i}\n" for i in range(500)) + "\x1b[31mthe needle\x1b[0m\r\n" + "tail\n" * 100
    async with opened(daemon, SMALL) as pilot:
        await pilot.press("l")
        await wait(pilot, lambda: isinstance(pilot.app.screen, LogScreen) and pilot.app.screen.view.lines)
        await wait(pilot, lambda: "tail" in screen.text(pilot.app))
        await pilot.press("slash", *"needle", "enter")
        await wait(pilot, lambda: "the needle" in screen.text(pilot.app))
        assert not pilot.app.screen.view.following
        await pilot.press("G", "escape")
        await wait(pilot, lambda: pilot.app.on_main)


async def test_palette_reaches_actions_and_objects(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("colon", *"web2")
        await pilot.pause(0.3)
        await pilot.press("down", "enter")
        await wait(pilot, lambda: pilot.app.on_main and pilot.app.main.panes[0].current.name == "web2")


async def test_the_mouse(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.click("#instances", offset=(8, 4))
        await wait(pilot, lambda: pilot.app.main.panes[0].current.name == "web1")
        await pilot.click("#instances", offset=(5, 1))  # the header of the sorted column turns the order round
        await wait(pilot, lambda: pilot.app.main.panes[0].rows[0].name == "web2")
        await pilot.click("#images", offset=(5, 2))
        await wait(pilot, lambda: pilot.app.main.active is pilot.app.main.panes[1])
        spot = next(s for s in pilot.app.main.query_one("#keys")._spots if s[2] == "question_mark")
        await pilot.click("#keys", offset=(spot[0] + 1, 0))
        await wait(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))


def test_every_binding_has_an_id_of_its_own() -> None:
    """Key maps name bindings by id, so each needs one, and it must stay."""
    for module in pkgutil.walk_packages(lxpy.tui.__path__, "lxpy.tui."):
        for thing in vars(importlib.import_module(module.name)).values():
            if isinstance(thing, type) and thing.__module__ == module.name:
                for binding in vars(thing).get("BINDINGS", ()):
                    assert binding.id, f"{thing.__name__}: {binding.key}"


async def test_help_is_made_of_the_bindings(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        here = [b.binding for b in pilot.app.main.active_bindings.values()]
        ours = [b for b in here if (b.id or "").startswith(("instance.", "pane.", "table.", "main.", "app."))]
        assert len(ours) > 25
        await pilot.press("question_mark")
        await wait(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        content = str(pilot.app.screen._content())
        assert [b for b in ours if b.description and b.description not in content] == []


async def test_two_thousand_rows_stay_smooth(daemon: FakeDaemon) -> None:
    daemon.instances = {f"c{i:04}": instance(f"c{i:04}", ip=i % 250 + 1) for i in range(2000)}
    async with opened(daemon) as pilot:
        pane = pilot.app.main.panes[0]
        began = time.process_time()  # our own work: the machine may have other work as well
        pane.fill(list(pilot.app.model.instances.values()))
        filled = time.process_time() - began
        began = time.process_time()
        for _ in range(20):
            await pilot.press("pagedown")
        paged = (time.process_time() - began) / 20
        print(f"2000 rows: fill {filled * 1000:.0f} ms, page {paged * 1000:.0f} ms")
        assert pane.cursor > 500
        assert filled < 1.0 and paged < 0.5


async def test_a_hanging_call_does_not_keep_the_app_from_quitting(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        over = threading.Event()
        hanging = pilot.app.gateway.call(lambda c: over.wait(30), alone=True)
        asyncio.get_running_loop().create_task(_swallow(hanging))
        await pilot.pause(0.05)
        began = time.monotonic()
    over.set()
    assert time.monotonic() - began < 20


async def _swallow(awaitable: Any) -> None:
    try:
        await awaitable
    except Exception:
        pass


def test_colours_of_poor_terminals() -> None:
    assert few_colours({"TERM": "linux"}) and few_colours({"TERM": "screen"})
    assert not few_colours({"TERM": "xterm-256color"}) and not few_colours({"TERM": "xterm", "COLORTERM": "truecolor"})


def test_a_fault_of_ours_is_one_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LXPY_CONF", str(tmp_path))
    line = app_module._record(ValueError("boom\nsecond line"))
    assert line.startswith("ValueError: boom (details") and "\n" not in line
    assert "ValueError: boom" in (tmp_path / "tui-fault.log").read_text()


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
async def test_graphs_over_time(daemon: FakeDaemon, size: tuple[int, int]) -> None:
    async with opened(daemon, size) as pilot:
        app = pilot.app
        app.action_go(1, "web1")
        await pilot.press("enter")
        for _ in range(30):
            await app.model._usage()
        app.main.changed(Changed("usage"))
        await wait(pilot, lambda: "Disk" in screen.text(app) or size == SMALL)
        await pilot.pause(0.1)
        await screen.settled(pilot, f"graphs-{size[0]}x{size[1]}")


async def test_a_form_shows_what_was_refused_and_keeps_what_was_typed(daemon: FakeDaemon) -> None:
    daemon.fail[("POST", "/1.0/networks")] = BadRequest("Invalid value for ipv4.address: 'x' is no address")
    async with opened(daemon) as pilot:
        await pilot.press("5", "n")
        await wait(pilot, lambda: pilot.app.screen.query("#ask-name"))
        await pilot.press(*"br9", "ctrl+s")
        await wait(pilot, lambda: "is no address" in screen.text(pilot.app))
        assert "lxpy network create br9" in screen.text(pilot.app)
        daemon.fail.clear()
        await pilot.press("escape")
        await wait(pilot, lambda: pilot.app.on_main)
        assert [r[2]["name"] for r in daemon.requests if r[:2] == ("POST", "/1.0/networks")] == ["br9"]


async def test_what_is_longer_than_its_field_is_still_seen(daemon: FakeDaemon) -> None:
    async with opened(daemon, SMALL) as pilot:
        await pilot.press("a")
        await wait(pilot, lambda: pilot.app.screen.query("#ask-name"))
        pilot.app.screen.query_one("#ask-name", Input).value = "x" * 200
        await pilot.pause()
        assert "x" * 40 in screen.text(pilot.app)


async def test_an_edit_keeps_hidden_keys_and_says_what_is_wrong(daemon: FakeDaemon) -> None:
    daemon.instances["web1"]["config"]["volatile.uuid"] = "1-2-3"
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("e", "ctrl+e")
        await wait(pilot, lambda: pilot.app.screen.query("#editor-text"))
        area = pilot.app.screen.query_one("#editor-text")
        assert "volatile" not in area.text
        area.text = "config: [\n"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "Line 2" in screen.text(pilot.app))
        area.text = "colour: blue\n"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "Unknown field 'colour'" in screen.text(pilot.app))
        area.text = "config: {limits.cpu: 3}\ndevices: {}\nprofiles: [default]\n"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: pilot.app.on_main)
        _, path, body = next(r for r in daemon.requests if r[0] == "PUT")
        assert path == "/1.0/instances/web1"
        assert body["config"] == {"volatile.uuid": "1-2-3", "limits.cpu": "3"}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("theme: [", "line 1"), ("colour: blue", "line 1: colour: unknown setting"), ("refresh: 0", "1 to 60"),
        ("columns: [size]", "list of some of name"), ("confirm: never", "one of deletes, changes"),
        ("read_only: 3", "true or false"), ("keys: [x]", "map ids"), ("shell: ''", "command line"), ("- a", "mapping"),
    ],
)  # fmt: skip
def test_settings_say_what_is_wrong(
    text: str, fault: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lxpy.tui.settings.path", lambda: str(tmp_path / "config.yaml"))
    assert settings.load() == settings.Settings()
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(settings.SettingsError, match=fault):
        settings.load()


async def test_settings_are_honoured(daemon: FakeDaemon) -> None:
    wanted = settings.checked(
        {
            "theme": "lxpy-light", "columns": ["name", "memory"], "confirm": "changes",
            "keys": {"instance.stop": "Z", "no.such": "q"},
        }
    )  # fmt: skip
    app = LxpyApp(daemon.gateway(), wanted)
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: app.main.panes[0].rows)
        assert app.theme == "lxpy-light" and [c.key for c in app.main.panes[0].columns] == ["name", "memory"]
        assert any("no.such" in n for n in notices(app))
        app.action_go(1, "web1")
        await pilot.press("Z")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: any(m == "PUT" for m, _, _ in daemon.requests))


async def test_a_read_only_app_changes_nothing(daemon: FakeDaemon) -> None:
    app = LxpyApp(daemon.gateway(), read_only=True)
    async with app.run_test(size=WIDE) as pilot:
        await wait(pilot, lambda: app.main.panes[0].rows)
        app.action_go(1, "web1")
        for key in ("x", "r", "s", "a", "c", "e", "ctrl+d", "n", "R"):
            await pilot.press(key)
            await pilot.pause()
            assert app.on_main, key
        assert not [r for r in daemon.requests if r[0] != "GET"]
        assert "read-only" in screen.text(app)


async def test_another_project_and_other_columns(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = pilot.app
        await pilot.press("f2")
        await wait(pilot, lambda: not app.on_main)
        await pilot.press("down", "enter")
        await wait(pilot, lambda: app.on_main and app.model.loaded and app.gateway.project == "lab")
        await wait(pilot, lambda: "project lab" in screen.text(app) and app.main.panes[0].rows)
        await pilot.press("v")
        await wait(pilot, lambda: app.screen.query("#ask-image"))
        app.screen.query_one("#ask-image").value = False
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and "IMAGE" not in screen.text(app).splitlines()[2])


async def test_all_that_the_filter_lets_through_can_be_marked(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pane = pilot.app.main.panes[0]
        await pilot.press("slash", *"web", "enter")
        await wait(pilot, lambda: len(pane.rows) == 2)
        await pilot.press("asterisk")
        await wait(pilot, lambda: pane.marks == {"web1", "web2"} and "2 marked" in str(pane.border_subtitle))


async def test_a_regular_expression_filters(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        await pilot.press("slash", *"~^web[2-9]", "enter")
        await wait(pilot, lambda: [row.name for row in pilot.app.main.panes[0].rows] == ["web2"])


async def test_a_terminal_that_is_too_small_gets_one_line(daemon: FakeDaemon) -> None:
    async with opened(daemon, SMALL) as pilot:
        await pilot.press("n", *"deb")
        for size in ((20, 5), (1, 1), (20, 5)):
            await pilot.resize_terminal(*size)
        await wait(pilot, lambda: screen.text(pilot.app).split() == ["lxpy", "needs", "80x24"])
        await pilot.resize_terminal(*SMALL)
        await wait(pilot, lambda: isinstance(pilot.app.screen, LaunchDialog))
        assert "$ lxpy launch debian/13" in screen.text(pilot.app), "all is as it was"


async def test_the_whole_of_an_object_can_be_copied(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        await pilot.press("y", "end", "enter")
        await wait(pilot, lambda: pilot.app.clipboard)
        assert yaml.safe_load(pilot.app.clipboard)["config"] == daemon.instances["web1"]["config"]


async def test_sixteen_colours_are_the_terminal_s_own(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        pilot.app.theme = "lxpy-16"
        await pilot.pause()
        colours = {
            segment.style.color.type
            for strip in pilot.app.main._compositor.render_strips(pilot.app.size)
            for segment in strip
            if segment.style and segment.style.color
        }
        assert colours <= {ColorType.DEFAULT, ColorType.STANDARD}, colours


async def test_nothing_that_a_guest_says_is_a_command_to_the_terminal(daemon: FakeDaemon) -> None:
    evil = "a\x1b[31mb\x07\x9b1mc"
    daemon.instances["web1"]["description"] = evil
    daemon.images[0]["aliases"][0]["name"] = evil
    async with opened(daemon) as pilot:
        pilot.app.action_go(1, "web1")
        pilot.app.notify(evil, title=evil, markup=False)
        await pilot.press("enter")
        await pilot.pause(0.2)
        strips = pilot.app.screen._compositor.render_strips(pilot.app.size)
        assert all(text.isprintable() for strip in strips for text, _, _ in strip)
        assert "a␛[31mb␇" in screen.text(pilot.app), "a table shows what it is"


async def test_every_theme_can_be_had_and_read(daemon: FakeDaemon) -> None:
    async with opened(daemon, SMALL) as pilot:
        app = pilot.app
        app.action_go(1, "web1")
        for name, theme in app.available_themes.items():
            app.theme = name  # a stylesheet that it does not suit is an exception here
            await pilot.pause()
            assert "web1" in screen.text(app), name
            if theme.ansi:
                continue
            for segment in app.main._compositor.render_strips(app.size)[4]:
                front, back = (Color.from_rich_color(c) for c in (segment.style.color, segment.style.bgcolor))
                if segment.text.strip():
                    assert abs(front.brightness - back.brightness) > 0.15, f"{name}: {segment.text!r}"


async def test_what_was_typed_before_ctrl_s_counts(daemon: FakeDaemon) -> None:
    """All at once, as from a paste or a slow line: the key that launches must not overtake the name."""
    async with opened(daemon) as pilot:
        await pilot.press("n")
        await wait(pilot, lambda: "$ lxpy launch debian/13" in screen.text(pilot.app))
        pilot.app.screen.query_one("#name", Input).focus()
        await pilot.pause()
        for key in (*"shop", "ctrl+s"):
            pilot.app.post_message(Key(key, key if len(key) == 1 else None))
        await wait(pilot, lambda: "shop" in daemon.instances)


def burst(app: Any, *keys: str) -> None:
    """All keys at once."""
    for key in keys:
        app.post_message(Key(key, key if len(key) == 1 else None))


async def test_editing_keys_are_taken_in_the_order_of_typing(daemon: FakeDaemon) -> None:
    """In the fields and texts of dialogs: none comes before what was typed before it, or after what was typed later."""
    editing = (*"wrong", "ctrl+u", *"bc", "home", "a", "right", "right", "x", "backspace", *"de", "left", "delete", "f")
    async with opened(daemon) as pilot:
        app = pilot.app
        app.action_go(1, "web1")
        await pilot.pause()
        for dialog, ident in (("rename", "#ask-name"), ("configure", "#ask-value"), ("edit", "#keys-find")):
            app.action_verb(dialog)
            await wait(pilot, lambda ident=ident: app.screen.query(ident) and app.focused is not None)  # type: ignore[misc]
            field = app.screen.query_one(ident, Input)
            field.focus()
            await pilot.pause()
            burst(app, *editing)
            await wait(pilot, lambda field=field: field.value == "abcdf")  # type: ignore[misc]
            burst(app, "ctrl+u", "escape", "escape")
            await wait(pilot, lambda: app.on_main)
        await pilot.press("2", "slash")
        await wait(pilot, lambda: app.screen.query("#filter-input"))
        field = app.screen.query_one("#filter-input", Input)
        burst(app, *editing)
        await wait(pilot, lambda: field.value == "abcdf")
        await pilot.press("escape")
        # arrows with priority: the second of what was found, not of what was there before
        app.main.action_pane(1)
        await pilot.press("e")
        await wait(pilot, lambda: app.screen.query("#keys-find") and app.screen.loaded is not None)
        burst(app, *"limits.memory", "down", "enter", "ctrl+u", *"x")
        await wait(pilot, lambda: app.screen.changes)
        assert list(app.screen.changes.items()) == [("limits.memory.enforce", "x")]
        burst(app, "ctrl+u", "escape", "ctrl+e")
        await wait(pilot, lambda: app.screen.query("#editor-text"))
        text = app.screen.query_one("#editor-text", TextArea)
        first = text.text.splitlines()[0]
        burst(app, *"ab", "left", "x", "end", "y", "home", "z", "down", "home", "w", "escape")
        await wait(pilot, lambda: "It has changed" in screen.text(app))
        assert text.text.splitlines()[0] == f"zaxb{first}y" and text.text.splitlines()[1].startswith("w")

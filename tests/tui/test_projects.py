"""Projects in the app: made, edited, filled, renamed, deleted, in front of a real daemon; how the list looks."""

import json
import re
from typing import Any

import pytest
from textual.widgets import Checkbox, Input, Static

from lxpy.tui.screens.choose import Choose
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.edit import Editor
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.keys import KeysForm
from lxpy.tui.screens.projects import Projects
from tests.support.daemon import Lxpyd
from tests.tui import screen
from tests.tui.fake import FakeDaemon
from tests.tui.test_app import SMALL, WIDE, daemon
from tests.tui.test_app import opened as fake_opened
from tests.tui.test_named_objects import answered, fault, form
from tests.tui.test_real_daemon import notices, opened, wait

__all__ = ["daemon"]


async def listed(pilot: Any, *keys: str) -> Projects:
    """The list of projects, which has those."""
    if pilot.app.on_main:
        await pilot.press("f2")
    await wait(pilot, lambda: isinstance(pilot.app.screen, Projects))
    found: Projects = pilot.app.screen
    await wait(pilot, lambda: {*keys, "default"} <= {row.key for row in found.table.rows})
    return found


async def on(pilot: Any, key: str) -> Projects:
    """The list with the cursor on a project, and its usage read."""
    found = await listed(pilot, key)
    found.table.action_to([row.key for row in found.table.rows].index(key))
    await wait(pilot, lambda: found.table.current.key == key and "USED" in told(found))
    return found


def told(found: Projects) -> str:
    return str(found.query_one("#project-facts", Static).render())


async def test_the_life_of_a_project(lxpyd: Lxpyd, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    project, new = f"{name}-lab", f"{name}-den"
    try:
        async with opened(lxpyd, monkeypatch) as pilot:
            app = pilot.app
            found = await listed(pilot)
            await form(pilot, "n")
            await answered(pilot, name="default")
            await wait(pilot, lambda: "already exists" in fault(app))
            app.screen.query_one("#ask-features-images", Checkbox).value = False
            app.screen.query_one("#ask-limits-memory", Input).value = "lots"
            await answered(pilot, name=project)
            await wait(pilot, lambda: "lots" in fault(app, "limits-memory"))
            app.screen.query_one("#ask-limits-memory", Input).value = "1GiB"
            app.screen.query_one("#ask-more", Input).value = "user.colour=blue"
            await wait(pilot, lambda: "user.colour=blue" in str(app.screen.query_one("#form-line", Static).render()))
            line = str(app.screen.query_one("#form-line", Static).render())
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: app.screen is found and found.table.current.key == project)
            made = lxpyd.json("query", f"/1.0/projects/{project}")["config"]
            assert made["features.images"] == "false" and made["features.profiles"] == "true"
            assert (made["limits.memory"], made["user.colour"]) == ("1GiB", "blue")
            lxpyd.cli("project", "delete", project)
            lxpyd.cli(*line.removeprefix("$ lxpy ").split())
            assert lxpyd.json("query", f"/1.0/projects/{project}")["config"] == made, line

            # its keys in the form: judged, saved, and somebody else's change is not lost
            await on(pilot, project)
            await pilot.press("e")
            await wait(pilot, lambda: isinstance(app.screen, KeysForm) and app.screen.loaded is not None)
            await pilot.press(*"limits.instances", "enter", *"x")
            await wait(pilot, lambda: "whole number" in str(app.screen.query_one("#keys-fault", Static).render()))
            await pilot.press("backspace", *"2")
            lxpyd.cli("project", "set", project, "user.other=theirs")
            await pilot.press("ctrl+s")
            await wait(pilot, lambda: isinstance(app.screen, Choose))
            await pilot.press("down", "enter")
            await wait(pilot, lambda: app.screen is found)
            config = lxpyd.json("query", f"/1.0/projects/{project}")["config"]
            assert (config["limits.instances"], config["user.other"]) == ("2", "theirs")
            await pilot.press("e")
            await wait(pilot, lambda: isinstance(app.screen, KeysForm) and app.screen.loaded is not None)
            await pilot.press("ctrl+e")
            await wait(pilot, lambda: isinstance(app.screen, Editor))
            await pilot.press("escape")
            await wait(pilot, lambda: app.screen is found)

            # what is in it, what that uses, and that it cannot go
            lxpyd.cli("profile", "create", "small", "--project", project)
            where = ("--project", project)
            lxpyd.cli("profile", "device", "add", "default", "root", "disk", "path=/", "pool=default", *where)
            lxpyd.cli("init", "bb", "web", "-c", "limits.memory=256MiB", *where)
            await wait(pilot, lambda: found.table.current.contents == ["instance web", "profile small"])
            await wait(pilot, lambda: re.search(r"memory +256[.0]*M +1(.0)?G", told(found)))
            await form(pilot, "R")
            await answered(pilot, name=new)
            await wait(pilot, lambda: app.screen.query_one("#form-fault").display)
            assert "it holds instances/web" in str(app.screen.query_one("#form-fault", Static).render())
            await pilot.press("escape")
            await wait(pilot, lambda: app.screen is found)
            await pilot.press("ctrl+d")
            await wait(pilot, lambda: isinstance(app.screen, Confirm))
            assert "instance web" in str(app.screen.query_one("#confirm-list", Static).render())
            await pilot.press("y")
            await wait(pilot, lambda: any("it holds instances/web" in one for one in notices(app)))

            # looked at, emptied, renamed and deleted while it is
            await pilot.press("enter")
            await wait(pilot, lambda: app.on_main and "web" in app.model.instances)
            lxpyd.cli("delete", "web", *where)
            lxpyd.cli("profile", "delete", "small", *where)
            await on(pilot, project)
            await form(pilot, "R")
            await answered(pilot, name=new)
            await wait(pilot, lambda: app.screen is found or isinstance(app.screen, Projects))
            await wait(pilot, lambda: app.gateway.project == new)
            await on(pilot, new)
            await pilot.press("ctrl+d")
            await wait(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await wait(pilot, lambda: app.gateway.project == "")
            await wait(pilot, lambda: new not in [row.key for row in app.screen.table.rows])
            await on(pilot, "default")
            await pilot.press("ctrl+d")
            await wait(pilot, lambda: isinstance(app.screen, Confirm))
            await pilot.press("y")
            await wait(pilot, lambda: any("default project cannot be deleted" in one for one in notices(app)))
    finally:
        where = ("--project", project)
        lxpyd.cli("delete", "web", *where, check=False)
        lxpyd.cli("profile", "delete", "small", *where, check=False)
        for one in (project, new):
            lxpyd.cli("project", "delete", one, check=False)
    assert project not in json.dumps(lxpyd.json("project", "list", "-f", "json"))


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize("name", ["projects", "project-new"])
async def test_screens_look_as_they_did(daemon: FakeDaemon, name: str, size: tuple[int, int]) -> None:
    async with fake_opened(daemon, size) as pilot:
        Input.cursor_blink = False  # type: ignore[assignment]
        found = await listed(pilot)
        await wait(pilot, lambda: "USED" in told(found))
        if name == "project-new":
            await pilot.press("n")
            await wait(pilot, lambda: isinstance(pilot.app.screen, Form))
        await screen.settled(pilot, f"{name}-{size[0]}x{size[1]}")


async def test_a_read_only_app_only_looks(daemon: FakeDaemon) -> None:
    async with fake_opened(daemon) as pilot:
        pilot.app.read_only = True
        found = await listed(pilot)
        for key in ("n", "e", "R", "ctrl+d"):
            await pilot.press(key)
            await pilot.pause()
            assert pilot.app.screen is found, key
        assert not [one for one in daemon.requests if one[0] != "GET"]

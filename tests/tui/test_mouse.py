"""The mouse alone: from the main screen to a launched container with an open shell, and back."""

import re
from typing import Any

import pytest
from textual.widgets import Input

from lxpy.tui.app import LxpyApp
from lxpy.tui.gateway import local_gateway
from lxpy.tui.screens.launch import LaunchDialog
from lxpy.tui.screens.setup import SetupScreen
from tests.support.daemon import Lxpyd
from tests.tui import screen
from tests.tui.test_real_daemon import at_home, inside, opened, status, wait


async def click(pilot: Any, words: str, *, last: bool = False, times: int = 1) -> None:
    """Clicks on `words` once they are on the screen: the first place from the top, or the `last` one."""
    await wait(pilot, lambda: words in screen.text(pilot.app))
    await pilot.pause()
    lines = [(y, line) for y, line in enumerate(screen.text(pilot.app).splitlines()) if words in line]
    y, line = lines[-1 if last else 0]
    await pilot.click(offset=(line.index(words) + len(words) // 2, y), times=times)
    await pilot.pause()


async def click_pane(pilot: Any, number: int) -> None:
    """Clicks on the number of a pane in the border of the one that is before it."""
    await pilot.pause(0.1)  # what was clicked before has been drawn
    for y, line in enumerate(screen.text(pilot.app).splitlines()):
        for x in (m.start() for m in re.finditer(rf"\b{number}\b", line)):
            if str(number) in str(pilot.app.screen.get_style_at(x, y).meta.get("@click", "")):
                await pilot.click(offset=(x, y))
                return
    raise AssertionError(f"no {number} in\n{screen.text(pilot.app)}")


@pytest.mark.parametrize("size", [(160, 50), (80, 24)], ids=["160x50", "80x24"])
async def test_from_the_main_screen_to_a_shell_and_back(
    lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    async with opened(lxpyd, monkeypatch, size) as pilot:
        app = pilot.app
        before = set(app.model.instances)
        await click(pilot, "New", last=True)
        await wait(pilot, lambda: isinstance(app.screen, LaunchDialog))
        await click(pilot, "bb", last=True)
        await click(pilot, "Launch", last=True)
        await wait(pilot, lambda: app.on_main)
        await wait(pilot, lambda: any(status(app, n) == "Running" for n in set(app.model.instances) - before), 30)
        [name] = set(app.model.instances) - before
        try:
            await click(pilot, name)
            await click(pilot, "Shell", last=True)
            await wait(pilot, lambda: app.in_shell and "#" in inside(app))
            # Other tabs and back, though every key belongs to the shell
            await click(pilot, "‹" if "‹" in screen.text(app) else "Console log")
            await wait(pilot, lambda: not app.in_shell)
            for _ in range(12):
                await pilot.pause(0.2)  # what was clicked before has been drawn
                border = screen.text(app).splitlines()[1]
                if "Shell" in border:
                    break
                await click(pilot, "›")
            await click(pilot, "Shell")
            await wait(pilot, lambda: app.in_shell)
            await click(pilot, "leaves the shell")
            await wait(pilot, lambda: app.focused is app.main.panes[0])
            # Every pane that is folded away behind another one
            folded = size[0] == 80
            for number in (2, 3, 4, 5, 6, 7, 8, 1) if folded else (4, 5, 6, 7, 8, 3):
                await click_pane(pilot, number)
                await wait(pilot, lambda number=number: app.main.active.number == number)  # type: ignore[misc]
            await click(pilot, name)
            await wait(pilot, lambda: app.main.active is app.main.panes[0])
            if folded:  # the line of keys has no room for all: the rest is among the commands
                await click(pilot, "Commands", last=True)
                await wait(pilot, lambda: not app.on_main)
                return
            await click(pilot, "Delete", last=True)
            await wait(pilot, lambda: "Cancel" in screen.text(app))  # beside the button
            await click(pilot, "Delete", last=True)
            await wait(pilot, lambda: name not in app.model.instances, 30)
        finally:
            if lxpyd.cli("info", name, check=False).returncode == 0:
                lxpyd.cli("delete", "-f", name)


async def test_setting_up_a_bare_server(bare_lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(bare_lxpyd, monkeypatch)
    app = LxpyApp(local_gateway())
    async with app.run_test(size=(80, 24)) as pilot:
        await wait(pilot, lambda: isinstance(app.screen, SetupScreen) and app.screen.question is not None)
        wizard = app.screen
        assert isinstance(wizard, SetupScreen)
        await pilot.press("escape")
        await click(pilot, "New", last=True)  # there is nowhere to put an instance: the questions come again
        await wait(pilot, lambda: isinstance(app.screen, SetupScreen) and app.screen is not wizard)
        wizard = app.screen
        assert isinstance(wizard, SetupScreen)
        typed = {"bridge.name": bare_lxpyd.bridge, "bridge.ipv4": f"{bare_lxpyd.address}/24"}
        while (question := wizard.question) is not None and question.id != "bridge.ipv6":
            if question.id == "pool.driver":
                await click(pilot, "○ dir")
            elif question.id in typed:
                wizard.query_one(Input).value = typed[question.id]
                await click(pilot, "Next", last=True)
            else:
                await click(pilot, "Next", last=True)
            await wait(pilot, lambda question=question: wizard.question is not question)  # type: ignore[misc]
            await wait(pilot, lambda: not wizard.query("Button.-active"))  # a double click counts once
        asked = len(wizard.past)
        await click(pilot, "Back", last=True)
        await wait(pilot, lambda: len(wizard.past) == asked - 1)
        await click(pilot, "Usual answers", last=True)
        await wait(pilot, lambda: wizard.question is None)
        wizard.answers["sysctls"] = "no"  # they are the whole machine's
        await click(pilot, "Set it up", last=True)
        await wait(pilot, lambda: app.on_main, 40)
        [pool] = bare_lxpyd.json("query", "/1.0/storage-pools?recursion=1")
        assert pool["driver"] == "dir"

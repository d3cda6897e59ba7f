"""The images of this server: names, options, refreshing, publishing; in front of an imagined daemon."""

from collections.abc import Callable
from typing import Any

import pytest
from textual.widgets import Checkbox, Input

from lxpy.api.errors import BadRequest
from lxpy.tui.screens.aliases import Aliases
from lxpy.tui.screens.ask import Ask
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from lxpy.tui.screens.pick import Pick
from lxpy.tui.verbs.images import NEVER, moment
from tests.tui import screen
from tests.tui.fake import FakeDaemon
from tests.tui.test_app import SMALL, WIDE, notices, opened
from tests.tui.test_app import daemon as plain
from tests.tui.test_app import wait as wait_for

daemon = plain  # the fixture


async def wait(pilot: Any, condition: Callable[[], Any]) -> None:
    await wait_for(pilot, condition, 20)


async def at(pilot: Any, alias: str) -> Any:
    """Puts the cursor on an image."""
    app = pilot.app
    await pilot.press("2")
    await wait(pilot, lambda: app.focused is app.main.panes[1] and app.main.panes[1].rows)
    app.action_go(2, next(row.key for row in app.main.panes[1].rows if row.title == alias))
    await pilot.pause()
    return app


def names(daemon: FakeDaemon, fingerprint: str) -> list[str]:
    return sorted(a["name"] for i in daemon.images if i["fingerprint"].startswith(fingerprint) for a in i["aliases"])


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize(
    ("name", "key"), [("aliases", "a"), ("options", "O"), ("export", "E"), ("import", "i"), ("publish", "P")]
)
async def test_every_screen_looks_as_it_did(daemon: FakeDaemon, name: str, key: str, size: tuple[int, int]) -> None:
    daemon.images[0] |= {"public": True, "auto_update": True, "expires_at": "2021-06-01T12:00:00Z"}
    daemon.images[0]["aliases"].append({"name": "trixie", "description": "the newest"})
    async with opened(daemon, size) as pilot:
        Input.cursor_blink = False  # type: ignore[assignment]
        app = await at(pilot, "trixie")
        await pilot.press(key)
        await wait(pilot, lambda: not app.on_main and app.focused is not None)
        await pilot.pause(0.2)
        await screen.settled(pilot, f"image-{name}-{size[0]}x{size[1]}")


async def test_aliases_come_go_and_change(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = await at(pilot, "bb")
        await pilot.press("a")
        await wait(pilot, lambda: isinstance(app.screen, Aliases) and app.screen.table.rows)

        async def say(key: str, text: str) -> None:
            await pilot.press(key)
            await wait(pilot, lambda: isinstance(app.screen, Ask))
            app.screen.query_one(Input).value = text
            await pilot.press("enter")
            await wait(pilot, lambda: isinstance(app.screen, Aliases))

        await say("a", "box")
        await wait(pilot, lambda: [row.name for row in app.screen.table.rows] == ["bb", "box"])
        await say("a", "debian/13")
        await wait(pilot, lambda: "already exists" in screen.text(app))
        await say("R", "busybox")
        await wait(pilot, lambda: [row.name for row in app.screen.table.rows] == ["box", "busybox"])
        app.screen.table.action_to(0)
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: [row.name for row in app.screen.table.rows] == ["busybox"])
        assert names(daemon, "9be07d12") == ["busybox"]
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        await wait(pilot, lambda: "busybox" in screen.text(app))


async def test_options(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = await at(pilot, "bb")
        await pilot.press("O")
        await wait(pilot, lambda: isinstance(app.screen, Form))
        app.screen.query_one("#ask-public", Checkbox).value = True
        app.screen.query_one("#ask-expires", Input).value = "soon"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "'soon' is no day" in screen.text(app))
        assert not [r for r in daemon.requests if r[0] == "PATCH"]
        app.screen.query_one("#ask-expires", Input).value = "2030-01-31"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main)
        _, path, body = next(r for r in daemon.requests if r[0] == "PATCH")
        assert path.startswith("/1.0/images/9be07d12")
        assert body == {
            "public": True, "auto_update": False, "expires_at": "2030-01-31T00:00:00Z",
            "properties": {"description": "Busybox 1.35"},
        }  # fmt: skip


def test_days() -> None:
    assert moment("", "x") == moment("never", "x") == NEVER
    assert moment("2030-01-31", "2030-01-31T12:00:00Z") == "2030-01-31T12:00:00Z"
    with pytest.raises(BadRequest):
        moment("31.1.2030", "")


async def test_refresh_publish_and_delete(daemon: FakeDaemon) -> None:
    async with opened(daemon) as pilot:
        app = await at(pilot, "bb")
        await pilot.press("r")
        await wait(pilot, lambda: "bb: It is the newest there is" in notices(app))
        daemon.fail["POST", "/1.0/images"] = BadRequest("Image server https://x cannot be reached")
        await pilot.press("r")
        await wait(pilot, lambda: any(n.startswith("Cannot refresh: bb: Image server") for n in notices(app)))
        daemon.fail.clear()
        await pilot.press("P")
        await wait(pilot, lambda: isinstance(app.screen, Pick))
        assert app.screen.options[0].label == "build", "stopped ones first: they can be published at once"
        await pilot.press("enter")
        await wait(pilot, lambda: isinstance(app.screen, Form) and "Publish build" in screen.text(app))
        await pilot.press("escape")
        await wait(pilot, lambda: app.on_main)
        await pilot.press("asterisk", "ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: not app.model.images)


async def test_whose_images_they_are_is_said_once_wherever_the_cursor_is(daemon: FakeDaemon) -> None:
    async with opened(daemon, SMALL) as pilot:
        await pilot.press("2")
        pane = pilot.app.main.panes[1]
        await wait(pilot, lambda: "this server" in str(pane.border_subtitle))
        for _ in range(3):
            await pilot.press("down", "up")
            pane.retitle()
        assert str(pane.border_subtitle).count("this server") == 1
        await pilot.press("down")
        assert "2 of 2" in screen.text(pilot.app) and "this server" in screen.text(pilot.app)

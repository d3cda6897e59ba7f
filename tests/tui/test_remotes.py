"""The Remotes pane: the list is the user's own file, kept by our own command line; who answers is on the loopback."""

import json
import pathlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from textual.widgets import Checkbox, Input, Select

from lxpy.api.errors import Unavailable
from lxpy.tui import reach, settings
from lxpy.tui.app import LxpyApp
from lxpy.tui.gateway import Gateway, load_remotes
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Form
from tests.tui import screen
from tests.tui.fake import FakeClient, FakeDaemon
from tests.tui.test_app import SMALL, WIDE, notices
from tests.tui.test_app import daemon as plain
from tests.tui.test_app import opened as opened_plain
from tests.tui.test_app import wait as wait_for

daemon = plain  # the fixture


async def wait(pilot: Any, condition: Callable[[], Any]) -> None:
    await wait_for(pilot, condition, 20)


@asynccontextmanager
async def opened(
    daemon: FakeDaemon, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, connect: Any = None
) -> AsyncIterator[Any]:
    """The app with a list of remotes of the test's own, in front of the Remotes pane."""
    monkeypatch.setenv("LXPY_CONF", str(folder))
    app = LxpyApp(
        Gateway(connect or (lambda remote, project: daemon.connect()), load_remotes), settings.Settings(refresh=3600.0)
    )
    async with app.run_test(size=WIDE) as pilot:
        app.model._host = lambda: False  # type: ignore[method-assign]
        await wait(pilot, lambda: app.main.panes[2].rows)
        await pilot.press("3")
        await wait(pilot, lambda: app.focused is app.main.panes[2])
        yield pilot


def known(folder: pathlib.Path) -> dict[str, Any]:
    return dict(json.loads((folder / "remotes.json").read_text())["remotes"])


def row(app: Any, name: str) -> Any:
    return next((r for r in app.main.panes[2].rows if r.name == name), None)


async def form(pilot: Any, key: str) -> Any:
    await pilot.press(key)
    await wait(pilot, lambda: isinstance(pilot.app.screen, Form) and pilot.app.focused is not None)
    return pilot.app.screen


async def test_added_renamed_moved_and_removed(
    daemon: FakeDaemon, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(daemon, tmp_path, monkeypatch) as pilot:
        app = pilot.app
        dialog = await form(pilot, "a")
        dialog.query_one("#ask-name", Input).value = "lab"
        dialog.query_one("#ask-url", Input).value = "http://127.0.0.1:1/images"
        await wait(pilot, lambda: "lxpy remote add lab http://127.0.0.1:1/images --protocol" in screen.text(app))
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and row(app, "lab"))
        assert known(tmp_path)["lab"]["protocol"] == "simplestreams"

        app.action_go(3, "lab")
        dialog = await form(pilot, "R")
        dialog.query_one("#ask-name", Input).value = "shed"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and row(app, "shed") and not row(app, "lab"))

        app.action_go(3, "shed")
        dialog = await form(pilot, "e")
        dialog.query_one("#ask-url", Input).value = "http://127.0.0.1:2"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: app.on_main and row(app, "shed").url == "http://127.0.0.1:2")

        app.action_go(3, "shed")
        await pilot.press("D")
        await wait(pilot, lambda: any("it serves images only" in n for n in notices(app)))
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: app.on_main and not row(app, "shed"))
        assert "shed" not in known(tmp_path)


@pytest.mark.parametrize(
    ("name", "url", "protocol", "complaint"),
    [
        ("a:b", "http://127.0.0.1", "simplestreams", "without colons, slashes and blanks"),
        ("images", "http://127.0.0.1", "simplestreams", "There is a remote images already"),
        ("lab", "", "simplestreams", "Where is it?"),
        ("lab", "ftp://127.0.0.1", "simplestreams", "has an http:// or https:// address"),
        ("lab", "https://127.0.0.1:1", "lxd", "Cannot reach https://127.0.0.1:1"),
        ("lab", "ftp://127.0.0.1", "lxd", "is reached by https://HOST:PORT or unix://PATH"),
    ],
)
async def test_what_would_not_do_is_told_and_nothing_is_added(
    daemon: FakeDaemon, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch,
    name: str, url: str, protocol: str, complaint: str,
) -> None:  # fmt: skip
    async with opened(daemon, tmp_path, monkeypatch) as pilot:
        dialog = await form(pilot, "a")
        dialog.query_one("#ask-name", Input).value = name
        dialog.query_one("#ask-url", Input).value = url
        dialog.query_one("#ask-protocol", Select).value = protocol
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: complaint in screen.text(pilot.app))
        assert isinstance(pilot.app.screen, Form) and not (tmp_path / "remotes.json").exists()


async def test_what_is_lxpy_s_own_stays(
    daemon: FakeDaemon, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(daemon, tmp_path, monkeypatch) as pilot:
        app = pilot.app
        app.action_go(3, "builtin")
        for key in ("R", "e"):
            await pilot.press(key)
            await wait(pilot, lambda: any("builtin cannot be changed" in n for n in notices(app)))
            assert app.on_main
        await pilot.press("ctrl+d")
        await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("y")
        await wait(pilot, lambda: any("static and cannot be removed" in n for n in notices(app)))
        await pilot.press("s")
        await wait(pilot, lambda: any("has images only" in n for n in notices(app)))


async def test_nobody_is_asked_before_t(
    daemon: FakeDaemon, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(daemon, tmp_path, monkeypatch) as pilot:
        app = pilot.app
        await pilot.press("down", "down", "down")
        await pilot.pause(0.3)
        assert not [path for _, path, _ in daemon.requests if "image-servers" in path]
        daemon.fail["GET", "/1.0/image-servers/probe"] = Unavailable("https://images answered HTTP 503")
        app.action_go(3, "images")
        await pilot.press("t")
        await wait(pilot, lambda: "✖" in screen.text(app) and "https://images answered HTTP 503" in screen.text(app))
        assert app.model.reach.of(row(app, "ubuntu").info) is None
        daemon.fail.clear()
        await pilot.press("asterisk", "t")
        await wait(pilot, lambda: screen.text(app).count("● answers") >= 4)
        assert len([path for _, path, _ in daemon.requests if path == "/1.0/image-servers/probe"]) == 4


async def test_who_hangs_hangs_nothing(
    daemon: FakeDaemon, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes connections and never says a word, as a real client meets it."""
    monkeypatch.setattr(reach, "PATIENCE", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        tmp_path.joinpath("remotes.json").write_text(
            json.dumps({"default": "local", "remotes": {"deaf": {"url": f"https://127.0.0.1:{port}"}, "images": {
                "url": "https://images.linuxcontainers.org", "protocol": "simplestreams"}}})
        )  # fmt: skip

        def connect(remote: str, project: str) -> Any:
            if remote == "deaf":
                from lxpy.client.client import connect as really

                return really(remote)
            return FakeClient(daemon)

        async with opened(daemon, tmp_path, monkeypatch, connect) as pilot:
            app = pilot.app
            app.action_go(3, "deaf")
            await pilot.press("t")
            await wait(pilot, lambda: "◌ asking" in screen.text(app))
            await pilot.press("1", "down", "3")
            await wait(pilot, lambda: "did not answer within 4 seconds" in screen.text(app))


@pytest.mark.parametrize("size", [WIDE, SMALL], ids=["160x50", "80x24"])
@pytest.mark.parametrize("name", ["tested", "detail", "add", "trust"])
async def test_every_screen_looks_as_it_did(
    daemon: FakeDaemon, name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lxpy.tui.reach.time.perf_counter", lambda: 0.0)
    monkeypatch.setattr("lxpy.client.https.server_certificate", lambda url, patience: "pem")
    monkeypatch.setattr("lxpy.client.https.fingerprint", lambda pem: "0123456789abcdef" * 4)
    daemon.fail["GET", "/1.0/image-servers/probe"] = Unavailable("images.linuxcontainers.org: no route to host")
    async with opened_plain(daemon, size) as pilot:
        Input.cursor_blink = False  # type: ignore[assignment]
        app = pilot.app
        await pilot.press("3")
        await wait(pilot, lambda: app.focused is app.main.panes[2])
        app.action_go(3, "images")
        if name in ("tested", "detail"):
            await pilot.press("t", "up", "t", "down", "down", "t")
            await wait(pilot, lambda: not any(app.model.reach.asking(r.name) for r in app.model.remotes))
            await pilot.press("up", *(["right_square_bracket"] if name == "detail" else []))
        else:
            dialog = await form(pilot, "a")
            dialog.query_one("#ask-name", Input).value = "lab"
            dialog.query_one("#ask-url", Input).value = "https://10.0.0.7:8443"
            dialog.query_one("#ask-protocol", Select).value = "lxd"
            dialog.query_one("#ask-secret", Input).value = "tiger"
            dialog.query_one("#ask-public", Checkbox).value = True
            if name == "trust":
                await pilot.press("ctrl+s")
                await wait(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.pause(0.2)
        assert "tiger" not in screen.text(app)
        await screen.settled(pilot, f"remotes-{name}-{size[0]}x{size[1]}")

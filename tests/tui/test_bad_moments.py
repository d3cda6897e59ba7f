"""The app while something goes wrong: servers that hang, daemons that die, floods, resizes, logs without end."""

import asyncio
import contextlib
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from textual.widgets import Input

from lxpy.tui import gateway, shells
from lxpy.tui.app import LxpyApp
from lxpy.tui.gateway import local_gateway
from lxpy.tui.screens.launch import LaunchDialog
from lxpy.tui.tabs.shell import ShellTab
from lxpy.tui.tabs.snapshots import SnapshotsTab
from tests.support.daemon import BIN, Lxpyd, until
from tests.support.seat import Seat, memory
from tests.tui import screen
from tests.tui.test_real_daemon import at_home, inside, notices, opened, shell, status, wait

APP = [str(BIN / "lxpy"), "tui"]
# What a server may answer that never comes to an end.
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"metadata": "' + b"x" * 1000


@contextlib.contextmanager
def lame_server(path: str, every: float = 0.0) -> Iterator[list[socket.socket]]:
    """Takes connections and never answers; or one byte every so many seconds."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    taken: list[socket.socket] = []

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for byte in ANSWER:
                connection.sendall(bytes([byte]))
                time.sleep(every)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                taken.append(connection)
                if every:
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in taken:
            connection.close()
        thread.join(5)
        os.unlink(path)


@pytest.mark.parametrize("every", [0.0, 0.3], ids=["silent", "drips"])
async def test_a_remote_that_hangs(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch, every: float) -> None:
    """It is said who is waited for, it is given up and tried again, and another remote is a key away."""
    monkeypatch.setattr(gateway, "TELL_SECONDS", 0.5)
    monkeypatch.setattr(gateway, "PATIENCE", 3.0)
    path = str(lxpyd.dir / "lame.socket")
    with lame_server(path, every) as taken:
        lxpyd.cli("remote", "add", "lame", f"unix://{path}", check=False)
        at_home(lxpyd, monkeypatch)
        app = LxpyApp(local_gateway("lame"))
        try:
            async with app.run_test(size=(120, 40)) as pilot:
                await wait(pilot, lambda: "connecting to lame …  no answer for" in screen.text(app))
                await wait(pilot, lambda: "lame has not answered for" in screen.text(app))
                before = len(taken)
                await wait(pilot, lambda: len(taken) > before)
                await pilot.press("question_mark")  # everything else works meanwhile
                await wait(pilot, lambda: not app.on_main)
                await pilot.press("escape")
                await wait(pilot, lambda: app.on_main)
                monkeypatch.setattr(gateway, "PATIENCE", 60.0)  # nobody waits for the lame one first
                monkeypatch.setattr(gateway, "TELL_SECONDS", 60.0)
                app.model.look_elsewhere("", "")
                await wait(pilot, lambda: app.model.connected and busybox in app.model.instances)
                await wait(pilot, lambda: " ● " in screen.text(app)[:40] and "no answer" not in screen.text(app))
        finally:
            lxpyd.cli("remote", "remove", "lame")


async def test_a_daemon_that_stops_answering(own_lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal, it keeps its connections and says nothing; a shell asked for meanwhile is given up."""
    monkeypatch.setattr(gateway, "TELL_SECONDS", 0.5)
    monkeypatch.setattr(gateway, "PATIENCE", 12.0)
    monkeypatch.setattr(shells, "PATIENCE", 8.0)
    own_lxpyd.cli("launch", "bb", "stays")
    assert own_lxpyd.process
    async with opened(own_lxpyd, monkeypatch) as pilot:
        app = pilot.app
        os.kill(own_lxpyd.process.pid, 19)
        try:
            await pilot.press("s")
            await wait(pilot, lambda: "waiting for the daemon …" in screen.text(app))
            await wait(pilot, lambda: "started no shell in stays within" in screen.text(app))
            await wait(pilot, lambda: "has not answered for" in screen.text(app))
            assert app.model.connected is False and status(app, "stays") == "Running"
            await pilot.press("enter")
            await wait(pilot, lambda: not [t for t in app.main.detail.tabs if isinstance(t, ShellTab)])
        finally:
            os.kill(own_lxpyd.process.pid, 18)
        await wait(pilot, lambda: app.model.connected)
        # The shell that was given up has been started meanwhile, and hung up again.
        until(
            lambda: own_lxpyd.sh("stays", "ps | grep -c '[s]u -l\\|[-]sh'", check=False).stdout == "0\n", 10, "it runs"
        )
        await shell(pilot, "stays")


async def test_the_daemon_goes_and_comes_back_wherever_one_is(
    own_lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every pane, every tab and the dialogs, opened while the daemon is dead; and all is there again afterwards."""
    for name in ("stays", "also"):
        own_lxpyd.cli("launch", "bb", name)
    own_lxpyd.cli("snapshot", "stays", "s0")
    async with opened(own_lxpyd, monkeypatch) as pilot:
        app = pilot.app
        tab = await shell(pilot, "stays")
        await pilot.press("ctrl+right_square_bracket", "1")
        await pilot.press("4")
        await wait(pilot, lambda: app.model.objects.get("storage-pools"))
        await asyncio.to_thread(own_lxpyd.kill)
        await wait(pilot, lambda: app.model.connected is False)
        assert "disconnected, reconnecting" in screen.text(app)
        for number in range(1, 9):
            await pilot.press(str(number))
            await wait(pilot, lambda number=number: app.focused is app.main.panes[number - 1])  # type: ignore[misc]
        await pilot.press("1", "g", "enter")
        for _ in app.main.detail.fitting():
            await pilot.press("right_square_bracket")
            await pilot.pause(0.05)
        await pilot.press("escape")
        for key in ("n", "l", "e", "a", "c", "R", "question_mark", "colon", "v", "f2"):
            app.action_go(1, "stays")
            await wait(pilot, lambda: app.focused is app.main.panes[0])
            await pilot.press(key)
            await pilot.pause(0.1)
            while not app.on_main:
                await pilot.press("escape")
                await pilot.pause(0.02)
        assert "Traceback" not in " ".join(notices(app))
        # A form that is being filled in when the daemon goes is sent when it is back.
        app.action_go(1, "also")
        await pilot.press("n")
        await wait(pilot, lambda: isinstance(app.screen, LaunchDialog))
        app.screen.query_one("#image", Input).value = "bb"
        app.screen.query_one("#name", Input).value = "late"
        await asyncio.to_thread(own_lxpyd.start)
        await wait(pilot, lambda: app.model.connected)
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: status(app, "late") == "Running", 30)
        await wait(pilot, lambda: app.on_main)
        # Nothing is lost or doubled.
        await wait(pilot, lambda: [row.name for row in app.main.panes[0].rows] == ["also", "late", "stays"])
        assert [row.name for row in app.main.panes[3].rows] == ["default", "plain"]
        app.action_go(1, "stays")
        app.main.detail.choose(app.main.detail.find(SnapshotsTab))
        await wait(pilot, lambda: "s0" in screen.text(app))
        app.main.detail.choose(tab)
        app.main.detail.focus_inside()
        await wait(pilot, lambda: tab.view.has_focus)
        tab.view.action_type()
        await pilot.press(*"echo still he''re", "enter")
        await wait(pilot, lambda: "\nstill here" in inside(app))
        await pilot.press("ctrl+right_square_bracket", "1")
        await wait(pilot, lambda: app.focused is app.main.panes[0])


async def test_twenty_shells_leave_nothing_behind(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(lxpyd, monkeypatch) as pilot:
        app = pilot.app

        def held() -> tuple[int, int]:
            return len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())

        async def come_and_go() -> None:
            await shell(pilot, busybox)
            await pilot.press("ctrl+right_square_bracket", "w")
            await wait(pilot, lambda: not [t for t in app.main.detail.tabs if isinstance(t, ShellTab)])
            await wait(pilot, lambda: app.focused is app.main.panes[0])

        def ask(client: Any) -> None:
            client.get("/1.0")
            time.sleep(0.2)

        await come_and_go()
        await asyncio.gather(*(app.gateway.call(ask) for _ in range(8)))  # each thread has its connection from now on
        await pilot.pause(0.3)
        before = held()
        for _ in range(10):
            await come_and_go()
        for number in range(1, 11):  # and ten side by side
            app.main.detail.open_shell(app.model.instances[busybox], another=True)
            await wait(pilot, lambda: hasattr(app.main.detail.tab, "shell") and "#" in inside(app))
            assert app.main.detail.tab.title in ("Shell", f"Shell {number}")
        for tab in [t for t in app.main.detail.tabs if isinstance(t, ShellTab)]:
            tab.view.action_shut()
        await wait(pilot, lambda: not [t for t in app.main.detail.tabs if isinstance(t, ShellTab)])
        await wait(pilot, lambda: held()[0] <= before[0] + 1 and held()[1] <= before[1] + 1)
        count = "ps | grep -c '[-]sh'"
        await asyncio.to_thread(
            until, lambda: lxpyd.sh(busybox, count, check=False).stdout == "0\n", 10, "shells run on without a terminal"
        )


def test_a_storm_of_resizes(lxpyd: Lxpyd, busybox: str) -> None:
    """Fifty a second, on the main screen and with vi in a shell: the last one counts."""
    with Seat(APP, lxpyd.environment) as seat:
        seat.until("● Running")
        _storm(seat)
        seat.until(lambda text: "1 Instances" in text and "2 Images" in text and "? Help" in text)
        seat.type(f"/{busybox}\r")
        seat.until(f"/{busybox}")
        seat.type("s")
        seat.until("leaves the shell")
        seat.type("vi /etc/passwd\r")
        seat.until("root:x:0:0")
        _storm(seat)
        seat.until(lambda text: "root:x:0:0" in text and "/etc/passwd" in text and "ctrl+] leaves" in text)
        seat.type("\x1b:q\r")
        seat.type("stty size; echo fin''ished\r")
        seat.until("finished")
        assert max(len(line.rstrip()) for line in seat.screen.splitlines()) <= 160
        seat.type("exit\r")
        seat.until("s Shell")
        seat.type("q")
        seat.watch(1)
        assert seat.process.wait(10) == 0


def _storm(seat: Seat, seconds: float = 2.5) -> None:
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turn += 1
        seat.resize(80 + turn * 7 % 120, 10 + turn * 3 % 50)
        seat.watch(0.02)
    seat.resize(160, 50)


@pytest.mark.parametrize("flood", ["yes", "cat /dev/urandom"])
def test_the_other_panes_answer_while_a_shell_floods(lxpyd: Lxpyd, busybox: str, flood: str) -> None:
    with Seat(APP, lxpyd.environment) as seat:
        seat.until("● Running")
        seat.type(f"/{busybox}\r")
        seat.until(f"/{busybox}")
        quiet = _panes(seat)
        seat.type("1")
        seat.type("s")
        seat.until("leaves the shell")
        seat.until("#")
        seat.type(f"{flood}\r")
        seat.watch(1.5)
        seat.type("\x1d")  # ctrl+]
        seat.until("zooms")
        busy = _panes(seat)
        assert busy < 20 * quiet + 1, (busy, quiet)
        seat.type("1")
        seat.until("? Help")
        seat.type("q")
        seat.watch(2)
        assert seat.process.wait(10) == 0
    until(lambda: lxpyd.sh(busybox, "ps | grep -c '[u]random\\|[y]es'", check=False).stdout == "0\n", 10, "it goes on")


def _panes(seat: Seat) -> float:
    """The longest time from a key to what it shows, among some."""
    titles = {"4": "overlay", "5": "lxt", "6": "default", "3": "simplestreams", "1": "1 Instances"}
    waits = []
    for key, text in titles.items():
        seat.type(key)
        waits.append(seat.until(lambda shown, key=key, text=text: f" {key} " in shown and text in shown))
    return max(waits)


def test_a_log_of_a_hundred_megabytes(lxpyd: Lxpyd, name: str) -> None:
    """It opens at its end, is searched and paged, and the app stays as small as it was."""
    lxpyd.cli("create", "bb", name)
    path = pathlib.Path(lxpyd.layout.instance_log("default", name)) / "console.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = b"".join(b"line %07d of a guest that has a lot to say to its console\n" % n for n in range(16_000))
    with path.open("wb") as file:
        for _ in range(105):
            file.write(lines)
        file.write(b"the very last line\n")
    assert path.stat().st_size > 100_000_000
    with Seat(APP, lxpyd.environment) as seat:
        seat.until("○ Stopped")
        seat.type(f"/{name}\r")
        seat.until(f"/{name}")
        before = memory(seat.pid)
        seat.type("l")
        seat.until("the very last line", 10)
        for _ in range(5):
            seat.type("g")
            seat.watch(0.3)
        seat.type("G")
        seat.until("the very last line")
        seat.type("/0015990\r")
        seat.until("line 0015990")
        with path.open("ab") as file:
            for _ in range(3):
                file.write(lines)
            file.write(b"and one more\n")
        seat.type("G")
        seat.until("and one more", 10)
        grown = memory(seat.pid) - before
        assert grown < 40_000_000, grown
        seat.type("\x1b")
        seat.watch(0.5)
        seat.type("\x1bq")
        seat.watch(1)

"""The app while something goes wrong: servers that hang, daemons that die, floods, resizes, logs without end."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from lxpy.tui import gateway, shells
from lxpy.tui.app import LxpyApp
from lxpy.tui.gateway import local_gateway
from lxpy.tui.tabs.shell import ShellTab
from tests.support.daemon import Lxpyd, until
from tests.tui import screen
from tests.tui.test_real_daemon import at_home, opened, shell, status, wait

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
                began = time.monotonic()
                app.model.look_elsewhere("", "")
                await wait(pilot, lambda: app.model.connected and busybox in app.model.instances)
                assert time.monotonic() - began < 2.5  # nobody waits for the lame one first
                assert "no answer" not in screen.text(app)
        finally:
            lxpyd.cli("remote", "remove", "lame")


async def test_a_daemon_that_stops_answering(own_lxpyd: Lxpyd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped by a signal, it keeps its connections and says nothing; a shell asked for meanwhile is given up."""
    monkeypatch.setattr(gateway, "TELL_SECONDS", 0.5)
    monkeypatch.setattr(gateway, "PATIENCE", 4.0)
    monkeypatch.setattr(shells, "PATIENCE", 2.5)
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

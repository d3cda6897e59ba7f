"""Logs: the end first, older pages, filter, wrap, times, several at once, saving, and logs of any size."""

import contextlib
import pathlib
import time
from typing import Any

import pytest

from lxpy.client import connect, logs
from lxpy.tui.logs import LEAP, TAIL
from lxpy.tui.screens.log import LogScreen
from lxpy.tui.widgets.logview import LONGEST, LogView
from tests.support.daemon import Lxpyd, until
from tests.tui import screen
from tests.tui.fake import FakeDaemon
from tests.tui.test_app import SMALL, opened, wait


@pytest.fixture
def daemon() -> FakeDaemon:
    return FakeDaemon()


async def log_screen(pilot: Any, *keys: str) -> LogView:
    await pilot.press(*(keys or ("l",)))
    await wait(pilot, lambda: isinstance(pilot.app.screen, LogScreen) and pilot.app.screen.view.lines)
    view: LogView = pilot.app.screen.view
    return view


async def test_the_end_comes_first_and_older_pages_when_asked_for(daemon: FakeDaemon) -> None:
    count = 100 * 1024 * 1024 // 60
    daemon.log = "".join(f"{n:09} a line of a log of a hundred megabytes, as they grow\n" for n in range(count))
    async with opened(daemon, SMALL) as pilot:
        begun = time.monotonic()
        view = await log_screen(pilot)
        await wait(pilot, lambda: f"{count - 1:09}" in screen.text(pilot.app))
        assert sum(map(len, view.lines)) <= TAIL
        before = view.lines[0]
        for _ in range(2):
            await pilot.press("g")
        await wait(pilot, lambda: view.lines[0] < before)
        assert int(view.lines[0].split()[0]) == int(before.split()[0]) - view.lines.index(before)
        await wait(pilot, lambda: before in screen.text(pilot.app))  # the place has stayed
        assert "MiB before" in screen.text(pilot.app)
        assert time.monotonic() - begun < 10
        asked = [body for method, path, body in daemon.requests if path.endswith("/console")]
        assert all(body and "Range" in body for body in asked)


async def test_one_endless_line(daemon: FakeDaemon) -> None:
    daemon.log = "x" * (5 * LEAP) + "THE END"
    async with opened(daemon, SMALL) as pilot:
        view = await log_screen(pilot)
        assert max(map(len, view.lines)) <= LONGEST
        await pilot.press("w")
        await wait(pilot, lambda: "THE END" in screen.text(pilot.app))
        daemon.log += " and more"
        await wait(pilot, lambda: " and more" in screen.text(pilot.app))
        await pilot.press("w", "g")
        await wait(pilot, lambda: "xxxx" in screen.text(pilot.app) and not view.following)


async def test_what_is_written_too_fast_is_skipped(daemon: FakeDaemon) -> None:
    daemon.log = "begin\n"
    async with opened(daemon, SMALL) as pilot:
        view = await log_screen(pilot)
        daemon.log += "y\n" * (3 * LEAP) + "enough\n"
        await wait(pilot, lambda: view.lines[-1] == "enough")
        assert "came too fast" in view.lines[0] and len(view.lines) <= TAIL
        daemon.log = "emptied\n"
        await wait(pilot, lambda: view.lines == ["emptied"])


async def test_a_log_cut_to_its_newer_half_goes_on(daemon: FakeDaemon) -> None:
    daemon.log = "".join(f"line {n}\n" for n in range(2000))
    async with opened(daemon, SMALL) as pilot:
        view = await log_screen(pilot)
        daemon.log = daemon.log[len(daemon.log) // 2 :] + "and on\n"
        await wait(pilot, lambda: view.lines[-1] == "and on")
        assert view.lines[:2] == ["line 0", "line 1"] and view.lines[-2] == "line 1999"


async def test_filter_wrap_and_times(daemon: FakeDaemon) -> None:
    daemon.log = "plain\n2026-11-27T10:20:30 stamped\n" + "long " * 40 + "end\nlogin: "
    async with opened(daemon, SMALL) as pilot:
        view = await log_screen(pilot)
        await pilot.press("ampersand", *"Stamp")
        await wait(pilot, lambda: "plain" not in screen.text(pilot.app))
        assert "stamped" in screen.text(pilot.app)
        await pilot.press("enter")
        await pilot.press("escape")
        await wait(pilot, lambda: "plain" in screen.text(pilot.app))
        assert "long end" not in screen.text(pilot.app)
        await pilot.press("w")
        await wait(pilot, lambda: "long end" in screen.text(pilot.app))
        await pilot.press("t")
        await wait(pilot, lambda: " 10:20:30 " in screen.text(pilot.app))
        assert "else of arrival here" in screen.text(pilot.app)
        daemon.log += "root\nPassword: "
        await wait(pilot, lambda: view.lines[-2:] == ["login: root", "Password: "])
        line = next(line for line in screen.text(pilot.app).splitlines() if "Password" in line)
        assert line[2:4].isdigit() and line[4] == ":"
        await pilot.press("f")
        await wait(pilot, lambda: not view.following)


async def test_several_marked_ones_are_interleaved(daemon: FakeDaemon, tmp_path: pathlib.Path) -> None:
    daemon.logs = {"build": "from build\n", "db": "from db\n"}
    async with opened(daemon) as pilot:
        view = await log_screen(pilot, "space", "space", "l")
        daemon.logs["db"] += "more of db\n"
        await wait(pilot, lambda: "more of db" in screen.text(pilot.app))
        daemon.logs["build"] += "more of build\n"
        await wait(pilot, lambda: "more of build" in screen.text(pilot.app))
        said = ["build │ from build", "db    │ from db", "db    │ more of db", "build │ more of build"]
        assert view.text().splitlines() == said
        await pilot.press("ctrl+s")
        await pilot.pause()
        pilot.app.screen.query_one("#ask-file").value = str(tmp_path / "saved")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, LogScreen))
        assert (tmp_path / "saved").read_text().splitlines() == said


async def test_other_logs_and_saving_a_whole_one(daemon: FakeDaemon, tmp_path: pathlib.Path) -> None:
    daemon.logs["lxc.log"] = "".join(f"{n} of another file\n" for n in range(50_000))
    async with opened(daemon) as pilot:
        await log_screen(pilot)
        await pilot.press("o")
        await wait(pilot, lambda: "lxc.log" in screen.text(pilot.app))
        await pilot.press("down", "enter")
        await wait(pilot, lambda: "49999 of another file" in screen.text(pilot.app))
        await pilot.press("ctrl+s")
        await pilot.pause()
        pilot.app.screen.query_one("#ask-file").value = str(tmp_path / "nowhere" / "saved")
        pilot.app.screen.query_one("#ask-what").value = "the whole log"
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: "No such file" in screen.text(pilot.app))
        pilot.app.screen.query_one("#ask-file").value = str(tmp_path / "saved")
        await pilot.press("ctrl+s")
        await wait(pilot, lambda: isinstance(pilot.app.screen, LogScreen))
        assert (tmp_path / "saved").read_text() == daemon.logs["lxc.log"]


def test_the_daemon_sends_a_part_of_a_log(lxpyd: Lxpyd, busybox: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("LXPY_DIR", "HOME", "XDG_CONFIG_HOME"):
        monkeypatch.setenv(key, lxpyd.environment[key])
    folder = pathlib.Path(lxpyd.environment["LXPY_DIR"]) / "logs"
    console = next(folder.rglob(f"*{busybox}*/console.log"))
    other = console.parent / "other.log"
    other.write_bytes(b"".join(b"%07d\n" % n for n in range(100_000)))
    with contextlib.closing(connect()) as client:
        path = logs.names(client, busybox)["other.log"]
        assert logs.tail(client, path, 12) == (b"998\n0099999\n", 800_000 - 12, 800_000)
        assert logs.tail(client, path, 900_000).start == 0
        assert logs.between(client, path, 8, 24) == (b"0000001\n0000002\n", 8, 800_000)
        assert logs.between(client, path, 800_000, 900_000).data == b""
        lxpyd.sh(busybox, "echo the guest was here > /dev/console")
        # What else the guest says may come behind it.
        until(
            lambda: b"the guest was here" in logs.tail(client, logs.console(busybox), 65536).data,
            5, "nothing in the log",
        )  # fmt: skip
        assert len(logs.tail(client, logs.console(busybox), 7).data) == 7
        lxpyd.cli("stop", "-f", busybox)
        console.unlink()
        assert logs.tail(client, logs.console(busybox), 80).data == b""

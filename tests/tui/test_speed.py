"""How soon it is there and what it costs, in CPU time beside something else of the same minute: machines differ."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from textual.geometry import Region
from textual.widget import Widget

from lxpy.tui.app import LxpyApp
from lxpy.tui.settings import Settings
from lxpy.tui.shells import own_command
from tests.bench.app import CHANGES, reads
from tests.support.daemon import BIN, Lxpyd
from tests.support.seat import Seat, fine_cpu
from tests.tui.fake import FakeDaemon, instance
from tests.tui.test_app import opened, wait

# Runs the app, and says in a file what has been imported when it begins to ask the daemon.
_LISTING = """
import sys
from lxpy.tui import app

async def begin(self):
    with open(sys.argv[1], "w") as file:
        file.write(" ".join(sys.modules))

app.LxpyApp._begin = begin
app.run()
"""


def _import_of_textual(environment: dict[str, str]) -> float:
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "import textual.app"], environment)
    _, status, used = os.wait4(pid, 0)
    assert status == 0
    return used.ru_utime + used.ru_stime


def test_the_first_frame_costs_little_more_than_textual_itself(lxpyd: Lxpyd) -> None:
    frames, imports = [], []
    for _ in range(5):
        imports.append(_import_of_textual(lxpyd.environment))
        with Seat([str(BIN / "lxpy"), "tui"], lxpyd.environment) as seat:
            seat.until("Instances")
            frames.append(fine_cpu(seat.pid))
            seat.until("● ")  # and then it connects
            seat.type("q")
            seat.watch(1)
            assert seat.process.wait(10) == 0
    ratio = statistics.median(frames) / statistics.median(imports)
    assert ratio < 1.6, (frames, imports)  # 1.2 when this was written, 1.75 before anybody had looked


def test_nothing_is_imported_before_the_first_frame_that_it_does_not_show(lxpyd: Lxpyd) -> None:
    place = lxpyd.dir / "modules"
    command = own_command([])
    command[-1] = f"import sys; sys.path[:] = {sys.path!r}; sys.argv = ['', {str(place)!r}]\n{_LISTING}"
    with Seat(command, lxpyd.environment) as seat:
        seat.until(lambda _: place.exists() and place.read_text())
        seat.type("q")
        seat.watch(1)
        assert seat.process.wait(10) == 0
    there = set(place.read_text().split())
    assert "lxpy.tui.app" in there
    early = {name for name in there if name.startswith("lxpy.tui.screens.")} - {
        "lxpy.tui.screens.main",
        "lxpy.tui.screens.small",
    }
    early |= {name for name in there if name.startswith("lxpy.tui.tabs.")}
    early -= {"lxpy.tui.tabs.base", "lxpy.tui.tabs.overview", "lxpy.tui.tabs.facts"}
    heavy = {"yaml", "aiohttp", "lxpy.tui.web", "lxpy.tui.widgets.terminal", "textual.widgets._text_area"}
    assert not early and not there & heavy, (early, there & heavy)


def test_keys_typed_before_the_first_frame_are_not_lost(lxpyd: Lxpyd) -> None:
    with Seat([str(BIN / "lxpy"), "tui"], lxpyd.environment) as seat:
        seat.until(lambda _: seat.drawn > 0)  # it has switched the terminal's mode, so that it reads the keys
        seat.type("4")
        shown = seat.until(lambda text: "DRIVER" in text and "overlay" in text)
        assert shown < 20
        seat.type("q")
        seat.watch(1)
        assert seat.process.wait(10) == 0


def test_what_many_others_do_costs_little_and_nobody_is_asked_while_nobody_looks(lxpyd: Lxpyd, name: str) -> None:
    names = [f"{name}-{number}" for number in range(8)]
    for one in names:
        lxpyd.cli("launch", "bb", one)
    assert lxpyd.process
    daemon = lxpyd.process.pid
    with Seat([str(BIN / "lxpy"), "tui"], lxpyd.environment) as seat:
        seat.until(lambda text: text.count("● Running") >= len(names) and "Over time" in text, 30)
        for one in names:
            lxpyd.wait_address(one)
        changes = subprocess.Popen([sys.executable, "-c", CHANGES, "100", *names], env=lxpyd.environment)
        try:
            seat.watch(3)  # from now on it reads as seldom as it will
            began, used = time.monotonic(), fine_cpu(seat.pid)
            seat.watch(6)
            share = (fine_cpu(seat.pid) - used) / (time.monotonic() - began)
            assert changes.poll() is None
        finally:
            changes.kill()
            changes.wait()
        assert share < 0.05, share  # 26 % when every event was answered
        seat.type("\x1b[O")  # the terminal is out of sight
        seat.watch(3)
        before = reads(daemon)
        seat.watch(4.2)
        unseen = reads(daemon) - before
        seat.type("\x1b[I")
        seat.watch(4.2)
        seen = reads(daemon) - before - unseen
        assert unseen < len(names) <= seen, (unseen, seen)
        seat.type("q")
        seat.watch(1)
        assert seat.process.wait(10) == 0


async def test_a_flood_of_events_is_answered_by_few_readings() -> None:
    daemon = FakeDaemon()
    async with opened(daemon) as pilot:
        await pilot.pause(0.3)
        before = len(daemon.requests)
        for n in range(600):
            daemon.lifecycle("instance-updated", f"web{n % 2 + 1}")
            if n % 10 == 0:
                await pilot.pause(0.05)
        daemon.instances["web1"]["status"] = "Error"
        daemon.lifecycle("instance-updated", "web1")
        await wait(pilot, lambda: pilot.app.model.instances["web1"].status == "Error")  # and the last one counts
        assert len(daemon.requests) - before < 40


async def test_only_what_has_changed_is_drawn(monkeypatch: Any) -> None:
    daemon = FakeDaemon()
    async with opened(daemon) as pilot:
        pane = pilot.app.main.panes[0]
        drawn: list[Region] = []
        refresh = Widget.refresh

        def spy(self: Widget, *regions: Region, **options: Any) -> Any:
            if self is pane:
                drawn.extend(regions or [pane.outer_size.region])
            return refresh(self, *regions, **options)

        monkeypatch.setattr(Widget, "refresh", spy)
        pane.fill(list(pilot.app.model.instances.values()))
        assert drawn == []
        daemon.instances["web2"] = instance("web2", "Stopped")
        daemon.lifecycle("instance-stopped", "web2")
        await wait(pilot, lambda: "Stopped" in str(pane.render_line(4).text))
        assert {region.y for region in drawn} == {4}, drawn
        drawn.clear()
        await pilot.press("j")
        below = pane.size.height  # the border, which says where the cursor is
        assert {region.y for region in drawn} == {1, 2, below} and {region.height for region in drawn} == {1}, drawn


async def test_an_instance_without_an_address_is_not_looked_after_for_ever() -> None:
    daemon = FakeDaemon()
    daemon.instances["lonely"] = instance("lonely")
    app = LxpyApp(daemon.gateway(), Settings(refresh=3600))
    async with app.run_test() as pilot:
        await wait(pilot, lambda: app.model.loaded)
        assert set(app.model._settling) == {"lonely"}
        app.model._settling.clear()
        daemon.lifecycle("instance-updated", "lonely")
        daemon.lifecycle("instance-updated", "web1")
        await asyncio.sleep(0.5)
        assert not app.model._settling
        daemon.instances["lonely"]["status"] = "Stopped"
        daemon.lifecycle("instance-stopped", "lonely")
        await wait(pilot, lambda: app.model.instances["lonely"].status == "Stopped")
        daemon.instances["lonely"]["status"] = "Running"
        daemon.lifecycle("instance-started", "lonely")
        await wait(pilot, lambda: set(app.model._settling) == {"lonely"})

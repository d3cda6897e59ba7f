"""How soon it is there and what it costs, in CPU time beside something else of the same minute: machines differ."""

import os
import statistics
import sys

from lxpy.tui.shells import own_command
from tests.support.daemon import BIN, Lxpyd
from tests.support.seat import Seat, fine_cpu

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
    early = {name for name in there if name.startswith("lxpy.tui.screens.")} - {"lxpy.tui.screens.main"}
    early |= {name for name in there if name.startswith("lxpy.tui.tabs.")}
    early -= {"lxpy.tui.tabs.base", "lxpy.tui.tabs.overview", "lxpy.tui.tabs.facts"}
    heavy = {"yaml", "aiohttp", "lxpy.tui.web", "lxpy.tui.widgets.terminal", "textual.widgets._text_area"}
    assert not early and not there & heavy, (early, there & heavy)


def test_keys_typed_before_the_first_frame_are_not_lost(lxpyd: Lxpyd) -> None:
    with Seat([str(BIN / "lxpy"), "tui"], lxpyd.environment) as seat:
        seat.until(lambda _: seat.drawn > 0)  # it has switched the terminal's mode, so that it reads the keys
        seat.type("4")
        seat.until("default")
        shown = seat.until(lambda text: "4 Storage" in text and "overlay" in text)
        assert shown < 20
        seat.type("q")
        seat.watch(1)
        assert seat.process.wait(10) == 0

"""The shell inside the app beside a bare one, both in tmux: ``python -m tests.bench.shell``. Needs root and tmux."""

import statistics
import sys
import time

from tests.support import namespace
from tests.support.daemon import BIN, Lxpyd
from tests.tui.test_real_daemon import Tmux


def until_shown(terminal: Tmux, text: str, seconds: float = 60) -> float:
    began = time.perf_counter()
    while text not in terminal.screen():
        assert time.perf_counter() - began < seconds, terminal.screen()
    return time.perf_counter() - began


def measure(terminal: Tmux) -> dict[str, float]:
    """Seconds: of a flood, of the echo of a key (median), of ctrl+c in a flood."""
    result = {}
    terminal.keys("clear; seq 1 200000; echo fin''ished", "Enter")
    result["seq 1 200000"] = until_shown(terminal, "finished")
    terminal.keys("clear", "Enter")
    time.sleep(0.5)
    times = []
    typed = ""
    for letter in "abcdefghijklmnopqrstuvwxyz":
        typed += letter
        time.sleep(0.05)
        terminal.keys(letter)
        times.append(until_shown(terminal, typed))
    result["echo of a key"] = statistics.median(times)
    terminal.keys("C-c")
    time.sleep(0.3)
    times = []
    for n in range(3):
        terminal.keys("yes", "Enter")
        time.sleep(1)
        terminal.keys("C-c")
        terminal.keys(f"echo sto''pped{n}", "Enter")
        times.append(until_shown(terminal, f"stopped{n}"))
    result["ctrl+c during yes, and a further command"] = statistics.median(times)
    return result


def compare(lxpyd: Lxpyd) -> None:
    """A shell in `c1`, bare and in the app."""
    figures = []
    for inside in (False, True):
        terminal = Tmux(lxpyd, (160, 50))
        try:
            terminal.keys(f"{BIN / 'lxpy'} {'tui' if inside else 'shell c1'}", "Enter")
            if inside:
                until_shown(terminal, "● Running")
                terminal.keys("s")
                until_shown(terminal, "leaves the shell")
            until_shown(terminal, "# ")
            figures.append(measure(terminal))
        finally:
            terminal("kill-server")
    for what, bare in figures[0].items():
        print(f"{what:45} bare {bare * 1000:7.0f} ms   in the app {figures[1][what] * 1000:7.0f} ms", flush=True)


def main() -> int:
    lxpyd = Lxpyd("s", 0)
    lxpyd.start()
    try:
        lxpyd.initialise()
        lxpyd.cli("launch", "bb", "c1")
        compare(lxpyd)
    finally:
        lxpyd.destroy()
    return 0


if __name__ == "__main__":
    sys.exit(main() if namespace.inside() else namespace.enter([sys.executable, "-m", "tests.bench.shell"]))

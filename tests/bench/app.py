"""What the app costs: ``python -m tests.bench.app [PART ...]``. Needs root; all of it takes about eight minutes.

| part | what |
| --- | --- |
| start | from exec to the first frame and to the list, beside an import of Textual alone |
| idle | CPU of app and daemon with many running instances (``--instances``): looking on, events, nobody looking |
| rows | keys, filter, sorting with 2 000 rows |
| shell | a flood, an echo, ctrl+c in a shell inside beside a bare one (`tests.bench.shell`) |
| flood | keys in the other panes while a shell inside floods for 20 s |
| log | a console log of 100 MB: until its end is seen, and what it costs in memory |
| reconnect | until the app is connected again to a daemon that was killed |

CPU times are of the process measured, so other work on the machine matters little to them; wall times are of one
machine at one time.
"""

import argparse
import contextlib
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tests.bench import shell
from tests.support import namespace
from tests.support.daemon import BIN, Lxpyd, until
from tests.support.seat import Seat, cpu, fine_cpu, memory

PARTS = ["start", "idle", "rows", "shell", "flood", "log", "reconnect"]
APP = [str(BIN / "lxpy"), "tui"]
# Changes the configuration of instances so often a second: each makes an event.
CHANGES = """
import sys, time
from lxpy.client.client import connect
client, rate, names = connect(""), int(sys.argv[1]), sys.argv[2:]
began, done = time.monotonic(), 0
while True:
    client.patch(f"/1.0/instances/{names[done % len(names)]}", {"config": {"user.count": str(done)}})
    done += 1
    time.sleep(max(0.0, began + done / rate - time.monotonic()))
"""


class Daemon(Lxpyd):
    """One with addresses for more than its usual hundred instances."""

    def preseed(self) -> str:
        usual = self.address[:-1]
        wide = usual.replace(f".{self.number}.", f".{self.number + 3}.")
        text = super().preseed().replace(f"{self.address}/24", f"{self.address}/22")
        return text.replace(f"{usual}100-{usual}219", f"{usual}100-{wide}219")


# The app before a daemon of the imagination with so many instances.
_ROWS = """
import sys
from lxpy.tui.app import LxpyApp
from tests.tui.fake import FakeDaemon, instance
daemon = FakeDaemon()
daemon.instances = {
    f"i{n:04}": instance(f"i{n:04}", "Running" if n % 7 else "Stopped", n % 250 + 1, 20_000_000 + n * 4096 * (n % 13))
    for n in range(int(sys.argv[1]))
}
LxpyApp(daemon.gateway()).run()
"""


def say(what: str, *figures: str) -> None:
    print(f"{what:52}", "   ".join(figures), flush=True)


def milliseconds(times: Sequence[float]) -> str:
    ordered = sorted(times)
    return f"median {statistics.median(ordered) * 1000:.0f}, p99 {ordered[int(len(ordered) * 0.99)] * 1000:.0f} ms"


def quit_app(seat: Seat) -> None:
    seat.type("q")
    until(lambda: not seat.read() and seat.process.poll() is not None, 10, "it does not quit", 0.01)


def start(lxpyd: Lxpyd) -> None:
    """Seconds until there is something to see: wall and CPU."""
    imports, frames, lists = [], [], []
    for _ in range(9):
        began = time.perf_counter()
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "import textual.app"], lxpyd.environment)
        used = os.wait4(pid, 0)[2]
        imports.append((time.perf_counter() - began, used.ru_utime + used.ru_stime))
        with Seat(APP, lxpyd.environment) as seat:
            seat.until("Instances")
            frames.append((time.perf_counter() - seat.began, fine_cpu(seat.pid)))
            seat.until("● Running")
            lists.append((time.perf_counter() - seat.began, fine_cpu(seat.pid)))
            quit_app(seat)
    base = statistics.median(c for _, c in imports)
    for what, found in (("python -c 'import textual.app'", imports), ("first frame", frames), ("the list", lists)):
        wall, used = (statistics.median(one[n] for one in found) for n in (0, 1))
        say(what, f"wall {wall * 1000:.0f} ms", f"CPU {used * 1000:.0f} ms", f"ratio {used / base:.2f}")


@contextlib.contextmanager
def many(lxpyd: Lxpyd, count: int) -> Iterator[list[str]]:
    """So many running busybox instances."""
    names = [f"m{number:03}" for number in range(count)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: lxpyd.cli("launch", "bb", name), names))
        say("memory left", _free())
        try:
            yield names
        finally:
            list(pool.map(lambda name: lxpyd.cli("delete", "-f", name, check=False), names))


def _free() -> str:
    facts = dict(line.split(":") for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    return f"{int(facts['MemAvailable'].split()[0]) / 2**20:.1f} of {int(facts['MemTotal'].split()[0]) / 2**20:.1f} GiB"


def reads(pid: int) -> int:
    """How often a process has called read so far."""
    lines = pathlib.Path(f"/proc/{pid}/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("syscr")).split()[1])


def idle(lxpyd: Lxpyd, count: int, seconds: float) -> None:
    """CPU of the app that looks on, and of the daemon that is asked."""
    with many(lxpyd, count) as names:
        assert lxpyd.process
        daemon = lxpyd.process.pid
        with Seat(APP, lxpyd.environment) as seat:
            seat.until(f"{count}/{count} running", 60)
            seat.until("Over time", 30)
            seat.watch(10)
            _look_on(seat, daemon, seconds, f"{count} running, 160x50, graphs")
            say("  the app's memory", f"{memory(seat.pid) / 2**20:.0f} MiB (PSS)")
            changes = subprocess.Popen(
                [sys.executable, "-c", CHANGES, "100", *names], env=lxpyd.environment, cwd=pathlib.Path.cwd()
            )
            try:
                seat.watch(3)
                _look_on(seat, daemon, seconds, f"{count} running, 100 changes a second")
                assert changes.poll() is None
            finally:
                changes.kill()
                changes.wait()
            seat.watch(3)
            seat.type("\x1b[O")  # the terminal is not looked at
            seat.watch(3)
            _look_on(seat, daemon, seconds / 2, f"{count} running, the terminal is out of sight")
            seat.type("\x1b[I")
            quit_app(seat)
        before, began = reads(daemon), fine_cpu(daemon)
        time.sleep(seconds / 2)
        used = fine_cpu(daemon) - began
        say("no app", f"daemon {used / seconds * 200:.2f} %", f"{reads(daemon) - before} reads")


def _look_on(seat: Seat, daemon: int, seconds: float, what: str) -> None:
    began, app, server, drawn = time.perf_counter(), fine_cpu(seat.pid), cpu(daemon), seat.drawn
    seat.watch(seconds)
    passed = time.perf_counter() - began
    app, server = (fine_cpu(seat.pid) - app) / passed, (cpu(daemon) - server) / passed
    drawing = (seat.drawn - drawn) / passed / 1024
    say(what, f"app {app * 100:.2f} %", f"daemon {server * 100:.2f} %", f"{drawing:.1f} KiB/s drawn")


def _keys(seat: Seat, keys: Sequence[str], shown: Sequence[str]) -> tuple[str, str]:
    """Presses each key and waits for what it shows."""
    times, used = [], fine_cpu(seat.pid)
    for key, text in zip(keys, shown, strict=True):
        seat.type(key)
        times.append(seat.until(lambda screen, text=text: text in screen and screen.count("▌ i") < 2))
    return milliseconds(times), f"CPU {(fine_cpu(seat.pid) - used) / len(times) * 1000:.0f} ms each"


def rows(count: int) -> None:
    """Keys in a long list: wall time from a key to what it draws, and CPU."""
    with Seat([sys.executable, "-c", _ROWS, str(count)], os.environ) as seat:
        seat.until(f"1 of {count} ", 30)
        seat.watch(3)
        for what, times in (("a step within the screen", 30), ("a step that scrolls", 300)):
            first = 0 if times == 30 else 30
            say(f"j, {what}", *_keys(seat, ["j"] * times, [f"▌ i{n:04}" for n in range(first + 1, first + times + 1)]))
        began, used = time.perf_counter(), fine_cpu(seat.pid)
        for _ in range(300):  # as a keyboard repeats
            seat.type("j")
            seat.watch(1 / 30)
        late = seat.until("▌ i0630")
        used = (fine_cpu(seat.pid) - used) / (time.perf_counter() - began)
        say("j held down, 30 a second", f"app {used * 100:.0f} %", f"{late * 1000:.0f} ms behind at the end")
        say("G and g", *_keys(seat, ["G", "g"] * 10, [f"▌ i{count - 1:04}", "▌ i0000"] * 10))
        seat.type("/")
        seat.until("state:running")
        letters = ["1", "9", "9", "\x7f", "\x7f", "\x7f"]
        typed = ["─ /1  ", "─ /19  ", "─ /199  ", "─ /19  ", "─ /1  ", f" of {count} ─"]
        say("a letter of a filter", *_keys(seat, letters * 5, typed * 5))
        seat.type("\x1b")
        seat.watch(1)
        say("another sorting", *_keys(seat, ["M", "N"] * 5, ["MEMORY ↑", "NAME ↑        STATE"] * 5))
        say("  the app's memory", f"{memory(seat.pid) / 2**20:.0f} MiB (PSS)")
        quit_app(seat)


def flood(lxpyd: Lxpyd) -> None:
    """Keys in other panes while a shell floods."""
    lxpyd.cli("launch", "bb", "c1")
    steps = {"4": "overlay", "5": lxpyd.bridge, "1": "● Running"}
    for command in ("", "yes", "cat /dev/urandom"):
        with Seat(APP, lxpyd.environment) as seat:
            seat.until("● Running")
            if command:
                seat.type("s")
                seat.until("leaves the shell")
                seat.until("#")
                seat.type(f"{command}\r")
                seat.watch(1)
                seat.type("\x1d")
                seat.until("zooms")
            times, began, used = [], time.perf_counter(), fine_cpu(seat.pid)
            while time.perf_counter() - began < (20 if command else 5):
                for key, text in steps.items():
                    seat.type(key)
                    times.append(seat.until(text))
                    seat.watch(0.1)
            share = (fine_cpu(seat.pid) - used) / (time.perf_counter() - began)
            say(f"another pane, {command or 'no shell'}", milliseconds(times), f"app {share * 100:.0f} %")
            quit_app(seat)
    lxpyd.cli("delete", "-f", "c1")


def log(lxpyd: Lxpyd) -> None:
    """A console log of 100 MB."""
    lxpyd.cli("create", "bb", "c1")
    path = pathlib.Path(lxpyd.layout.instance_log("default", "c1")) / "console.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    page = b"".join(b"line %07d of a guest that has a lot to say to its console\n" % n for n in range(16_000))
    with path.open("wb") as file:
        for _ in range(105):
            file.write(page)
        file.write(b"the very last line\n")
    with Seat(APP, lxpyd.environment) as seat:
        seat.until("○ Stopped")
        seat.watch(1)
        before, used = memory(seat.pid), fine_cpu(seat.pid)
        seat.type("l")
        took = seat.until("the very last line")
        used = fine_cpu(seat.pid) - used
        say("a log of 100 MB, its end", f"{took * 1000:.0f} ms", f"CPU {used * 1000:.0f} ms")
        for _ in range(20):
            seat.type("g")
            seat.watch(0.2)
        grown = memory(seat.pid) - before
        say("  twenty older pages (5 MB)", f"{grown / 2**20:.0f} MiB more memory")
        seat.type("\x1b")
        seat.watch(0.5)
        quit_app(seat)
    lxpyd.cli("delete", "-f", "c1")


def reconnect(lxpyd: Lxpyd) -> None:
    """Until the app has everything again, from the moment at which a new daemon answers."""
    lxpyd.cli("launch", "bb", "c1")
    times = []
    with Seat(APP, lxpyd.environment) as seat:
        seat.until("● Running")
        for _ in range(5):
            lxpyd.kill()
            seat.until("disconnected")
            lxpyd.start()
            times.append(seat.until(lambda shown: "disconnected" not in shown and "● Running" in shown))
        quit_app(seat)
    say("connected again, after the daemon answers", milliseconds(times))
    lxpyd.cli("delete", "-f", "c1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.app")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)}; all of them")
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args()
    parts = given.parts or PARTS
    say("load", " ".join(pathlib.Path("/proc/loadavg").read_text().split()[:3]))
    lxpyd = Daemon("s", 0)
    lxpyd.environment["LXPY_IDMAP"] = f"10000000:{(given.instances + 8) * 65536}"
    lxpyd.start()
    try:
        lxpyd.initialise()
        if "start" in parts:
            lxpyd.cli("launch", "bb", "c1")
            start(lxpyd)
            lxpyd.cli("delete", "-f", "c1")
        if "idle" in parts:
            idle(lxpyd, given.instances, given.seconds)
        if "rows" in parts:
            rows(2000)
        if "shell" in parts:
            lxpyd.cli("launch", "bb", "c1")
            shell.compare(lxpyd)
            lxpyd.cli("delete", "-f", "c1")
        for part in (flood, log, reconnect):
            if part.__name__ in parts:
                part(lxpyd)
    finally:
        lxpyd.destroy()
    say("load", " ".join(pathlib.Path("/proc/loadavg").read_text().split()[:3]))
    return 0


if __name__ == "__main__":
    sys.exit(
        main() if namespace.inside() else namespace.enter([sys.executable, "-m", "tests.bench.app", *sys.argv[1:]])
    )

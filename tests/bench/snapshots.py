"""Snapshots, restores and copies of a booted Debian on each pool: ``python -m tests.bench.snapshots [ROUNDS]``.

Needs root. Whole commands seen from outside, medians in milliseconds; of a running instance also how long it stood
still, as the command says. Figures of one machine compare with one another only.
"""

import os
import re
import statistics
import sys
import time

from tests.support import namespace
from tests.support.daemon import Lxpyd, until

_ROUNDS = int(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1].isdigit() else 7
_POOLS = {"overlay": "default", "btrfs": "b", "dir": "plain"}


class Bench:
    """One pool's samples."""

    def __init__(self, daemon: Lxpyd) -> None:
        self.daemon = daemon
        self.rows: dict[str, list[float]] = {}

    def run(self, what: str, *command: str) -> None:
        began = time.monotonic()
        said = self.daemon.out(*command)
        self.rows.setdefault(what, []).append((time.monotonic() - began) * 1000)
        if stood := re.search(r"stood still for ([0-9.]+) ms", said):
            self.rows.setdefault(f"{what}: stood still", []).append(float(stood[1]))


def measure(daemon: Lxpyd, pool: str, rounds: int) -> dict[str, list[float]]:
    bench = Bench(daemon)
    daemon.cli("launch", "deb", "d", "-s", pool)
    until(lambda: daemon.cli("exec", "d", "--", "systemctl", "is-system-running", check=False).stdout.strip()
          in ("running", "degraded"), 60, "Debian does not boot", 0.2)  # fmt: skip
    daemon.cli("exec", "d", "--", "sh", "-c", "apt-cache stats >/dev/null 2>&1; sync")
    for number in range(rounds):
        bench.run("snapshot (running)", "snapshot", "d", f"r{number}")
        bench.run("copy (running)", "copy", "d", "c", "--instance-only")
        daemon.cli("delete", "c")
    daemon.cli("stop", "-f", "d")
    for number in range(rounds):
        daemon.cli("delete", f"d/r{number}")
        bench.run("snapshot", "snapshot", "d", "s")
        bench.run("restore", "restore", "d", "s")
        bench.run("copy", "copy", "d", "c", "--instance-only")
        bench.run("copy, refreshed", "copy", "d", "c", "--refresh", "--instance-only")
        daemon.cli("delete", "c", "d/s")
    daemon.cli("delete", "d")
    return bench.rows


def main() -> int:
    daemon = Lxpyd("bench", 249)
    daemon.start()
    try:
        daemon.initialise()
        daemon.import_image("debian/12", "deb")
        daemon.cli("storage", "create", "b", "btrfs", "size=6GiB")
        found = {
            driver: measure(daemon, pool, _ROUNDS if driver != "dir" else 3) for driver, pool in _POOLS.items()
        }  # fmt: skip
    finally:
        daemon.destroy()
    print(f"| Debian, median ms (min-max), load {os.getloadavg()[0]:.1f} | {' | '.join(found)} |")
    print("|---|" + "---:|" * len(found))
    for row in found["overlay"]:
        cells = [
            f"{statistics.median(x):.0f} ({min(x):.0f}-{max(x):.0f})" for x in (one[row] for one in found.values())
        ]
        print(f"| {row} | {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    if namespace.inside():
        sys.exit(main())
    sys.exit(namespace.enter([sys.executable, "-m", "tests.bench.snapshots", *sys.argv[1:]]))

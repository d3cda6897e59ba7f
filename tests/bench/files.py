"""Times files into and out of a running instance, and leaves samples for table.py.

    python tests/bench/files.py --client lxpy --instance c1 --pool overlay --json lxpy.json

Works with any client that has LXD's ``file push`` and ``file pull``. What is pushed was read before and lies in memory;
beside it stands what ``cp`` needs for the same file, which no transfer can beat.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
import time
from collections.abc import Callable

MIB = 1 << 20


def timed(*command: str) -> float:
    """Milliseconds that a command takes."""
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--client", default="lxpy", help="the client's program")
    parser.add_argument("--instance", required=True, help="a running instance")
    parser.add_argument("--pool", default="overlay", help="what its pool is called in the table")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", help="where the samples go")
    given = parser.parse_args()
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        big, tree = pathlib.Path(folder, "big"), pathlib.Path(folder, "tree")
        big.write_bytes(os.urandom(100 * MIB))
        tree.mkdir()
        for number in range(1000):
            (tree / f"{number}").write_bytes(b"x" * 1000)
        push, pull = (given.client, "file", "push"), (given.client, "file", "pull")
        inside = f"{given.instance}/root"
        rows: dict[str, Callable[[], float]] = {
            "cp 100 MiB": lambda: timed("cp", str(big), f"{folder}/copy"),
            "file push 100 MiB": lambda: timed(*push, str(big), f"{inside}/big"),
            "file pull 100 MiB": lambda: timed(*pull, f"{inside}/big", f"{folder}/back"),
            "file push, small": lambda: timed(*push, "/etc/hostname", f"{inside}/small"),
            "file push -r, 1000 files": lambda: timed(*push, "-r", str(tree), f"{inside}/"),
            "file pull -r, 1000 files": lambda: timed(*pull, "-r", f"{inside}/tree", f"{folder}/"),
        }
        for _ in range(given.runs):
            for name, row in rows.items():
                samples.setdefault(f"{given.pool}/{name}", []).append(row())
    for name, found in samples.items():
        print(f"{name}: {' '.join(f'{one:.0f}' for one in found)}")
    if given.json:
        pathlib.Path(given.json).write_text(json.dumps(samples), encoding="utf-8")


if __name__ == "__main__":
    main()

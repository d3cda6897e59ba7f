"""Prints one table from the samples of several timing runs, side by side, with the ratio of the first to the last.

    python tests/bench/table.py --peer "LXD"=lxd.json --peer lxpy=lxpy.json

A run's file is JSON: {"<pool>/<image> <what>": [milliseconds, ...], "notes": {...}}. Pools differ between programs, so
rows are matched by image and what; the notes (totals, memory) are printed below, each under its program.
"""

import argparse
import json
import pathlib
import statistics


def load(path: str) -> tuple[dict[str, list[float]], dict[str, object]]:
    """Samples by row (without the pool's name) and the notes of one run."""
    content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    notes = content.pop("notes", {})
    rows: dict[str, list[float]] = {}
    for name, samples in content.items():
        rows.setdefault(name.partition("/")[2] or name, []).extend(samples)
    return rows, notes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", action="append", required=True, metavar="NAME=FILE", help="a program and its samples")
    runs = {}
    for peer in parser.parse_args().peer:
        name, _, path = peer.partition("=")
        runs[name] = load(path)
    names = list(runs)
    print(f"| median ms (min–max) | {' | '.join(names)} | {names[0]} / {names[-1]} |")
    print("|---|" + "---:|" * (len(names) + 1))
    for row in dict.fromkeys(row for rows, _ in runs.values() for row in rows):
        cells, medians = [], []
        for rows, _ in runs.values():
            samples = rows.get(row)
            cells.append(f"{statistics.median(samples):.0f} ({min(samples):.0f}–{max(samples):.0f})" if samples else "")
            medians.append(statistics.median(samples) if samples else 0.0)
        ratio = f"{medians[0] / medians[-1]:.1f}" if medians[0] and medians[-1] else ""
        print(f"| {row} | {' | '.join(cells)} | {ratio} |")
    for name, (_, notes) in runs.items():
        for key, value in notes.items():
            print(f"- {name}: {key}: {value}")


if __name__ == "__main__":
    main()

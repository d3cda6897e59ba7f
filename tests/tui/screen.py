"""What is on the app's screen as text, with its styles: the snapshots that reviewers can read.

A snapshot file has three parts: the text, the styles of each line as runs of letters, and what the letters mean.
``LXPY_UPDATE_SNAPSHOTS=1`` writes the files anew.
"""

import itertools
import os
import pathlib
import re
import string
import time
from typing import Any

FOLDER = pathlib.Path(__file__).parent / "snapshots"


def text(app: Any) -> str:
    """The text on the screen, lines stripped at the right."""
    return "\n".join("".join(s.text for s in strip).rstrip() for strip in _strips(app))


def picture(app: Any) -> str:
    """Text, styles and their legend."""
    legend: dict[str, str] = {}
    rows = []
    for strip in _strips(app):
        cells: list[str] = []
        for segment in strip:
            style = segment.style
            name = (
                str(style.without_color) + f" {_colour(style.color)} on {_colour(style.bgcolor)}" if style else "none"
            )
            name = re.sub(r"\bnot \w+ ?|\bnone\b|link \S+", "", name).strip() if style else name
            letter = legend.setdefault(name, string.ascii_letters[len(legend)])
            cells += [letter] * segment.cell_length
        rows.append(" ".join(f"{letter}{len(list(run))}" for letter, run in itertools.groupby(cells)))
    key = [f"{letter}: {name}" for name, letter in legend.items()]
    return "\n".join([text(app), "", *rows, "", *key, ""])


def check(app: Any, name: str) -> None:
    """Compares the screen with the stored snapshot `name`."""
    path = FOLDER / f"{name}.txt"
    now = picture(app)
    if os.environ.get("LXPY_UPDATE_SNAPSHOTS"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text(now)
    assert now == path.read_text(), f"{path.name} differs; LXPY_UPDATE_SNAPSHOTS=1 writes it anew if that is meant"


async def settled(pilot: Any, name: str, seconds: float = 5) -> None:
    """`check`, once the screen has come to rest: a busy machine draws late."""
    path, end, before = FOLDER / f"{name}.txt", time.monotonic() + seconds, ""
    updating = bool(os.environ.get("LXPY_UPDATE_SNAPSHOTS")) or not path.exists()
    while time.monotonic() < end:
        await pilot.pause(0.25 if updating else 0.05)
        now = picture(pilot.app)
        if now == (before if updating else path.read_text()):
            break
        before = now
    check(pilot.app, name)


def _colour(colour: Any) -> str:
    return colour.name if colour else "default"


def _strips(app: Any) -> list[Any]:
    return list(app.screen._compositor.render_strips(app.screen.size))

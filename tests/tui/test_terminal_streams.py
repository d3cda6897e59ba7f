"""Recorded sessions of real programs: our screen beside tmux's own for the same bytes, characters, colours, cursor."""

import os
import pathlib
import subprocess
import uuid

import pytest

from lxpy.tui.terminal import Line, Style, Terminal
from tests.tui.record import COLUMNS, ROWS, STREAMS

_SEEN = 0b1111 | 1 << 5  # bold, dim, italic, underline, reverse: what tmux tells of a cell


def tmux_screen(data: bytes, folder: pathlib.Path) -> tuple[list[Line], tuple[int, int], bool]:
    """Rows, cursor and "alternate screen" of a tmux pane that was written `data`."""
    (folder / "stream").write_bytes(data)
    socket = f"lxpy-test-{uuid.uuid4().hex[:12]}"

    def tmux(*words: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TMUX")} | {"LC_ALL": "C.UTF-8"}
        command = ["tmux", "-u", "-L", socket, "-f", "/dev/null", *words]
        return subprocess.run(command, env=environment, capture_output=True, check=True, text=True, timeout=30).stdout

    script = f"stty raw -echo; cat stream; tmux -L {socket} wait-for -S fed; exec sleep 600"
    try:
        tmux("new-session", "-d", "-x", str(COLUMNS), "-y", str(ROWS), "-c", str(folder), "sleep 600")
        tmux("set", "-g", "status", "off")
        tmux("set", "-g", "alternate-screen", "on")
        tmux("resize-window", "-x", str(COLUMNS), "-y", str(ROWS))
        tmux("respawn-pane", "-k", "-c", str(folder), script)
        tmux("wait-for", "fed")
        rows = tmux("capture-pane", "-p", "-e", "-N").split("\n")[:ROWS]
        where = tmux("display-message", "-p", "#{cursor_x} #{cursor_y} #{alternate_on}").split()
    finally:
        tmux("kill-server")
    reader = Terminal(COLUMNS + 1, ROWS)  # reads tmux's own description of its rows
    lines = []
    for row in rows:  # a style goes on from one row to the next
        reader.to(0, 0)
        reader.feed(row.encode())
        lines.append(reader.lines[0])
        reader.lines[0] = Line()
    return lines, (min(int(where[0]), COLUMNS - 1), int(where[1])), where[2] == "1"


def cells(lines: list[Line]) -> list[list[tuple[str, Style]]]:
    result = []
    for line in lines:
        row = []
        for x in range(COLUMNS):
            character, style = line.cell(x)
            row.append((character, Style(style.fg, style.bg, style.flags & _SEEN)))
        result.append(row)
    return result


@pytest.mark.parametrize("part", [0.3, 0.6, 0.85, 1.0])
@pytest.mark.parametrize("name", ["apt", "htop", "less", "tmux", "vim"])
def test_the_screen_is_tmux_s(name: str, part: float, tmp_path: pathlib.Path) -> None:
    whole = (STREAMS / f"{name}.bin").read_bytes()
    data = whole[: int(len(whole) * part)]
    ours = Terminal(COLUMNS, ROWS)
    ours.feed(data)
    theirs, cursor, alternate = tmux_screen(data, tmp_path)
    assert [line.text.rstrip() for line in ours.lines] == [line.text.rstrip() for line in theirs]
    assert (ours.cursor, ours.in_alternate) == (cursor, alternate)
    for y, (mine, other) in enumerate(zip(cells(ours.lines), cells(theirs), strict=True)):
        told = len(theirs[y])  # tmux does not tell the background of erased cells at the end of a row
        assert mine[:told] == other[:told], f"row {y}: {ours.lines[y].text}"

"""What has been on the screen, as text: selecting, copying, searching.

Rows have numbers that stay theirs however much scrolls by: row 0 is the first that ever left the top of the screen.
"""

import re
from typing import NamedTuple

from lxpy.tui.terminal.line import Line
from lxpy.tui.terminal.screen import Screen


class Place(NamedTuple):
    """A row by its lasting number, and a column."""

    row: int
    x: int


def first_row(screen: Screen) -> int:
    """The number of the oldest row that is still there."""
    return screen.scrolled - len(screen.history) if not screen.in_alternate else screen.scrolled


def end_row(screen: Screen) -> int:
    """One more than the number of the last row of the screen."""
    return screen.scrolled + screen.rows


def row(screen: Screen, number: int) -> Line:
    """A row by its number; a blank one where there is none."""
    place = number - screen.scrolled
    if place >= 0:
        return screen.lines[place] if place < screen.rows else Line()
    place += len(screen.history)
    if place < 0 or screen.in_alternate:
        return Line()
    line = screen.history[place]
    return Line(line) if isinstance(line, str) else line


def columns_text(line: Line, start: int, end: int) -> str:
    """What stands in some columns of a row, without blanks at its end."""
    if line.is_text:
        return line.text[start:end]
    return "".join(line.cells()[0][start:end])


def text_between(screen: Screen, start: Place, end: Place) -> str:
    """The text from one place up to another (not included), in either order; wrapped rows are joined."""
    start, end = min(start, end), max(start, end)
    parts: list[str] = []
    for number in range(max(start.row, first_row(screen)), min(end.row + 1, end_row(screen))):
        line = row(screen, number)
        left = start.x if number == start.row else 0
        right = end.x if number == end.row else len(line)
        piece = columns_text(line, left, right)
        last = number == end.row
        parts.append(piece if line.wrapped else piece.rstrip())
        if not last and not line.wrapped:
            parts.append("\n")
    return "".join(parts)


_WORD = re.compile(r"[\w@%+=:,./~#?&-]+")


def word_at(screen: Screen, place: Place) -> tuple[Place, Place]:
    """The word (path, address …) at a place, for a double click."""
    text = columns_text(row(screen, place.row), 0, screen.columns)
    for match in _WORD.finditer(text):
        if match.start() <= place.x < match.end():
            return Place(place.row, match.start()), Place(place.row, match.end())
    return place, Place(place.row, place.x + 1)


def link_at(screen: Screen, place: Place) -> str:
    """The address of the hyperlink at a place, "" for none."""
    return row(screen, place.row).cell(place.x)[1].link


def search(screen: Screen, wanted: str, start: Place, backwards: bool = True) -> tuple[Place, Place] | None:
    """The next place of a text, from `start` on, in smart case; it goes round at the end.

    Args:
        wanted: plain text; capitals in it make capitals count.
        start: where the search begins; a match at this very place is passed over.

    Returns:
        Where the match begins and ends, None when there is none.
    """
    if not wanted:
        return None
    flags = 0 if wanted != wanted.lower() else re.IGNORECASE
    pattern = re.compile(re.escape(wanted), flags)
    first, end = first_row(screen), end_row(screen)
    count = end - first
    if count <= 0:
        return None
    origin = min(max(start.row, first), end - 1)
    step = -1 if backwards else 1
    for distance in range(count + 1):
        number = first + (origin - first + step * distance) % count
        line = row(screen, number)
        text = line.text
        if not text:
            continue
        found = [m.span() for m in pattern.finditer(text)]
        if distance == 0:
            found = [s for s in found if (s[0] < start.x if backwards else s[0] > start.x)]
        elif distance == count:
            found = [s for s in found if (s[0] >= start.x if backwards else s[0] <= start.x)]
        if found:
            span = found[-1] if backwards else found[0]
            return Place(number, _column(line, span[0])), Place(number, _column(line, span[1]))
    return None


def _column(line: Line, index: int) -> int:
    """The column at which the character `index` of a row's text stands."""
    if line.is_text:
        return index
    passed = 0
    for x, cell in enumerate(line.cells()[0]):
        if passed >= index and cell:
            return x
        passed += len(cell)
    return len(line)

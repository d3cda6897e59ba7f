"""Wrapping rows anew for another width: rows that wrapped are one text again, cut at the new width."""

from collections.abc import Sequence

from lxpy.tui.terminal.line import Line
from lxpy.tui.terminal.style import Style


def reflow(
    lines: Sequence[Line | str], columns: int, marks: tuple[int, int], x: int
) -> tuple[list[Line | str], tuple[int, int], int]:
    """Rows for a screen of `columns` columns.

    Args:
        lines: all rows, scrollback and screen.
        marks: two rows to find again: the screen's first, and the cursor's.
        x: the cursor's column.

    Returns:
        The new rows; where the two marked ones are now; the cursor's column.
    """
    result: list[Line | str] = []
    first, cursor = marks
    new_first = new_cursor = -1
    new_x = x
    i = 0
    while i < len(lines):
        end = i + 1
        while end < len(lines) and _wrapped(lines[end - 1]):
            end += 1
        begin = len(result)
        # Where in this text the marks are, in columns from its beginning.
        at_first = sum(map(len, lines[i:first])) if i <= first < end else -1
        at_cursor = sum(map(len, lines[i:cursor])) + x if i <= cursor < end else -1
        starts = _rewrap(lines[i:end], columns, result)
        if at_first >= 0:
            new_first = begin + _piece(starts, at_first)
        if at_cursor >= 0:
            piece = _piece(starts, at_cursor)
            new_x = at_cursor - starts[piece]
            while new_x > columns:  # the cursor is right of what is written
                piece, new_x = piece + 1, new_x - columns
                if begin + piece == len(result):
                    result.append("")
                    starts.append(starts[-1] + columns)
            new_cursor = begin + piece
        i = end
    return result, (new_first, new_cursor), new_x


def _wrapped(line: Line | str) -> bool:
    return isinstance(line, Line) and line.wrapped


def _piece(starts: list[int], column: int) -> int:
    """In which piece a column of the text is."""
    return max((n for n, start in enumerate(starts) if start <= column), default=0)


def _rewrap(lines: Sequence[Line | str], columns: int, result: list[Line | str]) -> list[int]:
    """Appends the rows of one text; gives the columns of the text at which they begin."""
    if len(lines) == 1:
        line = lines[0]
        if len(line) <= columns:
            result.append(line)
            return [0]
        if isinstance(line, str):
            starts = list(range(0, len(line), columns))
            for start in starts:
                part = Line(line[start : start + columns])
                part.wrapped = start + columns < len(line)
                result.append(part)
            return starts
    chars: list[str] = []
    styles: list[Style] = []
    for line in lines:
        more, their = (line if isinstance(line, Line) else Line(line)).cells()
        chars += more
        styles += their
    starts = []
    at = 0
    while True:
        starts.append(at)
        end = min(at + columns, len(chars))
        if end < len(chars) and chars[end] == "" and end - 1 > at:
            end -= 1  # a wide character is not cut in two
        part = Line.of_cells(chars[at:end], styles[at:end])
        part.compact()
        part.wrapped = end < len(chars) or (end == len(chars) and _wrapped(lines[-1]))
        result.append(part)
        at = end
        if at >= len(chars):
            return starts

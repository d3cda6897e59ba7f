"""One row of the screen or of the scrollback.

Most rows are written once, from left to right, with one-column characters. Such a row stays a string with a list of
where styles begin; only a row that is written to out of order gets a list of cells.
"""

from collections.abc import Iterator
from itertools import groupby

from lxpy.tui.terminal.style import PLAIN, Style

Run = tuple[int, Style]  # from this column on


class Line:
    """A row. Columns right of its end are blank.

    Attributes:
        wrapped: the text goes on in the next row, which began because this one was full.
    """

    __slots__ = ("_chars", "_runs", "_styles", "_text", "wrapped")

    def __init__(self, text: str = "", runs: "list[Run] | None" = None) -> None:
        self._text = text
        self._runs = runs  # None: all of it PLAIN. The first begins at column 0 otherwise.
        self._chars: list[str] | None = None  # cells: a character with what combines with it; "" right of a wide one
        self._styles: list[Style] = []
        self.wrapped = False

    @classmethod
    def of_cells(cls, chars: list[str], styles: list[Style]) -> "Line":
        """A row of cells; the lists are taken over."""
        line = cls()
        line._chars, line._styles = chars, styles
        return line

    def __len__(self) -> int:
        """Columns up to the last that was written."""
        return len(self._text) if self._chars is None else len(self._chars)

    # Reading

    @property
    def text(self) -> str:
        """What is written, without cells right of the end; wide characters count once."""
        return self._text if self._chars is None else "".join(self._chars)

    def segments(self) -> Iterator[tuple[str, Style]]:
        """Stretches of one style, from the left."""
        if self._chars is not None:
            at = 0
            for style, group in groupby(self._styles):
                end = at + sum(1 for _ in group)
                yield "".join(self._chars[at:end]), style
                at = end
        elif self._runs is None:
            if self._text:
                yield self._text, PLAIN
        else:
            ends = [start for start, _ in self._runs[1:]]
            for (start, style), end in zip(self._runs, [*ends, len(self._text)], strict=True):
                yield self._text[start:end], style

    def cell(self, x: int) -> tuple[str, Style]:
        """Character and style of a column; blank right of the end."""
        if x >= len(self):
            return " ", PLAIN
        if self._chars is not None:
            return self._chars[x], self._styles[x]
        style = PLAIN
        for start, candidate in self._runs or ():
            if start > x:
                break
            style = candidate
        return self._text[x], style

    def cells(self) -> tuple[list[str], list[Style]]:
        """The row as cells, to be read and written; it stays so."""
        if self._chars is None:
            styles: list[Style] = []
            for text, style in self.segments():
                styles += [style] * len(text)
            self._chars, self._styles = list(self._text), styles
            self._text, self._runs = "", None
        return self._chars, self._styles

    @property
    def is_text(self) -> bool:
        """Whether it is kept as a string: each column a character of its own."""
        return self._chars is None

    @property
    def is_plain(self) -> bool:
        """Whether it is kept as a string without any style."""
        return self._chars is None and self._runs is None

    @property
    def is_blank(self) -> bool:
        """Whether nothing at all can be seen in it."""
        return not self.text.strip(" ") and all(style == PLAIN for _, style in self.segments())

    # Writing

    def write(self, x: int, text: str, style: Style) -> None:
        """Put one-column characters at column `x`, over what was there."""
        if self._chars is None:
            size = len(self._text)
            if x < size:
                if x or len(text) < size:
                    self._overwrite(x, text, style)
                    return
                self._text, self._runs = "", None  # all of it is written anew
            elif x > size:
                self._add(" " * (x - size), PLAIN)
            self._add(text, style)
        else:
            self._overwrite(x, text, style)

    def _add(self, text: str, style: Style) -> None:
        if self._runs is None:
            if style is not PLAIN:
                self._runs = [(0, style)] if not self._text else [(0, PLAIN), (len(self._text), style)]
        elif self._runs[-1][1] is not style:
            self._runs.append((len(self._text), style))
        self._text += text

    def _overwrite(self, x: int, text: str, style: Style) -> None:
        chars, styles = self.cells()
        self._pad(x)
        end = x + len(text)
        self._split(x)
        self._split(end)
        chars[x:end] = text
        styles[x:end] = [style] * len(text)

    def put(self, x: int, character: str, columns: int, style: Style) -> None:
        """Put one character of 1 or 2 columns at column `x`."""
        chars, styles = self.cells()
        self._pad(x)
        self._split(x)
        self._split(x + columns)
        chars[x : x + columns] = [character, ""][:columns]
        styles[x : x + columns] = [style] * columns

    def combine(self, x: int, mark: str) -> None:
        """Add a combining character to the cell at column `x` (or to the wide one it is the right half of)."""
        chars, _ = self.cells()
        self._pad(x + 1)
        if chars[x] == "" and x:
            x -= 1
        if len(chars[x]) < 12:  # enough for any emoji sequence; "zalgo" ends somewhere
            chars[x] += mark

    def erase(self, start: int, end: int, style: Style) -> None:
        """Make the columns from `start` up to `end` blank, in `style`."""
        if style is PLAIN and end >= len(self):
            self.cut(start)
        elif start < end:
            self.write(start, " " * (end - start), style)

    def insert(self, x: int, count: int, columns: int, style: Style) -> None:
        """Push what is right of `x` to the right by `count` blank columns; what passes column `columns` is lost."""
        if x < len(self):
            chars, styles = self.cells()
            self._split(x)
            chars[x:x] = [" "] * count
            styles[x:x] = [style] * count
            self.cut(columns)
        elif style is not PLAIN:
            self.write(x, " " * min(count, columns - x), style)

    def delete(self, x: int, count: int, columns: int, style: Style) -> None:
        """Pull what is right of `x` to the left over `count` columns."""
        if x < len(self):
            chars, styles = self.cells()
            self._split(x)
            self._split(x + count)
            del chars[x : x + count], styles[x : x + count]
        if style is not PLAIN and len(self) < columns:
            size = max(len(self), x)
            self.write(size, " " * (columns - size), style)

    def cut(self, columns: int) -> None:
        """Keep only that many columns."""
        if self._chars is not None:
            if columns < len(self._chars):
                self._split(columns)
                del self._chars[columns:], self._styles[columns:]
        elif columns < len(self._text):
            self._text = self._text[:columns]
            if self._runs is not None:
                self._runs = [run for run in self._runs if run[0] < columns] or None

    def compact(self) -> None:
        """Become a string again if the row can; for rows that leave the screen."""
        chars = self._chars
        if chars is None:
            return
        text = "".join(chars)
        if len(text) != len(chars) or "" in chars:
            return
        runs: list[Run] = []
        at = 0
        for style, group in groupby(self._styles):
            runs.append((at, style))
            at += sum(1 for _ in group)
        self._text, self._chars, self._styles = text, None, []
        self._runs = None if all(style is PLAIN for _, style in runs) else runs

    def _pad(self, columns: int) -> None:
        assert self._chars is not None
        missing = columns - len(self._chars)
        if missing > 0:
            self._chars += [" "] * missing
            self._styles += [PLAIN] * missing

    def _split(self, x: int) -> None:
        """A wide character that lies across the boundary left of column `x` becomes two blanks."""
        assert self._chars is not None
        if 0 < x < len(self._chars) and self._chars[x] == "":
            self._chars[x - 1] = self._chars[x] = " "

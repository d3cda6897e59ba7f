"""The screen: rows, cursor, margins, scrollback; what control sequences do to them.

Rows and columns count from 0 here. ``x == columns`` means: the last column has been written and the next character
wraps first (the VT100's pending wrap, as tmux keeps it).
"""

from collections import deque
from dataclasses import dataclass

from lxpy.tui.terminal.line import Line
from lxpy.tui.terminal.reflow import reflow
from lxpy.tui.terminal.style import PLAIN, Style, blank
from lxpy.tui.terminal.width import NARROW, width

MIN_ROWS, MIN_COLUMNS = 1, 2
TAB = 8


@dataclass(slots=True)
class Saved:
    """What DECSC keeps."""

    x: int = 0
    y: int = 0
    style: Style = PLAIN
    origin: bool = False
    charsets: tuple[str, str] = ("B", "B")
    shifted: int = 0


class Screen:
    """Rows and a cursor.

    Args:
        columns, rows: the size; at least 2 by 1.
        scrollback: how many rows that have left the top are kept.

    Attributes:
        lines: the rows of the screen, always `rows` many.
        history: what has left the top, oldest first: a `Line`, or a string for a row without any style.
        scrolled: how many rows have ever left the top; `scrolled - len(history)` of them are gone.
        dirty: rows that have changed since whoever draws last cleared it; all of them when `all_dirty`.
    """

    def __init__(self, columns: int = 80, rows: int = 24, scrollback: int = 10_000) -> None:
        self.columns, self.rows = max(columns, MIN_COLUMNS), max(rows, MIN_ROWS)
        self.history: deque[Line | str] = deque(maxlen=scrollback)
        self.scrolled = 0
        self.dirty: set[int] = set()
        self.all_dirty = True
        self._primary = self._blank_rows()
        self._alternate: list[Line] | None = None
        self.lines = self._primary
        self._saved = Saved()
        self._saved_alternate = Saved()
        self._reset_state()

    def _reset_state(self) -> None:
        self.x = self.y = 0
        self.style = PLAIN
        self.top, self.bottom = 0, self.rows - 1  # margins
        self.origin = self.insert_mode = self.newline_mode = False
        self.autowrap = self.cursor_visible = True
        self.charsets = ("B", "B")
        self.shifted = 0
        self.tabs = set(range(TAB, self.columns, TAB))
        self._tabs_set = False  # by the program: then a wider screen gets no new ones
        self._last = ""  # the last character printed, for REP

    def _blank_rows(self) -> list[Line]:
        return [Line() for _ in range(self.rows)]

    @property
    def in_alternate(self) -> bool:
        """Whether a full-screen program shows its own screen, which has no scrollback."""
        return self._alternate is not None and self.lines is self._alternate

    @property
    def cursor(self) -> tuple[int, int]:
        """Column and row, always inside."""
        return min(self.x, self.columns - 1), self.y

    # Printing

    def print(self, text: str) -> None:
        """Text without control characters, at the cursor."""
        self._last = text[-1]
        if not self.insert_mode and NARROW.match(text):
            self._print_narrow(text)
        else:
            for character in text:
                self._print_one(character)

    def _print_narrow(self, text: str) -> None:
        style, columns = self.style, self.columns
        while True:
            if self.x >= columns:
                self._wrap()
            room = columns - self.x
            piece = text[:room]
            text = text[room:]
            if text and not self.autowrap:
                piece, text = piece[:-1] + text[-1], ""  # the last column takes what comes last
            self.lines[self.y].write(self.x, piece, style)
            self.dirty.add(self.y)
            self.x += len(piece)
            if not text:
                return

    def _print_one(self, character: str) -> None:
        size = width(character)
        if size == 0:
            self._combine(character)
            return
        if self.x + size > self.columns:
            if self.autowrap and self.x < self.columns:
                self.x = self.columns
            if self.autowrap or self.x >= self.columns:
                self._wrap()
            if self.x + size > self.columns:
                self.x = self.columns - size
        line = self.lines[self.y]
        if self.insert_mode:
            line.insert(self.x, size, self.columns, blank(self.style))
        if size == 1:
            line.write(self.x, character, self.style)
        else:
            line.put(self.x, character, size, self.style)
        self.dirty.add(self.y)
        self.x += size

    def _combine(self, mark: str) -> None:
        if self.x:
            self.lines[self.y].combine(self.x - 1, mark)
            self.dirty.add(self.y)

    def _wrap(self) -> None:
        if self.autowrap:
            self.lines[self.y].wrapped = True
            self.line_feed()
            self.x = 0
        else:
            self.x = self.columns - 1

    def repeat(self, count: int) -> None:
        """REP: the last character again."""
        if self._last:
            self.print(self._last * min(count, self.columns * self.rows))

    # Moving

    def carriage_return(self) -> None:
        self.x = 0

    def backspace(self) -> None:
        self.x = max(min(self.x, self.columns - 1) - 1, 0)

    def line_feed(self) -> None:
        """Down; at the bottom margin the region scrolls."""
        if self.y == self.bottom:
            self.scroll_up(1)
        elif self.y < self.rows - 1:
            self.y += 1

    def reverse_line_feed(self) -> None:
        if self.y == self.top:
            self.scroll_down(1)
        elif self.y:
            self.y -= 1

    def tab(self, count: int = 1) -> None:
        for _ in range(min(count, self.columns)):
            self.x = min((t for t in self.tabs if t > self.x), default=self.columns - 1)

    def back_tab(self, count: int = 1) -> None:
        self.x = min(self.x, self.columns - 1)
        for _ in range(min(count, self.columns)):
            self.x = max((t for t in self.tabs if t < self.x), default=0)

    def set_tab(self) -> None:
        self._tabs_set = True
        self.tabs.add(min(self.x, self.columns - 1))

    def clear_tabs(self, every: bool) -> None:
        self._tabs_set = True
        if every:
            self.tabs.clear()
        else:
            self.tabs.discard(min(self.x, self.columns - 1))

    def to_column(self, x: int) -> None:
        self.x = min(max(x, 0), self.columns - 1)

    def to_row(self, y: int) -> None:
        """A row of the screen, or of the region in origin mode."""
        if self.origin:
            self.y = min(max(y + self.top, self.top), self.bottom)
        else:
            self.y = min(max(y, 0), self.rows - 1)
        self.x = min(self.x, self.columns - 1)

    def to(self, x: int, y: int) -> None:
        self.to_row(y)
        self.to_column(x)

    def up(self, count: int) -> None:
        self.y = max(self.y - count, self.top if self.y >= self.top else 0)
        self.x = min(self.x, self.columns - 1)

    def down(self, count: int) -> None:
        self.y = min(self.y + count, self.bottom if self.y <= self.bottom else self.rows - 1)
        self.x = min(self.x, self.columns - 1)

    def right(self, count: int) -> None:
        self.to_column(min(self.x, self.columns - 1) + count)

    def left(self, count: int) -> None:
        self.to_column(min(self.x, self.columns - 1) - count)

    def set_margins(self, top: int, bottom: int) -> None:
        """The rows that scroll, both included; a region of one row is no region."""
        bottom = min(bottom, self.rows - 1)
        if top < bottom:
            self.top, self.bottom = top, bottom
            self.to(0, 0)

    def save_cursor(self) -> None:
        saved = Saved(self.x, self.y, self.style, self.origin, self.charsets, self.shifted)
        if self.in_alternate:
            self._saved_alternate = saved
        else:
            self._saved = saved

    def restore_cursor(self) -> None:
        saved = self._saved_alternate if self.in_alternate else self._saved
        self.style, self.origin = saved.style, saved.origin
        self.charsets, self.shifted = saved.charsets, saved.shifted
        self.x, self.y = min(saved.x, self.columns), min(saved.y, self.rows - 1)

    # Scrolling

    def scroll_up(self, count: int) -> None:
        """The region moves up; what leaves the top of the primary screen becomes scrollback."""
        count = min(count, self.bottom - self.top + 1)
        filling = blank(self.style)
        keep = self.top == 0 and not self.in_alternate
        for _ in range(count):
            line = self.lines.pop(self.top)
            if keep:
                self._keep(line)
            self.lines.insert(self.bottom, self._fresh(filling))
        self._dirty_region()

    def scroll_down(self, count: int) -> None:
        count = min(count, self.bottom - self.top + 1)
        filling = blank(self.style)
        for _ in range(count):
            del self.lines[self.bottom]
            self.lines.insert(self.top, self._fresh(filling))
        self._dirty_region()

    def _keep(self, line: Line) -> None:
        if not line.is_text:
            line.compact()
        self.history.append(line.text if line.is_plain and not line.wrapped else line)
        self.scrolled += 1

    def _fresh(self, style: Style) -> Line:
        line = Line()
        if style is not PLAIN:
            line.write(0, " " * self.columns, style)
        return line

    def _dirty_region(self) -> None:
        if self.top == 0 and self.bottom == self.rows - 1:
            self.all_dirty = True
        else:
            self.dirty.update(range(self.top, self.bottom + 1))

    def insert_lines(self, count: int) -> None:
        """IL, at the cursor's row; nothing outside the margins."""
        if self.top <= self.y <= self.bottom:
            top, self.top = self.top, self.y
            self.scroll_down(count)
            self.top = top
            self.x = 0

    def delete_lines(self, count: int) -> None:
        """DL, at the cursor's row. What it removes is gone, not scrolled away."""
        if self.top <= self.y <= self.bottom:
            filling = blank(self.style)
            for _ in range(min(count, self.bottom - self.y + 1)):
                del self.lines[self.y]
                self.lines.insert(self.bottom, self._fresh(filling))
            self.dirty.update(range(self.y, self.bottom + 1))
            self.x = 0

    # Erasing

    def erase_in_line(self, mode: int) -> None:
        """EL: 0 from the cursor to the end, 1 from the start to the cursor, 2 all."""
        line, filling = self.lines[self.y], blank(self.style)
        x = min(self.x, self.columns - 1)
        if mode == 0:
            line.erase(x, self.columns, filling)
            line.wrapped = False
        elif mode == 1:
            line.erase(0, x + 1, filling)
        elif mode == 2:
            line.erase(0, self.columns, filling)
            line.wrapped = False
        self.dirty.add(self.y)

    def erase_in_display(self, mode: int) -> None:
        """ED: 0 from the cursor on, 1 up to the cursor, 2 all, 3 the scrollback."""
        filling = blank(self.style)
        if mode == 0:
            self.erase_in_line(0)
            rows = range(self.y + 1, self.rows)
        elif mode == 1:
            self.erase_in_line(1)
            rows = range(self.y)
        elif mode == 2:
            rows = range(self.rows)
            if not self.in_alternate:
                self._keep_screen()
        else:
            if mode == 3:
                self.history.clear()
                self.all_dirty = True
            return
        for y in rows:
            self.lines[y] = self._fresh(filling)
        self.all_dirty = True

    def _keep_screen(self) -> None:
        """A cleared screen goes to the scrollback, as in tmux: ``clear`` loses nothing."""
        used = max((y for y, line in enumerate(self.lines) if not line.is_blank), default=-1)
        for line in self.lines[: used + 1]:
            self._keep(line)

    def erase_characters(self, count: int) -> None:
        x = min(self.x, self.columns - 1)
        self.lines[self.y].erase(x, min(x + count, self.columns), blank(self.style))
        self.dirty.add(self.y)

    def insert_characters(self, count: int) -> None:
        x = min(self.x, self.columns - 1)
        self.lines[self.y].insert(x, min(count, self.columns - x), self.columns, blank(self.style))
        self.dirty.add(self.y)

    def delete_characters(self, count: int) -> None:
        x = min(self.x, self.columns - 1)
        self.lines[self.y].delete(x, min(count, self.columns - x), self.columns, blank(self.style))
        self.dirty.add(self.y)

    def fill(self, character: str) -> None:
        """DECALN: every cell the same; margins go."""
        self.top, self.bottom = 0, self.rows - 1
        self.to(0, 0)
        self.lines[:] = [Line(character * self.columns) for _ in range(self.rows)]
        self.all_dirty = True

    # The other screen

    def to_alternate(self, clear: bool) -> None:
        if not self.in_alternate:
            if self._alternate is None or clear:
                self._alternate = self._blank_rows()
            self.lines = self._alternate
            self._saved_alternate = Saved()
            self.all_dirty = True

    def to_primary(self) -> None:
        if self.in_alternate:
            self.lines = self._primary
            self._alternate = None
            self.all_dirty = True

    # The size

    def resize(self, columns: int, rows: int) -> None:
        """Another size. Rows of the primary screen are wrapped anew; none is lost."""
        columns, rows = max(columns, MIN_COLUMNS), max(rows, MIN_ROWS)
        if (columns, rows) == (self.columns, self.rows):
            return
        # The cursor of the screen that is not shown is the one saved on the way to the other.
        x, y = (self._saved.x, self._saved.y) if self.in_alternate else (self.x, self.y)
        x, y = self._resize_primary(columns, rows, x, min(y, self.rows - 1))
        if self.in_alternate:
            self._saved.x, self._saved.y = x, y
            self._alternate = list(self.lines[:rows])
            for line in self._alternate:
                line.cut(columns)
            self._alternate += [Line() for _ in range(rows - len(self._alternate))]
            self.lines = self._alternate
            self.x, self.y = min(self.x, columns - 1), min(self.y, rows - 1)
        else:
            self.lines = self._primary
            self.x, self.y = x, y
        if not self._tabs_set:
            self.tabs = set(range(TAB, columns, TAB))
        self.columns, self.rows = columns, rows
        self.top, self.bottom = 0, rows - 1
        self.dirty.clear()
        self.all_dirty = True

    def _resize_primary(self, columns: int, rows: int, x: int, y: int) -> tuple[int, int]:
        """The rows anew; gives where the cursor is then."""
        used = max((n for n, line in enumerate(self._primary) if not line.is_blank), default=-1)
        lines: list[Line | str] = [*self.history, *self._primary[: max(used, y) + 1]]
        first = len(self.history)
        cursor = first + y
        if columns != self.columns:
            lines, (first, cursor), x = reflow(lines, columns, (first, cursor), x)
        # More room shows rows of the scrollback again; less room first takes blank rows from below.
        start = max(first - max(rows - self.rows, 0), 0) if rows > self.rows else first
        start = min(max(start, len(lines) - rows), cursor)
        start = max(start, cursor - rows + 1)
        gone = len(self.history)
        self.history.clear()
        self.history.extend(lines[:start])
        self.scrolled += start - gone
        self._primary = [Line(line) if isinstance(line, str) else line for line in lines[start : start + rows]]
        self._primary += [Line() for _ in range(rows - len(self._primary))]
        return min(x, columns), cursor - start

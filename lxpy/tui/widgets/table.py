"""A table that draws only the lines on the screen: thousands of rows cost what fifty do.

Rows are any objects with a `key`. Columns shrink, grow and leave by priority as the width changes.
"""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from lxpy.tui.harmless import pictures

Part = tuple[str, str]  # text and tone; a tone names the component class table--TONE


class Column(NamedTuple):
    """Attributes:
    cells: the parts of one row's cell, given the width it may take.
    sort: the sort key, or None where order means nothing.
    width: cells at least; the column grows to its content up to `most`, and by `share` of what is left over.
    priority: 0 stays always; the highest leaves first when the width runs out.
    """

    key: str
    title: str
    cells: Callable[[Any, int], tuple[Part, ...]]
    sort: Callable[[Any], Any] | None = None
    width: int = 6
    most: int = 0
    share: int = 0
    priority: int = 0
    right: bool = False


_NAME = 24
TONES = ("ok", "warn", "bad", "dim", "info", "accent", "strong", "plain")


class Table(ScrollView, can_focus=True):
    """See the module's text."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--header", "table--sorted", "table--cursor", "table--cursor-blurred", "table--marked",
        *(f"table--{tone}" for tone in TONES),
    }  # fmt: skip
    BINDINGS = [
        Binding("up,k", "move(-1)", "Up", show=False, id="table.up"),
        Binding("down,j", "move(1)", "Down", show=False, id="table.down"),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False, id="table.page-up"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="table.page-down"),
        Binding("home,g", "to(0)", "First", show=False, id="table.first"),
        Binding("end,G", "to(-1)", "Last", show=False, id="table.last"),
        Binding("enter", "choose", "Open", show=False, id="table.choose"),
    ]
    MARKABLE: ClassVar[bool] = False

    class Highlighted(Message):
        """The cursor is on another row, or the row has new content."""

        def __init__(self, table: "Table") -> None:
            super().__init__()
            self.table = table

        def can_replace(self, message: Message) -> bool:
            """Of those that wait only the last one counts, while a key is held down."""
            return isinstance(message, Table.Highlighted) and message.table is self.table

    class Chosen(Message):
        """Enter or a double click on a row."""

        def __init__(self, table: "Table", row: Any) -> None:
            super().__init__()
            self.table = table
            self.row = row

    def __init__(self, columns: Sequence[Column], *, header: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.columns = tuple(columns)
        self.header = header
        self.rows: list[Any] = []
        self.cursor = 0
        self.settled = False  # whether the user has been here: before that the cursor stays at the top
        self.marks: set[str] = set()
        self.sort_key = next((c.key for c in columns if c.sort), "")
        self.descending = False
        self.empty: Sequence[tuple[Part, ...]] = ()
        self._widths: tuple[int, list[tuple[Column, int]]] | None = None
        self._tones: dict[str, Style] = {}
        self._drawn: dict[int, Strip] = {}  # by line: as it is on the screen

    # Content

    @property
    def current(self) -> Any | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if 0 <= self.cursor < len(self.rows) else None

    def show(self, rows: Sequence[Any]) -> None:
        """Takes new rows, sorted here; the cursor stays on its row, else at its place."""
        before = self.current if self.settled else None
        column = next((c for c in self.columns if c.key == self.sort_key), None)
        sort = self.sort_of(column) if column is not None else None
        if sort is not None:
            self.rows = sorted(rows, key=lambda r: (sort(r), r.key), reverse=self.descending)
        else:
            self.rows = list(rows)
        keys = {row.key: i for i, row in enumerate(self.rows)}
        if self.marks:
            self.marks &= {row.key for row in self.everything()}
        place = keys.get(before.key) if before is not None else None
        self.cursor = place if place is not None else max(0, min(self.cursor * self.settled, len(self.rows) - 1))
        self._widths = None
        self.virtual_size = Size(0, len(self.rows) + self.header)
        self._reveal()
        self.redraw()
        self.post_message(self.Highlighted(self))

    def redraw(self) -> None:
        """Draws the lines that come out different from what they were, and no others: most stay as they are."""
        if not self.is_attached or not self.size:
            return
        changed = [y for y in range(self.size.height) if self._drawn.get(y) != self._line(y)]
        if changed:
            self.refresh(*(Region(0, y, self.size.width, 1) for y in changed))

    def targets(self) -> list[Any]:
        """What verbs act on: the marked rows, else the one under the cursor."""
        if self.marks:
            return [row for row in self.everything() if row.key in self.marks]
        return [self.current] if self.current is not None else []

    def everything(self) -> list[Any]:
        """All rows that may be marked; those that are shown come first."""
        return self.rows

    def remark(self) -> None:
        """Draws the marks anew."""
        self.refresh()
        self.post_message(self.Highlighted(self))

    def sort_by(self, key: str) -> None:
        """Sorts by a column; a second time turns the order round."""
        if not any(c.key == key and self.sort_of(c) for c in self.columns):
            return
        self.descending = not self.descending if key == self.sort_key else False
        self.sort_key = key
        self.show(self.rows)

    def sort_of(self, column: Column) -> Callable[[Any], Any] | None:
        """What rows are sorted by, by a column; None where that is not possible."""
        return column.sort

    # Movement

    def action_move(self, by: int) -> None:
        self.action_to(max(0, min(self.cursor + by, len(self.rows) - 1)))

    def action_page(self, by: int) -> None:
        self.action_move(by * max(1, self.size.height - self.header - 1))

    def action_to(self, index: int) -> None:
        if not self.rows:
            return
        index = len(self.rows) - 1 if index < 0 else index
        self.settled = True
        if index != self.cursor:
            before, top = self.cursor, round(self.scroll_offset.y)
            self.cursor = index
            self._reveal()
            if round(self.scroll_offset.y) == top:  # otherwise everything is drawn anew anyhow
                self.refresh(*(Region(0, i - top + self.header, self.size.width, 1) for i in (before, index)))
            self.post_message(self.Highlighted(self))

    def action_choose(self) -> None:
        if self.current is not None:
            self.post_message(self.Chosen(self, self.current))

    def action_mark(self) -> None:
        if self.current is not None:
            self.marks ^= {self.current.key}
            if self.cursor + 1 < len(self.rows):
                self.action_move(1)
            self.redraw()
            self.post_message(self.Highlighted(self))

    def action_mark_range(self) -> None:
        """From the nearest mark above to the cursor."""
        start = next((i for i in range(self.cursor, -1, -1) if self.rows[i].key in self.marks), self.cursor)
        self.marks |= {row.key for row in self.rows[start : self.cursor + 1]}
        self.remark()

    def action_mark_all(self) -> None:
        """Marks every row that is shown: all that the filter lets through. A second time it unmarks them."""
        if self.MARKABLE:
            shown = {row.key for row in self.rows}
            self.marks = self.marks - shown if shown <= self.marks else self.marks | shown
            self.remark()

    def action_unmark(self) -> None:
        self.marks.clear()
        self.remark()

    def _reveal(self) -> None:
        height = self.size.height - self.header
        if height <= 0:
            return
        top = round(self.scroll_offset.y)
        if self.cursor < top:
            self.scroll_to(y=self.cursor, animate=False, immediate=True)
        elif self.cursor >= top + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False, immediate=True)

    def on_resize(self) -> None:
        self._widths = None
        self._reveal()

    def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        if self.header and offset.y == 0:
            at = 2
            for column, width in self._columns():
                if at <= offset.x < at + width + 2:
                    self.sort_by(column.key)
                    return
                at += width + 2
            return
        row = offset.y - self.header + round(self.scroll_offset.y)
        if 0 <= row < len(self.rows):
            self.action_to(row)
            if event.chain == 2:
                self.action_choose()

    # Drawing

    def notify_style_update(self) -> None:
        self._tones.clear()
        super().notify_style_update()

    def on_focus(self) -> None:
        self.settled = True
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()

    def _tone(self, *names: str) -> Style:
        key = " ".join(names)
        style = self._tones.get(key)
        if style is None:
            style = self.rich_style
            if self.app.current_theme.ansi and "cursor" in names:  # not every colour can be read on the bar's
                names = (*names, "cursor")
            for name in names:
                partial = self.get_component_styles(f"table--{name}").partial_rich_style
                style += partial
            self._tones[key] = style
        return style

    def _columns(self) -> list[tuple[Column, int]]:
        width = self.size.width
        if self._widths is not None and self._widths[0] == width:
            return self._widths[1]
        room = width - 3  # the mark's gutter, and one cell at the right
        wanted = {c.key: self._natural(c) for c in self.columns}
        columns = list(self.columns)

        def need(column: Column) -> int:
            # What matters is shown whole before what matters less is shown at all.
            least = min(wanted[column.key], max(column.width, 1))
            if column.share and not column.priority:
                return min(wanted[column.key], max(least, _NAME))  # one very long name must not cost the rest
            return wanted[column.key] if column.priority <= 3 and not (column.share and column.priority) else least

        while len(columns) > 1 and sum(need(c) + 2 for c in columns) - 2 > room:
            last = max(columns, key=lambda c: c.priority)
            if last.priority == 0:
                break
            columns.remove(last)
        # Everybody has the least it asked for; what is left goes to content in the order of importance, then by shares.
        given = {c.key: min(wanted[c.key], max(c.width, 1)) for c in columns}
        spare = room - sum(given.values()) - 2 * (len(columns) - 1)
        for column in sorted(columns, key=lambda c: c.priority):
            more = max(0, min(wanted[column.key] - given[column.key], spare))
            given[column.key] += more
            spare -= more
        shares = sum(c.share for c in columns)
        if spare > 0 and shares:
            for column in columns:
                given[column.key] += spare * column.share // shares
        elif spare < 0:
            given[columns[0].key] = max(4, given[columns[0].key] + spare)
        result = [(c, given[c.key]) for c in columns]
        self._widths = (width, result)
        return result

    def _natural(self, column: Column) -> int:
        least = max(column.width, len(column.title) + (2 if column.sort else 0))
        if not column.most or column.most <= column.width:
            return least
        longest = max(
            (sum(cell_len(text) for text, _ in column.cells(row, column.most)) for row in self.rows[:2000]), default=0
        )
        return max(least, min(column.most, longest))

    def render_line(self, y: int) -> Strip:
        strip = self._drawn[y] = self._line(y)
        return strip

    def _line(self, y: int) -> Strip:
        width = self.size.width
        if self.header and y == 0:
            return self._header_line(width)
        index = y - self.header + round(self.scroll_offset.y)
        if not self.rows:
            return self._empty_line(y - self.header, width)
        if not 0 <= index < len(self.rows):
            return Strip.blank(width, self._tone())
        row = self.rows[index]
        marked = row.key in self.marks
        layers: tuple[str, ...] = ("marked",) if marked else ()
        if index == self.cursor:
            layers += ("cursor",) if self.has_focus else ("cursor-blurred",)
        base = self._tone(*layers)
        gutter = "▌" if index == self.cursor and self.has_focus else ("┃" if marked else " ")
        segments = [Segment(gutter, self._tone(*layers, "accent" if marked else "info")), Segment(" ", base)]
        columns = self._columns()
        for i, (column, room) in enumerate(columns):
            parts = [(pictures(text), tone) for text, tone in column.cells(row, room)]
            length = sum(cell_len(text) for text, _ in parts)
            pad = room - length
            if pad > 0 and column.right:
                segments.append(Segment(" " * pad, base))
            left = room
            for text, tone in parts:
                if left <= 0:
                    break
                size = cell_len(text)
                if size > left:
                    text = set_cell_size(text, left - 1) + "…"
                segments.append(Segment(text, self._tone(*layers, tone) if tone else base))
                left -= size
            if pad > 0 and not column.right:
                segments.append(Segment(" " * pad, base))
            if i + 1 < len(columns):
                segments.append(Segment("  ", base))
        return Strip(segments).adjust_cell_length(width, base)

    def _header_line(self, width: int) -> Strip:
        style = self._tone("header")
        segments = [Segment("  ", style)]
        for column, room in self._columns() if self.rows else []:
            title, tone = column.title, style
            if column.key == self.sort_key:
                title, tone = f"{title} {'↓' if self.descending else '↑'}", self._tone("header", "sorted")
            title = title[:room]
            segments.append(Segment(title.rjust(room) if column.right else title.ljust(room), tone))
            segments.append(Segment("  ", style))
        return Strip(segments).adjust_cell_length(width, style)

    def _empty_line(self, y: int, width: int) -> Strip:
        height = self.size.height - self.header
        start = max(0, (height - len(self.empty)) // 2 - (1 if height > 6 else 0))
        base = self._tone()
        if not 0 <= y - start < len(self.empty):
            return Strip.blank(width, base)
        parts = self.empty[y - start]
        length = sum(cell_len(text) for text, _ in parts)
        segments = [Segment(" " * max(0, (width - length) // 2), base)]
        segments += [Segment(text, self._tone(tone) if tone else base) for text, tone in parts]
        return Strip(segments).adjust_cell_length(width, base)

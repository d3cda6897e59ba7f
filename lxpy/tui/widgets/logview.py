"""A read-only text view for logs: draws the visible lines only, follows the end, searches, filters, wraps."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len, get_character_cell_size, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollTo
from textual.strip import Strip

# CSI, OSC, two-byte escapes, and control characters that would move the cursor.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_=>78()c].?|[\x00-\x08\x0b-\x1f\x7f]"
)
_STAMP = re.compile(r"\s*[\[(]?\d{4}-\d\d-\d\d[T ](\d\d:\d\d:\d\d)|[A-Z][a-z]{2} [ \d]\d (\d\d:\d\d:\d\d) ")
_NAME = 20  # cells of the name before a line; longer ones are cut
LONGEST = 65536  # characters; a longer line is shown as several
KEPT = 200_000  # lines; beyond them the oldest are let go while following
_COLOURS = ("info", "ok", "accent", "other", "warn", "bad")


def plain_lines(text: str) -> list[str]:
    """`text` as lines without control sequences; of a line rewritten by carriage returns the last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [_plain(line) for line in lines]


def _plain(line: str) -> str:
    return _CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).expandtabs(8)


class _Tag(NamedTuple):
    """Of a line: which log it is from, and when it came (``<`` before: it was there already)."""

    source: int
    stamp: str


class _Row(NamedTuple):
    """One row of the screen: the part of a line from character `start` to `stop`."""

    line: int
    start: int
    stop: int


class LogView(ScrollView, can_focus=True):
    """The lines of a log, or of several."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "log--match", "log--empty", "log--info", "log--ok", "log--accent", "log--other", "log--warn", "log--bad",
    }  # fmt: skip
    BINDINGS = [
        Binding("up,k", "scroll_by(-1)", "Up", show=False, id="log.up"),
        Binding("down,j", "scroll_by(1)", "Down", show=False, id="log.down"),
        Binding("pageup,ctrl+b,ctrl+u", "page(-1)", "Page up", show=False, id="log.page-up"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="log.page-down"),
        Binding("home,g", "top", "Top, older", show=False, id="log.top"),
        Binding("end,G", "bottom", "End, follow", show=False, id="log.end"),
        Binding("f", "follow", "Follow", id="log.follow"),
        Binding("w", "wrap", "Wrap", id="log.wrap"),
        Binding("t", "stamps", "Times", id="log.times"),
    ]

    class Older(Message):
        """The user is at the top and wants what lies before."""

    class Changed(Message):
        """Following, wrapping, times or the filter changed."""

    def __init__(self, empty: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lines: list[str] = []
        self.empty = empty
        # An explicit flag: asking the widget "am I at the end?" answers late, for scrolling is deferred.
        self.following = True
        self.wrapping = self.stamped = False
        self.pattern = self.filtered = ""
        self._names: Sequence[str] = ()
        self._tags: list[_Tag] = []
        self._rows: list[_Row] = []
        self._open: dict[int, tuple[int, str]] = {}  # by log: its unfinished line and that one's raw text
        self._widest = 0

    # What is shown

    def show(self, text: str) -> None:
        """Takes the whole text; keeps the place, or the end when following."""
        lines = plain_lines(text)
        if lines == self.lines:
            return
        self._names, self._open = (), {}
        self.lines, self._tags = lines, [_Tag(0, "")] * len(lines)
        self._lay_out()

    def clear(self, names: Sequence[str]) -> None:
        """Forgets everything. `names` of the logs that will come, when there are several."""
        self._names, self._open = tuple(names), {}
        self.lines, self._tags, self._rows = [], [], []
        self._lay_out()

    def append(self, text: str, source: int = 0, stamp: str = "") -> None:
        """Takes more of a log: the end of its unfinished line, then further ones."""
        if not text:
            return
        at, raw = self._open.pop(source, (-1, ""))
        pieces = _pieces(raw + text)
        first = len(self.lines)
        if raw:
            self.lines[at] = _plain(pieces[0])
        rest = pieces[1:] if raw else pieces
        if unfinished := pieces[-1]:
            self._open[source] = (first + len(rest) - 1 if rest else at, unfinished)
        else:
            rest = rest[:-1]
        self.lines += [_plain(line) for line in rest]
        self._tags += [_Tag(source, stamp)] * len(rest)
        if self.following and len(self.lines) > KEPT:
            self._let_go(len(self.lines) - KEPT)
        elif raw:
            self._lay_out(at if at == first - 1 else 0)
        else:
            self._lay_out(first)

    def _let_go(self, count: int) -> None:
        del self.lines[:count], self._tags[:count]
        self._open = {s: (at - count, raw) for s, (at, raw) in self._open.items() if at >= count}
        self._lay_out()

    def prepend(self, text: str, source: int = 0) -> None:
        """Takes an older part of a log, before what is there; the place stays where it is."""
        if not text:
            return
        raw = _pieces(text)
        if raw and not raw[-1]:
            raw.pop()
        lines = [_plain(line) for line in raw]
        before, self.following = len(self._rows), False
        offset = round(self.scroll_offset.y)
        self.lines[:0] = lines
        self._tags[:0] = [_Tag(source, "<")] * len(lines)
        self._open = {s: (at + len(lines), text) for s, (at, text) in self._open.items()}
        self._lay_out()
        self.scroll_to(y=offset + len(self._rows) - before, animate=False, immediate=True)

    def filter(self, pattern: str) -> None:
        """Only lines with `pattern`; case does not matter; ``""`` for all."""
        self.filtered = pattern.lower()
        self._lay_out()
        self.post_message(self.Changed())

    def text(self) -> str:
        """What is shown, with names where there are several logs, and times where they are on."""
        shown = dict.fromkeys(row.line for row in self._rows)
        return "".join(f"{self._before(i)}{self.lines[i]}\n" for i in shown)

    # Layout

    def _lay_out(self, since: int = 0) -> None:
        """Makes rows of the lines from `since` on."""
        if since == 0:
            self._rows, self._widest = [], 0
        else:
            while self._rows and self._rows[-1].line >= since:
                self._rows.pop()
        room = max(20, self.size.width - self._margin) if self.wrapping and self.size.width else 0
        for i in range(since, len(self.lines)):
            line = self.lines[i]
            if self.filtered and self.filtered not in line.lower():
                continue
            if room:
                self._rows += (_Row(i, start, stop) for start, stop in _folds(line, room))
            else:
                self._rows.append(_Row(i, 0, len(line)))
                self._widest = max(self._widest, len(line) if line.isascii() else cell_len(line))
        width = 0 if room else self._widest + self._margin
        self.virtual_size = Size(width, len(self._rows))
        if self.following:
            self.call_after_refresh(self.scroll_end, animate=False, immediate=True, x_axis=False)
        self.refresh()

    @property
    def _margin(self) -> int:
        """Cells before each line."""
        names = self._room_of_names + 3 if self._names else 0
        return names + (10 if self.stamped else 0)

    @property
    def _room_of_names(self) -> int:
        return min(_NAME, max((cell_len(name) for name in self._names), default=0))

    def _before(self, index: int) -> str:
        tag = self._tags[index]
        text = ""
        if self.stamped:
            own = _STAMP.match(self.lines[index])
            stamp = f" {own[1] or own[2]}" if own else tag.stamp
            text += f"{stamp:<9} "
        if self._names:
            name = self._names[tag.source]
            name = name if cell_len(name) <= _NAME else f"{set_cell_size(name, _NAME - 1)}…"
            text += f"{name:<{self._room_of_names}} │ "
        return text

    def on_resize(self, event: events.Resize) -> None:
        if self.wrapping:
            self._lay_out()

    # Keys and the mouse

    def action_scroll_by(self, by: int) -> None:
        self._moved(by)
        self.scroll_relative(y=by, animate=False, immediate=True)

    def action_page(self, pages: int) -> None:
        self.action_scroll_by(pages * max(1, self.size.height - 1))

    def _moved(self, by: int) -> None:
        if by < 0 and round(self.scroll_offset.y) == 0:
            self.post_message(self.Older())
        if self.following:
            self.following = False
            self.post_message(self.Changed())

    def _on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._moved(-1)
        super()._on_mouse_scroll_up(event)

    def _on_scroll_to(self, message: ScrollTo) -> None:
        self.following = message.y is not None and message.y >= self.max_scroll_y
        super()._on_scroll_to(message)
        self.post_message(self.Changed())

    def action_top(self) -> None:
        self._moved(-1)
        self.scroll_home(animate=False, immediate=True)

    def action_bottom(self) -> None:
        self.following = True
        self.scroll_end(animate=False, immediate=True, x_axis=False)
        self.post_message(self.Changed())

    def action_follow(self) -> None:
        if self.following:
            self.following = False
            self.post_message(self.Changed())
        else:
            self.action_bottom()

    def action_wrap(self) -> None:
        self.wrapping = not self.wrapping
        top = self._rows[round(self.scroll_offset.y)].line if self._rows and not self.following else 0
        self._lay_out()
        self.scroll_to(x=0, animate=False, immediate=True)
        if not self.following:
            self._go_to(top)
        self.post_message(self.Changed())

    def action_stamps(self) -> None:
        self.stamped = not self.stamped
        self._lay_out()
        self.post_message(self.Changed())

    def _go_to(self, line: int) -> None:
        row = next((n for n, row in enumerate(self._rows) if row.line >= line), 0)
        self.scroll_to(y=row, animate=False, immediate=True)

    def find(self, pattern: str, step: int = 1) -> bool:
        """Scrolls to the next (or previous) row with `pattern`; case does not matter. False where none has it."""
        self.pattern = pattern.lower()
        self.refresh()
        hits: list[int] = []
        for n, row in enumerate(self._rows if pattern else ()):
            line = self.lines[row.line].lower()
            at = line.find(self.pattern, row.start)
            if 0 <= at < row.stop:
                hits.append(n)
        if not hits:
            return False
        at = round(self.scroll_offset.y)
        if step > 0:
            target = next((i for i in hits if i > at), hits[0])
        else:
            target = next((i for i in reversed(hits) if i < at), hits[-1])
        self.following = False
        self.scroll_to(y=target, animate=False, immediate=True)
        self.post_message(self.Changed())
        return True

    # Drawing

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        style = self.rich_style
        if not self._rows:
            text = ("No line has the text of the filter" if self.lines else self.empty) if y == 1 else ""
            dim = self.get_component_rich_style("log--empty")
            return Strip([Segment(f"  {text}", dim)]).adjust_cell_length(width, style)
        number = y + round(self.scroll_offset.y)
        if number >= len(self._rows):
            return Strip.blank(width, style)
        row = self._rows[number]
        margin = self._draw_margin(row, style)
        room = max(1, width - self._margin)
        left = 0 if self.wrapping else round(self.scroll_offset.x)
        line = self.lines[row.line]
        # Only what is seen is looked at: a line may have tens of thousands of characters.
        if line.isascii():
            part, crop = line[row.start + left : min(row.stop, row.start + left + room)], 0
        else:
            part, crop = line[row.start : row.stop], left
        body = Strip(self._mark(part, style)).crop_extend(crop, crop + room, style)
        return Strip.join([Strip(margin), body]) if margin else body

    def _draw_margin(self, row: _Row, style: Style) -> list[Segment]:
        if not self._margin:
            return []
        if row.start:
            return [Segment(" " * self._margin, style)]
        text, dim = self._before(row.line), style + self._colour("empty")
        at = 10 if self.stamped else 0
        colour = self._colour(_COLOURS[self._tags[row.line].source % len(_COLOURS)])
        segments = [Segment(text[:at], dim)] if at else []
        if self._names:
            segments += [Segment(text[at:-2], style + colour), Segment(text[-2:], dim)]
        return segments

    def _colour(self, name: str) -> Style:
        return self.get_component_styles(f"log--{name}").partial_rich_style

    def _mark(self, part: str, style: Style) -> list[Segment]:
        """`part` with what is searched for, or filtered by, set off."""
        wanted = self.pattern or self.filtered
        if not wanted:
            return [Segment(part, style)]
        match = style + self._colour("match")
        segments: list[Segment] = []
        low, at = part.lower(), 0
        while (hit := low.find(wanted, at)) >= 0:
            segments += [Segment(part[at:hit], style), Segment(part[hit : hit + len(wanted)], match)]
            at = hit + len(wanted)
        return [*segments, Segment(part[at:], style)]


def _pieces(text: str) -> list[str]:
    """Lines, none longer than `LONGEST`; the last one is what follows the last line feed."""
    pieces: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        pieces += [line[i : i + LONGEST] for i in range(0, len(line), LONGEST)] or [""]
    return pieces


def _folds(line: str, room: int) -> list[tuple[int, int]]:
    """Where `line` is folded so that no part has more than `room` cells."""
    if line.isascii():
        return [(at, min(at + room, len(line))) for at in range(0, len(line), room)] or [(0, 0)]
    folds, start, used = [], 0, 0
    for at, character in enumerate(line):
        size = get_character_cell_size(character)
        if used + size > room:
            folds.append((start, at))
            start, used = at, 0
        used += size
    return [*folds, (start, len(line))]

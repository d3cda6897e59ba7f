"""A read-only text view for logs: draws the visible lines only, follows the end, searches."""

import re
from typing import Any, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual.binding import Binding
from textual.geometry import Size
from textual.scroll_view import ScrollView
from textual.strip import Strip

# CSI, OSC, two-byte escapes, and control characters that would move the cursor.
_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b[@-Z\\-_=>78()c].?|[\x00-\x08\x0b-\x1f\x7f]"
)


def plain_lines(text: str) -> list[str]:
    """`text` as lines without control sequences; of a line rewritten by carriage returns the last state."""
    lines = text.replace("\r\n", "\n").split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return [_CONTROL.sub("", line.rstrip("\r").rpartition("\r")[2]).expandtabs(8) for line in lines]


class LogView(ScrollView, can_focus=True):
    """The lines of a log."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {"log--match", "log--empty"}
    BINDINGS = [
        Binding("up,k", "scroll_by(-1)", "Up", show=False, id="log.up"),
        Binding("down,j", "scroll_by(1)", "Down", show=False, id="log.down"),
        Binding("home,g", "top", "Top", show=False, id="log.top"),
        Binding("end,G", "bottom", "End, follow", show=False, id="log.end"),
        Binding("f", "follow", "Follow", id="log.follow"),
    ]

    def __init__(self, empty: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lines: list[str] = []
        self.empty = empty
        # An explicit flag: asking the widget "am I at the end?" answers late, for scrolling is deferred.
        self.following = True
        self.pattern = ""

    def show(self, text: str) -> None:
        """Takes the whole text; keeps the place, or the end when following."""
        lines = plain_lines(text)
        if lines == self.lines:
            return
        self.lines = lines
        self.virtual_size = Size(max((cell_len(line) for line in lines), default=0), len(lines))
        if self.following:
            self.call_after_refresh(self.scroll_end, animate=False, immediate=True)
        self.refresh()

    def action_scroll_by(self, by: int) -> None:
        self.following = False
        self.scroll_relative(y=by, animate=False, immediate=True)

    def action_top(self) -> None:
        self.following = False
        self.scroll_home(animate=False, immediate=True)

    def action_bottom(self) -> None:
        self.following = True
        self.scroll_end(animate=False, immediate=True)

    def action_follow(self) -> None:
        self.following = not self.following
        if self.following:
            self.scroll_end(animate=False, immediate=True)

    def find(self, pattern: str, step: int = 1) -> bool:
        """Scrolls to the next (or previous) line with `pattern`; case does not matter. False where none has it."""
        self.pattern = pattern.lower()
        self.refresh()
        hits = [i for i, line in enumerate(self.lines) if self.pattern in line.lower()] if pattern else []
        if not hits:
            return False
        at = round(self.scroll_offset.y)
        if step > 0:
            target = next((i for i in hits if i > at), hits[0])
        else:
            target = next((i for i in reversed(hits) if i < at), hits[-1])
        self.following = False
        self.scroll_to(y=target, animate=False, immediate=True)
        return True

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        style = self.rich_style
        if not self.lines:
            text = self.empty if y == 1 else ""
            dim = self.get_component_rich_style("log--empty")
            return Strip([Segment(f"  {text}", dim)]).adjust_cell_length(width, style)
        index = y + round(self.scroll_offset.y)
        if index >= len(self.lines):
            return Strip.blank(width, style)
        line, left = self.lines[index], round(self.scroll_offset.x)
        segments: list[Segment] = []
        if self.pattern:
            match = style + self.get_component_styles("log--match").partial_rich_style
            low, at = line.lower(), 0
            while (hit := low.find(self.pattern, at)) >= 0:
                segments += [Segment(line[at:hit], style), Segment(line[hit : hit + len(self.pattern)], match)]
                at = hit + len(self.pattern)
            segments.append(Segment(line[at:], style))
        else:
            segments = [Segment(line, style)]
        return Strip(segments).crop_extend(left, left + width, style)

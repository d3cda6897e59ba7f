"""Words in a border, some of which can be clicked."""

from typing import TYPE_CHECKING, Self

from textual.geometry import Region

if TYPE_CHECKING:
    from textual.widget import Widget
else:
    Widget = object  # styles come from the first base that is a widget

BY_MOUSE = ("tab_at", "pane_at", "source_at", "back_at", "zoom_at")
"""Actions of the main screen that no key has: they are done even while all keys belong to a shell."""


def by_mouse(action: str, markup: str) -> str:
    """`markup` that does `action`, one of `BY_MOUSE`, when it is clicked."""
    return f"[@click=screen.{action}]{markup}[/]"


def window(widths: list[int], at: int, room: int) -> tuple[int, int]:
    """Which of a row of words, `widths` cells wide, fit into `room` cells: from the first to before the second number.

    Those around number `at`; two cells are kept for each mark that there are more.
    """
    first, last = 0, len(widths)
    while sum(widths[first:last]) + (2 if first else 0) + (2 if last < len(widths) else 0) > room:
        if last - 1 > at:
            last -= 1
        elif first < at:
            first += 1
        else:
            break
    return first, last


class Titled(Widget):
    """A widget with words in its border that change often: of which only the border is then drawn anew."""

    _titles = ("", "")
    _edges: tuple[int, ...] = ()  # 0 the upper, -1 the lower; while their words are being changed

    def entitle(self, title: str | None, subtitle: str | None = None) -> None:
        """Sets the markup of the upper and the lower border, unless None."""
        before = self._titles
        self._titles = (before[0] if title is None else title, before[1] if subtitle is None else subtitle)
        try:
            if self._titles[0] != before[0]:
                self._edges = (0,)
                self.border_title = self._titles[0]
            if self._titles[1] != before[1]:
                self._edges = (-1,)
                self.border_subtitle = self._titles[1]
        finally:
            self._edges = ()

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        if self._edges and not regions and self.is_attached and self.outer_size.height > 1:
            width, height = self.outer_size
            x, y = self.content_offset
            regions = tuple(Region(-x, edge % height - y, width, 1) for edge in self._edges)
        return super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)

"""A terminal inside the app: draws a `Terminal`, and takes keys, mouse and pastes for it.

Typing, every key but ctrl+] belongs to the program inside. After ctrl+] the view can be scrolled, searched and
copied from like a log, and enter goes back to typing.
"""

import time
from typing import Any, ClassVar

from rich.color import Color
from rich.segment import Segment
from rich.style import Style as RichStyle
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from lxpy.tui.shells import Shell
from lxpy.tui.terminal import Terminal, history, keys, style
from lxpy.tui.terminal.history import Place
from lxpy.tui.terminal.style import PLAIN, RGB, Style

FRAME = 1 / 30  # seconds between two drawings of a flood
HOLD = 0.2  # how long a program may keep the screen from being drawn (synchronised output)

# The sixteen colours of programs, in the manner of our themes, not the theme's own: `ls` should look as usual.
PALETTES = {
    True: (
        "15171e f0707e 8cc570 e0af68 7aa2f7 c08cf0 6fc7d8 c8d0e0 "
        "5a637a ff8b98 a8dd8c f5c987 9bbcff d6adff 92e0ee ffffff"
    ),
    False: (
        "262b38 c62f3d 2f7d32 a86400 2f5fd0 8a3fb0 0b7285 8a93a6 "
        "5a637a d9505c 3f9a43 c27a10 4f7be6 a45fc8 158a9e 14161d"
    ),
}


class TerminalView(Widget, can_focus=True):
    """Shows one `Shell`.

    Attributes:
        typing: whether keys go to the program.
    """

    ALLOW_SELECT = False
    BINDINGS: ClassVar[list[Any]] = [
        Binding("ctrl+right_square_bracket", "leave", "Leave the shell", key_display="^]", priority=True,
                id="shell.leave"),
        Binding("enter,i", "type", "Type", id="shell.type"),
        Binding("s", "another", "Another shell", id="shell.another"),
        Binding("slash", "search", "Search", key_display="/", id="shell.search"),
        Binding("n", "find(-1)", "Next match", show=False, id="shell.next"),
        Binding("N", "find(1)", "Previous match", show=False, id="shell.previous"),
        Binding("up,k", "scroll(-1)", "Up", show=False, id="shell.up"),
        Binding("down,j", "scroll(1)", "Down", show=False, id="shell.down"),
        Binding("pageup,ctrl+u", "page(-1)", "Page up", show=False, id="shell.page-up"),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False, id="shell.page-down"),
        Binding("home,g", "oldest", "Oldest", show=False, id="shell.oldest"),
        Binding("end,G", "newest", "Newest", show=False, id="shell.newest"),
        Binding("w", "shut", "Close", id="shell.close"),
        Binding("escape", "screen.close_detail", "Back", show=False, id="shell.back"),
    ]  # fmt: skip

    class Typing(Message):
        """The keyboard went to the program inside, or came back."""

    class Another(Message):
        """A further shell in the same instance is wanted."""

    class Shut(Message):
        """The user closes this shell."""

        def __init__(self, view: "TerminalView") -> None:
            super().__init__()
            self.view = view

    def __init__(self, shell: Shell, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.shell = shell
        self.typing = True
        self.note = ""  # drawn over the last row: how it ended
        self._first: int | None = None  # the number of the first row shown; None: the screen itself
        self._selected: tuple[Place, Place] | None = None
        self._dragging = False
        self._wanted = ""
        self._drawn = 0.0
        self._pending = False
        self._cursor_row = -1
        self._styles: dict[Style, RichStyle] = {}

    @property
    def terminal(self) -> Terminal:
        return self.shell.terminal

    # What there is to draw

    def changed(self) -> None:
        """The terminal has something new: drawn at once, or with the next frame."""
        if self._pending:
            return
        wait = self._drawn + FRAME - time.monotonic()
        if 2026 in self.terminal.modes:
            wait = HOLD
        if wait <= 0:
            self._draw()
        else:
            self._pending = True
            self.set_timer(wait, self._draw)

    def _draw(self) -> None:
        self._pending = False
        self._drawn = time.monotonic()
        terminal = self.terminal
        if self._first is not None or terminal.all_dirty:
            self.refresh()
        else:
            rows = {*terminal.dirty, self._cursor_row, terminal.cursor[1]}
            self.refresh(*(Region(0, y, self.size.width, 1) for y in rows if 0 <= y < self.size.height))
        self._cursor_row = terminal.cursor[1]
        terminal.all_dirty = False
        terminal.dirty.clear()
        for text in terminal.take_clipboard():
            self.app.copy_to_clipboard(text)
            self.app.notify("by the program inside", title="Copied", timeout=2)
        if terminal.bells:
            terminal.bells = 0
            self.app.bell()

    def get_content_width(self, container: Size, viewport: Size) -> int:
        return container.width

    def on_resize(self, event: events.Resize) -> None:
        size = self.size
        if size.width > 1 and size.height and (size.width, size.height) != (self.terminal.columns, self.terminal.rows):
            self._selected = None
            self._first = None
            self.shell.resize(size.width, size.height)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        terminal, width = self.terminal, self.size.width
        base = self.rich_style
        number = y + (terminal.scrolled if self._first is None else self._first)
        line = history.row(terminal, number)
        segments = [Segment(text, self._rich(style_, base)) for text, style_ in line.segments()]
        length = len(line)
        if length < width:
            segments.append(Segment(" " * (width - length), base))
        strip = Strip(segments, max(length, width))
        if length > width:
            strip = strip.crop(0, width)
        if self._selected:
            strip = self._show_selection(strip, number, width)
        if self._first is None and y == terminal.cursor[1] and terminal.cursor_visible and self.shell.alive:
            strip = self._show_cursor(strip, terminal.cursor[0], line, width)
        if self.note and y == self.size.height - 1:
            return Strip([Segment(f" {self.note} "[:width].ljust(width), base + RichStyle(reverse=True))])
        if self._first is not None and y == 0:
            behind = terminal.scrolled - self._first
            tag = f" {behind} rows back "
            at = max(0, width - len(tag))
            return Strip.join([strip.crop(0, at), Strip([Segment(tag, base + RichStyle(reverse=True))])]).crop(0, width)
        return strip

    def _show_cursor(self, strip: Strip, x: int, line: Any, width: int) -> Strip:
        wide = x + 1 < len(line) and line.cell(x + 1)[0] == ""
        end = min(x + (2 if wide else 1), width)
        before, under, after = strip.crop(0, x), strip.crop(x, end), strip.crop(end, width)
        if self.has_focus and self.typing:
            look = RichStyle(underline=True) if self.terminal.cursor_shape in (3, 4) else RichStyle(reverse=True)
        else:
            look = RichStyle(underline=True)
        return Strip.join([before, under.apply_style(look), after])

    def _show_selection(self, strip: Strip, number: int, width: int) -> Strip:
        assert self._selected
        start, end = sorted(self._selected)
        if not start.row <= number <= end.row:
            return strip
        left = start.x if number == start.row else 0
        right = min(end.x, width) if number == end.row else width
        if right <= left:
            return strip
        parts = [strip.crop(0, left), strip.crop(left, right), strip.crop(right, width)]
        parts[1] = Strip([Segment(s.text, RichStyle(reverse=True)) for s in parts[1]], parts[1].cell_length)
        return Strip.join(parts)

    def _rich(self, look: Style, base: RichStyle) -> RichStyle:
        if look is PLAIN and 5 not in self.terminal.modes:
            return base
        found = self._styles.get(look)
        if found is None or 5 in self.terminal.modes:
            flags = look.flags
            foreground, background = self._colour(look.fg), self._colour(look.bg)
            if flags & style.HIDDEN:
                foreground = background or base.bgcolor
            found = base + RichStyle(
                color=foreground, bgcolor=background, link=look.link or None,
                bold=bool(flags & style.BOLD), dim=bool(flags & style.DIM), italic=bool(flags & style.ITALIC),
                underline=bool(flags & style.UNDERLINE), underline2=bool(flags & style.DOUBLE),
                strike=bool(flags & style.STRIKE), overline=bool(flags & style.OVERLINE),
                reverse=bool(flags & style.REVERSE) != (5 in self.terminal.modes),
            )  # fmt: skip
            if len(self._styles) > 4096:
                self._styles.clear()
            self._styles[look] = found
        return found

    def _colour(self, colour: int) -> Color | None:
        if colour < 0:
            return None
        if colour < 16 and self.app.current_theme.ansi:
            return Color.from_ansi(colour)
        if colour < 16:
            value = int(PALETTES[self.app.current_theme.dark].split()[colour], 16)
        else:
            value = colour & 0xFFFFFF if colour >= RGB else style.palette(colour)
        return Color.from_rgb(value >> 16, value >> 8 & 0xFF, value & 0xFF)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._styles.clear()  # another theme

    # The keyboard

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Typing, only the way out is a key of ours."""
        return action == "leave" if self.typing else action != "leave"

    async def on_key(self, event: events.Key) -> None:
        if not self.typing:
            return
        event.stop()
        event.prevent_default()
        if not self.shell.alive and not self.shell.opening:
            if event.key in ("enter", "escape", "q", "ctrl+d"):
                self.post_message(self.Shut(self))
            return
        self._first = None
        self._selected = None
        self.shell.write(keys.key(event.key, event.character, self.terminal.modes))

    def on_paste(self, event: events.Paste) -> None:
        if self.typing:
            event.stop()
            event.prevent_default()
            self._first = None
            self.shell.write(keys.paste(event.text, self.terminal.modes))

    def on_focus(self) -> None:
        self.shell.write(keys.focus(True, self.terminal.modes))
        self.refresh()

    def on_blur(self) -> None:
        self.shell.write(keys.focus(False, self.terminal.modes))
        self.refresh()

    def action_leave(self) -> None:
        self._type(False)

    def action_type(self) -> None:
        if not self.shell.alive and not self.shell.opening:
            self.action_shut()  # nobody is there to type to
            return
        self._first = None
        self._type(True)

    def _type(self, typing: bool) -> None:
        self.typing = typing
        self.refresh_bindings()
        self.refresh()
        self.post_message(self.Typing())

    def action_another(self) -> None:
        self.post_message(self.Another())

    def action_shut(self) -> None:
        self.post_message(self.Shut(self))

    # Looking back

    def _look(self, first: int) -> None:
        """Shows the screen from the row of that number on; the screen itself at the end."""
        terminal = self.terminal
        first = max(first, history.first_row(terminal))
        self._first = None if first >= terminal.scrolled else first
        self.refresh()

    def _top(self) -> int:
        return self.terminal.scrolled if self._first is None else self._first

    def action_scroll(self, by: int) -> None:
        self._look(self._top() + by)

    def action_page(self, by: int) -> None:
        self._look(self._top() + by * max(1, self.size.height - 1))

    def action_oldest(self) -> None:
        self._look(0)

    def action_newest(self) -> None:
        self._look(self.terminal.scrolled)

    def action_search(self) -> None:
        from lxpy.tui.screens.ask import Ask

        self.app.push_screen(Ask("Search", "text in the shell's output", self._wanted), self._search)

    def _search(self, text: str | None) -> None:
        if text:
            self._wanted = text
            self._selected = None
            self.action_find(-1)

    def action_find(self, step: int) -> None:
        if not self._wanted:
            return
        end = history.end_row(self.terminal)
        start = min(self._selected) if self._selected else Place(end, 0)
        match = history.search(self.terminal, self._wanted, start, backwards=step < 0)
        if match is None:
            self.app.notify(f"{self._wanted!r} is nowhere in it", title="Not found", timeout=3, markup=False)
            return
        self._selected = match
        if not self._top() <= match[0].row < self._top() + self.size.height:
            self._look(match[0].row - self.size.height // 2)
        self.refresh()

    # The mouse

    def _mouse(self, event: events.MouseEvent, button: int, *, pressed: bool, moved: bool = False) -> bool:
        """Reports to a program that wants to know; False when it is ours. Shift makes it ours, as everywhere."""
        if not self.terminal.mouse or not self.shell.alive or event.shift or self._first is not None:
            return False
        held = (8 if event.meta else 0) + (16 if event.ctrl else 0)
        data = keys.mouse(
            button, event.x, event.y, self.terminal.modes, pressed=pressed, moved=moved, held=held
        )  # fmt: skip
        self.shell.write(data)
        event.stop()
        return True

    def _place(self, event: events.MouseEvent) -> Place:
        y = min(max(event.y, 0), self.size.height - 1)
        return Place(self._top() + y, min(max(event.x, 0), self.size.width))

    def on_mouse_down(self, event: events.MouseDown) -> None:
        if not self.typing:
            self._type(True)
        if self._mouse(event, event.button - 1, pressed=True):
            return
        if event.button == 1:
            self._dragging = True
            self.capture_mouse()
            place = self._place(event)
            self._selected = (place, place)
            self.refresh()

    def on_mouse_move(self, event: events.MouseMove) -> None:
        if self._dragging and self._selected:
            self._selected = (self._selected[0], self._place(event))
            if event.y < 0:
                self.action_scroll(-1)
            elif event.y >= self.size.height:
                self.action_scroll(1)
            self.refresh()
        else:
            self._mouse(event, event.button - 1 if event.button else keys.RELEASE, pressed=False, moved=True)

    def on_mouse_up(self, event: events.MouseUp) -> None:
        if not self._dragging:
            self._mouse(event, event.button - 1, pressed=False)
            return
        self._dragging = False
        self.release_mouse()
        if self._selected and self._selected[0] != self._selected[1]:
            self._copy()
        else:
            self._selected = None
        self.refresh()

    def on_click(self, event: events.Click) -> None:
        if event.chain < 2 or (self.terminal.mouse and not event.shift):
            return
        place = self._place(event)
        if event.chain == 2:
            self._selected = history.word_at(self.terminal, place)
        else:
            self._selected = (Place(place.row, 0), Place(place.row, self.size.width))
        self._copy()
        self.refresh()

    def _copy(self) -> None:
        assert self._selected
        text = history.text_between(self.terminal, *self._selected)
        if text:
            self.app.copy_to_clipboard(text)
            lines = text.count("\n") + 1
            shown = text if lines == 1 else f"{lines} lines"
            self.app.notify(shown[:60], title="Copied", timeout=2, markup=False)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        self._wheel(event, -1)

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        self._wheel(event, 1)

    def _wheel(self, event: events.MouseEvent, by: int) -> None:
        event.stop()
        if self._mouse(event, keys.WHEEL + (by > 0), pressed=True):
            return
        if self.terminal.in_alternate:
            # less, man: no scrollback of ours, so their own is moved, as xterm does.
            self.shell.write(keys.key("down" if by > 0 else "up", None, self.terminal.modes) * 3)
        else:
            self._look(self._top() + 3 * by)

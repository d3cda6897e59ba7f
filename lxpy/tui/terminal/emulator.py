"""Bytes from a program, as a terminal understands them: text, control characters, escape sequences, modes, answers.

Sequences and their numbers: ECMA-48, DEC's VT510 manual and xterm's "Control Sequences"; what is not known is passed
over. Nothing that comes in raises, and how the bytes are cut into chunks makes no difference.
"""

import base64
import binascii
import codecs
import re
from collections.abc import Callable

from lxpy.tui.terminal import style as styles
from lxpy.tui.terminal.line import Line
from lxpy.tui.terminal.screen import Screen
from lxpy.tui.terminal.style import PLAIN, Style, known, number, sgr

# What comes whole. Anything else that begins with ESC is cut off at the end of a chunk, or odd: see `_odd`.
_TOKEN = re.compile(
    "([^\x00-\x1f\x7f-\x9f]+)"  # 1 text
    "|(\r\n)"  # 2
    "|\x1b\\[([0-?]*)([ -/]*)([@-~])"  # 3 parameters, 4 intermediates, 5 final: CSI
    "|([\x00-\x1a\x1c-\x1f\x7f-\x9f])"  # 6 control character
    "|\x1b\\]([^\x07\x1b\x18\x1a]*)(?:\x07|\x1b\\\\)"  # 7 OSC
    "|\x1b([PX^_k])([^\x1b\x18\x1a]*)\x1b\\\\"  # 8 kind, 9 text: DCS and other strings
    "|\x1b([ -/]*)([0-OQ-WYZ`-jl-~\\\\])"  # 10 intermediates, 11 final: ESC
)
_TEXT, _CRLF, _CSI, _CONTROL, _OSC, _STRING, _ESC = 1, 2, 5, 6, 7, 9, 11
_PARAMETERS = re.compile("[0-?]*[ -/]*")
_INTERMEDIATES = re.compile("[ -/]*")
_STRING_END = re.compile("[\x07\x1b\x18\x1a]")
_STRING_END_NO_BEL = re.compile("[\x1b\x18\x1a]")
_CSI_END = re.compile("[^0-?]")
# Whole rows of text at the bottom of the screen: they scroll away without becoming cells.
_ROWS = re.compile("(?:[\x20-\x7e]*\r\n){2,}")

LONGEST = 1 << 20  # characters of one sequence; a longer one is passed over
_MOST_PARAMETERS = 32
_DEC_GRAPHICS = dict(zip(range(0x60, 0x7F), "◆▒␉␌␍␊°±␤␋┘┐┌└┼⎺⎻─⎼⎽├┤┴┬│≤≥π≠£·", strict=True)) | {0x5F: "\xa0"}

# DECRQM and DECSET: modes that are kept and answered for, all off at first but those in _ON.
_MODES = frozenset({1, 5, 6, 7, 9, 12, 25, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026})
_ON = frozenset({7, 25})
MOUSE_MODES = (9, 1000, 1002, 1003)


class Terminal(Screen):
    """A screen that is fed with what a program writes.

    Args:
        columns, rows, scrollback: see `Screen`.
        colours: what OSC 10, 11 are answered with: foreground and background as 0xRRGGBB.

    Attributes:
        modes: the private modes that are set (``1``: application cursor keys, ``2004``: bracketed paste …).
        keypad: whether the keypad sends application codes.
        title: as the program set it by OSC 0 or 2.
        cwd: the address it told by OSC 7.
        cursor_shape: DECSCUSR: 0 or 1 a blinking block, 2 block, 3, 4 underline, 5, 6 bar.
        bells: how often it rang.
    """

    def __init__(
        self,
        columns: int = 80,
        rows: int = 24,
        scrollback: int = 10_000,
        colours: tuple[int, int] = (0xD0D0D0, 0x101010),
    ) -> None:
        super().__init__(columns, rows, scrollback)
        self.colours = colours
        self.modes: set[int] = set(_ON)
        self.keypad = False
        self.title = self.cwd = ""
        self.cursor_shape = 0
        self.bells = 0
        self._replies: list[str] = []
        self._clips: list[str] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._skipping = ""  # "string" or "csi": what is too long, until it ends
        self._titles: list[str] = []
        self._styles: dict[tuple[Style, str], Style] = {}

    # In and out

    def feed(self, data: bytes) -> None:
        """What the program wrote. Never raises."""
        text = self._rest + self._decoder.decode(data)
        self._rest = ""
        if self._skipping:
            text = self._skip(text)
        position = 0
        while position < len(text):
            position = self._run(text, position)
            if position < len(text):
                text, position = self._odd(text, position)
                if position < 0:
                    break

    def take_replies(self) -> bytes:
        """What the terminal answers the program; taken once."""
        data = "".join(self._replies).encode()
        self._replies.clear()
        return data

    def take_clipboard(self) -> list[str]:
        """Texts the program put on the clipboard (OSC 52); taken once."""
        clips, self._clips = self._clips, []
        return clips

    @property
    def mouse(self) -> int:
        """Which mouse reports are wanted: 0, or 9, 1000 (buttons), 1002 (drags), 1003 (all motion)."""
        return max((mode for mode in MOUSE_MODES if mode in self.modes), default=0)

    # Reading

    def _run(self, text: str, position: int) -> int:
        """Does all that comes whole; gives where something does not, or the end."""
        scan = _TOKEN.scanner(text, position).match  # type: ignore[attr-defined]
        end = position
        cells = self._styles
        while (match := scan()) is not None:
            end = match.end()
            kind = match.lastindex
            if kind == _TEXT:
                piece = match[1]
                if self.charsets[self.shifted] == "0":
                    piece = piece.translate(_DEC_GRAPHICS)
                self.print(piece)
            elif kind == _CRLF:
                self.x = 0
                self.line_feed()
                if self.y == self.rows - 1 and (block := self._rows_at(text, end)) > end:
                    self._scroll_text(text[end:block])
                    end = block
                    scan = _TOKEN.scanner(text, end).match  # type: ignore[attr-defined]
            elif kind == _CSI:
                if match[5] == "m" and not match[4]:
                    parameters = match[3]
                    key = (self.style, parameters)
                    if (found := cells.get(key)) is None:
                        found = self._sgr(key)
                    self.style = found
                else:
                    self._csi(match[3], match[4], match[5])
            elif kind == _CONTROL:
                self._control(match[6])
            elif kind == _OSC:
                self._osc(match[7])
            elif kind == _STRING:
                self._string(match[8], match[9])
            else:
                self._esc(match[10], match[11])
        return end

    def _rows_at(self, text: str, position: int) -> int:
        """The end of rows of plain text that only scroll by, or `position`."""
        if (
            self.style is not PLAIN or self.insert_mode or self.in_alternate or not self.autowrap
            or self.top or self.bottom != self.rows - 1 or self.charsets[self.shifted] == "0"
            or len(self.lines[-1])
        ):  # fmt: skip
            return position
        match = _ROWS.match(text, position)
        return match.end() if match else position

    def _scroll_text(self, block: str) -> None:
        """Rows of text written from the first column of the last row, which is blank, each ended by CR LF."""
        rows = block.split("\r\n")
        rows.pop()
        size = self.columns
        if max(map(len, rows)) > size:
            for row in rows:
                if len(row) <= size:
                    self._scroll_rows([row])
                else:
                    self.print(row)
                    self.x = 0
                    self.line_feed()
        else:
            self._scroll_rows(rows)
        last = next((row for row in reversed(rows) if row), "")
        if last:
            self._last = last[-1]

    def _scroll_rows(self, rows: list[str]) -> None:
        # The last row of the screen is blank now; after each row of text it is again.
        height = self.rows - 1
        stay = rows[-height:] if height else []
        leaving = self.lines[: len(stay)]
        for line in leaving:
            self._keep(line)
        by = rows[: len(rows) - len(stay)]
        self.history.extend(by)
        self.scrolled += len(by)
        self.lines[:] = [*self.lines[len(stay) : height], *map(Line, stay), Line()]
        self.all_dirty = True

    def _odd(self, text: str, position: int) -> tuple[str, int]:
        """At an ESC that begins nothing whole: a cut, a broken or an over-long sequence.

        Returns:
            The text and where to go on in it; -1 to wait for more.
        """
        rest = len(text) - position
        if rest == 1:
            return self._wait(text, position)
        kind = text[position + 1]
        if kind in "]PX^_k":
            return self._odd_string(text, position, kind)
        pattern, begin = (_PARAMETERS, position + 2) if kind == "[" else (_INTERMEDIATES, position + 1)
        match = pattern.match(text, begin)
        end = match.end() if match else begin
        if end == len(text):
            if rest > LONGEST:
                self._skipping = "csi"
                return "", -1
            return self._wait(text, position)
        found = text[end]
        if found == "\x1b":
            return text, end
        if found in "\x18\x1a":
            return text, end + 1
        if found < " " or "\x7f" <= found <= "\x9f":
            # A control character inside a sequence acts at once, and the sequence goes on.
            self._control(found)
            return text[position:end] + text[end + 1 :], 0
        if kind == "[" and "0" <= found <= "?":
            # A parameter after an intermediate: not valid; nothing up to its end counts.
            stop = _CSI_END.search(text, end)
            if stop is None:
                return self._wait(text, position)
            last = stop.end() if "@" <= stop[0] <= "~" else stop.start()
            return text, last
        return text, end

    def _odd_string(self, text: str, position: int, kind: str) -> tuple[str, int]:
        pattern = _STRING_END if kind == "]" else _STRING_END_NO_BEL
        match = pattern.search(text, position + 2)
        if match is None:
            if len(text) - position > LONGEST:
                self._skipping = kind
                return "", -1
            return self._wait(text, position)
        if match[0] == "\x1b":
            if match.end() == len(text):
                if len(text) - position > LONGEST:
                    self._skipping = kind
                    self._rest = "\x1b"
                    return "", -1
                return self._wait(text, position)
            return text, match.start()  # given up: another sequence begins
        return text, match.end()

    def _wait(self, text: str, position: int) -> tuple[str, int]:
        self._rest = text[position:]
        return text, -1

    def _skip(self, text: str) -> str:
        """Passes over the rest of a sequence that is too long."""
        if self._skipping == "csi":
            match = _CSI_END.search(text)
            if match is None:
                return ""
            self._skipping = ""
            return text[match.end() if "@" <= match[0] <= "~" else match.start() :]
        pattern = _STRING_END if self._skipping == "]" else _STRING_END_NO_BEL
        match = pattern.search(text)
        if match is None:
            return ""
        if match[0] == "\x1b":
            if match.end() == len(text):
                self._rest = "\x1b"
                return ""
            self._skipping = ""
            end = match.end() + 1 if text[match.end()] == "\\" else match.start()
            return text[end:]
        self._skipping = ""
        return text[match.end() :]

    # Control characters and short sequences

    def _control(self, character: str) -> None:
        if character == "\n" or character in "\x0b\x0c":
            if self.newline_mode:
                self.x = 0
            self.line_feed()
        elif character == "\r":
            self.x = 0
        elif character == "\b":
            self.backspace()
        elif character == "\t":
            self.tab()
        elif character == "\x07":
            self.bells += 1
        elif character == "\x0e":
            self.shifted = 1
        elif character == "\x0f":
            self.shifted = 0

    def _esc(self, intermediates: str, final: str) -> None:
        if not intermediates:
            if (action := _ESCAPES.get(final)) is not None:
                action(self)
        elif intermediates in ("(", ")"):
            first, second = self.charsets
            self.charsets = (final, second) if intermediates == "(" else (first, final)
        elif intermediates == "#" and final == "8":
            self.fill("E")

    def _next_line(self) -> None:
        self.x = 0
        self.line_feed()

    def reset(self) -> None:
        """RIS: everything as in the beginning; the scrollback stays."""
        self.to_primary()
        self._primary = self._blank_rows()
        self.lines = self._primary
        self._saved = self._saved_alternate = type(self._saved)()
        self._reset_state()
        self._reset_modes()
        self.title, self.cursor_shape = "", 0
        self._titles.clear()
        self.all_dirty = True

    def _reset_modes(self) -> None:
        self.modes = set(_ON)
        self.keypad = False

    def _soft_reset(self) -> None:
        """DECSTR."""
        self.origin = self.insert_mode = self.newline_mode = False
        self.autowrap = self.cursor_visible = True
        self.style = PLAIN
        self.charsets, self.shifted = ("B", "B"), 0
        self.top, self.bottom = 0, self.rows - 1
        self._saved = type(self._saved)()
        self._reset_modes()

    # CSI

    def _csi(self, parameters: str, intermediates: str, final: str) -> None:
        prefix = ""
        if parameters and parameters[0] in "<=>?":
            prefix, parameters = parameters[0], parameters[1:]
        action = _SEQUENCES.get(prefix + intermediates + final)
        if action is not None and len(parameters) <= LONGEST:
            action(self, [number(part) for part in parameters.split(";", _MOST_PARAMETERS)[:_MOST_PARAMETERS]])

    def _sgr(self, key: tuple[Style, str]) -> Style:
        style, parameters = key
        if parameters[:1] in ("<", "=", ">", "?") or len(parameters) > 1024:
            return style  # XTMODKEYS and others that only end like SGR
        found = sgr(style, parameters)
        if len(self._styles) > 4096:
            self._styles.clear()
        self._styles[key] = found
        return found

    def _margins(self, p: list[int]) -> None:
        bottom = p[1] if len(p) > 1 and p[1] else self.rows
        self.set_margins(max(p[0], 1) - 1, bottom - 1)

    def _clear_tabs(self, p: list[int]) -> None:
        if p[0] in (0, 3):
            self.clear_tabs(every=p[0] == 3)

    def _set_ansi(self, p: list[int], on: bool) -> None:
        for mode in p:
            if mode == 4:
                self.insert_mode = on
            elif mode == 20:
                self.newline_mode = on

    def _set_private(self, p: list[int], on: bool) -> None:
        for mode in p:
            if mode in _MODES:
                (self.modes.add if on else self.modes.discard)(mode)
            if mode == 5:
                self.all_dirty = True
            elif mode == 6:
                self.origin = on
                self.to(0, 0)
            elif mode == 7:
                self.autowrap = on
            elif mode == 25:
                self.cursor_visible = on
            elif mode == 66:
                self.keypad = on
            elif mode in MOUSE_MODES and on:
                self.modes.difference_update(m for m in MOUSE_MODES if m != mode)
            elif mode in (47, 1047):
                self.to_alternate(clear=False) if on else self.to_primary()
            elif mode == 1048:
                self.save_cursor() if on else self.restore_cursor()
            elif mode == 1049:
                if on and not self.in_alternate:
                    self.save_cursor()
                    self.to_alternate(clear=True)
                elif not on and self.in_alternate:
                    self.to_primary()
                    self.restore_cursor()

    def _cursor_style(self, p: list[int]) -> None:
        if p[0] <= 6:
            self.cursor_shape = p[0]

    # Answers

    def _reply(self, text: str) -> None:
        if len(self._replies) < 1000:  # nobody reads them
            self._replies.append(text)

    def _status(self, p: list[int]) -> None:
        if p[0] == 5:
            self._reply("\x1b[0n")
        elif p[0] == 6:
            x, y = self.cursor
            self._reply(f"\x1b[{y + 1 - (self.top if self.origin else 0)};{x + 1}R")

    def _mode_state(self, p: list[int], private: bool) -> None:
        mode, state = p[0], 0
        if private and mode in _MODES:
            state = 1 if mode in self.modes else 2
        elif private and mode in (47, 1047, 1049):
            state = 1 if self.in_alternate else 2
        elif not private and mode in (4, 20):
            state = 1 if (self.insert_mode if mode == 4 else self.newline_mode) else 2
        self._reply(f"\x1b[{'?' if private else ''}{mode};{state}$y")

    def _window(self, p: list[int]) -> None:
        if p[0] == 18:
            self._reply(f"\x1b[8;{self.rows};{self.columns}t")
        elif p[0] == 22 and len(self._titles) < 32:
            self._titles.append(self.title)
        elif p[0] == 23 and self._titles:
            self.title = self._titles.pop()

    def _string(self, kind: str, text: str) -> None:
        if kind == "k":
            self.title = _printable(text)
        elif kind == "P" and text.startswith("$q"):  # DECRQSS
            asked = text[2:]
            if asked == "m":
                self._reply(f"\x1bP1$r{_sgr_of(self.style)}m\x1b\\")
            elif asked == "r":
                self._reply(f"\x1bP1$r{self.top + 1};{self.bottom + 1}r\x1b\\")
            elif asked == " q":
                self._reply(f"\x1bP1$r{self.cursor_shape} q\x1b\\")
            else:
                self._reply("\x1bP0$r\x1b\\")

    def _osc(self, text: str) -> None:
        if len(text) > LONGEST:
            return
        code, _, rest = text.partition(";")
        if code in ("0", "2"):
            self.title = _printable(rest)
        elif code == "7":
            self.cwd = _printable(rest)
        elif code == "8":
            self.style = known(self.style._replace(link=_printable(rest.partition(";")[2])))
        elif code == "52":
            data = rest.partition(";")[2]
            if data and data != "?" and len(self._clips) < 16:  # the clipboard is never read out to a guest
                try:
                    self._clips.append(base64.b64decode(data, validate=True).decode("utf-8", "replace"))
                except (binascii.Error, ValueError):
                    pass
        elif code in ("10", "11") and rest == "?":
            colour = self.colours[code == "11"]
            red, green, blue = (colour >> shift & 0xFF for shift in (16, 8, 0))
            self._reply(f"\x1b]{code};rgb:{red:02x}{red:02x}/{green:02x}{green:02x}/{blue:02x}{blue:02x}\x1b\\")


def _printable(text: str) -> str:
    """A title or address: one line, not long, nothing that could control another terminal."""
    return "".join(c for c in text[:2048] if c.isprintable())


_SGR_CODES = {bit: code for code, bit in ((1, styles.BOLD), (2, styles.DIM), (3, styles.ITALIC), (4, styles.UNDERLINE),
    (5, styles.BLINK), (7, styles.REVERSE), (8, styles.HIDDEN), (9, styles.STRIKE), (53, styles.OVERLINE))}  # fmt: skip


def _sgr_of(style: Style) -> str:
    codes = ["0", *(str(code) for bit, code in _SGR_CODES.items() if style.flags & bit)]
    for base, colour in ((38, style.fg), (48, style.bg)):
        if colour >= styles.RGB:
            codes.append(f"{base}:2::{colour >> 16 & 0xFF}:{colour >> 8 & 0xFF}:{colour & 0xFF}")
        elif colour != styles.DEFAULT:
            codes.append(f"{base}:5:{colour}")
    return ";".join(codes)


def _keypad(on: bool) -> Callable[[Terminal], None]:
    def action(terminal: Terminal) -> None:
        terminal.keypad = on

    return action


_ESCAPES: dict[str, Callable[[Terminal], None]] = {
    "7": Terminal.save_cursor, "8": Terminal.restore_cursor, "D": Terminal.line_feed, "E": Terminal._next_line,
    "H": Terminal.set_tab, "M": Terminal.reverse_line_feed, "c": Terminal.reset, "=": _keypad(True),
    ">": _keypad(False), "Z": lambda t: t._reply("\x1b[?62;22c"),
}  # fmt: skip


def _at_least_1(method: Callable[[Terminal, int], None]) -> Callable[[Terminal, list[int]], None]:
    return lambda terminal, p: method(terminal, p[0] or 1)


def _first(method: Callable[[Terminal, int], None]) -> Callable[[Terminal, list[int]], None]:
    return lambda terminal, p: method(terminal, p[0])


def _lines(terminal: Terminal, by: int) -> None:
    (terminal.down if by > 0 else terminal.up)(abs(by))
    terminal.x = 0


_SEQUENCES: dict[str, Callable[[Terminal, list[int]], None]] = {
    "@": _at_least_1(Terminal.insert_characters),
    "A": _at_least_1(Terminal.up),
    "B": _at_least_1(Terminal.down),
    "e": _at_least_1(Terminal.down),
    "C": _at_least_1(Terminal.right),
    "a": _at_least_1(Terminal.right),
    "D": _at_least_1(Terminal.left),
    "E": lambda t, p: _lines(t, p[0] or 1),
    "F": lambda t, p: _lines(t, -(p[0] or 1)),
    "G": lambda t, p: t.to_column((p[0] or 1) - 1),
    "`": lambda t, p: t.to_column((p[0] or 1) - 1),
    "H": lambda t, p: t.to((p[1] if len(p) > 1 and p[1] else 1) - 1, (p[0] or 1) - 1),
    "f": lambda t, p: t.to((p[1] if len(p) > 1 and p[1] else 1) - 1, (p[0] or 1) - 1),
    "I": _at_least_1(Terminal.tab),
    "J": _first(Terminal.erase_in_display),
    "?J": _first(Terminal.erase_in_display),
    "K": _first(Terminal.erase_in_line),
    "?K": _first(Terminal.erase_in_line),
    "L": _at_least_1(Terminal.insert_lines),
    "M": _at_least_1(Terminal.delete_lines),
    "P": _at_least_1(Terminal.delete_characters),
    "S": _at_least_1(Terminal.scroll_up),
    "T": lambda t, p: t.scroll_down(p[0] or 1) if len(p) == 1 else None,
    "X": _at_least_1(Terminal.erase_characters),
    "Z": _at_least_1(Terminal.back_tab),
    "b": _at_least_1(Terminal.repeat),
    "c": lambda t, p: t._reply("\x1b[?62;22c") if p[0] == 0 else None,
    ">c": lambda t, p: t._reply("\x1b[>1;10;0c") if p[0] == 0 else None,
    "d": lambda t, p: t.to_row((p[0] or 1) - 1),
    "g": lambda t, p: t._clear_tabs(p),
    "h": lambda t, p: t._set_ansi(p, True),
    "l": lambda t, p: t._set_ansi(p, False),
    "?h": lambda t, p: t._set_private(p, True),
    "?l": lambda t, p: t._set_private(p, False),
    "n": lambda t, p: t._status(p),
    "?n": lambda t, p: t._reply("\x1b[?{1};{0}R".format(*(n + 1 for n in t.cursor))) if p[0] == 6 else None,
    "!p": lambda t, _: t._soft_reset(),
    "$p": lambda t, p: t._mode_state(p, private=False),
    "?$p": lambda t, p: t._mode_state(p, private=True),
    " q": lambda t, p: t._cursor_style(p),
    ">q": lambda t, p: t._reply("\x1bP>|lxpy\x1b\\") if p[0] == 0 else None,
    "r": lambda t, p: t._margins(p),
    "s": lambda t, _: t.save_cursor(),
    "u": lambda t, _: t.restore_cursor(),
    "t": lambda t, p: t._window(p),
}

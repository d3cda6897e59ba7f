"""What a cell looks like besides its character, and SGR, which says so.

Numbers: ECMA-48 8.3.117 (SGR), xterm's control sequences for 38/48/58 and the bright colours 90 to 107.
"""

from typing import NamedTuple

BOLD, DIM, ITALIC, UNDERLINE, BLINK, REVERSE, HIDDEN, STRIKE, OVERLINE, DOUBLE, CURLY = (1 << n for n in range(11))

DEFAULT = -1  # the terminal's own colour
RGB = 1 << 24  # a direct colour: RGB | red << 16 | green << 8 | blue; below it, 0 to 255, an entry of the palette


class Style(NamedTuple):
    """Colours, attributes and hyperlink of a cell.

    Attributes:
        fg, bg: `DEFAULT`, a palette entry 0 to 255, or ``RGB | 0xRRGGBB``.
        flags: a sum of `BOLD` and its like.
        link: the address of an OSC 8 hyperlink, "" for none.
    """

    fg: int = DEFAULT
    bg: int = DEFAULT
    flags: int = 0
    link: str = ""


PLAIN = Style()

_SET = {
    1: BOLD, 2: DIM, 3: ITALIC, 5: BLINK, 6: BLINK, 7: REVERSE, 8: HIDDEN, 9: STRIKE, 53: OVERLINE,
}  # fmt: skip
_UNDERLINES = UNDERLINE | DOUBLE | CURLY
_CLEAR = {
    22: BOLD | DIM, 23: ITALIC, 24: _UNDERLINES, 25: BLINK, 27: REVERSE, 28: HIDDEN, 29: STRIKE, 55: OVERLINE,
}  # fmt: skip
_UNDERLINE_FORMS = {0: 0, 1: UNDERLINE, 2: UNDERLINE | DOUBLE, 3: UNDERLINE | CURLY}

_known: dict[Style, Style] = {PLAIN: PLAIN}
_MOST_KNOWN = 4096


def known(style: Style) -> Style:
    """The one object that stands for all styles equal to `style`: most comparisons are then of identity."""
    found = _known.get(style)
    if found is None:
        if len(_known) >= _MOST_KNOWN:  # a guest that paints in true colours; equality still holds
            _known.clear()
            _known[PLAIN] = PLAIN
        found = _known[style] = style
    return found


def blank(style: Style) -> Style:
    """What erased cells look like: the background stays (xterm's "back colour erase")."""
    return PLAIN if style.bg == DEFAULT else known(Style(bg=style.bg))


def sgr(style: Style, text: str) -> Style:
    """`style` changed by the parameters of one SGR sequence (``1;38;5;196``, ``4:3``); unknown ones are passed over."""
    fg, bg, flags, link = style
    fields = text.split(";")
    i, last = 0, len(fields)
    while i < last:
        field = fields[i]
        i += 1
        if ":" in field:
            parts = field.split(":")
            code = number(parts[0])
            if code == 4:
                flags = flags & ~_UNDERLINES | _UNDERLINE_FORMS.get(number(parts[1]), UNDERLINE)
            elif code in (38, 48):
                colour = _colour_of(parts)
                if colour is not None:
                    fg, bg = (colour, bg) if code == 38 else (fg, colour)
            continue
        code = number(field)
        if code == 0:
            fg, bg, flags = DEFAULT, DEFAULT, 0
        elif 30 <= code <= 37:
            fg = code - 30
        elif 40 <= code <= 47:
            bg = code - 40
        elif code in _SET:
            flags |= _SET[code]
        elif code in _CLEAR:
            flags &= ~_CLEAR[code]
        elif code == 4:
            flags = flags & ~_UNDERLINES | UNDERLINE
        elif code == 21:
            flags = flags & ~_UNDERLINES | UNDERLINE | DOUBLE
        elif code == 39:
            fg = DEFAULT
        elif code == 49:
            bg = DEFAULT
        elif 90 <= code <= 97:
            fg = code - 82
        elif 100 <= code <= 107:
            bg = code - 92
        elif code in (38, 48, 58):
            kind = number(fields[i]) if i < last else -1
            if kind == 5 and i + 1 < last:
                colour = min(number(fields[i + 1]), 255)
                i += 2
            elif kind == 2 and i + 3 < last:
                colour = _rgb(fields[i + 1 : i + 4])
                i += 4
            else:
                break  # cut short: what follows cannot be told apart
            if code == 38:
                fg = colour
            elif code == 48:
                bg = colour
    return known(Style(fg, bg, flags, link))


def _colour_of(parts: list[str]) -> int | None:
    """``38:5:n``, ``38:2:r:g:b`` and ``38:2:space:r:g:b``."""
    kind = number(parts[1])
    if kind == 5 and len(parts) > 2:
        return min(number(parts[2]), 255)
    if kind == 2 and len(parts) >= 5:
        return _rgb(parts[3:6] if len(parts) > 5 else parts[2:5])
    return None


def _rgb(parts: list[str]) -> int:
    red, green, blue = (min(number(part), 255) for part in parts)
    return RGB | red << 16 | green << 8 | blue


def number(text: str) -> int:
    """A parameter of a control sequence: at most 65535 however long it is, 0 when it is missing or no number."""
    if len(text) > 5:
        text = text.lstrip("0")
        if len(text) > 5:
            return 65535
    return min(int(text), 65535) if text.isdecimal() else 0


# xterm's 256 colours: a cube of 6x6x6 and a ramp of greys; the first sixteen are the theme's.
_LEVELS = (0, 95, 135, 175, 215, 255)


def palette(index: int) -> int:
    """0xRRGGBB of the palette entries 16 to 255."""
    if index >= 232:
        grey = 8 + 10 * (index - 232)
        return grey << 16 | grey << 8 | grey
    index -= 16
    return _LEVELS[index // 36] << 16 | _LEVELS[index // 6 % 6] << 8 | _LEVELS[index % 6]

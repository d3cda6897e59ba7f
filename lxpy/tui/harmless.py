"""The last look at what is drawn: no name, log or message that a guest made is a command to the user's terminal.

Control characters have no width, so that taking them out moves nothing. Who knows where they may come up shows them
as pictures before (`widgets/table.py`).
"""

import re

from rich.segment import Segment
from textual.color import Color
from textual.filter import LineFilter

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Harmless(LineFilter):
    """Takes control characters out of every line of the screen."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if all(text.isprintable() for text, _, _ in segments):
            return segments
        return [Segment(CONTROL.sub("", text), style, control) for text, style, control in segments]


def pictures(text: str) -> str:
    """`text` with a sign for each control character: ``␛`` for escape, ``␊`` for a line feed."""
    return text if text.isprintable() else CONTROL.sub(_picture, text)


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else "�"

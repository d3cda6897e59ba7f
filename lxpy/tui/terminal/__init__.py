"""A terminal emulator core in pure Python: bytes in, a screen out. Nothing of Textual, no I/O.

| you look for | it is in |
| --- | --- |
| bytes, escape sequences, modes, answers to queries | `emulator.py` |
| cursor, printing, erasing, scrolling, resizing | `screen.py`; re-wrapping of long lines, `reflow.py` |
| one row of the screen or of the scrollback | `line.py` |
| colours and attributes, SGR | `style.py` |
| how many columns a character takes | `width.py` |
| selecting, copying, searching | `history.py` |
| keys, mouse and pastes as the program inside wants them | `keys.py` |
"""

from lxpy.tui.terminal.emulator import Terminal
from lxpy.tui.terminal.line import Line
from lxpy.tui.terminal.style import PLAIN, Style

__all__ = ["PLAIN", "Line", "Style", "Terminal"]

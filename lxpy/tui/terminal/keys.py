"""Keys, mouse and pastes, in the bytes that programs expect of an xterm.

Source: xterm's "Control Sequences": PC-style function keys with modifiers, mouse tracking, bracketed paste.
"""

from collections.abc import Collection

# key -> final byte of CSI 1 ; modifier X, or of SS3 X where the cursor keys are in application mode
_CURSOR = {"up": "A", "down": "B", "right": "C", "left": "D", "home": "H", "end": "F"}
_SS3 = {"f1": "P", "f2": "Q", "f3": "R", "f4": "S"}
_TILDE = {
    "insert": 2, "delete": 3, "pageup": 5, "pagedown": 6, "f5": 15, "f6": 17, "f7": 18, "f8": 19, "f9": 20,
    "f10": 21, "f11": 23, "f12": 24, "f13": 25, "f14": 26, "f15": 28, "f16": 29, "f17": 31, "f18": 32, "f19": 33,
    "f20": 34,
}  # fmt: skip
_PLAIN = {"enter": "\r", "return": "\r", "tab": "\t", "escape": "\x1b", "backspace": "\x7f", "space": " "}
_CONTROL = {
    "space": "\0", "at": "\0", "left_square_bracket": "\x1b", "backslash": "\x1c", "right_square_bracket": "\x1d",
    "circumflex_accent": "\x1e", "underscore": "\x1f", "slash": "\x1f", "minus": "\x1f", "question_mark": "\x7f",
    "2": "\0", "3": "\x1b", "4": "\x1c", "5": "\x1d", "6": "\x1e", "7": "\x1f", "8": "\x7f",
}  # fmt: skip
_MODIFIERS = {"shift": 1, "alt": 2, "meta": 2, "ctrl": 4}
_APPLICATION_CURSOR, _BRACKETED_PASTE, _SGR_MOUSE, _UTF8_MOUSE = 1, 2004, 1006, 1005


def key(name: str, character: str | None, modes: Collection[int]) -> bytes:
    """What a key sends.

    Args:
        name: ``up``, ``ctrl+a``, ``alt+shift+left``, ``f5`` …
        character: what it types, if it does; it wins over the name.
        modes: the terminal's private modes.

    Returns:
        Nothing for a key that no program would understand.
    """
    *held, base = name.split("+") if name != "+" else ["+"]
    modifiers = sum({_MODIFIERS[word] for word in held if word in _MODIFIERS})
    if base in _CURSOR:
        if modifiers:
            return f"\x1b[1;{modifiers + 1}{_CURSOR[base]}".encode()
        return f"\x1b{'O' if _APPLICATION_CURSOR in modes else '['}{_CURSOR[base]}".encode()
    if base in _SS3:
        return (f"\x1b[1;{modifiers + 1}{_SS3[base]}" if modifiers else f"\x1bO{_SS3[base]}").encode()
    if base in _TILDE:
        return (f"\x1b[{_TILDE[base]};{modifiers + 1}~" if modifiers else f"\x1b[{_TILDE[base]}~").encode()
    if base == "tab" and modifiers & 1:
        return b"\x1b[Z"
    text = ""
    if base in _PLAIN and (character is None or base != "backspace"):
        text = _PLAIN[base]
        if base == "space" and modifiers & 4:
            text = "\0"
    elif modifiers & 4 and len(base) == 1 and base.isalpha():
        text = chr(ord(base.upper()) & 0x1F)
    elif modifiers & 4 and base in _CONTROL:
        text = _CONTROL[base]
    elif character is not None:
        text = character
    elif len(base) == 1:
        text = base.upper() if modifiers & 1 else base
    if text and modifiers & 2:
        text = "\x1b" + text
    return text.encode("utf-8", "surrogateescape")


def paste(text: str, modes: Collection[int]) -> bytes:
    """A pasted text: its ends marked where the program wants that, so that it cannot be taken for typing."""
    if _BRACKETED_PASTE in modes:
        clean = text.replace("\x1b[201~", "").replace("\x1b[200~", "")
        return f"\x1b[200~{clean}\x1b[201~".encode("utf-8", "replace")
    return text.replace("\r\n", "\r").replace("\n", "\r").encode("utf-8", "replace")


RELEASE, MOTION, WHEEL = 3, 32, 64


def mouse(
    button: int, x: int, y: int, modes: Collection[int], *, pressed: bool, moved: bool = False, held: int = 0
) -> bytes:
    """A mouse report, or nothing when the program wants none of its kind.

    Args:
        button: 0 left, 1 middle, 2 right, 3 none (motion), 64 and 65 the wheel up and down.
        x, y: the cell, from 0.
        modes: the terminal's private modes.
        pressed: whether the button went down (or the wheel turned), not up.
        moved: whether this is a motion.
        held: 4 for shift, 8 for alt, 16 for ctrl, added up.
    """
    if 1003 in modes:
        pass
    elif 1002 in modes:
        if moved and button == RELEASE:
            return b""
    elif 1000 in modes:
        if moved:
            return b""
    elif 9 in modes:
        if moved or not pressed or button >= WHEEL:
            return b""
        held = 0
    else:
        return b""
    code = button + held + (MOTION if moved else 0)
    if _SGR_MOUSE in modes:
        return f"\x1b[<{code};{x + 1};{y + 1}{'M' if pressed or moved else 'm'}".encode()
    if not pressed and not moved:
        code = RELEASE + held
    if _UTF8_MOUSE in modes:
        return b"\x1b[M" + "".join(chr(min(n, 2015) + 32) for n in (code, x + 1, y + 1)).encode()
    if x > 222 or y > 222:
        return b""  # the old form has no numbers for it
    return b"\x1b[M" + bytes(n + 32 for n in (code, x + 1, y + 1))


def focus(gained: bool, modes: Collection[int]) -> bytes:
    """Tells the program that its terminal gained or lost the keyboard, where it asked for that."""
    return (b"\x1b[I" if gained else b"\x1b[O") if 1004 in modes else b""

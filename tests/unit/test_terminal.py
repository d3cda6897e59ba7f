"""The terminal emulator core: properties that hold for any input, and what single sequences do."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lxpy.tui.terminal import Terminal, history, keys
from lxpy.tui.terminal.style import BOLD, DEFAULT, REVERSE, RGB, UNDERLINE
from lxpy.tui.terminal.width import width

PIECES = [
    b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\", b"\x07", b"\r\n", b"\n", b"\r", b"\x1b[H", b"\x1b[2J",
    b"\x1b[K", b"\x1b[1;3r",
    b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[5;5H", b"\x1b[31m", b"\x1b[0m", b"\x1b[48;5;4m", b"\x1b[4:3m", b"\x1b[>4;2m",
    b"\x1b[4h", b"\x1b[4l", b"\x1b[?7l", b"\x1b[?7h", b"\x1b[?6h", b"\x1b[?6l", b"\x1b(0", b"\x1b(B", b"\x0e", b"\x0f",
    b"\x1b[3L", b"\x1b[2M", b"\x1b[4P", b"\x1b[4@", b"\x1b[6X", b"\x1b[2S", b"\x1b[2T", b"\x1b[9b", b"\x1bM", b"\x1bD",
    b"\x1b7", b"\x1b8", b"\x1bc", b"\x1b#8", b"\x1b[!p", b"\x1bH", b"\x1b[3g", b"\t", b"\b", b"\x1b[Z", b"\x1b[6n",
    b"hello world", b"1", b"22\r\n333\r\n4444\r\n55\r\n6\r\n7\r\n", "漢字".encode(), "e\u0301".encode(),
    "👩\u200d🔬".encode(),
    "ünï".encode(), b"\xe6\xbc", b"\xff", b"\x18", b"\x1a", b"\x9b", b"\x7f", b";", b"99999999999", b"?", b" ", b"m",
]  # fmt: skip
streams = st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=60).map(b"".join)


def dump(terminal: Terminal) -> object:
    """All that can be told of a terminal from outside."""
    first, end = history.first_row(terminal), history.end_row(terminal)
    rows = [history.row(terminal, n) for n in range(first, end)]
    return (
        [(list(row.segments()), row.wrapped) for row in rows], terminal.cursor, terminal.x, terminal.style,
        terminal.modes, terminal.title, terminal.scrolled, terminal.in_alternate, (terminal.top, terminal.bottom),
    )  # fmt: skip


def check(terminal: Terminal) -> None:
    """What is true of every screen at any time."""
    x, y = terminal.cursor
    assert 0 <= x < terminal.columns and 0 <= y < terminal.rows
    assert len(terminal.lines) == terminal.rows
    assert 0 <= terminal.top <= terminal.bottom < terminal.rows
    for line in terminal.lines:
        assert len(line) <= terminal.columns
        if not line.is_text:
            chars, styles = line.cells()
            assert len(chars) == len(styles)
            for at, cell in enumerate(chars):
                wide = bool(cell) and width(cell[0]) == 2
                assert not wide or (at + 1 < len(chars) and chars[at + 1] == ""), chars
                assert cell or (at and width(chars[at - 1][0]) == 2), chars


@settings(max_examples=400, deadline=None)
@given(streams, st.data())
def test_any_bytes_in_any_chunks_give_the_same_screen(data: bytes, chunks: st.DataObject) -> None:
    whole, cut = Terminal(11, 5, 50), Terminal(11, 5, 50)
    whole.feed(data)
    check(whole)
    at = 0
    while at < len(data):
        size = chunks.draw(st.integers(1, 7))
        cut.feed(data[at : at + size])
        at += size
    assert dump(cut) == dump(whole)
    assert cut.take_replies() == whole.take_replies()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(streams, st.integers(1, 30), st.integers(1, 12)), max_size=8))
def test_resizing_keeps_the_cursor_inside_and_loses_no_row(steps: list[tuple[bytes, int, int]]) -> None:
    terminal = Terminal(20, 6, 100)
    for data, columns, rows in steps:
        terminal.feed(data)
        terminal.resize(columns, rows)
        check(terminal)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text("abc漢", max_size=40), min_size=1, max_size=12), st.lists(st.integers(2, 50), max_size=5))
def test_text_outlives_any_width(texts: list[str], widths: list[int]) -> None:
    terminal = Terminal(20, 4, 1000)
    terminal.feed("\r\n".join(texts).encode())
    for columns in widths:
        terminal.resize(columns, 4)
    first, end = history.first_row(terminal), history.end_row(terminal)
    found = history.text_between(terminal, history.Place(first, 0), history.Place(end - 1, terminal.columns))
    assert found.rstrip("\n") == "\n".join(texts).rstrip("\n")


def screen(terminal: Terminal) -> list[str]:
    return [line.text.rstrip() for line in terminal.lines]


def fed(text: str, columns: int = 10, rows: int = 4) -> Terminal:
    terminal = Terminal(columns, rows)
    terminal.feed(text.encode())
    return terminal


@pytest.mark.parametrize(
    "text, rows",
    [
        ("0123456789abc", ["0123456789", "abc", "", ""]),
        ("\x1b[?7l0123456789abc", ["012345678c", "", "", ""]),
        ("a\tb", ["a       b", "", "", ""]),
        ("abc\x1b[2Dx", ["axc", "", "", ""]),
        ("abcdef\x1b[3G\x1b[2P", ["abef", "", "", ""]),
        ("abcdef\x1b[3G\x1b[2@", ["ab  cdef", "", "", ""]),
        ("abcdef\x1b[3G\x1b[2X", ["ab  ef", "", "", ""]),
        ("1\r\n2\r\n3\r\n4\x1b[2;3r\x1b[3;1H\n", ["1", "3", "", "4"]),
        ("1\r\n2\r\n3\r\n4\x1b[2H\x1b[L", ["1", "", "2", "3"]),
        ("1\r\n2\r\n3\r\n4\x1b[2H\x1b[M", ["1", "3", "4", ""]),
        ("1\r\n2\r\n3\r\n4\x1b[H\x1bM", ["", "1", "2", "3"]),
        ("\x1b(0lqk\x1b(B!", ["┌─┐!", "", "", ""]),
        ("\x1b[4hbc\x1b[Ga", ["abc", "", "", ""]),
        ("漢字\x1b[2Gx", [" x字", "", "", ""]),
        ("012345678漢", ["012345678", "漢", "", ""]),
        ("e\u0301x", ["e\u0301x", "", "", ""]),
        ("ab\x1b[3bc", ["abbbbc", "", "", ""]),
        ("one\x1b[?1049htwo\x1b[?1049l!", ["one!", "", "", ""]),
        ("a\x1b[2", ["a", "", "", ""]),
        ("\x1b[1\n;31mX", ["", "X", "", ""]),
        ("\x1b]0;title\x1b[31mx", ["x", "", "", ""]),
        ("a\x1b[9999999999999999999999Cb", ["a        b", "", "", ""]),
    ],
)
def test_what_a_sequence_does(text: str, rows: list[str]) -> None:
    assert screen(fed(text)) == rows


def test_styles() -> None:
    terminal = fed("\x1b[1;4;38;5;200mA\x1b[48:2::1:2:3mB\x1b[22;24;39;49mC\x1b[7;91mD", 20)
    styles = [terminal.lines[0].cell(x)[1] for x in range(4)]
    assert (styles[0].flags, styles[0].fg, styles[0].bg) == (BOLD | UNDERLINE, 200, DEFAULT)
    assert styles[1].bg == RGB | 0x010203
    assert styles[2] == (DEFAULT, DEFAULT, 0, "")
    assert (styles[3].flags, styles[3].fg) == (REVERSE, 9)


def test_answers() -> None:
    terminal = fed("\x1b[3;5H\x1b[6n\x1b[5n\x1b[c\x1b[?2004$p\x1b[?2004h\x1b[?2004$p\x1b[18t\x1b]11;?\x07")
    answers = terminal.take_replies().decode()
    assert answers.startswith("\x1b[3;5R\x1b[0n\x1b[?62;22c\x1b[?2004;2$y\x1b[?2004;1$y\x1b[8;4;10t\x1b]11;rgb:")
    assert terminal.take_replies() == b""


def test_titles_clipboard_and_links() -> None:
    text = base64.b64encode("copied ü".encode()).decode()
    terminal = fed(
        f"\x1b]2;a title\x1b\\\x1b]52;c;{text}\x07\x1b]8;;https://x.test/\x07li\x1b]8;;\x07nk\x1b]52;c;?\x07\a"
    )
    assert terminal.title == "a title" and terminal.bells == 1
    assert terminal.take_clipboard() == ["copied ü"] and terminal.take_clipboard() == []
    assert history.link_at(terminal, history.Place(0, 1)) == "https://x.test/"
    assert history.link_at(terminal, history.Place(0, 3)) == ""
    assert terminal.take_replies() == b"", "the clipboard is never told"


def test_what_scrolls_by_stays_text_and_can_be_found() -> None:
    terminal = Terminal(30, 5, 1000)
    terminal.feed("".join(f"line {n}\r\n" for n in range(500)).encode())
    assert sum(isinstance(line, str) for line in terminal.history) == len(terminal.history) == 496
    end = history.Place(history.end_row(terminal), 0)
    found = history.search(terminal, "LINE 12", end)
    assert found is None, "capitals in the search count"
    places = []
    place = end
    for _ in range(3):
        match = history.search(terminal, "line 12", place)
        assert match
        place = match[0]
        places.append(history.text_between(terminal, place, history.Place(place.row, 30)))
    assert places == ["line 129", "line 128", "line 127"]


def test_over_long_sequences_are_passed_over() -> None:
    for start, end in ((b"\x1b]0;", b"\x07"), (b"\x1bP", b"\x1b\\"), (b"\x1b[", b"m")):
        terminal = Terminal(20, 3)
        for _ in range(40):
            terminal.feed(start + b"1" * 65536 if _ == 0 else b"1" * 65536)
        terminal.feed(end + b"after")
        assert screen(terminal)[0] == "after", start


@pytest.mark.parametrize(
    "name, character, modes, expected",
    [
        ("up", None, set(), b"\x1b[A"), ("up", None, {1}, b"\x1bOA"), ("ctrl+right", None, {1}, b"\x1b[1;5C"),
        ("f1", None, set(), b"\x1bOP"), ("shift+f5", None, set(), b"\x1b[15;2~"), ("delete", None, set(), b"\x1b[3~"),
        ("a", "a", set(), b"a"), ("A", "A", set(), b"A"), ("ctrl+c", "\x03", set(), b"\x03"),
        ("enter", "\r", set(), b"\r"), ("backspace", "\x7f", set(), b"\x7f"), ("backspace", "\x08", set(), b"\x08"),
        ("alt+d", "d", set(), b"\x1bd"), ("escape", "\x1b", set(), b"\x1b"), ("shift+tab", None, set(), b"\x1b[Z"),
        ("ctrl+space", None, set(), b"\0"), ("ü", "ü", set(), "ü".encode()), ("alt+up", None, set(), b"\x1b[1;3A"),
    ],
)  # fmt: skip
def test_keys(name: str, character: str | None, modes: set[int], expected: bytes) -> None:
    assert keys.key(name, character, modes) == expected


def test_mouse_and_paste() -> None:
    assert keys.mouse(0, 4, 2, {1000, 1006}, pressed=True) == b"\x1b[<0;5;3M"
    assert keys.mouse(0, 4, 2, {1000, 1006}, pressed=False) == b"\x1b[<0;5;3m"
    assert keys.mouse(64, 4, 2, {1000}, pressed=True) == b"\x1b[M" + bytes((96, 37, 35))
    assert keys.mouse(0, 4, 2, {1000}, pressed=True, moved=True) == b""
    assert keys.mouse(0, 4, 2, {1002, 1006}, pressed=True, moved=True) == b"\x1b[<32;5;3M"
    assert keys.mouse(0, 4, 2, set(), pressed=True) == b""
    assert keys.paste("a\nb", set()) == b"a\rb"
    assert keys.paste("a\x1b[201~b", {2004}) == b"\x1b[200~ab\x1b[201~"

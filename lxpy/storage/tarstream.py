"""Reading tar archives as a stream of members: ustar, GNU and pax, with names as bytes and nothing believed.

Not `tarfile`: that takes an archive cut off between two members for a complete one, its filters are missing in
Debian 12's Python 3.11.2, and it decodes names that need not be text. Formats: POSIX.1-2017 "pax", tar(5), and
the GNU tar manual's appendix on sparse files.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BLOCK = 512
# Long names, attributes and sparse maps. A link name has 4 KiB, an attribute 64 KiB; a map 24 bytes a piece.
MAX_HEADER = 1 << 20

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


class TarError(Exception):
    """The archive is damaged, cut off, or no tar archive."""


@dataclass(slots=True)
class Member:
    """One member. `sparse` is a list of (offset, length) of the data there is; None: all of it."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    link: bytes
    stored: int
    sparse: list[tuple[int, int]] | None = None
    pax: dict[bytes, bytes] = field(default_factory=dict)


class TarStream:
    """Iterate over the members; `copy` reads the data of the current one.

    Args:
        read: returns up to so many bytes, b"" at the end (a pipe's ``readinto`` semantics are not needed).
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._buffer = b""
        self._at = 0
        self._left = 0  # of the current member's data
        self._padding = 0

    def __iter__(self) -> Iterator[Member]:
        common: dict[bytes, bytes] = {}
        own: dict[bytes, bytes] = {}
        long_name = long_link = b""
        while True:
            self._skip(self._left + self._padding)
            self._left = self._padding = 0
            header = self._exactly(BLOCK)
            if not header.rstrip(b"\0"):
                # One empty block ends it as well as two (GNU tar warns and agrees).
                return
            member = _parse(header)
            kind = member.kind
            if kind in (b"g", b"x", b"L", b"K"):
                text = self._extension(member.size)
                if kind == b"g":
                    common |= _records(text)
                elif kind == b"x":
                    own = _records(text)
                elif kind == b"L":
                    long_name = text.rstrip(b"\0")
                else:
                    long_link = text.rstrip(b"\0")
                continue
            if long_name:
                member.name = long_name
            if long_link:
                member.link = long_link
            if kind == b"S":
                self._old_sparse(header, member)
            if common or own:
                _apply(member, common | own)
            # Links, nodes and directories have none, whatever their size says; unknown kinds are stepped over.
            self._left = 0 if member.kind in b"123456" else member.stored
            self._padding = -self._left % BLOCK
            if b"GNU.sparse.major" in member.pax and member.sparse is None:
                self._new_sparse(member)
            own, long_name, long_link = {}, b"", b""
            yield member

    def copy(self, member: Member, write: Callable[[memoryview], int], seek: Callable[[int], object]) -> None:
        """Hands the data of the current member to `write`, which may take less than it is given."""
        pieces = [(0, self._left)] if member.sparse is None else member.sparse
        for offset, length in pieces:
            if member.sparse is not None:
                seek(offset)
            while length:
                part = self._some(min(length, 1 << 20))
                length -= len(part)
                self._left -= len(part)
                view = memoryview(part)
                while view:
                    view = view[write(view) :]

    def drain(self) -> None:
        """Reads whatever follows the end of the archive, so that a decompressor can finish and report."""
        while self._read(1 << 20):
            pass

    def _some(self, count: int) -> bytes:
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._read(1 << 18), 0
            if not self._buffer:
                raise TarError("the archive ends in the middle")
        part = self._buffer[self._at : self._at + count]
        self._at += len(part)
        return part

    def _exactly(self, count: int) -> bytes:
        part = self._some(count)
        if len(part) == count:
            return part
        parts, count = [part], count - len(part)
        while count:
            part = self._some(count)
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        while count:
            count -= len(self._some(min(count, 1 << 20)))

    def _extension(self, size: int) -> bytes:
        if size > MAX_HEADER:
            raise TarError(f"a header of {size} bytes")
        text = self._exactly(size)
        self._skip(-size % BLOCK)
        return text

    def _old_sparse(self, header: bytes, member: Member) -> None:
        """GNU's type ``S``: four pieces in the header, more in blocks behind it."""
        pieces: list[tuple[int, int]] = []
        block, start, count, more = header, 386, 4, 482
        while True:
            for at in range(start, start + 24 * count, 24):
                if block[at]:
                    pieces.append((_number(block[at : at + 12]), _number(block[at + 12 : at + 24])))
            if not block[more] or len(pieces) > MAX_HEADER // 24:
                break
            block, start, count, more = self._exactly(BLOCK), 0, 21, 504
        member.kind, member.size = REGULAR, _number(header[483:495])
        _set_sparse(member, pieces)

    def _new_sparse(self, member: Member) -> None:
        """pax sparse 1.0: the map stands before the data, as decimal lines, padded to a block."""
        read, text = 0, b""

        def line() -> int:
            nonlocal read, text
            while b"\n" not in text:
                if read >= min(MAX_HEADER, self._left):
                    raise TarError("a broken sparse map")
                text += self._exactly(BLOCK)
                read += BLOCK
            first, _, text = text.partition(b"\n")
            return _decimal(first)

        count = line()
        if count > MAX_HEADER // 4:
            raise TarError("a broken sparse map")
        pieces = [(line(), line()) for _ in range(count)]
        member.stored -= read
        self._left -= read
        member.size = _decimal(member.pax.get(b"GNU.sparse.realsize", b"0"))
        _set_sparse(member, pieces)


def _parse(header: bytes) -> Member:
    # The sum is taken with the checksum's own field as eight spaces.
    if sum(header) - sum(header[148:156]) + 256 != _number(header[148:156]):
        raise TarError("a damaged header (wrong checksum)")
    name = header[:100].split(b"\0", 1)[0]
    kind = header[156:157]
    if header[257:263] == b"ustar\0" and header[345]:
        name = header[345:500].split(b"\0", 1)[0] + b"/" + name
    if kind in (b"\0", b"7"):
        # Before POSIX a directory was a file with a slash at the end; 7 is a "contiguous" file.
        kind = DIRECTORY if name.endswith(b"/") else REGULAR
    size = _number(header[124:136])
    if size < 0:
        raise TarError("a negative size")
    return Member(
        name=name,
        kind=kind,
        mode=_number(header[100:108]) & 0o7777,
        uid=_number(header[108:116]),
        gid=_number(header[116:124]),
        mtime_ns=_number(header[136:148]) * 1_000_000_000,
        size=size,
        link=header[157:257].split(b"\0", 1)[0],
        stored=size,
    )


def _number(text: bytes) -> int:
    if text[:1] in (b"\x80", b"\xff"):  # base 256, positive or negative
        return int.from_bytes(text[1:], "big") - (1 << 8 * (len(text) - 1) if text[0] == 0xFF else 0)
    try:
        return int(text.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        raise TarError("a damaged header (no number)") from None


def _decimal(text: bytes) -> int:
    # int() would take "1_0" and " 1 "; a million digits would cost quadratic time.
    if not text.isdigit() or len(text) > 20:
        raise TarError("a damaged header (no number)")
    return int(text)


def _records(text: bytes) -> dict[bytes, bytes]:
    """pax records: ``length key=value newline``, the length counting itself."""
    records: dict[bytes, bytes] = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(text) and text[at]:
        space = text.find(b" ", at, at + 21)
        if space < 0:
            raise TarError("a broken pax header")
        end = at + _decimal(text[at:space])
        equals = text.find(b"=", space + 1, end)
        if equals < 0 or end > len(text) or text[end - 1 : end] != b"\n":
            raise TarError("a broken pax header")
        key, value = text[space + 1 : equals], text[equals + 1 : end - 1]
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)  # pax sparse 0.0 repeats the two keys
        else:
            records[key] = value
        at = end
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def _apply(member: Member, pax: dict[bytes, bytes]) -> None:
    member.pax = pax
    for key, value in pax.items():
        if key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.link = value
        elif key == b"uid":
            member.uid = _decimal(value)
        elif key == b"gid":
            member.gid = _decimal(value)
        elif key == b"size":
            member.stored = _decimal(value)
            if member.sparse is None:
                member.size = member.stored
        elif key == b"mtime":
            member.mtime_ns = _nanoseconds(value)
    if b"GNU.sparse.name" in pax:
        member.name = pax[b"GNU.sparse.name"]
    if sparse := pax.get(b"GNU.sparse.map"):
        numbers = [_decimal(part) for part in sparse.split(b",")]
        member.size = _decimal(pax.get(b"GNU.sparse.size", b"0"))
        if len(numbers) % 2:
            raise TarError("a broken sparse map")
        _set_sparse(member, list(zip(numbers[::2], numbers[1::2], strict=True)))


def _set_sparse(member: Member, pieces: list[tuple[int, int]]) -> None:
    fits = all(offset + length <= member.size for offset, length in pieces)
    if not fits or sum(length for _, length in pieces) != member.stored:
        raise TarError("a broken sparse map")
    member.sparse = pieces


def _nanoseconds(text: bytes) -> int:
    sign = -1 if text.startswith(b"-") else 1
    whole, _, part = text.lstrip(b"-").partition(b".")
    return sign * (_decimal(whole or b"0") * 1_000_000_000 + _decimal(part[:9].ljust(9, b"0")))

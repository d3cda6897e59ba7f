"""What a log view reads: one log or several, of instances or an ACL; followed, older pages on demand.

The end comes first, at most `TAIL` bytes of it, and what lies before only when it is asked for. What is written faster
than it can be read is skipped, with a line that says so: no size of log and no speed of writing makes the app slow.
"""

import asyncio
import codecs
import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lxpy.client import logs
from lxpy.tui.gateway import Gateway
from lxpy.tui.widgets.logview import LogView

TAIL = 256 * 1024  # bytes of the first page and of each older one
LEAP = 1024 * 1024  # bytes between two readings, above which only the end is read
_KNOWN = 64  # bytes read twice, to see that the log still is the one we know


class Source(NamedTuple):
    """A log: whose it is, and where it lies in the API. `told` makes of a line what people read."""

    name: str
    path: str
    told: Callable[[str], str] | None = None


def acl_line(line: str) -> str:
    """A line of a network ACL's log (JSON) in words; as it is, where it is something else."""
    try:
        found = {str(key): str(value) for key, value in json.loads(line).items()}
        time_, action, rule = found["time"], found["action"], found["rule"]
    except (ValueError, AttributeError, KeyError):
        return line
    rule += "" if "." in rule else " (no rule)"
    ends = [_end(found.get(side, ""), found.get(f"{side}_port", "")) for side in ("src", "dst")]
    icmp = f"type {found['icmp_type']}" if "icmp_type" in found else ""
    packet = [found.get("proto", ""), " → ".join(end for end in ends if end), icmp]
    return "  ".join(word for word in (time_, f"{action:<6}", f"{rule:<10}", *packet, found.get("subject", "")) if word)


def _end(address: str, port: str) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class _Reader:
    """One log and how much of it has been read. Its methods block."""

    def __init__(self, path: str, told: Callable[[str], str] | None = None) -> None:
        self.path, self._told = path, told
        self._rest = ""  # of a line that is to be told and has not ended yet
        self.start = self.end = self.skipped = 0
        self._last = b""
        self._begun = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def latest(self, client: logs.Asks) -> tuple[bool, str]:
        """What has come since, and whether what was read before is to be forgotten: there is another log now."""
        self.skipped = 0
        if self._begun:
            begin = self.end - len(self._last)
            piece = logs.between(client, self.path, begin, begin + LEAP)
            if piece.total >= self.end and piece.data.startswith(self._last) and piece.total - self.end < LEAP:
                return False, self._take(piece.data[len(self._last) :])
            if piece.total - self.end >= LEAP and piece.data.startswith(self._last):
                self.skipped = piece.total - self.end - TAIL
        piece = logs.tail(client, self.path, TAIL)
        if self._begun and not self.skipped and self._last and (found := piece.data.rfind(self._last)) >= 0:
            # The daemon keeps only the newer half of a log that has become long: what we know is elsewhere now.
            moved = self.end - (piece.start + found + len(self._last))
            self.start, self.end = max(0, self.start - moved), self.end - moved
            return False, self._take(piece.data[found + len(self._last) :])
        self._begun, self._rest = True, ""
        self._decoder.reset()
        data = piece.data[_first_line(piece.data) if piece.start else 0 :]
        self.start = self.end = piece.start + len(piece.data) - len(data)
        self._last = b""
        return True, self._take(data)

    def _take(self, data: bytes) -> str:
        self.end += len(data)
        self._last = (self._last + data)[-_KNOWN:]
        text = self._rest + self._decoder.decode(data)
        if self._told is not None:
            text, newline, self._rest = text.rpartition("\n")
            text += newline
        return self._words(text)

    def _words(self, text: str) -> str:
        return "".join(self._told(line) + "\n" for line in text.splitlines()) if self._told is not None else text

    def older(self, client: logs.Asks) -> str:
        """The page before the first one that was read; ``""`` at the beginning of the log."""
        if self.start == 0:
            return ""
        begin = max(0, self.start - TAIL)
        data = logs.between(client, self.path, begin, self.start).data
        data = data[_first_line(data) if begin else 0 :]
        self.start -= len(data)
        return self._words(data.decode("utf-8", "replace"))


def _first_line(data: bytes) -> int:
    """Where the first whole line begins, or at least the first whole character, where it is one endless line."""
    found = data.find(b"\n") + 1
    if 0 < found < len(data):
        return found
    return next((i for i in range(min(4, len(data))) if data[i] & 0xC0 != 0x80), 0)


class LogFeed:
    """Fills `view` from `sources`.

    Where there are several, each line says whose it is, and the lines stand in the order in which they came here.
    """

    def __init__(self, gateway: Gateway, view: LogView, sources: Sequence[Source]) -> None:
        self.gateway, self.view = gateway, view
        self.sources = tuple(sources)
        self._readers = [_Reader(source.path, source.told) for source in self.sources]
        self._lock = asyncio.Lock()
        self._begun = False
        view.clear([source.name for source in self.sources] if len(self.sources) > 1 else [])

    async def read(self) -> None:
        """Takes what has come since. Raises what the daemon says, after the logs that could be read."""
        async with self._lock:
            news = await asyncio.gather(
                *(self.gateway.call(reader.latest) for reader in self._readers), return_exceptions=True
            )
            stamp = time.strftime("%H:%M:%S")
            if len(self._readers) == 1 and self._begun and isinstance(news[0], tuple) and news[0][0]:
                self.view.clear([])
            for number, item in enumerate(news):
                if isinstance(item, BaseException):
                    continue
                fresh, text = item
                if skipped := self._readers[number].skipped:
                    self.view.append(f"… {skipped:,} bytes came too fast to be shown …\n", number, stamp)
                self.view.append(text, number, f"<{stamp}" if fresh and not self._begun else f" {stamp}")
            self._begun = True
            for item in news:
                if isinstance(item, BaseException):
                    raise item

    async def older(self) -> bool:
        """Takes one older page; whether there was one."""
        async with self._lock:
            found = False
            for number, reader in reversed(list(enumerate(self._readers))):
                text = await self.gateway.call(reader.older)
                found = found or bool(text)
                self.view.prepend(text, number)
            return found

    @property
    def bytes_before(self) -> int:
        """How much of the logs lies before what has been read."""
        return sum(reader.start for reader in self._readers)

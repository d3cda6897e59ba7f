"""What keeps the selected instance in, and its processes as the host and as it sees them."""

import textwrap
from typing import Any
from urllib.parse import quote

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from lxpy.client import isolation as words
from lxpy.tui.gateway import explain
from lxpy.tui.rows import InstanceRow
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.table import Column, Part, Table


async def read(tab: Tab) -> dict[str, Any] | str:
    """What the daemon says of the tab's instance, or why it cannot."""
    row = tab.subject
    if not isinstance(row, InstanceRow) or not row.running:
        return "It does not run: u starts it"
    try:
        found: dict[str, Any] = await tab.lxpy.gateway.call(
            lambda c: c.get(f"/1.0/instances/{quote(row.name)}/isolation")
        )
    except Exception as error:
        return explain(error)
    return found


class IsolationTab(Tab):
    TITLE = "Isolation"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = Static(classes="yaml")
        self._found: dict[str, Any] | str | None = None

    def compose(self) -> ComposeResult:
        with VerticalScroll(can_focus=True):
            yield self.body

    def inside(self) -> Widget:
        return self.query_one(VerticalScroll)

    def update(self, *, other: bool, came: bool) -> None:
        if self.seen and (other or came):
            self.tick()

    def tick(self) -> None:
        self.soon(self._read)

    async def _read(self) -> None:
        subject = self.subject
        found = await read(self)
        if self.subject is subject or getattr(self.subject, "key", 0) == getattr(subject, "key", 1):
            self._found = found
            self._show()

    def on_resize(self) -> None:
        self._show()

    def _show(self) -> None:
        found, width = self._found, max(30, self.size.width - 2)
        if isinstance(found, dict) and self.subject is not None:
            self.body.update(_told(self.subject.name, found, width))
        elif isinstance(found, str):
            self.body.update(Content.assemble((f"\n{found}", "$faint")))


def _told(name: str, found: dict[str, Any], width: int) -> Content:
    """The words of ``lxpy info --isolation``, all of them; long lines go on below themselves, further in."""
    lines = []
    for line in words.lines(name, found, whole=True, width=width)[2:]:
        if not line.startswith(" ") and line:
            head, colon, rest = line.partition(":")
            tone = "bold $warning" if head.isupper() or "NOT FILTERED" in rest else "bold $primary"
            lines.append(Content.assemble((head + colon, tone), rest))
            continue
        tone = "$warning" if "THE HOST'S" in line else ""
        inner = line.lstrip()
        indent = " " * (len(line) - len(inner) + 2)
        folded = (
            textwrap.wrap(line, width, subsequent_indent=indent, drop_whitespace=True) if cell_len(line) > width else []
        )
        lines += [Content.assemble((part, tone)) for part in folded or [line]]
    return Content("\n").join(lines)


class ProcessRow:
    """One process."""

    __slots__ = ("inside", "key", "name", "pid", "uid", "uid_inside")

    def __init__(self, raw: dict[str, Any]) -> None:
        self.pid, self.inside = int(raw["pid"]), int(raw["inside"])
        self.uid, self.uid_inside = int(raw["uid"]), int(raw["uid_inside"])
        self.name: str = raw["name"]
        self.key = str(self.pid)


class ProcessesTab(Tab):
    TITLE = "Processes"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

        def user(row: ProcessRow, _: int) -> tuple[Part, ...]:
            return ((str(row.uid_inside), "") if row.uid_inside >= 0 else ("–", "dim"),)

        def inside(row: ProcessRow, _: int) -> tuple[Part, ...]:
            return ((str(row.inside), "strong"),)

        self.table = Table(
            [
                Column("inside", "PID", inside, lambda r: r.inside, 6, 8, right=True),
                Column("name", "NAME", lambda r, w: ((r.name, ""),), lambda r: r.name, 12, 60, 1),
                Column("uid", "UID", user, lambda r: r.uid_inside, 6, 8, 0, 1, True),
                Column("pid", "HOST PID", lambda r, w: ((str(r.pid), "dim"),), lambda r: r.pid, 8, 9, 0, 2, True),
                Column("host", "HOST UID", lambda r, w: ((str(r.uid), "dim"),), lambda r: r.uid, 8, 11, 0, 3, True),
            ]
        )  # fmt: skip

    def compose(self) -> ComposeResult:
        yield self.table

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.table.show([])
        if self.seen and (other or came):
            self.tick()

    def tick(self) -> None:
        self.soon(self._read)

    async def _read(self) -> None:
        subject = self.subject
        found = await read(self)
        if getattr(self.subject, "key", 0) != getattr(subject, "key", 1):
            return
        if isinstance(found, dict):
            self.table.show([ProcessRow(raw) for raw in found["processes"]])
        else:
            self.table.empty = [((found, "dim"),)]
            self.table.show([])

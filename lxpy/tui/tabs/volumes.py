"""What uses the space of the selected pool: custom volumes with their snapshots, instances, images."""

import asyncio
from typing import Any
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from lxpy.tui.gateway import explain
from lxpy.tui.objects import PoolRow
from lxpy.tui.rows import age, size
from lxpy.tui.tabs.base import Tab
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.volumerows import VolumeRow, rows, volume_url
from lxpy.tui.widgets.table import Column, Part, Table


def _name(row: VolumeRow, _: int) -> tuple[Part, ...]:
    if row.snapshot:
        return (("  └ " if row.last else "  ├ ", "dim"), (row.snapshot, ""))
    if row.type == "image":
        return ((row.name[:12], "dim"),)
    return ((row.name, "strong" if row.custom else ""),)


def _used(row: VolumeRow, room: int) -> tuple[Part, ...]:
    if row.used < 0:
        return (("–", "dim"),)
    text = size(row.used) if row.used else "0B"
    if row.total <= 0:
        return ((text, ""),)
    share = min(1.0, row.used / row.total)
    filled = round(share * 5)
    tone = "ok" if share < 0.8 else "warn" if share < 0.95 else "bad"
    return (("━" * filled, tone), ("━" * (5 - filled), "dim"), (f" {text} of {size(row.total)}", ""))


class VolumeTable(Table):
    """The list. What comes and goes with instances and images is there to be looked at: it cannot be marked."""

    MARKABLE = True
    BINDINGS = [
        Binding("n", "do('create-volume')", "New", id="volume.create"),
        Binding("t", "do('attach-volume')", "Attach", id="volume.attach"),
        Binding("T", "do('detach-volume')", "Detach", show=False, id="volume.detach"),
        Binding("a", "do('snapshot-volume')", "Snapshot", id="volume.snapshot"),
        Binding("r", "do('restore-volume')", "Restore", id="volume.restore"),
        Binding("z", "do('resize-volume')", "Resize", id="volume.resize"),
        Binding("p", "do('attach-volume-profile')", "Attach to a profile", show=False, id="volume.attach-profile"),
        Binding("P", "do('detach-volume-profile')", "Detach from a profile", show=False, id="volume.detach-profile"),
        Binding("c", "do('copy-volume')", "Copy", show=False, id="volume.copy"),
        Binding("m", "do('move-volume')", "Move", show=False, id="volume.move"),
        Binding("E", "do('export-volume')", "Export", show=False, id="volume.export"),
        Binding("i", "do('import-volume')", "Import", show=False, id="volume.import"),
        Binding("R", "do('rename-volume')", "Rename", show=False, id="volume.rename"),
        Binding("e", "do('edit-volume')", "Edit", show=False, id="volume.edit"),
        Binding("ctrl+d", "do('delete-volume')", "Delete", key_display="^d", id="volume.delete"),
        Binding("space", "mark", "Mark", show=False, id="volume.mark"),
        Binding("asterisk", "mark_all", "Mark all", show=False, key_display="*", id="volume.mark-all"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="volume.unmark"),
    ]

    def __init__(self, tab: "VolumesTab", **kwargs: Any) -> None:
        self.tab = tab
        columns = [
            Column("name", "NAME", _name, None, 12, 32, 1),
            Column("type", "TYPE", lambda r, w: (("" if r.snapshot else r.type, "dim"),), None, 9, 9, 0, 4),
            Column("used", "SPACE", _used, None, 6, 24, 0, 1),
            Column("users", "USED BY", lambda r, w: ((", ".join(r.users), "dim"),), None, 7, 30, 1, 2),
        ]
        super().__init__(columns, **kwargs)
        self.sort_key = ""

    def remark(self) -> None:
        self.marks &= {row.key for row in self.rows if row.custom}
        super().remark()

    def action_mark(self) -> None:
        if self.current is not None and self.current.custom:
            super().action_mark()

    def action_do(self, verb: str) -> None:
        """The keys are the table's, the work is a verb's."""
        subject = self.tab.subject
        if subject is not None:
            self.tab.lxpy.actions.do(verb, [subject] if verb in ("create-volume", "import-volume") else self.targets())


class VolumesTab(Tab):
    TITLE = "Volumes"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = VolumeTable(self, id="volumes-table")
        self.body = Static(classes="yaml")
        self._goal = ""  # the key of the row that the cursor is to go to once it is there

    def go_to(self, key: str) -> None:
        """Puts the cursor on a row, now or when it has been read."""
        place = next((n for n, row in enumerate(self.table.rows) if row.key == key), -1)
        self._goal = key if place < 0 else ""
        if key and place >= 0:
            self.table.action_to(place)

    def clippings(self) -> list[Any]:
        """What may be copied of the selected one."""
        from lxpy.tui.verbs.clipboard import Clip
        from lxpy.tui.verbs.common import shown, words

        row: VolumeRow | None = self.table.current
        if row is None:
            return []
        show = shown(words(self.lxpy, "storage", "volume", "show", row.pool, row.name)) if row.custom else ""
        found = [Clip("Name", row.name), Clip("Reference", f"{row.pool}/{row.name}"), Clip("Show", show)]
        return [clip for clip in [*found, Clip("YAML", "the whole of it", "", row.raw)] if clip.text]

    @classmethod
    def fits(cls, subject: Any) -> bool:
        return isinstance(subject, PoolRow)

    def compose(self) -> ComposeResult:
        yield self.table
        with VerticalScroll(can_focus=False, id="volume-facts"):
            yield self.body

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.table.marks.clear()
            self.table.empty = [(("reading …", "dim"),)]
            self.table.show([])
        if self.seen and (came or other or self.fresh):
            self.soon(self._read)

    def on_table_highlighted(self) -> None:
        self._facts()

    def on_table_chosen(self) -> None:
        """To what it is: the form of a volume, the instance, the image."""
        row: VolumeRow | None = self.table.current
        if row is None:
            return
        if row.custom:
            self.lxpy.actions.do("restore-volume" if row.snapshot else "edit-volume", [row])
        elif row.type == "image":
            key = next((one.key for one in self.lxpy.model.images if one.fingerprint == row.name), "")
            self.lxpy.action_go(2, key)
        else:
            self.lxpy.action_go(1, row.name)

    async def _read(self) -> None:
        pool = self.subject
        if not isinstance(pool, PoolRow):
            return
        call = self.lxpy.gateway.call
        try:
            raws = await call(lambda c: c.get(f"/1.0/storage-pools/{quote(pool.name)}/volumes", recursion="1"))
        except Exception as error:
            self.table.empty = [((explain(error), "bad"),)]
            self.table.show([])
            return
        spaces = {f"image {one.fingerprint}": (one.size, 0) for one in self.lxpy.model.images if one.size}
        self._show(pool, raws, spaces)
        # What it takes has to be counted where the pool keeps no account: the names are there before.
        found = await asyncio.gather(self._instances(), *(self._space(pool.name, raw) for raw in raws))
        for one in found:
            spaces |= one
        self._show(pool, raws, spaces)

    async def _instances(self) -> dict[str, tuple[int, int]]:
        """What the roots of instances take, where it is known without counting."""
        query = {"recursion": "2", "fields": "state.disk"}
        try:
            found = await self.lxpy.gateway.call(lambda c: c.get("/1.0/instances", **query))
        except Exception:
            return {}
        used = {one["name"]: ((one.get("state") or {}).get("disk") or {}) for one in found}
        return {
            f"container {name}": (int(next(iter(disk.values()))["usage"]), 0) for name, disk in used.items() if disk
        }

    async def _space(self, pool: str, raw: dict[str, Any]) -> dict[str, tuple[int, int]]:
        if raw.get("type") != "custom" or "/" in raw["name"]:
            return {}
        try:
            state = await self.lxpy.gateway.call(lambda c: c.get(f"{volume_url(pool, raw['name'])}/state"))
        except Exception:
            return {}
        usage = (state or {}).get("usage") or {}
        return {f"custom {raw['name']}": (int(usage.get("used") or 0), int(usage.get("total") or 0))}

    def _show(self, pool: PoolRow, raws: list[dict[str, Any]], spaces: dict[str, tuple[int, int]]) -> None:
        if self.subject is None or self.subject.key != pool.key:
            return
        self.table.empty = [
            (("Nothing in this pool", "strong"),), (("n", "accent"), (" makes a volume of your own", "dim")),
        ]  # fmt: skip
        found = rows(pool.name, pool.driver, raws, spaces)
        self.table.styles.height = max(5, min(len(found) + 1, max(5, self.size.height * 2 // 3)))
        self.table.show(found)
        self.go_to(self._goal)
        self._facts()

    def _facts(self) -> None:
        row: VolumeRow | None = self.table.current
        if row is None:
            self.body.update("")
            return
        facts = Facts()
        if self.table.marks:
            facts.line("Marked", str(len(self.table.marks)))
        if row.snapshot:
            facts.title(f"{row.volume}/{row.snapshot}: snapshot")
        else:
            facts.title(f"{row.name}: {'volume' if row.custom else f'{row.type}, comes and goes with it'}")
        if row.raw.get("description"):
            facts.line("About", row.raw["description"])
        if row.created:
            facts.line("Made", f"{age(row.created)} ago")
        if row.expires:
            facts.line("Kept for", age(2 * row.created - row.expires, row.created))
        if not row.snapshot:
            if row.used >= 0:
                facts.line("Holds", size(row.used) + (f" of {size(row.total)}" if row.total > 0 else ""))
            if row.custom:
                facts.line("Snapshots", str(row.snapshots or ""))
        for user in row.users:
            facts.line("Used by", user)
        facts.config(row.raw.get("config") or {})
        self.body.update(facts.content())

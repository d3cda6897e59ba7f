"""The snapshots of the selected instance as a tree: take, restore, rename, keep longer, compare, publish, delete."""

import difflib
import time
from typing import Any
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Static

from lxpy.api import expiry
from lxpy.tui import lineage
from lxpy.tui.gateway import explain
from lxpy.tui.rows import InstanceRow, age, epoch, size
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.table import Column, Part, Table


class SnapshotRow:
    """One snapshot, or the instance as it is now."""

    __slots__ = ("created", "expires", "instance", "key", "kind", "name", "node", "order", "raw", "size")

    def __init__(self, instance: str, raw: dict[str, Any], node: lineage.Node, order: int) -> None:
        self.instance, self.raw, self.node, self.order = instance, raw, node, order
        self.kind, self.key = "snapshots", node.name
        self.name = node.name or "now"
        self.created = epoch(raw.get("created_at", "")) if node.name else 0.0
        self.expires = epoch(raw.get("expires_at", ""))
        self.size = int(raw.get("size") or -1) if node.name else -1

    @property
    def is_now(self) -> bool:
        return not self.node.name

    @property
    def path(self) -> str:
        return f"/1.0/instances/{quote(self.instance)}/snapshots/{quote(self.name)}"


class SnapshotTable(Table):
    """The tree; sorted by another column it is a plain list."""

    MARKABLE = True
    BINDINGS = [
        Binding("a", "do('take')", "Take one", id="snapshot.take"),
        Binding("r", "do('restore')", "Restore", id="snapshot.restore"),
        Binding("D", "do('diff')", "Compare", id="snapshot.diff"),
        Binding("R", "do('rename')", "Rename", show=False, id="snapshot.rename"),
        Binding("e", "do('keep')", "Keep until", show=False, id="snapshot.expiry"),
        Binding("c", "do('copy')", "Copy to a new instance", show=False, id="snapshot.copy"),
        Binding("P", "do('publish')", "Publish as an image", show=False, id="snapshot.publish"),
        Binding("y", "app.copy", "Copy to the clipboard", show=False, id="snapshot.clipboard"),
        Binding("ctrl+d", "do('delete')", "Delete", key_display="^d", id="snapshot.delete"),
        Binding("space", "mark", "Mark", show=False, id="snapshot.mark"),
        Binding("asterisk", "mark_all", "Mark all", show=False, key_display="*", id="snapshot.mark-all"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="snapshot.unmark"),
    ]

    def __init__(self, tab: "SnapshotsTab", **kwargs: Any) -> None:
        self.tab = tab

        def name(row: SnapshotRow, _: int) -> tuple[Part, ...]:
            lead = (row.node.lead, "dim") if self.sort_key == "name" else ("", "")
            if row.is_now:
                return (lead, ("◆ ", "info"), ("now", "info"))
            glyph = ("● ", "ok") if row.node.line else ("○ ", "dim")
            return (lead, glyph, (row.name, "strong"), (" ?" if row.node.guessed else "", "dim"))

        def taken(row: SnapshotRow, _: int) -> tuple[Part, ...]:
            return ((f"{age(row.created)} ago" if row.created else "", "dim"),)

        def expires(row: SnapshotRow, _: int) -> tuple[Part, ...]:
            if not row.expires:
                return (("" if row.is_now else "for ever", "dim"),)
            left = row.expires - time.time()
            return ((f"{age(0.0001, left)} more", "warn" if left < 86400 else "dim"),)

        columns = [
            Column("name", "SNAPSHOT", name, lambda r: r.order, 14, 60, 1),
            Column("age", "TAKEN", taken, lambda r: -r.created, 8, 10, 0, 1),
            Column("expires", "KEPT", expires, lambda r: r.expires or 1e12, 9, 10, 0, 3),
            Column("size", "SIZE", lambda r, w: ((size(r.size), ""),), lambda r: -r.size, 6, 6, 0, 2, True),
        ]
        super().__init__(columns, **kwargs)
        self.empty = [
            (("No snapshots yet", "strong"),),
            (("a", "accent"), (" takes one; it costs what changes from then on", "dim")),
        ]

    def remark(self) -> None:
        self.marks.discard(lineage.NOW)  # of what is now there is nothing to delete or rename
        super().remark()

    def action_mark(self) -> None:
        if self.current is not None and not self.current.is_now:
            super().action_mark()
        self.tab.tell_marks()

    def action_do(self, verb: str) -> None:
        """The keys are the table's, the work is the tab's."""
        getattr(self.tab, verb)()


class SnapshotsTab(Tab):
    TITLE = "Snapshots"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = SnapshotTable(self)
        self._wanted_name = ""  # where the cursor is to go once it is there

    def compose(self) -> ComposeResult:
        yield self.table
        yield Static(id="snapshots-note", markup=False)

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.table.marks.clear()
            self.table.show([])
            self._note("")
        if self.seen and (came or self.fresh):
            self.read()

    def read(self) -> None:
        """Asks for them anew."""
        self.soon(self._read)

    async def _read(self) -> None:
        row = self.subject
        if not isinstance(row, InstanceRow):
            return
        try:
            raws = await self.lxpy.gateway.call(
                lambda c: c.get(f"/1.0/instances/{quote(row.name)}/snapshots", recursion="1")
            )
        except Exception as error:
            self.table.empty = [((explain(error), "bad"),)]
            raws = []
        if self.subject is None or self.subject.key != row.key:
            return
        by_name = {str(raw["name"]).rpartition("/")[2]: raw for raw in raws}
        nodes = lineage.tree(raws, self.subject.raw) if raws else []
        self.table.show(
            [SnapshotRow(row.name, by_name.get(n.name, self.subject.raw), n, place) for place, n in enumerate(nodes)]
        )
        self.tell_marks()
        self.go_to(self._wanted_name)

    def go_to(self, name: str) -> None:
        """Puts the cursor on a snapshot, now or when it has been read."""
        place = next((n for n, row in enumerate(self.table.rows) if row.key == name), -1)
        self._wanted_name = name if place < 0 else ""
        if name and place >= 0:
            self.table.action_to(place)

    def clippings(self) -> list[Any]:
        """What may be copied of the selected one."""
        from lxpy.tui.verbs.clipboard import clips

        return [] if self.table.current is None else clips(self.lxpy, self.table.current)

    def tell_marks(self) -> None:
        """The line below: what is marked, or what the instance goes on from."""
        if self.table.marks:
            two = "  ·  D compares them" if len(self.table.marks) == 2 else ""
            self._note(f"{len(self.table.marks)} marked{two}")
            return
        rows = self.table.rows
        if not rows:
            self._note("")
            return
        base = lineage.base_of(self.subject.raw)
        there = base in {row.key for row in rows}
        text = f"now goes on from {base}" if there else "which one now goes on from is not recorded"
        if any(row.node.guessed and not row.is_now for row in rows):
            text += "  ·  ? = guessed by time"
        self._note(text)

    def _note(self, text: str) -> None:
        for note in self.query("#snapshots-note"):
            note.display = bool(text)
            note.update(text)  # type: ignore[attr-defined]

    # Verbs

    def _chosen(self) -> list[SnapshotRow]:
        """The marked snapshots, or the one under the cursor."""
        rows = [row for row in self.table.targets() if not row.is_now]
        if not rows and self.table.current is not None:
            self.app.notify("That is the instance as it is now: choose a snapshot", title="Nothing to do", timeout=4)
        return rows

    def _allowed(self, verb: str) -> bool:
        if self.lxpy.read_only:
            self.lxpy.actions.refuse(verb)
        return not self.lxpy.read_only

    def take(self) -> None:
        self.lxpy.actions.do("snapshot", [self.subject])

    def restore(self) -> None:
        from lxpy.tui.verbs.common import done

        rows = self._chosen()
        if not rows or not self._allowed("restore"):
            return
        if len(rows) > 1:
            self.app.notify("An instance can become one snapshot only: unmark the others", title="Which one?")
            return
        row = rows[0]

        async def one(snapshot: SnapshotRow) -> None:
            await done(self.lxpy, "put", f"/1.0/instances/{quote(snapshot.instance)}", {"restore": snapshot.name})
            self.app.notify(f"{snapshot.instance} is as in {snapshot.name}", title="Restored", markup=False)

        note = f"What {row.instance} has become since {age(row.created)} ago is lost, unless a snapshot has it."
        if getattr(self.subject, "running", False):
            note += " It is stopped for it and started again."
        self.lxpy.actions.ask(
            "restore", f"Restore {row.name}?", [f"{row.instance}/{row.name}"], "restore", note,
            lambda: self.lxpy.actions.each("Cannot restore", [row], one, table=self.table),
        )  # fmt: skip

    def rename(self) -> None:
        from lxpy.tui.screens.form import Answers, Form, Question
        from lxpy.tui.verbs.common import done, ref, shown, words

        rows = self._chosen()[:1]
        if not rows or not self._allowed("rename"):
            return
        row = rows[0]

        async def submit(answers: Answers) -> None:
            await done(self.lxpy, "post", row.path, {"name": answers["name"]})
            self.read()

        def line(a: Answers) -> str:
            place = ref(self.lxpy, row.instance)
            return shown(words(self.lxpy, "rename", f"{place}/{row.name}", f"{place}/{a['name']}"))

        self.app.push_screen(
            Form(f"Rename {row.name}", [Question("name", "Name", value=row.name)], submit, line, "Rename")
        )

    def keep(self) -> None:
        """Another expiry, of all that are marked."""
        from lxpy.tui.bulk import Batch
        from lxpy.tui.screens.form import Answers, Form, Question
        from lxpy.tui.verbs.common import done, ref, shown, words

        rows = self._chosen()
        if not rows or not self._allowed("expiry"):
            return

        def until(a: Answers) -> str:
            return expiry.typed(a["kept"])

        async def one(row: SnapshotRow, answers: Answers) -> str:
            await done(self.lxpy, "put", row.path, {"expires_at": until(answers)})
            self.read()
            return ""

        async def submit(answers: Answers) -> None:
            until(answers)
            if len(rows) == 1:
                await one(rows[0], answers)

        def answered(answers: dict[str, str] | None) -> None:
            if answers is not None and len(rows) > 1:
                batch = Batch(f"Keep {len(rows)} snapshots", rows, lambda row: one(row, answers))
                self.lxpy.actions.start(batch, self.table)

        def line(a: Answers) -> str:
            try:
                moment = until(a)
            except Exception:
                moment = "…"
            place = f"{ref(self.lxpy, rows[0].instance)}/{rows[0].name}"
            return shown(words(self.lxpy, "config", "set", "-p", place, f"expires_at={moment}"), len(rows) - 1)

        question = Question("kept", "Kept for", "from now: 2w 3d, 12H; or a date, 2027-01-31; left empty: for ever")
        title = rows[0].name if len(rows) == 1 else f"{len(rows)} snapshots"
        self.app.push_screen(Form(f"Keep {title}", [question], submit, line, "Keep"), answered)

    def copy(self) -> None:
        self._make("copy", "Copy", "A new instance of", "name", "Name", "{name}-{snapshot}", lambda a, new: [new])

    def publish(self) -> None:
        self._make("publish", "Publish", "An image of", "alias", "Alias", "{name}/{snapshot}",
                   lambda a, new: ["--alias", new] if new else [])  # fmt: skip

    def _make(self, verb: str, word: str, title: str, name: str, label: str, usual: str, rest: Any) -> None:
        """Something new of a snapshot, by our own command line."""
        from lxpy.tui.screens.form import Answers, Form, Question
        from lxpy.tui.shells import run_own
        from lxpy.tui.verbs.common import ref, shown, words

        rows = self._chosen()[:1]
        if not rows or not self._allowed(verb):
            return
        row = rows[0]
        value = usual.replace("{name}", row.instance).replace("{snapshot}", row.name)

        def line(a: Answers) -> list[str]:
            return words(self.lxpy, verb, f"{ref(self.lxpy, row.instance)}/{row.name}", *rest(a, a[name]))

        async def submit(answers: Answers) -> None:
            await run_own(line(answers))
            self.app.notify(answers[name], title=f"{row.name}: {word.lower()} made", markup=False)

        self.app.push_screen(
            Form(f"{title} {row.instance}/{row.name}", [Question(name, label, value=value)], submit,
                 lambda a: shown(line(a)), word, interruptible=True)
        )  # fmt: skip

    def delete(self) -> None:
        from lxpy.tui.verbs.common import done

        rows = self._chosen()
        if not rows or not self._allowed("delete"):
            return

        async def one(snapshot: SnapshotRow) -> None:
            await done(self.lxpy, "delete", snapshot.path)
            self.read()

        what = f"snapshot {rows[0].name}" if len(rows) == 1 else f"{len(rows)} snapshots"
        self.lxpy.actions.ask(
            "delete", f"Delete {what}?", [f"{row.instance}/{row.name}" for row in rows], "delete",
            "What was taken later stays, and goes on from the one before.",
            lambda: self.lxpy.actions.each("Cannot delete", rows, one, table=self.table), many=len(rows) > 1,
        )  # fmt: skip

    def diff(self) -> None:
        """How configuration and devices differ: between two that are marked, or between one and now."""
        from lxpy.tui.screens.text import TextScreen

        subject = self.subject
        rows = sorted((r for r in self.table.targets() if not r.is_now), key=lambda r: r.created)
        if not isinstance(subject, InstanceRow) or not rows:
            return
        if len(rows) > 2:
            self.app.notify("Mark two, or none to compare the selected one with now", title="Compare which?")
            return
        other, name = (rows[1].raw, rows[1].name) if len(rows) == 2 else (subject.raw, "now")
        text = difference(rows[0].raw, other, rows[0].name, name)
        self.app.push_screen(TextScreen(f"{rows[0].instance}: {rows[0].name} and {name}", text))


def difference(old: dict[str, Any], new: dict[str, Any], old_name: str, new_name: str) -> str:
    """Of two states of an instance, as a unified difference of their YAML; what the daemon keeps by itself left out."""
    from lxpy.tui.screens.edit import dump

    def shown(raw: dict[str, Any]) -> list[str]:
        config = {k: v for k, v in (raw.get("config") or {}).items() if not k.startswith("volatile.")}
        kept = {key: raw.get(key) for key in ("devices", "ephemeral", "profiles")}
        return dump({**kept, "config": config}).splitlines()

    lines = difflib.unified_diff(shown(old), shown(new), old_name, new_name, lineterm="", n=2)
    return "\n".join(lines) or "The configuration is the same in both."

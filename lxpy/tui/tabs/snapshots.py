"""The snapshots of the selected instance: take, restore, rename, delete, and what has changed since."""

import difflib
from typing import Any
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget

from lxpy.tui.gateway import explain
from lxpy.tui.rows import InstanceRow, age, epoch, size
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.table import Column, Part, Table


class SnapshotRow:
    """One snapshot."""

    __slots__ = ("created", "expires", "instance", "key", "name", "raw", "size")

    def __init__(self, instance: str, raw: dict[str, Any]) -> None:
        self.instance, self.raw = instance, raw
        self.key = self.name = str(raw["name"]).rpartition("/")[2]
        self.created, self.expires = epoch(raw.get("created_at", "")), epoch(raw.get("expires_at", ""))
        self.size = int(raw.get("size") or -1)

    @property
    def path(self) -> str:
        return f"/1.0/instances/{quote(self.instance)}/snapshots/{quote(self.name)}"


class SnapshotTable(Table):
    """The list, the newest last: as they follow one another."""

    BINDINGS = [
        Binding("a", "do('take')", "Take one", id="snapshot.take"),
        Binding("r", "do('restore')", "Restore", id="snapshot.restore"),
        Binding("D", "do('diff')", "Changes since", id="snapshot.diff"),
        Binding("R", "do('rename')", "Rename", show=False, id="snapshot.rename"),
        Binding("c", "do('copy')", "Copy to a new instance", show=False, id="snapshot.copy"),
        Binding("ctrl+d", "do('delete')", "Delete", key_display="^d", id="snapshot.delete"),
    ]

    def __init__(self, tab: "SnapshotsTab", **kwargs: Any) -> None:
        self.tab = tab

        def name(row: SnapshotRow, _: int) -> tuple[Part, ...]:
            last = tab.table.rows[-1:] == [row]
            return (("└ " if last else "├ ", "dim"), (row.name, "strong"))

        def expires(row: SnapshotRow, _: int) -> tuple[Part, ...]:
            return ((age(2 * row.created - row.expires, row.created) if row.expires else "–", "dim"),)

        columns = [
            Column("name", "SNAPSHOT", name, None, 12, 40, 1),
            Column("age", "TAKEN", lambda r, w: ((f"{age(r.created)} ago", "dim"),), lambda r: r.created, 8, 10, 0, 1),
            Column("expires", "KEPT FOR", expires, None, 8, 8, 0, 3),
            Column("size", "SIZE", lambda r, w: ((size(r.size), ""),), None, 6, 6, 0, 2, True),
        ]
        super().__init__(columns, **kwargs)
        self.sort_key = "age"
        self.empty = [
            (("No snapshots yet", "strong"),),
            (("a", "accent"), (" takes one; it costs what changes from then on", "dim")),
        ]

    def action_do(self, verb: str) -> None:
        """The keys are the table's, the work is the tab's."""
        getattr(self.tab, verb)()


class SnapshotsTab(Tab):
    TITLE = "Snapshots"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = SnapshotTable(self)

    def compose(self) -> ComposeResult:
        yield self.table

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.table.show([])
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
        if self.subject is not None and self.subject.key == row.key:
            self.table.show([SnapshotRow(row.name, raw) for raw in raws])

    # Verbs

    def take(self) -> None:
        self.lxpy.actions.do("snapshot", [self.subject])

    def restore(self) -> None:
        from lxpy.tui.screens.confirm import Confirm
        from lxpy.tui.verbs.common import done

        row = self.table.current
        if row is None:
            return

        async def one(snapshot: SnapshotRow) -> None:
            await done(self.lxpy, "put", f"/1.0/instances/{quote(snapshot.instance)}", {"restore": snapshot.name})
            self.app.notify(f"{snapshot.instance} is as in {snapshot.name}", title="Restored", markup=False)

        def answer(yes: bool | None) -> None:
            if yes:
                self.lxpy.actions.each("Cannot restore", [row], one)

        note = f"What {row.instance} has become since {age(row.created)} ago is lost, unless a snapshot has it."
        if getattr(self.subject, "running", False):
            note += " It is stopped for it and started again."
        self.app.push_screen(Confirm(f"Restore {row.name}?", [f"{row.instance}/{row.name}"], "restore", note), answer)

    def rename(self) -> None:
        from lxpy.tui.screens.form import Answers, Form, Question
        from lxpy.tui.verbs.common import done

        row = self.table.current
        if row is None:
            return

        async def submit(answers: Answers) -> None:
            await done(self.lxpy, "post", row.path, {"name": answers["name"]})
            self.read()

        self.app.push_screen(
            Form(f"Rename {row.name}", [Question("name", "Name", value=row.name)], submit, verb="Rename",
                 line=lambda a: f"lxpy rename {row.instance}/{row.name} {row.instance}/{a['name']}")
        )  # fmt: skip

    def copy(self) -> None:
        from lxpy.tui.screens.form import Answers, Form, Question
        from lxpy.tui.verbs.common import done

        row = self.table.current
        if row is None:
            return

        async def submit(answers: Answers) -> None:
            body = {
                "name": answers["name"], "type": "container",
                "source": {"type": "copy", "source": f"{row.instance}/{row.name}"},
            }  # fmt: skip
            await done(self.lxpy, "post", "/1.0/instances", body)

        question = Question("name", "Name", value=f"{row.instance}-{row.name}")
        self.app.push_screen(
            Form(f"A new instance of {row.name}", [question], submit, verb="Copy",
                 line=lambda a: f"lxpy copy {row.instance}/{row.name} {a['name']}")
        )  # fmt: skip

    def delete(self) -> None:
        from lxpy.tui.screens.confirm import Confirm
        from lxpy.tui.verbs.common import done

        row = self.table.current
        if row is None:
            return

        async def one(snapshot: SnapshotRow) -> None:
            await done(self.lxpy, "delete", snapshot.path)
            self.read()

        def answer(yes: bool | None) -> None:
            if yes:
                self.lxpy.actions.each("Cannot delete", [row], one)

        self.app.push_screen(Confirm(f"Delete snapshot {row.name}?", [f"{row.instance}/{row.name}"], "delete"), answer)

    def diff(self) -> None:
        """How configuration and devices have changed since."""
        from lxpy.tui.screens.edit import dump
        from lxpy.tui.screens.text import TextScreen

        row, subject = self.table.current, self.subject
        if row is None or not isinstance(subject, InstanceRow):
            return

        def shown(raw: dict[str, Any]) -> list[str]:
            config = {k: v for k, v in (raw.get("config") or {}).items() if not k.startswith("volatile.")}
            kept = {key: raw.get(key) for key in ("description", "devices", "ephemeral", "profiles")}
            return dump({**kept, "config": config}).splitlines()

        lines = list(
            difflib.unified_diff(shown(row.raw), shown(subject.raw), row.name, "now", lineterm="", n=2)
        )  # fmt: skip
        text = "\n".join(lines) or "The configuration is the same now as then."
        self.app.push_screen(TextScreen(f"{row.instance}: {row.name} and now", text))

"""The files of the selected instance, running or not: look around, read, edit, push, pull, delete."""

import os
import os.path
import posixpath
import stat
import tempfile
from collections.abc import Callable
from typing import Any, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widget import Widget
from textual.widgets import Static

from lxpy.client.files import Entry, Files, Owner, open_files, pull_file, pull_tree, push_tree
from lxpy.tui.gateway import explain
from lxpy.tui.rows import InstanceRow, age, size
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.table import Column, Part, Table

T = TypeVar("T")

READABLE = 1 << 20  # bytes that are shown; more is for an editor or a pager
_GLYPHS = {"directory": ("▸", "info"), "symlink": ("↪", "accent"), "file": (" ", "dim")}


class FileRow:
    """One entry of a directory; ``..`` leads up."""

    __slots__ = ("entry", "key", "name", "type")

    def __init__(self, name: str, entry: Entry | None) -> None:
        self.key = self.name = name
        self.entry = entry
        self.type = entry.type if entry else "directory"


class FileTable(Table):
    BINDINGS = [
        Binding("backspace,left,h", "do('up')", "Up", show=False, id="files.up"),
        Binding("v", "do('view')", "View", id="files.view"),
        Binding("e", "do('edit')", "Edit", id="files.edit"),
        Binding("p", "do('push')", "Push", id="files.push"),
        Binding("g", "do('pull')", "Get", id="files.pull"),
        Binding("y", "app.copy", "Copy to the clipboard", show=False, id="files.copy"),
        Binding("m", "do('mkdir')", "New directory", show=False, id="files.mkdir"),
        Binding("ctrl+d", "do('delete')", "Delete", key_display="^d", id="files.delete"),
    ]

    def __init__(self, tab: "FilesTab", **kwargs: Any) -> None:
        self.tab = tab

        def name(row: FileRow, _: int) -> tuple[Part, ...]:
            glyph, tone = _GLYPHS.get(row.type, ("∗", "warn"))
            text: tuple[Part, ...] = ((f"{glyph} ", tone), (row.name, "strong" if row.type == "directory" else ""))
            return (*text, (f" → {row.entry.target}", "dim")) if row.entry and row.entry.target else text

        def of(tell: Callable[[Entry], str]) -> Callable[[FileRow, int], tuple[Part, ...]]:
            return lambda row, _: ((tell(row.entry), "dim"),) if row.entry else (("", ""),)

        columns = [
            Column("name", "NAME", name, lambda r: (r.name != "..", r.type != "directory", r.name), 16, 80, 1),
            Column("size", "SIZE", of(lambda e: size(e.size) if e.type == "file" else ""), None, 6, 6, 0, 1, True),
            Column("mode", "MODE", of(lambda e: stat.filemode(e.mode)[-9:]), None, 9, 9, 0, 3),
            Column("owner", "OWNER", of(lambda e: f"{e.uid}:{e.gid}"), None, 7, 12, 0, 4),
            Column("age", "AGE", of(lambda e: age(e.mtime / 1e9)), None, 5, 5, 0, 2, True),
        ]
        super().__init__(columns, **kwargs)

    def action_do(self, verb: str) -> None:
        """The keys are the table's, the work is the tab's."""
        getattr(self.tab, verb)()


class FilesTab(Tab):
    TITLE = "Files"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = FileTable(self)
        self.path = "/root"
        self._paths: dict[str, str] = {}  # where we were in each instance

    def compose(self) -> ComposeResult:
        yield Static(id="files-path", markup=False)
        yield self.table

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self.table.show([])
            self.path = self._paths.get(self.subject.key, "/root") if self.subject is not None else "/root"
        if self.seen and (other or came):
            self.read()

    async def ask(self, work: Callable[[Files], T]) -> T:
        """`work` with the instance's files, on a thread of its own: it may take long."""
        name = self.subject.name

        def do(client: Any) -> T:
            files = open_files(client, name)
            try:
                return work(files)
            finally:
                files.close()

        return await self.lxpy.gateway.call(do, alone=True)

    def read(self, cursor: str = "") -> None:
        """Reads the directory anew; puts the cursor on an entry."""
        self.soon(lambda: self._read(cursor))

    async def _read(self, cursor: str) -> None:
        row, path = self.subject, self.path
        if not isinstance(row, InstanceRow):
            return
        title = self.query_one("#files-path", Static)
        title.update(path)
        try:
            entries = await self.ask(lambda files: files.list(path))
        except Exception as error:
            self.table.empty = [((explain(error), "bad"),)]
            self.table.show([FileRow("..", None)] if path != "/" else [])
            return
        if self.subject is None or self.subject.key != row.key or self.path != path:
            return
        self._paths[row.key] = path
        rows = [FileRow(entry.name, entry) for entry in entries]
        self.table.show([*([FileRow("..", None)] if path != "/" else []), *rows])
        place = next((i for i, one in enumerate(self.table.rows) if one.key == cursor), None)
        if place is not None:
            self.table.action_to(place)

    # Moving about

    def on_table_chosen(self, event: Table.Chosen) -> None:
        event.stop()
        row = event.row
        if row.name == "..":
            self.up()
        elif row.type == "directory":
            self._go(posixpath.join(self.path, row.name))
        elif row.type == "symlink":
            self._follow(row)
        else:
            self.view()

    def _go(self, path: str, cursor: str = "") -> None:
        self.path = path
        self.table.cursor = 0
        self.read(cursor)

    def up(self) -> None:
        if self.path != "/":
            self._go(posixpath.dirname(self.path), posixpath.basename(self.path))

    def _follow(self, row: FileRow) -> None:
        async def work() -> None:
            where = posixpath.join(self.path, row.name)
            try:
                entry = await self.ask(lambda files: files.stat(where, follow=True))
            except Exception as error:
                self.lxpy.fail(f"Cannot follow {row.name}", error)
                return
            if entry.type == "directory":
                self._go(where)
            else:
                await self._show(where)

        self.run_worker(work(), group="files", exit_on_error=False)

    # Contents

    def _chosen(self) -> tuple[FileRow, str] | None:
        row = self.table.current
        return (row, posixpath.join(self.path, row.name)) if row is not None and row.name != ".." else None

    def clippings(self) -> list[Any]:
        """What may be copied of the selected one."""
        from lxpy.tui.verbs.clipboard import Clip
        from lxpy.tui.verbs.common import ref, shown, words

        chosen = self._chosen()
        path = chosen[1] if chosen else self.path
        place = f"{ref(self.lxpy, self.subject.name)}{path}"
        facts = vars(chosen[0].entry) if chosen and chosen[0].entry else {"name": path, "type": "directory"}
        return [
            Clip("Path", path), Clip("Reference", place),
            Clip("Get", shown(words(self.lxpy, "file", "pull", "-r", place, "."))),
            Clip("YAML", "the whole of it", "", facts),
        ]  # fmt: skip

    def view(self) -> None:
        if (chosen := self._chosen()) and chosen[0].type == "file":
            self.run_worker(self._show(chosen[1]), group="files", exit_on_error=False)

    async def _show(self, path: str) -> None:
        from lxpy.tui.screens.text import TextScreen

        try:
            data = await self.ask(lambda files: _content(files, path))
        except Exception as error:
            self.lxpy.fail(f"Cannot read {path}", error)
            return
        if b"\0" in data[:8192]:
            self.app.notify(f"{path} is no text: g gets it", title="Not shown", markup=False)
            return
        text = data[:READABLE].decode("utf-8", "replace")
        note = "" if len(data) <= READABLE else f" · the first {size(READABLE)} of {size(len(data))}"
        self.app.push_screen(TextScreen(path + note, text))

    def edit(self) -> None:
        """In the user's editor; written back when it has changed, with owner and mode as they were."""
        chosen = self._chosen()
        if chosen is None or chosen[0].type not in ("file", "symlink"):
            return
        path = chosen[1]

        async def work() -> None:
            from lxpy.tui.editing import in_editor

            try:
                data = await self.ask(lambda files: _content(files, path))
                before = data.decode("utf-8")
            except UnicodeDecodeError:
                self.app.notify(f"{path} is no text: g gets it", title="Not edited", markup=False)
                return
            except Exception as error:
                self.lxpy.fail(f"Cannot edit {path}", error)
                return
            # Its whole name: editors know Makefile and .bashrc by it.
            text, fault = in_editor(self.app, before, f"-{posixpath.basename(path)[-100:]}")
            if fault:
                self.app.notify(fault, title=f"Cannot edit {path}", severity="warning", markup=False)
            if text is None or text == before:
                return
            try:
                await self.ask(lambda files: files.write(path, text.encode(), Owner()))
            except Exception as error:
                self.lxpy.fail(f"Cannot write {path}", error)
                return
            self.app.notify(path, title="Written", timeout=3, markup=False)
            self.read(posixpath.basename(path))

        self.run_worker(work(), group="files", exit_on_error=False)

    # To and fro

    def push(self) -> None:
        from lxpy.tui.screens.form import Answers, Form, Question

        where, name = self.path, self.subject.name

        async def submit(answers: Answers) -> None:
            source = os.path.expanduser(answers["file"])
            target = posixpath.join(where, os.path.basename(source.rstrip("/")))
            left_out: list[str] = []

            def work(files: Files) -> None:
                if os.path.isdir(source):
                    push_tree(files, source, target, Owner(), left_out.append)
                    return
                fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    files.write(target, fd, Owner().like(os.fstat(fd)))
                    files.settle()
                finally:
                    os.close(fd)

            await self.ask(work)
            self._tell(left_out)
            self.read(os.path.basename(source.rstrip("/")))

        self.app.push_screen(
            Form(f"Push into {name}:{where}", [Question("file", "File", "a file or directory of this machine")], submit,
                 lambda a: f"lxpy file push -r {a['file'] or 'FILE'} {name}{where}/", "Push")
        )  # fmt: skip

    def pull(self) -> None:
        from lxpy.tui.screens.form import Answers, Form, Question

        chosen = self._chosen()
        if chosen is None:
            return
        row, path = chosen
        name = self.subject.name

        async def submit(answers: Answers) -> None:
            target = os.path.expanduser(answers["file"])
            if os.path.isdir(target) and row.type != "directory":
                target = f"{target.rstrip('/')}/{row.name}"
            left_out: list[str] = []

            def work(files: Files) -> None:
                if row.type == "directory":
                    pull_tree(files, path, target, left_out.append)
                else:
                    pull_file(files, path, target)

            await self.ask(work)
            self._tell(left_out)
            self.app.notify(target, title=f"{row.name} is here", markup=False)

        question = Question("file", "To", "where on this machine", f"{os.path.abspath(os.curdir)}/{row.name}")

        def line(a: Answers) -> str:
            return f"lxpy file pull -r {name}{path} {a['file'] or 'FILE'}"

        self.app.push_screen(Form(f"Get {name}:{path}", [question], submit, line, "Get"))

    def _tell(self, left_out: list[str]) -> None:
        if left_out:
            more = f"\nand {len(left_out) - 3} more" if len(left_out) > 3 else ""
            self.app.notify("\n".join(left_out[:3]) + more, title="Not everything", severity="warning", markup=False)

    def mkdir(self) -> None:
        from lxpy.tui.screens.form import Answers, Form, Question

        where = self.path

        async def submit(answers: Answers) -> None:
            path = posixpath.join(where, answers["name"])
            await self.ask(lambda files: files.mkdir(path, Owner()))
            self.read(answers["name"])

        self.app.push_screen(Form(f"New directory in {where}", [Question("name", "Name")], submit, verb="Make"))

    def delete(self) -> None:
        chosen = self._chosen()
        if chosen is None:
            return
        row, path = chosen

        async def one(_: Any) -> None:
            await self.ask(lambda files: files.delete(path, recursive=row.type == "directory"))
            self.read()

        note = "With everything in it." if row.type == "directory" else ""
        self.lxpy.actions.ask(
            "delete", f"Delete {row.name}?", [f"{self.subject.name}:{path}"], "delete", note,
            lambda: self.lxpy.actions.each("Cannot delete", [row], one),
        )  # fmt: skip


def _content(files: Files, path: str) -> bytes:
    """A file's content, at most a byte more than is shown."""
    with tempfile.TemporaryFile() as file:
        entry = files.stat(path, follow=True)
        if entry.size > 16 * READABLE:
            raise OSError(27, f"It is large ({size(entry.size)}): g gets it")
        files.read(path, file.fileno())
        file.seek(0)
        return file.read()

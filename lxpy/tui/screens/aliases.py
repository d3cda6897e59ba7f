"""The names of one image."""

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.tui.screens.ask import Ask
from lxpy.tui.screens.outlived import Outlived
from lxpy.tui.widgets.bars import KeyBar
from lxpy.tui.widgets.table import Column, Table

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class AliasRow:
    """One name."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.key = self.name = str(raw["name"])
        self.description = str(raw.get("description") or "")


class Aliases(Outlived, ModalScreen[None]):
    """Adds, renames and takes away names of an image; each is done at once.

    Args:
        title: what the image is called so far.
    """

    BINDINGS = [
        Binding("a", "add", "Add", id="aliases.add"),
        Binding("R", "rename", "Rename", id="aliases.rename"),
        Binding("ctrl+d", "remove", "Take away", key_display="^d", id="aliases.remove"),
        Binding("escape,q", "dismiss", "Close", id="aliases.close"),
    ]

    def __init__(self, title: str, fingerprint: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heading, self.fingerprint = title, fingerprint
        self.table = Table(
            [
                Column("name", "", lambda r, w: ((r.name, "strong"),), None, 16, 40),
                Column("about", "", lambda r, w: ((r.description, "dim"),), None, 8, 60, 1, 4),
            ],
            header=False, id="aliases-table",
        )  # fmt: skip

    @property
    def lxpy(self) -> "LxpyApp":
        return cast("LxpyApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="aliases") as box:
            box.border_title = f"Aliases of {self.heading}".replace("[", "\\[")
            yield self.table
            yield Static(id="aliases-fault", markup=False)
            yield KeyBar(id="aliases-keys")

    def on_mount(self) -> None:
        self.query_one("#aliases-fault").display = False
        self.table.empty = [(("It has no alias: ", "dim"), ("a", "accent"), (" gives it one", "dim"))]
        self.table.focus()
        self._do(self._read())

    def _do(self, work: Awaitable[object]) -> None:
        async def told() -> None:
            try:
                await work
                if self.open:
                    await self._read()
            except Exception as error:
                self.fail(error, "Cannot change aliases", self.heading, show)
            else:
                if self.open:
                    show("")

        def show(fault: str) -> None:
            line = self.query_one("#aliases-fault", Static)
            line.display = bool(fault)
            line.update(fault)

        self.app.run_worker(told(), group="verbs", exit_on_error=False)

    async def _read(self) -> None:
        found = await self.lxpy.gateway.call(lambda c: c.get(f"/1.0/images/{self.fingerprint}"))
        rows = [AliasRow(raw) for raw in found.get("aliases") or []]
        self.table.styles.height = max(3, min(len(rows), 12))
        self.table.show(sorted(rows, key=lambda row: row.name))

    def _ask(self, question: str, value: str, done: Any) -> None:
        def answer(text: str | None) -> None:
            if text is not None and text.strip() and text.strip() != value:
                self._do(done(text.strip()))

        self.app.push_screen(Ask(question, "such as debian/12 or mine", value), answer)

    def action_add(self) -> None:
        async def add(name: str) -> None:
            body = {"name": name, "target": self.fingerprint, "description": ""}
            await self.lxpy.gateway.call(lambda c: c.post("/1.0/images/aliases", body))

        self._ask("Another alias", "", add)

    def action_rename(self) -> None:
        row = self.table.current
        if row is None:
            return

        async def rename(name: str) -> None:
            await self.lxpy.gateway.call(lambda c: c.post(_path(row.name), {"name": name}))

        self._ask(f"{row.name} becomes", row.name, rename)

    def action_remove(self) -> None:
        row = self.table.current
        if row is not None:

            async def remove() -> None:
                await self.lxpy.gateway.call(lambda c: c.delete(_path(row.name)))

            self._do(remove())


def _path(name: str) -> str:
    return f"/1.0/images/aliases/{quote(name)}"

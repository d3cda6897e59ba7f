"""The projects of the server: which one is looked at, what each may hold and holds, and what can be done to them."""

from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.tui.gateway import explain
from lxpy.tui.model import Changed, Model
from lxpy.tui.objects import ProjectRow
from lxpy.tui.rows import size
from lxpy.tui.widgets.bars import KeyBar
from lxpy.tui.widgets.table import Column, Part, Table

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_BYTES = ("disk", "memory")


class Projects(ModalScreen[str]):
    """Answers with the project to look at, None when it stays the same."""

    BINDINGS = [
        Binding("n", "do('create-project')", "New", id="project.create"),
        Binding("e", "do('edit-project')", "Edit", id="project.edit"),
        Binding("R", "do('rename-project')", "Rename", id="project.rename"),
        Binding("ctrl+d", "do('delete-project')", "Delete", key_display="^d", id="project.delete"),
        Binding("escape,q", "dismiss", "Close", id="project.close"),
    ]

    def __init__(self, model: Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.here = model.gateway.project or "default"
        self._states: dict[str, dict[str, Any]] = {}  # usage and limits, by project

        def name(row: ProjectRow, _: int) -> tuple[Part, ...]:
            return (("● " if row.name == self.here else "  ", "ok"), (row.name, "strong"))

        self.table = Table(
            [
                Column("name", "NAME", name, lambda r: (r.name != "default", r.name), 10, 24),
                Column("about", "DESCRIPTION", lambda r, w: ((r.description, ""),), None, 12, 60, 1, 2),
                Column("own", "OWN", lambda r, w: ((r.features or "–", "dim"),), None, 8, 34, 0, 3),
                Column("users", "HOLDS", lambda r, w: ((str(len(r.contents)), "dim"),), None, 5, 5, 0, 1, True),
            ],
            id="projects-table",
        )  # fmt: skip

    @property
    def lxpy(self) -> "LxpyApp":
        return cast("LxpyApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="projects") as box:
            box.border_title = "Projects"
            box.border_subtitle = "enter looks there  ·  esc closes"
            yield self.table
            yield Static(id="project-facts")
            yield KeyBar(id="projects-keys")

    def on_mount(self) -> None:
        self.table.empty = [(("reading …", "dim"),)]
        self.table.focus()
        self.model.want("projects")
        self._fill()
        self.table.settled = True
        self._ask()
        self.set_interval(2.0, self._ask)

    def _ask(self) -> None:
        # Events tell only of the project that is looked at, and no event of what instances come to use.
        if self.is_current and self.model.connected:
            self.model.changed_kind("projects")
            self.run_worker(self._read_state(), group="state", exclusive=True, exit_on_error=False)

    async def _read_state(self) -> None:
        row: ProjectRow | None = self.table.current
        if row is None:
            return
        try:
            self._states[row.name] = await self.lxpy.gateway.call(lambda c: c.get(f"{row.path}/state"))
        except Exception as error:
            self._states[row.name] = {"fault": explain(error)}
        self._tell()

    def changed(self, message: Changed) -> None:
        """The model has read them anew."""
        if "projects" in message.parts:
            self._fill()

    def on_screen_resume(self) -> None:
        self.here = self.model.gateway.project or "default"
        self._fill()  # nothing has been told while a dialog was in front

    def _fill(self) -> None:
        rows = self.model.objects.get("projects")
        if rows is None:
            return
        before = {row.key for row in self.table.rows}
        self.table.styles.height = max(3, min(len(rows) + 1, 9 if self.app.size.height < 30 else 16))
        self.table.show(rows)
        fresh = {row.key for row in rows} - before
        wanted = {self.here} if not before else fresh if len(fresh) == 1 else set()  # what was made, or has a new name
        at = next((n for n, row in enumerate(self.table.rows) if row.key in wanted), -1)
        if at >= 0:
            self.call_after_refresh(self.table.action_to, at)
        self._tell()

    def on_table_highlighted(self) -> None:
        self._tell()
        row: ProjectRow | None = self.table.current
        if row is not None and row.name not in self._states:
            self.run_worker(self._read_state(), group="state", exclusive=True, exit_on_error=False)

    def _tell(self) -> None:
        """What the selected one may hold and holds, as ``lxpy project info`` has it."""
        row: ProjectRow | None = self.table.current
        if not self.is_mounted:
            return
        facts = self.query_one("#project-facts", Static)
        if row is None or row.name not in self._states:
            facts.update("")
            return
        state = self._states[row.name]
        if "fault" in state:
            facts.update(Content.assemble(("\n" + state["fault"], "$error")))
            return
        width = max((len(name) for name in state["resources"]), default=0)
        lines = [Content.assemble((f"\n{'':<{width}}  {'USED':>9}  LIMIT", "$faint"))]
        for name, one in sorted(state["resources"].items()):
            used, limit = (_figure(name, one[key]) for key in ("Usage", "Limit"))
            full = 0 <= one["Limit"] <= one["Usage"]
            parts = (
                (f"{name:<{width}}  ", "$faint"),
                (f"{used:>9}", "$warning" if full else ""),
                (f"  {limit}", "$faint"),
            )
            lines.append(Content.assemble(*parts))
        facts.update(Content("\n").join(lines))

    # What can be done

    def on_table_chosen(self, event: Table.Chosen) -> None:
        self.dismiss(event.row.name)

    def action_do(self, verb: str) -> None:
        """The keys are the dialog's, the work is a verb's."""
        row = self.table.current
        if row is not None or verb == "create-project":
            self.lxpy.actions.do(verb, [] if row is None else [row])


def _figure(resource: str, number: int) -> str:
    if number < 0:
        return "no limit"
    return size(number) if number and resource in _BYTES else str(number)

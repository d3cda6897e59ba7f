"""What is done to projects; making and editing them is as of other objects."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lxpy.tui.verbs.common import done
from lxpy.tui.verbs.objects import ask_name
from lxpy.tui.verbs.places import into_project

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Another name for an empty project; who looks at it goes on doing so."""
    if not rows:
        return
    row = rows[0]

    async def renamed(name: str) -> None:
        here = app.gateway.project == row.name
        await done(app, "post", row.path, {"name": name})
        if here:
            into_project(app, name)
        app.model.changed_kind("projects")

    async def check(name: str) -> str:
        return (await app.rules.faults("project", {}, name=name)).get("name", "")

    ask_name(app, row.name, ("project",), renamed, check, "Only an empty project can be renamed.")


def delete(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Asks, saying what is in it."""
    if not rows:
        return
    row = rows[0]

    async def one(_: Any) -> None:
        here = app.gateway.project == row.name
        await done(app, "delete", row.path)
        if here:
            into_project(app, "default")
        app.model.changed_kind("projects")

    note = "It is empty, and its default profile goes with it."
    if row.contents:
        note = "The server deletes only empty projects: delete what is in it first, or move it."
    app.actions.ask(
        "delete", f"Delete project {row.name}?", [row.name, *(f"  {one}" for one in row.contents)], "delete", note,
        lambda: app.actions.each("Cannot delete", [row], one),
    )  # fmt: skip

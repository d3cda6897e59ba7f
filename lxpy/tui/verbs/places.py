"""Where the app looks: another project, another remote."""

from typing import TYPE_CHECKING

from lxpy.tui.screens.choose import Choice, Choose

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def switch(app: "LxpyApp", what: str) -> None:
    """Asks where to, and looks there."""
    if what == "project":
        from lxpy.tui.screens.projects import Projects

        app.push_screen(Projects(app.model), lambda name: into_project(app, name) if name else None)
        return
    here = app.gateway.remote or "local"
    choices = [Choice(r.name, r.url) for r in app.model.remotes if r.protocol == "lxd"]

    def chosen(choice: str | None) -> None:
        if choice is not None and choice != here:
            app.model.look_elsewhere("" if choice == "local" else choice, "")

    app.push_screen(Choose(f"Which remote? It is {here} now", choices, by_label=True), chosen)


def set_up(app: "LxpyApp", _: object) -> None:
    """The questions of the first set-up."""
    from lxpy.tui.screens.setup import offer

    offer(app)


def into_project(app: "LxpyApp", name: str) -> None:
    """Looks at another project of the same server."""
    if name != (app.gateway.project or "default"):
        app.model.look_elsewhere(app.gateway.remote, "" if name == "default" else name)

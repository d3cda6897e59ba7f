"""Where the app looks: another project, another remote."""

from typing import TYPE_CHECKING

from lxpy.tui.screens.choose import Choice, Choose

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def switch(app: "LxpyApp", what: str) -> None:
    """Asks where to, and looks there."""
    app.run_worker(_switch(app, what), group="verbs", exit_on_error=False)


def set_up(app: "LxpyApp", _: object) -> None:
    """The questions of the first set-up."""
    from lxpy.tui.screens.setup import offer

    offer(app)


async def _switch(app: "LxpyApp", what: str) -> None:
    here = app.gateway.project or "default" if what == "project" else app.gateway.remote or "local"
    try:
        if what == "project":
            found = await app.gateway.call(lambda c: c.get("/1.0/projects", recursion="1"))
            choices = [Choice(p["name"], p.get("description") or " ") for p in found]
        else:
            choices = [Choice(r.name, r.url) for r in app.model.remotes if r.protocol == "lxd"]
    except Exception as error:
        app.fail(f"Cannot switch the {what}", error)
        return

    def chosen(choice: str | None) -> None:
        if choice is None or choice == here:
            return
        if what == "project":
            app.model.look_elsewhere(app.gateway.remote, "" if choice == "default" else choice)
        else:
            app.model.look_elsewhere("" if choice == "local" else choice, "")

    app.push_screen(Choose(f"Which {what}? It is {here} now", choices, by_label=True), chosen)

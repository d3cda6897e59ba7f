"""Images of remotes: launching them, fetching them, and leaving off."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lxpy.tui.catalogue import CatalogueRow
from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def launch(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The launch dialog, with an image of a remote filled in."""
    row, pane = app.main.catalogue.current, app.main.catalogue
    if row is None:
        return
    if row.architecture and row.architecture not in pane.runnable():
        app.notify(
            f"{row.reference} is for {row.arch}; this server runs {pane.here or 'others'}",
            title="Cannot launch", severity="warning", markup=False,
        )  # fmt: skip
    else:
        app.action_launch(row.reference)


def download(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """To this server: asks for an alias (of a single one) and what is to become of it later."""
    chosen = [row for row in rows if isinstance(row, CatalogueRow)]
    remote = next((r for r in app.model.remotes if chosen and r.name == chosen[0].remote), None)
    if remote is None:
        return
    only = chosen[0] if len(chosen) == 1 else None
    here = app.gateway.remote or "local"

    def words(row: CatalogueRow, a: Answers) -> list[str]:
        found = ["image", "copy", row.reference, f"{here}:"]
        found += ["--alias", a["alias"]] if a.get("alias") else []
        found += ["--copy-aliases"] if a["aliases"] else []
        return found + (["--auto-update"] if a["update"] else []) + (["--public"] if a["public"] else [])

    async def submit(answers: Answers) -> None:
        for row in chosen:
            await _begin(app, remote, row, answers, words(row, answers))

    questions = [Question("alias", "New alias", "left empty: none but those below")] if only else []
    questions += [
        Question("aliases", "Aliases", f"call it what {remote.name} calls it", "yes", flag=True),
        Question("update", "Update", "keep it as new as there", flag=True),
        Question("public", "Public", "anybody who reaches this server may fetch it", flag=True),
    ]
    what = only.reference if only else f"{len(chosen)} images of {remote.name}"
    app.push_screen(
        Form(
            f"Download {what}", questions, submit, lambda a: shlex.join(["lxpy", *words(chosen[0], a)]), "Download",
            note="" if only else ", ".join(row.title for row in chosen[:6]) + (" …" if len(chosen) > 6 else ""),
        )
    )  # fmt: skip


async def _begin(app: "LxpyApp", remote: RemoteInfo, row: CatalogueRow, answers: Answers, words: list[str]) -> None:
    """Begins to fetch one image; the rest goes on by itself. Raises what keeps it from beginning."""
    if remote.protocol == "lxd":
        # Whether the server here pulls, or all passes through this machine, is for our command line to find out.
        work = app.run_worker(_told(app, row, run_own(words)), group="downloads", exit_on_error=False)
        app.model.catalogues.copies[row.fingerprint] = work
        app.main.catalogue.downloads_changed()
        return
    source = {"type": "image", "mode": "pull", "server": remote.url, "protocol": remote.protocol, "alias": row.name}
    body: dict[str, Any] = {
        "source": source | ({"copy_aliases": True} if answers["aliases"] else {}),
        "auto_update": bool(answers["update"]), "public": bool(answers["public"]),
        "aliases": [{"name": answers["alias"], "description": ""}] if answers.get("alias") else [],
    }  # fmt: skip
    operation = await app.gateway.call(lambda c: c.post("/1.0/images", body))
    if isinstance(operation, dict) and "id" in operation:
        app.model.catalogues.downloads[row.fingerprint] = operation["id"]
        app.model.about[operation["id"]] = row.reference
    app.run_worker(_told(app, row, app.model.follow(operation)), group="downloads", exit_on_error=False)


async def _told(app: "LxpyApp", row: CatalogueRow, work: Any) -> None:
    """Waits for the end of a download and says how it was."""
    try:
        await work
    except Exception as error:
        app.fail(f"Cannot download {row.reference}", error)
        return
    app.notify(row.reference, title="Downloaded", timeout=4, markup=False)


def cancel(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Ends the downloads of images."""
    copies = [(row, copy) for row in rows if (copy := app.model.catalogues.copying(row.fingerprint)) is not None]
    for row, copy in copies:
        copy.cancel()  # as ctrl+c would
        app.notify(row.reference, title="Download cancelled", timeout=4, markup=False)
    running = [
        (row, operation["id"])
        for row in rows
        if (operation := app.model.catalogues.download(row.fingerprint, app.model.operations)) is not None
    ]
    if not running and not copies:
        app.notify("None of these is being downloaded", title="Nothing to cancel", timeout=3)
        return
    if not running:
        return
    by_key = {row.key: ident for row, ident in running}

    async def one(row: Any) -> None:
        await app.gateway.call(lambda c: c.delete(f"/1.0/operations/{by_key[row.key]}"))

    app.actions.each("Cannot cancel it", [row for row, _ in running], one)

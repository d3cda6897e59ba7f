"""What concerns the server as a whole: look at its machine, bring back what is lost, bring it to what a file says."""

import os
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest
from lxpy.tui.gateway import explain
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own
from lxpy.tui.verbs.common import shown, words

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def _local(app: "LxpyApp", what: str) -> bool:
    if app.gateway.remote in ("", "local"):
        return True
    app.notify(f"{what} is for the machine's own server: run it there", title="Not from here", severity="warning")
    return False


def _soon(app: "LxpyApp", work: Coroutine[Any, Any, None]) -> None:
    app.run_worker(work, group="verbs", exit_on_error=False)


def doctor(app: "LxpyApp", _: Sequence[Any]) -> None:
    """What this machine has and misses."""
    if _local(app, "lxpy doctor"):
        app.run_worker(_show(app, "This machine", ["doctor"]), group="verbs", exit_on_error=False)


async def _show(app: "LxpyApp", title: str, command: list[str]) -> None:
    from lxpy.tui.screens.text import TextScreen

    try:
        text = await run_own(command)
    except Exception as error:
        text = explain(error)  # a doctor that has found something ends with a status
    app.push_screen(TextScreen(title, text))


def recover(app: "LxpyApp", _: Sequence[Any]) -> None:
    """Instances and volumes that lie on pools and are not known: shown first, then asked about."""
    if not _local(app, "lxpy recover"):
        return

    async def look() -> None:
        try:
            said = await run_own(["recover", "--dry-run"])
        except Exception as error:
            app.fail("Cannot look for what is lost", error)
            return
        if said == "Nothing is to be recovered":
            app.notify("Everything on the storage pools is known", title="Nothing to recover")
            return
        note = "What is left alone stays where it is."
        app.actions.ask("recover", "Recover that?", said.splitlines(), "recover", note, lambda: _soon(app, do()))

    async def do() -> None:
        try:
            said = await run_own(["recover", "--yes"])
        except Exception as error:
            app.fail("Not everything is recovered", error)
        else:
            app.notify(said.splitlines()[-1] if said else "", title="Recovered", markup=False)
        await app.model.reload()

    app.run_worker(look(), group="verbs", exit_on_error=False)


def apply(app: "LxpyApp", _: Sequence[Any]) -> None:
    """Brings instances, volumes, networks and profiles to what a file describes, once its plan has been seen."""

    def line(a: Answers) -> list[str]:
        remote = [f"{app.gateway.remote}:"] if app.gateway.remote else []
        prune = ["--prune"] if a["prune"] else []
        return words(app, "apply", "-f", os.path.expanduser(a["file"]) or "FILE", *prune, *remote)

    plan: list[str] = []

    async def submit(answers: Answers) -> None:
        if not answers["file"]:
            raise BadRequest("Name the file")
        plan[:] = (await run_own([*line(answers), "--dry-run"])).splitlines()

    def planned(answers: dict[str, str] | None) -> None:
        if answers is None:
            return
        if plan[-1:] == ["Nothing to do"]:
            app.notify("Everything is as the file says", title="Nothing to do")
            return

        async def do() -> None:
            try:
                await run_own([*line(answers), "--yes"])
            except Exception as error:
                app.fail("Not everything is applied", error)
            else:
                app.notify(plan[-1], title="Applied", markup=False)
            await app.model.reload()

        app.actions.ask("apply", "Do that?", plan, "apply", "", lambda: _soon(app, do()))

    app.push_screen(
        Form(
            "Apply a file",
            [
                Question("file", "File", "a YAML file; the right arrow completes", path=True),
                Question("prune", "Prune", "delete what the file has no more", flag=True),
            ],
            submit, lambda a: shown(line(a)), "Plan", note="The plan is shown first, and nothing is done before yes.",
            interruptible=True,
        ),
        planned,
    )  # fmt: skip


def results(app: "LxpyApp", _: Sequence[Any]) -> None:
    """The results of the last work on many."""
    app.actions.results()

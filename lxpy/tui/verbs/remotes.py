"""Adding and removing remotes: the user's own list, kept by the client."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


async def _command(app: "LxpyApp", words: list[str]) -> None:
    """Our own command line: what it asks is answered by flags, what it says goes to the user."""
    await run_own(words)
    await app.model.reload()


def add(app: "LxpyApp", _: Sequence[Any]) -> None:
    def words(a: Answers) -> list[str]:
        found = ["remote", "add", a["name"], a["url"], "--protocol", a["protocol"]]
        if a["protocol"] == "lxd":
            found += ["--accept-certificate", *(["--token", a["token"]] if a["token"] else [])]
        return found

    async def submit(answers: Answers) -> None:
        await _command(app, words(answers))

    app.push_screen(
        Form(
            "New remote",
            [
                Question("name", "Name", "what you will call it"),
                Question("url", "URL", "https://…"),
                Question("protocol", "Protocol", choices=("simplestreams", "lxd")),
                Question("token", "Token", "of a server: what its `config trust add` printed"),
            ],
            submit, lambda a: "lxpy " + " ".join(words(a)), "Add",
            note="A server's certificate is accepted as it is: compare its fingerprint where that matters.",
        )
    )  # fmt: skip


def remove(app: "LxpyApp", rows: Sequence[Any]) -> None:
    if not rows:
        return
    row = rows[0]

    async def one(row: Any) -> None:
        await _command(app, ["remote", "remove", row.name])

    app.actions.ask(
        "forget", f"Forget the remote {row.name}?", [f"{row.name}  {row.url}"], "forget", "",
        lambda: app.actions.each("Cannot remove", rows[:1], one),
    )  # fmt: skip

"""The user's list of remotes, which the client keeps: adding, testing, renaming, removing, going there."""

import asyncio
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.certificates import decode_token
from lxpy.api.errors import ApiError, BadRequest
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


async def _command(app: "LxpyApp", words: list[str], said: str = "", private: bool = False) -> None:
    """Our own command line: what it asks is answered by flags and by `said`, what it says goes to the user."""
    await run_own(words, said, private)
    await app.model.reload()


def add(app: "LxpyApp", _: Sequence[Any]) -> None:
    """A new remote. The certificate of a server is shown first, and nothing else than that one is trusted."""

    def words(a: Answers, secret: str) -> list[str]:
        found = ["remote", "add", a["name"] or "NAME", a["url"] or "ADDRESS"]
        if not decode_token(a["url"]):
            found += ["--protocol", a["protocol"]]
        found += ["--public"] if a["public"] and a["protocol"] == "lxd" else []
        return found + ([f"--{_kind(a['secret'])}", secret] if secret and a["protocol"] == "lxd" else [])

    async def submit(answers: Answers) -> None:
        _check(app, answers)
        said = ""
        known = decode_token(answers["url"]) or decode_token(answers["secret"])
        if known is None and answers["protocol"] == "lxd" and not answers["url"].startswith(("unix:", "/")):
            said = await _trusted(app, answers["url"])
        await _command(app, words(answers, answers["secret"]), said, private=True)

    app.push_screen(
        Form(
            "New remote",
            [
                Question("name", "Name", "what you will call it"),
                Question("url", "Address", "https://HOST:PORT, unix://PATH, or the token that a server gave you"),
                Question("protocol", "Protocol", choices=("simplestreams", "lxd")),
                Question("secret", "Secret", "of a server: a token of its own, or its password", hidden=True),
                Question("public", "Public", "of a server: only what is open to everybody is wanted", flag=True),
            ],
            submit, lambda a: shlex.join(["lxpy", *words(a, "…" if a["secret"] else "")]), "Add",
            note="simplestreams: a server of images. lxd: a server with instances; its certificate is shown first.",
        )
    )  # fmt: skip


def _kind(secret: str) -> str:
    return "token" if decode_token(secret) else "password"


def _check(app: "LxpyApp", answers: Answers) -> None:
    """Raises `BadRequest` for what would not do, before anything is asked of anybody."""
    name, url = answers["name"], answers["url"]
    if not name or any(character in name for character in ":/ "):
        raise BadRequest("A remote needs a name without colons, slashes and blanks")
    if any(remote.name == name for remote in app.model.remotes):
        raise BadRequest(f"There is a remote {name} already: R renames it, e changes its address")
    if not url:
        raise BadRequest("Where is it? An address such as https://server:8443, or a server's token")
    if answers["protocol"] == "simplestreams" and not decode_token(url) and not url.startswith(("http://", "https://")):
        raise BadRequest("An image server has an http:// or https:// address")
    if answers["protocol"] == "lxd" and "://" in url and not url.startswith(("https://", "unix://")):
        raise BadRequest("A server is reached by https://HOST:PORT or unix://PATH")


async def _trusted(app: "LxpyApp", url: str) -> str:
    """Asks whether the certificate that a server shows is its own; gives its fingerprint, which is the answer.

    Raises:
        ApiError: it does not answer, or the user says no.
    """
    from lxpy.client import https
    from lxpy.tui.screens.confirm import Confirm

    address = url if "://" in url else f"https://{url}"

    def ask(_: Any) -> str:
        return https.fingerprint(https.server_certificate(address, 8))

    try:
        found = await asyncio.wait_for(app.gateway.call(ask, alone=True), 10)
    except TimeoutError:
        raise ApiError(f"{address} did not answer within 10 seconds") from None
    pieces = "  ".join(found[i : i + 8] for i in range(0, 32, 8)), "  ".join(found[i : i + 8] for i in range(32, 64, 8))
    question = Confirm(
        f"Trust {address}?", ["The fingerprint of the certificate it shows:", "", *pieces], "trust",
        "Compare it with what `lxpy info` says there. Only this certificate is trusted from now on.",
    )  # fmt: skip
    if not await app.push_screen_wait(question):
        raise ApiError("Nothing was added: its certificate is not trusted")
    return found


def test(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Asks remotes for an answer, and takes the time."""
    for row in rows:
        app.run_worker(app.model.reach.test(row.info), group="remotes", exit_on_error=False)


def switch(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Looks at another server from now on."""
    if not rows:
        return
    row = rows[0]
    if row.protocol != "lxd":
        app.notify("enter shows its images", title=f"{row.name} has images only, no instances", markup=False)
        return
    here = app.gateway.remote or next((r.name for r in app.model.remotes if r.default), "")
    if row.name == here:
        app.notify(f"{row.name} is what you see", title="Nothing to switch", timeout=3, markup=False)
        return
    app.model.look_elsewhere(row.name, "")
    app.run_worker(app.model.reach.test(row.info), group="remotes", exit_on_error=False)
    app.main.action_pane(1)


def default(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Names without a remote mean that one from now on, on the command line too."""

    async def one(row: Any) -> None:
        await _command(app, ["remote", "switch", row.name])
        app.notify(f"Names without a remote mean {row.name} from now on", title="Default remote", markup=False)

    app.actions.each("Cannot make it the default", rows[:1], one)


def set_url(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = _changeable(app, rows)
    if row is None:
        return

    async def submit(answers: Answers) -> None:
        app.model.catalogues.forget(row.name)
        await _command(app, ["remote", "set-url", row.name, answers["url"]])

    note = "" if row.protocol != "lxd" else "The certificate that it was added with must be the new address's as well."
    app.push_screen(
        Form(f"Address of {row.name}", [Question("url", "Address", value=row.url)], submit,
             lambda a: f"lxpy remote set-url {row.name} {shlex.quote(a['url'])}", "Change", note=note)
    )  # fmt: skip


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = _changeable(app, rows)
    if row is None:
        return

    async def submit(answers: Answers) -> None:
        await _command(app, ["remote", "rename", row.name, answers["name"]])

    app.push_screen(
        Form(f"Rename {row.name}", [Question("name", "Name", value=row.name)], submit,
             lambda a: f"lxpy remote rename {row.name} {shlex.quote(a['name'])}", "Rename")
    )  # fmt: skip


def remove(app: "LxpyApp", rows: Sequence[Any]) -> None:
    chosen = list(rows)
    if not chosen:
        return

    def go() -> None:
        app.run_worker(work(), group="verbs", exit_on_error=False)

    async def work() -> None:
        try:
            await _command(app, ["remote", "remove", *(row.name for row in chosen)])
        except Exception as error:
            app.fail("Cannot remove", error)
        else:
            app.main.pane("remotes").action_unmark()

    what = f"the remote {chosen[0].name}" if len(chosen) == 1 else f"{len(chosen)} remotes"
    names = [f"{row.name}  {row.url}" for row in chosen]
    app.actions.ask("forget", f"Forget {what}?", names, "forget", "Nothing is deleted there.", go, many=len(chosen) > 1)


def _changeable(app: "LxpyApp", rows: Sequence[Any]) -> Any:
    """The first of `rows`, if it can be changed."""
    if not rows:
        return None
    if rows[0].static:
        app.notify("It is part of lxpy", title=f"{rows[0].name} cannot be changed", severity="warning", markup=False)
        return None
    if rows[0].name == app.gateway.remote:
        app.notify("Look at another server first (F3)", title=f"You look at {rows[0].name}", markup=False)
        return None
    return rows[0]

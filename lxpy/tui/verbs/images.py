"""Images of this server: their aliases, what becomes of them, newer versions, files, and images of instances."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError, BadRequest
from lxpy.tui import guides
from lxpy.tui.rows import ImageRow
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own
from lxpy.tui.verbs import common
from lxpy.tui.widgets.paths import completed

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

NEVER = "0001-01-01T00:00:00Z"


def _rows(rows: Sequence[Any]) -> list[ImageRow]:
    return [row for row in rows if isinstance(row, ImageRow) and not row.remote]


def path(row: ImageRow) -> str:
    return f"/1.0/images/{row.fingerprint}"


def aliases(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The names of one image: more of them, others, none."""
    from lxpy.tui.screens.aliases import Aliases

    for row in _rows(rows)[:1]:
        app.push_screen(Aliases(row.title, row.fingerprint))


def options(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Who may have an image and what becomes of it; `e` edits all of it as YAML."""
    chosen = _rows(rows)
    if not chosen:
        return
    row = chosen[0]
    about = str((row.raw.get("properties") or {}).get("description", ""))
    hint = "anybody who reaches this server may fetch it"
    before = str(row.raw.get("expires_at") or "")
    expires = "" if before.startswith(("0001", "1970")) else before[:10]

    async def submit(a: Answers) -> None:
        body = {
            "public": bool(a["public"]), "auto_update": bool(a["update"]), "expires_at": moment(a["expires"], before),
            "properties": {"description": a["description"]},
        }  # fmt: skip
        await app.gateway.call(lambda c: c.patch(path(row), body))
        await app.model.reload()

    app.push_screen(
        Form(
            f"Image {row.title}",
            [
                Question("description", "About", "what it is", about),
                Question("expires", "Expires", "YYYY-MM-DD; left empty: never", expires),
                Question("update", "Update", "as new as where it came from", _yes(row, "auto_update"), flag=True),
                Question("public", "Public", hint, _yes(row, "public"), flag=True),
            ],
            submit, verb="Change",
            note="" if row.raw.get("update_source") else "It came from no server: there is nothing to update from.",
        )
    )  # fmt: skip


def _yes(row: ImageRow, field: str) -> str:
    return "yes" if row.raw.get(field) else ""


def moment(text: str, before: str) -> str:
    """A day as the API wants it; `before` is what it is now, which stays as exact as it is.

    Raises:
        BadRequest: it is no day.
    """
    if not text or text == "never":
        return NEVER
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        raise BadRequest(f"{text!r} is no day: YYYY-MM-DD, or nothing for never")
    return before if before.startswith(text) else f"{text}T00:00:00Z"


def refresh(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Looks for newer versions where images came from."""

    async def one(row: ImageRow) -> None:
        operation = await app.gateway.call(lambda c: c.post(f"{path(row)}/refresh", {}))
        ended = await app.model.follow(operation)
        new = (ended.get("metadata") or {}).get("refreshed")
        app.notify(
            "A newer version is here" if new else "It is the newest there is", title=row.title, timeout=4, markup=False
        )

    app.actions.each("Cannot refresh", _rows(rows), one)


def export(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Into files of this machine, by our own command line: it streams."""
    chosen = _rows(rows)
    if not chosen:
        return
    row = chosen[0]
    target = f"{app.gateway.remote}:{row.fingerprint[:12]}" if app.gateway.remote else row.fingerprint[:12]

    def words(a: Answers) -> list[str]:
        return ["image", "export", target, common.here(a["file"]) or "."]

    async def submit(a: Answers) -> None:
        await run_own(words(a))
        app.notify(a["file"] or ".", title=f"{row.title} exported", markup=False)

    name = re.sub(r"[^\w.-]+", "-", row.title)
    app.push_screen(
        Form(
            f"Export {row.title}",
            [Question("file", "File", "where to; a directory keeps the image's own name", name)],
            submit, lambda a: shlex.join(["lxpy", *words(a)]), "Export",
            note="A split image becomes two files: the second one's name ends with .root.",
        )
    )  # fmt: skip


def import_image(app: "LxpyApp", _: Sequence[Any]) -> None:
    """An image of files or a directory of this machine, or of an address, by our own command line: it streams."""

    def line(a: Answers) -> list[str]:
        file = a["file"] if _is_address(a["file"]) else common.here(a["file"]) or "FILE"
        found = ["image", "import", file, *([common.here(a["root"])] if a["root"] else [])]
        found += [f"{app.gateway.remote}:"] if app.gateway.remote else []
        found += [f"{key}={value}" for key, value in guides.pairs(a["more"]).items()]
        for alias in _words(a["alias"]):
            found += ["--alias", alias]
        return common.words(app, *found, *(["--public"] if a["public"] else []))

    def shown(a: Answers) -> str:
        try:
            return common.shown(line(a))
        except ApiError:  # it is being typed
            return common.shown(line({**a, "more": ""}))

    async def check(a: Answers) -> Mapping[str, str]:
        found = {"file": _unfit(a["file"]), "root": _unfit_root(a["root"], a["file"]), "alias": "", "more": ""}
        taken = {name: row.title for row in app.model.images for name in row.aliases}
        for name in _words(a["alias"]):
            if name in taken and not a["reuse"]:
                found["alias"] = f"{name} is an image's already: name another one, or tick Replace"
        try:
            guides.pairs(a["more"])
        except ApiError as error:
            found["more"] = error.message
        return {key: text for key, text in found.items() if text}

    async def submit(a: Answers) -> None:
        said = await run_own(line(a))
        app.notify(_words(a["alias"])[0] if a["alias"] else said.rpartition(" ")[2][:12], title="Image imported",
                   markup=False)  # fmt: skip

    app.push_screen(
        Form(
            "Import an image",
            [
                Question("file", "File", "a tarball, a directory, https://…; the right arrow completes", path=True),
                Question("root", "Root", "of a split image the second file: squashfs or tarball", path=True),
                Question("alias", "Aliases", "what it is to be called; several with blanks between"),
                Question("reuse", "Replace", "take an alias from the image that has it", flag=True),
                Question("public", "Public", "anybody who reaches this server may fetch it", flag=True),
                Question("more", "More", "its properties: key=value …, such as description=\"my own\""),
            ],
            submit, shown, "Import", interruptible=True, check=check,
            note="The server itself fetches what an address names.",
        )
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _is_address(text: str) -> bool:
    return text.startswith(("https://", "http://"))


def _unfit(file: str) -> str:
    """Why a file, directory or address can be no image, as far as it is seen from here; "" where it may be one."""
    if _is_address(file):
        return "" if file.startswith("https://") else "Only https:// is fetched: what comes by http:// can be anybody's"
    path = os.path.expanduser(file)
    if not file:
        return "Name a file, a directory or an address"
    if not os.path.exists(path):
        # One that goes on is still being typed; our own command line tells of it if it is not.
        return "" if completed(file) else f"There is no file or directory {file} here"
    if os.path.isdir(path) and not os.path.isfile(f"{path}/metadata.yaml"):
        return "A directory needs metadata.yaml and rootfs in it to be an image"
    return ""


def _unfit_root(root: str, file: str) -> str:
    if not root:
        return ""
    if _is_address(file) or os.path.isdir(os.path.expanduser(file)):
        return "An address or a directory is the whole image: leave this empty"
    if not os.path.isfile(os.path.expanduser(root)):
        return "" if completed(root) else f"There is no file {root} here"
    # Our own command line would take it for a property, or for a remote.
    return "Give it a name without = and without : at its end" if "=" in root or root.endswith(":") else ""


def publish(app: "LxpyApp", _: Sequence[Any]) -> None:
    """An image of an instance, which is asked for."""
    from lxpy.tui.screens.pick import Option, Pick
    from lxpy.tui.verbs import transfer

    known = list(app.model.instances.values())
    if not known:
        app.notify("n launches one", title="There is no instance to publish")
        return

    def answer(name: str | None) -> None:
        row = app.model.instances.get(name or "")
        if row is not None:
            transfer.publish(app, [row])

    known.sort(key=lambda row: (row.status != "Stopped", row.name))
    app.push_screen(
        Pick("An image of which instance?", [Option(r.name, r.status.lower(), r.name) for r in known]), answer
    )

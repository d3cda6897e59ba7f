"""What is the same for all kinds of objects: edit, rename, delete; and what small kinds have."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lxpy.tui.objects import NetworkRow
from lxpy.tui.rows import ImageRow, InstanceRow

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

# What PUT takes of each kind; the rest of an object only tells.
WRITABLE: dict[str, tuple[str, ...]] = {
    "instances": ("architecture", "config", "description", "devices", "ephemeral", "profiles"),
    "images": ("auto_update", "expires_at", "profiles", "properties", "public"),
    "profiles": ("config", "description", "devices"),
}
_PLAIN = ("config", "description")
_WORDS = {"storage-pools": "storage pool", "networks": "network", "profiles": "profile", "warnings": "warning"}


def where(row: Any) -> tuple[str, str]:
    """Kind and address of a row."""
    if isinstance(row, InstanceRow):
        return "instances", f"/1.0/instances/{quote(row.name)}"
    if isinstance(row, ImageRow):
        return "images", f"/1.0/images/{row.fingerprint}"
    return row.kind, row.path


def edit(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The keys of one object in a form; an image's few fields as YAML."""
    from lxpy.tui.editables import ConfigOf
    from lxpy.tui.screens.keys import KeysForm

    if not rows:
        return
    if isinstance(rows[0], ImageRow):
        edit_yaml(app, rows[0])
    elif isinstance(rows[0], NetworkRow) and not rows[0].managed:
        app.notify(f"{rows[0].name} is the host's own: lxpy does not manage it", title="Nothing to edit", markup=False)
    else:
        app.push_screen(KeysForm(ConfigOf(app, rows[0])))


def edit_yaml(app: "LxpyApp", row: Any) -> None:
    """The YAML of one object, as the daemon has it now."""
    kind, path = where(row)
    if getattr(row, "remote", ""):
        app.notify("d downloads it; the copy here can be edited", title=f"{row.remote} has it, not this server")
        return
    title = getattr(row, "name", "") or row.title
    edit_document(app, f"{title} · {kind[:-1]}", path, WRITABLE.get(kind, _PLAIN), lambda: app.model.changed_kind(kind))


def edit_document(
    app: "LxpyApp", title: str, path: str, writable: tuple[str, ...], saved: Callable[[], object]
) -> None:
    """The fields `writable` of what lies at `path` as YAML; `saved` is called when they have been."""
    held: dict[str, Any] = {}

    async def load() -> dict[str, Any]:
        found, held["etag"] = await app.gateway.call(lambda c: c.get_etag(path))
        document = {key: found.get(key) for key in writable if key in found}
        if "config" in document:
            document["config"] = {k: v for k, v in document["config"].items() if not k.startswith("volatile.")}
        held["hidden"] = {k: v for k, v in (found.get("config") or {}).items() if k.startswith("volatile.")}
        return document

    async def save(changed: Any, over: bool) -> None:
        if not isinstance(changed, dict):
            raise ValueError("The document must be a mapping: keys and values")
        unknown = sorted(set(changed) - set(writable))
        if unknown:
            raise ValueError(f"Unknown field {unknown[0]!r}: only {', '.join(writable)} can be changed")
        if "config" in writable:
            given = {str(k): _text(v) for k, v in (changed.get("config") or {}).items()}
            changed = {**changed, "config": {**held["hidden"], **given}}
        etag = "" if over else held["etag"]
        await app.model.follow(await app.gateway.call(lambda c: c.put(path, changed, etag)))
        saved()

    async def work() -> None:
        from lxpy.tui.screens.edit import Editor

        try:
            document = await load()
        except Exception as error:
            app.fail("Cannot edit", error)
            return
        app.push_screen(Editor(title, document, save, load))

    app.run_worker(work(), group="verbs", exit_on_error=False)


def _text(value: Any) -> str:
    """Configuration values are strings; YAML makes numbers and booleans of some."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def delete(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Asks, naming what goes."""
    if not rows:
        return
    word = _WORDS.get(rows[0].kind, "object")
    what = f"{word} {rows[0].name}" if len(rows) == 1 else f"{len(rows)} {word}s"
    names = [r.description or r.name if r.kind == "warnings" else r.name for r in rows]

    async def one(row: Any) -> None:
        await app.model.follow(await app.gateway.call(lambda c: c.delete(row.path)))
        app.model.changed_kind(row.kind)

    app.actions.ask(
        "delete", f"Delete {what}?", names, "delete", "", lambda: app.actions.each("Cannot delete", rows, one),
        many=len(rows) > 1,
    )  # fmt: skip


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Another name for a profile or network."""
    if not rows:
        return
    row = rows[0]
    if isinstance(row, NetworkRow) and not row.managed:
        app.notify(f"{row.name} is the host's own: lxpy does not manage it", title="Nothing to rename", markup=False)
        return

    async def renamed(name: str) -> None:
        await app.model.follow(await app.gateway.call(lambda c: c.post(row.path, {"name": name})))
        app.model.changed_kind(row.kind)
        app.main.pane(row.kind).go_to(name)

    async def check(name: str) -> str:
        return await taken(app, row.kind, name)

    note = "Only a network that nothing uses can be renamed." if isinstance(row, NetworkRow) else ""
    ask_name(app, row.name, (row.kind[:-1],), renamed, check, note)


def ask_name(
    app: "LxpyApp", name: str, kind: tuple[str, ...], renamed: Callable[[str], Awaitable[object]],
    check: Callable[[str], Awaitable[str]], note: str = "",
) -> None:  # fmt: skip
    """A form for another name of an object.

    Args:
        kind: how the command line names the kind.
        renamed: gives it the name; what it raises is shown in the form.
        check: what is wrong with the name, "" for nothing.
    """
    from lxpy.tui.screens.form import Answers, Form, Question
    from lxpy.tui.verbs.common import ref, shown, words

    async def faults(answers: Answers) -> dict[str, str]:
        if answers["name"] == name:
            return {"name": "It is called that now: type another name"}
        wrong = await check(answers["name"])
        return {"name": wrong} if wrong else {}

    async def submit(answers: Answers) -> None:
        await renamed(answers["name"])

    app.push_screen(
        Form(f"Rename {name}", [Question("name", "Name", value=name)], submit, verb="Rename", check=faults, note=note,
             line=lambda a: shown(words(app, *kind, "rename", ref(app, name), a["name"] or "NAME")))
    )  # fmt: skip


async def taken(app: "LxpyApp", kind: str, name: str) -> str:
    """Why nothing of a kind can be called so; "" where it can."""
    faults = await app.rules.faults(kind[:-1], {}, name=name)
    if not faults.get("name") and any(row.key == name for row in app.model.objects.get(kind, [])):
        return f"There is a {kind[:-1]} {name!r} already: choose another name"
    return faults.get("name", "")


def copy_profile(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A new profile with what the selected one has, here or in another project."""
    from lxpy.tui.screens.form import Answers, Form, Question
    from lxpy.tui.verbs.common import names_of, ref, shown, words

    if not rows:
        return
    row = rows[0]
    here = app.gateway.project or "default"

    async def check(answers: Answers) -> dict[str, str]:
        name = answers["name"]
        if answers["project"] in ("", here):
            wrong = await taken(app, row.kind, name)
        else:
            wrong = (await app.rules.faults("profile", {}, name=name)).get("name", "")
        return {"name": wrong} if wrong else {}

    async def submit(answers: Answers) -> None:
        project = answers["project"]
        found = await app.gateway.call(lambda c: c.get(row.path))
        body = {"name": answers["name"], **{key: found[key] for key in WRITABLE["profiles"]}}
        place = "/1.0/profiles" + (f"?project={quote(project)}" if project else "")
        await app.model.follow(await app.gateway.call(lambda c: c.post(place, body)))
        if project in ("", here):
            app.model.changed_kind(row.kind)
            app.main.pane(row.kind).go_to(answers["name"])
        else:
            app.notify(f"{answers['name']} is in project {project}", title="Copied", timeout=4, markup=False)

    def line(answers: Answers) -> str:
        project = ["--target-project", answers["project"]] if answers["project"] else []
        return shown(words(app, "profile", "copy", ref(app, row.name), ref(app, answers["name"] or "NAME"), *project))

    async def begin() -> None:
        projects = await names_of(app, "/1.0/projects")
        app.push_screen(
            Form(f"Copy profile {row.name}",
                 [Question("name", "Name", "of the new one", f"{row.name}-copy"),
                  Question("project", "Project", "left empty: the same", among=projects)],
                 submit, line, "Copy", check=check)
        )  # fmt: skip

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def cancel(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Ends an operation."""

    async def one(row: Any) -> None:
        await app.gateway.call(lambda c: c.delete(f"/1.0/operations/{row.key}"))

    running = [row for row in rows if not row.ended]
    if running:
        what = running[0].name if len(running) == 1 else f"{len(running)} operations"
        app.actions.ask(
            "cancel", f"Cancel {what}?", [row.name for row in running], "cancel", "",
            lambda: app.actions.each("Cannot cancel", running, one), many=len(running) > 1,
        )  # fmt: skip
    else:
        app.notify("It has ended already", title="Nothing to cancel", timeout=3)


def acknowledge(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Warnings that somebody has seen."""

    async def one(row: Any) -> None:
        await app.gateway.call(lambda c: c.put(row.path, {"status": "acknowledged"}))
        app.model.changed_kind("warnings")

    app.actions.each("Cannot acknowledge", [row for row in rows if row.status == "new"], one)

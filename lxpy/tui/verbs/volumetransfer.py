"""Custom volumes elsewhere: copied, moved, exported into files of this machine, made of such files."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest
from lxpy.tui.objects import PoolRow
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.verbs import transfer
from lxpy.tui.verbs.common import PATTERN_HINT, ask, called, named, names_of, ref, safe
from lxpy.tui.verbs.volumes import done, line, volume, volumes, words
from lxpy.tui.volumerows import VolumeRow, volume_url

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def copy(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A volume with its snapshots, or what one snapshot holds; or an earlier copy brought up to date."""
    row = volume(app, rows, snapshots=True)
    if row is None:
        return
    pools = tuple(one.name for one in app.model.objects.get("storage-pools", [])) or (row.pool,)

    async def submit(answers: Answers) -> None:
        source = {
            "type": "copy", "pool": row.pool, "name": row.name, "volume_only": bool(answers.get("only")),
            "refresh": bool(answers["refresh"]),
        }  # fmt: skip
        body = {"name": answers["name"], "type": "custom", "source": source, "config": {}}
        await done(app, "post", volume_url(answers["pool"]), body)

    async def check(answers: Answers) -> Mapping[str, str]:
        if answers["refresh"]:
            return {}  # the name is one that is taken
        return await app.rules.faults("storage-volume", {}, pool=answers["pool"], name=answers["name"])

    def shown(answers: Answers) -> str:
        only = [flag for name, flag in (("only", "--volume-only"), ("refresh", "--refresh")) if answers.get(name)]
        there = ref(app, f"{answers['pool']}/{answers['name']}")
        return line(app, "copy", f"{row.pool}/{row.name}", there, *only)

    questions = [Question("name", "Name", "of the copy", f"{row.volume}-copy"),
                 Question("pool", "Pool", value=row.pool, choices=pools)]  # fmt: skip
    if row.snapshots:
        questions.append(Question("only", "Snapshots", "leave them out", flag=True))
    questions.append(Question("refresh", "Refresh", "an earlier copy of that name: only what has changed", flag=True))
    app.push_screen(Form(f"Copy {row.name}", questions, submit, shown, "Copy", check=check))


def move(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """To another pool or project, and perhaps another name."""
    chosen = volumes(app, rows)
    if not chosen:
        return

    def place(row: VolumeRow, a: Answers) -> tuple[str, str]:
        return a["pool"] or row.pool, named(a["name"], chosen)[row.key] or row.name

    async def one(row: VolumeRow, a: Answers) -> str:
        pool, name = place(row, a)
        body = {"pool": pool, "name": name} | ({"project": a["project"]} if a["project"] else {})
        await done(app, "post", row.path, body)
        return f"{pool}/{name}" + (f" of {a['project']}" if a["project"] else "")

    def shown(row: VolumeRow, a: Answers) -> list[str]:
        project = ["--target-project", a["project"]] if a["project"] else []
        return words(app, "move", f"{row.pool}/{row.name}", ref(app, "/".join(place(row, a))), *project)

    def check(a: Answers) -> None:
        if not a["project"] and all(place(row, a) == (row.pool, row.name) for row in chosen):
            raise BadRequest("It is there already: name another pool, project or name")

    async def begin() -> None:
        pools, projects = await names_of(app, "/1.0/storage-pools"), await names_of(app, "/1.0/projects")
        used = [row for row in chosen if row.users]
        ask(
            app, chosen, f"Move {called(chosen)}", "Move",
            [
                Question("pool", "Pool", "left empty: the same", among=pools),
                Question("project", "Project", "left empty: the same", among=projects),
                Question("name", "Name", f"left empty: the same; {PATTERN_HINT}"),
            ],
            one, safe(shown), check=check, told="Moved",
            note=f"{called(used)} must be detached first: T, or P from a profile." if used else "",
        )  # fmt: skip

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def export(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Backups into files of this machine."""
    chosen = volumes(app, rows)
    if chosen:
        transfer.into_files(
            app, chosen, lambda row, *rest: words(app, "export", row.pool, row.name, *rest), "--volume-only"
        )


def import_backup(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A volume of a backup file, in the pool that is looked at."""
    pool = rows[0].name if rows and isinstance(rows[0], PoolRow) else ""
    if pool:
        transfer.of_file(
            app, f"Import a volume into {pool}", lambda a, file: words(app, "import", pool, file, a["name"])
        )

"""Custom volumes: made, sized, snapshotted, restored, renamed, edited, deleted."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError
from lxpy.tui import guides
from lxpy.tui.editables import VolumeOf
from lxpy.tui.objects import PoolRow
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.verbs import common
from lxpy.tui.volumerows import VolumeRow, volume_url

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_SIZED = ("btrfs", "zfs", "lvm")


def volumes(app: "LxpyApp", rows: Sequence[Any], *, snapshots: bool = False) -> list[VolumeRow]:
    """The custom volumes that are meant, and snapshots of them; none, and it is said why, where something else is.

    A snapshot whose volume is meant, too, goes with it.
    """
    found = [row for row in rows if isinstance(row, VolumeRow)]
    whole = {row.key for row in found if not row.snapshot}
    found = [row for row in found if not row.snapshot or f"{row.type} {row.volume}" not in whole]
    if not found:
        app.notify("Select a volume first, or press n to make one", title="No volume")
    for row in found:
        if not row.custom:
            owner = "image" if row.type == "image" else "instance"
            app.notify(f"{row.name} comes and goes with its {owner}", title="Not a volume of its own", markup=False)
            return []
        if row.snapshot and not snapshots:
            app.notify("It is a snapshot: select the volume itself", title=row.name, markup=False)
            return []
    return found


def volume(app: "LxpyApp", rows: Sequence[Any], *, snapshots: bool = False) -> VolumeRow | None:
    """As `volumes`, where it can be done to one at a time."""
    found = volumes(app, rows, snapshots=snapshots)
    if len(found) > 1:
        app.notify("Only one at a time: unmark the others", title=f"{len(found)} volumes are marked")
        return None
    return found[0] if found else None


async def done(app: "LxpyApp", method: str, path: str, body: Any = None) -> None:
    """One request and the end of its operation. Raises what either says."""
    await common.done(app, method, path, body)
    app.model.changed_kind("storage-pools")


def words(app: "LxpyApp", verb: str, where: str, *rest: str) -> list[str]:
    """``storage volume VERB`` of our own command line; `where` begins with the pool."""
    return common.words(app, "storage", "volume", verb, common.ref(app, where), *(word for word in rest if word))


def line(app: "LxpyApp", verb: str, where: str, *rest: str) -> str:
    """The same as a person types it."""
    return common.shown(words(app, verb, where, *rest))


# -- making ------------------------------------------------------------------------------------------------------------


def create(app: "LxpyApp", rows: Sequence[Any]) -> None:
    pool = rows[0] if rows else None
    if isinstance(pool, VolumeRow):
        name, driver = pool.pool, pool.driver
    elif isinstance(pool, PoolRow):
        name, driver = pool.name, pool.driver
    else:
        return
    sized = driver in _SIZED

    def config(answers: Answers) -> dict[str, str]:
        found = {"size": answers["size"]} if answers.get("size") else {}
        return found | guides.pairs(answers["more"])

    async def check(answers: Answers) -> Mapping[str, str]:
        try:
            wanted = config(answers)
        except ApiError as error:
            return {"more": error.message}
        faults = await app.rules.faults("storage-volume", wanted, pool=name, name=answers["name"])
        return {key if key in ("name", "size") and key in answers else "more": text for key, text in faults.items()}

    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "description": answers["about"], "type": "custom",
                "content_type": "filesystem", "config": config(answers)}  # fmt: skip
        await done(app, "post", volume_url(name), body)

    def shown(answers: Answers) -> str:
        try:
            pairs = [f"{key}={value}" for key, value in config(answers).items()]
        except ApiError:
            pairs = []
        about = ["--description", answers["about"]] if answers["about"] else []
        return line(app, "create", name, answers["name"] or "NAME", *pairs, *about)

    app.push_screen(
        Form(
            f"New volume in {name}",
            [
                Question("name", "Name", "data"),
                *([Question("size", "Size", "what it may hold, such as 10GiB; left empty: no limit")] if sized else []),
                Question("about", "About", "what it is for"),
                Question("more", "More", "key=value …, such as snapshots.schedule=@daily"),
            ],
            submit, shown, "Create", check=check,
            note="" if sized else f"A {driver} pool keeps no sizes: the volume may fill it.",
        )
    )  # fmt: skip


# -- what is there -----------------------------------------------------------------------------------------------------


def edit(app: "LxpyApp", rows: Sequence[Any]) -> None:
    from lxpy.tui.screens.keys import KeysForm

    if row := volume(app, rows):
        app.push_screen(KeysForm(VolumeOf(app, row)))


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = volume(app, rows, snapshots=True)
    if row is None:
        return
    old = row.snapshot or row.volume

    async def submit(answers: Answers) -> None:
        await done(app, "post", row.path, {"name": answers["name"]})

    def shown(answers: Answers) -> str:
        new = f"{row.volume}/{answers['name']}" if row.snapshot else answers["name"]
        return line(app, "rename", row.pool, row.name, new)

    app.push_screen(Form(f"Rename {row.name}", [Question("name", "Name", value=old)], submit, shown, "Rename"))


def resize(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """What it may hold, from now on."""
    row = volume(app, rows)
    if row is None:
        return
    before = (row.raw.get("config") or {}).get("size", "")

    async def check(answers: Answers) -> Mapping[str, str]:
        return await app.rules.faults("storage-volume", {"size": answers["size"]}, pool=row.pool)

    async def submit(answers: Answers) -> None:
        await done(app, "patch", row.path, {"config": {"size": answers["size"]}})

    def shown(answers: Answers) -> str:
        if answers["size"]:
            return line(app, "set", row.pool, row.name, f"size={answers['size']}")
        return line(app, "unset", row.pool, row.name, "size")

    question = Question("size", "Size", "such as 10GiB; left empty: no limit", before)
    app.push_screen(Form(f"Size of {row.name}", [question], submit, shown, "Set", check=check))


def snapshot(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Of one or of all that are marked, under the same name."""
    chosen = volumes(app, rows)
    if not chosen:
        return

    async def one(row: VolumeRow, answers: Answers) -> None:
        await done(app, "post", f"{row.path}/snapshots", {"name": answers["name"]})

    common.ask(
        app, chosen, f"Snapshot of {common.called(chosen)}", "Take it",
        [Question("name", "Name", "left empty: snap0, snap1 … or what snapshots.pattern says")],
        one, lambda row, a: words(app, "snapshot", row.pool, row.name, a["name"]),
    )  # fmt: skip


def restore(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The volume as it was in a snapshot."""
    row = volume(app, rows, snapshots=True)
    if row is None:
        return
    if not row.snapshot:
        app.notify("Select one of its snapshots; a takes one", title=f"Restore {row.name} to what?", markup=False)
        return

    async def one(row: VolumeRow) -> None:
        await done(app, "put", volume_url(row.pool, row.volume), {"restore": row.snapshot})
        app.notify(f"{row.volume} is as in {row.snapshot}", title="Restored", markup=False)

    def answer(yes: bool | None) -> None:
        if yes:
            app.actions.each("Cannot restore", [row], one)

    note = "What the volume has become since is lost, unless a snapshot has it."
    app.push_screen(Confirm(f"Restore {row.volume} to {row.snapshot}?", [row.name], "restore", note), answer)


def delete(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Asks, naming what goes and who has it."""
    chosen = volumes(app, rows, snapshots=True)
    if not chosen:
        return

    async def one(row: VolumeRow) -> None:
        await done(app, "delete", row.path)

    whole = [row for row in chosen if not row.snapshot]
    lost = sum(row.snapshots for row in whole)
    what = f"{'volume' if whole else 'snapshot'} {chosen[0].name}" if len(chosen) == 1 else common.called(chosen)
    note = "What it holds is deleted with it" if len(chosen) == 1 else "What volumes hold is deleted with them"
    note += f", and {'its' if len(chosen) == 1 else 'their'} {lost} snapshot{'s' * (lost > 1)}." if lost else "."
    names = [row.name + "".join(f"  used by {user}" for user in row.users[:1]) for row in chosen]
    if len(chosen) == 1:
        names = [chosen[0].name, *(f"used by {user}" for user in chosen[0].users)]
    app.actions.ask(
        "delete", f"Delete {what}?", names, "delete", note if whole else "",
        lambda: app.actions.each("Cannot delete", chosen, one), many=len(chosen) > 1,
    )  # fmt: skip

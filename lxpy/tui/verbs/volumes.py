"""Custom volumes: made, attached, detached, sized, snapshotted, restored, copied, renamed, deleted."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError
from lxpy.tui import guides
from lxpy.tui.editables import VolumeOf
from lxpy.tui.objects import PoolRow
from lxpy.tui.rows import InstanceRow
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.verbs.devices import change
from lxpy.tui.volumerows import VolumeRow, volume_url

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_SIZED = ("btrfs", "zfs", "lvm")


def _volume(app: "LxpyApp", rows: Sequence[Any], *, snapshot: bool = False) -> VolumeRow | None:
    """The custom volume (or snapshot) that is meant; says so where none is."""
    row = rows[0] if rows else None
    if not isinstance(row, VolumeRow):
        app.notify("Select a volume first, or press n to make one", title="No volume")
        return None
    if not row.custom:
        owner = "image" if row.kind == "image" else "instance"
        app.notify(f"{row.name} comes and goes with its {owner}", title="Not a volume of its own", markup=False)
        return None
    if row.snapshot and not snapshot:
        app.notify("It is a snapshot: select the volume itself", title=row.name, markup=False)
        return None
    return row


async def _done(app: "LxpyApp", method: str, path: str, body: Any = None) -> None:
    """One request and the end of its operation. Raises what either says."""
    await app.model.follow(await app.gateway.call(lambda c: getattr(c, method)(path, body)))
    app.model.changed_kind("storage-pools")


def _line(*words: str) -> str:
    return shlex.join(["lxpy", "storage", "volume", *(word for word in words if word)])


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
        await _done(app, "post", volume_url(name), body)

    def line(answers: Answers) -> str:
        try:
            words = [f"{key}={value}" for key, value in config(answers).items()]
        except ApiError:
            words = []
        about = ["--description", answers["about"]] if answers["about"] else []
        return _line("create", name, answers["name"] or "NAME", *words, *about)

    app.push_screen(
        Form(
            f"New volume in {name}",
            [
                Question("name", "Name", "data"),
                *([Question("size", "Size", "what it may hold, such as 10GiB; left empty: no limit")] if sized else []),
                Question("about", "About", "what it is for"),
                Question("more", "More", "key=value …, such as snapshots.schedule=@daily"),
            ],
            submit, line, "Create", check=check,
            note="" if sized else f"A {driver} pool keeps no sizes: the volume may fill it.",
        )
    )  # fmt: skip


def copy(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A volume with its snapshots, or what one snapshot holds."""
    row = _volume(app, rows, snapshot=True)
    if row is None:
        return
    pools = tuple(one.name for one in app.model.objects.get("storage-pools", [])) or (row.pool,)

    async def submit(answers: Answers) -> None:
        source = {"type": "copy", "pool": row.pool, "name": row.name, "volume_only": bool(answers.get("only"))}
        body = {"name": answers["name"], "type": "custom", "source": source, "config": {}}
        await _done(app, "post", volume_url(answers["pool"]), body)

    async def check(answers: Answers) -> Mapping[str, str]:
        return await app.rules.faults("storage-volume", {}, pool=answers["pool"], name=answers["name"])

    def line(answers: Answers) -> str:
        only = "--volume-only" if answers.get("only") else ""
        return _line("copy", f"{row.pool}/{row.name}", f"{answers['pool']}/{answers['name']}", only)

    questions = [Question("name", "Name", "of the copy", f"{row.volume}-copy"),
                 Question("pool", "Pool", value=row.pool, choices=pools)]  # fmt: skip
    if row.snapshots:
        questions.append(Question("only", "Snapshots", "leave them out", flag=True))
    app.push_screen(Form(f"Copy {row.name}", questions, submit, line, "Copy", check=check))


# -- what is there -----------------------------------------------------------------------------------------------------


def edit(app: "LxpyApp", rows: Sequence[Any]) -> None:
    from lxpy.tui.screens.keys import KeysForm

    if row := _volume(app, rows):
        app.push_screen(KeysForm(VolumeOf(app, row)))


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = _volume(app, rows, snapshot=True)
    if row is None:
        return
    old = row.snapshot or row.volume

    async def submit(answers: Answers) -> None:
        await _done(app, "post", row.path, {"name": answers["name"]})

    def line(answers: Answers) -> str:
        new = f"{row.volume}/{answers['name']}" if row.snapshot else answers["name"]
        return _line("rename", row.pool, row.name, new)

    app.push_screen(Form(f"Rename {row.name}", [Question("name", "Name", value=old)], submit, line, "Rename"))


def resize(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """What it may hold, from now on."""
    row = _volume(app, rows)
    if row is None:
        return
    before = (row.raw.get("config") or {}).get("size", "")

    async def check(answers: Answers) -> Mapping[str, str]:
        return await app.rules.faults("storage-volume", {"size": answers["size"]}, pool=row.pool)

    async def submit(answers: Answers) -> None:
        await _done(app, "patch", row.path, {"config": {"size": answers["size"]}})

    def line(answers: Answers) -> str:
        if answers["size"]:
            return _line("set", row.pool, row.name, f"size={answers['size']}")
        return _line("unset", row.pool, row.name, "size")

    question = Question("size", "Size", "such as 10GiB; left empty: no limit", before)
    app.push_screen(Form(f"Size of {row.name}", [question], submit, line, "Set", check=check))


def snapshot(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = _volume(app, rows)
    if row is None:
        return

    async def submit(answers: Answers) -> None:
        await _done(app, "post", f"{row.path}/snapshots", {"name": answers["name"]})

    question = Question("name", "Name", "left empty: snap0, snap1 … or what snapshots.pattern says")
    app.push_screen(
        Form(f"Snapshot of {row.name}", [question], submit,
             lambda a: _line("snapshot", row.pool, row.name, a["name"]), "Take it")
    )  # fmt: skip


def restore(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The volume as it was in a snapshot."""
    row = _volume(app, rows, snapshot=True)
    if row is None:
        return
    if not row.snapshot:
        app.notify("Select one of its snapshots; a takes one", title=f"Restore {row.name} to what?", markup=False)
        return

    async def one(row: VolumeRow) -> None:
        await _done(app, "put", volume_url(row.pool, row.volume), {"restore": row.snapshot})
        app.notify(f"{row.volume} is as in {row.snapshot}", title="Restored", markup=False)

    def answer(yes: bool | None) -> None:
        if yes:
            app.actions.each("Cannot restore", [row], one)

    note = "What the volume has become since is lost, unless a snapshot has it."
    app.push_screen(Confirm(f"Restore {row.volume} to {row.snapshot}?", [row.name], "restore", note), answer)


def delete(app: "LxpyApp", rows: Sequence[Any]) -> None:
    row = _volume(app, rows, snapshot=True)
    if row is None:
        return

    async def one(row: VolumeRow) -> None:
        await _done(app, "delete", row.path)

    def answer(yes: bool | None) -> None:
        if yes:
            app.actions.each("Cannot delete", [row], one)

    what = "snapshot" if row.snapshot else "volume"
    note = (
        ""
        if row.snapshot
        else "What it holds is deleted with it"
        + (f", and its {row.snapshots} snapshot{'s' if row.snapshots > 1 else ''}." if row.snapshots else ".")
    )
    names = [row.name, *(f"used by {user}" for user in row.users)]
    app.push_screen(Confirm(f"Delete {what} {row.name}?", names, "delete", note), answer)


# -- in instances ------------------------------------------------------------------------------------------------------


def attach(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Gives it to an instance, where it is seen at once."""
    row = _volume(app, rows)
    if row is None:
        return
    names = tuple(sorted(app.model.instances))
    if not names:
        app.notify("There is no instance yet: n in pane 1 launches one", title="Nothing to attach it to")
        return

    def device(answers: Answers) -> dict[str, str]:
        readonly = {"readonly": "true"} if answers["readonly"] else {}
        return {"type": "disk", "pool": row.pool, "source": row.volume, "path": answers["path"]} | readonly

    async def check(answers: Answers) -> Mapping[str, str]:
        instance, name = app.model.instances.get(answers["instance"]), answers["device"]
        if instance is None:
            return {"instance": "It is gone meanwhile"}
        there = instance.raw.get("expanded_devices") or {}
        if name in there:
            return {"device": f"{instance.name} has a device {name!r} already"}
        faults = await app.rules.device_faults(name, device(answers), {**there, name: device(answers)})
        return {key if key == "path" else "device" if "device name" in text else "": text
                for key, text in faults.items()}  # fmt: skip

    async def submit(answers: Answers) -> None:
        await change(app, app.model.instances[answers["instance"]], answers["device"], device(answers))
        app.model.changed_kind("storage-pools")

    def line(answers: Answers) -> str:
        if answers["readonly"]:
            words = guides.words(device(answers))
            return shlex.join(["lxpy", "config", "device", "add", answers["instance"], answers["device"], "disk",
                               *words])  # fmt: skip
        return _line("attach", row.pool, row.volume, answers["instance"], answers["device"], answers["path"] or "PATH")

    app.push_screen(
        Form(
            f"Attach {row.name}",
            [
                Question("instance", "Instance", choices=names),
                Question("path", "Inside", "where it is in the instance, such as /srv/data"),
                Question("device", "Name", "of the device", row.volume),
                Question("readonly", "Read-only", "nobody inside can write", flag=True),
            ],
            submit, line, "Attach", check=check,
        )
    )  # fmt: skip


def detach(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Takes it from an instance, which is asked for where there are several."""
    if row := _volume(app, rows):
        app.run_worker(_detach(app, row), group="verbs", exit_on_error=False)


async def _detach(app: "LxpyApp", row: VolumeRow) -> None:
    try:
        # Not what the list knows: it may have been attached a moment ago.
        raws = await app.gateway.call(lambda c: c.get("/1.0/instances", recursion="1"))
    except Exception as error:
        app.fail(f"Cannot detach {row.name}", error)
        return
    found: dict[str, tuple[InstanceRow, str]] = {}
    for raw in raws:
        for name, device in (raw.get("devices") or {}).items():
            if (device.get("pool"), device.get("source")) == (row.pool, row.volume):
                found[f"{raw['name']} {name}"] = (InstanceRow(raw), name)
    if not found:
        why = f"{', '.join(row.users)} has it: change it there" if row.users else "No instance has it"
        app.notify(why, title="Nothing to detach", markup=False)
        return

    def sure(choice: str | None) -> None:
        if choice is None:
            return
        instance, name = found[choice]

        async def one(row: VolumeRow) -> None:
            await change(app, instance, name, None)
            app.model.changed_kind("storage-pools")

        def answer(yes: bool | None) -> None:
            if yes:
                app.actions.each("Cannot detach", [row], one)

        names = [f"{instance.name}: device {name}"]
        app.push_screen(Confirm(f"Detach {row.name}?", names, "detach", "What it holds stays."), answer)

    if len(found) == 1:
        sure(next(iter(found)))
    else:
        choices = [Choice(instance.name, choice) for choice, (instance, _) in found.items()]
        app.push_screen(Choose(f"Detach {row.name} from", choices), sure)

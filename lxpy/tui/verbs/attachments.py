"""Custom volumes given to instances and profiles, and taken from them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lxpy.api.errors import BadRequest
from lxpy.tui import guides
from lxpy.tui.objects import ProfileRow
from lxpy.tui.rows import InstanceRow
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Answers, Question
from lxpy.tui.verbs import common
from lxpy.tui.verbs.devices import change
from lxpy.tui.verbs.volumes import volumes, words
from lxpy.tui.volumerows import VolumeRow

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class _Kind(NamedTuple):
    """Who may have a volume.

    Attributes:
        name, path: singular; of all of them.
        row: makes a row of one.
        suffix, group: of the command line's verb, and of its ``device add``.
        key: that takes it away.
        none: what is said where there is none.
    """

    name: str
    path: str
    row: type[InstanceRow] | type[ProfileRow]
    suffix: str
    group: str
    key: str
    none: str


_INSTANCE = _Kind("instance", "/1.0/instances", InstanceRow, "", "config", "T",
                  "There is no instance yet: n in pane 1 launches one")  # fmt: skip
_PROFILE = _Kind("profile", "/1.0/profiles", ProfileRow, "-profile", "profile", "P",
                 "There is no profile yet: n in pane 6 makes one")  # fmt: skip


def attach(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Gives it to an instance, where it is seen at once."""
    _begin(app, _attach(app, rows, _INSTANCE))


def attach_profile(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Gives it to a profile, and so to all instances with that."""
    _begin(app, _attach(app, rows, _PROFILE))


def detach(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Takes it from an instance, which is asked for where there are several."""
    _begin(app, _detach(app, rows, _INSTANCE))


def detach_profile(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Takes it from a profile."""
    _begin(app, _detach(app, rows, _PROFILE))


def _begin(app: "LxpyApp", work: Any) -> None:
    app.run_worker(work, group="verbs", exit_on_error=False)


async def _owners(app: "LxpyApp", kind: _Kind, title: str) -> list[Any] | None:
    """Who may have it, as the daemon knows them now: something may have been attached a moment ago."""
    try:
        raws = await app.gateway.call(lambda c: c.get(kind.path, recursion="1"))
    except Exception as error:
        app.fail(title, error)
        return None
    return [kind.row(raw) for raw in sorted(raws, key=lambda raw: str(raw["name"]))]


async def _attach(app: "LxpyApp", rows: Sequence[Any], kind: _Kind) -> None:
    chosen = volumes(app, rows)
    found = await _owners(app, kind, "Cannot attach it") if chosen else None
    if found is None:
        return
    if not found:
        app.notify(kind.none, title="Nothing to attach it to")
        return
    owners = {owner.name: owner for owner in found}

    def device(row: VolumeRow, a: Answers) -> tuple[str, dict[str, str]]:
        made = {"type": "disk", "pool": row.pool, "source": row.name, "path": common.named(a["path"], chosen)[row.key]}
        return common.named(a["device"], chosen)[row.key], made | ({"readonly": "true"} if a["readonly"] else {})

    async def check(a: Answers) -> Mapping[str, str]:
        for key in ("path", "device"):
            try:
                common.named(a[key], chosen)
            except BadRequest as error:
                return {key: error.message}
        owner = owners[a[kind.name]]
        expanded = owner.raw.get("expanded_devices")
        for row in chosen:
            if (name := device(row, a)[0]) in (expanded or owner.raw.get("devices") or {}):
                return {"device": f"{owner.name} has a device {name!r} already"}
        name, made = device(chosen[0], a)  # of many the others differ in their names only
        whole = None if expanded is None else {**expanded, name: made}
        faults = await app.rules.device_faults(name, made, whole)
        return {key if key == "path" else "device" if "device name" in text else "": text
                for key, text in faults.items()}  # fmt: skip

    async def one(row: VolumeRow, a: Answers) -> str:
        name, made = device(row, a)
        await change(app, owners[a[kind.name]], name, made, new=True)
        app.model.changed_kind("storage-pools")
        return f"at {made['path']}"

    def line(row: VolumeRow, a: Answers) -> list[str]:
        name, made = device(row, a)
        if a["readonly"]:
            owner = common.ref(app, a[kind.name])
            return common.words(app, kind.group, "device", "add", owner, name, "disk", *guides.words(made))
        return words(app, f"attach{kind.suffix}", row.pool, row.name, a[kind.name], name, made["path"] or "PATH")

    common.ask(
        app, chosen, f"Attach {common.called(chosen)}", "Attach",
        [
            Question(kind.name, kind.name.capitalize(), choices=tuple(owners)),
            Question("path", "Inside", "where it is in the instance, such as /srv/data"
                     if len(chosen) == 1 else "such as /srv/{name}: {name} is each volume's name"),
            Question("device", "Name", "of the device", common.pattern(chosen)),
            Question("readonly", "Read-only", "nobody inside can write", flag=True),
        ],
        one, common.safe(line), faults=check,
        note="All instances with the profile have it then." if kind is _PROFILE else "",
    )  # fmt: skip


async def _detach(app: "LxpyApp", rows: Sequence[Any], kind: _Kind) -> None:
    chosen = volumes(app, rows)
    owners = await _owners(app, kind, "Cannot detach it") if chosen else None
    if owners is None:
        return
    places = [
        (row, owner, name)
        for row in chosen
        for owner in owners
        for name, device in (owner.raw.get("devices") or {}).items()
        if device.get("type") == "disk" and (device.get("pool"), device.get("source")) == (row.pool, row.name)
    ]
    if not places:
        app.notify(_elsewhere(chosen, kind), title="Nothing to detach", markup=False)
    elif len(chosen) > 1 or len(places) == 1:
        _sure(app, kind, places)
    else:
        labels = {f"{owner.name} {name}": (row, owner, name) for row, owner, name in places}

        def picked(label: str | None) -> None:
            if label is not None:
                _sure(app, kind, [labels[label]])

        choices = [Choice(owner.name, label, f"device {name}") for label, (_, owner, name) in labels.items()]
        app.push_screen(Choose(f"Detach {chosen[0].name} from", choices), picked)


def _elsewhere(rows: Sequence[VolumeRow], kind: _Kind) -> str:
    """Who else has them, and how they are detached there."""
    users = sorted({user for row in rows for user in row.users})
    if not users:
        return f"No {kind.name} has {'it' if len(rows) == 1 else 'one of them'}"
    other = _PROFILE if kind is _INSTANCE else _INSTANCE
    there = any(user.startswith(f"{other.name} ") for user in users)
    return f"{', '.join(users)} has it: {f'{other.key} detaches it there' if there else 'change it there'}"


def _sure(app: "LxpyApp", kind: _Kind, places: Sequence[tuple[VolumeRow, Any, str]]) -> None:
    rows = list({row.key: row for row, _, _ in places}.values())

    async def one(row: VolumeRow) -> None:
        for each, owner, name in places:
            if each is row:
                await change(app, owner, name, None)
        app.model.changed_kind("storage-pools")

    def answer(yes: bool | None) -> None:
        if yes:
            app.actions.each("Cannot detach", rows, one)

    names = [f"{owner.name}: device {name}" for _, owner, name in places]
    note = "What it holds stays." if len(rows) == 1 else "What they hold stays."
    if kind is _PROFILE:
        note += " All instances with the profile are without it then."
    app.push_screen(Confirm(f"Detach {common.called(rows)}?", names, "detach", note), answer)

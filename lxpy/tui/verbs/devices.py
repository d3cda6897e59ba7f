"""Devices of instances and profiles: added by kind, edited, removed, put before a profile's, masked."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError, PreconditionFailed
from lxpy.tui import guides
from lxpy.tui.devicerows import DeviceRow, summary
from lxpy.tui.editables import DeviceOf
from lxpy.tui.gateway import explain
from lxpy.tui.guides import Guide
from lxpy.tui.rows import InstanceRow
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.confirm import Confirm
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.verbs.objects import WRITABLE, where

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

Taken = Callable[[str, dict[str, str]], Any]


async def change(
    app: "LxpyApp", owner: Any, name: str, device: Mapping[str, str] | None, *, new: bool = False
) -> None:  # fmt: skip
    """Gives an instance or profile a device, or takes it away (None). What others do meanwhile stays.

    Args:
        new: refuse it where there is a device of that name.

    Raises:
        ApiError, OSError: why it could not be done.
    """
    async with app.actions.turn(where(owner)[1]):  # several at once would be in each other's way
        await _change(app, owner, name, device, new)


async def _change(app: "LxpyApp", owner: Any, name: str, device: Mapping[str, str] | None, new: bool) -> None:
    kind, path = where(owner)
    for last in (False, False, True):
        raw, etag = await app.gateway.call(lambda c: c.get_etag(path))
        devices = dict(raw.get("devices") or {})
        if new and name in devices:
            raise ApiError(f"{owner.name} has a device {name!r} already")
        if device is None:
            devices.pop(name, None)
        else:
            devices[name] = dict(device)
        body = {key: raw[key] for key in WRITABLE[kind] if key in raw} | {"devices": devices}
        try:
            answer = await app.gateway.call(lambda c, body=body, etag=etag: c.put(path, body, etag))  # type: ignore[misc]
        except PreconditionFailed:
            if last:
                raise
            continue
        await app.model.follow(answer)
        app.model.changed_kind(kind)
        return


# -- adding ------------------------------------------------------------------------------------------------------------


def add(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Asks what kind, then about it."""
    if not rows:
        return
    owner = rows[0].owner if isinstance(rows[0], DeviceRow) else rows[0]
    raw = owner.raw
    expanded = raw.get("expanded_devices")
    command = "lxpy config device add" if isinstance(owner, InstanceRow) else "lxpy profile device add"

    async def submit(name: str, device: dict[str, str]) -> None:
        await change(app, owner, name, device, new=True)

    def line(name: str, device: Mapping[str, str]) -> str:
        return f"{command} {shlex.join([owner.name, name, device.get('type', ''), *guides.words(device)])}"

    ask(app, f"New device of {owner.name}", raw.get("devices") or {}, expanded, submit, line)


def ask(
    app: "LxpyApp", title: str, taken: Mapping[str, Mapping[str, str]],
    expanded: Mapping[str, Mapping[str, str]] | None, submit: Taken, line: Callable[[str, Mapping[str, str]], str],
) -> None:  # fmt: skip
    """Asks what kind of device, and about one of that kind.

    Args:
        taken: names that are in use, with their devices.
        expanded: all devices that will be in force beside it, None where that is not known.
        submit: given its name and keys; what it raises is shown in the form.
        line: the command that does the same.
    """

    def chosen(label: str | None) -> None:
        if label:
            app.run_worker(_open(app, guides.BY_LABEL[label], title, taken, expanded, submit, line),
                           group="verbs", exit_on_error=False)  # fmt: skip

    choices = [Choice(guide.label, guide.about) for guide in guides.GUIDES]
    app.push_screen(Choose(title, choices, by_label=True), chosen)


async def _names(app: "LxpyApp", asked: guides.Asked) -> tuple[str, ...]:
    """The choices of a question; where they cannot be read it is answered by hand."""
    if asked.choices not in (guides.NETWORKS, guides.POOLS):
        return asked.choices
    path = "/1.0/networks" if asked.choices == guides.NETWORKS else "/1.0/storage-pools"
    try:
        found = await app.gateway.call(lambda c: c.get(path, recursion="1"))
    except (ApiError, OSError):
        return ()
    return tuple(one["name"] for one in found if one.get("managed", True))


async def _open(
    app: "LxpyApp", guide: Guide, title: str, taken: Mapping[str, Mapping[str, str]],
    expanded: Mapping[str, Mapping[str, str]] | None, submit: Taken, line: Callable[[str, Mapping[str, str]], str],
) -> None:  # fmt: skip
    names = guides.free_name(guide.name, {**(expanded or {}), **taken})
    questions = [Question("device", "Name", "what the device is called", names)]
    for one in guide.asked:
        questions.append(Question(one.key, one.label, one.hint, one.value, await _names(app, one), one.flag))
    questions.append(Question("more", "More", "key=value …, such as required=false"))

    def built(answers: Answers) -> dict[str, str]:
        return guides.device(guide, answers)

    async def check(answers: Answers) -> Mapping[str, str]:
        name = answers["device"]
        if name in taken:
            return {"device": f"There is a device {name!r} already"}
        try:
            device = built(answers)
        except ApiError as error:
            return {"more": error.message}
        whole = None if expanded is None else {**expanded, name: device}
        faults = await app.rules.device_faults(name, device, whole)
        own = {one.key for one in guide.asked}
        extra = guides.pairs(answers["more"])
        told: dict[str, str] = {}
        for key, text in faults.items():
            if key in own and key not in extra:
                told[key] = text
            elif "device name" in text:
                told["device"] = text
            else:
                told["more" if key in extra else (key and "more") or ""] = text
        return told

    def shown(answers: Answers) -> str:
        try:
            return line(answers["device"] or "NAME", built(answers))
        except ApiError:
            return line(answers["device"] or "NAME", guides.device(guide, {**answers, "more": ""}))

    async def done(answers: Answers) -> None:
        await submit(answers["device"], built(answers))

    app.push_screen(Form(f"{title}: {guide.about}", questions, done, shown, "Add", check=check))


# -- what is there -----------------------------------------------------------------------------------------------------


def edit(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Its keys in a form; a profile's device gets an own one before it."""
    from lxpy.tui.screens.keys import KeysForm

    chosen = [row for row in rows if isinstance(row, DeviceRow)]
    if chosen and chosen[0].kind != "none":
        row = chosen[0]
        app.push_screen(KeysForm(DeviceOf(app, row.owner, row.name, row.device, inherited=not row.own)))
    elif chosen:
        app.notify("Nothing is there to edit: ctrl+d takes the mask away", title=chosen[0].name, markup=False)


def remove(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Takes an own device away; a profile's is masked."""
    chosen = [row for row in rows if isinstance(row, DeviceRow)]
    if not chosen:
        return
    row = chosen[0]
    if not row.own:
        mask(app, rows)
        return
    back = f"The device of {row.over} is there again then." if row.over else ""
    inside = "What is in it stays." if row.device.get("type") == "disk" and row.device.get("source") else ""
    _sure(app, f"Remove device {row.name}?", row, "remove", " ".join((inside, back)).strip(), None)


def mask(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Puts nothing before a profile's device: the instance is without it."""
    chosen = [row for row in rows if isinstance(row, DeviceRow)]
    if not chosen:
        return
    row = chosen[0]
    if not isinstance(row.owner, InstanceRow) or (row.own and not row.over):
        app.notify("Only what comes from a profile can be masked; ctrl+d removes it", title=row.name, markup=False)
        return
    profile = row.over or row.origin
    note = f"It comes from {profile}, which keeps it: {row.owner.name} alone is without it."
    _sure(app, f"Mask device {row.name}?", row, "mask", note, {"type": "none"})


def _sure(
    app: "LxpyApp", question: str, row: DeviceRow, verb: str, note: str, device: Mapping[str, str] | None
) -> None:
    async def work() -> None:
        try:
            await change(app, row.owner, row.name, device)
        except Exception as error:
            app.notify(explain(error), title=f"Cannot {verb} {row.name}", severity="error", timeout=12, markup=False)

    def answer(yes: bool | None) -> None:
        if yes:
            app.run_worker(work(), group="verbs", exit_on_error=False)

    names = [f"{row.owner.name}: {row.name}  {row.kind}  {summary(row.device)}"]
    app.push_screen(Confirm(question, names, verb, note), answer)

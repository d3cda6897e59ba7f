"""Snapshot, restore, copy, move, rename: of one instance or of all that are marked."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api import expiry
from lxpy.tui.bulk import Skipped
from lxpy.tui.rows import InstanceRow, age, epoch
from lxpy.tui.screens.form import Answers, Question
from lxpy.tui.verbs.common import (
    PATTERN_HINT,
    ask,
    called,
    command,
    done,
    instances,
    named,
    names_of,
    path,
    pattern,
    ref,
    safe,
    words,
)  # fmt: skip

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def snapshot(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Of one or of all marked ones, under the same name."""
    chosen = instances(rows)

    async def one(row: InstanceRow, answers: Answers) -> str:
        body: dict[str, Any] = {"name": answers["name"], "stateful": False}
        if answers["kept"]:
            body["expires_at"] = expiry.typed(answers["kept"])
        if answers["reuse"] and answers["name"] in _names(row):
            await done(app, "delete", f"{path(row)}/snapshots/{answers['name']}")
        made = (await done(app, "post", f"{path(row)}/snapshots", body)).get("metadata") or {}
        stood = f", it stood still for {made['frozen_ms']:g} ms" if made.get("frozen_ms") else ""
        return f"{made.get('name') or answers['name'] or 'taken'}{stood}"

    def line(row: InstanceRow, a: Answers) -> list[str]:
        found = words(app, "snapshot", ref(app, row.name), *([a["name"]] if a["name"] else []))
        return found + (["--no-expiry"] if a["kept"] == "never" else []) + (["--reuse"] if a["reuse"] else [])

    ask(
        app, chosen, f"Snapshot of {called(chosen)}", "Take it",
        [
            Question("name", "Name", "left empty: snap0, snap1 … or what snapshots.pattern says"),
            Question("kept", "Kept for", "2w 3d, 12H, a date, never; empty: snapshots.expiry"),
            Question("reuse", "Replace", "a snapshot of that name", flag=True),
        ],
        one, line, check=lambda a: expiry.typed(a["kept"]) if a["kept"] else None,
    )  # fmt: skip


def _names(row: InstanceRow) -> list[str]:
    return [str(one["name"]).rpartition("/")[2] for one in row.raw.get("snapshots") or []]


def restore(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Picks a snapshot; of several instances by its name."""
    from lxpy.tui.screens.choose import Choice, Choose

    chosen = instances(rows)
    having: dict[str, list[InstanceRow]] = {}
    taken: dict[str, float] = {}
    for row in chosen:
        for raw in row.raw.get("snapshots") or []:
            name = str(raw["name"]).rpartition("/")[2]
            having.setdefault(name, []).append(row)
            taken[name] = max(taken.get(name, 0.0), epoch(raw.get("created_at", "")))
    if not having:
        app.notify(f"{called(chosen) or 'Nothing'} has no snapshots: a takes one", title="Nothing to restore",
                   markup=False)  # fmt: skip
        return

    def about(name: str) -> str:
        since = f"taken {age(taken[name])} ago"
        return since if len(chosen) == 1 else f"{since} · {len(having[name])} of {len(chosen)} have it"

    def picked(name: str | None) -> None:
        if name is not None:
            put_back(app, chosen, name)

    order = sorted(having, key=lambda name: taken[name], reverse=True)
    app.push_screen(
        Choose(f"Restore {called(chosen)} to", [Choice(n, about(n)) for n in order], by_label=True), picked
    )  # fmt: skip


def put_back(app: "LxpyApp", rows: Sequence[InstanceRow], name: str) -> None:
    """Makes instances what they were in their snapshots of that name, after a question."""

    async def one(row: InstanceRow) -> str:
        if name not in _names(row):
            raise Skipped(f"it has no snapshot {name}")
        await done(app, "put", path(row), {"restore": name})
        if len(rows) == 1:
            app.notify(f"{row.name} is as in {name}", title="Restored", markup=False)
        return f"as in {name}"

    note = "What they have become since is lost, unless a snapshot has it."
    if len(rows) == 1:
        note = f"What {rows[0].name} has become since is lost, unless a snapshot has it."
    if any(row.running for row in rows):
        note += " What runs is stopped for it and started again."
    what = f"{rows[0].name} to {name}" if len(rows) == 1 else f"{len(rows)} instances to {name}"
    app.actions.ask(
        "restore", f"Restore {what}?", [f"{row.name}/{name}" for row in rows], "restore", note,
        lambda: app.actions.each("Cannot restore", rows, one), many=len(rows) > 1,
    )  # fmt: skip


def copy(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """New instances of old ones; or an earlier copy brought up to date."""
    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        name = named(a["name"], chosen)[row.key]
        found = words(app, "copy", ref(app, row.name), _place(app, a, name or "NAME"))
        found += ["-s", a["pool"]] if a["pool"] else []
        found += ["--target-project", a["project"]] if a["project"] else []
        found += ["--instance-only"] if a["only"] else []
        return found + (["--refresh"] if a["refresh"] else [])

    async def begin() -> None:
        pools, projects = await names_of(app, "/1.0/storage-pools"), await names_of(app, "/1.0/projects")
        ask(
            app, chosen, f"Copy {called(chosen)}", "Copy",
            [
                Question("name", "Name", f"of the copy; {PATTERN_HINT}", pattern(chosen, "-copy")),
                _server(app),
                Question("pool", "Pool", "left empty: the same", among=pools),
                Question("project", "Project", "left empty: the same", among=projects),
                Question("only", "Snapshots", "leave them out", flag=True),
                Question("refresh", "Refresh", "an earlier copy of that name: only what has changed", flag=True),
            ],
            command(app, line), safe(line), check=lambda a: named(a["name"], chosen), interruptible=True,
        )  # fmt: skip

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def _server(app: "LxpyApp") -> Question:
    """Which server an instance is to go to."""
    others = [one.name for one in app.model.remotes if one.protocol == "lxd" and one.name != app.gateway.remote]
    return Question("server", "Server", "left empty: this one", among=tuple(others))


def _place(app: "LxpyApp", answers: Answers, name: str) -> str:
    """What is to be as the command line names it: on the server that was asked for."""
    return f"{answers['server'].rstrip(':')}:{name}" if answers["server"] else ref(app, name)


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    chosen = instances(rows)

    async def one(row: InstanceRow, answers: Answers) -> str:
        name = named(answers["name"], chosen)[row.key]
        await done(app, "post", path(row), {"name": name})
        return name

    def line(row: InstanceRow, a: Answers) -> list[str]:
        return words(app, "rename", ref(app, row.name), named(a["name"], chosen)[row.key])

    ask(
        app, chosen, f"Rename {called(chosen)}", "Rename",
        [Question("name", "Name", PATTERN_HINT, pattern(chosen, "" if len(chosen) == 1 else "-old"))],
        one, safe(line), check=lambda a: named(a["name"], chosen), note=_stopped(chosen),
    )  # fmt: skip


def move(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """To another server, pool or project, and perhaps another name."""
    from lxpy.api.errors import BadRequest

    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        name = named(a["name"], chosen)[row.key]
        new = name if name != row.name else ""
        found = words(app, "move", ref(app, row.name), *([_place(app, a, new)] if new or a["server"] else []))
        found += ["-s", a["pool"]] if a["pool"] else []
        return found + (["--target-project", a["project"]] if a["project"] else [])

    def check(a: Answers) -> None:
        names = named(a["name"], chosen)
        if not (a["server"] or a["pool"] or a["project"]) and all(names[row.key] in ("", row.name) for row in chosen):
            raise BadRequest("It is there already: name another server, pool, project or name")

    async def begin() -> None:
        pools, projects = await names_of(app, "/1.0/storage-pools"), await names_of(app, "/1.0/projects")
        ask(
            app, chosen, f"Move {called(chosen)}", "Move",
            [
                _server(app),
                Question("pool", "Pool", "left empty: the same", among=pools),
                Question("project", "Project", "left empty: the same", among=projects),
                Question("name", "Name", f"left empty: the same; {PATTERN_HINT}"),
            ],
            command(app, line), safe(line), check=check, note=_stopped(chosen), interruptible=True,
        )  # fmt: skip

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def _stopped(rows: Sequence[InstanceRow]) -> str:
    """What has to be said where instances must not run for it."""
    some = [row for row in rows if row.status != "Stopped"]
    return f"{called(some)} must be stopped first (x)." if some else ""

"""What changes instances in place: configuration keys, profiles, shares, another image, a command run inside."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError, BadRequest
from lxpy.tui.bulk import Batch
from lxpy.tui.rows import InstanceRow
from lxpy.tui.rules import KeyInfo, info_of
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.screens.onekey import OneKey
from lxpy.tui.verbs.common import Sure, ask, called, command, instances, names_of, ref, shown, words

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

# Configuration keys that are offered even where no instance has them.
OFTEN = frozenset(
    "boot.autostart limits.cpu limits.memory limits.processes security.nesting security.privileged snapshots.schedule "
    "snapshots.expiry snapshots.pattern".split()
)


def rebuild(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The root of another image; configuration and devices stay."""
    chosen = instances(rows)
    images = tuple(alias for image in app.model.images for alias in image.aliases)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        found = words(app, "rebuild", a["image"] or "IMAGE", ref(app, row.name))
        return found + (["--force"] if a["force"] else [])

    def check(a: Answers) -> None:
        if not a["image"]:
            raise BadRequest("Name the image, such as builtin:busybox or a local alias")

    ask(
        app, chosen, f"Rebuild {called(chosen)}", "Rebuild",
        [
            Question("image", "Image", "such as images:debian/12 or a local alias", among=images),
            Question("force", "Stop", "what runs for it, and start it again", flag=True),
        ],
        command(app, line), line, check=check, interruptible=True,
        sure=Sure("rebuild", "Their root file systems are lost, whole; configuration, devices and profiles stay."),
        note="An instance with snapshots cannot be rebuilt.",
    )  # fmt: skip


def configure(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """One configuration key, of all that are marked."""
    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        if a["value"]:
            return words(app, "config", "set", ref(app, row.name), f"{a['key'] or 'KEY'}={a['value']}")
        return words(app, "config", "unset", ref(app, row.name), a["key"] or "KEY")

    def check(a: Answers) -> None:
        if not a["key"]:
            raise BadRequest("Name the key, such as limits.memory")

    async def begin() -> None:
        infos: dict[str, KeyInfo] = {}
        with contextlib.suppress(ApiError, OSError, EOFError):  # nothing is explained then, and judged at the end
            infos = await app.rules.keys("instance")
        there = {key for row in app.model.instances.values() for key in row.raw.get("expanded_config") or {}}
        names = {key for key in there | OFTEN if not key.startswith(("volatile.", "image."))}
        names |= {info.family or info.name for info in infos.values()}
        now = dict(chosen[0].raw.get("expanded_config") or {}) if len(chosen) == 1 else {}

        async def faults(a: Answers) -> Mapping[str, str]:
            key, value = a["key"], a["value"]
            known = bool(info_of(infos, key).text)
            if not key or (not value and (known or key in now)):
                return {}
            # What excludes another key may be set, where it is one instance that is asked about.
            others = {k: v for k, v in now.items() if not k.startswith(("volatile.", "image.")) and k != key}
            found = await app.rules.faults("instance", {**others, key: value} if value else {key: "?"})
            wrong = found.get(key) or next(iter(found.values()), "")
            return {"value" if known else "key": wrong} if wrong else {}

        ask(
            app, chosen, f"Configure {called(chosen)}", "Set",
            [
                Question("key", "Key", "such as limits.memory; the right arrow completes", among=tuple(sorted(names))),
                Question("value", "Value", "left empty: the key is taken away"),
            ],
            command(app, line), line, check=check, faults=faults, form=partial(OneKey, infos=infos, now=now),
            note="What a key is for is said here while it is typed.",
        )  # fmt: skip

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def profiles(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """The profiles of all that are marked, in their order."""
    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        return words(app, "profile", "assign", ref(app, row.name), ",".join(a["profiles"].replace(",", " ").split()))

    async def begin() -> None:
        there = await names_of(app, "/1.0/profiles")
        ask(
            app, chosen, f"Profiles of {called(chosen)}", "Assign",
            [Question("profiles", "Profiles", "their names, the strongest last; left empty: none",
                      " ".join(chosen[0].raw.get("profiles") or []) if chosen else "")],
            command(app, line), line, note=f"There are {', '.join(there)}." if there else "",
        )  # fmt: skip

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def share(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A directory of the server's machine inside instances."""
    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        place = f"{ref(app, row.name)}:/{a['inside'].lstrip('/')}"
        return words(app, "share", a["path"] or "PATH", place, *(["--readonly"] if a["readonly"] else []))

    def check(a: Answers) -> None:
        if not a["path"] or not a["inside"].strip("/"):
            raise BadRequest("Name the directory of the host, and where it appears inside")

    ask(
        app, chosen, f"Share a directory with {called(chosen)}", "Share",
        [
            Question("path", "Path", "a directory of the server's machine", path=not app.gateway.remote),
            Question("inside", "Inside", "where it appears, such as /srv/data"),
            Question("readonly", "Read-only", "nobody inside can change it", flag=True),
        ],
        command(app, line), line, check=check,
        note="What belongs to the directory's owner is root's inside.",
    )  # fmt: skip


def unshare(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """No longer share a directory."""
    chosen = instances(rows)
    shares = {
        device.get("path", ""): device["source"]
        for row in chosen
        for device in (row.raw.get("devices") or {}).values()
        if device.get("type") == "disk" and not device.get("pool") and str(device.get("source", "")).startswith("/")
    }
    if not shares:
        app.notify(f"{called(chosen)} shares no directory of the host: the palette's Share does", title="No shares",
                   markup=False)  # fmt: skip
        return
    from lxpy.tui.screens.choose import Choice, Choose

    def picked(inside: str | None) -> None:
        if inside is None:
            return

        async def one(row: InstanceRow) -> Any:
            run = command(app, lambda r, _: words(app, "unshare", f"{ref(app, r.name)}:{inside}"))
            return await run(row, {})

        app.actions.each("Cannot unshare", chosen, one)

    choices = [Choice(inside, source) for inside, source in sorted(shares.items())]
    app.push_screen(Choose(f"Which one is {called(chosen)} to lose?", choices, by_label=True), picked)


def execute(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """One command inside all that are marked; what it writes is the result."""
    chosen = instances(rows)

    if not chosen:
        app.notify("Select an instance first, or press n to launch one", title="Nothing to run it in")
        return

    def line(row: InstanceRow, a: Answers) -> list[str]:
        return words(app, "exec", "-T", ref(app, row.name), "--", "sh", "-c", a["command"])

    async def submit(answers: Answers) -> None:
        if not answers["command"]:
            raise BadRequest("Write the command, such as uptime")

    def run(answers: dict[str, str] | None) -> None:
        if answers is None:
            return

        async def one(row: InstanceRow) -> Any:
            return await command(app, line)(row, answers)

        app.actions.start(Batch(f"$ {answers['command']}", chosen, one, interruptible=True, keep=True))

    app.push_screen(
        Form(
            f"Run in {called(chosen)}",
            [Question("command", "Command", "a line for sh: uptime, or apt-get update && apt-get -y upgrade")],
            submit, lambda a: shown(line(chosen[0], a), len(chosen) - 1), "Run",
            note="Without a terminal. What it writes is shown when it has ended; c breaks it off.",
        ),
        run,
    )  # fmt: skip

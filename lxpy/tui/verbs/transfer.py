"""Images and files of instances, and the way back: publish, export, import, push, pull."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import BadRequest
from lxpy.tui.rows import InstanceRow
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own
from lxpy.tui.verbs.common import (
    COMPRESSIONS,
    PATTERN_HINT,
    ask,
    called,
    command,
    here,
    instances,
    named,
    names_of,
    pattern,
    ref,
    safe,
    shown,
    words,
)  # fmt: skip

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def publish(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Images of instances."""
    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        alias = named(a["alias"], chosen)[row.key]
        found = words(app, "publish", ref(app, row.name), *(["--alias", alias] if alias else []))
        found += ["--compression", a["compression"], *(["--public"] if a["public"] else [])]
        return found + (["--force"] if a["force"] else []) + (["--reuse"] if a["reuse"] else [])

    running = any(row.status != "Stopped" for row in chosen)
    ask(
        app, chosen, f"Publish {called(chosen)}", "Publish",
        [
            Question("alias", "Alias", f"what the image is to be called; {PATTERN_HINT}", pattern(chosen)),
            Question("compression", "Packed by", choices=COMPRESSIONS),
            Question("public", "Public", "anybody who reaches this server may fetch it", flag=True),
            Question("reuse", "Replace", "take the alias from the image that has it", flag=True),
            Question("force", "Stop", "what runs for it, and start it again", flag=True),
        ],
        command(app, line), safe(line), check=lambda a: named(a["alias"], chosen), interruptible=True,
        told=f"{chosen[0].name} published" if chosen else "",
        note="What runs must be stopped first (x), or by the box above." if running else "",
    )  # fmt: skip


def export(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Backups of instances into files of this machine."""
    into_files(app, instances(rows), lambda row, *rest: words(app, "export", ref(app, row.name), *rest),
               "--instance-only")  # fmt: skip


def into_files(app: "LxpyApp", chosen: Sequence[Any], command_of: Callable[..., list[str]], alone: str) -> None:
    """Backups into files of this machine.

    Args:
        command_of: the command line for a row, given what comes behind its name.
        alone: the option that leaves snapshots out.
    """

    def file(row: Any, a: Answers) -> str:
        return here(named(a["file"], chosen)[row.key])

    def line(row: Any, a: Answers) -> list[str]:
        return command_of(row, file(row, a), "--compression", a["compression"], *([alone] if a["only"] else []))

    def check(a: Answers) -> None:
        if not a["file"]:
            raise BadRequest("Name the file that it goes into")
        there = [file(row, a) for row in chosen if os.path.exists(file(row, a))]
        if there and not a["replace"]:
            raise BadRequest(f"{there[0]} exists already: name another one, or tick Replace")

    run = command(app, line)

    async def one(row: Any, a: Answers) -> Any:
        await run(row, a)
        return file(row, a)

    ask(
        app, chosen, f"Export {called(chosen)}", "Export",
        [
            Question("file", "File", f"where to; {PATTERN_HINT}", pattern(chosen, ".tar.gz"), path=True),
            Question("compression", "Packed by", choices=COMPRESSIONS),
            Question("only", "Snapshots", "leave them out", flag=True),
            Question("replace", "Replace", "a file that is there already", flag=True),
        ],
        one, safe(line), check=check, interruptible=True, told="Exported",
    )  # fmt: skip


def import_backup(app: "LxpyApp", _: Sequence[Any]) -> None:
    """An instance of a backup file."""

    def line(a: Answers, file: str) -> list[str]:
        remote = [f"{app.gateway.remote}:"] if app.gateway.remote else []
        found = words(app, "import", *remote, file)
        return found + ([a["name"]] if a["name"] else []) + (["-s", a["pool"]] if a["pool"] else [])

    async def begin() -> None:
        pools = await names_of(app, "/1.0/storage-pools")
        pool = Question("pool", "Pool", "left empty: as it was, or the usual", among=pools)
        of_file(app, "Import a backup", line, pool)

    app.run_worker(begin(), group="verbs", exit_on_error=False)


def of_file(
    app: "LxpyApp", title: str, command_of: Callable[[Answers, str], list[str]], *more: Question
) -> None:  # fmt: skip
    """Something new of a backup file of this machine.

    Args:
        command_of: the command line, given the answers and the file.
        more: asked beside the file and the new name.
    """

    def line(a: Answers) -> list[str]:
        return command_of(a, here(a["file"]) or "FILE")

    async def submit(answers: Answers) -> None:
        if not answers["file"]:
            raise BadRequest("Name the file: a backup that lxpy, LXD or Incus has made")
        await run_own(line(answers))
        app.notify(answers["name"] or answers["file"], title="Imported", markup=False)

    app.push_screen(
        Form(
            title,
            [
                Question("file", "File", "a backup of lxpy, LXD or Incus; the right arrow completes", path=True),
                Question("name", "Name", "left empty: as it was"),
                *more,
            ],
            submit, lambda a: shown(line(a)), "Import", interruptible=True,
        )
    )  # fmt: skip


def push(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A file or directory of this machine into instances."""
    chosen = instances(rows)

    def line(row: InstanceRow, a: Answers) -> list[str]:
        there = f"{ref(app, row.name)}/{(a['to'] or '/root/').lstrip('/')}"
        owner = ["--uid", a["owner"], "--gid", a["owner"]] if a["owner"] else []
        return words(app, "file", "push", "-r", "-p", here(a["file"]) or "FILE", there, *owner)

    def check(a: Answers) -> None:
        if not os.path.exists(os.path.expanduser(a["file"])) or not a["file"]:
            raise BadRequest(f"{a['file'] or 'Nothing'}: there is no such file or directory here")

    ask(
        app, chosen, f"Push into {called(chosen)}", "Push",
        [
            Question("file", "File", "a file or directory of this machine; the right arrow completes", path=True),
            Question("to", "To", "a directory inside, with a slash behind it, or the whole name", "/root/"),
            Question("owner", "Owner", "uid and gid inside; left empty: as they are here"),
        ],
        command(app, line), line, check=check, interruptible=True, told="Pushed",
    )  # fmt: skip


def pull(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A file or directory of instances onto this machine."""
    chosen = instances(rows)
    there = f"{os.getcwd()}/{pattern(chosen, '/', '')}"

    def line(row: InstanceRow, a: Answers) -> list[str]:
        inside = f"{ref(app, row.name)}/{a['file'].lstrip('/')}"
        return words(app, "file", "pull", "-r", "-p", inside, here(named(a["to"], chosen)[row.key]))

    def check(a: Answers) -> None:
        if not a["file"].strip("/"):
            raise BadRequest("Name the file or directory inside, such as /etc/hostname")
        named(a["to"], chosen)

    run = command(app, line)

    async def one(row: InstanceRow, a: Answers) -> Any:
        await run(row, a)
        return here(named(a["to"], chosen)[row.key])

    ask(
        app, chosen, f"Get from {called(chosen)}", "Get",
        [
            Question("file", "File", "a file or directory inside, such as /etc/hostname"),
            Question("to", "To", f"a place of this machine; {PATTERN_HINT}", there, path=True),
        ],
        one, safe(line), check=check, interruptible=True, told="It is here",
    )  # fmt: skip

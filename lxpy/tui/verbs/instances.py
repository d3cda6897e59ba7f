"""Snapshot, copy, rename, publish, export."""

import os
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from lxpy.tui.rows import InstanceRow
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

COMPRESSIONS = ("gzip", "zstd", "xz", "none")


def _rows(rows: Sequence[Any]) -> list[InstanceRow]:
    return [row for row in rows if isinstance(row, InstanceRow)]


def path(row: InstanceRow) -> str:
    return f"/1.0/instances/{quote(row.name)}"


async def done(app: "LxpyApp", method: str, where: str, body: Any = None) -> dict[str, Any]:
    """One request and the end of its operation. Raises what either says."""
    return await app.model.follow(await app.gateway.call(lambda c: getattr(c, method)(where, body)))


def snapshot(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """Of one or of all marked ones, under the same name."""
    chosen = _rows(rows)
    names = ", ".join(row.name for row in chosen[:3]) + (" …" if len(chosen) > 3 else "")

    async def submit(answers: Answers) -> None:
        body: dict[str, Any] = {"name": answers["name"], "stateful": False}
        for row in chosen:
            await done(app, "post", f"{path(row)}/snapshots", body)

    app.push_screen(
        Form(
            f"Snapshot of {names}",
            [Question("name", "Name", "left empty: snap0, snap1 … or what snapshots.pattern says")],
            submit, lambda a: f"lxpy snapshot {chosen[0].name} {shlex.quote(a['name']) if a['name'] else ''}".strip(),
            "Take it",
        )
    )  # fmt: skip


def copy(app: "LxpyApp", rows: Sequence[Any]) -> None:
    chosen = _rows(rows)
    if not chosen:
        return
    row = chosen[0]

    async def submit(answers: Answers) -> None:
        source = {"type": "copy", "source": row.name, "instance_only": bool(answers["only"])}
        body: dict[str, Any] = {"name": answers["name"], "type": "container", "source": source}
        found = await app.gateway.call(lambda c: c.get(path(row)))
        for key in ("architecture", "config", "devices", "ephemeral", "profiles", "description"):
            body[key] = found.get(key)
        body["config"] = {
            k: v for k, v in found["config"].items() if not k.startswith("volatile.") or k == "volatile.base_image"
        }
        if answers["pool"]:
            root = next(
                (n for n, d in found["expanded_devices"].items() if d.get("path") == "/" and d.get("pool")), "root"
            )
            device = {**found["expanded_devices"].get(root, {"type": "disk", "path": "/"}), "pool": answers["pool"]}
            body["devices"] = {**found["devices"], root: device}
        await done(app, "post", "/1.0/instances", body)

    def line(a: Answers) -> str:
        words = ["lxpy", "copy", row.name, a["name"] or "NAME"]
        words += ["-s", a["pool"]] if a["pool"] else []
        words += ["--instance-only"] if a["only"] else []
        return shlex.join(words)

    app.push_screen(
        Form(
            f"Copy {row.name}",
            [
                Question("name", "Name", "of the copy", f"{row.name}-copy"),
                Question("pool", "Pool", "left empty: the same"),
                Question("only", "Snapshots", "leave them out", flag=True),
            ],
            submit, line, "Copy",
        )
    )  # fmt: skip


def rename(app: "LxpyApp", rows: Sequence[Any]) -> None:
    chosen = _rows(rows)
    if not chosen:
        return
    row = chosen[0]

    async def submit(answers: Answers) -> None:
        await done(app, "post", path(row), {"name": answers["name"]})

    app.push_screen(
        Form(
            f"Rename {row.name}", [Question("name", "Name", value=row.name)], submit,
            lambda a: f"lxpy rename {row.name} {a['name']}", "Rename",
            note="" if row.status == "Stopped" else f"{row.name} must be stopped first (x).",
        )
    )  # fmt: skip


def publish(app: "LxpyApp", rows: Sequence[Any]) -> None:
    chosen = _rows(rows)
    if not chosen:
        return
    row = chosen[0]

    async def submit(answers: Answers) -> None:
        body: dict[str, Any] = {
            "source": {"type": "instance", "name": row.name}, "public": bool(answers["public"]),
            "compression_algorithm": answers["compression"],
            "aliases": [{"name": answers["alias"], "description": ""}] if answers["alias"] else [],
        }  # fmt: skip
        await done(app, "post", "/1.0/images", body)

    def line(a: Answers) -> str:
        words = ["lxpy", "publish", row.name, *(["--alias", a["alias"]] if a["alias"] else [])]
        words += ["--compression", a["compression"], *(["--public"] if a["public"] else [])]
        return shlex.join(words)

    app.push_screen(
        Form(
            f"Publish {row.name} as an image",
            [
                Question("alias", "Alias", "what the image is to be called", row.name),
                Question("compression", "Packed by", choices=COMPRESSIONS),
                Question("public", "Public", "anybody who reaches this server may fetch it", flag=True),
            ],
            submit, line, "Publish", note="" if row.status == "Stopped" else f"{row.name} must be stopped first (x).",
        )
    )  # fmt: skip


def export(app: "LxpyApp", rows: Sequence[Any]) -> None:
    """A backup into a file of this machine, by our own command line: it streams and says how far it is."""
    chosen = _rows(rows)
    if not chosen:
        return
    row = chosen[0]
    target = f"{app.gateway.remote}:{row.name}" if app.gateway.remote else row.name

    def words(a: Answers) -> list[str]:
        only = ["--instance-only"] if a["only"] else []
        return ["export", target, os.path.expanduser(a["file"]), "--compression", a["compression"], *only]

    async def submit(answers: Answers) -> None:
        await run_own(words(answers))
        app.notify(answers["file"], title=f"{row.name} exported", markup=False)

    app.push_screen(
        Form(
            f"Export {row.name}",
            [
                Question("file", "File", "where to", f"{row.name}.tar.gz"),
                Question("compression", "Packed by", choices=COMPRESSIONS),
                Question("only", "Snapshots", "leave them out", flag=True),
            ],
            submit, lambda a: shlex.join(["lxpy", *words(a)]), "Export",
        )
    )  # fmt: skip

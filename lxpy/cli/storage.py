"""storage: pools; their volumes are in `volume`."""

from __future__ import annotations

import sys

from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option
from lxpy.cli.context import Context, pairs
from lxpy.cli.objects import Kind
from lxpy.cli.volume import VOLUME

POOL = Kind("storage pool", "/1.0/storage-pools")
POOL.place = "[<remote>:]<pool>"


def _create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    body = {
        "name": name,
        "driver": args.rest[1],
        "config": pairs(args.rest[2:]),
        "description": args.value("description"),
    }
    context.wait(client, client.post(POOL.path, body))
    context.say(f"Storage pool {name} created")


def _info(context: Context, args: Args) -> None:
    client, url = POOL.resolve(context, args.rest[0])
    pool = client.get(url)
    space = client.get(f"{url}/resources").get("space") or {}
    used, total = space.get("used", 0), space.get("total", 0)
    exact = args.flag("bytes")
    info = {
        "info": {
            "description": pool.get("description", ""),
            "driver": pool["driver"],
            "name": pool["name"],
            "space used": str(used) if exact else render.size(used),
            "total space": str(total) if exact else render.size(total),
        }
    }
    users: dict[str, list[str]] = {}
    for path in pool.get("used_by") or []:
        parts = str(path).partition("?")[0].strip("/").split("/")
        if len(parts) >= 3:
            kind = "volumes" if len(parts) > 3 else parts[1]  # /1.0/storage-pools/POOL/volumes/custom/VOLUME
            users.setdefault(kind, []).append(parts[-1])
    sys.stdout.write(render.yaml({**info, "used by": {kind: sorted(names) for kind, names in sorted(users.items())}}))


COMMANDS = {
    "storage": {
        "create": Command(
            _create, "[<remote>:]<pool> <driver> [key=value...]", "Create a storage pool",
            (Option("--description", "TEXT", "Description"),), 2, None,
        ),
        "delete": POOL.delete(),
        "edit": POOL.edit(),
        "get": POOL.get(),
        "info": Command(
            _info, POOL.place, "Show useful information about a storage pool",
            (Option("--bytes", help="Show the used and free space in bytes"),), 1, 1,
        ),
        "list": POOL.list(
            ["NAME", "DRIVER", "SOURCE", "DESCRIPTION", "USED BY", "STATE"],
            lambda one: [
                one["name"], one["driver"], one["config"].get("source", ""), one["description"],
                str(len(one.get("used_by") or ())), str(one.get("status", "")).upper(),
            ],
        ),
        "set": POOL.set(),
        "show": POOL.show(),
        "unset": POOL.unset(),
        "volume": VOLUME,
    }
}  # fmt: skip

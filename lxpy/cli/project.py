"""project."""

from __future__ import annotations

import sys

from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option
from lxpy.cli.context import Context, pairs
from lxpy.cli.objects import FORMAT, Kind, piped
from lxpy.client import remotes

PROJECT = Kind("project", "/1.0/projects")
# The columns that the stock client has for a server without buckets and DNS zones.
_FEATURES = ("images", "profiles", "storage.volumes", "networks")


def _create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    given = piped("project", ("config", "description"))
    config = {**(given.get("config") or {}), **pairs(args.values("config"))}
    client.post(PROJECT.path, {"description": "", **given, "name": name, "config": config})
    context.say(f"Project {name} created")


def _switch(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    client.get(PROJECT.url(name))
    config = remotes.load()
    old = config.remotes[client.remote.name]
    config.remotes[old.name] = remotes.Remote(
        old.name, old.url, old.protocol, old.public, old.static, "" if name == "default" else name
    )
    remotes.save(config)


def _list(context: Context, args: Args) -> None:
    client, _ = context.resolve(args.at(0) or ":")
    found = client.get(PROJECT.path, recursion="1")
    current = client.project or "default"
    rows = []
    for one in sorted(found, key=lambda one: str(one["name"])):
        name = one["name"] + (" (current)" if one["name"] == current else "")
        features = ["YES" if one["config"].get(f"features.{key}") == "true" else "NO" for key in _FEATURES]
        rows.append([name, *features, one["description"], str(len(one.get("used_by") or ()))])
    header = ["NAME", *(key.upper().replace(".", " ") for key in _FEATURES), "DESCRIPTION", "USED BY"]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _info(context: Context, args: Args) -> None:
    from lxpy.api.values import human_bytes  # it imports re

    client, name = context.resolve(args.rest[0])
    found = client.get(f"{PROJECT.url(name)}/state")
    rows = []
    for resource, one in sorted(found["resources"].items()):
        limit, usage = (
            ("UNLIMITED" if number < 0 else human_bytes(number) if resource in ("disk", "memory") else str(number))
            for number in (one["Limit"], one["Usage"])
        )
        rows.append([resource.upper(), limit, usage])
    sys.stdout.write(render.show(args.value("format"), ["RESOURCE", "LIMIT", "USAGE"], rows, found))


COMMANDS = {
    "project": {
        "create": Command(
            _create, PROJECT.place, "Create a project",
            (Option("-c --config", "KEY=VALUE", "Config key/value to apply to the new project", many=True),), 1, 1,
        ),
        "delete": PROJECT.delete(),
        "edit": PROJECT.edit(),
        "get": PROJECT.get(),
        "info": Command(_info, PROJECT.place, "Show what a project may hold and what it holds", (FORMAT,), 1, 1),
        "list": Command(_list, "[<remote>:]", "List projects", (FORMAT,), 0, 1),
        "rename": PROJECT.rename(),
        "set": PROJECT.set(),
        "show": PROJECT.show(),
        "switch": Command(_switch, PROJECT.place, "Switch the current project", (), 1, 1),
        "unset": PROJECT.unset(),
    }
}  # fmt: skip

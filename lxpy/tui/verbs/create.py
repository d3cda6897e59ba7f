"""New pools, networks and profiles."""

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lxpy.tui.screens.form import Answers, Form, Question

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


def _made(app: "LxpyApp", path: str, kind: str, body: dict[str, Any]) -> Any:
    async def work() -> None:
        await app.model.follow(await app.gateway.call(lambda c: c.post(path, body)))
        app.model.changed_kind(kind)

    return work()


def _config(answers: Answers, *names: tuple[str, str]) -> dict[str, str]:
    return {key: answers[name] for name, key in names if answers[name]}


def _words(answers: Answers, *names: tuple[str, str]) -> str:
    return "".join(f" {shlex.quote(f'{key}={value}')}" for key, value in _config(answers, *names).items())


def pool(app: "LxpyApp", _: Sequence[Any]) -> None:
    drivers = tuple((app.model.server.get("environment") or {}).get("storage", "").split(" | "))
    known = tuple(d for d in ("overlay", "btrfs", "dir", "zfs", "lvm") if d in drivers) or ("overlay", "btrfs", "dir")
    keys = (("size", "size"), ("source", "source"))

    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "driver": answers["driver"], "config": _config(answers, *keys)}
        await _made(app, "/1.0/storage-pools", "storage-pools", body)

    app.push_screen(
        Form(
            "New storage pool",
            [
                Question("name", "Name", "fast"),
                Question("driver", "Driver", choices=known),
                Question("size", "Size", "of a loop file, such as 20GiB; empty for none or the usual"),
                Question("source", "Source", "a device or directory; empty for one of lxpy's own"),
            ],
            submit, lambda a: f"lxpy storage create {a['name'] or 'NAME'} {a['driver']}" + _words(a, *keys), "Create",
        )
    )  # fmt: skip


def network(app: "LxpyApp", _: Sequence[Any]) -> None:
    keys = (("ipv4", "ipv4.address"), ("ipv6", "ipv6.address"))

    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "type": "bridge", "config": _config(answers, *keys)}
        await _made(app, "/1.0/networks", "networks", body)

    app.push_screen(
        Form(
            "New bridge",
            [
                Question("name", "Name", "lxpybr1"),
                Question("ipv4", "IPv4", "auto, none, or an address such as 10.20.0.1/24", "auto"),
                Question("ipv6", "IPv6", "auto, none, or an address", "auto"),
            ],
            submit, lambda a: f"lxpy network create {a['name'] or 'NAME'}" + _words(a, *keys), "Create",
        )
    )  # fmt: skip


def profile(app: "LxpyApp", _: Sequence[Any]) -> None:
    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "description": answers["about"], "config": {}, "devices": {}}
        await _made(app, "/1.0/profiles", "profiles", body)

    app.push_screen(
        Form(
            "New profile",
            [Question("name", "Name", "small"), Question("about", "About", "what it is for")],
            submit, lambda a: f"lxpy profile create {a['name'] or 'NAME'}", "Create",
            note="It is empty at first: e edits its configuration and devices.",
        )
    )  # fmt: skip

"""New pools, networks, profiles and projects."""

import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import ApiError
from lxpy.tui import guides
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.verbs.common import ref

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_MORE = Question("more", "More", "key=value …")


async def _made(app: "LxpyApp", path: str, kind: str, body: dict[str, Any]) -> None:
    await app.model.follow(await app.gateway.call(lambda c: c.post(path, body)))
    app.model.changed_kind(kind)


def _config(answers: Answers, *keys: str) -> dict[str, str]:
    """What the fields of those keys say, ``more`` among them. Raises `ApiError`."""
    return {key: answers[key] for key in keys if answers[key]} | guides.pairs(answers["more"])


def _words(answers: Answers, *keys: str) -> str:
    try:
        config = _config(answers, *keys)
    except ApiError:  # it is being typed
        config = _config({**answers, "more": ""}, *keys)
    return "".join(f" {shlex.quote(f'{key}={value}')}" for key, value in config.items())


async def _faults(app: "LxpyApp", kind: str, answers: Answers, *keys: str, **more: str) -> Mapping[str, str]:
    """What the daemon would say, by question."""
    try:
        config = _config(answers, *keys)
    except ApiError as error:
        return {"more": error.message}
    faults = await app.rules.faults(kind, config, name=answers["name"], **more)
    extra = guides.pairs(answers["more"])
    return {("more" if key in extra else key if key in answers else ""): text for key, text in faults.items()}


def pool(app: "LxpyApp", _: Sequence[Any]) -> None:
    drivers = tuple((app.model.server.get("environment") or {}).get("storage", "").split(" | "))
    known = tuple(d for d in ("overlay", "btrfs", "dir", "zfs", "lvm") if d in drivers) or ("overlay", "btrfs", "dir")
    keys = ("size", "source")

    async def check(answers: Answers) -> Mapping[str, str]:
        return await _faults(app, "storage-pool", answers, *keys, driver=answers["driver"])

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
                _MORE,
            ],
            submit, lambda a: f"lxpy storage create {a['name'] or 'NAME'} {a['driver']}" + _words(a, *keys), "Create",
            check=check,
        )
    )  # fmt: skip


def network(app: "LxpyApp", _: Sequence[Any]) -> None:
    keys = ("ipv4.address", "ipv6.address")

    async def check(answers: Answers) -> Mapping[str, str]:
        return await _faults(app, "network", answers, *keys)

    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "type": "bridge", "config": _config(answers, *keys)}
        await _made(app, "/1.0/networks", "networks", body)

    app.push_screen(
        Form(
            "New bridge",
            [
                Question("name", "Name", "lxpybr1"),
                Question("ipv4.address", "IPv4", "auto, none, or an address such as 10.20.0.1/24", "auto"),
                Question("ipv6.address", "IPv6", "auto, none, or an address", "auto"),
                _MORE._replace(hint="key=value …, such as ipv4.nat=false dns.domain=lab"),
            ],
            submit, lambda a: f"lxpy network create {a['name'] or 'NAME'}" + _words(a, *keys), "Create", check=check,
        )
    )  # fmt: skip


def profile(app: "LxpyApp", _: Sequence[Any]) -> None:
    async def check(answers: Answers) -> Mapping[str, str]:
        return await _faults(app, "profile", {**answers, "more": ""})

    async def submit(answers: Answers) -> None:
        body = {"name": answers["name"], "description": answers["about"], "config": {}, "devices": {}}
        await _made(app, "/1.0/profiles", "profiles", body)

    app.push_screen(
        Form(
            "New profile",
            [Question("name", "Name", "small"), Question("about", "About", "what it is for")],
            submit, lambda a: f"lxpy profile create {a['name'] or 'NAME'}", "Create",
            note="It is empty at first: e sets keys, and its Devices tab adds devices.", check=check,
        )
    )  # fmt: skip


_OWN = {"features.images": "Images", "features.profiles": "Profiles", "features.storage.volumes": "Volumes"}
_LIMITS = ("limits.instances", "limits.cpu", "limits.memory", "limits.disk")


def project(app: "LxpyApp", _: Sequence[Any]) -> None:
    keys = (*_OWN, *_LIMITS)

    def told(answers: Answers) -> Answers:
        """A box that is ticked is the usual answer."""
        return {**answers, **{key: "" if answers[key] else "false" for key in _OWN}}

    async def check(answers: Answers) -> Mapping[str, str]:
        return await _faults(app, "project", told(answers), *keys)

    async def submit(answers: Answers) -> None:
        config = _config(told(answers), *keys)
        body = {"name": answers["name"], "description": answers["about"], "config": config}
        await _made(app, "/1.0/projects", "projects", body)

    def line(answers: Answers) -> str:
        words = shlex.split(_words(told(answers), *keys))
        options = [part for word in words for part in ("-c", word)]
        return shlex.join(["lxpy", "project", "create", ref(app, answers["name"] or "NAME"), *options])

    app.push_screen(
        Form(
            "New project",
            [
                Question("name", "Name", "lab"),
                Question("about", "About", "what it is for"),
                *(Question(key, word, "of its own, not of default", "yes", flag=True) for key, word in _OWN.items()),
                Question("limits.instances", "Instances", "how many there may be; empty: any number"),
                Question("limits.cpu", "CPUs", "of all its instances together; empty: no limit"),
                Question("limits.memory", "Memory", "of all its instances together, such as 8GiB"),
                Question("limits.disk", "Disk", "of all its disks and volumes together, such as 50GiB"),
                _MORE._replace(hint="key=value …, such as restricted=true"),
            ],
            submit, line, "Create", check=check,
            note="A default profile of its own is empty at first: give it a root disk and a network card.",
        )
    )  # fmt: skip

"""share, unshare: directories of the host inside instances, at once and with the right owners."""

from __future__ import annotations

import os
import re
import sys

from lxpy.api.errors import ApiError, Conflict, NotFound
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.config import INSTANCE
from lxpy.cli.context import Context
from lxpy.cli.objects import FORMAT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PLACE = "[<remote>:]<instance>:/<path>"


def _split(ref: str) -> tuple[str, str]:
    """``[remote:]instance:/path`` as reference and path; the path is "" when there is none."""
    name, colon, rest = ref.partition(":/")
    return (name, f"/{rest}") if colon else (ref, "")


def _clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _shares(devices: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """The devices that are a path of the host."""
    return {
        name: device
        for name, device in devices.items()
        if device.get("type") == "disk" and not device.get("pool") and device.get("source", "").startswith("/")
    }


def _share(context: Context, args: Args) -> None:
    if len(args.rest) == 1:
        return _list(context, args)
    source, (ref, path) = args.rest[0], _split(args.rest[1])
    if not path:
        raise UsageError(f"{args.rest[1]!r} names no place in an instance: write {_PLACE}")
    client, url = INSTANCE.resolve(context, ref)
    if client.local or client.remote.url.startswith("unix:"):
        source = os.path.abspath(source)
        if not os.path.exists(source):
            raise NotFound(f"{source} is not there: what is to be shared has to exist")
    elif not source.startswith("/"):
        raise UsageError(f"{source} has to be an absolute path: it is one of the server's")
    document, etag = client.get_etag(url)
    devices: dict[str, dict[str, str]] = document["devices"]
    path = _clean(path)
    device = {"type": "disk", "source": source, "path": path}
    if args.flag("readonly"):
        device["readonly"] = "true"
    owner = args.value("owner") or "0"
    if owner != "keep":
        device["owner"] = owner
    name = args.value("name") or _name(devices, path)
    if name in devices and _clean(devices[name].get("path", "")) != path:
        raise Conflict(f"The instance has a device {name!r} already: give another --name")
    devices[name] = device
    INSTANCE.save(client, url, document, etag)
    context.say(f"{source} is {path} in {ref} (device {name})")


def _name(devices: dict[str, dict[str, str]], path: str) -> str:
    """The device that a path has already, or a name made of it."""
    for name, device in _shares(devices).items():
        if _clean(device.get("path", "")) == path:
            return name
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path).strip("-._")[:50] or "share"
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(devices) + 3))]
    return next(name for name in names if name not in devices)


def _list(context: Context, args: Args) -> None:
    client, url = INSTANCE.resolve(context, args.rest[0])
    found = _shares(client.get(url).get("expanded_devices") or {})
    rows = [
        [name, device["source"], device.get("path", ""), "read-only" if _true(device) else "", device.get("owner", "")]
        for name, device in sorted(found.items(), key=lambda item: item[1].get("path", ""))
    ]
    header = ["NAME", "ON THE HOST", "INSIDE", "ACCESS", "OWNER"]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _true(device: dict[str, str]) -> bool:
    return device.get("readonly", "").lower() in ("true", "1", "yes", "on")


def _unshare(context: Context, args: Args) -> None:
    ref, path = _split(args.rest[0])
    if bool(path) == (len(args.rest) == 2):
        raise UsageError(f"write {_PLACE}, or the instance and the name of the share")
    client, url = INSTANCE.resolve(context, ref)
    document, etag = client.get_etag(url)
    own, every = _shares(document["devices"]), _shares(document.get("expanded_devices") or {})
    wanted = _found(own, path, args.at(1))
    if wanted is None:
        if other := _found(every, path, args.at(1)):
            raise ApiError(f"{other!r} comes from a profile: lxpy profile device remove PROFILE {other}")
        there = ", ".join(sorted(f"{name} ({device.get('path')})" for name, device in own.items())) or "nothing"
        raise NotFound(f"{path or args.at(1)} is not shared with {ref} (shared is: {there})")
    del document["devices"][wanted]
    INSTANCE.save(client, url, document, etag)
    context.say(f"{wanted} is no longer shared with {ref}")


def _found(shares: dict[str, Any], path: str, name: str) -> str | None:
    if not path:
        return name if name in shares else None
    return next((one for one, device in shares.items() if _clean(device.get("path", "")) == _clean(path)), None)


COMMANDS = {
    "share": Command(
        _share, f"<path> {_PLACE} | [<remote>:]<instance>", "Share directories of the host with instances",
        (Option("--readonly", help="Nobody inside can change it"),
         Option("--name", "DEVICE", "Name of the device (made of the path)"),
         Option("--owner", "UID[:GID]|keep", "As whose what belongs to the directory's owner appears inside", "0"),
         FORMAT), 1, 2,
        "What belongs to the owner of <path> is root's inside, and what root makes inside belongs to that owner.\n"
        "--owner names another user of the instance; keep leaves all ids as they are: uid 1000 is uid 1000.\n"
        "With an instance alone: lists what it shares.",
    ),
    "unshare": Command(
        _unshare, f"{_PLACE} | [<remote>:]<instance> <device>", "Stop sharing a directory with an instance", (), 1, 2
    ),
}  # fmt: skip

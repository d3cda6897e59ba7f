"""publish: an image of an instance or of a snapshot."""

from __future__ import annotations

import contextlib

from lxpy.api import status
from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, pairs, steady
from lxpy.client.wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lxpy.client.client import Client


def _publish(context: Context, args: Args) -> None:
    words = list(args.rest)
    client, name = context.resolve(words.pop(0))
    if not name:
        raise UsageError("missing the instance's name")
    target = client
    if words and words[0].endswith(":") and "=" not in words[0]:
        target = context.client(words.pop(0)[:-1])
    aliases = [{"name": alias, "description": ""} for alias in args.values("alias")]
    body: dict[str, Any] = {
        "source": {"type": "snapshot" if "/" in name else "instance", "name": name},
        "properties": pairs(words, "property"),
        "public": args.flag("public"),
        "aliases": aliases,
        "reuse": args.flag("reuse"),
    }
    if args.value("compression"):
        body["compression_algorithm"] = args.value("compression")
    if args.value("expire"):
        body["expires_at"] = _moment(args.value("expire"))
    elsewhere = target is not client
    if elsewhere:
        body["aliases"] = []
    with stopped(context, client, name, args.flag("force")):
        ended = context.wait(client, context.begin(client, "/1.0/images", body), "Publishing instance")
    fingerprint = str((ended.get("metadata") or {})["fingerprint"])
    if elsewhere:
        _move(context, client, target, fingerprint, aliases, args.flag("public"))
    context.say(f"Instance published with fingerprint: {fingerprint}")


def _moment(text: str) -> str:
    """``2026-12-31`` or the whole of an RFC 3339 date; what is wrong the server says."""
    return f"{text}T00:00:00Z" if len(text) == 10 else text


@contextlib.contextmanager
def stopped(context: Context, client: Client, name: str, force: bool) -> Iterator[None]:
    """A body in which the instance is stopped, if it runs and `force` allows it; afterwards it runs again."""
    url = f"/1.0/instances/{quote(name)}"
    instance = {} if "/" in name else client.get(url)
    if instance.get("status_code", 102) not in status.UP or not force:
        yield
        return
    stopping: dict[str, Any]
    ephemeral, stopping = bool(instance["ephemeral"]), {}
    try:
        if ephemeral:  # else it would be gone
            client.wait(client.patch(url, {"ephemeral": False}) or {})
        stopping = client.put(f"{url}/state", {"action": "stop", "timeout": -1, "force": False})
        context.wait(client, stopping, "Stopping")
        yield
    finally:
        # Whatever became of it, also after Ctrl-C.
        steady(lambda: _back(client, url, stopping, ephemeral))


def _back(client: Client, url: str, stopping: dict[str, Any], ephemeral: bool) -> None:
    """Have the instance run again; a stop that was begun goes on after Ctrl-C."""
    with contextlib.suppress(ApiError):  # it has failed, or is long forgotten
        client.wait(stopping)
    try:
        if client.get(url)["status_code"] not in status.UP:
            client.wait(client.put(f"{url}/state", {"action": "start", "timeout": -1}))
    finally:
        if ephemeral:
            client.wait(client.patch(url, {"ephemeral": True}) or {})


def _move(
    context: Context, origin: Client, target: Client, fingerprint: str, aliases: list[dict[str, str]], public: bool
) -> None:
    from lxpy.cli.imagecopy import transfer

    image = origin.get(f"/1.0/images/{fingerprint}")
    try:
        transfer(context, origin, target, image, fingerprint, {"public": public, "auto_update": False,
                                                               "aliases": aliases})  # fmt: skip
    finally:
        origin.wait(origin.delete(f"/1.0/images/{fingerprint}"))


COMMANDS = {
    "publish": Command(
        _publish, "[<remote>:]<instance>[/<snapshot>] [<remote>:] [key=value...]", "Publish instances as images",
        (
            Option("--alias", "NAME", "New alias to define at target", many=True),
            Option("--compression", "ALGORITHM", "gzip (default), zstd, xz, bzip2, lzma or none; a level may follow"),
            Option("--expire", "DATE", "Image expiration date (2026-12-31, or with the time)"),
            Option("-f --force", help="Stop the instance if currently running, and start it again"),
            Option("--public", help="Make the image public"),
            Option("--reuse", help="Take the aliases from the images that have them; delete those left without one"),
        ), 1, None,
        "key=value are properties of the image, beside those of the image that the instance comes from.",
    ),
}  # fmt: skip

"""rebuild; config metadata and config template: what an instance is made of, and tells the images made of it."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError, NotFound
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, edit, edit_document
from lxpy.cli.objects import FORMAT, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client


def _url(name: str) -> str:
    if not name:
        raise UsageError("missing the instance's name")
    return f"/1.0/instances/{quote(name)}"


def _rebuild(context: Context, args: Args) -> None:
    from lxpy.cli.create import image_source
    from lxpy.cli.publish import stopped

    empty = args.flag("empty")
    if len(args.rest) != (1 if empty else 2):
        raise UsageError("an image and an instance are expected, or an instance with --empty")
    image, ref = ("", args.rest[0]) if empty else (args.rest[0], args.rest[1])
    client, name = context.resolve(ref)
    if not empty and not _there(client, name):
        # LXD names the image first; the other way round is what one would guess.
        other, found = context.resolve(image)
        if _there(other, found):
            client, name, image = other, found, ref
    source = {"type": "none"} if empty else image_source(context, client, image)
    with stopped(context, client, name, args.flag("force")):
        context.wait(client, context.begin(client, f"{_url(name)}/rebuild", {"source": source}), "Rebuilding instance")


def _there(client: Client, name: str) -> bool:
    try:
        client.get(_url(name))
    except NotFound:
        return False
    return True


def _metadata(context: Context, args: Args) -> tuple[Client, str]:
    client, name = context.resolve(args.rest[0])
    return client, f"{_url(name)}/metadata"


def _show_metadata(context: Context, args: Args) -> None:
    client, url = _metadata(context, args)
    sys.stdout.write(render.yaml(client.get(url)))


def _edit_metadata(context: Context, args: Args) -> None:
    client, url = _metadata(context, args)
    document, etag = client.get_etag(url)
    tag = etag if sys.stdin.isatty() else ""

    def save(changed: dict[str, Any]) -> None:
        client.put(url, changed, tag)

    edit_document(render.yaml(document), save)


def _templates(context: Context, args: Args) -> tuple[Client, str]:
    client, url = _metadata(context, args)
    return client, f"{url}/templates"


def _list_templates(context: Context, args: Args) -> None:
    client, url = _templates(context, args)
    names = client.get(url)
    sys.stdout.write(render.show(args.value("format"), ["FILENAME"], [[name] for name in names], names))


def _text(client: Client, url: str, name: str) -> str:
    return client.request("GET", url, query={"path": name}).body.decode(errors="surrogateescape")


def _write(client: Client, url: str, name: str, text: str) -> None:
    data = text.encode(errors="surrogateescape")
    headers = {"Content-Type": "application/octet-stream"}
    client.request("POST", url, data, {"path": name}, headers)


def _show_template(context: Context, args: Args) -> None:
    client, url = _templates(context, args)
    sys.stdout.write(_text(client, url, args.rest[1]))


def _create_template(context: Context, args: Args) -> None:
    client, url = _templates(context, args)
    if args.rest[1] in client.get(url):
        raise ApiError(f"Template {args.rest[1]!r} already exists: change it with lxpy config template edit")
    _write(client, url, args.rest[1], "" if sys.stdin.isatty() else sys.stdin.read())


def _edit_template(context: Context, args: Args) -> None:
    client, url = _templates(context, args)
    _write(client, url, args.rest[1], edit(_text(client, url, args.rest[1]), ".tpl"))


def _delete_template(context: Context, args: Args) -> None:
    client, url = _templates(context, args)
    client.request("DELETE", url, query={"path": args.rest[1]})


_INSTANCE = "[<remote>:]<instance>"
METADATA = {
    "edit": Command(_edit_metadata, _INSTANCE, "Edit an instance's metadata as YAML", (), 1, 1),
    "show": Command(_show_metadata, _INSTANCE, "Show an instance's metadata", (), 1, 1),
}
TEMPLATE = {
    "create": Command(
        _create_template, f"{_INSTANCE} <template>", "Create a template file, from standard input or empty", (), 2, 2
    ),
    "delete": Command(_delete_template, f"{_INSTANCE} <template>", "Delete a template file", (), 2, 2),
    "edit": Command(_edit_template, f"{_INSTANCE} <template>", "Edit a template file", (), 2, 2),
    "list": Command(_list_templates, _INSTANCE, "List an instance's template files", (FORMAT,), 1, 1),
    "show": Command(_show_template, f"{_INSTANCE} <template>", "Show a template file", (), 2, 2),
}
COMMANDS = {
    "rebuild": Command(
        _rebuild, f"[<remote>:]<image> {_INSTANCE}", "Rebuild instances from images",
        (
            Option("--empty", help="Rebuild as an empty instance"),
            Option("-f --force", help="Stop the instance if currently running, and start it again"),
        ), 1, 2,
        "The root file system becomes that of a new instance; configuration, devices and profiles stay.\n"
        "An instance with snapshots cannot be rebuilt.",
    ),
}  # fmt: skip

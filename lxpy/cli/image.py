"""image."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError, NotFound
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.cli.imagecopy import find
from lxpy.cli.objects import FORMAT, Kind, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client

IMAGE = Kind("image", "/1.0/images", ("auto_update", "expires_at", "properties", "public", "profiles"))


def _alias_names(image: dict[str, Any]) -> list[str]:
    return [alias["name"] for alias in image.get("aliases") or []]


def _shortest(image: dict[str, Any]) -> str:
    names = sorted(_alias_names(image), key=len)
    return f"{names[0]} ({len(names) - 1} more)" if len(names) > 1 else "".join(names)


_COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "l": ("ALIAS", _shortest),
    "L": ("ALIASES", lambda i: "\n".join(_alias_names(i))),
    "f": ("FINGERPRINT", lambda i: i["fingerprint"][:12]),
    "F": ("FINGERPRINT", lambda i: i["fingerprint"]),
    "p": ("PUBLIC", lambda i: "yes" if i["public"] else "no"),
    "d": ("DESCRIPTION", lambda i: (i.get("properties") or {}).get("description", "")),
    "a": ("ARCHITECTURE", lambda i: i["architecture"]),
    "t": ("TYPE", lambda i: str(i["type"] or "container").upper()),
    "s": ("SIZE", lambda i: f"{i['size'] / 1_048_576:.2f}MB"),
    "u": ("UPLOAD DATE", lambda i: render.date(i.get("uploaded_at") or i.get("created_at") or "")),
}


def _images(context: Context, ref: str) -> tuple[list[dict[str, Any]], bool]:
    """The images of a remote ("" or ``name:``), and whether it is an image server."""
    remote, _ = context.remotes.parse_ref(ref if ref else ":")
    if not remote.is_image_server:
        return context.client_of(remote).get("/1.0/images", recursion="1"), False
    # The daemon's simplestreams client reads the catalogue: no client needs one of its own.
    found = context.client("local").get(
        "/1.0/image-servers/catalogue", server=remote.url, protocol=remote.protocol
    )  # fmt: skip
    return found, True


def _matcher(word: str) -> Callable[[dict[str, Any]], bool]:
    """LXD's rules: a part of an alias or of the fingerprint; ``key=value`` with a field, or with a property whose name
    the dotted parts of the key begin (``req.cg`` is ``requirements.cgroup``) and whose whole value the regular
    expression fits, or a part of it if it has ``^`` or ``$``. Beyond LXD's, case does not matter."""
    key, equals, value = word.partition("=")
    if not equals:
        return lambda image: word in image["fingerprint"] or any(word in name for name in _alias_names(image))
    import re

    whole = value if "^" in value or "$" in value else rf"\A(?:{value})\Z"
    try:
        fits = re.compile(whole, re.IGNORECASE).search
    except re.error:
        fits = re.compile(rf"\A{re.escape(value)}\Z", re.IGNORECASE).search
    parts, key = key.split("."), key.removeprefix("properties.")
    known: dict[str, bool] = {}

    def named(name: str) -> bool:
        if name not in known:
            pieces = name.split(".")
            begun = len(pieces) == len(parts) and all(map(str.startswith, pieces, parts))
            known[name] = begun or name == key
        return known[name]

    def holds(image: dict[str, Any]) -> bool:
        for name, found in (image.get("properties") or {}).items():
            if named(name) and fits(found):
                return True
        field = image.get(key)
        return isinstance(field, str | bool | int) and str(field).lower() == value.lower()

    return holds


def _list(context: Context, args: Args) -> None:
    ref, filters = "", list(args.rest)
    if filters and ":" in filters[0] and "=" not in filters[0]:
        name, _, rest = filters.pop(0).partition(":")
        ref = name + ":"
        if rest:
            filters.insert(0, rest)
    images, _ = _images(context, ref)
    for matches in map(_matcher, filters):
        images = [one for one in images if matches(one)]
    columns = []
    for letter in args.value("columns").replace(",", ""):
        if letter not in _COLUMNS:
            raise UsageError(f"Unknown column shorthand {letter!r} in {args.value('columns')!r}")
        columns.append(_COLUMNS[letter])
    images.sort(key=lambda one: (_shortest(one) or "~", one["fingerprint"]))
    rows = [[value(image) for _, value in columns] for image in images]
    sys.stdout.write(render.show(args.value("format"), [title for title, _ in columns], rows, images))


def _find(context: Context, ref: str) -> tuple[Client | None, dict[str, Any]]:
    """The image an alias or fingerprint names; without a client when it is on an image server."""
    remote, name = context.remotes.parse_ref(ref)
    if not name:
        raise UsageError("missing the image")
    if remote.is_image_server:
        images, _ = _images(context, remote.name + ":")
        for image in images:
            if name in _alias_names(image) or image["fingerprint"].startswith(name):
                return None, image
        raise ApiError(f'Image "{name}" not found on {remote.name} (see lxpy image list {remote.name}:)')
    client = context.client_of(remote)
    return client, find(client, name)


def _fingerprint(client: Client, name: str) -> str:
    try:
        return str(client.get(f"/1.0/images/aliases/{quote(name)}")["target"])
    except NotFound:
        return name


def _info(context: Context, args: Args) -> None:
    _, image = _find(context, args.rest[0])
    lines = [f"Fingerprint: {image['fingerprint']}", f"Size: {image['size'] / 1_048_576:.2f}MB"]
    lines += [f"Architecture: {image['architecture']}", f"Type: {image['type']}"]
    lines += [f"Public: {'yes' if image['public'] else 'no'}", "Timestamps:"]
    for title, key in (("Created", "created_at"), ("Uploaded", "uploaded_at"), ("Expires", "expires_at"),
                       ("Last used", "last_used_at")):  # fmt: skip
        lines.append(f"    {title}: {render.date(image.get(key) or '', 'never')}")
    lines.append("Properties:")
    lines += [f"    {key}: {value}" for key, value in sorted((image.get("properties") or {}).items())]
    lines.append("Aliases:")
    lines += [f"    - {name}" for name in _alias_names(image)]
    lines.append(f"Cached: {'yes' if image.get('cached') else 'no'}")
    lines.append(f"Auto update: {'enabled' if image.get('auto_update') else 'disabled'}")
    if image.get("update_source"):
        source = image["update_source"]
        lines += [
            "Source:",
            *(f"    {key.capitalize()}: {source.get(key, '')}" for key in ("server", "protocol", "alias")),
        ]
    lines.append("Profiles:" if image.get("profiles") else "Profiles: []")
    lines += [f"    - {name}" for name in image.get("profiles") or []]
    sys.stdout.write("\n".join(lines) + "\n")


def _show(context: Context, args: Args) -> None:
    _, image = _find(context, args.rest[0])
    sys.stdout.write(render.yaml({key: image[key] for key in IMAGE.writable if key in image}))


def _edit(context: Context, args: Args) -> None:
    from lxpy.cli.context import edit_document

    client, image = _find(context, args.rest[0])
    if client is None:
        raise ApiError("Images of an image server cannot be changed")
    there, url = client, IMAGE.url(image["fingerprint"])
    shown = {key: image[key] for key in IMAGE.writable if key in image}
    edit_document(render.yaml(shown), lambda changed: IMAGE.save(there, url, changed, ""), known=image)


def _own(context: Context, ref: str) -> tuple[Client, Any]:
    """The client and the image of a server that can change it."""
    client, image = _find(context, ref)
    if client is None:
        raise ApiError("Images of an image server cannot be changed")
    return client, image


def _get_property(context: Context, args: Args) -> None:
    _, image = _find(context, args.rest[0])
    if args.rest[1] not in (image.get("properties") or {}):
        raise NotFound("Property not found")
    print(image["properties"][args.rest[1]])


def _set_property(context: Context, args: Args) -> None:
    from lxpy.cli.context import settings

    client, image = _own(context, args.rest[0])
    changed = {**(image.get("properties") or {}), **settings(list(args.rest[1:]))}
    client.patch(IMAGE.url(image["fingerprint"]), {"properties": changed})


def _unset_property(context: Context, args: Args) -> None:
    client, image = _own(context, args.rest[0])
    kept = {key: image[key] for key in IMAGE.writable if key in image}
    kept["properties"] = {key: value for key, value in image["properties"].items() if key != args.rest[1]}
    client.put(IMAGE.url(image["fingerprint"]), kept)


def _refresh(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, image = _own(context, ref)
        operation = client.post(f"{IMAGE.url(image['fingerprint'])}/refresh", {})
        ended = context.wait(client, operation, "Refreshing the image")
        found = ended.get("metadata") or {}
        context.say(f"Image updated: {found['fingerprint']}" if found.get("refreshed") else "Image already up to date.")


def _import(context: Context, args: Args) -> None:
    from lxpy.cli.imagefiles import import_image

    import_image(context, args)


def _export(context: Context, args: Args) -> None:
    client, image = _find(context, args.rest[0])
    if client is None:
        raise ApiError(f"Copy the image here first: lxpy image copy {args.rest[0]} local:")
    from lxpy.cli.imagefiles import export_image

    export_image(context, client, image["fingerprint"], args.at(1) or ".")


def _delete(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, image = _find(context, ref)
        if client is None:
            raise ApiError("Images of an image server cannot be deleted")
        context.wait(client, client.delete(IMAGE.url(image["fingerprint"])))


def _copy(context: Context, args: Args) -> None:
    from lxpy.cli.imagecopy import copy

    copy(context, args)


def _build(context: Context, args: Args) -> None:
    client = context.client()
    body = {
        "source": {"type": "recipe", "name": args.rest[0].removeprefix("builtin:")},
        "aliases": [{"name": alias, "description": ""} for alias in args.values("alias")],
    }
    ended = context.wait(client, client.post("/1.0/images", body), f"Building {args.rest[0]}")
    context.say(f"Image built with fingerprint: {(ended.get('metadata') or {}).get('fingerprint', '')}")


def _serve(context: Context, args: Args) -> int:
    client = context.client()
    body: dict[str, Any] = {
        "address": args.value("address"), "port": args.number("port", 8444),
        "tls": args.flag("tls"), "public_only": args.flag("public-only"),
    }  # fmt: skip
    operation = client.post("/1.0/image-servers/serve", body)
    url = str((operation.get("metadata") or {}).get("url", ""))
    shown = url
    for everywhere in ("//0.0.0.0:", "//[::]:"):
        shown = shown.replace(everywhere, f"//{os.uname().nodename}:")
    try:
        context.say(f"Serving images on {url}")
        context.say(f"Add it elsewhere with:  lxpy remote add NAME {shown} --protocol simplestreams")
        context.say(f"or point a remote there: lxpy remote set-url NAME {shown}")
        context.say("Ctrl-C ends it.")
        client.wait(operation)
    except KeyboardInterrupt:
        context.say("")
        return 0
    finally:
        client.cancel(operation, 1)
    return 0


def _alias_client(context: Context, ref: str) -> tuple[Client, str]:
    client, name = context.resolve(ref)
    return client, f"/1.0/images/aliases/{quote(name)}"


def _alias_create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    target = _fingerprint(client, args.rest[1])
    full = client.get(f"/1.0/images/{quote(target)}")["fingerprint"]
    client.post("/1.0/images/aliases", {"name": name, "target": full, "description": args.value("description")})


def _alias_delete(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, url = _alias_client(context, ref)
        client.delete(url)


def _alias_rename(context: Context, args: Args) -> None:
    client, url = _alias_client(context, args.rest[0])
    client.post(url, {"name": args.rest[1]})


def _alias_list(context: Context, args: Args) -> None:
    filters = list(args.rest)
    images, _ = _images(context, filters.pop(0) if ":" in args.at(0) else "")
    raw = [
        {"name": alias["name"], "description": alias.get("description", ""), "target": image["fingerprint"],
         "type": image["type"]}
        for image in images for alias in image.get("aliases") or []
        if all(word in alias["name"] or word in image["fingerprint"] for word in filters)
    ]  # fmt: skip
    raw.sort(key=lambda one: str(one["name"]))
    rows = [[one["name"], one["target"][:12], str(one["type"]).upper(), one["description"]] for one in raw]
    header = ["ALIAS", "FINGERPRINT", "TYPE", "DESCRIPTION"]
    sys.stdout.write(render.show(args.value("format"), header, rows, raw))


_ALIAS = Option("--alias", "NAME", "Alias to give to the image", many=True)
_PUBLIC = Option("--public", help="Make the image public")

COMMANDS = {
    "image": {
        "alias": {
            "create": Command(
                _alias_create, "[<remote>:]<alias> <fingerprint>", "Create an alias for an image",
                (Option("--description", "TEXT", "Description"),), 2, 2,
            ),
            "delete": Command(_alias_delete, "[<remote>:]<alias>...", "Delete aliases", (), 1, None),
            "list": Command(
                _alias_list, "[<remote>:] [<filter>...]", "List aliases", (FORMAT,), 0, None,
                "A filter is a part of an alias or of a fingerprint.",
            ),
            "rename": Command(_alias_rename, "[<remote>:]<alias> <new name>", "Rename an alias", (), 2, 2),
        },
        "build": Command(_build, "<recipe>", "Build an image from a recipe (builtin:)", (_ALIAS,), 1, 1),
        "copy": Command(
            _copy, "[<remote>:]<image> <remote>:", "Copy images between servers",
            (
                _ALIAS, _PUBLIC, Option("--auto-update", help="Keep the image up to date after the copy"),
                Option("--copy-aliases", help="Copy aliases from the source"),
                Option("--mode", "MODE", "Transfer mode: pull (default), push or relay"),
                Option("--target-project", "PROJECT", "Copy to a project different from the source"),
                Option("--vm", help="Copy virtual machine images (not possible)"),
            ), 2, 2,
            "The target pulls from the source, or the source pushes to the target; with relay all passes through this\n"
            "machine, which is also what happens by default when the source does not listen on the network.\n\n"
            "--auto-update needs a public image, named by an alias.",
        ),
        "delete": Command(_delete, "[<remote>:]<image>...", "Delete images", (), 1, None),
        "edit": Command(_edit, "[<remote>:]<image>", "Edit an image's properties as YAML", (), 1, 1),
        "export": Command(
            _export, "[<remote>:]<image> [<target>]", "Export an image to files", (), 1, 2,
            "The target is a directory, the beginning of the files' names, or - for standard output; it defaults to\n"
            "the working directory. A split image becomes two files.",
        ),
        "import": Command(
            _import, "<tarball>|<directory>|<URL>|- [<rootfs>] [<remote>:] [key=value...]", "Import an image",
            (_ALIAS, _PUBLIC), 1, None,
            "From a tarball (- for standard input), a metadata tarball and a root file system (squashfs or tar), a\n"
            "directory with metadata.yaml and rootfs (root only), or an https address, which the server downloads.",
        ),
        "get-property": Command(_get_property, "[<remote>:]<image> <key>", "Get an image's property", (), 2, 2),
        "info": Command(_info, "[<remote>:]<image>", "Show useful information about an image", (), 1, 1),
        "list": Command(
            _list, "[<remote>:] [<filter>...]", "List images",
            (FORMAT, Option("-c --columns", "COLUMNS", "Columns, of lLfFpdatsu", "lfpdatsu")), 0, None,
            "A filter is a part of an alias or of a fingerprint, or KEY=VALUE: a property, whose name may be cut\n"
            "short (req.cg) and whose value is a regular expression, or a field (architecture, public, cached).\n\n"
            "Columns: l shortest alias, L all aliases, f fingerprint, F whole fingerprint, p public, d description,\n"
            "a architecture, t type, s size, u upload date.",
        ),
        "refresh": Command(_refresh, "[<remote>:]<image>...", "Fetch or build images anew", (), 1, None),
        "serve": Command(
            _serve, "", "Publish the local images as a simplestreams server, until Ctrl-C",
            (
                Option("--address", "ADDRESS", "Address to listen on (default every one)"),
                Option("--port", "PORT", "Port to listen on, 0 for a free one", "8444"),
                Option("--public-only", help="Only images marked public"),
                Option("--tls", help="HTTPS with a self-signed certificate"),
            ),
        ),
        "set-property": Command(
            _set_property, "[<remote>:]<image> <key>=<value>... (or <key> <value>)", "Set an image's properties", (),
            2, None,
        ),
        "show": Command(_show, "[<remote>:]<image>", "Show an image's properties", (), 1, 1),
        "unset-property": Command(
            _unset_property, "[<remote>:]<image> <key>", "Take a property of an image away", (), 2, 2
        ),
    }
}  # fmt: skip

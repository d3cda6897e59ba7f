"""network forward."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option
from lxpy.cli.context import Context, edit_document, pairs, settings
from lxpy.cli.objects import FORMAT, PROPERTY, Kind, get_property, piped, quote, set_properties

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client

_NETWORK = Kind("network", "/1.0/networks")
_WRITABLE = ("config", "description", "ports")
_PLACE = "[<remote>:]<network> <listen_address>"


def _resolve(context: Context, args: Args) -> tuple[Client, str]:
    client, url = _NETWORK.resolve(context, args.rest[0])
    return client, f"{url}/forwards/{quote(args.rest[1])}"


def _load(context: Context, args: Args) -> tuple[Client, str, dict[str, Any], str]:
    client, url = _resolve(context, args)
    document, etag = client.get_etag(url)
    return client, url, document, etag


def _save(client: Client, url: str, document: dict[str, Any], etag: str) -> None:
    client.wait(client.put(url, {key: document[key] for key in _WRITABLE if key in document}, etag))


def _list(context: Context, args: Args) -> None:
    client, url = _NETWORK.resolve(context, args.rest[0])
    found = client.get(f"{url}/forwards", recursion="1")
    rows = [
        [one["listen_address"], one["description"], one["config"].get("target_address", ""), str(len(one["ports"]))]
        for one in found
    ]
    header = ["LISTEN ADDRESS", "DESCRIPTION", "DEFAULT TARGET ADDRESS", "PORTS"]
    sys.stdout.write(render.show(args.value("format"), header, sorted(rows), found))


def _create(context: Context, args: Args) -> None:
    client, url = _NETWORK.resolve(context, args.rest[0])
    body = piped("forward", _WRITABLE)
    body["config"] = {**(body.get("config") or {}), **pairs(args.rest[2:])}
    if args.value("description"):
        body["description"] = args.value("description")
    client.wait(client.post(f"{url}/forwards", {**body, "listen_address": args.rest[1]}))
    context.say(f"Network forward {args.rest[1]} created")


def _delete(context: Context, args: Args) -> None:
    client, url = _resolve(context, args)
    client.wait(client.delete(url))
    context.say(f"Network forward {args.rest[1]} deleted")


def _show(context: Context, args: Args) -> None:
    client, url = _resolve(context, args)
    sys.stdout.write(render.yaml(render.ordered(client.get(url))))


def _get(context: Context, args: Args) -> None:
    _, _, document, _ = _load(context, args)
    key, config = args.rest[2], document["config"]
    sys.stdout.write(f"{get_property(document, key) if args.flag('property') else config.get(key, '')}\n")


def _set(context: Context, args: Args) -> None:
    client, url, document, etag = _load(context, args)
    if args.flag("property"):
        set_properties(document, settings(args.rest[2:]), ("description",))
    else:
        document["config"].update(settings(args.rest[2:]))
    _save(client, url, document, etag)


def _unset(context: Context, args: Args) -> None:
    client, url, document, etag = _load(context, args)
    if args.flag("property"):
        set_properties(document, {args.rest[2]: ""}, ("description",))
    elif document["config"].pop(args.rest[2], None) is None:
        raise ApiError(f"Can't unset key '{args.rest[2]}', it's not currently set")
    _save(client, url, document, etag)


def _edit(context: Context, args: Args) -> None:
    client, url, document, etag = _load(context, args)
    shown = {key: document[key] for key in ("listen_address", *_WRITABLE)}
    tag = etag if sys.stdin.isatty() else ""
    head = "### The forward as YAML. Lines that begin with # are ignored; the address is shown only.\n"
    text = head + render.yaml(render.ordered(shown))
    edit_document(text, lambda changed: _save(client, url, changed, tag), known=document)


def _add_port(context: Context, args: Args) -> None:
    client, url, document, etag = _load(context, args)
    _, _, protocol, listen, target, *target_port = args.rest
    port = {"protocol": protocol, "listen_port": listen, "target_address": target}
    if target_port:
        port["target_port"] = target_port[0]
    if args.value("description"):
        port["description"] = args.value("description")
    document["ports"].append(port)
    _save(client, url, document, etag)


def _remove_port(context: Context, args: Args) -> None:
    client, url, document, etag = _load(context, args)
    protocol, listen = args.at(2), args.at(3)
    hit = [
        port
        for port in document["ports"]
        if (not protocol or port["protocol"] == protocol) and (not listen or port["listen_port"] == listen)
    ]
    if not hit:
        raise ApiError("No matching port(s) found")
    if len(hit) > 1 and not args.flag("force"):
        raise ApiError(f"{len(hit)} ports match: name protocol and listen port, or remove them all with --force")
    document["ports"] = [port for port in document["ports"] if port not in hit]
    _save(client, url, document, etag)


_DESCRIPTION = Option("--description", "TEXT", "Description")
FORWARD = {
    "create": Command(
        _create, f"{_PLACE} [key=value...]", "Create a forward (YAML on standard input)", (_DESCRIPTION,), 2, None,
    ),
    "delete": Command(_delete, _PLACE, "Delete a forward", (), 2, 2),
    "edit": Command(_edit, _PLACE, "Edit a forward as YAML (editor, or standard input)", (), 2, 2),
    "get": Command(_get, f"{_PLACE} <key>", "Get a value of a forward", (PROPERTY,), 3, 3),
    "list": Command(_list, "[<remote>:]<network>", "List the forwards of a network", (FORMAT,), 1, 1),
    "port": {
        "add": Command(
            _add_port, f"{_PLACE} <protocol> <listen_port(s)> <target_address> [<target_port(s)>]",
            "Add ports to a forward", (_DESCRIPTION,), 5, 6,
        ),
        "remove": Command(
            _remove_port, f"{_PLACE} [<protocol>] [<listen_port(s)>]", "Remove ports from a forward",
            (Option("--force", help="Remove all ports that match"),), 2, 4,
        ),
    },
    "set": Command(_set, f"{_PLACE} <key>=<value>...", "Set values of a forward", (PROPERTY,), 3, None),
    "show": Command(_show, _PLACE, "Show a forward", (), 2, 2),
    "unset": Command(_unset, f"{_PLACE} <key>", "Unset a value of a forward", (PROPERTY,), 3, 3),
}  # fmt: skip

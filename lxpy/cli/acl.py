"""network acl."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, pairs
from lxpy.cli.objects import Kind, piped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ACL = Kind("network ACL", "/1.0/network-acls", ("config", "description", "egress", "ingress"))
_PLACE = "[<remote>:]<ACL>"
_ACL.place = _PLACE


def _create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    body = piped("network ACL", _ACL.writable)
    body["config"] = {**(body.get("config") or {}), **pairs(args.rest[1:])}
    if args.value("description"):
        body["description"] = args.value("description")
    client.wait(client.post(_ACL.path, {**body, "name": name}))
    context.say(f"Network ACL {name} created")


def _log(context: Context, args: Args) -> None:
    client, url = _ACL.resolve(context, args.rest[0])
    sys.stdout.write(client.request("GET", f"{url}/log").body.decode(errors="replace"))


def _rules(document: dict[str, Any], direction: str) -> list[dict[str, str]]:
    if direction not in ("ingress", "egress"):
        raise UsageError("The direction argument must be one of: ingress, egress")
    found: list[dict[str, str]] = document[direction]
    return found


def _add(context: Context, args: Args) -> None:
    client, url = _ACL.resolve(context, args.rest[0])
    document, etag = client.get_etag(url)
    _rules(document, args.rest[1]).append(pairs(args.rest[2:], "rule field"))
    _ACL.save(client, url, document, etag)


def _remove(context: Context, args: Args) -> None:
    client, url = _ACL.resolve(context, args.rest[0])
    document, etag = client.get_etag(url)
    rules, wanted = _rules(document, args.rest[1]), pairs(args.rest[2:], "rule field")
    hit = [rule for rule in rules if all(rule.get(key, "") == value for key, value in wanted.items())]
    if not hit:
        raise ApiError("No matching rule(s) found")
    if len(hit) > 1 and not args.flag("force"):
        raise ApiError(f"{len(hit)} rules match: name more of their fields, or remove them all with --force")
    document[args.rest[1]] = [rule for rule in rules if rule not in hit]
    _ACL.save(client, url, document, etag)


ACL = {
    "create": Command(
        _create, f"{_PLACE} [key=value...]", "Create a network ACL (YAML on standard input)",
        (Option("--description", "TEXT", "Description"),), 1, None,
    ),
    "delete": _ACL.delete(),
    "edit": _ACL.edit(),
    "get": _ACL.get(),
    "list": _ACL.list(
        ["NAME", "DESCRIPTION", "USED BY"],
        lambda one: [one["name"], one["description"], str(len(one.get("used_by") or ()))],
    ),
    "rename": _ACL.rename(),
    "rule": {
        "add": Command(_add, f"{_PLACE} <direction> <key>=<value>...", "Add a rule to a network ACL", (), 3, None),
        "remove": Command(
            _remove, f"{_PLACE} <direction> [<key>=<value>...]", "Remove rules from a network ACL",
            (Option("--force", help="Remove all rules that match"),), 2, None,
        ),
    },
    "set": _ACL.set(),
    "show": _ACL.show(),
    "show-log": Command(_log, _PLACE, "Show what a network ACL has logged", (), 1, 1),
    "unset": _ACL.unset(),
}  # fmt: skip

"""operation, monitor, query, version."""

from __future__ import annotations

import sys

import lxpy
from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.cli.objects import FORMAT, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _operations(context: Context, args: Args) -> None:
    client, _ = context.resolve(args.at(0) or ":")
    query = {"all-projects": "true"} if args.flag("all-projects") else {}
    groups = client.get("/1.0/operations", recursion="1", **query) or {}
    found = [one for group in groups.values() for one in group]
    rows = [
        [one["id"], str(one.get("class", "")).upper(), one["description"], str(one["status"]).upper(),
         "YES" if one["may_cancel"] else "NO", render.date(one["created_at"])]
        for one in sorted(found, key=lambda one: str(one["created_at"]))
    ]  # fmt: skip
    header = ["ID", "TYPE", "DESCRIPTION", "STATUS", "CANCELABLE", "CREATED"]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _operation_show(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    sys.stdout.write(render.yaml(client.get(f"/1.0/operations/{quote(name)}")))


def _operation_delete(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, name = context.resolve(ref)
        client.delete(f"/1.0/operations/{quote(name)}")
        context.say(f"Operation {name} deleted")


def _monitor(context: Context, args: Args) -> None:
    client, _ = context.resolve(args.at(0) or ":")
    fmt = "pretty" if args.flag("pretty") else args.value("format")
    if fmt not in ("json", "pretty", "yaml"):
        raise UsageError(f"Invalid format {fmt!r}: use json, pretty or yaml")
    levels = ("debug", "info", "warning", "error")
    lowest = args.value("loglevel")
    if lowest and lowest not in levels:
        raise UsageError(f"Invalid log level {lowest!r}: use one of {', '.join(levels)}")
    types = [one for word in args.values("type") for one in word.split(",")] or ["lifecycle", "logging", "operation"]
    for event in client.events(types, args.flag("all-projects")):
        if lowest and event["type"] == "logging":
            level = str(event["metadata"].get("level", "info")).lower()
            if level in levels and levels.index(level) < levels.index(lowest):
                continue
        sys.stdout.write(_event(fmt, dict(event)))
        sys.stdout.flush()
    raise ApiError("The server closed the event stream: it has ended or restarts")


def _event(fmt: str, event: dict[str, Any]) -> str:
    if fmt == "json":
        return render.json(event) + "\n"
    if fmt == "yaml":
        return render.yaml(event) + "\n\n"
    data = event["metadata"]
    when = event["timestamp"][:19]
    if event["type"] == "lifecycle":
        return f"{when} {data.get('action', '')} {data.get('source', '')}\n"
    if event["type"] == "operation":
        return f"{when} operation {data.get('id', '')} {data.get('description', '')}: {data.get('status', '')}\n"
    return f"{when} {str(data.get('level', '')).upper()} {data.get('message', '')}\n"


def _query(context: Context, args: Args) -> None:
    remote, path = "", args.rest[0]
    if not path.startswith("/"):
        remote, _, path = path.partition(":")
    if not path.startswith("/"):
        raise UsageError("The path must begin with / (for example /1.0/instances)")
    data = args.value("data")
    body: Any = None
    if data:
        from lxpy.client import wire

        try:
            body = wire.loads(data)
        except ValueError:
            raise UsageError(f"The data is not JSON: {data}") from None
    method = args.value("request").upper()
    if method not in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
        raise UsageError(f"Invalid method {method!r}: use GET, HEAD, POST, PUT, PATCH or DELETE")
    client = context.client(remote)
    response = client.request(method, path, body)
    if "json" not in response.headers.get("content-type", "json"):
        sys.stdout.flush()
        sys.stdout.buffer.write(response.body)
        return
    answer = response.json()
    if args.flag("wait") and isinstance(answer, dict) and answer.get("type") == "async":
        answer["metadata"] = context.wait(client, answer["metadata"])
    from lxpy.client.wire import pretty

    if args.flag("raw") or not (isinstance(answer, dict) and "metadata" in answer):
        sys.stdout.write(pretty(answer) + "\n")
        return
    metadata = answer["metadata"]
    if isinstance(metadata, str):
        sys.stdout.write(metadata + "\n")
    elif metadata not in (None, {}):
        sys.stdout.write(pretty(metadata) + "\n")


def _version(context: Context, args: Args) -> None:
    if args.flag("client"):
        sys.stdout.write(f"{lxpy.__version__}\n")
        return
    try:
        client, _ = context.resolve(args.at(0) or ":")
        server = client.get("/1.0")["environment"]["server_version"]
    except ApiError:
        server = "unreachable"
    sys.stdout.write(f"Client version: {lxpy.__version__}\nServer version: {server}\n")


_ALL_PROJECTS = Option("--all-projects", help="Of all projects")

COMMANDS: dict[str, Command | dict[str, Command]] = {
    "operation": {
        "delete": Command(_operation_delete, "[<remote>:]<id>...", "Cancel a background operation", (), 1, None),
        "list": Command(_operations, "[<remote>:]", "List background operations", (FORMAT, _ALL_PROJECTS), 0, 1),
        "show": Command(_operation_show, "[<remote>:]<id>", "Show a background operation", (), 1, 1),
    },
    "monitor": Command(
        _monitor, "[<remote>:]", "Monitor the server's events",
        (
            _ALL_PROJECTS,
            Option("-f --format", "FORMAT", "Format (json|pretty|yaml)", "yaml"),
            Option("--loglevel", "LEVEL", "Lowest level of log messages shown"),
            Option("--pretty", help="Pretty rendering (short for --format=pretty)"),
            Option("--type", "TYPE", "Event type to listen for (lifecycle, logging, operation)", many=True),
        ), 0, 1,
    ),
    "query": Command(
        _query, "[<remote>:]<API path>", "Send a raw query to the server",
        (
            Option("-d --data", "JSON", "Input data"),
            Option("--raw", help="Print the raw response"),
            Option("-X --request", "METHOD", "Action", "GET"),
            Option("--wait", help="Wait for the operation to complete"),
        ), 1, 1,
    ),
    "version": Command(
        _version, "[<remote>:]", "Show local and remote versions",
        (Option("--client", help="Only ours, on one line"),), 0, 1,
    ),
}  # fmt: skip

"""What every kind of object with a ``config`` has in common: show, get, set, unset, edit, delete, rename, list."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, edit_document, known_only, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client

FORMAT = Option("-f --format", "FORMAT", "Format (csv|json|table|yaml|compact)", "table")
PROPERTY = Option("-p --property", help="Treat the key as a property of the object, not as configuration")

_SHOWN = ("content_type", "created_at", "listen_address", "location", "locations", "managed", "name", "project",
          "status", "type", "used_by")  # fmt: skip


def quote(text: str) -> str:
    from lxpy.client import wire

    return wire.quote(text)


def piped(what: str, keys: tuple[str, ...]) -> dict[str, Any]:
    """`keys` of the YAML that waits on standard input; nothing on a terminal or an idle pipe."""
    if sys.stdin.isatty():
        return {}
    import select

    poll = select.poll()
    poll.register(0, select.POLLIN)
    text = sys.stdin.read() if poll.poll(0) else ""
    given = render.parse_yaml(text, f"The {what} on standard input") if text.strip() else {}
    if not isinstance(given, dict):
        raise ApiError(f"The {what} on standard input is not a YAML mapping")
    known_only(given, {*keys, *_SHOWN})  # what `show` prints of another one may be piped in as it is
    return {key: given[key] for key in keys if given.get(key)}


def set_properties(document: dict[str, Any], changes: dict[str, str], names: tuple[str, ...]) -> None:
    """Change properties of an object, which are texts and booleans; an empty text unsets one.

    Args:
        names: those that can be written.

    Raises:
        ApiError: another is meant, or a boolean is to be something else.
    """
    from lxpy.api import values

    for key, value in changes.items():
        if key not in names:
            raise ApiError(f"There is no property {key!r} that could be set; there are: {', '.join(names)}")
        document[key] = values.boolean(key, value or "false") if isinstance(document.get(key), bool) else value


def get_property(document: dict[str, Any], key: str) -> str:
    """A property of an object as text. Raises `ApiError` when it has none of that name."""
    if key not in document:
        raise ApiError(f"There is no property {key!r}; there are: {', '.join(sorted(document))}")
    value = document[key]
    if isinstance(value, (dict, list)):
        return render.yaml(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


class Kind:
    """One kind of object.

    Args:
        word: as messages name it.
        path: of the collection.
        writable: what PUT takes; the rest is left out of ``edit``.
    """

    def __init__(self, word: str, path: str, writable: tuple[str, ...] = ("config", "description")) -> None:
        self.word, self.path, self.writable = word, path, writable
        self.title = word[:1].upper() + word[1:]
        self.place = f"[<remote>:]<{word}>"

    def url(self, name: str) -> str:
        if not name:
            raise UsageError(f"missing the {self.word}'s name")
        return f"{self.path}/{quote(name)}"

    def resolve(self, context: Context, ref: str) -> tuple[Client, str]:
        """Client and URL of an object."""
        client, name = context.resolve(ref)
        return client, self.url(name)

    def save(self, client: Client, url: str, document: dict[str, Any], etag: str) -> None:
        body = {key: document[key] for key in self.writable if key in document}
        client.wait(client.put(url, body, etag))

    # Commands

    def show(self) -> Command:
        def run(context: Context, args: Args) -> None:
            client, url = self.resolve(context, args.rest[0])
            sys.stdout.write(render.yaml(render.ordered(client.get(url))))

        return Command(run, self.place, f"Show a {self.word}", (), 1, 1)

    def get(self) -> Command:
        def run(context: Context, args: Args) -> None:
            client, url = self.resolve(context, args.rest[0])
            document = client.get(url)
            key, config = args.rest[1], document["config"]
            sys.stdout.write(f"{get_property(document, key) if args.flag('property') else config.get(key, '')}\n")

        return Command(run, f"{self.place} <key>", f"Get a value of a {self.word}", (PROPERTY,), 2, 2)

    def set(self) -> Command:
        def run(context: Context, args: Args) -> None:
            client, url = self.resolve(context, args.rest[0])
            changes = settings(args.rest[1:])
            document, etag = client.get_etag(url)
            if args.flag("property"):
                set_properties(document, changes, ("description",))
            else:
                document["config"].update(changes)
            self.save(client, url, document, etag)

        return Command(run, f"{self.place} <key>=<value>...", f"Set values of a {self.word}", (PROPERTY,), 2, None)

    def unset(self) -> Command:
        def run(context: Context, args: Args) -> None:
            client, url = self.resolve(context, args.rest[0])
            document, etag = client.get_etag(url)
            key = args.rest[1]
            if args.flag("property"):
                set_properties(document, {key: ""}, ("description",))
            elif document["config"].pop(key, None) is None:
                return  # as LXD has it for all but instances
            self.save(client, url, document, etag)

        return Command(run, f"{self.place} <key>", f"Unset a value of a {self.word}", (PROPERTY,), 2, 2)

    def edit(self) -> Command:
        def run(context: Context, args: Args) -> None:
            client, url = self.resolve(context, args.rest[0])
            document, etag = client.get_etag(url)
            shown = {key: value for key, value in document.items() if key in (*self.writable, "name")}
            text = f"### The {self.word} as YAML. Lines that begin with # are ignored; the name is shown only.\n"
            tag = etag if sys.stdin.isatty() else ""  # what is piped in replaces whatever is there
            edit_document(
                text + render.yaml(render.ordered(shown)), lambda changed: self.save(client, url, changed, tag),
                known={*document, *self.writable},
            )  # fmt: skip

        return Command(run, self.place, f"Edit a {self.word} as YAML (editor, or standard input)", (), 1, 1)

    def delete(self) -> Command:
        def run(context: Context, args: Args) -> None:
            for ref in args.rest:
                client, url = self.resolve(context, ref)
                context.wait(client, client.delete(url))
                context.say(f"{self.title} {ref} deleted")

        return Command(run, f"{self.place}...", f"Delete a {self.word}", (), 1, None)

    def rename(self) -> Command:
        def run(context: Context, args: Args) -> None:
            client, url = self.resolve(context, args.rest[0])
            new = args.rest[1].rpartition(":")[2]
            context.wait(client, client.post(url, {"name": new}))
            context.say(f"{self.title} {args.rest[0]} renamed to {new}")

        return Command(run, f"{self.place} <new name>", f"Rename a {self.word}", (), 2, 2)

    def list(self, header: list[str], row: Callable[[dict[str, Any]], list[str]]) -> Command:
        def run(context: Context, args: Args) -> None:
            client, _ = context.resolve(args.at(0) if args.at(0).endswith(":") else args.at(0) + ":")
            found = client.get(self.path, recursion="1")
            rows = sorted(map(row, found))
            sys.stdout.write(render.show(args.value("format"), header, rows, found))

        return Command(run, "[<remote>:]", f"List every {self.word}", (FORMAT,), 0, 1)

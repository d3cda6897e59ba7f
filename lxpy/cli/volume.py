"""storage volume: custom volumes, their snapshots, and where they are attached."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.config import INSTANCE
from lxpy.cli.context import Context, edit_document, pairs, settings
from lxpy.cli.objects import FORMAT, PROPERTY, Kind, get_property, quote, set_properties
from lxpy.cli.profile import PROFILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client

_TYPES = ("custom", "container", "image", "virtual-machine")
_POOL = "[<remote>:]<pool>"
_VOLUME = f"{_POOL} [<type>/]<volume>[/<snapshot>]"
_NEVER = "0001-01-01T00:00:00Z"
_TARGET = Option("--target-project", "NAME", "Copy or move to this project")


class Place:
    """A volume, or a snapshot of one, as the command line names it: ``[type/]name[/snapshot]``."""

    def __init__(self, context: Context, pool: str, name: str) -> None:
        self.client, self.pool = context.resolve(pool)
        if not self.pool:
            raise UsageError("missing the pool's name")
        words = name.split("/")
        self.type = words.pop(0) if len(words) > 1 and words[0] in _TYPES else "custom"
        self.snapshot = words.pop() if len(words) == 2 else ""
        if len(words) != 1 or not words[0] or name.endswith("/"):
            raise UsageError(f"bad volume name {name!r}: write [<type>/]<volume>[/<snapshot>]")
        self.name = words[0]

    @property
    def volumes(self) -> str:
        return f"/1.0/storage-pools/{quote(self.pool)}/volumes/{self.type}"

    @property
    def volume(self) -> str:
        return f"{self.volumes}/{quote(self.name)}"

    @property
    def url(self) -> str:
        return f"{self.volume}/snapshots/{quote(self.snapshot)}" if self.snapshot else self.volume

    @property
    def writable(self) -> tuple[str, ...]:
        return ("description", "expires_at") if self.snapshot else ("config", "description")

    @property
    def properties(self) -> tuple[str, ...]:
        return tuple(key for key in self.writable if key != "config")

    def only_volume(self) -> Place:
        if self.snapshot:
            raise UsageError(f"{self.name}/{self.snapshot} is a snapshot: name a volume")
        return self

    def save(self, document: dict[str, Any], etag: str) -> None:
        body = {key: document[key] for key in self.writable if key in document}
        self.client.wait(self.client.put(self.url, body, etag))


def _place(context: Context, args: Args) -> Place:
    return Place(context, args.rest[0], args.rest[1])


# -- volumes -------------------------------------------------------------------------------------------------------


def _create(context: Context, args: Args) -> None:
    place = _place(context, args).only_volume()
    body = {
        "name": place.name,
        "type": place.type,
        "content_type": args.value("type"),
        "config": pairs(args.rest[2:]),
        "description": args.value("description"),
    }
    context.wait(place.client, place.client.post(place.volumes, body))
    context.say(f"Storage volume {place.name} created")


def _delete(context: Context, args: Args) -> None:
    for name in args.rest[1:]:
        place = Place(context, args.rest[0], name)
        context.wait(place.client, place.client.delete(place.url))
        context.say(f"Storage volume {name} deleted")


def _show(context: Context, args: Args) -> None:
    place = _place(context, args)
    sys.stdout.write(render.yaml(render.ordered(place.client.get(place.url))))


def _get(context: Context, args: Args) -> None:
    place, key = _place(context, args), args.rest[2]
    document = place.client.get(place.url)
    config = document["config"]
    sys.stdout.write(f"{get_property(document, key) if args.flag('property') else config.get(key, '')}\n")


def _set(context: Context, args: Args) -> None:
    place, changes = _place(context, args), settings(args.rest[2:])
    document, etag = place.client.get_etag(place.url)
    if args.flag("property") or (place.snapshot and set(changes) <= {"description", "expires_at"}):
        set_properties(document, changes, place.properties)
    elif place.snapshot:
        raise ApiError("Only description and expires_at of a snapshot can be changed")
    else:
        document["config"].update(changes)
    place.save(document, etag)


def _unset(context: Context, args: Args) -> None:
    place, key = _place(context, args), args.rest[2]
    document, etag = place.client.get_etag(place.url)
    if args.flag("property") or (place.snapshot and key in place.writable):
        set_properties(document, {key: _NEVER if key == "expires_at" else ""}, place.properties)
    elif document["config"].pop(key, None) is None:
        raise ApiError(f"Can't unset key '{key}', it's not currently set")
    place.save(document, etag)


def _edit(context: Context, args: Args) -> None:
    place = _place(context, args)
    document, etag = place.client.get_etag(place.url)
    shown = {key: value for key, value in document.items() if key in (*place.writable, "name")}
    head = "### The volume as YAML. Lines that begin with # are ignored; the name is shown only.\n"
    tag = etag if sys.stdin.isatty() else ""
    edit_document(head + render.yaml(render.ordered(shown)), lambda changed: place.save(changed, tag), known=document)


def _info(context: Context, args: Args) -> None:
    place = _place(context, args)
    volume = place.client.get(place.volume)
    usage = (place.client.get(f"{place.volume}/state") or {}).get("usage") or {}
    out = [f"Name: {volume['name']}"]
    if volume["description"]:
        out.append(f"Description: {volume['description']}")
    out += [f"Type: {volume['type']}", f"Content type: {volume['content_type']}"]
    if "used" in usage:
        out.append(f"Usage: {render.size(usage['used'])}")
    if usage.get("total"):
        out.append(f"Total: {render.size(usage['total'])}")
    if created := render.date(volume.get("created_at", "")):
        out.append(f"Created: {created}")
    if volume["used_by"]:
        out += ["", "Used by:"] + [f"  {user.removeprefix('/1.0/')}" for user in volume["used_by"]]
    found = place.client.get(f"{place.volume}/snapshots", recursion="1")
    if found:
        rows = [
            [one["name"].rpartition("/")[2], one["description"], render.date(one["created_at"]),
             render.date(one["expires_at"])]
            for one in found
        ]  # fmt: skip
        out += ["", "Snapshots:"]
        out += render.table(["NAME", "DESCRIPTION", "TAKEN AT", "EXPIRES AT"], rows).splitlines()
    sys.stdout.write("\n".join(out) + "\n")


def _list(context: Context, args: Args) -> None:
    client, pool = context.resolve(args.rest[0])
    if not pool:
        raise UsageError("missing the pool's name")
    everywhere = args.flag("all-projects")
    query = {"recursion": "1", **({"all-projects": "true"} if everywhere else {})}
    found = client.get(f"/1.0/storage-pools/{quote(pool)}/volumes", **query)
    wanted = args.rest[1:]
    found = [one for one in found if _matches(one, wanted)]
    rows = []
    for one in found:
        kind = f"{one['type']} (snapshot)" if "/" in one["name"] else one["type"]
        row = [kind, one["name"], one["description"], one["content_type"], str(len(one.get("used_by") or ()))]
        rows.append([one["project"], *row] if everywhere else row)
    header = ["TYPE", "NAME", "DESCRIPTION", "CONTENT-TYPE", "USED BY"]
    sys.stdout.write(
        render.show(args.value("format"), ["PROJECT", *header] if everywhere else header, sorted(rows), found)
    )


def _matches(volume: dict[str, Any], wanted: list[str]) -> bool:
    """Every ``key=value`` holds, and the name begins with one of the other words, if there are any."""
    names = []
    for word in wanted:
        key, equals, value = word.partition("=")
        if not equals:
            names.append(word)
        elif str(volume.get(key, volume["config"].get(key, ""))) != value:
            return False
    return not names or any(volume["name"].startswith(name) for name in names)


def _rename(context: Context, args: Args) -> None:
    place, new = _place(context, args), args.rest[2]
    if place.snapshot:
        volume, slash, snapshot = new.rpartition("/")
        if slash and volume.rpartition("/")[2] != place.name:
            raise UsageError(f"a snapshot stays with its volume: write {place.name}/{snapshot}")
        new = snapshot
    context.wait(place.client, place.client.post(place.url, {"name": new}))
    context.say(f'Renamed storage volume from "{args.rest[1]}" to "{args.rest[2]}"')


# -- copy and move -------------------------------------------------------------------------------------------------


def _ends(context: Context, args: Args) -> tuple[Place, Place]:
    """Source and target, each ``[remote:]pool/volume[/snapshot]``."""
    places = []
    for ref in args.rest:
        pool, slash, name = ref.partition("/")
        if not slash:
            raise UsageError(f"bad volume {ref!r}: write [<remote>:]<pool>/<volume>")
        places.append(Place(context, pool, name))
    source, target = places
    target.only_volume()
    return source, target


def _query(client: Client, args: Args) -> dict[str, str]:
    project = args.value("target-project")
    return {"project": project} if project else {}


def _export(context: Context, args: Args) -> None:
    from lxpy.cli.backup import fetch

    place = Place(context, args.rest[0], args.rest[1]).only_volume()
    body = {"volume_only": args.flag("volume-only"), "optimized_storage": args.flag("optimized-storage")}
    fetch(context, place.client, f"{place.volume}/backups", body, args.at(2), args.value("compression"), place.name)


def _import(context: Context, args: Args) -> None:
    from lxpy.cli.backup import send

    client, pool = context.resolve(args.rest[0])
    url = f"/1.0/storage-pools/{quote(pool)}/volumes/custom"
    send(context, client, url, args.rest[1], {"X-LXD-name": args.at(2)})


def _copy(context: Context, args: Args) -> None:
    source, target = _ends(context, args)
    if source.client is not target.client:
        from lxpy.cli import relay

        relay.volume(context, args, source, target, move=False)
        context.say("Storage volume copied successfully!")
        return
    name = f"{source.name}/{source.snapshot}" if source.snapshot else source.name
    body = {
        "name": target.name,
        "type": "custom",
        "source": {
            "type": "copy", "name": name, "pool": source.pool, "volume_only": args.flag("volume-only"),
            "refresh": args.flag("refresh"), "project": source.client.project or "default",
        },
    }  # fmt: skip
    query = _query(source.client, args)
    context.wait(source.client, source.client.post(target.volumes, body, **query), "Copying the storage volume")
    context.say("Storage volume copied successfully!")


def _move(context: Context, args: Args) -> None:
    source, target = _ends(context, args)
    source.only_volume()
    if source.client is not target.client:
        from lxpy.cli import relay

        relay.volume(context, args, source, target, move=True)
        context.say("Storage volume moved successfully!")
        return
    body = {"name": target.name, "pool": target.pool}
    if project := args.value("target-project") or source.client.project:
        body["project"] = project
    context.wait(source.client, source.client.post(source.volume, body), "Moving the storage volume")
    context.say("Storage volume moved successfully!")


# -- snapshots -----------------------------------------------------------------------------------------------------


def _snapshot(context: Context, args: Args) -> None:
    place = _place(context, args).only_volume()
    body: dict[str, Any] = {"name": args.at(2)}
    if args.flag("no-expiry"):
        body["expires_at"] = _NEVER
    if args.flag("reuse") and body["name"]:
        old = Place(context, args.rest[0], f"{args.rest[1]}/{body['name']}")
        names = [one["name"] for one in old.client.get(f"{place.volume}/snapshots", recursion="1")]
        if f"{place.name}/{old.snapshot}" in names:
            context.wait(old.client, old.client.delete(old.url))
    context.wait(place.client, place.client.post(f"{place.volume}/snapshots", body), "Snapshotting the storage volume")


def _restore(context: Context, args: Args) -> None:
    place = _place(context, args).only_volume()
    context.wait(place.client, place.client.put(place.volume, {"restore": args.rest[2]}))


# -- attach, detach ------------------------------------------------------------------------------------------------


def _attach_to(kind: Kind, context: Context, args: Args) -> None:
    place, target = _place(context, args).only_volume(), args.rest[2]
    if place.type != "custom":
        raise ApiError('Only "custom" volumes can be attached')
    device, path = (args.rest[3], args.rest[4]) if len(args.rest) == 5 else (place.name, args.rest[3])
    if not path.startswith("/"):
        raise UsageError(f"bad path {path!r}: an absolute path inside the instance")
    place.client.get(place.volume)  # it has to be there, whatever the instance's own project is
    url = kind.url(target)
    document, etag = place.client.get_etag(url)
    if device in document["devices"]:
        raise ApiError(f"The device {device!r} already exists: give another name before the path")
    document["devices"][device] = {"type": "disk", "pool": place.pool, "source": place.name, "path": path}
    kind.save(place.client, url, document, etag)
    context.say(f"Storage volume {place.name} attached to {target} at {path}")


def _detach_from(kind: Kind, context: Context, args: Args) -> None:
    place, target, wanted = _place(context, args).only_volume(), args.rest[2], args.at(3)
    url = kind.url(target)
    document, etag = place.client.get_etag(url)

    def mine(devices: dict[str, dict[str, str]]) -> list[str]:
        return [
            name for name, one in devices.items()
            if one.get("type") == "disk" and (one.get("pool"), one.get("source")) == (place.pool, place.name)
        ]  # fmt: skip

    found = mine(document["devices"])
    if wanted and wanted not in found:
        raise ApiError(f"The device {wanted!r} of {target} is not the storage volume {place.name}")
    if not found:
        if mine(document.get("expanded_devices", {})):
            raise ApiError(
                f"Storage volume {place.name} comes to {target} from a profile: "
                "use lxpy storage volume detach-profile"
            )  # fmt: skip
        raise ApiError(f"Storage volume {place.name} is not attached to {target}")
    if not wanted and len(found) > 1:
        raise ApiError(f"Storage volume {place.name} is attached more than once: name the device ({', '.join(found)})")
    del document["devices"][wanted or found[0]]
    kind.save(place.client, url, document, etag)
    context.say(f"Storage volume {place.name} detached from {target}")


def _attach(context: Context, args: Args) -> None:
    _attach_to(INSTANCE, context, args)


def _attach_profile(context: Context, args: Args) -> None:
    _attach_to(PROFILE, context, args)


def _detach(context: Context, args: Args) -> None:
    _detach_from(INSTANCE, context, args)


def _detach_profile(context: Context, args: Args) -> None:
    _detach_from(PROFILE, context, args)


_WHERE = f"{_POOL} <volume>"
_ENDS = "[<remote>:]<pool>/<volume>{} [<remote>:]<pool>/<volume>"
VOLUME: dict[str, Command] = {
    "attach": Command(
        _attach, f"{_WHERE} <instance> [<device>] <path>", "Attach a volume to an instance", (), 4, 5,
        "A running instance sees it at once. The owners of files are right in every instance; one volume can be "
        "attached to several.",
    ),
    "attach-profile": Command(
        _attach_profile, f"{_WHERE} <profile> [<device>] <path>", "Attach a volume to a profile", (), 4, 5,
    ),
    "copy": Command(
        _copy, _ENDS.format("[/<snapshot>]"), "Copy a volume, with its snapshots",
        (Option("--volume-only", help="Copy without the snapshots"),
         Option("--refresh", help="Bring an earlier copy up to date: only what has changed is copied"), _TARGET), 2, 2,
    ),
    "create": Command(
        _create, f"{_POOL} <volume> [key=value...]", "Create a custom volume",
        (Option("--type", "TYPE", "Content type", "filesystem"), Option("--description", "TEXT", "Description")),
        2, None,
    ),
    "delete": Command(_delete, f"{_VOLUME}...", "Delete volumes or snapshots", (), 2, None),
    "detach": Command(_detach, f"{_WHERE} <instance> [<device>]", "Detach a volume from an instance", (), 3, 4),
    "detach-profile": Command(
        _detach_profile, f"{_WHERE} <profile> [<device>]", "Detach a volume from a profile", (), 3, 4,
    ),
    "edit": Command(_edit, _VOLUME, "Edit a volume as YAML (editor, or standard input)", (), 2, 2),
    "export": Command(
        _export, f"{_POOL} <volume> [<file>|-]", "Export a custom volume, with its snapshots",
        (
            Option("--compression", "ALGORITHM", "gzip (default), zstd, xz, bzip2, lzma or none; a level may follow"),
            Option("--optimized-storage", help="In a storage driver's own format (not possible)"),
            Option("--volume-only", help="Export without the snapshots"),
        ), 2, 3,
        "The file defaults to the volume's name with .tar.gz, or what the compression ends in; - is standard output.",
    ),
    "get": Command(_get, f"{_VOLUME} <key>", "Get a value of a volume", (PROPERTY,), 3, 3),
    "import": Command(_import, f"{_POOL} <file>|- [<volume>]", "Make a custom volume of a backup", (), 2, 3),
    "info": Command(_info, f"{_POOL} [<type>/]<volume>", "Show usage, users and snapshots of a volume", (), 2, 2),
    "list": Command(
        _list, f"{_POOL} [<filter>...]", "List the volumes of a pool",
        (FORMAT, Option("--all-projects", help="Those of all projects")), 1, None,
        "A filter is the beginning of a name, or key=value (type=custom).",
    ),
    "move": Command(_move, _ENDS.format(""), "Move or rename a volume", (_TARGET,), 2, 2),
    "rename": Command(
        _rename, f"{_POOL} <volume>[/<snapshot>] <new name>[/<snapshot>]", "Rename a volume or snapshot", (), 3, 3,
    ),
    "restore": Command(_restore, f"{_WHERE} <snapshot>", "Restore a volume from a snapshot", (), 3, 3),
    "set": Command(_set, f"{_VOLUME} <key>=<value>...", "Set values of a volume", (PROPERTY,), 3, None),
    "show": Command(_show, _VOLUME, "Show a volume or snapshot", (), 2, 2),
    "snapshot": Command(
        _snapshot, f"{_WHERE} [<snapshot>]", "Snapshot a volume",
        (Option("--no-expiry", help="Ignore snapshots.expiry"),
         Option("--reuse", help="Replace a snapshot of that name")), 2, 3,
    ),
    "unset": Command(_unset, f"{_VOLUME} <key>", "Unset a value of a volume", (PROPERTY,), 3, 3),
}  # fmt: skip

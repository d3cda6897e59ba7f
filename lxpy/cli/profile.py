"""profile."""

from __future__ import annotations

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option
from lxpy.cli.config import INSTANCE, Devices
from lxpy.cli.context import Context
from lxpy.cli.objects import Kind, piped

PROFILE = Kind("profile", "/1.0/profiles", ("config", "description", "devices"))


def _create(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    body = piped("profile", PROFILE.writable)
    client.post(PROFILE.path, {**body, "name": name})
    context.say(f"Profile {name} created")


def _copy(context: Context, args: Args) -> None:
    source, url = PROFILE.resolve(context, args.rest[0])
    target, name = context.resolve(args.rest[1])
    document = source.get(url)
    body = {"name": name, **{key: document[key] for key in PROFILE.writable}}
    project = args.value("target-project")
    target.post(PROFILE.path, body, **({"project": project} if project else {}))


def _change(context: Context, ref: str, profiles: list[str] | None, add: str = "", remove: str = "") -> None:
    client, url = INSTANCE.resolve(context, ref)
    document, etag = client.get_etag(url)
    if profiles is None:
        profiles = list(document["profiles"])
        if add:
            if add in profiles:
                raise ApiError(f"Profile {add} is already applied to {ref}")
            profiles.append(add)
        elif remove not in profiles:
            raise ApiError(f"Profile {remove} isn't currently applied to {ref}")
        else:
            profiles.remove(remove)
    document["profiles"] = profiles
    INSTANCE.save(client, url, document, etag)


def _add(context: Context, args: Args) -> None:
    _change(context, args.rest[0], None, add=args.rest[1])
    context.say(f"Profile {args.rest[1]} added to {args.rest[0]}")


def _remove(context: Context, args: Args) -> None:
    _change(context, args.rest[0], None, remove=args.rest[1])
    context.say(f"Profile {args.rest[1]} removed from {args.rest[0]}")


def _assign(context: Context, args: Args) -> None:
    profiles = [name for name in args.rest[1].split(",") if name]
    _change(context, args.rest[0], profiles)
    context.say(f"Profiles {', '.join(profiles) or '(none)'} applied to {args.rest[0]}")


COMMANDS = {
    "profile": {
        "add": Command(_add, "[<remote>:]<instance> <profile>", "Add a profile to an instance", (), 2, 2),
        "assign": Command(_assign, "[<remote>:]<instance> <profiles>", "Replace an instance's profiles", (), 2, 2),
        "copy": Command(
            _copy,
            "[<remote>:]<profile> [<remote>:]<new>",
            "Copy a profile",
            (Option("--target-project", "NAME", "Copy to a project different from the source"),),
            2,
            2,
        ),
        "create": Command(_create, "[<remote>:]<profile>", "Create a profile (YAML on standard input)", (), 1, 1),
        "delete": PROFILE.delete(),
        "device": Devices(PROFILE).commands(),
        "edit": PROFILE.edit(),
        "get": PROFILE.get(),
        "list": PROFILE.list(
            ["NAME", "DESCRIPTION", "USED BY"],
            lambda one: [one["name"], one["description"], str(len(one.get("used_by") or ()))],
        ),
        "remove": Command(_remove, "[<remote>:]<instance> <profile>", "Remove a profile from an instance", (), 2, 2),
        "rename": PROFILE.rename(),
        "set": PROFILE.set(),
        "show": PROFILE.show(),
        "unset": PROFILE.unset(),
    }
}

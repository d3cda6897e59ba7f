"""recover: bring back what lies on storage pools and is in no database."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError, BadRequest
from lxpy.cli import render, wizard
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, pairs, text_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client

    Document = dict[str, Any]

_KINDS = {"instance": "instance", "custom": "storage volume"}
_LATER = "What is left alone stays where it is: mend it, then run lxpy recover again"


def _recover(context: Context, args: Args) -> int:
    client = context.client()
    if args.flag("preseed") and args.values("pool"):
        raise UsageError("Can't use --preseed and --pool together")
    if args.rest and not args.flag("preseed"):
        raise UsageError(f"too many arguments: {' '.join(args.rest)}")
    pools = _preseed(args.at(0)) if args.flag("preseed") else [_pool(text) for text in args.values("pool")]
    strays = client.get("/internal/recover")
    named = {one["name"] for one in pools}
    unseen = [one for one in strays if one["problem"] and one["name"] not in named]
    strays = [one for one in strays if not one["problem"] and one["name"] not in named]
    for one in unseen:
        where = f"{one['name']} in {one['source']}"
        print(f"Warning: Storage pool {where} is left alone: {one['problem']}", file=sys.stderr)
    status = int(bool(unseen))
    if args.flag("preseed") or args.flag("yes") or args.flag("dry-run"):
        if not pools:
            pools = [{"name": one["name"], "driver": one["driver"]} for one in strays]
        told = client.post("/internal/recover/validate", {"pools": pools})
        if not _is_anything(told):
            context.say("Nothing is to be recovered")
            return status
        _show(told)
        return 0 if args.flag("dry-run") else _do(context, client, pools, told) or status
    return _with_questions(context, client, pools, strays)


def _with_questions(context: Context, client: Client, pools: list[Document], strays: list[Document]) -> int:
    there = client.get("/1.0/storage-pools", recursion="1")
    if there:
        print("This server has these storage pools, which are looked at:")
    else:
        print("This server has no storage pools.")
    for one in there:
        print(f" - {one['name']} ({one['driver']}, {one['config'].get('source', '')})")
    for one in strays:
        found = f"{one['name']} ({one['driver']}, {one['source']})"
        if _yes(f"There is a storage pool that it does not know: {found}. Recover it?", "yes"):
            pools.append({"name": one["name"], "driver": one["driver"]})
    while _yes("Is there another storage pool to recover?", "no"):
        pools.append(_ask_pool(client))
    while True:
        told = client.post("/internal/recover/validate", {"pools": pools})
        if not _is_anything(told):
            context.say("Nothing is to be recovered")
            return 0
        _show(told)
        if not _missing(told):
            break
        if _line('Make what is missing, then press Enter to look again; or type "skip" to leave alone what needs it: '):
            break
    if not (told["found"] or _new(told)):
        return 1
    if not _yes("Recover that?", "no"):
        print("Nothing was changed.")
        return 0
    return _do(context, client, pools, told)


def _do(context: Context, client: Client, pools: list[Document], told: Document) -> int:
    if told["found"] or _new(told):
        operation = context.wait(client, context.begin(client, "/internal/recover/import", {"pools": pools}))
        told = operation["metadata"]["recovery"]
        for pool in _new(told):
            context.say(f"Storage pool {pool['name']} recovered")
        for one in told["found"]:
            context.say(f"{_KINDS[one['type']].capitalize()} {one['name']} recovered")
    if told["left"]:
        names = ", ".join(one["name"] for one in told["left"][:3])
        more = f" and {len(told['left']) - 3} more" if len(told["left"]) > 3 else ""
        raise ApiError(f"Not recovered: {names}{more}, for the reasons above. {_LATER}")
    return 0


# -- what was found ----------------------------------------------------------------------------------------------------


def _is_anything(told: Document) -> bool:
    return bool(told["found"] or told["left"] or _new(told))


def _new(told: Document) -> list[Document]:
    return [pool for pool in told["pools"] if not pool["known"]]


def _missing(told: Document) -> list[str]:
    return list(dict.fromkeys(what for one in told["left"] for what in one["missing"]))


def _show(told: Document) -> None:
    def part(title: str, lines: list[str]) -> None:
        if lines:
            print("\n".join([title, *(f" - {line}" for line in lines)]))

    part("Storage pools:", [f"{one['name']} ({one['driver']}, {one['source']})" for one in _new(told)])
    part("Found:", [_line_of(one) for one in told["found"]])
    with_them = [f"project {name}" for name in told["projects"]]
    with_them += [f"profile {one['name']}{_in(one['project'])}" for one in told["profiles"]]
    part("With them come back:", with_them)
    part(
        "Left alone:",
        [f"{_KINDS[one['type']]} {one['name']} on pool {one['pool']}: {one['reason']}" for one in told["left"]],
    )
    part("Missing:", _missing(told))


def _line_of(one: Document) -> str:
    count = one["snapshots"]
    kept = f", with {count} snapshot{'s' if count > 1 else ''}" if count else ""
    first = f"{_KINDS[one['type']]} {one['name']} on pool {one['pool']}{_in(one['project'])}{kept}"
    return "\n   ".join([first, *one["notes"]])


def _in(project: str) -> str:
    return "" if project == "default" else f" in project {project}"


# -- which pools -------------------------------------------------------------------------------------------------------


def _pool(text: str) -> Document:
    name, *settings = text.split(",")
    config = pairs(settings, "setting of a pool")
    return {"name": name, "driver": config.pop("driver", ""), "config": config}


def _preseed(path: str) -> list[Document]:
    found = render.parse_yaml(text_of(path, "the list of pools"), "The list of pools")
    pools = found.get("pools", found.get("storage_pools")) if isinstance(found, dict) else None
    if not isinstance(pools, list) or not all(isinstance(one, dict) and one.get("name") for one in pools):
        raise BadRequest("The list of pools must have the form: pools: [{name: NAME, driver: DRIVER, config: {...}}]")
    unknown = {key for one in pools for key in one} - {"name", "driver", "config", "description"}
    if unknown:
        raise BadRequest(f"A pool has name, driver and config, not {', '.join(sorted(map(str, unknown)))}")
    return [
        {
            "name": str(one["name"]),
            "driver": str(one.get("driver") or ""),
            "config": {str(key): str(value) for key, value in (one.get("config") or {}).items()},
        }
        for one in pools
    ]


def _ask_pool(client: Client) -> Document:
    """A pool, asked for until the server finds it."""
    while True:
        name = _line("Its name: ")
        driver = _line("Its driver, overlay, dir or btrfs (Enter: found out): ")
        source = _line("Where it lies, a directory or disk (Enter: where lxpy puts it): ")
        pool: Document = {"name": name, "driver": driver, "config": {"source": source} if source else {}}
        while setting := _line("Another setting of it, KEY=VALUE (Enter: none): "):
            key, _, value = setting.partition("=")
            pool["config"][key] = value
        try:
            client.post("/internal/recover/validate", {"pools": [pool]})
            return pool
        except BadRequest as error:
            print(f"  {error}")


def _yes(question: str, default: str) -> bool:
    while True:
        try:
            answer = (_line(f"{question} (yes/no) [default={default}]: ") or default).lower()
        except ApiError:
            return False  # no more answers
        if answer in ("yes", "y", "no", "n"):
            return answer.startswith("y")
        print(f"  {answer!r} is neither yes nor no")


def _line(prompt: str) -> str:
    return wizard.line(prompt).strip()


OPTIONS = (
    Option("--pool", "NAME[,driver=DRIVER][,source=PLACE][,KEY=VALUE]", "A pool to recover", many=True),
    Option("--preseed", help="Recover the pools that the YAML of a file, or of standard input, names"),
    Option("-y --yes", help="Ask nothing"),
    Option("--dry-run", help="Say what would be recovered, and do nothing"),
)
TEXT = """
Looks at the storage pools of the server, at pools in its directory that it does not know, and at those that are named,
and brings back the instances and storage volumes on them that are in no database, with their snapshots, profiles and
projects. With --preseed: pools: [{name: NAME, driver: DRIVER, config: {source: PLACE}}]"""

RECOVER = Command(
    _recover, "[<file>]", "Bring back instances and volumes that lie on storage pools but are not known",
    OPTIONS, 0, 1, text=TEXT,
)  # fmt: skip
COMMANDS: dict[str, Command | dict[str, Command]] = {"recover": RECOVER}

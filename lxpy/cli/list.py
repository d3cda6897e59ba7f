"""list: the table of instances."""

from __future__ import annotations

import sys

from lxpy.api import status
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client

    Column = tuple[str, Callable[[dict[str, Any]], str]]

_ZERO = "0001-"


def _addresses(family: str) -> Callable[[dict[str, Any]], str]:
    def column(instance: dict[str, Any]) -> str:
        network = (instance.get("state") or {}).get("network") or {}
        return "\n".join(
            sorted(
                (
                    f"{address['address']} ({name})"
                    for name, interface in network.items()
                    if name != "lo"
                    for address in interface["addresses"]
                    if address["family"] == family and address["scope"] not in ("link", "local")
                ),
                reverse=True,
            )
        )

    return column


def _config(key: str) -> Callable[[dict[str, Any]], str]:
    return lambda instance: (instance.get("expanded_config") or {}).get(key, "")


def _root_pool(instance: dict[str, Any]) -> str:
    for device in instance["expanded_devices"].values():
        if device.get("type") == "disk" and device.get("path") == "/":
            return str(device.get("pool", ""))
    return ""


def _disk(instance: dict[str, Any]) -> str:
    used = ((instance.get("state") or {}).get("disk") or {}).get("root", {}).get("usage", 0)
    return render.size(used) if used > 0 else ""


def _memory(instance: dict[str, Any]) -> str:
    used = ((instance.get("state") or {}).get("memory") or {}).get("usage", 0)
    return render.size(used) if used and instance["status_code"] in status.UP else ""


def _memory_percent(instance: dict[str, Any]) -> str:
    memory = (instance.get("state") or {}).get("memory") or {}
    used, total = memory.get("usage", 0), memory.get("total", 0)
    return f"{used * 100 / total:.1f}%" if used and total and instance["status_code"] in status.UP else ""


def _state(key: str, *, zero: bool = False) -> Callable[[dict[str, Any]], str]:
    def column(instance: dict[str, Any]) -> str:
        value = (instance.get("state") or {}).get(key, 0)
        return str(value) if value and instance["status_code"] in status.UP else ""

    return column


def _cpu(instance: dict[str, Any]) -> str:
    used = ((instance.get("state") or {}).get("cpu") or {}).get("usage", 0)
    return f"{used // 1_000_000_000}s" if used and instance["status_code"] in status.UP else ""


def _type(instance: dict[str, Any]) -> str:
    kind = str(instance["type"] or "container").upper().replace("-", " ")
    return f"{kind} (EPHEMERAL)" if instance["ephemeral"] else kind


# letter -> (header, value, which fields of the state it needs)
COLUMNS: dict[str, tuple[str, Callable[[dict[str, Any]], str], str]] = {
    "4": ("IPV4", _addresses("inet"), "state.network"),
    "6": ("IPV6", _addresses("inet6"), "state.network"),
    "a": ("ARCHITECTURE", lambda i: i["architecture"], ""),
    "b": ("STORAGE POOL", _root_pool, ""),
    "c": ("CREATED AT", lambda i: render.date(i["created_at"]), ""),
    "d": ("DESCRIPTION", lambda i: i["description"], ""),
    "D": ("DISK USAGE", _disk, "state.disk"),
    "e": ("PROJECT", lambda i: i["project"], ""),
    "f": ("BASE IMAGE", lambda i: _config("volatile.base_image")(i)[:12], ""),
    "F": ("BASE IMAGE", _config("volatile.base_image"), ""),
    "l": ("LAST USED AT", lambda i: render.date(i["last_used_at"]), ""),
    "L": ("LOCATION", lambda i: i["location"], ""),
    "m": ("MEMORY USAGE", _memory, "state.memory"),
    "M": ("MEMORY USAGE%", _memory_percent, "state.memory"),
    "n": ("NAME", lambda i: i["name"], ""),
    "N": ("PROCESSES", _state("processes"), "state.processes"),
    "p": ("PID", _state("pid"), "state"),
    "P": ("PROFILES", lambda i: "\n".join(i["profiles"]), ""),
    "s": ("STATE", lambda i: i["status"].upper(), ""),
    "S": ("SNAPSHOTS", lambda i: str(len(i.get("snapshots") or ())), "snapshots"),
    "t": ("TYPE", _type, ""),
    "u": ("CPU USAGE", _cpu, "state.cpu"),
}
_DEFAULT, _FAST = "ns46tSL", "nsacPt"


def _custom(word: str) -> Column:
    """``[config:|devices:]key[:name][:maxwidth]``."""
    parts = word.split(":")
    where = "config"
    if parts[0] in ("config", "devices"):
        where = parts.pop(0)
    if not parts or not parts[0] or len(parts) > 3:
        raise UsageError(f"Invalid column {word!r}: expected [config:|devices:]key[:name][:maxwidth]")
    key = parts[0]
    title = parts[1] if len(parts) > 1 and parts[1] else key
    width = -1
    if len(parts) == 3:
        try:
            width = int(parts[2])
        except ValueError:
            raise UsageError(f"Invalid maximum width {parts[2]!r} in column {word!r}") from None
    if width == 0:
        width = len(title)
    device, _, option = key.partition(".")

    def column(instance: dict[str, Any]) -> str:
        if where == "config":
            text = (instance.get("expanded_config") or {}).get(key, "")
        else:
            text = (instance.get("expanded_devices") or {}).get(device, {}).get(option, "")
        return str(text if width < 0 else text[:width])

    return title.upper() if title == key else title, column


def parse_columns(text: str) -> tuple[list[Column], set[str]]:
    """The columns of ``-c``, and the parts of an instance they need."""
    columns: list[Column] = []
    needs: set[str] = set()
    for word in text.split(","):
        if not word:
            raise UsageError(f"Empty column entry in {text!r}")
        if "." in word or ":" in word:
            columns.append(_custom(word))
            continue
        for letter in word:
            if letter not in COLUMNS:
                raise UsageError(f"Unknown column shorthand {letter!r} in {text!r}")
            header, value, need = COLUMNS[letter]
            columns.append((header, value))
            if need:
                needs.add(need)
    return columns, needs


def matches(filters: list[str], instance: dict[str, Any]) -> bool:
    """Whether an instance passes every filter: name, regular expression, key=value."""
    return all(_matches(word, instance) for word in filters)


def _matches(word: str, instance: dict[str, Any]) -> bool:
    key, equals, value = word.partition("=")
    if not equals:
        name = instance["name"]
        if name.startswith(word):
            return True
        if any(character in word for character in "^$.*+?[](){}|\\"):
            return _regex(word).search(name) is not None
        return False
    wanted = [one.lower() for one in value.split(",")]
    if key == "type":
        return instance["type"].lower() in wanted
    if key == "status":
        return instance["status"].lower() in wanted
    if key == "architecture":
        return instance["architecture"].lower() in wanted
    if key == "location":
        return instance["location"].lower() in wanted
    if key in ("ipv4", "ipv6"):
        return _in_network(value, "inet" if key == "ipv4" else "inet6", instance)
    for name, text in instance["expanded_config"].items():
        if _same_key(name, key) and (text == value or _regex(value).fullmatch(text)):
            return True
    return False


def _same_key(name: str, short: str) -> bool:
    """``u.role`` means ``user.role``: each part may be abbreviated."""
    if name == short:
        return True
    parts, wanted = name.split("."), short.split(".")
    return len(parts) == len(wanted) and all(part.startswith(want) for part, want in zip(parts, wanted, strict=True))


def _regex(pattern: str) -> Any:
    import re

    try:
        return re.compile(pattern)
    except re.error as error:
        raise UsageError(f"Invalid regular expression {pattern!r}: {error}") from None


def _in_network(value: str, family: str, instance: dict[str, Any]) -> bool:
    import ipaddress

    try:
        networks = [ipaddress.ip_network(one, strict=False) for one in value.split(",")]
    except ValueError as error:
        raise UsageError(f"Invalid address or CIDR: {error}") from None
    state = (instance.get("state") or {}).get("network") or {}
    return any(
        ipaddress.ip_address(address["address"]) in network
        for name, interface in state.items()
        if name != "lo"
        for address in interface["addresses"]
        if address["family"] == family
        for network in networks
    )


def fetch(client: Client, needs: set[str], all_projects: bool = False) -> list[dict[str, Any]]:
    """Instances with just what is needed of their state."""
    query = {"recursion": "2" if needs else "1"}
    if needs and "*" not in needs:
        # "state" alone: whether it runs and its pid, nothing that has to be asked of the kernel.
        query["fields"] = ",".join(sorted(need for need in needs if need.startswith("state"))) or "state"
    if all_projects:
        query["all-projects"] = "true"
    instances: list[dict[str, Any]] = client.get("/1.0/instances", **query)
    return instances


def _list(context: Context, args: Args) -> int:
    remote, filters = "", list(args.rest)
    if filters and filters[0].endswith(":") and "=" not in filters[0]:
        remote = filters.pop(0)[:-1]
    elif (
        filters and ":" in filters[0] and "=" not in filters[0] and filters[0].split(":")[0] in context.remotes.remotes
    ):
        remote, _, filters[0] = filters[0].partition(":")
    all_projects = args.flag("all-projects")
    if args.flag("fast") and args.value("columns"):
        raise UsageError("Can't specify --fast with --columns")
    text = args.value("columns") or (_FAST if args.flag("fast") else _DEFAULT)
    if not args.value("columns"):
        text = text.replace("L", "")  # one machine: the location says nothing
        if all_projects:
            text = "e" + text
    columns, needs = parse_columns(text)
    fmt = args.value("format")
    if fmt in ("json", "yaml"):
        needs = {"*"}
    elif any(word.startswith(("ipv4=", "ipv6=")) for word in filters):
        needs.add("state.network")
    instances = fetch(context.client(remote), needs, all_projects)
    if filters:
        instances = [one for one in instances if matches(filters, one)]
    instances.sort(key=lambda one: (one["project"], one["name"]) if all_projects else ("", one["name"]))
    rows = [[value(instance) for _, value in columns] for instance in instances]
    sys.stdout.write(render.show(fmt, [title for title, _ in columns], rows, instances))
    return 0


COMMANDS = {
    "list": Command(
        _list, "[<remote>:] [<filter>...]", "List instances",
        (
            Option("--all-projects", help="Display instances from all projects"),
            Option("-c --columns", "COLUMNS", f'Columns (default "{_DEFAULT}")'),
            Option("--fast", help=f"Fast mode (same as --columns={_FAST})"),
            Option("-f --format", "FORMAT", "Format (csv|json|table|yaml|compact)", "table"),
        ), 0, None,
        text="Filters: a name's beginning, a regular expression on the name, key=value of the configuration\n"
        "(parts may be abbreviated: u.role=web), type= status= architecture= ipv4= ipv6=. All must hold.\n\n"
        "Columns:\n" + "\n".join(f"  {letter} - {title}" for letter, (title, _, _) in COLUMNS.items())
        + "\n  [config:|devices:]key[:name][:maxwidth] - a configuration key",
    )
}  # fmt: skip

"""doctor: what this host has and lacks, each with what to do; works with the daemon dead or alive."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.host.checks import Finding

_GLYPHS = {"ok": ("✔", "32"), "note": ("·", "36"), "warning": ("!", "33"), "stops": ("✘", "31")}


def _doctor(context: Context, args: Args) -> int:
    from lxpy.api.layout import Layout
    from lxpy.host import checks

    fmt = args.value("format")
    if fmt not in ("table", "json", "yaml"):
        raise UsageError(f"unknown format {fmt!r}: use table, json or yaml")
    if args.flag("fix"):
        _fix()
    layout = Layout()
    pools: dict[str, str] = {}
    found = [*_daemon(layout.socket, pools), *checks.everything(layout, pools)]
    if fmt != "table":
        sys.stdout.write((render.json if fmt == "json" else render.yaml)([one._asdict() for one in found]))
    else:
        _print(found)
    return 1 if any(one.status == checks.STOPS for one in found) else 0


def _daemon(path: str, pools: dict[str, str]) -> list[Finding]:
    """What the daemon says of itself; `pools` are filled with where each keeps its data."""
    from lxpy.client import wire
    from lxpy.client.client import Client
    from lxpy.client.remotes import load
    from lxpy.host.checks import NOTE, OK, WARNING, Finding

    # Never woken: a doctor who starts the patient sees another one.
    client = Client(lambda: wire.unix_socket(path), "lxpy", load().get("local"))
    try:
        version = client.get("/1.0")["environment"]["server_version"]
        new = [one for one in client.get("/1.0/warnings", recursion="1") or [] if one["status"] == "new"]
        for one in client.get("/1.0/storage-pools", recursion="1"):
            pools[one["name"]] = str(one["config"].get("source", ""))
    except PermissionError:
        return [Finding("daemon", "daemon", NOTE, f"no permission to use {path}", "", "run as root, or join its group")]
    except (ApiError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        if os.path.exists(path) or os.path.isdir(os.path.dirname(path)):
            return [
                Finding("daemon", "daemon", NOTE, f"lxpyd does not answer ({reason})", "", "any lxpy command starts it")
            ]
        return [Finding("daemon", "daemon", NOTE, "lxpyd was never started here", "", "lxpy init")]
    finally:
        client.close()
    found = [Finding("daemon", "daemon", OK, f"lxpyd {version} answers")]
    if new:
        # Those of low severity tell what is so on this host; the others, what somebody should see to.
        status = WARNING if any(one["severity"] != "low" for one in new) else NOTE
        number = "a warning" if len(new) == 1 else f"{len(new)} warnings, the newest"
        seen = f"{number}: {max(new, key=lambda one: str(one['last_seen_at']))['last_message']}"
        found.append(Finding("daemon.warnings", "daemon", status, seen, "", "lxpy warning list"))
    return found


def _fix() -> None:
    from lxpy.api.layout import Layout
    from lxpy.host import checks, sysctls

    if os.geteuid() != 0:
        raise ApiError("Only root can mend the host: sudo lxpy doctor --fix")
    for change in sysctls.raise_low():
        if change.error:
            print(f"{change.name} stays at {change.before}: {change.error}", file=sys.stderr)
        else:
            print(f"{change.name}: {change.before} -> {change.after} (kept in {sysctls.CONF})", file=sys.stderr)
    for line in checks.open_docker(Layout()):
        print(line, file=sys.stderr)


def _print(found: list[Finding]) -> None:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    subject = ""
    for one in found:
        if one.subject != subject:
            subject = one.subject
            print(f"\033[1m{subject}\033[0m" if colour else subject)
        glyph, code = _GLYPHS[one.status]
        print(f"  \033[{code}m{glyph}\033[0m {one.seen}" if colour else f"  {glyph} {one.seen}")
        if one.why and one.status != "ok":
            print(f"    {one.why}")
        if one.todo:
            print(f"    → {one.todo}")
    stops = sum(1 for one in found if one.status == "stops")
    warnings = sum(1 for one in found if one.status == "warning")
    print()
    if stops:
        print(
            "One of these keeps lxpy from working (✘)."
            if stops == 1
            else f"{stops} of these keep lxpy from working (✘)."
        )
    elif warnings:
        things = "one thing is" if warnings == 1 else f"{warnings} things are"
        print(f"lxpy works here; {things} worth a look (!).")
    else:
        print("lxpy works here.")


COMMANDS = {
    "doctor": Command(
        _doctor, "", "Look at this host: what is there, what is missing, what to do",
        (
            Option("--fix", help="Mend what is safe: raise low limits for good, open Docker's rules for our bridges"),
            Option("-f --format", "FORMAT", "Format (table|json|yaml)", "table"),
        ), 0, 0,
        text="Exit status 1 only for what stops lxpy.",
    ),
}  # fmt: skip

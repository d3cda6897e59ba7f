"""exec, shell, console."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_EXEC_OPTIONS = (
    Option("--cwd", "DIR", "Directory to run the command in (default /root)"),
    Option("-n --disable-stdin", help="Disable stdin (reads from /dev/null)"),
    Option("--env", "KEY=VALUE", "Environment variable to set (e.g. HOME=/home/foo)", many=True),
    Option("-t --force-interactive", help="Force pseudo-terminal allocation"),
    Option("-T --force-noninteractive", help="Disable pseudo-terminal allocation"),
    Option("--group", "GID", "Group ID to run the command as (default 0)"),
    Option("--mode", "MODE", "Terminal mode: auto, interactive or non-interactive", "auto"),
    Option("--user", "UID", "User ID to run the command as (default 0)"),
)


def _exec(context: Context, args: Args) -> int:
    return _run(context, args, args.rest[0], args.rest[1:])


def _shell(context: Context, args: Args) -> int:
    return _run(context, args, args.rest[0], ["su", "-l", *args.rest[1:]])


def _interactive(args: Args) -> bool:
    forced, refused = args.flag("force-interactive"), args.flag("force-noninteractive")
    mode = args.value("mode")
    if forced and refused:
        raise UsageError("You can't pass -t and -T at the same time")
    if (forced or refused) and mode != "auto":
        raise UsageError("You can't pass -t or -T at the same time as --mode")
    if mode not in ("auto", "interactive", "non-interactive"):
        raise UsageError(f"Invalid mode {mode!r}: use auto, interactive or non-interactive")
    if mode == "auto" and not forced and not refused:
        return os.isatty(0) and os.isatty(1)
    return forced or mode == "interactive"


def _run(context: Context, args: Args, ref: str, command: list[str]) -> int:
    from lxpy.client import terminal

    interactive = _interactive(args)
    environment: dict[str, str] = {}
    if interactive and (term := os.environ.get("TERM")):
        environment["TERM"] = term
    for word in args.values("env"):
        key, equals, value = word.partition("=")
        if not key:
            raise UsageError(f"Bad environment variable {word!r}: expected KEY=VALUE")
        environment[key] = value if equals else os.environ.get(key, "")
    client, name = context.resolve(ref)
    if not name:
        raise UsageError("missing the instance's name")
    width, height = terminal.size(1) if interactive else (0, 0)
    request: dict[str, Any] = {
        "command": command,
        "environment": environment,
        "cwd": args.value("cwd"),
        "user": args.number("user", 0),
        "group": args.number("group", 0),
        "interactive": interactive,
        "width": width or 80,
        "height": height or 24,
    }
    null = -1
    if args.flag("disable-stdin"):
        null = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    sys.stdout.flush()
    if client.local:
        from lxpy.client import exec as local_exec

        request.update(project=client.project or "default", name=name)
        return local_exec.run(request, 0 if null < 0 else null)
    from lxpy.client import streams

    if null >= 0:
        os.dup2(null, 0)
    return streams.exec_remote(client, name, request)


def _console(context: Context, args: Args) -> int:
    client, name = context.resolve(args.rest[0])
    if args.flag("show-log"):
        from lxpy.client.wire import quote

        response = client.request("GET", f"/1.0/instances/{quote(name)}/console")
        sys.stdout.flush()
        os.write(1, b"\nConsole log:\n\n")
        view = memoryview(response.body)
        while view:
            view = view[os.write(1, view) :]
        os.write(1, b"\n")
        return 0
    if args.value("type") not in ("", "console"):
        raise ApiError("Containers have a text console only: leave -t away")
    return attach(context, client, name)


def attach(context: Context, client: Any, name: str) -> int:
    """The console of a running instance, until Ctrl-a q."""
    from lxpy.client import streams

    streams.console(client, name, lambda: context.say("To detach from the console, press: <ctrl>+a q"))
    print("\r")
    return 0


COMMANDS = {
    "exec": Command(
        _exec, "[<remote>:]<instance> [flags] [--] <command line>", "Execute commands in instances",
        _EXEC_OPTIONS, 2, None, tail=True,
        text="""
The command is run directly, without a shell: use  lxpy exec c1 -- sh -c "cd /tmp && pwd"  where you need one.
Interactive (a terminal is allocated) when both standard input and standard output are terminals.
The exit status is the command's; 128 + n when signal n ended it, 126 or 127 when it could not be run.""",
    ),
    "shell": Command(
        _shell, "[<remote>:]<instance>", "Open a login shell in an instance", _EXEC_OPTIONS, 1, None,
    ),
    "console": Command(
        _console, "[<remote>:]<instance>", "Attach to an instance's console (leave with Ctrl-a q)",
        (
            Option("--show-log", help="Retrieve the instance's console log"),
            Option("-t --type", "TYPE", "Type of connection: console"),
        ), 1, 1,
    ),
}  # fmt: skip

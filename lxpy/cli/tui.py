"""tui: the full-screen app."""

from __future__ import annotations

import os
import sys

from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context


def open_app(remote: str = "", project: str = "", read_only: bool = False) -> int:
    """The app on this terminal; its exit status."""
    # Where somebody else draws it (`--web`), there is no terminal.
    if not (sys.stdin.isatty() and sys.stdout.isatty()) and "TEXTUAL_DRIVER" not in os.environ:
        raise UsageError("the full-screen app needs a terminal: lxpy --help lists the commands")
    _known(remote)
    import gc

    gc.disable()  # nothing of what is imported is garbage; the app switches it on when the first frame is there
    from lxpy.tui.app import run

    return int(run(remote.removesuffix(":"), project, read_only))


def _known(remote: str) -> None:
    """Raises NotFound unless there is such a remote."""
    if remote:
        from lxpy.client import remotes

        remotes.load().get(remote.removesuffix(":"))


def _tui(context: Context, args: Args) -> int:
    if args.flag("keys"):
        from lxpy.tui.app import binding_ids

        for name, (key, text) in sorted(binding_ids().items()):
            sys.stdout.write(f"{name:<28} {key:<28} {text}\n")
        return 0
    if args.flag("web") or args.value("port"):
        port = args.number("port", 0)
        if not 0 <= port < 65536:
            raise UsageError("--port must be a number up to 65535")
        if not args.flag("web"):
            raise UsageError("--port is for --web")
        remote = args.rest[0] if args.rest else ""
        _known(remote)
        from lxpy.tui.web import serve

        return serve(remote.removesuffix(":"), context.project, args.flag("read-only"), port)
    return open_app(args.rest[0] if args.rest else "", context.project, args.flag("read-only"))


COMMANDS = {
    "tui": Command(
        _tui, "[<remote>:]", "Open the full-screen app",
        (
            Option("--keys", help="List the ids of all keys, for the settings"),
            Option("--read-only", help="Refuse whatever would change something"),
            Option("--web", help="Serve it to a browser of this machine instead, at the address that is printed"),
            Option("--port", "PORT", "Where to serve it (any free port)"),
        ),
        0, 1,
        text="""
Settings are in ~/.config/lxpy/config.yaml: theme, columns, refresh, confirm, shell, read_only, keys.
? inside shows the keys of the pane in front, : every command.""",
    ),
}  # fmt: skip

"""tui: the full-screen app."""

from __future__ import annotations

import sys

from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context


def open_app(remote: str = "", project: str = "", read_only: bool = False) -> int:
    """The app on this terminal; its exit status."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the full-screen app needs a terminal: lxpy --help lists the commands")
    if remote:
        from lxpy.client import remotes

        remotes.load().get(remote.removesuffix(":"))
    from lxpy.tui.app import run

    return int(run(remote.removesuffix(":"), project, read_only))


def _tui(context: Context, args: Args) -> int:
    if args.flag("keys"):
        from lxpy.tui.app import binding_ids

        for name, (key, text) in sorted(binding_ids().items()):
            sys.stdout.write(f"{name:<28} {key:<28} {text}\n")
        return 0
    return open_app(args.rest[0] if args.rest else "", context.project, args.flag("read-only"))


COMMANDS = {
    "tui": Command(
        _tui, "[<remote>:]", "Open the full-screen app",
        (
            Option("--keys", help="List the ids of all keys, for the settings"),
            Option("--read-only", help="Refuse whatever would change something"),
        ),
        0, 1,
        text="""
Settings are in ~/.config/lxpy/config.yaml: theme, columns, refresh, confirm, shell, read_only, keys.
? inside shows the keys of the pane in front, : every command.""",
    ),
}  # fmt: skip

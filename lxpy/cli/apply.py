"""apply: bring a server to what a file describes, or write such a file."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxpy.client.apply import Step
    from lxpy.client.stackfile import Stack

_SIGNS = {"create": "+", "update": "~", "delete": "-", "start": ">", "stop": "."}


def _apply(context: Context, args: Args) -> int:
    client, name = context.resolve(args.at(0) or ":")
    if name:
        raise UsageError("only a remote can be named: lxpy apply -f FILE [<remote>:]")
    project = client.project or "default"
    if args.flag("export"):
        if args.values("file"):
            raise UsageError("--export reads no file: it writes one to standard output")
        from lxpy.cli import render
        from lxpy.client import apply

        sys.stdout.write(render.yaml(apply.export(client, project)))
        return 0
    stack = _read(args, project)
    from lxpy.client import apply

    entries = list(stack.entries.values())
    there = apply.current(client, entries, project)
    steps, left = apply.plan(entries, there, stack.name, args.flag("prune"))
    _show(context, steps, left)
    if not steps:
        context.say("Nothing to do")
        return 0
    if args.flag("dry-run"):
        return 0
    if not args.flag("yes"):
        if not sys.stdin.isatty():
            raise ApiError("Nothing was changed: give --yes to go on without a question (or --dry-run to see the plan)")
        sys.stdout.write("Go on? (yes/no) [default=no]: ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("yes", "y"):
            raise ApiError("Nothing was changed")
    from lxpy.cli.create import image_source

    apply.Run(
        client,
        stack.name,
        lambda image: image_source(context, client, image),
        lambda operation, label: context.wait(client, operation, label),
        context.say,
    ).run(steps)
    return 0


def _read(args: Args, project: str) -> Stack:
    import os

    from lxpy.client.stackfile import Stack

    files = args.values("file")
    if not files:
        raise UsageError("missing -f FILE")
    stack = Stack()
    for file in files:
        if file == "-":
            text = sys.stdin.read()
        else:
            with open(file, encoding="utf-8") as stream:
                text = stream.read()
        stack.add(text, "standard input" if file == "-" else file, project)
    if args.value("stack"):
        stack.name = args.value("stack")
    if not stack.name:
        stack.name = os.path.basename(files[0]).rpartition(".")[0] or os.path.basename(files[0])
        if stack.name in ("", "-"):
            raise UsageError("standard input has no name: say stack: NAME in it, or --stack NAME")
    return stack


def _show(context: Context, steps: list[Step], left: list[Step]) -> None:
    """The plan."""
    for step in steps:
        context.say(f"{_SIGNS[step.verb]} {step.verb} {step.label}")
        for change in step.changes:
            context.say(f"    {change}")
    for step in left:
        context.say(f"  {step.label} is in the file no more: --prune deletes it")
    if steps:
        counts = {verb: sum(step.verb == verb for step in steps) for verb in _SIGNS}
        context.say("Plan: " + ", ".join(f"{count} to {verb}" for verb, count in counts.items() if count))


COMMANDS = {
    "apply": Command(
        _apply, "[<remote>:]", "Bring instances, volumes, networks and profiles to what a file describes",
        (
            Option("-f --file", "FILE", "The file (- is standard input); may be given several times", many=True),
            Option("--dry-run", help="Show the plan and change nothing"),
            Option("--prune", help="Delete what the stack made and the file has no more"),
            Option("-y --yes", help="Don't ask before going on"),
            Option("--stack", "NAME", "Name of the stack (default: the file's stack:, or the file's own name)"),
            Option("--export", help="Write a file that describes what there is"),
        ), 0, 1,
    )
}  # fmt: skip

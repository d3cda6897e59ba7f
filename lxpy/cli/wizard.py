"""``lxpy init`` with questions: asks `client.setup.QUESTIONS`, then applies the answers whole or not at all."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError, BadRequest
from lxpy.cli import render
from lxpy.cli.context import Context
from lxpy.client import setup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client
    from lxpy.client.setup import Answers, Facts, Question


def run(context: Context, client: Client) -> int:
    """Ask, apply, say what to type next. Nothing has changed before the last answer."""
    facts = setup.facts(client)
    if client.local:
        from lxpy.api.layout import Layout
        from lxpy.host import sysctls

        space = os.statvfs(Layout().root)
        facts.free = space.f_bavail * space.f_frsize
        if os.geteuid() == 0:
            facts.low = sum(1 for one in sysctls.found() if one.low)
    if facts.pools or facts.networks:
        there = [f"storage pool {name}" for name in facts.pools] + [f"network {name}" for name in facts.networks]
        print(f"This server is set up already ({', '.join(there)}). What you answer is added to that.")
    if sys.stdin.isatty():
        print("Enter takes the value in brackets, ? explains, Ctrl-C leaves everything as it is.\n")
    answers: Answers = {}
    while True:
        answers = _ask_all(answers, facts)
        document = setup.preseed(answers, facts)
        if answers["print"] == "yes":
            sys.stdout.write("\n" + render.yaml(document))
        from lxpy.cli.setup import apply

        print()
        try:
            told = apply(context, client, document, answers.get("sysctls") == "yes")
            break
        except ApiError as error:
            context.clear()
            if not sys.stdin.isatty():
                if answers["print"] != "yes":
                    print("Nothing was changed. What was answered, for lxpy init --preseed:\n")
                    sys.stdout.write(render.yaml(document))
                raise
            print(f"Error: {error}\nNothing was changed. Change the answers: Enter keeps what you said.\n")
    _tell_limits(told.get("limits") or [])
    context.clear()
    print("lxpy is ready. Next: lxpy launch builtin:busybox first, or lxpy image list images: to see what there is.")
    return 0


def _ask_all(before: Answers, facts: Facts) -> Answers:
    """Every question; what was answered `before` is offered again."""
    answers: Answers = {}
    for question in setup.QUESTIONS:
        if question.asked(answers, facts):
            answers[question.id] = _ask(question, answers, facts, before.get(question.id, ""))
    return answers


def _ask(question: Question, answers: Answers, facts: Facts, before: str) -> str:
    default = before or question.default(answers, facts)
    if question.choices is not None:
        offered = question.choices(facts)
        width = max(map(len, offered))
        for name, word in offered.items():
            print(f"  {name:<{width}}  {word}")
        brackets = f" ({', '.join(offered)}) [default={default}]: "
    elif question.boolean:
        brackets = f" (yes/no) [default={default}]: "
    else:
        brackets = f" [default={default}]: " if default else ": "
    prompt = question.text + brackets
    while True:
        answer = line(prompt).strip()
        if answer == "?":
            print(f"  {question.explain}")
            continue
        try:
            return question.check(answer or default, answers, facts)
        except BadRequest as error:
            print(f"  {error}" if answer or default else "  An answer is needed here; ? explains")


def line(prompt: str) -> str:
    """One answer; what is piped in is shown as if it had been typed. Raises `ApiError` at its end."""
    if sys.stdin.isatty():
        try:
            import readline  # noqa: F401  # line editing
        except ImportError:
            pass
        try:
            return input(prompt)
        except EOFError:
            print()
            raise ApiError("The input ended before the last question: nothing was changed") from None
    sys.stdout.write(prompt)
    sys.stdout.flush()
    line = sys.stdin.readline()
    print(line.rstrip("\n"))
    if not line:
        question = prompt.partition(" [")[0].removesuffix(": ")
        raise ApiError(f'The answers ended at the question "{question}": nothing was changed')
    return line


def _tell_limits(changes: list[list[Any]]) -> None:
    """What became of the host's limits: entries of name, value before, value after, the kernel's reason."""
    from lxpy.host import sysctls

    for name, before, _after, error in changes:
        if error:
            print(f"{name} stays at {before}: {error}", file=sys.stderr)
    if raised := sum(1 for change in changes if not change[3]):
        print(f"Raised {raised} of the host's limits, kept in {sysctls.CONF}")

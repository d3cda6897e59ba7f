"""What verbs on one or many objects share: a form, name patterns, and our own command line run for each."""

import os
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from lxpy.api.errors import BadRequest
from lxpy.tui.bulk import Batch
from lxpy.tui.rows import InstanceRow
from lxpy.tui.screens.form import Answers, Form, Question
from lxpy.tui.shells import run_own

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

_NONE = "…"  # instead of a command line, before the reason why there is none
COMPRESSIONS = ("gzip", "zstd", "xz", "none")


def instances(rows: Sequence[Any]) -> list[InstanceRow]:
    """The instances among the rows."""
    return [row for row in rows if isinstance(row, InstanceRow)]


def path(row: InstanceRow) -> str:
    return f"/1.0/instances/{quote(row.name)}"


async def done(app: "LxpyApp", method: str, where: str, body: Any = None) -> dict[str, Any]:
    """One request and the end of its operation. Raises what either says."""
    return await app.model.follow(await app.gateway.call(lambda c: getattr(c, method)(where, body)))


def ref(app: "LxpyApp", name: str) -> str:
    """An instance as the command line names it from here."""
    return f"{app.gateway.remote}:{name}" if app.gateway.remote else name


def words(app: "LxpyApp", *rest: str) -> list[str]:
    """A command line of our own, in the project that is looked at."""
    return [*(["--project", app.gateway.project] if app.gateway.project else []), *rest]


def shown(command: Sequence[str], more: int = 0) -> str:
    """A command line as a person types it; `more` says for how many others the same is done."""
    if command[:1] == [_NONE]:
        return " ".join(["lxpy", *command])
    return shlex.join(["lxpy", *command]) + (f"    # and so for {more} more" if more else "")


def here(text: str) -> str:
    """A path as it is typed, for our own command line: no name in it is an option or standard input there."""
    path = os.path.expanduser(text)
    return f"./{path}" if path.startswith("-") else path


def kind(rows: Sequence[Any]) -> str:
    """What rows are called: ``instances``, ``volumes``."""
    return str(getattr(rows[0], "kind", "objects")) if rows else "objects"


def called(rows: Sequence[Any]) -> str:
    """The names of a few rows, or how many they are: for titles."""
    names = ", ".join(getattr(row, "name", "") or row.title for row in rows)
    return names if len(rows) == 1 or len(names) <= 40 else f"{len(rows)} {kind(rows)}"


def pattern(rows: Sequence[Any], suffix: str = "", alone: str | None = None) -> str:
    """The value a field for names begins with: of one instance a name, of several a pattern."""
    if len(rows) == 1:
        return f"{rows[0].name}{suffix}" if alone is None else alone
    return f"{{name}}{suffix}"


PATTERN_HINT = "{name} is each one's name, {n} its number"


def named(text: str, rows: Sequence[Any]) -> dict[str, str]:
    """What `text` gives for each row, by key: ``{name}`` and ``{n}`` are replaced.

    Raises:
        BadRequest: two rows would get the same.
    """
    found = {row.key: text.replace("{name}", row.name).replace("{n}", str(n)) for n, row in enumerate(rows, 1)}
    if text and len(set(found.values())) < len(rows):
        raise BadRequest(f"{text!r} is the same for all {len(rows)}: write {{name}} or {{n}} in it")
    return found


class Sure(NamedTuple):
    """What is asked after the form: the verb of the settings, and what follows from it."""

    verb: str
    note: str


def ask(
    app: "LxpyApp", rows: Sequence[Any], title: str, word: str, questions: list[Question],
    one: Callable[[Any, Answers], Awaitable[Any]], line: Callable[[Any, Answers], list[str]], *,
    note: str = "", check: Callable[[Answers], object] = lambda answers: None, sure: Sure | None = None,
    interruptible: bool = False, told: str = "",
    faults: Callable[[Answers], Awaitable[Mapping[str, str]]] | None = None, form: Callable[..., Form] = Form,
) -> None:  # fmt: skip
    """A form; then the work: of one row with its faults in the form, of several as a batch with a result each.

    Args:
        word: the verb, on the button and in titles.
        one: does it to a row; gives the text of its result.
        line: the command line that does the same to a row.
        check: raises what is wrong with the answers as a whole.
        sure: asks again, naming the objects.
        told: the title of a message with the result, of one row.
        faults: what is wrong with the answers, by question, asked while they are typed.
        form: makes the form, where it is a special one.
    """
    rows = list(rows)
    if not rows:
        app.notify("Select an instance first, or press n to launch one", title=f"Nothing to {word.lower()}")
        return

    def start(answers: Answers) -> None:
        async def each(row: Any) -> Any:
            return await one(row, answers)

        if len(rows) == 1:
            app.actions.each(f"Cannot {word.lower()}", rows, each)
        else:
            app.actions.start(Batch(f"{word} {len(rows)} {kind(rows)}", rows, each, interruptible=interruptible))

    async def submit(answers: Answers) -> None:
        check(answers)
        if sure is None and len(rows) == 1:
            result = await one(rows[0], answers)
            if told:
                text = result[0] if isinstance(result, tuple) else result
                app.notify(str(text or rows[0].name), title=told, markup=False)

    def answered(answers: dict[str, str] | None) -> None:
        if answers is None:
            return
        if sure is not None:
            names = [row.name for row in rows]
            what = names[0] if len(names) == 1 else f"{len(names)} {kind(rows)}"
            app.actions.ask(
                sure.verb, f"{word} {what}?", names, word.lower(), sure.note, lambda: start(answers),
                many=len(rows) > 1,
            )  # fmt: skip
        elif len(rows) > 1:
            start(answers)
        else:
            app.actions.table(rows).action_unmark()

    asked = form(
        title, questions, submit, lambda a: shown(line(rows[0], a), len(rows) - 1), word, note=note,
        interruptible=interruptible, check=faults,
    )  # fmt: skip
    app.push_screen(asked, answered)


def command(
    app: "LxpyApp", line: Callable[[Any, Answers], list[str]]
) -> Callable[[Any, Answers], Awaitable[tuple[str, str]]]:
    """The work of a row that is our own command line: what it writes is the result, its last line in short."""

    async def one(row: Any, answers: Answers) -> tuple[str, str]:
        said = await run_own(line(row, answers))
        lines = said.splitlines()
        return (lines[-1] if lines else "", said if len(lines) > 1 else "")

    return one


def safe(line: Callable[[Any, Answers], list[str]]) -> Callable[[Any, Answers], list[str]]:
    """A line for the form while what is typed gives none yet."""

    def shown(row: Any, answers: Answers) -> list[str]:
        try:
            return line(row, answers)
        except BadRequest as error:
            return [_NONE, f"({error})"]

    return shown


async def names_of(app: "LxpyApp", where: str) -> tuple[str, ...]:
    """The names of the objects of a kind, for a field that offers them; none where they cannot be had."""
    try:
        found = await app.gateway.call(lambda c: c.get(where))
    except Exception:
        return ()  # the field takes any text; the daemon judges it
    names = [one if isinstance(one, str) else one["name"] for one in found]
    return tuple(name.partition("?")[0].rsplit("/", 1)[-1] for name in names)

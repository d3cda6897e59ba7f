"""A parser of our own for one command at a time (argparse: 9 ms before it has parsed anything).

Options may stand anywhere before ``--``; short ones may be joined (``-tn``), values joined or apart
(``-cK=V``, ``-c K=V``, ``--config=K=V``).
"""

from __future__ import annotations

from lxpy.api.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lxpy.cli.context import Context

    Run = Callable[[Context, "Args"], int | None]


class UsageError(ApiError):
    """The command line is wrong; the message gets a hint to --help."""


class Option:
    """One option: ``Option("-c --config", "KEY=VALUE", "...")``; without a value name it is a switch."""

    def __init__(self, names: str, value: str = "", help: str = "", default: str = "", many: bool = False) -> None:
        self.names = names.split()
        self.key = self.names[-1].lstrip("-")
        self.value, self.help, self.default, self.many = value, help, default, many


GLOBAL = (
    Option("--project", "NAME", "Override the source project"),
    Option("-q --quiet", help="Don't show progress information"),
    Option("--force-local", help="Force using the local unix socket"),
    Option("-v --verbose", help="Show all information messages"),
    Option("--debug", help="Show all debug messages"),
    Option("-h --help", help="Print help"),
)


class Command:
    """One command.

    Args:
        run: called with the context and the arguments; its exit status (None is 0).
        usage: positional arguments as help shows them.
        summary: one line.
        low, high: how many positional arguments there may be; None is any number.
        text: more help, below the summary.
        tail: stop parsing options at the second positional (exec: the rest is the command's).
    """

    def __init__(
        self,
        run: Run,
        usage: str,
        summary: str,
        options: tuple[Option, ...] = (),
        low: int = 0,
        high: int | None = 0,
        text: str = "",
        tail: bool = False,
    ) -> None:
        self.run, self.usage, self.summary, self.options = run, usage, summary, options
        self.low, self.high, self.text, self.tail = low, high, text, tail


class Args:
    """What was given: `rest` are the positional arguments."""

    def __init__(self) -> None:
        self.rest: list[str] = []
        self._values: dict[str, list[str]] = {}
        self._defaults: dict[str, str] = {}

    def flag(self, key: str) -> bool:
        return key in self._values

    def value(self, key: str) -> str:
        """The last value given, or the default."""
        return self._values[key][-1] if key in self._values else self._defaults.get(key, "")

    def values(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def number(self, key: str, default: int) -> int:
        """Raises `UsageError`."""
        text = self.value(key)
        if not text:
            return default
        try:
            return int(text)
        except ValueError:
            raise UsageError(f"--{key} takes a number, not {text!r}") from None

    def at(self, index: int, default: str = "") -> str:
        return self.rest[index] if index < len(self.rest) else default


def parse(command: Command, words: list[str]) -> Args:
    """Raises `UsageError`."""
    known: dict[str, Option] = {}
    args = Args()
    for option in (*GLOBAL, *command.options):
        for name in option.names:
            known[name] = option
        args._defaults[option.key] = option.default
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            args.rest += words[index:]
            break
        if len(word) < 2 or word[0] != "-":
            args.rest.append(word)
            if command.tail and len(args.rest) == 2:
                args.rest += words[index:]
                break
            continue
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            given = known.get(name)
            if given is None:
                raise UsageError(f"unknown flag: {name}{_nearest(name, known)}")
            if given.value:
                if not equals:
                    if index >= len(words):
                        raise UsageError(f"flag needs an argument: {name}")
                    value = words[index]
                    index += 1
                args._values.setdefault(given.key, []).append(value)
            elif equals and value not in ("true", "false"):
                raise UsageError(f"{name} takes no value")
            elif value != "false":
                args._values[given.key] = [""]
            continue
        position = 1
        while position < len(word):
            name = "-" + word[position]
            position += 1
            given = known.get(name)
            if given is None:
                raise UsageError(f"unknown shorthand flag: {name}" + (f" in {word}" if len(word) > 2 else ""))
            if not given.value:
                args._values[given.key] = [""]
                continue
            value = word[position:].removeprefix("=")
            if not word[position:]:
                if index >= len(words):
                    raise UsageError(f"flag needs an argument: {name}")
                value = words[index]
                index += 1
            args._values.setdefault(given.key, []).append(value)
            break
    if not args.flag("help"):
        count = len(args.rest)
        if count < command.low:
            raise UsageError(f"missing argument: {command.usage}")
        if command.high is not None and count > command.high:
            raise UsageError(f"too many arguments: {' '.join(args.rest[command.high :])}")
    return args


def _nearest(name: str, known: dict[str, Option]) -> str:
    close = nearest(name, [other for other in known if other.startswith("--")])
    return f" (did you mean {close[0]}?)" if close else ""


def nearest(word: str, known: list[str]) -> list[str]:
    """The names that `word` may have been meant to be."""
    from difflib import get_close_matches

    begins = [name for name in known if word and name.startswith(word)]
    return begins or get_close_matches(word, known, 3, 0.6)


def help_text(path: str, command: Command) -> str:
    """What ``--help`` prints."""
    lines = [command.summary, ""]
    if command.text:
        lines += [command.text.strip("\n"), ""]
    lines += ["Usage:", f"  lxpy {path} {command.usage}".rstrip() + " [flags]", ""]
    for title, options in (("Flags:", command.options), ("Global flags:", GLOBAL)):
        if options:
            lines.append(title)
            shown = [
                (("    " if len(o.names) == 1 and o.names[0].startswith("--") else "") + ", ".join(o.names))
                + (f" {o.value}" if o.value else "")
                for o in options
            ]
            width = max(map(len, shown))
            for text, option in zip(shown, options, strict=True):
                default = f' (default "{option.default}")' if option.default else ""
                lines.append(f"  {text:<{width}}  {option.help}{default}".rstrip())
            lines.append("")
    return "\n".join(lines)

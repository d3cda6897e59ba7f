"""The user's settings of the app: ``~/.config/lxpy/config.yaml``, checked as it is read.

::

    theme: lxpy-light          # or any of Textual's
    columns: [name, state, ipv4, cpu, memory]
    refresh: 2                 # seconds between two readings of what instances use
    confirm: changes           # deletes: only before deleting; changes: before stopping and restarting, too
                               # or verb by verb: {level: deletes, stop: yes, restore: no}
    shell: [bash, -l]          # what s and S start
    read_only: false
    keys:                      # by the id that the help shows with `lxpy tui --keys`
      instance.stop: X
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

COLUMNS = ("name", "state", "ipv4", "ipv6", "type", "image", "cpu", "memory", "snapshots", "age")
CONFIRM = ("deletes", "changes")
# Verbs that may ask first, and when they do so by themselves: always, at the level "changes" or about several, never.
_ALWAYS, _CHANGES, _NEVER = "always", "changes", "never"
ASKABLE: dict[str, str] = {
    "delete": _ALWAYS, "restore": _ALWAYS, "rebuild": _ALWAYS, "forget": _ALWAYS, "recover": _ALWAYS,
    "apply": _ALWAYS, "stop": _CHANGES, "force-stop": _CHANGES, "restart": _CHANGES, "start": _NEVER, "pause": _NEVER,
    "resume": _NEVER, "cancel": _NEVER,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """Attributes:
    theme: its name, "" for what fits the terminal.
    columns: of the instances, () for as many as fit.
    refresh: seconds between readings of usage, 1 to 60.
    confirm: one of `CONFIRM`: what asks first.
    asked: which verbs, by name, ask whatever `confirm` says, and which do not.
    shell: the command line of a shell.
    read_only: whether nothing may be changed.
    keys: keys by binding id.
    """

    theme: str = ""
    columns: tuple[str, ...] = ()
    refresh: float = 2.0
    confirm: str = "deletes"
    asked: Mapping[str, bool] = field(default_factory=dict)
    shell: tuple[str, ...] = ("su", "-l")
    read_only: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)

    def asks(self, verb: str, many: bool = False) -> bool:
        """Whether `verb`, one of `ASKABLE`, is asked about first; `many` says that it is about several objects."""
        if verb in self.asked:
            return self.asked[verb]
        usual = ASKABLE[verb]
        return usual == _ALWAYS or (usual == _CHANGES and (many or self.confirm == "changes"))


class SettingsError(ValueError):
    """What is wrong with a setting, in one line.

    Attributes:
        text: the fault alone; the message has the setting's name before it, and where in the file it is.
        key, within: the setting, and the name in it, such as the id of a binding; "" for none.
        settings: what can be used of the file all the same.
    """

    def __init__(self, text: str, key: str = "", within: str = "", line: int = 0) -> None:
        place = f"line {line}: " if line else ""
        super().__init__(f"{place}{f'{key}: ' if key else ''}{text}")
        self.text, self.key, self.within, self.line = text, key, within, line
        self.settings = Settings()


def path() -> str:
    from lxpy.client.remotes import config_dir

    return f"{config_dir()}/config.yaml"


def load() -> Settings:
    """The settings; the usual ones where there is no file.

    Raises:
        SettingsError: the file, or some of it, cannot be used: a line for each fault, with its place. Its `settings`
            are those without fault.
    """
    place = path()
    try:
        with open(place, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{place}: {getattr(error, 'strerror', '') or 'it is no text'}") from None
    found, faults = read(text)
    if faults:
        whole = SettingsError("\n".join(f"{place}: {fault}" for fault in faults))
        whole.settings = found
        raise whole
    return found


def read(text: str) -> tuple[Settings, list[SettingsError]]:
    """Settings of a file's text, and a fault, with its line, for each that has one: these stay as usual."""
    import yaml  # takes longer than all the rest

    try:
        document, root = yaml.safe_load(text), yaml.compose(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", "") or "this is no YAML"
        return Settings(), [SettingsError(problem, line=mark.line + 1 if mark else 0)]
    if document is None:
        return Settings(), []
    if not isinstance(document, dict):
        return Settings(), [SettingsError("it must be a mapping: names and values", line=1)]
    found: dict[str, Any] = {}
    faults: list[SettingsError] = []
    for name, value in document.items():
        try:
            found.update(_checked(str(name), value))
        except SettingsError as error:
            faults.append(SettingsError(error.text, error.key, error.within, _line(root, str(name), error.within)))
    return Settings(**found), faults


def _line(root: Any, name: str, within: str = "") -> int:
    """The line of a setting, or of a name in it, from 1; 0 where it is not found."""
    for key, value in getattr(root, "value", ()):
        if key.value == name:
            inner = _line(value, within) if within and isinstance(value.value, list) else 0
            return inner or int(key.start_mark.line) + 1
    return 0


def line_of(name: str, within: str = "") -> int:
    """Where in the user's file something stands; 0 where it does not."""
    import yaml

    try:
        with open(path(), encoding="utf-8") as file:
            return _line(yaml.compose(file.read()), name, within)
    except (OSError, ValueError, yaml.YAMLError):
        return 0


def checked(document: Any) -> Settings:
    """Settings of a document. Raises `SettingsError` for the first fault."""
    if document is None:
        return Settings()
    if not isinstance(document, dict):
        raise SettingsError("it must be a mapping: names and values")
    found: dict[str, Any] = {}
    for name, value in document.items():
        found.update(_checked(name, value))
    return Settings(**found)


def _checked(name: str, value: Any) -> dict[str, Any]:
    check = _CHECKS.get(name)
    if check is None:
        raise SettingsError(f"unknown setting: there are {', '.join(_CHECKS)}", name)
    given = check(name, value)
    return given if name == "confirm" and isinstance(given, dict) else {name: given}


def document(found: Settings) -> dict[str, Any]:
    """Settings as the file has them; None for what is as usual by itself."""
    return {
        "theme": found.theme or None,
        "columns": list(found.columns) or None,
        "refresh": found.refresh,
        "confirm": {"level": found.confirm, **found.asked} if found.asked else found.confirm,
        "shell": shell_line(found),
        "read_only": found.read_only,
    }


def shell_line(found: Settings) -> str:
    """The shell's command line as a person writes it."""
    import shlex

    return shlex.join(found.shell)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError("it must be a name", name)
    return value


def _columns(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(one in COLUMNS for one in value):
        raise SettingsError(f"it must be a list of some of {', '.join(COLUMNS)}", name)
    return tuple(value)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 60:
        raise SettingsError("it must be a number of seconds, 1 to 60", name)
    return float(value)


def _confirm(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        if value not in CONFIRM:
            raise SettingsError(f"it must be one of {', '.join(CONFIRM)}, or a mapping of verbs to yes or no", name)
        return str(value)
    level = value.get("level", CONFIRM[0])
    if level not in CONFIRM:
        raise SettingsError(f"level must be one of {', '.join(CONFIRM)}", name, "level")
    asked = {verb: answer for verb, answer in value.items() if verb != "level"}
    for verb, answer in asked.items():
        if verb not in ASKABLE:
            raise SettingsError(f"{verb!r} never asks; those that may are {', '.join(ASKABLE)}", name, str(verb))
        if not isinstance(answer, bool):
            raise SettingsError(f"{verb} must be yes or no, not {answer!r}", name, str(verb))
    return {"confirm": level, "asked": asked}


def _command(name: str, value: Any) -> tuple[str, ...]:
    import shlex

    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise SettingsError(f"it must be a command line ({str(error).lower()})", name) from None
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise SettingsError("it must be a command line", name)
    return tuple(words)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError("it must be true or false", name)
    return value


def _keys(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise SettingsError("it must map ids of bindings to keys, such as instance.stop: X", name)
    return dict(value)


_CHECKS = {
    "theme": _text, "columns": _columns, "refresh": _seconds, "confirm": _confirm, "shell": _command,
    "read_only": _flag, "keys": _keys,
}  # fmt: skip

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
    """What is wrong in the file, in one line."""


def path() -> str:
    from lxpy.client.remotes import config_dir

    return f"{config_dir()}/config.yaml"


def load() -> Settings:
    """The settings; the usual ones where there is no file.

    Raises:
        SettingsError: the file cannot be used.
    """
    place = path()
    try:
        with open(place, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return Settings()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{place}: {getattr(error, 'strerror', '') or 'it is no text'}") from None
    import yaml  # takes longer than all the rest

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{place}{where}: {getattr(error, 'problem', '') or 'this is no YAML'}") from None
    try:
        return checked(document)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from None


def checked(document: Any) -> Settings:
    """Settings of a document. Raises `SettingsError`."""
    if document is None:
        return Settings()
    if not isinstance(document, dict):
        raise SettingsError("it must be a mapping: names and values")
    found: dict[str, Any] = {}
    for name, value in document.items():
        check = _CHECKS.get(name)
        if check is None:
            raise SettingsError(f"unknown setting {name!r}: there are {', '.join(_CHECKS)}")
        given = check(name, value)
        found.update(given if name == "confirm" and isinstance(given, dict) else {name: given})
    return Settings(**found)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise SettingsError(f"{name} must be a name")
    return value


def _columns(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(one in COLUMNS for one in value):
        raise SettingsError(f"{name} must be a list of some of {', '.join(COLUMNS)}")
    return tuple(value)


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 1 <= value <= 60:
        raise SettingsError(f"{name} must be a number of seconds, 1 to 60")
    return float(value)


def _confirm(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        if value not in CONFIRM:
            raise SettingsError(f"{name} must be one of {', '.join(CONFIRM)}, or a mapping of verbs to yes or no")
        return str(value)
    level = value.get("level", CONFIRM[0])
    if level not in CONFIRM:
        raise SettingsError(f"{name}: level must be one of {', '.join(CONFIRM)}")
    asked = {verb: answer for verb, answer in value.items() if verb != "level"}
    for verb, answer in asked.items():
        if verb not in ASKABLE:
            raise SettingsError(f"{name}: {verb!r} never asks; those that may are {', '.join(ASKABLE)}")
        if not isinstance(answer, bool):
            raise SettingsError(f"{name}: {verb} must be yes or no, not {answer!r}")
    return {"confirm": level, "asked": asked}


def _command(name: str, value: Any) -> tuple[str, ...]:
    import shlex

    words = shlex.split(value) if isinstance(value, str) else value
    if not isinstance(words, list) or not words or not all(isinstance(word, str) and word for word in words):
        raise SettingsError(f"{name} must be a command line")
    return tuple(words)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{name} must be true or false")
    return value


def _keys(name: str, value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise SettingsError(f"{name} must map ids of bindings to keys, such as instance.stop: X")
    return dict(value)


_CHECKS = {
    "theme": _text, "columns": _columns, "refresh": _seconds, "confirm": _confirm, "shell": _command,
    "read_only": _flag, "keys": _keys,
}  # fmt: skip

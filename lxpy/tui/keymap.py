"""What is wrong with a user's map of keys: ids that no binding has, keys there are not, two bindings on one key."""

import importlib
import pkgutil
import unicodedata
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from textual.binding import Binding
from textual.keys import Keys, _character_to_key

from lxpy.tui.settings import SettingsError


class Found(NamedTuple):
    """A binding that settings may change, and the class that has it."""

    owner: type
    binding: Binding


def bindings() -> Iterator[Found]:
    """All bindings of ours; imports every module of the app."""
    import lxpy.tui

    for module in pkgutil.walk_packages(lxpy.tui.__path__, "lxpy.tui."):
        for owner in vars(importlib.import_module(module.name)).values():
            if isinstance(owner, type) and owner.__module__ == module.name:
                for binding in vars(owner).get("BINDINGS", ()):
                    if isinstance(binding, Binding) and binding.id:
                        yield Found(owner, binding)


def keys_of(text: str) -> list[str]:
    """``X, ctrl+a, /`` as names of keys."""
    return [_character_to_key(key) if len(key) == 1 else key for key in (word.strip() for word in text.split(","))]


def _is_key(key: str) -> bool:
    *modifiers, name = key.split("+") if key != "+" else [key]
    if not set(modifiers) <= {"ctrl", "shift", "alt", "super", "hyper", "meta"}:
        return False
    if len(name) == 1 or name in {key.value for key in Keys} | {
        _character_to_key(chr(code)) for code in range(33, 127)
    }:
        return True
    try:
        unicodedata.lookup(name.upper().replace("_", " "))
    except KeyError:
        return False
    return True


def faults(keymap: Mapping[str, str]) -> list[SettingsError]:
    """One for each that is wrong: its `key` is the id."""
    found = list(bindings())
    known = {one.binding.id for one in found}
    wrong: list[SettingsError] = []
    for name, text in keymap.items():
        if name not in known:
            wrong.append(SettingsError(f"no binding has the id {name!r} (lxpy tui --keys lists them)", "keys", name))
        for key in keys_of(text):
            if not _is_key(key):
                wrong.append(SettingsError(f"{name}: {key!r} is no key: write X, ctrl+x, f5 or slash", "keys", name))
    told: set[frozenset[str]] = set()
    for owner in {one.owner for one in found}:
        at: dict[str, str] = {}  # key to id, the nearest class first
        for one in sorted(_seen_by(owner, found), key=lambda one: one.binding.id not in keymap):
            name = str(one.binding.id)
            for key in keys_of(keymap.get(name, one.binding.key)):
                other = at.setdefault(key, name)
                pair = frozenset((name, other))
                if other != name and other in keymap and pair not in told:
                    told.add(pair)
                    wrong.append(
                        SettingsError(f"{key} is {other} and {name}: one of them has no key then", "keys", other)
                    )
    return wrong


def _seen_by(owner: type, found: list[Found]) -> list[Found]:
    """The bindings that work where a class has the keyboard: its own, those of what it is made of, and the app's."""
    from lxpy.tui.app import LxpyApp
    from lxpy.tui.panes.detail import Detail
    from lxpy.tui.screens.main import MainScreen
    from lxpy.tui.widgets.table import Table

    around: tuple[type, ...] = (LxpyApp,)
    if issubclass(owner, Table) or owner in (Detail, MainScreen):
        around += (MainScreen,)
    return [one for one in found if issubclass(owner, one.owner) or one.owner in around]

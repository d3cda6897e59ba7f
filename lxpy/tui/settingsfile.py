"""Changing single settings in the user's file: comments, order and the rest of it stay as they are.

The text is changed only where a value stands, is read back, and is written beside the file and renamed over it.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from typing import Any

import yaml

from lxpy.tui import settings
from lxpy.tui.settings import SettingsError


def save(changes: Mapping[str, Any]) -> settings.Settings:
    """Writes settings into the file, None to take one out; makes it where there is none.

    Returns:
        All settings as they are then.

    Raises:
        SettingsError: a value is not one the setting may have, or the file cannot be read or written.
    """
    place = os.path.realpath(settings.path())  # a link stays one
    try:
        with open(place, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{place}: {getattr(error, 'strerror', '') or 'it is no text'}") from None
    for name, value in changes.items():
        text = changed(text, name, value)
    found = settings.checked(yaml.safe_load(text))
    try:
        _write(place, text)
    except OSError as error:
        raise SettingsError(f"{place} cannot be written: {error.strerror}") from None
    return found


def changed(text: str, name: str, value: Any) -> str:
    """`text` with one setting changed, or taken out for None.

    Raises:
        SettingsError: `text` is not YAML that can be changed so.
    """
    try:
        root = yaml.compose(text)
        before = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise SettingsError(f"line {mark.line + 1} is no YAML: mend it first" if mark else "it is no YAML") from None
    if not isinstance(before, dict):
        raise SettingsError("it must be a mapping: names and values")
    new = _edited(text, root, name, value)
    try:
        after = yaml.safe_load(new)
    except yaml.YAMLError:
        after = ""
    wanted = {key: one for key, one in before.items() if key != name} | ({} if value is None else {name: value})
    if (after or {}) != wanted:
        raise SettingsError(f"the file is written so that {name} cannot be changed in it: write it there yourself")
    return new


def _edited(text: str, root: Any, name: str, value: Any) -> str:
    written = "" if value is None else _written(value)
    pairs = root.value if root is not None and isinstance(root, yaml.MappingNode) else []
    pair = next(((key, node) for key, node in pairs if key.value == name), None)
    if pair is None:
        if value is None:
            return text
        if root is not None and root.flow_style:
            close = root.end_mark.index - 1
            comma = ", " if pairs else ""
            return f"{text[:close]}{comma}{name}: {written}{text[close:]}"
        end = _end(root) if pairs else len(text)
        line = text.find("\n", end)  # behind the last value, and what is written beside it
        line = len(text) if line < 0 else line + 1
        head = text[:line] + ("" if text[:line].endswith("\n") or not text[:line] else "\n")
        return f"{head}{name}: {written}\n{text[line:]}"
    key, node = pair
    start, end = key.end_mark.index, _end(node)
    colon = text.index(":", start) + 1
    if value is not None:
        return f"{text[:colon]} {written}{text[max(end, colon) :]}"
    if root.flow_style:
        raise SettingsError(f"{name} stands in braces: take it out yourself")
    first = text.rfind("\n", 0, key.start_mark.index) + 1
    last = text.find("\n", max(end, colon))
    return text[:first] + ("" if last < 0 else text[last + 1 :])


def _end(node: Any) -> int:
    """Where a value ends; that of a block would be where the next one begins, comments and all."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style or not node.value:
        return int(node.end_mark.index)
    last = node.value[-1]
    return _end(last[1] if isinstance(last, tuple) else last)


def _written(value: Any) -> str:
    """In one line. What JSON writes YAML reads; plain words stand as a person writes them."""
    if isinstance(value, str):
        plain = value.replace("-", "").replace("_", "").isalnum() and yaml.safe_load(value) == value
        return value if plain else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(one) for one in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_written(key)}: {_written(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)


def _write(place: str, text: str) -> None:
    folder = os.path.dirname(place)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fd, temporary = tempfile.mkstemp(prefix=".config-", dir=folder)
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(fd, os.stat(place).st_mode & 0o777)
            file.flush()
            os.fsync(fd)
        os.rename(temporary, place)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise

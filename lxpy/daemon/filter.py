"""The ``filter=`` of list requests: ``name eq c1 and not config.user.role ne web``, left-associative."""

import re
import shlex
from collections.abc import Callable
from typing import Any

from lxpy.api.errors import BadRequest

Predicate = Callable[[Any], bool]
_PLAIN = re.compile(r"[^\\^$.|?*+()\[\]{}]*\Z")


def parse(text: str) -> Predicate | None:
    """A predicate over documents; None for the empty filter (``lxc`` always sends one).

    Raises:
        BadRequest: with the place where the filter stops making sense.
    """
    if not text.strip():
        return None
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadRequest(f"Invalid filter {text!r}: {error}") from None
    clauses: list[tuple[str, Predicate]] = []  # (how it joins what stands before it, the clause)
    joiner, position = "and", 0
    while True:
        negate = position < len(words) and words[position] == "not"
        position += negate
        if len(words) - position < 3:
            raise BadRequest(f"Invalid filter {text!r}: expected FIELD eq|ne VALUE [and|or ...]")
        field, operator, value = words[position : position + 3]
        if operator not in ("eq", "ne"):
            raise BadRequest(f"Invalid filter {text!r}: {operator!r} is not an operator (eq, ne)")
        clauses.append((joiner, _clause(field, value, negate != (operator == "ne"))))
        position += 3
        if position == len(words):
            break
        joiner = words[position]
        if joiner not in ("and", "or"):
            raise BadRequest(f"Invalid filter {text!r}: {joiner!r} should be and or or")
        position += 1

    def holds(document: Any) -> bool:
        result = True
        for how, clause in clauses:
            result = (result and clause(document)) if how == "and" else (result or clause(document))
        return result

    return holds


def _clause(field: str, value: str, negate: bool) -> Predicate:
    path = field.split(".")
    low = value.lower()
    pattern: re.Pattern[str] | None = None
    if not _PLAIN.match(value):
        try:
            pattern = re.compile(value, re.IGNORECASE)
        except re.error as error:
            raise BadRequest(f"Invalid filter value {value!r}: {error}") from None

    def matches(document: Any) -> bool:
        found = _lookup(document, path)
        if isinstance(found, bool):
            same = low == str(found).lower()
        else:
            text = "" if found is None else str(found)
            same = text.lower() == low or (pattern is not None and pattern.fullmatch(text) is not None)
        return same != negate

    return matches


def _lookup(document: Any, path: list[str]) -> Any:
    # Configuration keys have dots themselves: `config.user.role` is document["config"]["user.role"].
    for index in range(len(path)):
        if not isinstance(document, dict):
            return None
        rest = ".".join(path[index:])
        if rest in document:
            return document[rest]
        document = document.get(path[index])
    return document

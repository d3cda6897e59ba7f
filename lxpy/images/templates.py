"""Templates of images: files such as ``/etc/hostname``, written when an instance is made, copied, renamed or started.

LXD's are Pongo2, which is Django's language, which Jinja2 nearly is; the one common difference (``|filter:argument``)
is translated. Most templates only put in a name or a value: those are done here, so that the daemon carries Jinja2
only once an image really needs it. What an image brings is not trusted: Jinja2 runs in its sandbox with a time limit,
and files are written inside the instance's root only.
"""

import os
import re
import stat
import sys
import time
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NamedTuple

from lxpy.images import metadata
from lxpy.linux import safe_path

SECONDS = 2.0
OUTPUT_LIMIT = 1 << 20
_PLAIN = re.compile(
    r"""\{\{-?\s*(?:(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)
        |config_get\(\s*(?P<q1>["'])(?P<key>[^"'{}\\]*)(?P=q1)\s*,\s*(?P<q2>["'])(?P<default>[^"'{}\\]*)(?P=q2)\s*\))\s*-?\}\}""",
    re.VERBOSE,
)
_FILTER_ARGUMENT = re.compile(r"""\|\s*(\w+)\s*:\s*("[^"]*"|'[^']*'|[\w.]+)""")
# The lengths are bounded: what looks for the end of a tag from each of its beginnings takes time by their product.
_TAG = re.compile(r"\{[{%].{0,2000}?[%}]\}", re.DOTALL)
_LIMIT = 1 << 16
# Go's way of saying and, or, not; texts in quotes stay as they are.
_OPERATORS = re.compile(r"""("[^"]*"|'[^']*')|(&&)|(\|\|)|(!)(?!=)""")
# Tags of Pongo2 that Jinja2 has by other names, or not at all. Texts in quotes may hold anything.
_VALUE = r"""(?:"[^"]*"|'[^']*'|[^\s"'%]+)"""
_TAGS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(rf"\{{%(-?)\s*ifequal\s+({_VALUE})\s+({_VALUE})\s*(-?)%\}}"), r"{%\1 if \2 == \3 \4%}"),
    (re.compile(rf"\{{%(-?)\s*ifnotequal\s+({_VALUE})\s+({_VALUE})\s*(-?)%\}}"), r"{%\1 if \2 != \3 \4%}"),
    (re.compile(r"\{%(-?)\s*(?:endifequal|endifnotequal)\s*(-?)%\}"), r"{%\1 endif \2%}"),
    (re.compile(r"\{%(-?)\s*comment\b[^%]*%\}"), r"{%\1 if false %}{% raw %}"),
    (re.compile(r"\{%-?\s*endcomment\s*(-?)%\}"), r"{% endraw %}{% endif \1%}"),
    # A map is gone through by key and value, in the order of its keys.
    (re.compile(r"\{%(-?)\s*for\s+(\w+)\s*,\s*(\w+)\s+in\s+([\w.\[\]'\"]+)\s*(?:sorted\s*)?(-?)%\}"),
     r"{%\1 for \2, \3 in \4|pairs \5%}"),
    (re.compile(r"\{%(-?)\s*for\s+(\w+)\s+in\s+([^%]+?)\s+sorted\s*(-?)%\}"), r"{%\1 for \2 in \3|sort \4%}"),
    (re.compile(r"\{%(-?)\s*for\s+(\w+)\s+in\s+([^%]+?)\s+reversed\s*(-?)%\}"),
     r"{%\1 for \2 in \3|list|reverse \4%}"),
)  # fmt: skip
_LOOP = {"Counter": "index", "Counter0": "index0", "Revcounter": "revindex", "Revcounter0": "revindex0",
         "First": "first", "Last": "last"}  # fmt: skip
_FORLOOP = re.compile(rf"\bforloop\.({'|'.join(sorted(_LOOP, key=len, reverse=True))})\b", re.IGNORECASE)
# String methods that make megabytes of a few bytes.
_HUNGRY = {"center", "ljust", "rjust", "zfill", "expandtabs", "format", "format_map", "translate", "encode"}


class TemplateError(Exception):
    """A template that cannot be rendered; one line."""


def render_templates(archive: str, trigger: str, context: dict[str, Any], root_fd: int) -> list[str]:
    """Writes the files of every template of that trigger into an instance's root. Blocking; milliseconds.

    Args:
        archive: the image's stored metadata tarball (or unified image), or a copy of the JSON kept beside it.
        trigger: ``create``, ``copy``, ``rename`` or ``start``.
        context: ``instance`` {name, type, architecture, privileged, ephemeral}, ``config``, ``devices`` (expanded).
        root_fd: directory descriptor of the root, its owners 0-based.

    Returns:
        One line for each template that could not be done. They never keep an instance from being made.
    """
    found = metadata.load(archive)
    problems = []
    for path, entry in found.metadata["templates"].items():
        if trigger not in entry["when"]:
            continue
        try:
            text = found.templates.get(entry["template"])
            if text is None:
                raise TemplateError(f"the image has no templates/{entry['template']}")
            place = _place(root_fd, path, entry)
            if place is not None:
                content = render(text, _names(path, trigger, entry, context)).encode(errors="surrogateescape")
                safe_path.write_file(root_fd, path, content, mode=place.mode, uid=place.uid, gid=place.gid)
        except TemplateError as error:
            problems.append(f"Template for {path}: {error}")
        except OSError as error:
            problems.append(f"Template for {path}: {error.strerror or error}")
    return problems


def render(text: str, names: dict[str, Any]) -> str:
    """The text with its expressions replaced; unknown names are empty, nothing is escaped.

    Raises:
        TemplateError: bad syntax, forbidden access, too slow or too long.
    """
    rest = _PLAIN.sub("", text)
    simple = "{-" not in text and "-}" not in text and not any(mark in rest for mark in ("{{", "{%", "{#"))
    if simple:
        return _PLAIN.sub(lambda match: _plain(match, names), text)
    return _jinja(text, names)


def _names(path: str, trigger: str, entry: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    config: Mapping[str, str] = context.get("config") or {}
    instance = context.get("instance") or context.get("container") or {}
    return {
        "trigger": trigger,
        "path": path,
        "instance": instance,
        "container": instance,
        "config": config,
        "devices": context.get("devices") or {},
        "properties": entry["properties"],
        # Pongo2's takes line ends off a value; files must not gain empty lines by it.
        "config_get": lambda key, default="": config[key].rstrip("\r\n") if config.get(key) else default,
    }


def _plain(match: re.Match[str], names: dict[str, Any]) -> str:
    if match["key"] is not None:
        return str(names["config_get"](match["key"], match["default"]))
    value: Any = names
    for part in match["name"].split("."):
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return "" if callable(value) else str(value)


def _jinja(text: str, names: dict[str, Any]) -> str:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        # Both make huge values out of small ones.
        intercepted_binops = frozenset(["**", "*", "%"])

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if operator == "**" or not (isinstance(left, int) and isinstance(right, int)):
                raise TemplateError(f"the operator {operator} is for whole numbers only, and ** for none")
            return super().call_binop(context, operator, left, right)

        def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
            return attr not in _HUNGRY and super().is_safe_attribute(obj, attr, value)

    if len(text) > _LIMIT:
        raise TemplateError("it is longer than 64 KiB")
    text = _TAG.sub(_translated, text)
    # What is not there is empty, and so is what would be in it: images ask for keys of devices that may be missing.
    environment = Sandbox(keep_trailing_newline=True, autoescape=False, undefined=jinja2.ChainableUndefined)
    for name in ("namespace", "cycler", "joiner", "lipsum"):
        environment.globals.pop(name, None)
    for name in ("center", "format", "indent", "wordwrap", "pprint", "xmlattr"):
        environment.filters.pop(name, None)
    environment.filters.update(_FILTERS)
    try:
        template = environment.from_string(text)
        parts, size = [], 0
        with _Deadline(SECONDS):
            for part in template.generate(names):
                parts.append(part)
                size += len(part)
                if size > OUTPUT_LIMIT:
                    raise TemplateError("it makes more than 1 MiB")
        return "".join(parts)
    except TemplateError:
        raise
    except jinja2.TemplateError as error:
        raise TemplateError(str(error.message or error).splitlines()[0]) from None
    except Exception as error:
        # Whatever an expression may do: divide by zero, add a text to a number.
        raise TemplateError(f"{type(error).__name__}: {error}") from None


def _translated(match: re.Match[str]) -> str:
    """An expression or tag in Jinja2's words."""
    text = match[0]
    for tag, instead in _TAGS:
        text = tag.sub(instead, text)
    text = _FORLOOP.sub(lambda found: f"loop.{_LOOP[found[1].capitalize()]}", text)
    return _FILTER_ARGUMENT.sub(r"|\1(\2)", _OPERATORS.sub(_word, text))


def _pairs(value: Any) -> Any:
    return sorted(value.items()) if isinstance(value, Mapping) else value


# Filters of Pongo2 that Jinja2 has not.
_FILTERS: dict[str, Callable[..., Any]] = {
    "add": lambda value, more: value + more if isinstance(value, int) else f"{value}{more}",
    "capfirst": lambda value: str(value)[:1].upper() + str(value)[1:],
    "cut": lambda value, what: str(value).replace(str(what), ""),
    "default_if_none": lambda value, other: other if value is None else value,
    "pairs": _pairs,
    "split": lambda value, by: str(value).split(str(by)),
    "yesno": lambda value, words="yes,no": str(words).split(",")[0 if value else 1],
}


def _word(match: re.Match[str]) -> str:
    return match[1] or (" and " if match[2] else " or " if match[3] else " not ")


class _Deadline:
    """Ends Python code of this thread that runs too long, by its line trace: nested loops cannot hold up the daemon."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._before: Any = None

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, *exc: object) -> None:
        sys.settrace(self._before)

    def _trace(self, frame: FrameType, event: str, arg: Any) -> Any:
        if time.monotonic() > self._end:
            raise TemplateError(f"it takes longer than {SECONDS:.0f} s")
        return self._trace


class _Place(NamedTuple):
    uid: int
    gid: int
    mode: int


def _place(root_fd: int, path: str, entry: dict[str, Any]) -> _Place | None:
    """Owner and mode for a file; None when it is there and must not be touched.

    An existing one keeps what the template does not say. Missing directories are made.
    """
    uid, gid, mode = 0, 0, 0o644
    try:
        fd = safe_path.openat2(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        safe_path.make_dirs(root_fd, os.path.dirname(path) or "/")
    else:
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
        if entry["create_only"]:
            return None
        uid, gid, mode = info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)
    return _Place(entry.get("uid", uid), entry.get("gid", gid), entry.get("mode", mode))

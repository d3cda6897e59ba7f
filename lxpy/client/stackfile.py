"""Stack files: YAML with the sections of LXD's preseed and ``instances``; faults are told with file and line."""

from __future__ import annotations

from lxpy.api.errors import ApiError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Kind:
    """A kind of object.

    Args:
        section: its section in a file.
        label: what people call one.
        path: of its list; ``{parent}`` is the object it belongs to.
        fields: what PUT takes.
        made_with: what can only be said when it is made.
        whole: a field that is given replaces what there is; otherwise keys of ``config`` that are not given stay,
            since the server fills in some by itself.
        parent: the key that names the object it belongs to.
        key: the key that names it.
        in_project: whether it belongs to a project.
        feature: the project's key without which it belongs to the default one instead.
    """

    def __init__(
        self,
        section: str,
        label: str,
        path: str,
        fields: tuple[str, ...] = ("config", "description"),
        made_with: tuple[str, ...] = (),
        whole: bool = True,
        parent: str = "",
        key: str = "name",
        in_project: bool = False,
        feature: str = "",
    ) -> None:
        self.section, self.label, self.path, self.fields, self.made_with = section, label, path, fields, made_with
        self.whole, self.parent, self.key = whole, parent, key
        self.in_project, self.feature = in_project, feature


# In the order in which they need each other.
KINDS = (
    Kind("projects", "project", "/1.0/projects", whole=False),
    Kind("storage_pools", "storage pool", "/1.0/storage-pools", made_with=("driver",), whole=False),
    Kind(
        "network_acls", "network ACL", "/1.0/network-acls", fields=("config", "description", "egress", "ingress")
    ),
    Kind("networks", "network", "/1.0/networks", made_with=("type",), whole=False),
    Kind(
        "network_forwards", "network forward", "/1.0/networks/{parent}/forwards",
        fields=("config", "description", "ports"), parent="network", key="listen_address",
    ),
    Kind(
        "storage_volumes", "storage volume", "/1.0/storage-pools/{parent}/volumes/custom",
        made_with=("type", "content_type"), whole=False, parent="pool", in_project=True,
        feature="features.storage.volumes",
    ),
    Kind("profiles", "profile", "/1.0/profiles", fields=("config", "description", "devices"), in_project=True,
        feature="features.profiles",
    ),
    Kind(
        "instances", "instance", "/1.0/instances",
        fields=("config", "description", "devices", "ephemeral", "profiles"),
        made_with=("architecture", "image", "source", "status", "type"), in_project=True,
    ),
)  # fmt: skip
# What the server says of objects and nobody can set: it may stand in a file, since `show` prints it.
_SAID = frozenset(
    "backups created_at expanded_config expanded_devices last_used_at location locations managed snapshots state "
    "stateful status status_code url used_by".split()
)
_SHAPES = {"config": dict, "devices": dict, "source": dict, "profiles": list, "ports": list, "egress": list,
           "ingress": list}  # fmt: skip


class Lined(dict):  # type: ignore[type-arg]
    """A mapping that knows its line, and those of its keys."""

    line: int
    lines: dict[str, int]


class Entry:
    """One object that a file describes."""

    def __init__(self, kind: Kind, project: str, parent: str, name: str, body: dict[str, Any], where: str) -> None:
        self.kind, self.project, self.parent, self.name = kind, project, parent, name
        self.body, self.where = body, where

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.kind.section, self.project, self.parent, self.name


class Stack:
    """What files describe. `name` may be empty when none says it."""

    def __init__(self) -> None:
        self.name = ""
        self.entries: dict[tuple[str, str, str, str], Entry] = {}

    def add(self, text: str, file: str, project: str) -> None:
        """Add a file's documents.

        Args:
            file: its name for messages.
            project: of objects that name none.

        Raises:
            ApiError: ``FILE:LINE: what is wrong``.
        """
        for document in _documents(text, file):
            self._add(document, file, project)

    def _add(self, document: Any, file: str, project: str) -> None:
        if document is None:
            return
        if not isinstance(document, Lined):
            _fail(file, 1, "the document is no mapping of sections (instances:, profiles:, networks: ...)")
        sections = {kind.section: kind for kind in KINDS}
        for section, content in document.items():
            line = document.lines[section]
            if section == "stack":
                if not _is_name(content):
                    _fail(file, line, "stack must be a name of letters, digits, dots, dashes and underscores")
                if self.name not in ("", content):
                    _fail(file, line, f"the stack is called {self.name!r} already")
                self.name = content
                continue
            if section not in sections:
                _unknown(file, line, "section", section, ["stack", *sections])
            if content is None:
                continue
            if not isinstance(content, list):
                _fail(file, line, f"{section} must be a list of objects")
            for one in content:
                if not isinstance(one, Lined):
                    _fail(file, line, f"{section} must be a list of objects, each a set of keys")
                entry = _entry(sections[section], one, file, project)
                if other := self.entries.get(entry.key):
                    _fail(file, one.line, f"the {entry.kind.label} {entry.name!r} is at {other.where} already")
                self.entries[entry.key] = entry


def _entry(kind: Kind, one: Lined, file: str, project: str) -> Entry:
    names = [kind.key, *([kind.parent] if kind.parent else [])]
    for key in names:
        if not isinstance(one.get(key), str) or not one[key]:
            _fail(file, one.line, f"{key} is missing: the objects of {kind.section} need {' and '.join(names)}")
    name = one[kind.key]
    known = {*names, *kind.fields, *kind.made_with, *(["project"] if kind.in_project else [])}
    body: dict[str, Any] = {}
    for key, value in one.items():
        line = one.lines[key]
        if key not in known:
            if key in _SAID:
                continue
            _unknown(file, line, f"key of the {kind.label} {name!r}:", key, sorted(known))
        shape = _SHAPES.get(key)
        if value is None:
            value = shape() if shape else ""
        if shape is not None and not isinstance(value, shape):
            _fail(
                file, line, f"{key} of the {kind.label} {name!r} must be a {'set of keys' if shape is dict else 'list'}"
            )
        if shape is None and isinstance(value, (dict, list)):
            _fail(file, line, f"{key} of the {kind.label} {name!r} must be one value")
        body[key] = _checked(kind, name, key, value, file, line)
    if kind.section == "instances" and str(body.get("status", "Running")).lower() not in ("running", "stopped"):
        _fail(file, one.lines["status"], f"status of the instance {name!r} must be Running or Stopped")
    if body.get("image") and body.get("source"):
        _fail(file, one.line, f"the instance {name!r} has an image and a source: one of them is enough")
    place = str(one.get("project") or project) if kind.in_project else ""
    return Entry(kind, place, str(one.get(kind.parent, "")), name, body, f"{file}:{one.line}")


def _checked(kind: Kind, name: str, key: str, value: Any, file: str, line: int) -> Any:
    """Configuration and devices as the texts the API wants."""
    if key == "config":
        return {
            k: _scalar(v, f"{key}.{k} of the {kind.label} {name!r}", file, value.lines[k]) for k, v in _items(value)
        }
    if key == "devices":
        found = {}
        for device, options in _items(value):
            if not isinstance(options, Lined):
                _fail(file, value.lines[device], f"the device {device!r} of {name!r} must be a set of keys")
            found[device] = {
                k: _scalar(v, f"the device {device!r}", file, options.lines[k]) for k, v in options.items()
            }
        return found
    if key == "ephemeral" and not isinstance(value, bool):
        _fail(file, line, f"ephemeral of the {kind.label} {name!r} must be true or false")
    return value if isinstance(value, (dict, list, bool)) else str(value)


def _items(value: Any) -> Any:
    return value.items()


def _scalar(value: Any, what: str, file: str, line: int) -> str:
    if isinstance(value, (dict, list)):
        _fail(file, line, f"{what} must be one value")
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and 0 < len(name) < 64 and all(c.isalnum() or c in "._-" for c in name)


def _fail(file: str, line: int, text: str) -> NoReturn:
    raise ApiError(f"{file}:{line}: {text}")


def _unknown(file: str, line: int, what: str, word: str, known: list[str]) -> NoReturn:
    import difflib

    near = difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
    _fail(file, line, f"unknown {what} {word!r}: {hint}")


def _documents(text: str, file: str) -> list[Any]:
    import yaml

    try:
        loader = yaml.SafeLoader(text)
        found = []
        while loader.check_node():
            found.append(_plain(loader, loader.get_node(), file, {}))
        return found
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        _fail(file, mark.line + 1 if mark else 1, str(reason))


def _plain(loader: Any, node: Any, file: str, seen: dict[int, Any]) -> Any:
    """A node as data. `seen` holds what has been made of nodes: an alias is the same one again."""
    import yaml

    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_object(node)
        # Numbers and dates as they are written: 0755 is no 493.
        return value if value is None or isinstance(value, bool) else str(node.value)
    if id(node) in seen:
        return seen[id(node)]
    if isinstance(node, yaml.SequenceNode):
        items = seen[id(node)] = []
        items += [_plain(loader, one, file, seen) for one in node.value]
        return items
    found = seen[id(node)] = Lined()
    found.line, found.lines = node.start_mark.line + 1, {}
    given = set()
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            _fail(file, line, "a key must be one word")
        if key.value in given:
            _fail(file, line, f"{key.value!r} is there twice")
        given.add(key.value)
    loader.flatten_mapping(node)
    for key, value in node.value:
        found[key.value] = _plain(loader, value, file, seen)
        found.lines[key.value] = key.start_mark.line + 1
    return found

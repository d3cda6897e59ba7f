"""What may be copied of an object: name, addresses, command lines, the whole of it as YAML. For every kind there is."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lxpy.tui.rows import ImageRow, InstanceRow
from lxpy.tui.verbs.common import ref, shown, words

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp

# How the command line shows an object of a kind.
_SHOW = {
    "storage-pools": "storage show", "networks": "network show", "profiles": "profile show", "warnings": "warning show",
    "operations": "operation show", "projects": "project show",
}  # fmt: skip


class Clip(NamedTuple):
    """One line of the menu: what it is called, and the text. YAML is asked for when it is chosen: `path` says where;
    without one it is made of `raw`."""

    label: str
    text: str
    path: str = ""
    raw: Any = None

    @property
    def is_yaml(self) -> bool:
        return self.raw is not None or bool(self.path)


def clips(app: "LxpyApp", row: Any) -> list[Clip]:
    """What may be copied of a row of any pane or tab; what is empty is left out."""
    kind = getattr(row, "kind", "")
    if isinstance(row, InstanceRow):
        found = _instance(app, row)
    elif isinstance(row, ImageRow):
        found = _image(app, row)
    elif kind in _OTHERS:
        found = _OTHERS[kind](app, row)
    elif hasattr(row, "url"):
        found = _remote(app, row)
    else:
        found = _object(app, row)
    return [clip for clip in found if clip.text]


def _line(app: "LxpyApp", *rest: str) -> str:
    return shown(words(app, *rest))


def _yaml(path: str = "", raw: Any = None) -> Clip:
    return Clip("YAML", "the whole of it", path, raw if not path else None)


def _api(path: str) -> Clip:
    return Clip("API", path)


def _instance(app: "LxpyApp", row: InstanceRow) -> list[Clip]:
    from lxpy.tui.verbs.common import path

    name, addresses = ref(app, row.name), []
    for nic, state in sorted(((row.raw.get("state") or {}).get("network") or {}).items()):
        for one in state.get("addresses") or []:
            if nic != "lo" and one.get("scope") == "global":
                word = "IPv6" if one.get("family") == "inet6" else "IPv4"
                addresses.append(Clip(f"{word} {nic}", str(one["address"])))
    return [
        Clip("Name", row.name), *addresses, Clip("Shell", _line(app, "shell", name)),
        Clip("Info", _line(app, "info", name)), Clip("Log", _line(app, "console", "--show-log", name)),
        _api(path(row)), _yaml(path(row)),
    ]  # fmt: skip


def _image(app: "LxpyApp", row: ImageRow) -> list[Clip]:
    there = row.reference if row.remote else ref(app, row.title)
    path = "" if row.remote else f"/1.0/images/{row.fingerprint}"
    return [
        Clip("Reference", row.reference if row.remote else ""),
        *(Clip("Alias", alias) for alias in row.aliases[:4]), Clip("Fingerprint", row.fingerprint),
        Clip("Launch", _line(app, "launch", there)), Clip("Info", _line(app, "image", "info", there)),
        _api(path), _yaml(path, row.raw),
    ]  # fmt: skip


def _remote(app: "LxpyApp", row: Any) -> list[Clip]:
    facts = {"name": row.name, "url": row.url, "protocol": row.protocol, "public": row.public}
    verb = ["list", f"{row.name}:"] if row.protocol == "lxd" else ["image", "list", f"{row.name}:"]
    add = ["remote", "add", row.name, row.url, "--protocol", row.protocol]
    return [
        Clip("Name", row.name), Clip("URL", row.url), Clip("List", _line(app, *verb)),
        Clip("Add", _line(app, *add) if "://" in row.url and row.protocol != "builtin" else ""), _yaml(raw=facts),
    ]  # fmt: skip


def _operation(app: "LxpyApp", row: Any) -> list[Clip]:
    found = [Clip("What", row.name), Clip("Error", str(row.raw.get("err") or "")), Clip("Id", row.key)]
    return [*found, Clip("Show", _line(app, *_SHOW["operations"].split(), ref(app, row.key))), _yaml(raw=row.raw)]


def _snapshot(app: "LxpyApp", row: Any) -> list[Clip]:
    if row.is_now:
        return [Clip("Name", row.instance), _yaml(f"/1.0/instances/{row.instance}")]
    place = f"{ref(app, row.instance)}/{row.name}"
    return [
        Clip("Name", row.name), Clip("Reference", place),
        Clip("Restore", _line(app, "restore", ref(app, row.instance), row.name)),
        Clip("Copy", _line(app, "copy", place, f"{row.instance}-{row.name}")), _api(row.path), _yaml(row.path),
    ]  # fmt: skip


def _object(app: "LxpyApp", row: Any) -> list[Clip]:
    """Pools, networks, profiles, warnings, and whatever else has a name and an address."""
    name, kind, path = getattr(row, "name", ""), getattr(row, "kind", ""), getattr(row, "path", "")
    key = getattr(row, "key", name)
    told = [
        Clip(label, text) for label, attribute in (("IPv4", "ipv4"), ("IPv6", "ipv6"), ("Source", "source"),
                                                   ("Message", "message"))
        if (text := str(getattr(row, attribute, "") or ""))
    ]  # fmt: skip
    line = _line(app, *_SHOW[kind].split(), ref(app, key)) if kind in _SHOW else ""
    return [Clip("Name", name), *told, Clip("Show", line), _api(path), _yaml(path, getattr(row, "raw", None))]


_OTHERS: dict[str, Callable[["LxpyApp", Any], list[Clip]]] = {"operations": _operation, "snapshots": _snapshot}


def menu(app: "LxpyApp", found: list[Clip]) -> None:
    """Asks which one, copies it, and shows it: where the terminal takes no clipboard it can be marked by mouse."""
    from lxpy.tui.screens.choose import Choice, Choose

    def chosen(place: str | None) -> None:
        if place is None:
            return
        clip = found[int(place)]
        if clip.is_yaml:
            app.run_worker(_whole(app, clip), group="verbs", exit_on_error=False)
        else:
            _copied(app, clip.text)

    choices = [Choice(clip.label, str(place), clip.text) for place, clip in enumerate(found)]
    app.push_screen(Choose("Copy", choices), chosen)


def _copied(app: "LxpyApp", text: str) -> None:
    app.copy_to_clipboard(text)
    app.notify(text, title="Copied", timeout=4, markup=False)


async def _whole(app: "LxpyApp", clip: Clip) -> None:
    from lxpy.tui.screens.edit import dump
    from lxpy.tui.screens.text import TextScreen

    try:
        raw = await app.gateway.call(lambda c: c.get(clip.path)) if clip.path else clip.raw
    except Exception as error:
        app.fail("Cannot copy", error)
        return
    text = dump(raw)
    app.copy_to_clipboard(text)
    app.push_screen(TextScreen("Copied", text))

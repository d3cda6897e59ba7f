"""The configuration of the selected object, as YAML; of an instance with where each value comes from."""

from typing import Any

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from lxpy.tui.objects import ObjectRow, WarningRow
from lxpy.tui.rows import ImageRow, InstanceRow
from lxpy.tui.tabs.base import Tab

_WIDE = 56  # longer lines do not move the column that says where values come from


class ConfigView(VerticalScroll, can_focus=True):
    """Scrolls; e edits."""

    BINDINGS = [Binding("e", "edit", "Edit", id="config.edit")]

    def action_edit(self) -> None:
        self.app.actions.do("edit", [self.parent.subject])  # type: ignore[attr-defined,union-attr]


class ConfigTab(Tab):
    TITLE = "Config"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = Static(classes="yaml")
        self._profiles: dict[str, dict[str, Any]] = {}

    @classmethod
    def fits(cls, subject: Any) -> bool:
        return isinstance(subject, InstanceRow | ImageRow | ObjectRow) and not isinstance(subject, WarningRow)

    def compose(self) -> ComposeResult:
        with ConfigView():
            yield self.body

    def inside(self) -> Widget:
        return self.query_one(ConfigView)

    def update(self, *, other: bool, came: bool) -> None:
        if not self.seen or not (came or self.fresh):
            return
        if isinstance(self.subject, InstanceRow):
            if came or other:
                self.soon(self._origins)
            self.body.update(self._instance(self.subject))
        else:
            from lxpy.tui.screens.edit import dump

            self.body.update(coloured(dump(self.subject.raw)))

    async def _origins(self) -> None:
        """The profiles of an instance: what it does not have itself comes from the last of them that has it."""
        row = self.subject
        try:
            found = await self.lxpy.gateway.call(lambda c: c.get("/1.0/profiles", recursion="1"))
        except Exception:
            return  # values are shown without where they come from
        self._profiles = {profile["name"]: profile for profile in found}
        if self.subject is not None and self.subject.key == row.key:
            self.body.update(self._instance(self.subject))

    def _origin(self, row: InstanceRow, part: str, key: str) -> str:
        if key in (row.raw.get(part) or {}):
            return "own"
        for name in reversed(row.raw.get("profiles") or []):
            if key in (self._profiles.get(name, {}).get(part) or {}):
                return f"profile {name}"
        return ""

    def _instance(self, row: InstanceRow) -> Content:
        """Keys, values and where each comes from, in three columns; what nobody sets by hand comes last."""
        raw, told = row.raw, _Told()
        told.pair("architecture", raw.get("architecture", ""))
        told.pair("description", raw.get("description", "") or "–")
        told.pair("ephemeral", str(bool(raw.get("ephemeral"))).lower())
        told.pair("profiles", ", ".join(raw.get("profiles") or []) or "–")
        config = dict(sorted((raw.get("expanded_config") or {}).items()))
        plain = {key: value for key, value in config.items() if not key.startswith(("volatile.", "image."))}
        told.head("config")
        for key, value in plain.items():
            told.pair(f"  {key}", value, self._origin(row, "config", key))
        if not plain:
            told.note("  nothing is set: e edits")
        told.head("devices")
        for name, device in sorted((raw.get("expanded_devices") or {}).items()):
            told.pair(f"  {name}", "", self._origin(row, "devices", name))
            for key, value in sorted(device.items()):
                told.pair(f"    {key}", value)
        for prefix, title in (("image.", "image it was made of"), ("volatile.", "volatile: kept by the daemon")):
            some = {key.removeprefix(prefix): value for key, value in config.items() if key.startswith(prefix)}
            if some:
                told.head(title)
            for key, value in some.items():
                told.note(f"  {key}: {value}")
        return told.content()


class _Told:
    """Collects lines; where values come from stands in a column of its own, behind the longest of them."""

    def __init__(self) -> None:
        self._lines: list[tuple[Content, str]] = []

    def head(self, text: str) -> None:
        self._lines.append((Content.assemble(("\n" + text + ("" if ":" in text else ":"), "bold $primary")), ""))

    def note(self, text: str) -> None:
        self._lines.append((Content.assemble((text, "$faint")), ""))

    def pair(self, key: str, value: str, origin: str = "") -> None:
        shown = value.splitlines() if "\n" in value else [value]
        self._lines.append((Content.assemble((f"{key}: ", "$faint"), "|" if len(shown) > 1 else value), origin))
        if len(shown) > 1:
            indent = " " * (len(key) - len(key.lstrip()) + 2)
            self._lines += [(Content(f"{indent}{line}"), "") for line in shown[:40]]
            if len(shown) > 40:
                self.note(f"{indent}… {len(shown) - 40} more lines")

    def content(self) -> Content:
        longest = max(
            (line.cell_length for line, origin in self._lines if origin and line.cell_length <= _WIDE), default=0
        )
        lines = []
        for line, origin in self._lines:
            gap = " " * max(2, longest + 3 - line.cell_length)
            tone = "$success" if origin == "own" else "$accent"
            lines.append(Content.assemble(line, (f"{gap}{origin}", tone)) if origin else line)
        return Content("\n").join(lines)


def coloured(text: str) -> Content:
    """YAML with its keys apart from its values."""
    lines = []
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if not colon and line.endswith(":"):
            key, colon = line, " "
        lines.append(Content.assemble((key + colon, "$faint"), value) if colon else Content(line))
    return Content("\n").join(lines)

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

_WIDE = 34  # where the origin of a value begins, if the line is that short


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
        raw = row.raw
        lines = [
            _pair("architecture", raw.get("architecture", "")),
            _pair("description", raw.get("description", "")),
            _pair("ephemeral", str(bool(raw.get("ephemeral"))).lower()),
            _pair("profiles", ", ".join(raw.get("profiles") or [])),
            _head("config"),
        ]
        config = raw.get("expanded_config") or {}
        visible = {key: value for key, value in sorted(config.items()) if not key.startswith("volatile.")}
        for key, value in visible.items():
            shown = value.splitlines() if "\n" in value else [value]
            lines.append(_pair(f"  {key}", "|" if len(shown) > 1 else value, self._origin(row, "config", key)))
            lines += [Content.assemble((f"    {line}", "$foreground")) for line in shown[:40]] if len(shown) > 1 else []
        if not visible:
            lines.append(Content.assemble(("  none", "$faint")))
        lines.append(_head("devices"))
        for name, device in sorted((raw.get("expanded_devices") or {}).items()):
            lines.append(_pair(f"  {name}", "", self._origin(row, "devices", name)))
            lines += [_pair(f"    {key}", value) for key, value in sorted(device.items())]
        hidden = {key: value for key, value in sorted(config.items()) if key.startswith("volatile.")}
        if hidden:
            lines.append(_head("volatile: kept by the daemon, not yours to change"))
            lines += [Content.assemble((f"  {key[9:]}: {value}", "$faint")) for key, value in hidden.items()]
        return Content("\n").join(lines)


def _head(text: str) -> Content:
    return Content.assemble(("\n" + text + ("" if ":" in text else ":"), "bold $primary"))


def _pair(key: str, value: str, origin: str = "") -> Content:
    room = " " * max(2, _WIDE - len(key) - len(value) - 2)
    note = (f"{room}{origin}", "$success" if origin == "own" else "$accent") if origin else ""
    return Content.assemble((f"{key}: ", "$faint"), value, note)


def coloured(text: str) -> Content:
    """YAML with its keys apart from its values."""
    lines = []
    for line in text.splitlines():
        key, colon, value = line.partition(": ")
        if not colon and line.endswith(":"):
            key, colon = line, " "
        lines.append(Content.assemble((key + colon, "$faint"), value) if colon else Content(line))
    return Content("\n").join(lines)

"""Facts about an object, line by line: what the overview is written with."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from textual.content import Content


class Facts:
    """Collects lines of a label and a value, under titles."""

    def __init__(self) -> None:
        self._lines: list[Content] = []

    def line(self, label: str, value: str, style: str = "") -> None:
        """A label and what it is; a dash where there is nothing."""
        shown = (value, style) if value and style else (value or "–", style if value else "$faint")
        self._lines.append(Content.assemble((f"{label:<12} ", "$faint"), shown))

    def title(self, text: str) -> None:
        self._lines.append(Content.assemble(("\n" + text, "bold $primary")))

    def text(self, text: str, style: str = "") -> None:
        self._lines.append(Content.assemble((text, style)))

    def config(self, config: Mapping[str, str], skip: Collection[str] = ()) -> None:
        """Configuration keys, if there are any."""
        shown = {key: value for key, value in sorted(config.items()) if key not in skip and key[:9] != "volatile."}
        if shown:
            self.title("Configuration")
            for key, value in shown.items():
                self.line(key, " ".join(str(value).split())[:200])

    def devices(self, devices: Mapping[str, Mapping[str, str]]) -> None:
        """Devices, a line each, if there are any."""
        if devices:
            self.title("Devices")
            for name, device in sorted(devices.items()):
                words = [device.get(k, "") for k in ("type", "network", "parent", "pool", "path", "source", "listen")]
                self.line(name, " ".join(" ".join(words).split()))

    def users(self, used_by: Iterable[str]) -> None:
        """Who uses the object."""
        urls = list(used_by)
        if urls:
            self.title("Used by")
            for url in urls[:200]:
                kind, _, name = url.partition("?")[0].removeprefix("/1.0/").partition("/")
                self.line(kind.removesuffix("s"), name)

    def content(self) -> Content:
        return Content("\n").join(self._lines)


def facts_of(pane: Any, row: Any) -> Content | None:
    """What a pane tells of one of its rows, None where it has no way to."""
    tell = getattr(pane, "facts", None)
    return tell(row) if tell is not None else None

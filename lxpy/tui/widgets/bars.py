"""The one-line bars: header, running work, keys."""

from collections.abc import Mapping
from typing import Any

from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.widget import Widget

from lxpy.api.status import CANCELLING
from lxpy.tui.model import Model


class HeaderBar(Widget):
    """Name, connection, counts, load and memory of the host."""

    def __init__(self, model: Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def render(self) -> Content:
        model, width = self.model, self.size.width
        remote = model.gateway.remote or "local"
        server = (model.server.get("environment") or {}).get("server_name", "")
        if model.connected:
            link = [("●", "$success"), (f" {server or remote}", "bold")]
        elif model.connected is None:
            link = [("◌", "$warning"), (f" connecting to {remote} …", "$faint")]
        else:
            link = [("✖", "$error"), (" disconnected, reconnecting …", "$error")]
        if model.waited and model.connected is not False:
            link.append((f"  no answer for {model.waited} s", "$warning"))
        if model.gateway.project not in ("", "default"):
            link += [("  project ", "$faint"), (model.gateway.project, "$accent")]
        if getattr(self.app, "read_only", False):
            link.append(("  read-only", "bold $warning"))
        left = Content.assemble((" lxpy ", "bold $background on $primary"), "  ", *link)
        total = len(model.instances)
        running = sum(row.running for row in model.instances.values())
        right: list[Any] = []
        if total and model.loaded:
            right += [(f"{running}", "bold $success"), (f"/{total} running", "$faint")]
        if model.load:
            right += [("   load ", "$faint"), model.load]
        if model.memory[1] and width >= 70:
            used, whole = (value / 2**30 for value in model.memory)
            right += [("   mem ", "$faint"), f"{used:.1f}", (f"/{whole:.0f}G", "$faint")]
        tail = Content.assemble(*right, " ")
        gap = max(1, width - left.cell_length - tail.cell_length)
        return Content.assemble(left, " " * gap, tail)


class WorkBar(Widget):
    """The running operations, and the connection's trouble; hidden when there is neither."""

    def __init__(self, model: Model, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.model = model

    def update_work(self) -> None:
        self.display = bool(self.model.running()) or self.model.connected is False
        self.refresh()

    def render(self) -> Content:
        model = self.model
        if model.connected is False:
            return Content.assemble((" ✖ ", "$error"), model.reason)
        work = model.running()
        parts: list[Any] = [(" ⟳ ", "$warning")]
        for i, operation in enumerate(work[:4]):
            parts.append(("   ", "")) if i else None
            parts.append(describe(operation, model.about))
            if text := "cancelling" if operation["status_code"] == CANCELLING else progress(operation):
                parts.append((f"  {text}", "$info"))
        if len(work) > 4:
            parts.append((f"   and {len(work) - 4} more", "$faint"))
        return Content.assemble(*parts)

    async def on_click(self) -> None:
        await self.app.run_action("app.operations")


def describe(operation: dict[str, Any], about: Mapping[str, str] = {}) -> str:
    """``Starting instance web1`` of an operation; `about` knows those that do not say what they are about."""
    names = [
        source.partition("?")[0].rsplit("/", 1)[-1][:40]
        for sources in (operation.get("resources") or {}).values()
        for source in sources or []
    ]
    text = str(operation.get("description") or "Operation")
    return f"{text} {about.get(operation['id']) or ', '.join(dict.fromkeys(names))}".strip()


def progress(operation: dict[str, Any]) -> str:
    """The progress text of an operation, such as ``rootfs: 45% (12.3MB/s)``."""
    metadata = operation.get("metadata") or {}
    return next((str(v) for k, v in metadata.items() if k.endswith("_progress") and isinstance(v, str)), "")


class KeyBar(Widget):
    """The keys that matter now, from the bindings of what has the focus; a click presses them."""

    ALWAYS = ("app.palette", "app.help", "app.quit")

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._spots: list[tuple[int, int, str]] = []

    def on_mount(self) -> None:
        self.screen.bindings_updated_signal.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        bindings: list[Binding] = []
        for active in self.screen.active_bindings.values():
            if active.binding.show and active.enabled and active.binding.action not in {b.action for b in bindings}:
                bindings.append(active.binding)
        # The keys of the whole app come first in the drawing order of what must stay when the line is too short.
        bindings.sort(key=lambda b: b.id in self.ALWAYS)
        room = self.size.width - 1
        fixed = [b for b in bindings if b.id in self.ALWAYS]
        room -= sum(len(self.app.get_key_display(b)) + len(b.description) + 3 for b in fixed)
        shown: list[Binding] = []
        for binding in bindings:
            if binding in fixed:
                continue
            need = len(self.app.get_key_display(binding)) + len(binding.description) + 3
            if need > room:
                break
            room -= need
            shown.append(binding)
        self._spots, at, parts = [], 1, [" "]
        out: list[Any] = list(parts)
        for binding in shown + fixed:
            key = self.app.get_key_display(binding)
            out += [(key, "bold $primary"), (f" {binding.description}  ", "$faint")]
            length = len(key) + len(binding.description) + 3
            self._spots.append((at, at + length, binding.key))
            at += length
        return Content.assemble(*out)

    def on_click(self, event: events.Click) -> None:
        for start, end, key in self._spots:
            if start <= event.x < end:
                self.app.simulate_key(key)

"""What is selected, at a glance."""

import itertools
from collections.abc import Iterator
from typing import Any

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from lxpy.tui.objects import NetworkRow
from lxpy.tui.rows import BUSY, STATES, ImageRow, InstanceRow, age, size
from lxpy.tui.tabs.base import Tab
from lxpy.tui.tabs.facts import facts_of
from lxpy.tui.usage import Sample
from lxpy.tui.widgets.graph import graph, round_top

_TONE = {"ok": "$success", "warn": "$warning", "bad": "$error", "dim": "$faint", "info": "$info"}


class OverviewTab(Tab):
    TITLE = "Overview"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = Static(id="overview")
        self._shown: Content | None = None

    @classmethod
    def fits(cls, subject: Any) -> bool:
        return True

    def compose(self) -> ComposeResult:
        with VerticalScroll(id="overview-scroll"):
            yield self.body

    def inside(self) -> Widget:
        return self.query_one("#overview-scroll")

    def update(self, *, other: bool, came: bool) -> None:
        subject = self.subject
        kind = getattr(subject, "kind", "")
        if isinstance(subject, InstanceRow):
            width = max(20, self.size.width - 4)
            self._show(_instance(subject, self.lxpy.model.history.of(subject.name), width), width)
            return
        self._shown = None
        if isinstance(subject, ImageRow):
            self.body.update(_image(subject))
        elif kind and (facts := facts_of(self.lxpy.main.pane(kind), subject)):
            self.body.update(facts)
            if isinstance(subject, NetworkRow) and subject.managed and self.seen and self.fresh:
                self.soon(self._leases)
        else:
            self.body.update(_other(subject))

    def _show(self, content: Content, width: int) -> None:
        """Shows `content`; a new layout of the whole screen only where lines come or go."""
        before, self._shown = self._shown, content
        if before is None or not content.is_same(before):
            heights = [_heights(one, width) for one in (before, content) if one is not None]
            self.body.update(content, layout=len(heights) < 2 or heights[0] != heights[1])

    def tick(self) -> None:
        if isinstance(self.subject, NetworkRow) and self.subject.managed:
            self.soon(self._leases)

    async def _leases(self) -> None:
        """Who has which address of the selected network: no event tells of that."""
        row = self.subject
        if not isinstance(row, NetworkRow):
            return
        try:
            row.raw["leases"] = await self.lxpy.gateway.call(lambda c: c.get(f"{row.path}/leases"))
        except Exception:
            return  # what was known stays
        if self.subject is row and (facts := facts_of(self.lxpy.main.pane(row.kind), row)):
            self.body.update(facts)


def _heights(content: Content, width: int) -> int | list[str]:
    """How high it is; the lines themselves where some may be broken."""
    lines = content.plain.split("\n")
    return lines if any(cell_len(line) > width for line in lines) else len(lines)


def _line(label: str, value: str, style: str = "") -> Content:
    return Content.assemble((f"{label:<11} ", "$faint"), (value or "–", style if value else "$faint"))


def _title(text: str) -> Content:
    return Content.assemble(("\n" + text, "bold $primary"))


def _graphs(row: InstanceRow, history: list[Sample], width: int) -> list[Content]:
    """CPU, memory, network and disk over time."""
    last = history[-1]
    seconds = round(history[-1].at - history[0].at) if len(history) > 1 else 0
    shown = f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
    lines = [Content.assemble(("\nOver time", "bold $primary"), (f"  the last {shown}", "$faint"))]
    cpus = round_top(max(s.cpu for s in history[-width:]), 10.0)
    memory = row.memory_limit or round_top(max(s.memory for s in history[-width:]), 16 * 2**20)
    lines += _graph("CPU", f"{last.cpu:.1f} %", [s.cpu for s in history], width, cpus, "$success", f"{cpus:.0f} %")
    of = f" of {size(row.memory_limit)}" if row.memory_limit else ""
    lines += _graph("Memory", size(last.memory) + of, [s.memory for s in history], width, memory, "$primary")
    for label, first, second, words, tone in (
        ("Network", [s.received for s in history], [s.sent for s in history], ("in", "out"), "$info"),
        ("Disk", [s.read for s in history], [s.written for s in history], ("read", "written"), "$accent"),
    ):
        both = [max(a, 0) + max(b, 0) for a, b in zip(first, second, strict=True)]
        text = f"{_rate(first[-1])} {words[0]}  {_rate(second[-1])} {words[1]}"
        top = round_top(max(both[-width:]), 16 * 2**10)
        lines += _graph(label, text, both, width, top, tone, _rate(top))
    return lines


def _graph(
    label: str, text: str, values: list[float], width: int, top: float, tone: str, edge: str = ""
) -> list[Content]:
    """`edge`: what the upper edge stands for, at the right, where there is room."""
    rows = graph(values, width, 2, top)
    # A line for nothing, so that one sees where the graph is while there is nothing to see in it.
    bottom = [(run, "$line" if blank else tone) for run, blank in _runs(rows[-1])]
    lines = [Content.assemble((row, tone)) for row in rows[:-1]]
    room = width - 12 - cell_len(text) - cell_len(edge) - 4
    head: list[Any] = [
        (f"{label:<12}", "$faint"),
        text,
        (f"{'':>{room + 2}}▔ {edge}" if edge and room > 0 else "", "$faint"),
    ]
    return [Content.assemble(*head), *lines, Content.assemble(*bottom)]


def _runs(row: str) -> Iterator[tuple[str, bool]]:
    """`row` in pieces; blanks, which the second says, as a line at the bottom."""
    for blank, cells in itertools.groupby(row, key=lambda cell: cell == " "):
        run = "".join(cells)
        yield ("▁" * len(run), True) if blank else (run, False)


def _rate(value: float) -> str:
    return f"{size(value)}/s" if value >= 1 else "0" if value >= 0 else "–"


def _instance(row: InstanceRow, history: list[Sample], width: int) -> Content:
    raw, config = row.raw, row.raw.get("expanded_config") or {}
    glyph, tone = STATES.get(row.status, BUSY)
    state = raw.get("state") or {}
    lines = [
        _line("Status", f"{glyph} {row.status}", _TONE[tone]),
        _line("Type", row.type + (" · ephemeral" if raw.get("ephemeral") else "")),
        _line("Image", row.image),
        _line("Created", f"{age(row.created)} ago" if row.created else ""),
        _line("Profiles", ", ".join(raw.get("profiles") or [])),
    ]
    if raw.get("description"):
        lines.append(_line("About", raw["description"]))
    reason = config.get("volatile.last_state.reason", "")
    if not row.running and reason:
        lines.append(_line("Last end", reason))
    lines.append(_title("Network"))
    nics = {n: v for n, v in (state.get("network") or {}).items() if n != "lo"}
    for nic, data in sorted(nics.items()):
        addresses = [a for a in data.get("addresses") or [] if a.get("scope") == "global"]
        for i, address in enumerate(addresses):
            lines.append(
                _line(nic if i == 0 else "", address["address"], "$info" if address["family"] == "inet" else "")
            )
        if not addresses:
            lines.append(_line(nic, "no address yet"))
    if not nics:
        lines.append(
            Content.assemble(("no addresses while it is stopped" if not row.running else "no network", "$faint"))
        )
    lines.append(_title("Resources"))
    limit = f" of {size(row.memory_limit)}" if row.memory_limit else ""
    lines.append(_line("Memory", f"{size(row.memory)}{limit}" if row.running and row.memory else ""))
    if row.running and (row.processes or state.get("processes", -1) > 0):
        lines.append(_line("Processes", str(row.processes or state["processes"])))
    limits = {k: v for k, v in sorted(config.items()) if k.startswith("limits.")}
    for key, value in limits.items():
        lines.append(_line(key.removeprefix("limits."), value, "$accent"))
    if not limits:
        lines.append(_line("Limits", "none set"))
    if config.get("security.privileged") in ("true", "1", "yes", "on"):
        lines.append(_line("Privileged", "yes: root in it is root here", "$warning"))
    if row.running and history:
        lines += _graphs(row, history, width)
    devices = raw.get("expanded_devices") or {}
    if devices:
        lines.append(_title("Devices"))
        for name, device in sorted(devices.items()):
            what = " ".join(device.get(k, "") for k in ("type", "network", "parent", "pool", "path", "source"))
            lines.append(_line(name, " ".join(what.split())))
    return Content("\n").join(lines)


def _image(row: ImageRow) -> Content:
    expires = str(row.raw.get("expires_at") or "")
    source = row.raw.get("update_source") or {}
    flags = {"public": "public", "auto_update": "kept up to date", "cached": "cached by a launch"}
    lines = [
        _line("Image", row.description, "bold"),
        _line("Fingerprint", row.fingerprint[:24]),
        _line("Aliases", ", ".join(row.aliases)),
        _line("Type", row.raw.get("type", "")),
        _line("Arch", row.architecture),
        _line("Size", size(row.size)),
        _line("Made" if row.remote else "Uploaded", f"{age(row.created)} ago" if row.created else ""),
        _line("Expires", "never" if expires.startswith(("0001", "1970")) or not expires else expires[:10]),
        _line("From", " ".join(str(source.get(key, "")) for key in ("server", "alias")).strip()),
        _line("It is", ", ".join(word for key, word in flags.items() if row.raw.get(key))),
        _title("Properties"),
    ]
    told = ("architecture", "description")  # above
    properties = sorted((row.raw.get("properties") or {}).items())
    lines += [_line(k, str(v)) for k, v in properties if k not in told]
    return Content("\n").join(lines)


def _other(row: Any) -> Content:
    if row is None:
        return Content.assemble(("\nSelect an object on the left;\nits details appear here.", "$faint"))
    hint = {
        "simplestreams": "An image server: press n to launch from its catalogue.",
        "builtin": "Images built here from lxpy's own recipes: press n to launch one.",
    }.get(row.protocol, "A server: `lxpy tui NAME:` opens the app on it.")
    return Content("\n").join(
        [
            _line("Remote", row.name, "bold"),
            _line("URL", row.url),
            _line("Protocol", row.protocol),
            _line("Public", "yes" if row.public else "no"),
            Content.assemble(("\n" + hint, "$faint")),
        ]
    )

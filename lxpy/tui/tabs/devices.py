"""The devices of the selected instance or profile: what there is, where it comes from, what it does right now."""

from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from lxpy.tui.devicerows import DeviceRow, summary, volume_path
from lxpy.tui.objects import ProfileRow
from lxpy.tui.rows import InstanceRow, size
from lxpy.tui.tabs.base import Tab
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.table import Column, Part, Table


class DeviceTable(Table):
    """The list."""

    BINDINGS = [
        Binding("n", "do('add-device')", "Add", id="device.add"),
        Binding("e", "do('edit-device')", "Edit", id="device.edit"),
        Binding("m", "do('mask-device')", "Mask", id="device.mask"),
        Binding("ctrl+d", "do('remove-device')", "Remove", key_display="^d", id="device.remove"),
    ]

    def __init__(self, tab: "DevicesTab", **kwargs: Any) -> None:
        self.tab = tab

        def kind(row: DeviceRow, _: int) -> tuple[Part, ...]:
            return ((row.kind, "dim" if row.kind == "none" else ""),)

        def what(row: DeviceRow, _: int) -> tuple[Part, ...]:
            return ((summary(row.device), "dim" if row.kind == "none" else ""),)

        def origin(row: DeviceRow, _: int) -> tuple[Part, ...]:
            return ((row.origin.removeprefix("profile "), "ok" if row.own else "info"),)

        columns = [
            Column("name", "NAME", lambda r, w: ((r.name, "strong"),), lambda r: r.name, 8, 18),
            Column("type", "TYPE", kind, lambda r: r.kind, 6, 12, 0, 1),
            Column("what", "WHAT", what, None, 12, 60, 1, 2),
            Column("from", "FROM", origin, lambda r: r.origin, 5, 18, 0, 1),
        ]
        super().__init__(columns, **kwargs)
        self.empty = [(("No devices", "strong"),), (("n", "accent"), (" adds one", "dim"))]

    def action_do(self, verb: str) -> None:
        """The keys are the table's, the work is a verb's."""
        subject = self.tab.subject
        rows = [self.current] if self.current is not None else [subject] if verb == "add-device" else []
        if subject is not None and rows:
            self.tab.lxpy.actions.do(verb, rows)


class DevicesTab(Tab):
    TITLE = "Devices"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = DeviceTable(self, id="devices-table")
        self.body = Static(classes="yaml")
        self._profiles: dict[str, dict[str, Any]] = {}
        self._volumes: dict[str, dict[str, Any]] = {}  # by the path of the API: the volumes of disks
        self._state: dict[str, Any] = {}

    @classmethod
    def fits(cls, subject: Any) -> bool:
        return isinstance(subject, InstanceRow | ProfileRow)

    def compose(self) -> ComposeResult:
        yield self.table
        with VerticalScroll(can_focus=False, id="device-facts"):
            yield self.body

    def inside(self) -> Widget:
        return self.table

    def update(self, *, other: bool, came: bool) -> None:
        if other:
            self._state = {}
        if self.seen and (came or other or self.fresh):
            self._fill()
            self.soon(self._read)

    def tick(self) -> None:
        if isinstance(self.subject, InstanceRow):
            self.soon(partial(self._read, volumes=False))

    def on_table_highlighted(self) -> None:
        self._facts()

    def on_table_chosen(self) -> None:
        self.table.action_do("edit-device")

    async def _read(self, volumes: bool = True) -> None:
        """What no event tells: profiles, traffic, and the space of `volumes`, which may have to be counted."""
        subject = self.subject
        gateway = self.lxpy.gateway
        try:
            found = await gateway.call(lambda c: c.get("/1.0/profiles", recursion="1"))
            self._profiles = {profile["name"]: profile for profile in found}
            if isinstance(subject, InstanceRow):
                state = await gateway.call(lambda c: c.get(f"/1.0/instances/{quote(subject.name)}/state"))
                self._state = state or {}
                for device in (subject.raw.get("expanded_devices") or {}).values():
                    if (path := volume_path(device)) and (volumes or path not in self._volumes):
                        self._volumes[path] = await gateway.call(lambda c, path=path: c.get(f"{path}/state")) or {}  # type: ignore[misc]
        except Exception:
            pass  # what is known is shown; the next reading may do better
        if self.subject is not None and self.subject.key == getattr(subject, "key", None):
            self._fill()

    def _fill(self) -> None:
        subject = self.subject
        own = subject.raw.get("devices") or {}
        rows = []
        for name, device in (subject.raw.get("expanded_devices") or own).items():
            profile = next(
                (p for p in reversed(subject.raw.get("profiles") or [])
                 if name in ((self._profiles.get(p) or {}).get("devices") or {})), "",
            )  # fmt: skip
            origin = f"profile {profile}" if profile else "profile"
            if isinstance(subject, ProfileRow) or name in own:
                rows.append(DeviceRow(subject, name, device, "own", origin if profile else ""))
            else:
                rows.append(DeviceRow(subject, name, device, origin))
        # A masked device is in force nowhere, and still something to be seen.
        seen = {row.name for row in rows}
        rows += [DeviceRow(subject, name, own[name], "own") for name in own if name not in seen]
        self.table.styles.height = max(4, min(len(rows) + 1, max(4, self.size.height // 2)))
        self.table.show(rows)

    def _facts(self) -> None:
        row: DeviceRow | None = self.table.current
        if row is None:
            self.body.update("")
            return
        facts = Facts()
        facts.title(f"{row.name}: {row.kind}")
        facts.line("From", (f"own, instead of {row.over}'s" if row.over else row.origin))
        kind = row.device.get("type")
        if kind == "nic":
            self._nic(facts, row)
        elif kind == "disk":
            self._disk(facts, row)
        elif kind == "proxy":
            inside = row.device.get("bind", "host") != "host"
            facts.line("Listens", f"{row.device.get('listen', '')}  {'inside' if inside else 'on the host'}")
            facts.line("Leads to", f"{row.device.get('connect', '')}  {'on the host' if inside else 'inside'}")
            nat = row.device.get("nat", "").lower() in ("true", "1", "yes", "on")
            facts.line("By", "the kernel (nat)" if nat else "a process of lxpy's")
        facts.config({k: v for k, v in row.device.items() if k not in ("type", "nictype")})
        self.body.update(facts.content())

    def _nic(self, facts: Facts, row: DeviceRow) -> None:
        config = (self.subject.raw.get("expanded_config") or {}) if isinstance(self.subject, InstanceRow) else {}
        hwaddr = row.device.get("hwaddr") or config.get(f"volatile.{row.name}.hwaddr", "")
        interfaces: Mapping[str, Any] = self._state.get("network") or {}
        inside = row.device.get("name") or config.get(f"volatile.{row.name}.name") or row.name
        inside = next((n for n, one in interfaces.items() if hwaddr and one.get("hwaddr") == hwaddr), inside)
        found = interfaces.get(inside)
        if found is None:
            if hwaddr:
                facts.line("MAC", hwaddr)
            if isinstance(self.subject, InstanceRow):
                facts.line("State", "it does not run" if not self.subject.running else "no such interface inside")
            return
        up = found.get("state", "")
        facts.line("Inside", f"{inside}  {up}", "$success" if up == "up" else "")
        facts.line("On the host", found.get("host_name", ""))
        facts.line("MAC", found.get("hwaddr", ""))
        for address in found.get("addresses") or []:
            tone = "$info" if address.get("family") == "inet" else ""
            note = "" if address.get("scope") == "global" else f"  {address.get('scope')}"
            facts.line("Address", f"{address['address']}/{address.get('netmask', '')}{note}", tone)
        counters = found.get("counters") or {}
        for label, key in (("Received", "received"), ("Sent", "sent")):
            packets = counters.get(f"packets_{key}", 0)
            facts.line(
                label, f"{size(counters.get(f'bytes_{key}', 0))} in {packets} packets" if packets else "nothing yet"
            )

    def _disk(self, facts: Facts, row: DeviceRow) -> None:
        device = row.device
        if path := volume_path(device):
            facts.line("Volume", f"{device['source']} of pool {device['pool']}")
            usage = (self._volumes.get(path) or {}).get("usage") or {}
            used, total = int(usage.get("used") or 0), int(usage.get("total") or 0)
            if used or total:
                facts.line("Used", size(used) + (f" of {size(total)}" if total > 0 else ""))
        elif device.get("source"):
            facts.line("Host path", device["source"])
        else:
            facts.line("Pool", device.get("pool", ""))
            used = int(((self._state.get("disk") or {}).get(row.name) or {}).get("usage") or 0)
            if used:
                facts.line("Used", size(used) + (f" of {device['size']}" if device.get("size") else ""))
        facts.line("Inside", device.get("path", ""))

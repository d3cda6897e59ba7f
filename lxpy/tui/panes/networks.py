"""Pane 5: the networks."""

from typing import Any

from textual.binding import Binding
from textual.content import Content

from lxpy.tui.objects import NetworkRow
from lxpy.tui.panes.base import ListPane
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.table import Column, Part


class NetworksPane(ListPane):
    """Managed bridges, and the host's interfaces."""

    number = 5
    kind = "networks"
    short = "Nets"
    BINDINGS = [
        Binding("n", "app.verb('create-network')", "New network", id="network.create"),
        Binding("e", "app.verb('edit')", "Edit", id="network.edit"),
        Binding("R", "app.verb('rename-object')", "Rename", show=False, id="network.rename"),
        Binding("ctrl+d", "app.verb('delete-object')", "Delete", key_display="^d", id="network.delete"),
        Binding("y", "app.copy", "Copy", show=False, id="network.copy"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        def name(row: NetworkRow, _: int) -> tuple[Part, ...]:
            return ((row.name, "strong" if row.managed else "dim"),)

        columns = [
            Column("name", "NAME", name, lambda r: (not r.managed, r.name), 8, 20),
            Column("type", "TYPE", lambda r, w: ((r.type, "" if r.managed else "dim"),), lambda r: r.type, 8, 10, 0, 2),
            Column("ipv4", "IPV4", lambda r, w: ((r.ipv4 or "–", "" if r.ipv4 else "dim"),), None, 16, 18, 0, 1),
            Column("ipv6", "IPV6", lambda r, w: ((r.ipv6 or "–", "dim"),), None, 16, 43, 1, 5),
            Column("users", "USED BY", lambda r, w: ((str(r.users), "dim"),), lambda r: -r.users, 7, 7, 0, 3, True),
        ]
        super().__init__(columns, **kwargs)

    def facts(self, row: NetworkRow) -> Content:
        facts = Facts()
        facts.line("Type", row.type + ("" if row.managed else " · the host's own, not managed here"))
        facts.line("State", row.raw.get("status", ""))
        facts.line("About", row.description)
        facts.config(row.raw.get("config") or {})
        leases = row.raw.get("leases")
        if leases:
            facts.title("Leases")
            for lease in leases:
                facts.line(lease.get("hostname") or "?", f"{lease.get('address')}  {lease.get('hwaddr')}")
        facts.users(row.raw.get("used_by") or [])
        return facts.content()

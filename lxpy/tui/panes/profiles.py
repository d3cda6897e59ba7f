"""Pane 6: the profiles."""

from typing import Any

from textual.binding import Binding
from textual.content import Content

from lxpy.tui.objects import ProfileRow
from lxpy.tui.panes.base import ListPane
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.table import Column


class ProfilesPane(ListPane):
    """What instances have in common."""

    number = 6
    kind = "profiles"
    short = "Prof"
    BINDINGS = [
        Binding("n", "app.verb('create-profile')", "New profile", id="profile.create"),
        Binding("e", "app.verb('edit')", "Edit", id="profile.edit"),
        Binding("c", "app.verb('copy-profile')", "Copy to a new one", show=False, id="profile.copy-profile"),
        Binding("R", "app.verb('rename-object')", "Rename", show=False, id="profile.rename"),
        Binding("ctrl+d", "app.verb('delete-object')", "Delete", key_display="^d", id="profile.delete"),
        Binding("y", "app.copy", "Copy", show=False, id="profile.copy"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        columns = [
            Column("name", "NAME", lambda r, w: ((r.name, "strong"),), lambda r: r.name, 8, 24),
            Column("description", "DESCRIPTION", lambda r, w: ((r.description, ""),), None, 10, 50, 1, 2),
            Column("devices", "DEVICES", lambda r, w: ((r.devices, "dim"),), None, 10, 24, 0, 4),
            Column("users", "USED BY", lambda r, w: ((str(r.users), "dim"),), lambda r: -r.users, 7, 7, 0, 1, True),
        ]
        super().__init__(columns, **kwargs)

    def facts(self, row: ProfileRow) -> Content:
        facts = Facts()
        facts.line("About", row.description)
        facts.config(row.raw.get("config") or {})
        facts.devices(row.raw.get("devices") or {})
        facts.users(row.raw.get("used_by") or [])
        return facts.content()

"""Pane 4: the storage pools."""

from typing import Any

from textual.binding import Binding
from textual.content import Content

from lxpy.tui.objects import PoolRow
from lxpy.tui.panes.base import ListPane
from lxpy.tui.rows import size
from lxpy.tui.tabs.facts import Facts
from lxpy.tui.widgets.table import Column, Part


def _space(row: PoolRow, room: int) -> tuple[Part, ...]:
    if not row.total:
        return (("–", "dim"),)
    share = min(1.0, row.used / row.total)
    filled = round(share * 6)
    tone = "ok" if share < 0.8 else "warn" if share < 0.93 else "bad"
    text = f" {size(row.used)} of {size(row.total)}"
    return (("━" * filled, tone), ("━" * (6 - filled), "dim"), (text, "")) if room >= 20 else ((text.strip(), tone),)


class StoragePane(ListPane):
    """Pools, with how full they are."""

    number = 4
    kind = "storage-pools"
    heading = "Storage"
    short = "Store"
    BINDINGS = [
        Binding("n", "app.verb('create-pool')", "New pool", id="pool.create"),
        Binding("e", "app.verb('edit')", "Edit", id="pool.edit"),
        Binding("ctrl+d", "app.verb('delete-object')", "Delete", key_display="^d", id="pool.delete"),
        Binding("y", "app.copy", "Copy", show=False, id="pool.copy"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        columns = [
            Column("name", "NAME", lambda r, w: ((r.name, "strong"),), lambda r: r.name, 8, 20),
            Column("driver", "DRIVER", lambda r, w: ((r.driver, ""),), lambda r: r.driver, 7, 8, 0, 1),
            Column("used", "SPACE", _space, lambda r: -r.used, 14, 24, 0, 2),
            Column("users", "USED BY", lambda r, w: ((str(r.users), "dim"),), lambda r: -r.users, 7, 7, 0, 3, True),
            Column("source", "SOURCE", lambda r, w: ((r.source, "dim"),), None, 10, 60, 1, 5),
        ]
        super().__init__(columns, **kwargs)

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        return [(("No storage pools yet", "strong"),), (("Press ", "dim"), ("n", "accent"), (" to make one", "dim"))]

    def facts(self, row: PoolRow) -> Content:
        facts = Facts()
        facts.line("Driver", row.driver)
        facts.line("Source", row.source)
        facts.line("About", row.description)
        if row.total:
            facts.line("Used", f"{size(row.used)} of {size(row.total)} ({100 * row.used // row.total} %)")
        facts.config(row.raw.get("config") or {}, skip=("source",))
        facts.users(row.raw.get("used_by") or [])
        return facts.content()

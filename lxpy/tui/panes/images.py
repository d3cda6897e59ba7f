"""Pane 2: the images stored here."""

from typing import Any

from textual.binding import Binding

from lxpy.tui.panes.base import ListPane
from lxpy.tui.rows import age, size
from lxpy.tui.widgets.table import Column, Part


class ImagesPane(ListPane):
    """Local images: launch from one, delete it."""

    number = 2
    kind = "images"
    short = "Images"
    MARKABLE = True
    BINDINGS = [
        Binding("n", "app.launch", "New instance of it", id="image.launch"),
        Binding("ctrl+d", "app.verb('delete')", "Delete", key_display="^d", id="image.delete"),
        Binding("e", "app.verb('edit')", "Edit", show=False, id="image.edit"),
        Binding("y", "app.copy", "Copy", show=False, id="image.copy"),
        Binding("space", "mark", "Mark", show=False, id="image.mark"),
        Binding("asterisk", "mark_all", "Mark all shown", show=False, key_display="*", id="image.mark-all"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="image.unmark"),
    ]

    def __init__(self, **kwargs: Any) -> None:
        columns = [
            Column("alias", "ALIAS", lambda r, w: ((r.title, "strong"),), lambda r: r.title, 8, 24),
            Column("description", "DESCRIPTION", lambda r, w: ((r.description, ""),), None, 10, 40, 1, 3),
            Column("fingerprint", "FINGERPRINT", lambda r, w: ((r.fingerprint[:12], "dim"),), None, 12, 12, 0, 4),
            Column("arch", "ARCH", lambda r, w: ((r.architecture, "dim"),), None, 7, 7, 0, 5),
            Column("size", "SIZE", lambda r, w: ((size(r.size), ""),), lambda r: -r.size, 6, 6, 0, 1, True),
            Column("age", "AGE", lambda r, w: ((age(r.created), "dim"),), lambda r: -r.created, 5, 5, 0, 6, True),
        ]
        super().__init__(columns, **kwargs)

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        return [
            (("No images here yet", "strong"),),
            (("The first launch fetches one: press ", "dim"), ("n", "accent")),
        ]

"""Pane 2: the images stored here."""

from typing import Any

from textual.binding import Binding

from lxpy.tui.panes.base import ListPane
from lxpy.tui.panes.catalogue import ask_source, source_links
from lxpy.tui.rows import ImageRow, age, size
from lxpy.tui.widgets.table import Column, Part


class ImagesPane(ListPane):
    """Local images: launch from one, name it, publish it; left and right show what remotes offer."""

    number = 2
    kind = "images"
    short = "Images"
    MARKABLE = True
    BINDINGS = [
        Binding("n", "app.launch", "Launch", id="image.launch"),
        Binding("b", "browse", "Browse remotes", id="image.browse"),
        Binding("a", "app.verb('aliases')", "Aliases", id="image.aliases"),
        Binding("O", "app.verb('image-options')", "Options", id="image.options"),
        Binding("r", "app.verb('refresh-image')", "Refresh", id="image.refresh"),
        Binding("P", "app.verb('publish-one')", "Publish an instance", show=False, id="image.publish"),
        Binding("E", "app.verb('export-image')", "Export", show=False, id="image.export"),
        Binding("i", "app.verb('import-image')", "Import", show=False, id="image.import"),
        Binding("right", "source(1)", "Next remote's", show=False, id="image.next"),
        Binding("left", "source(-1)", "Previous remote's", show=False, id="image.previous"),
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
            Column("notes", "NOTES", _notes, None, 16, 24, 0, 7),
            Column("size", "SIZE", lambda r, w: ((size(r.size), ""),), lambda r: -r.size, 6, 6, 0, 1, True),
            Column("age", "AGE", lambda r, w: ((age(r.created), "dim"),), lambda r: -r.created, 5, 5, 0, 6, True),
        ]
        super().__init__(columns, **kwargs)

    def action_browse(self) -> None:
        """Asks for a remote, and shows what it offers."""
        ask_source(self.screen.catalogue)  # type: ignore[attr-defined]

    def action_source(self, by: int) -> None:
        names = self.screen.catalogue.sources()  # type: ignore[attr-defined]
        self.screen.browse(names[by % len(names)], at_once=False)  # type: ignore[attr-defined]

    def aside(self, room: int) -> str:
        screen = self.screen if self.is_attached else None
        if screen is None or not hasattr(screen, "catalogue") or not self.has_class("-active"):
            return ""
        return source_links(screen.catalogue.sources(), 0, "", room)

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        return [
            (("No images here yet", "strong"),),
            (("The first launch fetches one: press ", "dim"), ("n", "accent")),
            (("What remotes offer: press ", "dim"), ("b", "accent")),
        ]


def _notes(row: ImageRow, room: int) -> tuple[Part, ...]:
    fields = {"public": "public", "auto_update": "updates", "cached": "cached"}
    words = [word for field, word in fields.items() if row.raw.get(field)]
    return ((" ".join(words), "dim"),) if words else (("–", "dim"),)

"""What a remote offers, in place of the panes: its images by distribution, release, variant and architecture."""

import os
from collections.abc import Callable
from typing import Any

from rich.cells import cell_len
from textual import events
from textual.binding import Binding
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget

from lxpy.tui import catalogue
from lxpy.tui.catalogue import CHOICES, CatalogueRow
from lxpy.tui.gateway import RemoteInfo
from lxpy.tui.model import Model
from lxpy.tui.panes.base import ListPane
from lxpy.tui.rows import named, size
from lxpy.tui.widgets.bars import progress
from lxpy.tui.widgets.links import by_mouse, window
from lxpy.tui.widgets.table import Column, Part

HERE = "this server"
# Seconds on a remote's name before its list is asked for: who goes past it with the arrows asks it nothing.
LINGER = 0.6


class CataloguePane(ListPane):
    """One remote's images. Enter shows one in detail, n launches it, d fetches it."""

    number = 2
    kind = "catalogue"
    heading = "Images"
    MARKABLE = True
    HINT = "text  os:debian  release:12  variant:cloud  arch:any  !not   tab completes"
    BINDINGS = [
        Binding("n", "app.verb('launch-listed')", "Launch", id="catalogue.launch"),
        Binding("d", "app.verb('download')", "Download", id="catalogue.download"),
        Binding("D", "choice('os')", "Distribution", id="catalogue.os"),
        Binding("R", "choice('release')", "Release", id="catalogue.release"),
        Binding("V", "choice('variant')", "Variant", id="catalogue.variant"),
        Binding("A", "choice('arch')", "Arch", id="catalogue.arch"),
        Binding("O", "choice('versions')", "Older versions", show=False, id="catalogue.versions"),
        Binding("right", "source(1)", "Next remote", show=False, id="catalogue.next"),
        Binding("left", "source(-1)", "Previous remote", show=False, id="catalogue.previous"),
        Binding("b", "sources", "Another remote", show=False, id="catalogue.sources"),
        Binding("r", "again", "Read the list anew", show=False, id="catalogue.again"),
        Binding("ctrl+d", "app.verb('cancel-download')", "Cancel its download", show=False, key_display="^d",
                id="catalogue.cancel"),
        Binding("y", "app.copy", "Copy", show=False, id="catalogue.copy"),
        Binding("space", "mark", "Mark", show=False, id="catalogue.mark"),
        Binding("ctrl+@", "mark_range", "Mark up to here", show=False, key_display="^space", id="catalogue.mark-range"),
        Binding("asterisk", "mark_all", "Mark all shown", show=False, key_display="*", id="catalogue.mark-all"),
        Binding("ctrl+backslash", "unmark", "Unmark all", show=False, key_display="^\\", id="catalogue.unmark"),
    ]  # fmt: skip

    def __init__(self, model: Model, **kwargs: Any) -> None:
        self.model = model
        self.source = ""
        self._local: set[str] = set()  # fingerprints of the images that are on this server
        self._here: set[str] = set()
        self._naturals: dict[str, int] = {}
        self._timer: Timer | None = None
        columns = [
            Column("os", "DISTRIBUTION", lambda r, w: _text(r.os, "strong"), lambda r: r.order, 12, 18),
            Column("release", "RELEASE", lambda r, w: _text(r.release), lambda r: (r.order[1:3], r.order), 9, 18),
            Column("variant", "VARIANT", lambda r, w: _text(r.variant), lambda r: (r.variant, r.order), 9, 14, 0, 1),
            Column("arch", "ARCH", lambda r, w: _text(r.arch, "dim"), lambda r: (r.arch, r.order), 6, 8, 0, 2),
            Column("alias", "ALIAS", self._alias, lambda r: r.title, 14, 36, 1, 1),
            Column("description", "DESCRIPTION", lambda r, w: _text(r.description, "dim"), None, 12, 60, 1, 9),
            Column("type", "TYPE", lambda r, w: _text(r.type, "dim"), lambda r: (r.type, r.order), 9, 9, 0, 8),
            Column("size", "SIZE", lambda r, w: ((size(r.size), ""),), lambda r: -r.size, 6, 6, 0, 2, True),
            Column("date", "DATE", lambda r, w: _text(r.date, "dim"), lambda r: -r.created, 10, 10, 0, 5),
        ]
        super().__init__(columns, **kwargs)

    # Where from

    def sources(self) -> list[str]:
        """Names of the remotes that may be looked through; "" is the server that the app shows anyway."""
        home = self.model.gateway.remote
        here = home or next((r.name for r in self.model.remotes if r.default), "")
        return ["", *(remote.name for remote in self.model.remotes if remote.name not in (here, home))]

    @property
    def remote(self) -> RemoteInfo | None:
        """The remote that is looked through."""
        return next((remote for remote in self.model.remotes if remote.name == self.source), None)

    def open(self, source: str, at_once: bool = True) -> None:
        """Shows the images of a remote.

        Args:
            at_once: its list is asked for now; else when it is still looked at a moment later.
        """
        if source != self.source:
            self.source, self.query_text, self.cursor = source, "", 0
            self.marks.clear()
        if self._timer is not None:
            self._timer.stop()
            self._timer = None
        if at_once:
            self._look()
        else:
            self._timer = self.set_timer(LINGER, self._look)
            self.renew()

    def _look(self) -> None:
        """Somebody does look at it: its list is read, and how soon it answers is taken, if that is not known."""
        self._timer = None
        remote = self.remote
        if remote is not None and self.model.catalogues.get(remote.name) is None:
            self.app.run_worker(self.model.reach.test(remote), group="catalogue", exit_on_error=False)
        self.renew()

    def renew(self) -> None:
        """Shows what is known now; reads it where it is not, or not any more."""
        found, remote = self.model.catalogues.get(self.source), self.remote
        if found is None and remote is not None and self._timer is None:
            self.app.run_worker(self.model.catalogues.read(remote), group="catalogue", exit_on_error=False)
        self._here = found.settle(self._native()) if found is not None else set()
        self._naturals.clear()
        self.downloads_changed()
        self.fill((found.rows if found is not None else None) or [])

    def downloads_changed(self) -> None:
        """Images have come or gone here, or are on their way."""
        self._local = {image.fingerprint for image in self.model.images}
        self.redraw()

    def _native(self) -> list[str]:
        environment = self.model.server.get("environment") or {}
        return list(environment.get("architectures") or [os.uname().machine])

    # Rows

    def test(self) -> Callable[[Any], bool] | None:
        return catalogue.lets_through(self.query_text, self._here)

    def completed(self, text: str) -> str:
        return catalogue.completed(self.all_rows, text)

    def fill(self, rows: list[Any]) -> None:
        super().fill(rows)
        for bar in self.screen.query(ChoiceBar) if self.is_attached else ():
            bar.refresh()

    def _natural(self, column: Column) -> int:
        # Of the whole list and once: columns that move with every key of a filter are no help.
        if column.key not in self._naturals:
            shown, self.rows = self.rows, self.all_rows
            self._naturals[column.key] = super()._natural(column)
            self.rows = shown
        return self._naturals[column.key]

    def _alias(self, row: CatalogueRow, room: int) -> tuple[Part, ...]:
        name = (row.title, "" if row.aliases else "dim")
        operation = self.model.catalogues.download(row.fingerprint, self.model.operations)
        if operation is None and self.model.catalogues.copying(row.fingerprint):
            return (name, (" ◌ …", "warn"))
        if operation is not None:
            percent = next((word for word in progress(operation).split() if word.endswith("%")), "…")
            return (name, (f" ◌ {percent}", "warn"))
        return (name, (" ✔", "ok")) if row.fingerprint in self._local else (name,)

    def nothing(self) -> list[tuple[Part, ...]]:
        remote, found = self.remote, self.model.catalogues.get(self.source)
        if remote is None:
            return [((f"There is no remote {self.source} any more", "dim"),)]
        if found is None or (found.rows is None and not found.fault):
            return [((f"Reading what {remote.name} offers …", "strong"),), ((remote.url, "dim"),)]
        if found.fault:
            import textwrap

            lines = textwrap.wrap(found.fault, max(30, self.size.width - 8))[:8]
            again = (("r", "accent"), (" tries again   ", "dim"), ("←→", "accent"), (" other remotes", "dim"))
            return [((f"No images from {remote.name}", "bad"),), *(((line, ""),) for line in lines), again]
        if not found.rows:
            return [((f"{remote.name} offers no images", "strong"),)]
        asked = named(self.query_text)
        hidden = sum(map(catalogue.lets_through(f"{self.query_text} arch:any versions:any", set()), found.rows))
        if hidden and not {"arch", "versions"} <= asked:
            return [
                ((f"{hidden} that fit are for other machines, or older", "strong"),),
                (("A", "accent"), (" other architectures   ", "dim"), ("O", "accent"), (" older versions", "dim")),
            ]
        return super().nothing()

    def retitle(self) -> None:
        super().retitle()
        if not hasattr(self, "model"):
            return
        names = self.sources()
        if self.source not in names:
            names.append(self.source)
        at = names.index(self.source)
        total, shown = len(self.all_rows), len(self.rows)
        count = f" {total}" if shown == total else f" {shown}/{total}"
        count = count if total else ""
        room = max(self.size.width, 40) - len(f"{self.number} {self.called} · ") - 4
        links = source_links(names, at, count, room)
        self.entitle(f"[b]{self.number}[/b] {self.called} [dim]·[/dim] {links}")

    # Keys

    def action_source(self, by: int) -> None:
        """To the next or previous remote."""
        names = self.sources()
        at = names.index(self.source) if self.source in names else 0
        self.screen.browse(names[(at + by) % len(names)], at_once=False)  # type: ignore[attr-defined]

    def action_sources(self) -> None:
        """Asks which remote."""
        ask_source(self)

    def action_again(self) -> None:
        """Reads the list anew."""
        found = self.model.catalogues.get(self.source)
        if found is not None and (found.rows is not None or found.fault):
            self.model.catalogues.forget(self.source)
        self.open(self.source)

    def runnable(self) -> set[str]:
        """The architectures that this server can be asked to run, by their kernel names."""
        # The daemon names its best architecture only; what else runs there it says when it is asked to.
        known = set(self._native())
        return known | {"i686" if "x86_64" in known else "armv7l" if "aarch64" in known else ""}

    @property
    def here(self) -> str:
        """This server's architectures, as the list calls them."""
        return ", ".join(sorted(self._here))

    def action_choice(self, field: str) -> None:
        """Asks for one of the distributions, releases … there are, with how many images each has."""
        from lxpy.tui.screens.pick import Option, Pick

        values = catalogue.counted(self.all_rows, field, self.query_text, self._here)
        usual = {"arch": f"this machine's ({', '.join(sorted(self._here))})", "versions": "the newest"}.get(
            field, "any"
        )
        options = [Option(usual, "", "")]
        if field in ("arch", "versions"):
            options.append(Option("any", str(sum(count for _, count in values)), "any"))
        options += [Option(value, str(count), value) for value, count in values]

        def answer(value: str | None) -> None:
            if value is not None:
                self.filter(catalogue.with_choice(self.query_text, field, value, [v for v, _ in values]))

        now = catalogue.chosen(self.query_text, field)
        self.app.push_screen(Pick(f"Which {CHOICES[field][0]}?", options, now), answer)

    def action_back(self) -> None:
        if self.query_text or self.marks or self.screen.has_class("-detail"):
            super().action_back()
        else:
            self.screen.leave_catalogue()  # type: ignore[attr-defined]


class ChoiceBar(Widget):
    """What is chosen of the catalogue below, with the keys that choose; each can be clicked."""

    def __init__(self, pane: CataloguePane, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.pane = pane
        self._spots: list[tuple[int, int, str]] = []

    def render(self) -> Content:
        for level in range(3):
            parts, self._spots = self._parts(level)
            if not self._spots or self._spots[-1][1] <= self.size.width:
                break
        return Content.assemble(*parts)

    def _parts(self, level: int) -> tuple[list[Any], list[tuple[int, int, str]]]:
        """The line and where its fields are. The higher `level` is, the shorter: first without arrows, then without
        the names of fields that something is chosen of."""
        pane, at = self.pane, 1
        parts: list[Any] = [" "]
        spots: list[tuple[int, int, str]] = []
        arrow, gap = (" ▾", "   ") if level == 0 else ("", "  ")
        for field, (name, key) in CHOICES.items():
            value = catalogue.chosen(pane.query_text, field)
            usual = {"arch": ",".join(sorted(pane._here)) or "any", "versions": "newest"}.get(field, "any")
            name = name if level == 0 else name.replace("distribution", "distro")
            label = f" {name} " if level < 2 or not value else " "
            parts += [(key, "bold $primary"), (label, "$faint"), (value or usual, "$accent" if value else "")]
            parts += [(arrow, "$faint"), gap]
            length = cell_len(key + label + (value or usual) + arrow)
            spots.append((at, at + length, field))
            at += length + len(gap)
        return parts, spots

    def on_click(self, event: events.Click) -> None:
        for start, end, field in self._spots:
            if start <= event.x < end:
                self.pane.focus()
                self.pane.action_choice(field)


def source_links(names: list[str], at: int, count: str, room: int) -> str:
    """The remotes as words of a border, number `at` in bold and with `count`; -1 for none."""
    called = [name or HERE for name in names]
    widths = [cell_len(name) + 3 + (len(count) if i == at else 0) for i, name in enumerate(called)]
    first, last = window(widths, max(at, 0), room)
    links = []
    for number in range(first, last):
        text = called[number].replace("[", "\\[")
        text = f"[b]{text}[/b]{count}" if number == at else f"[dim]{text}[/dim]"
        links.append(by_mouse(f"source_at({number})", text))
    before = by_mouse(f"source_at({first - 1})", "[dim]‹[/dim] ") if first else ""
    after = by_mouse(f"source_at({last})", " [dim]›[/dim]") if last < len(names) else ""
    return before + " [dim]│[/dim] ".join(links) + after


def ask_source(pane: CataloguePane) -> None:
    """Asks whose images are to be looked through, and shows them."""
    from lxpy.tui.screens.pick import Option, Pick

    urls = {remote.name: remote.url for remote in pane.model.remotes}
    options = [Option(name or HERE, urls.get(name, "what is stored here"), name) for name in pane.sources()]

    def answer(name: str | None) -> None:
        if name is not None:
            pane.app.screen.browse(name)  # type: ignore[attr-defined]

    pane.app.push_screen(Pick("Images of which remote?", options, pane.source), answer)


def _text(value: str, tone: str = "") -> tuple[Part, ...]:
    return ((value, tone),) if value else (("–", "dim"),)

"""The command palette's content: every action, and every object by name."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

from textual.app import SystemCommand
from textual.command import DiscoveryHit, Hit, Hits, Provider

from lxpy.tui.rows import InstanceRow

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class Everything(Provider):
    """Actions on the selection first, then the app's, then objects to go to; in that order while nothing is typed."""

    async def discover(self) -> Hits:
        for text, about, run, _ in self._all():
            yield DiscoveryHit(text, run, help=about)

    async def search(self, query: str) -> Hits:
        matcher = self.matcher(query)
        for text, about, run, _ in self._all():
            score = matcher.match(text)
            if score > 0:
                yield Hit(score, matcher.highlight(text), run, help=about)

    def _all(self) -> Iterator[SystemCommand]:
        app = cast("LxpyApp", self.app)
        return commands(app) if self.screen is app.main else iter(())


def commands(app: "LxpyApp") -> Iterator[SystemCommand]:
    """Actions for the selection first, then those of the app, then objects to go to."""
    rows = app.main.targets()
    names = ", ".join(getattr(r, "name", "") or r.title for r in rows[:3]) + (" …" if len(rows) > 3 else "")
    yield SystemCommand("Launch an instance", "Image, name and profile (n)", app.action_launch)
    if rows and isinstance(rows[0], InstanceRow):
        for verb, key, text in (
            ("shell", "s", "Shell in"), ("log", "l", "Console log of"), ("start", "u", "Start"), ("stop", "x", "Stop"),
            ("kill", "^x", "Force-stop"), ("restart", "r", "Restart"), ("pause", "p", "Pause or resume"),
            ("delete", "^d", "Delete"),
        ):  # fmt: skip
            yield SystemCommand(f"{text} {names}", f"Key {key}", partial(app.action_verb, verb))
    elif rows and app.main.active.MARKABLE:
        yield SystemCommand(f"Delete {names}", "Key ^d", partial(app.action_verb, "delete"))
    yield SystemCommand("Filter this pane", "Text, state:running, image:…, key=value, !not (/)", app.action_filter)
    yield SystemCommand("Set up this server", "The questions of lxpy init", partial(app.action_verb, "setup"))
    yield SystemCommand("Switch project", "Another project (F2)", partial(app.action_switch, "project"))
    yield SystemCommand("Switch remote", "Another server (F3)", partial(app.action_switch, "remote"))
    yield SystemCommand("Operations", "Running and ended work, with errors (o)", app.action_operations)
    yield SystemCommand("Help", "The keys of this pane (?)", app.action_help)
    yield SystemCommand("Reload", "Read everything anew (^r)", partial(app.run_action, "app.reload"))
    yield SystemCommand("Theme", "Change the colours", app.action_change_theme)
    yield SystemCommand("Quit", "Leave lxpy; instances go on (q)", partial(app.run_action, "app.quit"))
    for number, pane in enumerate(app.main.panes, 1):
        yield SystemCommand(f"Go to {pane.kind}", f"Pane {number}", partial(app.main.action_pane, number))
        for row in pane.all_rows[:500]:
            name = getattr(row, "name", "") or row.title
            about = getattr(row, "status", "") or getattr(row, "description", "") or getattr(row, "url", "")
            yield SystemCommand(name, f"{pane.kind[:-1]} · {about}", partial(app.action_go, number, row.key))

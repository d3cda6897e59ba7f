"""A shell in the selected instance; there may be several, each in a tab of its own."""

import time
from typing import Any

from textual.app import ComposeResult
from textual.widget import Widget

from lxpy.tui.gateway import explain
from lxpy.tui.rows import InstanceRow
from lxpy.tui.shells import Shell
from lxpy.tui.tabs.base import Tab
from lxpy.tui.widgets.terminal import TerminalView


class ShellTab(Tab):
    """One shell.

    Args:
        row: the instance.
        number: which of its shells this is, from 1.
    """

    TITLE = "Shell"
    TYPED_INTO = True

    def __init__(self, row: InstanceRow, number: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.key, self.number = row.key, number
        self.home: tuple[str, str] | None = None  # remote and project of the instance
        self.name_of = row.name
        self._opened = False
        self._why = ""  # how it ended, if not by its own will

    def belongs(self, subject: Any) -> bool:
        mine = isinstance(subject, InstanceRow) and subject.key == self.key
        return mine and self.home in (None, self.lxpy.gateway.home if self.is_attached else None)

    def compose(self) -> ComposeResult:
        self.home = self.lxpy.gateway.home
        self.shell = self.make()
        self.view = TerminalView(self.shell)
        yield self.view

    def make(self) -> Shell:
        """What runs in it."""
        command = self.lxpy.settings.shell
        return Shell(self.lxpy.gateway, self.name_of, self._changed, self._ended, command)

    @property
    def ended(self) -> bool:
        """Whether only its last words are left."""
        shell = getattr(self, "shell", None)
        return shell is not None and self._opened and not shell.alive and not shell.opening

    def is_orphan(self) -> bool:
        lxpy = self.lxpy
        return self.ended and self.home == lxpy.gateway.home and self.key not in lxpy.model.instances

    @property
    def title(self) -> str:
        name = self.TITLE if self.number == 1 else f"{self.TITLE} {self.number}"
        return f"{name} ✖" if self.ended else name

    def inside(self) -> Widget:
        return self.view

    def on_resize(self) -> None:
        # The first size is the one that the shell begins with.
        if not self._opened and self.size.width > 1:
            self._opened = True
            self.run_worker(self._open(), exit_on_error=False)

    async def _open(self) -> None:
        self.view.note = "opening …"
        self._began = time.monotonic()
        self._awaiting = self.set_interval(0.5, self._await)
        try:
            await self.shell.open(self.size.width, self.size.height)
        except Exception as error:
            self._awaiting.stop()
            self._ended(explain(error), False)
            return
        self._await()

    def _changed(self) -> None:
        if self.view.note:
            self._await()
        self.view.changed()

    def _await(self) -> None:
        """Says who is waited for, until there is something to see."""
        who, seconds = self.shell.awaited, time.monotonic() - self._began
        note = f"waiting for {who} … {seconds:.0f} s" if seconds > 1 else "opening …"
        if not who:
            self._awaiting.stop()
            note = "" if self.shell.alive else self.view.note
        if note != self.view.note:
            self.view.note = note
            self.view.refresh()

    def _ended(self, text: str, orderly: bool) -> None:
        if not self.is_mounted or not self.is_attached:
            return
        if orderly:
            self.view.post_message(TerminalView.Shut(self.view))
            return
        self._why = text
        self._tell()
        self.lxpy.main.detail.sweep()
        self.lxpy.main.detail.retitle()

    def update(self, *, other: bool, came: bool) -> None:
        if self._why:  # that its instance was stopped is often heard of after the shell's end
            self._tell()

    def _tell(self) -> None:
        row = self.lxpy.model.instances.get(self.key)
        if self.home != self.lxpy.gateway.home:
            pass  # another server's: its instances are not known now
        elif row is None:
            self._why = f"{self.name_of} was deleted"
        elif not row.running or self.name_of in self.lxpy.model.busy():
            self._why = f"{self.name_of} was stopped"
        self.view.note = f"{self._why} · enter closes this shell"
        self.view.refresh()

    def on_unmount(self) -> None:
        self.shell.close()


class ConsoleTab(ShellTab):
    """The console that the instance's own programs write to; login happens there."""

    TITLE = "Console"

    def make(self) -> Shell:
        return Shell(self.lxpy.gateway, self.name_of, self._changed, self._ended, own=("console", self.name_of))

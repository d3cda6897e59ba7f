"""An object's YAML, to be changed and saved; here or in the user's own editor."""

from collections.abc import Awaitable, Callable
from typing import Any

import yaml
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Static

from lxpy.api.errors import PreconditionFailed
from lxpy.client import yamltext
from lxpy.tui.gateway import explain
from lxpy.tui.screens.choose import Choice, Choose
from lxpy.tui.screens.outlived import Outlived
from lxpy.tui.widgets.area import Area
from lxpy.tui.widgets.bars import KeyBar


class Editor(Outlived, ModalScreen[bool]):
    """Answers True once `save` has taken the document.

    Args:
        title: what is edited.
        document: what is there now, plain data.
        save: takes the new document, and whether what somebody else made of it meanwhile is overwritten; what it raises
            is shown, and nothing that was typed is lost.
        load: gives the document as it is by now.
    """

    BINDINGS = [
        Binding("ctrl+s", "save", "Save", id="editor.save"),
        Binding("ctrl+e", "external", "$EDITOR", priority=True, id="editor.external"),
        Binding("escape", "leave", "Leave", priority=True, id="editor.leave"),
    ]

    def __init__(
        self, title: str, document: Any, save: Callable[[Any, bool], Awaitable[object]],
        load: Callable[[], Awaitable[Any]], **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.heading, self._save, self._load = title, save, load
        self._before = dump(document)
        self._asked = False
        self._saving = 0

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="editor") as box:
            box.border_title = self.heading.replace("[", "\\[")
            yield Area(self._before, id="editor-text", show_line_numbers=True, tab_behavior="indent")
            yield Static(id="editor-fault", markup=False)
            yield KeyBar(id="editor-keys")

    def on_mount(self) -> None:
        self.query_one("#editor-fault").display = False
        self.query_one(Area).focus()

    def _tell(self, text: str) -> None:
        fault = self.query_one("#editor-fault", Static)
        fault.display = bool(text)
        fault.update(text)

    def action_leave(self) -> None:
        if self.query_one(Area).text == self._before or self._asked:
            self.dismiss(False)
        else:
            self._asked = True
            self._tell("It is being saved: esc once more closes, it goes on" if self._saving
                       else "It has changed: ctrl+s saves it, esc once more leaves it as it was")  # fmt: skip

    def action_save(self) -> None:
        try:
            document = yamltext.load(self.query_one(Area).text)
        except yaml.YAMLError as error:
            self._tell(fault_of(error))
            return
        self.app.run_worker(self._send(document), group="verbs", exit_on_error=False)

    async def _send(self, document: Any, over: bool = False) -> None:
        self._saving += 1
        try:
            await self._save(document, over)
        except Exception as error:
            if self.open and isinstance(error, PreconditionFailed):
                self._conflict(document)
            else:
                self.fail(error, "Cannot save", self.heading, self._tell)
        else:
            if self.open:
                self.dismiss(True)
        finally:
            self._saving -= 1

    def _conflict(self, document: Any) -> None:
        def chosen(choice: str | None) -> None:
            if choice == "Reload":
                self.run_worker(self._reload(), exit_on_error=False)
            elif choice == "Overwrite":
                self.app.run_worker(self._send(document, over=True), group="verbs", exit_on_error=False)

        self.app.push_screen(
            Choose("Somebody else has changed it meanwhile", [
                Choice("Reload", "show theirs; your text is dropped"),
                Choice("Overwrite", "save your text; theirs is lost"),
            ], by_label=True), chosen,
        )  # fmt: skip

    async def _reload(self) -> None:
        try:
            text = dump(await self._load())
        except Exception as error:
            self._tell(explain(error))
            return
        self._before = self.query_one(Area).text = text
        self._tell("")

    def action_external(self) -> None:
        from lxpy.tui.editing import in_editor

        area = self.query_one(Area)
        text, fault = in_editor(self.app, area.text, ".yaml")
        if text is not None:
            area.text = text
        self._tell(fault)


def dump(document: Any) -> str:
    """YAML as the command line's ``edit`` shows it."""
    return yaml.safe_dump(document, default_flow_style=False, allow_unicode=True, sort_keys=True)


def fault_of(error: yaml.YAMLError) -> str:
    """What is wrong with a document, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or "it cannot be read"
    return f"Line {mark.line + 1}: {problem}" if mark else f"This is no YAML: {problem}"

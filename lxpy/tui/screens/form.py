"""A few questions about one thing: the dialogs of most verbs."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import Suggester, SuggestFromList
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Button, Checkbox, Input, Select, Static
from textual.worker import Worker

from lxpy.tui.gateway import explain
from lxpy.tui.screens.outlived import Outlived
from lxpy.tui.widgets.field import Box, Field, Pulldown

PAUSE_SECONDS = 0.15  # after the last key what is typed is looked at
Answers = Mapping[str, str]  # by the question's name; "yes" or "" of a box to tick


class Question(NamedTuple):
    """Attributes:
    name: of the answer.
    label: what stands before the field.
    hint: what stands in the empty field, or behind a box to tick.
    value: the answer so far.
    choices: the only answers there are; empty for any text.
    flag: whether it is a box to tick.
    path: whether it is a file or directory of this machine: what is typed is completed, the right arrow takes it.
    among: words that are offered as it is typed, in the same way.
    hidden: whether what is typed is shown as dots.
    """

    name: str
    label: str
    hint: str = ""
    value: str = ""
    choices: tuple[str, ...] = ()
    flag: bool = False
    path: bool = False
    among: tuple[str, ...] = ()
    hidden: bool = False


class Form(Outlived, ModalScreen[dict[str, str]]):
    """Answers with all answers once `submit` has taken them; None when it was cancelled.

    Args:
        title: what is to be done.
        questions: asked in this order.
        submit: does it; what it raises is shown, and the form stays as it is.
        line: gives the command line that does the same.
        verb: the word on the button.
        note: what follows from it.
        interruptible: whether closing the form while it is being done breaks it off; otherwise it goes on.
        check: what is wrong with the answers, by question, "" for the whole. Asked while they are typed; said of what
            has been typed, and of everything at the end, when nothing is done until it is right.
    """

    # The first field, at once: `focus` would come after keys that were typed ahead, and take tab back.
    AUTO_FOCUS = "Input, Checkbox, Select"
    BINDINGS = [
        Binding("escape", "leave", "Cancel", id="form.cancel"),
        Binding("ctrl+s", "submit", "Do it", id="form.go"),
    ]

    def __init__(
        self, title: str, questions: list[Question], submit: Callable[[Answers], Awaitable[object]],
        line: Callable[[Answers], str] | None = None, verb: str = "Do it", note: str = "",
        interruptible: bool = False, check: Callable[[Answers], Awaitable[Mapping[str, str]]] | None = None,
        **kwargs: Any,
    ) -> None:  # fmt: skip
        super().__init__(**kwargs)
        self.set_class(len(questions) > 4, "-dense")
        self.heading, self.questions, self.verb, self.note = title, questions, verb, note
        self._submit, self._line_of, self._check = submit, line, check
        self.interruptible = interruptible
        self._work: Worker[None] | None = None
        self._typed: set[str] = set()  # the questions that somebody has answered
        self._tried = False
        self._refused = ""  # what the last `submit` met, until something else is typed
        self._soon: Timer | None = None

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="form") as box:
            box.border_title = self.heading.replace("[", "\\[")
            box.border_subtitle = f"tab next field  ·  ^s {self.verb.lower()}  ·  esc cancel"
            with VerticalScroll(id="form-fields"):
                for question in self.questions:
                    with Horizontal(classes="field -flag" if question.flag else "field"):
                        yield Static(question.label, classes="label")
                        yield self._field(question)
                    yield Static(id=f"fault-{_ident(question.name)}", classes="fault", markup=False)
            if self.note:
                yield Static(self.note, classes="note", markup=False)
            yield Static(id="form-fault", markup=False)
            yield Static(id="form-line", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Cancel", id="no", compact=True)
                yield Button(self.verb, id="yes", variant="primary", compact=True)

    def _field(self, question: Question) -> Widget:
        ident = f"ask-{_ident(question.name)}"
        if question.flag:
            return Box(question.hint, bool(question.value), compact=True, id=ident)
        if question.choices:
            options = [(choice, choice) for choice in question.choices]
            value = question.value if question.value in question.choices else question.choices[0]
            return Pulldown(options, value=value, allow_blank=False, compact=True, id=ident)
        suggester: Suggester | None = None
        if question.path:
            from lxpy.tui.widgets.paths import LocalPaths

            suggester = LocalPaths()
        elif question.among:
            suggester = SuggestFromList(question.among)
        field = Field(self, question.value, placeholder=question.hint, id=ident, suggester=suggester)
        field.password = question.hidden
        return field

    def on_mount(self) -> None:
        self.query_one("#form-fault").display = False
        self.query_one("#form-line").display = self._line_of is not None
        for fault in self.query(".fault"):
            fault.display = False
        self.call_after_refresh(self._show_line)

    def answers(self) -> dict[str, str]:
        """What is in the fields now."""
        found: dict[str, str] = {}
        for question in self.questions:
            field = self.query_one(f"#ask-{_ident(question.name)}")
            if isinstance(field, Checkbox):
                found[question.name] = "yes" if field.value else ""
            else:
                found[question.name] = str(field.value).strip()  # type: ignore[attr-defined]
        return found

    def _show_line(self) -> None:
        if self._line_of is not None and self.is_attached:
            self.query_one("#form-line", Static).update(f"$ {self._line_of(self.answers())}")

    def on_input_changed(self, event: Input.Changed) -> None:
        self._changed(event.input)

    def on_select_changed(self, event: Select.Changed) -> None:
        self._changed(event.select)

    def on_checkbox_changed(self, event: Checkbox.Changed) -> None:
        self._changed(event.checkbox)

    def _changed(self, field: Widget) -> None:
        self._show_line()
        if self._check is None:
            return
        self._refused = ""
        self._typed.update(q.name for q in self.questions if field.id == f"ask-{_ident(q.name)}" and field.has_focus)
        if self._typed:
            if self._soon is not None:
                self._soon.stop()
            self._soon = self.set_timer(PAUSE_SECONDS, self._look_soon)

    def _look_soon(self) -> None:
        self.run_worker(self._look(), group="check", exclusive=True, exit_on_error=False)

    async def _look(self, whole: bool = False) -> bool:
        """Shows what is wrong, of what nobody has answered yet only when it is `whole`; whether nothing is."""
        assert self._check is not None
        if whole:  # from now on everything counts as answered
            self._typed.update(question.name for question in self.questions)
            self._tried = True
        answers = self.answers()
        try:
            faults = await self._check(answers)
        except Exception as error:
            faults = {"": explain(error)}
        if not self.is_attached or answers != self.answers():
            return not faults
        for question in self.questions:
            wrong = faults.get(question.name, "") if question.name in self._typed else ""
            line = self.query_one(f"#fault-{_ident(question.name)}", Static)
            line.display = bool(wrong)
            line.update(wrong)
            field = self.query_one(f"#ask-{_ident(question.name)}")
            if isinstance(field.parent, Widget):
                field.parent.set_class(bool(wrong), "-bad")
        rest = [text for name, text in faults.items() if name not in {q.name for q in self.questions}]
        general = self.query_one("#form-fault", Static)
        wrong = (rest[0] if rest and self._tried else "") or self._refused
        general.display = bool(wrong)
        general.update(wrong)
        return not faults

    def entered(self, field: Input) -> None:
        names = [f"ask-{_ident(q.name)}" for q in self.questions]
        if field.id == names[-1]:
            self.action_submit()
        else:
            self.focus_next()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "yes":
            self.action_submit()
        else:
            self.action_leave()

    @property
    def busy(self) -> bool:
        """Whether it is being done now."""
        return self._work is not None and not self._work.is_finished

    def action_leave(self) -> None:
        if self._work is not None and self.busy and self.interruptible:
            self._work.cancel()
        self.dismiss(None)

    def action_submit(self) -> None:
        if not self.busy:
            self._work = self.app.run_worker(self._do(), group="verbs", exit_on_error=False)

    async def _do(self) -> None:
        if self._check is not None and not (await self._look(whole=True) and self.is_attached):
            return
        answers = self.answers()
        fault, button = self.query_one("#form-fault", Static), self.query_one("#yes", Button)
        box = self.query_one("#form")
        fault.display, button.disabled, subtitle = False, True, box.border_subtitle
        box.border_subtitle = f"working …  ·  esc {'breaks it off' if self.interruptible else 'closes, it goes on'}"
        try:
            await self._submit(answers)
        except Exception as error:
            if self.open:
                fault.display, button.disabled, box.border_subtitle = True, False, subtitle
                self._refused = explain(error)
                fault.update(self._refused)
            else:  # it was closed meanwhile: that must not be lost
                self.app.notify(explain(error), title=self.heading, severity="error", timeout=12, markup=False)
        else:
            if self.open:
                self.dismiss(answers)


def _ident(name: str) -> str:
    """What widgets may be called for a question whose name is a key with dots."""
    return name.replace(".", "-")

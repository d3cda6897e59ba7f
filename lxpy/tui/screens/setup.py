"""The first set-up, question by question: those of ``lxpy init``, from `client.setup`, asked here."""

import textwrap
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Static

from lxpy.api.errors import ApiError
from lxpy.client import setup
from lxpy.tui.gateway import explain
from lxpy.tui.widgets.field import Field

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class SetupScreen(ModalScreen[bool]):
    """Answers True once the server is set up. Nothing is changed before the last answer.

    Args:
        facts: what the server said of itself.
    """

    BINDINGS = [
        Binding("escape", "leave", "Leave everything as it is", id="setup.cancel"),
        Binding("shift+tab", "back", "Question before", show=False, priority=True, id="setup.back"),
        Binding("up", "choose(-1)", "Answer before", show=False, priority=True, id="setup.up"),
        Binding("down", "choose(1)", "Next answer", show=False, priority=True, id="setup.down"),
        Binding("left", "sideways(-1)", "Answer before", show=False, priority=True, id="setup.previous"),
        Binding("right", "sideways(1)", "Next answer", show=False, priority=True, id="setup.next"),
        Binding("ctrl+s", "usual", "The usual answers for the rest", show=False, id="setup.usual"),
    ]

    def __init__(self, facts: setup.Facts, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.facts = facts
        self.answers: setup.Answers = {}
        self.past: list[setup.Question] = []  # answered, in order
        self.question: setup.Question | None = None  # None: what the answers come to is shown
        self._fault = ""
        self._busy = False

    @property
    def lxpy(self) -> "LxpyApp":
        return cast("LxpyApp", self.app)

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog", id="setup"):
            with VerticalScroll(id="setup-past"):
                yield Static(id="setup-answers")
            yield Static(id="setup-question")
            yield Field(self, id="setup-answer")
            yield Static(id="setup-choices")
            with VerticalScroll(id="setup-more", can_focus=False):
                yield Static(id="setup-explain", classes="note")
            yield Static(id="setup-fault", markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Back", id="setup-back", compact=True)
                yield Button("Usual answers for the rest", id="setup-usual", compact=True)
                yield Button("Next", id="setup-next", variant="primary", compact=True)

    def on_mount(self) -> None:
        self.query_one(Field).focus()
        self._ask()

    # Questions

    def _next(self, done: Collection[str], answers: setup.Answers) -> setup.Question | None:
        for question in setup.QUESTIONS:
            # What to print is the command line's question: here it is shown at the end anyway.
            if question.id not in done and question.id != "print" and question.asked(answers, self.facts):
                return question
        return None

    def _coming(self) -> int:
        """How many questions there will be if the rest gets its usual answers."""
        answers, done = dict(self.answers), {question.id for question in self.past}
        while (question := self._next(done, answers)) is not None:
            done.add(question.id)
            answers[question.id] = question.default(answers, self.facts)
        return len(done)

    def _ask(self) -> None:
        self.question = self._next({question.id for question in self.past}, self.answers)
        field = self.query_one(Field)
        if self.question is None:
            field.value = ""
            field.placeholder = "enter sets the server up like this"
        else:
            known = self.answers.get(self.question.id)
            field.value = known or self.question.default(self.answers, self.facts)
            field.placeholder = "an answer is needed here"
            field.action_select_all()  # typing takes its place
        self._show()

    def _offered(self) -> dict[str, str]:
        """The answers there are, with a word on each; none where any text may be one."""
        if self.question is None:
            return {}
        if self.question.choices is not None:
            return self.question.choices(self.facts)
        return {"yes": "", "no": ""} if self.question.boolean else {}

    def _show(self) -> None:
        past = [
            Content.assemble(("✔ ", "$success"), (f"{question.text} ", "$faint"), self.answers[question.id] or "–")
            for question in self.past
        ]
        self.query_one("#setup-answers", Static).update(Content("\n").join(past))
        self.query_one("#setup-past").display = self.question is not None  # at the end all of it is below
        self.query_one("#setup-past").scroll_end(animate=False)
        question, explain = self.query_one("#setup-question", Static), self.query_one("#setup-explain", Static)
        title = "Set up this server"
        if self.question is None:
            from lxpy.tui.screens.edit import dump

            question.update(Content.assemble(("This is what it will be", "bold")))
            explain.update(Content(dump(self._document())))
        else:
            question.update(Content.assemble((self.question.text, "bold")))
            explain.update(Content(self.question.explain))
            title += f"  [dim]{len(self.past) + 1} of {self._coming()}[/dim]"
        box = self.query_one("#setup")
        box.border_title = title
        if self.question is None:
            box.border_subtitle = "enter sets it up  ·  ↑↓ scroll  ·  shift+tab back  ·  esc leave"
        else:
            box.border_subtitle = "enter next  ·  ↑↓ other answer  ·  ^s the usual rest  ·  esc leave"
        self._show_choices()
        self.query_one("#setup-back", Button).disabled = not self.past
        self.query_one("#setup-usual").display = self.question is not None
        self.query_one("#setup-next", Button).label = "Next" if self.question is not None else "Set it up"
        fault = self.query_one("#setup-fault", Static)
        fault.display = bool(self._fault)
        fault.update(self._fault)

    def _show_choices(self) -> None:
        """The offered answers, a line each; a click takes one."""
        offered, chosen = self._offered(), self.query_one(Field).value
        longest = max(map(len, offered), default=0)
        room = max(20, self.query_one("#setup").size.width - longest - 6)
        lines = []
        for name, word in offered.items():
            mark = "[$accent]●[/]" if name == chosen else "[$faint]○[/]"
            first, *rest = textwrap.wrap(word, room) or [""]
            more = "".join(f"\n{'':<{longest + 4}}{line}" for line in rest)
            lines.append(
                f"[@click=screen.take({name!r})]{mark} {name}[/]{'':<{longest - len(name) + 2}}[$faint]{first}{more}[/]"
            )
        choices = self.query_one("#setup-choices", Static)
        choices.display = bool(lines)
        choices.update("\n".join(lines))

    def on_input_changed(self) -> None:
        self._show_choices()

    def entered(self, field: Input) -> None:
        if self._busy:
            return
        if self.question is None:
            self._busy = True
            self.app.run_worker(self._apply(), group="verbs", exit_on_error=False)
        elif self._take(field.value.strip()):
            self._ask()

    def _take(self, answer: str) -> bool:
        """Takes an answer to the question, or shows what is wrong with it."""
        assert self.question is not None
        try:
            default = self.question.default(self.answers, self.facts)
            answer = self.question.check(answer or default, self.answers, self.facts)
        except ApiError as error:
            self._fault = error.message
            self._show()
            return False
        self._fault = ""
        self.answers[self.question.id] = answer
        self.past.append(self.question)
        return True

    def action_usual(self) -> None:
        """The rest as a set-up that asks nothing answers it; then what it comes to."""
        taken = not self._busy and self.question is not None and self._take(self.query_one(Field).value.strip())
        while taken:
            self._ask()
            taken = self.question is not None and self._take("")

    def action_take(self, name: str) -> None:
        """A click on an answer."""
        field = self.query_one(Field)
        field.value = name
        field.focus()
        self.entered(field)

    def action_leave(self) -> None:
        if not self._busy:
            self.dismiss(False)

    def action_back(self) -> None:
        self.query_one(Field).focus()
        if self.past and not self._busy:
            self._fault = ""
            self.past.pop()
            # Answers after this one may not be asked for any more.
            kept = {question.id for question in self.past}
            known = dict(self.answers)
            self.answers = {name: answer for name, answer in self.answers.items() if name in kept}
            self._ask()
            if self.question is not None and self.question.id in known:
                self.query_one(Field).value = known[self.question.id]

    def action_choose(self, by: int) -> None:
        offered, field = list(self._offered()), self.query_one(Field)
        if offered:
            at = offered.index(field.value) if field.value in offered else -1
            field.value = offered[(at + by) % len(offered)]
            field.cursor_position = len(field.value)
        elif self.question is None:
            self.query_one("#setup-more").scroll_relative(y=by, animate=False)

    def action_sideways(self, by: int) -> None:
        field = self.query_one(Field)
        if self._offered():
            self.action_choose(by)
        elif by < 0:
            field.action_cursor_left()
        else:
            field.action_cursor_right()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        if event.button.id == "setup-back":
            self.action_back()
        elif event.button.id == "setup-usual":
            self.action_usual()
        else:
            self.entered(self.query_one(Field))
        self.query_one(Field).focus()

    # The end

    def _document(self) -> dict[str, Any]:
        return setup.preseed({"print": "no", **self.answers}, self.facts)

    async def _apply(self) -> None:
        body = {"preseed": self._document(), "raise_limits": self.answers.get("sysctls") == "yes"}
        self._fault = "setting up …"
        self._show()
        try:
            await self.lxpy.model.follow(await self.lxpy.gateway.call(lambda c: c.post("/1.0/preseed", body)))
        except Exception as error:
            self._fault = f"{explain(error)} (nothing was changed; Back goes back)"
            if self.is_mounted:
                self._show()
        else:
            if self.is_mounted:
                self.dismiss(True)
        finally:
            self._busy = False


def offer(app: "LxpyApp") -> None:
    """Opens the wizard with what the server says of itself."""

    async def work() -> None:
        try:
            facts = await app.gateway.call(cast("Any", setup.facts))
        except Exception as error:
            app.fail("Cannot set up", error)
            return
        if app.on_main:
            app.push_screen(SetupScreen(facts), done)

    def done(made: bool | None) -> None:
        if made:
            app.notify("Press n to launch the first instance", title="lxpy is ready", timeout=8)
            app.run_worker(app.model.reload(), group="verbs", exit_on_error=False)
        else:
            app.notify("n asks again, and so does `lxpy init`", title="Nothing was set up", markup=False)

    app.run_worker(work(), group="verbs", exit_on_error=False)

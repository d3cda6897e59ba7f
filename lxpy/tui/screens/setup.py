"""The first set-up, question by question: those of ``lxpy init``, from `client.setup`, asked here."""

from typing import TYPE_CHECKING, Any, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Input, Static

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
        Binding("escape", "dismiss(False)", "Leave everything as it is", id="setup.cancel"),
        Binding("up", "back", "Question before", show=False, priority=True, id="setup.back"),
        Binding("left", "choose(-1)", "Other answer", show=False, priority=True, id="setup.previous"),
        Binding("right", "choose(1)", "Other answer", show=False, priority=True, id="setup.next"),
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
        with Vertical(classes="dialog", id="setup") as box:
            box.border_title = "Set up this server"
            box.border_subtitle = "enter takes it  ·  ↑ back  ·  esc changes nothing"
            with VerticalScroll(id="setup-past"):
                yield Static(id="setup-answers")
            yield Static(id="setup-question")
            yield Field(self, id="setup-answer")
            yield Static(id="setup-explain", classes="note")
            yield Static(id="setup-fault", markup=False)

    def on_mount(self) -> None:
        self.query_one(Field).focus()
        self._ask()

    # Questions

    def _next(self) -> setup.Question | None:
        done = {question.id for question in self.past}
        for question in setup.QUESTIONS:
            # What to print is the command line's question: here it is shown at the end anyway.
            if question.id not in done and question.id != "print" and question.asked(self.answers, self.facts):
                return question
        return None

    def _ask(self) -> None:
        self.question = self._next()
        field = self.query_one(Field)
        if self.question is None:
            field.value = ""
            field.placeholder = "enter sets the server up like this"
        else:
            known = self.answers.get(self.question.id)
            field.value = known or self.question.default(self.answers, self.facts)
            field.placeholder = "an answer is needed here"
            field.cursor_position = len(field.value)
        self._show()

    def _offered(self) -> list[str]:
        if self.question is None:
            return []
        if self.question.choices is not None:
            return list(self.question.choices(self.facts))
        return ["yes", "no"] if self.question.boolean else []

    def _show(self) -> None:
        past = [
            Content.assemble((f"{question.text} ", "$faint"), (self.answers[question.id] or "–", "$success"))
            for question in self.past
        ]
        self.query_one("#setup-answers", Static).update(Content("\n").join(past))
        self.query_one("#setup-past").scroll_end(animate=False)
        question, explain = self.query_one("#setup-question", Static), self.query_one("#setup-explain", Static)
        if self.question is None:
            from lxpy.tui.screens.edit import dump

            question.update(Content.assemble(("This is what it will be", "bold")))
            explain.update(Content(dump(self._document())))
        else:
            question.update(Content.assemble((self.question.text, "bold")))
            lines: list[Any] = [self.question.explain]
            if self.question.choices is not None:
                for name, word in self.question.choices(self.facts).items():
                    lines.append(Content.assemble((f"{name:<9}", "$accent"), word))
            if self._offered():
                lines.append(Content.assemble(("← → ", "$accent"), "other answers"))
            explain.update(Content("\n").join(Content(one) if isinstance(one, str) else one for one in lines))
        fault = self.query_one("#setup-fault", Static)
        fault.display = bool(self._fault)
        fault.update(self._fault)

    def entered(self, field: Input) -> None:
        if self._busy:
            return
        if self.question is None:
            self._busy = True
            self.app.run_worker(self._apply(), group="verbs", exit_on_error=False)
            return
        default = self.question.default(self.answers, self.facts)
        try:
            answer = self.question.check(field.value.strip() or default, self.answers, self.facts)
        except ApiError as error:
            self._fault = error.message
            self._show()
            return
        self._fault = ""
        self.answers[self.question.id] = answer
        self.past.append(self.question)
        self._ask()

    def action_back(self) -> None:
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
        offered, field = self._offered(), self.query_one(Field)
        if offered:
            at = offered.index(field.value) if field.value in offered else -1
            field.value = offered[(at + by) % len(offered)]
            field.cursor_position = len(field.value)
        elif by < 0:
            field.action_cursor_left()
        else:
            field.action_cursor_right()

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
            self._fault = f"{explain(error)} (nothing was changed; ↑ goes back)"
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

    app.run_worker(work(), group="verbs", exit_on_error=False)

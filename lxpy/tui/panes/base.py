"""What the numbered panes have in common: a title with its number, a filter, counts, an empty state."""

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from rich.cells import cell_len
from textual.binding import Binding

from lxpy.tui.rows import matcher
from lxpy.tui.widgets.links import Titled, by_mouse
from lxpy.tui.widgets.table import Column, Part, Table


class ListPane(Titled, Table):
    """A numbered pane: a table of one kind of object.

    Attributes:
        number: the digit that focuses it, shown in its title.
        kind: what its objects are called, plural, as in the API's paths.
        heading, short: the same for people, where it differs; in a row of many.
    """

    number: ClassVar[int] = 0
    kind: ClassVar[str] = ""
    heading: ClassVar[str] = ""
    short: ClassVar[str] = ""
    HINT: ClassVar[str] = "text  state:running  image:debian  key=value  ~regex  !not"  # in the empty filter line
    BINDINGS = [
        # With priority: handled before the next key is looked at, so that none typed ahead of the bar is lost.
        Binding("slash", "app.filter", "Filter", key_display="/", id="pane.filter", priority=True),
        Binding("O", "order", "Sort by …", show=False, id="pane.sort"),
        Binding("escape", "back", "Clear filter and marks", show=False, id="pane.back"),
    ]

    def __init__(self, columns: list[Column], **kwargs: Any) -> None:
        super().__init__(columns, **kwargs)
        self.all_columns = self.columns
        self.query_text = ""
        self.all_rows: list[Any] = []
        self.others: list[tuple[int, str]] = []
        self._goal = ""  # what the cursor goes to as soon as it is there
        self.retitle()

    @property
    def called(self) -> str:
        """Its heading."""
        return self.heading or self.kind.capitalize()

    def fill(self, rows: list[Any]) -> None:
        """Takes all rows; shows those that the filter lets through."""
        self.all_rows = rows
        test = self.test()
        shown = [row for row in rows if test(row)] if test else rows
        if not shown:
            self.empty = self.nothing()
        self.show(shown)
        if self._goal and any(row.key == self._goal for row in rows):
            self.go_to(self._goal)
        self.retitle()

    def go_to(self, key: str) -> None:
        """Puts the cursor on a row, now or when it has been read; a filter that hides it stays."""
        place = next((i for i, row in enumerate(self.rows) if row.key == key), -1)
        self._goal = "" if any(row.key == key for row in self.all_rows) else key
        if place >= 0:
            self.action_to(place)

    def test(self) -> Callable[[Any], bool] | None:
        """Which rows the filter lets through; None for all."""
        return matcher(self.query_text) if self.query_text else None

    def completed(self, text: str) -> str:
        """A query that is being typed with its last word completed, "" where nothing is known."""
        return ""

    def choose_columns(self, keys: Sequence[str]) -> None:
        """Only these, in this order, as long as they fit; none for all."""
        known = {column.key: column for column in self.all_columns}
        self.columns = tuple(known[key] for key in keys if key in known) or self.all_columns
        if self.is_mounted:
            self.fill(self.all_rows)

    def sort_of(self, column: Column) -> Callable[[Any], Any] | None:
        # Every column can be sorted by: where nothing else is said, by what it shows.
        if column.sort is not None or not column.title:
            return column.sort
        return lambda row: "".join(text for text, _ in column.cells(row, column.most or 40)).lower()

    def action_order(self) -> None:
        """Asks for the column to sort by; the one that is chosen turns round when it is chosen again."""
        from lxpy.tui.screens.choose import Choice, Choose

        def about(column: Column) -> str:
            if column.key != self.sort_key:
                return " "
            return "now, turned round" if self.descending else "now"

        choices = [Choice(c.title, c.key, about(c)) for c in self.columns if self.sort_of(c) is not None]
        self.app.push_screen(
            Choose(f"Sort {self.called.lower()} by", choices), lambda key: self.sort_by(key) if key else None
        )

    def filter(self, query: str) -> None:
        """Shows only the rows that `query` matches; ``""`` shows all."""
        self.query_text = query.strip()
        self.fill(self.all_rows)

    def nothing(self) -> list[tuple[Part, ...]]:
        """The lines of the empty pane: what to do next."""
        if self.query_text:
            return [
                (("Nothing matches ", "dim"), (self.query_text, "accent")),
                (("esc", "strong"), (" clears the filter", "dim")),
            ]
        return self.nothing_yet()

    def nothing_yet(self) -> list[tuple[Part, ...]]:
        return [((f"No {self.kind}", "dim"),)]

    def action_back(self) -> None:
        if self.query_text:
            self.filter("")
        elif self.marks:
            self.action_unmark()
        else:
            close = getattr(self.screen, "action_close_detail", None)
            if close is not None:
                close()

    def focus_on_click(self) -> bool:
        # With the keyboard it becomes wider, so that something else would be under the mouse when it is let go.
        return "@click" not in self.screen.get_style_at(*self.app.mouse_position).meta

    def on_resize(self) -> None:
        self.retitle()

    def action_mark(self) -> None:
        super().action_mark()
        self.retitle()

    def remark(self) -> None:
        super().remark()
        self.retitle()

    def everything(self) -> list[Any]:
        # Marks outlive a filter: what it hides stays marked, and the title says so.
        shown = {row.key for row in self.rows}
        return [*self.rows, *(row for row in self.all_rows if row.key not in shown)]

    def action_to(self, index: int) -> None:
        super().action_to(index)
        self._tell()

    def retitle(self) -> None:
        """Draws the title: number and kind among the panes folded away behind this one, all in their order."""
        self.entitle(self._strip() if self.others else f"[b]{self.number} {self.called}[/b]")
        self._tell()

    def _tell(self) -> None:
        """Says at the bottom what is marked, what filters, and where in how many the cursor is."""
        total, shown = len(self.all_rows), len(self.rows)
        notes = []
        if self.marks:
            hidden = len(self.marks - {row.key for row in self.rows})
            notes.append(f"{len(self.marks)} marked" + (f", {hidden} of them not shown" if hidden else ""))
        if self.query_text:
            text = self.query_text.replace("[", "\\[")
            notes.append(f"/{text}")
        if total:
            place = f"{min(self.cursor + 1, shown)} of {shown}" + (f", {total} in all" if shown != total else "")
            notes.append(place)
        room = max(self.size.width, 30) - 4 - sum(2 + cell_len(note) for note in notes)
        if total:
            notes[-1] = f"[$faint]{notes[-1]}[/]"
        if more := self.aside(room):
            notes.append(more)
        self.entitle(None, "  ".join(notes))

    def aside(self, room: int) -> str:
        """What else stands at the bottom, `room` cells wide."""
        return ""

    def _strip(self) -> str:
        """This pane's title among those of the others; shorter, or theirs as numbers, where there is less room."""
        room = max(self.size.width, 30) - 4
        short = self.short or self.called
        for own, most in ((self.called, 99), (short, 99), (self.called, 4), (short, 4)):
            names = {number: name[:most] for number, name in self.others} | {self.number: own}
            if sum(2 + cell_len(name) for name in names.values()) + 2 * len(self.others) <= room:
                return "  ".join(self._link(number, names[number]) for number in sorted(names))
        numbers = " ".join(self._link(number) for number, _ in self.others)
        return f"{self._link(self.number, self.called)} [dim]·[/dim] {numbers}"

    def _link(self, number: int, name: str = "") -> str:
        if number == self.number:
            return f"[b]{number} {name}[/b]"
        return by_mouse(f"pane_at({number})", f"[dim]{f'{number} {name}'.rstrip()}[/dim]")

"""What the tabs of the detail area have in common."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual.containers import Vertical
from textual.widget import Widget

from lxpy.tui.rows import InstanceRow

if TYPE_CHECKING:
    from lxpy.tui.app import LxpyApp


class Tab(Vertical):
    """One tab.

    Attributes:
        subject: the selected object, a row of one of the panes; None for none.
        seen: whether the user sees this tab now.
        fresh: whether `subject` has been read anew since the last `update`: the object may have changed.
    """

    TITLE: ClassVar[str] = ""
    TYPED_INTO: ClassVar[bool] = False  # whether a program inside takes the keys

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.subject: Any = None
        self.seen = self.fresh = False
        self._wanted: Callable[[], Awaitable[None]] | None = None
        self._working = False

    @classmethod
    def fits(cls, subject: Any) -> bool:
        """Whether there is anything to show of such an object; by default of instances."""
        return isinstance(subject, InstanceRow)

    def belongs(self, subject: Any) -> bool:
        """Whether this tab is among those of such an object."""
        return self.fits(subject)

    def is_orphan(self) -> bool:
        """Whether it is of an object that is gone, and has no use without it."""
        return False

    @property
    def title(self) -> str:
        """As it stands in the border."""
        return self.TITLE

    @property
    def lxpy(self) -> "LxpyApp":
        """The app, with its model and its way to the daemon."""
        return cast("LxpyApp", self.app)

    def tell(self, subject: Any, seen: bool) -> None:
        """The selection, or the tab that is seen, has changed; or the object itself. Called by the detail area."""
        other = getattr(subject, "key", None) != getattr(self.subject, "key", None)
        came = seen and not self.seen
        self.fresh = subject is not self.subject
        self.subject, self.seen = subject, seen
        if seen or other:
            self.update(other=other, came=came)

    def update(self, *, other: bool, came: bool) -> None:
        """Show `subject`.

        Args:
            other: it is another object than before.
            came: the tab was not seen before.
        """

    def tick(self) -> None:
        """Every two seconds while it is seen and the daemon answers: for what no event tells."""

    def soon(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does `work`, which asks the daemon. What is wanted meanwhile is done once more when it has ended."""
        self._wanted = work
        if not self._working:
            self._working = True
            self.run_worker(self._work(), group="tab", exit_on_error=False)

    async def _work(self) -> None:
        try:
            while (work := self._wanted) is not None:
                self._wanted = None
                await work()
        finally:
            self._working = False

    def inside(self) -> Widget:
        """What takes the keyboard."""
        return self

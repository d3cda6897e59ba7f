"""Words in a border, some of which can be clicked."""

from textual.widget import Widget

BY_MOUSE = ("tab_at", "pane_at", "back_at", "zoom_at")
"""Actions of the main screen that no key has: they are done even while all keys belong to a shell."""


def by_mouse(action: str, markup: str) -> str:
    """`markup` that does `action`, one of `BY_MOUSE`, when it is clicked."""
    return f"[@click=screen.{action}]{markup}[/]"


def entitle(widget: Widget, title: str | None, subtitle: str | None = None) -> None:
    """Sets the markup of the upper and the lower border, unless None, if it is another: either redraws it all."""
    before = getattr(widget, "_entitled", ("", ""))
    if title is not None and title != before[0]:
        widget.border_title = title
    if subtitle is not None and subtitle != before[1]:
        widget.border_subtitle = subtitle
    after = (before[0] if title is None else title, before[1] if subtitle is None else subtitle)
    widget._entitled = after  # type: ignore[attr-defined]

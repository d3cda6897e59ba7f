"""Words in a border that can be clicked."""

BY_MOUSE = ("tab_at", "pane_at", "back_at", "zoom_at")
"""Actions of the main screen that no key has: they are done even while all keys belong to a shell."""


def by_mouse(action: str, markup: str) -> str:
    """`markup` that does `action`, one of `BY_MOUSE`, when it is clicked."""
    return f"[@click=screen.{action}]{markup}[/]"

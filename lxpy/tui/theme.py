"""The app's own looks: a dark and a light theme, and one for terminals of 16 colours or none."""

from textual.color import Color
from textual.theme import Theme

LXPY_DARK = Theme(
    name="lxpy-dark",
    primary="#7aa2f7",
    secondary="#9d8cd6",
    accent="#e0af68",
    success="#8cc570",
    warning="#e0af68",
    error="#f0707e",
    foreground="#c8d0e0",
    background="#14161d",
    surface="#191c25",
    panel="#232734",
    boost="#2a2f3e",
    dark=True,
    variables={"line": "#343a4c", "line-focus": "#7aa2f7", "faint": "#6f7890", "row": "#2b3650", "info": "#7dcfff"},
)

LXPY_LIGHT = Theme(
    name="lxpy-light",
    primary="#2f5fd0",
    secondary="#6b4fc0",
    accent="#a86400",
    success="#2f7d32",
    warning="#a86400",
    error="#c62f3d",
    foreground="#262b38",
    background="#f7f8fb",
    surface="#ffffff",
    panel="#e8ebf2",
    boost="#dfe4ee",
    dark=False,
    variables={"line": "#c4cad8", "line-focus": "#2f5fd0", "faint": "#737b90", "row": "#d8e3fb", "info": "#0b7285"},
)

# The terminal's own 16 colours, so that a user's palette is respected and nothing is approximated.
LXPY_ANSI = Theme(
    name="lxpy-16",
    ansi=True,
    primary="ansi_blue",
    secondary="ansi_magenta",
    accent="ansi_yellow",
    success="ansi_green",
    warning="ansi_yellow",
    error="ansi_red",
    foreground="ansi_default",
    background="ansi_default",
    surface="ansi_default",
    panel="ansi_default",
    boost="ansi_default",
    dark=True,
    variables={
        "line": "ansi_bright_black", "line-focus": "ansi_cyan", "faint": "ansi_bright_black", "row": "ansi_blue",
        "info": "ansi_cyan", "ansi-background": "ansi_black", "ansi-foreground": "ansi_white",
        "block-cursor-foreground": "ansi_bright_white", "block-cursor-background": "ansi_blue",
        "block-hover-background": "ansi_blue", "input-cursor-foreground": "ansi_black",
        "input-cursor-background": "ansi_white", "input-selection-foreground": "ansi_black",
        "input-selection-background": "ansi_cyan", "screen-selection-foreground": "ansi_black",
        "screen-selection-background": "ansi_cyan",
    },
)  # fmt: skip

THEMES = (LXPY_DARK, LXPY_LIGHT, LXPY_ANSI)


def derived(theme: Theme) -> dict[str, str]:
    """Our own variables for a theme of others, which has none of them: made of its colours."""
    if theme.ansi:
        return dict(LXPY_ANSI.variables)
    colours = theme.to_color_system().generate()
    background, foreground, primary = (Color.parse(colours[name]) for name in ("background", "foreground", "primary"))
    return {
        "line": background.blend(foreground, 0.2).hex6,
        "line-focus": primary.hex6,
        "faint": background.blend(foreground, 0.55).hex6,
        "row": background.blend(primary, 0.3).hex6,
        "info": primary.blend(foreground, 0.4).hex6,
    }

"""The user's own editor, on the whole terminal."""

import os
import shlex
import subprocess
import tempfile
from typing import Any

from lxpy.tui.gateway import explain


def in_editor(app: Any, text: str, suffix: str) -> tuple[str | None, str]:
    """Lets the user edit `text` in ``$VISUAL`` or ``$EDITOR`` (vi where neither is set).

    Returns:
        The new text, None when there is none; and what went wrong, "" for nothing.
    """
    if app.is_web:
        return None, "In a browser there is no terminal for another editor: use `lxpy tui` in one for that"
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi")
    try:
        with tempfile.NamedTemporaryFile("w", suffix=suffix, prefix="lxpy-", delete=False, encoding="utf-8") as file:
            file.write(text)
        try:
            with app.suspend(), app.model.paused():
                # Nothing may leave this block as an exception: `suspend` would not resume the app.
                fault = _run([*command, file.name])
            if fault:
                return None, fault
            with open(file.name, encoding="utf-8") as edited:
                return edited.read(), ""
        finally:
            os.unlink(file.name)
    except Exception as error:  # terminals that cannot suspend; no text
        return None, explain(error) or f"{type(error).__name__}"


def _run(command: list[str]) -> str:
    try:
        status = subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        return f"{command[0]} is not installed: set EDITOR to the editor you use"
    except Exception as error:
        return explain(error)
    return f"{command[0]} ended with status {status}: nothing was taken over" if status else ""

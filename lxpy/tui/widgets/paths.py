"""Completion of paths of this machine, as a shell has it."""

import asyncio
import os

from textual.suggester import Suggester


class LocalPaths(Suggester):
    """Offers the first entry of a directory that goes on as what was typed; directories end in a slash."""

    def __init__(self) -> None:
        super().__init__(use_cache=False, case_sensitive=True)  # files come and go

    async def get_suggestion(self, value: str) -> str | None:
        return await asyncio.to_thread(completed, value)


def completed(value: str) -> str | None:
    """`value` gone on with, None where nothing there begins so, or it is whole."""
    folder, name = os.path.split(value)
    if not value or name in (".", ".."):
        return None
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:
            found = sorted(
                (entry.name + ("/" if entry.is_dir() else ""))
                for entry in entries
                if entry.name.startswith(name) and (name or not entry.name.startswith("."))
            )
    except OSError:
        return None
    return value[: len(value) - len(name)] + found[0] if found and found[0] != name else None

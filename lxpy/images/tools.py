"""Running a builder's programs: walled in, watched, and gone when the build is cancelled."""

import asyncio
import collections
import os
import shutil
import signal
from collections.abc import Callable

from lxpy.api.errors import InternalError, Unavailable

# Mounts and processes of a build live in namespaces of their own: killing the one process we know ends them all.
WALLS = ["unshare", "--mount", "--propagation", "private", "--pid", "--mount-proc", "--fork", "--kill-child=SIGKILL"]
_LAST_LINES = 6


def need(program: str, package: str, doing: str) -> str:
    """The path of a program, or `Unavailable` saying which package has it."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise Unavailable(f"{doing} needs {program}: install the package {package}")
    return found


async def run(
    doing: str, command: list[str], environment: dict[str, str] | None = None, line: Callable[[str], None] | None = None
) -> str:
    """Runs a program to its end and returns its output (of both kinds, its last 64 KiB).

    Args:
        doing: for the error: "Building debian/12".
        line: called with each line as it comes.

    Raises:
        InternalError: it failed; the message has its last lines.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
        | (environment or {}),
        start_new_session=True,
        limit=1 << 20,
    )
    output: collections.deque[str] = collections.deque(maxlen=2000)
    try:
        assert process.stdout is not None
        async for raw in process.stdout:
            text = raw.decode(errors="replace").rstrip()
            output.append(text)
            if line and text:
                line(text)
        status = await process.wait()
    finally:
        if process.returncode is None:
            # Not yet waited for, so the group's number is still its own.
            os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())
    if status:
        last = " | ".join([text.strip() for text in output if text.strip()][-_LAST_LINES:])
        raise InternalError(f"{doing}: {os.path.basename(command[0])} failed ({status}): {last or 'it said nothing'}")
    return "\n".join(output)

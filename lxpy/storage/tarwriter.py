"""Writing tar archives of whole trees: ``find`` names the files, ``tar`` reads them, a compressor makes them small.

No byte of a file passes through the interpreter. The trees are given by descriptor, so that it does not matter where
they are mounted. Small files of our own (an index, metadata) stand first; their headers are written here.
"""

import asyncio
import contextlib
import errno
import io
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import BinaryIO

from lxpy.api.errors import InternalError
from lxpy.storage import compression
from lxpy.storage.trees import finish

# pax, without what changes from one run to the next (process numbers, access times): equal trees, equal archives.
_TAR = [
    "tar", "--create", "--file=-", "--format=posix", "--sparse", "--numeric-owner", "--no-acls", "--xattrs",
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
    "--xattrs-include=security.capability", "--xattrs-include=system.posix_acl_*", "--xattrs-include=user.*",
    "--xattrs-exclude=user.overlay.*",
    "--no-recursion", "--absolute-names", "--null", "--no-unquote", "--verbatim-files-from",
]  # fmt: skip
_TELL_EVERY = 0.5  # seconds
_SAID = 1 << 16  # bytes looked at, from the beginning and from the end, of what a program has said


@dataclass(frozen=True)
class Tree:
    """A directory with all below it.

    Attributes:
        fd: of the directory; readable until the archive is written.
        place: where it goes in the archive, without slashes around it.
    """

    fd: int
    place: str


@dataclass(frozen=True)
class File:
    """A small file of our own, root's; a directory when `content` is None."""

    place: str
    content: bytes | None
    mode: int = 0o644


async def write(
    what: str,
    files: list[File],
    trees: list[Tree],
    output: int,
    compress: str,
    tell: Callable[[int], None] = lambda size: None,
    *,
    devices: bool = False,
) -> None:
    """Write an archive of `files` and then `trees` to the descriptor `output` (a file or a pipe).

    When cancelled it is over at once: the programs are killed.

    Args:
        what: begins the error messages, as ``Export instance c1``.
        compress: see `compression.check`.
        tell: called now and then, with the bytes that have come to a file.
        devices: whether device nodes go with the trees.

    Raises:
        Unavailable: a program is missing. OSError: no space left.
        InternalError: a file could not be read.
    """
    command = compression.command(compress, what)
    head = _head(files)
    with contextlib.ExitStack() as stack:
        works: list[_Work] = []
        stack.callback(_end, works)
        await finish(asyncio.to_thread(_start, works, command, head, trees, devices, output))
        for work in works:
            await _ended(work.process, output, tell)
    failed = [work for work in works if work.process.returncode]
    for work in failed:
        if work.process.returncode != -signal.SIGPIPE:  # of another that has failed, and says why
            raise _reason(what, work)
    if failed:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class _Work:
    """A program and what it says on standard error."""

    def __init__(self, words: list[str], stdin: "int | BinaryIO", stdout: "int | BinaryIO", fds: Iterable[int]) -> None:
        self.name, self.text = words[0], ""
        self.said = os.memfd_create("said", os.MFD_CLOEXEC)
        try:
            self.process = subprocess.Popen(
                words, stdin=stdin, stdout=stdout, stderr=self.said, pass_fds=tuple(fds), cwd="/",
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )  # fmt: skip
        except BaseException:
            os.close(self.said)
            raise


def _start(works: list[_Work], command: list[str], head: bytes, trees: list[Tree], devices: bool, output: int) -> None:
    """Begin; what has been started is in `works` in any case. Blocks while `head` is written."""
    with contextlib.ExitStack() as stack:
        sink = output
        if command:
            inlet, sink = os.pipe()
            stack.callback(os.close, sink)
            try:
                works.append(_Work(command, inlet, output, ()))
            finally:
                os.close(inlet)
        view = memoryview(head)
        while view:
            view = view[os.write(sink, view) :]
        if not trees:
            os.write(sink, bytes(1024))
            return
        fds = [tree.fd for tree in trees]
        # Sockets mean nothing in an archive.
        find = ["find", *(f"/proc/self/fd/{fd}/." for fd in fds), "!", "-type", "s" if devices else "s,b,c", "-print0"]
        listing, names = os.pipe()
        try:
            works.append(_Work([*_TAR, *map(_transform, trees), "--files-from=-"], listing, sink, fds))
            works.append(_Work(find, subprocess.DEVNULL, names, fds))
        finally:
            os.close(names)
            os.close(listing)


def _transform(tree: Tree) -> str:
    # r and h: names of members and of what hard links mean; what symbolic links hold is none of our business.
    place = tree.place.replace("\\", "\\\\").replace("&", "\\&").replace(",", "\\,")
    return f"--transform=flags=rhS;s,^/proc/self/fd/{tree.fd}/\\.,{place},"


async def _ended(process: "subprocess.Popen[bytes]", output: int, tell: Callable[[int], None]) -> None:
    """Returns when a process has ended. No thread waits for it meanwhile: it may take hours."""
    loop = asyncio.get_running_loop()
    fd = os.pidfd_open(process.pid)
    try:
        over = asyncio.Event()
        loop.add_reader(fd, over.set)
        try:
            while not over.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(over.wait(), _TELL_EVERY)
                tell(os.fstat(output).st_size)
        finally:
            loop.remove_reader(fd)
    finally:
        os.close(fd)
    process.wait()


def _end(works: list[_Work]) -> None:
    for work in works:
        if work.process.poll() is None:
            work.process.kill()
            work.process.wait()
        if work.said >= 0:
            work.text = _complaint(work.said)
            os.close(work.said)
            work.said = -1


def _complaint(fd: int) -> str:
    """The line that matters: tar warns of every file whose file system has no attributes, then says that it ends."""
    size = os.fstat(fd).st_size
    for start in (max(0, size - _SAID), 0):
        for line in os.pread(fd, _SAID, start).decode(errors="replace").splitlines():
            if (
                line.strip()
                and ": Warning: " not in line
                and "Exiting with failure" not in line
                and "exiting now" not in line
            ):
                return line.strip()
    return ""


def _reason(what: str, work: _Work) -> Exception:
    for number, said in ((errno.EDQUOT, os.strerror(errno.EDQUOT)), (errno.ENOSPC, os.strerror(errno.ENOSPC)),
                         (errno.ENOSPC, "Wrote only")):  # fmt: skip
        if said in work.text:
            return OSError(number, os.strerror(number))
    line = work.text or f"ended with status {work.process.returncode}"
    return InternalError(f"{what}: {work.name}: {line.removeprefix(f'{work.name}: ')}")


def _head(files: list[File]) -> bytes:
    import tarfile  # not for a daemon that never exports

    out = io.BytesIO()
    moment = int(time.time())
    for file in files:
        info = tarfile.TarInfo(file.place)
        info.mode, info.mtime = file.mode, moment
        if file.content is None:
            info.type = tarfile.DIRTYPE
        info.size = len(file.content or b"")
        out.write(info.tobuf(tarfile.PAX_FORMAT))
        out.write(file.content or b"")
        out.write(bytes(-info.size % 512))
    return out.getvalue()

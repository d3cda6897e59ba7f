"""Reading a backup's tarball as it comes in: LXD's layout, of an instance or of a custom volume.

``backup/index.yaml`` says what it is and stands first. Then come trees, each below a directory of its own, and beside
them a few small files. Nobody has vouched for any of it: see `unpack`. Everything here blocks.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from lxpy.api.errors import BadRequest
from lxpy.storage import tarstream, unpack
from lxpy.storage.owners import Owners
from lxpy.storage.tarstream import Member, TarError, TarStream

INDEX = b"backup/index.yaml"
_INDEX_LIMIT = 4 << 20
_SMALL_LIMIT = 1 << 20  # bytes of a file that is read into memory, and of all of them
_SMALL_IN_ALL = 16 << 20


class BackupReader:
    """Goes through an archive once: `tree` says what comes next, `fill` unpacks it, until there is nothing more.

    Args:
        source, start: see `unpack.plain`.
        what: begins the error messages.
        trees: the directories below which there are trees; ``*`` stands for any name.

    Attributes:
        index: the document of ``index.yaml``, once `begin` has returned.
        small: files outside the trees by their path below ``backup/``: metadata, templates.
    """

    def __init__(self, source: int, start: bytes, what: str, trees: tuple[str, ...]) -> None:
        self._source, self._begins, self._what = source, start, what
        self._trees = [os.fsencode(tree).split(b"/") for tree in trees]
        self._stack = contextlib.ExitStack()
        self._members: Iterator[Member] = iter(())
        self._next: Member | None = None
        self._here = ""
        self._done: set[str] = set()
        self.index: dict[str, Any] = {}
        self.small: dict[str, bytes] = {}

    def begin(self) -> None:
        """Reads the index.

        Raises:
            BadRequest: there is none where it has to be, or it is damaged.
        """
        read = self._stack.enter_context(unpack.plain(self._source, self._begins, self._what))
        self._stream = TarStream(read)
        self._members = iter(self._stream)
        with self._damage(": it is no backup"):
            for member in self._members:
                name = _normal(member.name)
                if name == INDEX and member.kind == tarstream.REGULAR:
                    self.index = self._parsed(self._content(member, _INDEX_LIMIT))
                    return
                if name not in (b"", b"backup"):
                    raise self.fault("it does not begin with backup/index.yaml: it is no backup")
        raise self.fault("it has no backup/index.yaml: it is no backup")

    def tree(self) -> str:
        """The directory of the tree that comes next, "" after the last.

        Raises:
            BadRequest: the archive is damaged, or ends in the middle.
        """
        with self._damage():
            while (member := self._advance()) is not None:
                if place := self._tree_of(member):
                    if place in self._done:
                        raise self.fault(f"{place} comes twice")
                    self._here = place
                    return place
                self._next = None
                self._keep(member)
            self._stream.drain()
        # The decompressor says here if it was not content.
        self._stack.close()
        return ""

    def fill(self, target: str, owners: Owners | None) -> None:
        """Unpacks the tree that `tree` has named into an empty directory."""
        place = self._here
        self._done.add(place)
        with unpack.Tree(target, self._what, place, owners) as tree, self._damage():
            while (member := self._advance()) is not None and self._tree_of(member) == place:
                self._next = None
                tree.add(member, self._stream)
            tree.finish()

    def files(self, directory: str) -> dict[str, bytes]:
        """The small files below a directory, by their path there."""
        start = f"{directory}/"
        return {name[len(start) :]: data for name, data in self.small.items() if name.startswith(start)}

    def close(self) -> None:
        """Ends the decompressor; what it would say of an unfinished archive is of no interest any more."""
        self._end(_AbandonedError())

    def fault(self, why: str) -> BadRequest:
        return BadRequest(f"{self._what}: {why}")

    def _advance(self) -> Member | None:
        if self._next is None:
            self._next = next(self._members, None)
        return self._next

    def _tree_of(self, member: Member) -> str:
        parts = _normal(member.name).split(b"/")
        for tree in self._trees:
            if len(parts) >= len(tree) and all(w in (b"*", p) for w, p in zip(tree, parts, strict=False)):
                return os.fsdecode(b"/".join(parts[: len(tree)]))
        return ""

    def _keep(self, member: Member) -> None:
        name = os.fsdecode(_normal(member.name))
        if member.kind != tarstream.REGULAR or not name.startswith("backup/"):
            return
        if name.endswith(".bin"):
            raise self.fault(f"{name} is in the format of a storage driver (optimized), which is not expected here")
        if name.endswith("/metadata.yaml") or "/templates/" in name:
            if len(self.small) > 4096 or sum(map(len, self.small.values())) > _SMALL_IN_ALL:
                raise self.fault("it has too many templates")
            self.small[name] = self._content(member, _SMALL_LIMIT)

    def _content(self, member: Member, limit: int) -> bytes:
        if member.size > limit or member.sparse is not None:
            raise self.fault(f"{os.fsdecode(member.name[:200])} is longer than {limit} bytes")
        data = bytearray()

        def take(part: memoryview) -> int:
            data.extend(part)
            return len(part)

        self._stream.copy(member, take, lambda offset: None)
        return bytes(data)

    def _parsed(self, text: bytes) -> dict[str, Any]:
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            # Aliases could unfold a kilobyte into gigabytes; no writer of an index uses them.
            if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=loader)):
                raise self.fault("its index.yaml uses YAML aliases, which are not accepted")
            found = yaml.load(text, Loader=loader)
        except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise self.fault(f"its index.yaml cannot be read: {problem}") from None
        if not isinstance(found, dict):
            raise self.fault("its index.yaml is no mapping")
        return found

    @contextlib.contextmanager
    def _damage(self, more: str = "") -> Iterator[None]:
        try:
            yield
        except TarError as error:
            fault = self.fault(f"{error}{more}")
            self._end(fault)  # the decompressor may know better
            raise fault from None

    def _end(self, error: Exception) -> None:
        stack, self._stack = self._stack, contextlib.ExitStack()
        with contextlib.suppress(_AbandonedError):
            stack.__exit__(type(error), error, None)


class _AbandonedError(Exception):
    """Nobody wants the rest."""


def _normal(name: bytes) -> bytes:
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))

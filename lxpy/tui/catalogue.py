"""What remotes offer: their lists of images as rows, read when somebody looks at them and kept while the app runs.

An image server's list comes from the daemon, which reads it (and keeps it for an hour); that of another server comes
from there. A list that does not come in time is given up with the reason: nothing waits for it.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lxpy.api.errors import Unavailable
from lxpy.api.status import FINAL
from lxpy.tui.gateway import ClientLike, Gateway, RemoteInfo, explain
from lxpy.tui.rows import ImageRow, image_facts, matcher, named

if TYPE_CHECKING:
    from textual.worker import Worker

PATIENCE = 30.0  # seconds that a list may take
# What may be chosen of a catalogue, by the filter language's name: what people call it, and the key that asks.
CHOICES: dict[str, tuple[str, str]] = {
    "os": ("distribution", "D"), "release": ("release", "R"), "variant": ("variant", "V"), "arch": ("arch", "A"),
    "versions": ("versions", "O"),
}  # fmt: skip


class CatalogueRow(ImageRow):
    """One image of a remote.

    Attributes:
        arch: the architecture as people say it (``amd64``); `architecture` is the kernel's name.
        foreign: whether the alias alone means another architecture's image.
        newest: whether no newer version of the same is there; an image server's older ones have no alias.
        facts: what the filter language knows, by field; `text` is what plain words search.
        order: sorts by distribution, newest release first.
    """

    __slots__ = ("arch", "date", "facts", "foreign", "newest", "order", "os", "release", "text", "type", "variant")

    def __init__(self, raw: dict[str, Any], remote: str) -> None:
        super().__init__(raw, remote)
        properties = raw.get("properties") or {}
        self.os = str(properties.get("os") or "")
        self.release = str(properties.get("release") or "")
        self.variant = str(properties.get("variant") or "")
        self.arch = str(properties.get("architecture") or self.architecture)
        self.type = str(raw.get("type") or "container")
        self.date = time.strftime("%Y-%m-%d", time.gmtime(self.created)) if self.created else ""
        self.foreign, self.newest = False, True
        self.facts = {name: image_facts(properties, raw, name) for name in ("os", "release", "variant", "arch")}
        # An alias may say what the properties do not: debian/12 is bookworm.
        more = (alias.split("/")[1].lower() for alias in self.aliases if "/" in alias)
        self.facts["release"] = tuple(dict.fromkeys((*self.facts["release"], *(m for m in more if m[:1].isdigit()))))
        self.facts["versions"] = ("newest",)
        number = next((text for text in self.facts["release"] if re.match(r"\d", text)), "")
        if number and self.release and number not in self.release.lower():
            self.release = f"{self.release} {number}"
        numbers = tuple(-int(part) for part in re.findall(r"\d+", number)[:4])
        self.order = (self.os.lower(), numbers, self.release.lower(), self.variant, self.arch, -self.created)
        self.text = " ".join((self.os, self.release, self.description, self.fingerprint, *self.aliases)).lower()

    @property
    def key(self) -> str:
        return self.fingerprint or self.title

    @property
    def name(self) -> str:
        """What the remote knows it by: an alias, else the beginning of its fingerprint."""
        return f"{self.title}/{self.arch}" if self.foreign and self.aliases else self.title

    @property
    def reference(self) -> str:
        return f"{self.remote}:{self.name}"


class Catalogue:
    """One remote's list.

    Args:
        protocol: the remote's.

    Attributes:
        rows: its images; None while it is being read, and where it could not be.
        fault: why it could not be read, "" if it could.
    """

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.come = asyncio.Event()  # its list, or the reason why there is none
        self.rows: list[CatalogueRow] | None = None
        self.fault = ""

    def settle(self, native: Iterable[str]) -> set[str]:
        """Takes the architectures of the server, by their kernel names; gives how the list calls them."""
        known = set(native)
        for row in self.rows or ():
            row.foreign = self.protocol == "simplestreams" and row.architecture not in known
        return {row.arch for row in self.rows or () if row.architecture in known}


class Catalogues:
    """The lists that have been read, by remote.

    Args:
        changed: told when a list has come, or could not be read.

    Attributes:
        downloads: the operation that fetches an image, by its fingerprint.
        copies: what fetches one from another server, where our own command line does it.
    """

    def __init__(self, gateway: Gateway, changed: Callable[[], object]) -> None:
        self._gateway, self._changed = gateway, changed
        self._known: dict[tuple[str, str], Catalogue] = {}
        self.downloads: dict[str, str] = {}
        self.copies: dict[str, Worker[None]] = {}

    def get(self, remote: str) -> Catalogue | None:
        """The list of a remote, None as long as nobody asked for it."""
        return self._known.get((self._gateway.remote, remote))

    def forget(self, remote: str) -> None:
        """What was read of a remote: it has changed, or shall be read anew."""
        self._known.pop((self._gateway.remote, remote), None)

    async def read(self, remote: RemoteInfo, again: bool = False) -> Catalogue:
        """The list of a remote, read unless it is known or on its way already.

        Args:
            again: it is tried once more where it could not be read.
        """
        known = self.get(remote.name)
        if known is not None and not (again and known.fault):
            await known.come.wait()
            return known
        catalogue = self._known[self._gateway.remote, remote.name] = Catalogue(remote.protocol)
        try:
            catalogue.rows = await self._ask(remote)
        except TimeoutError:
            catalogue.fault = f"{remote.url} did not answer within {PATIENCE:.0f} seconds"
        except Exception as error:
            catalogue.fault = explain(error)
        except asyncio.CancelledError:
            self.forget(remote.name)  # else nobody would ever read it
            raise
        finally:
            catalogue.come.set()
        self._changed()
        return catalogue

    async def _ask(self, remote: RemoteInfo) -> list[CatalogueRow]:
        def listed(raws: Any) -> list[CatalogueRow]:
            if not isinstance(raws, list):
                raise Unavailable(f"{remote.url} sent something else than a list of images")
            return rows_of(raws, remote)

        if remote.protocol == "lxd":
            return await self._gateway.elsewhere(
                remote.name, lambda c: listed(c.get("/1.0/images", recursion="1")), patience=PATIENCE
            )

        def catalogue(client: ClientLike) -> list[CatalogueRow]:
            return listed(client.get("/1.0/image-servers/catalogue", server=remote.url, protocol=remote.protocol))

        return await self._gateway.call(catalogue, alone=True, patience=PATIENCE)

    def download(self, fingerprint: str, operations: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
        """The running operation that fetches an image."""
        operation = operations.get(self.downloads.get(fingerprint, ""))
        return operation if operation is not None and operation["status_code"] not in FINAL else None

    def copying(self, fingerprint: str) -> "Worker[None] | None":
        """What fetches an image from another server just now."""
        copy = self.copies.get(fingerprint)
        return copy if copy is not None and not copy.is_finished else None


def rows_of(raws: list[Any], remote: RemoteInfo) -> list[CatalogueRow]:
    """The rows of a list of image objects. What is none is left out."""
    rows = [CatalogueRow(raw, remote.name) for raw in raws if isinstance(raw, dict)]
    if remote.protocol == "simplestreams":
        best: dict[tuple[Any, ...], CatalogueRow] = {}
        for row in rows:
            rank = (bool(row.aliases), str((row.raw.get("properties") or {}).get("serial", "")))
            known = best.get(row.order[:-1])
            if known is None or rank > (bool(known.aliases), str((known.raw.get("properties") or {}).get("serial"))):
                best[row.order[:-1]] = row
        for row in rows:
            row.newest = bool(row.aliases) or best[row.order[:-1]] is row
            if not row.newest:
                row.facts["versions"] = ("older",)
    rows.sort(key=lambda row: (row.order, row.key))
    return rows


# Filtering


def lets_through(query: str, here: set[str]) -> Callable[[CatalogueRow], bool]:
    """The test of a query: without a word about it, only this machine's architectures and the newest versions.

    Args:
        here: the architectures of this machine, as the list calls them.
    """
    match, asked = matcher(query), named(query)
    if "arch" not in asked and here:
        typed, match = match, lambda row: row.arch in here and typed(row)
    if "versions" not in asked:
        found = match
        return lambda row: row.newest and found(row)
    return match


def counted(rows: Iterable[CatalogueRow], field: str, query: str, here: set[str]) -> list[tuple[str, int]]:
    """The values of `field` among the rows that all other words of `query` let through, with how many have each."""
    words = [word for word in query.split() if word.lstrip("!").partition(":")[0].lower() != field]
    test = lets_through(" ".join([*words, f"{field}:any"]), here)
    shown: Counter[str] = Counter()
    orders: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        if test(row) and (value := value_of(row, field)):
            shown[value] += 1
            orders.setdefault(value, row.order)
    if field == "release":
        return sorted(shown.items(), key=lambda pair: orders[pair[0]])
    return sorted(shown.items())


def value_of(row: CatalogueRow, field: str) -> str:
    """What a row has in `field`, as the filter language would ask for it."""
    return next(iter(row.facts[field]), "")


def with_choice(query: str, field: str, value: str, values: Iterable[str]) -> str:
    """`query` asking for `value` of `field` and no other; for none where it is "".

    Args:
        values: all there are: a value that others begin with is asked for exactly.
    """
    words = [word for word in query.split() if word.lstrip("!").partition(":")[0].lower() != field]
    if value:
        alike = any(other != value and value in other for other in values)
        words.append(f"{field}:{'=' if alike else ''}{value}")
    return " ".join(words)


def chosen(query: str, field: str) -> str:
    """What `query` asks of `field`, "" for nothing."""
    for word in query.lower().split():
        name, colon, value = word.partition(":")
        if colon and name == field:
            return value.lstrip("=")
    return ""


def completed(rows: Iterable[CatalogueRow], text: str) -> str:
    """`text`, a query that is being typed, with its last word completed; "" where nothing is known to follow."""
    before, _, word = text.rpartition(" ")
    lead = f"{before} " if before else ""
    mark = "!" if word.startswith("!") else ""
    field, colon, value = word.removeprefix("!").lower().partition(":")
    if not colon:
        name = next((f for f in CHOICES if field and f.startswith(field)), "")
        return f"{lead}{mark}{name}:" if name else ""
    if field not in CHOICES or not value:
        return ""
    exact = "=" if value.startswith("=") else ""
    found = Counter(
        fact for row in rows for fact in row.facts.get(field, ()) if fact.startswith(value.removeprefix("="))
    )
    best = min(found, key=lambda fact: (-found[fact], fact), default="")
    return f"{lead}{mark}{field}:{exact}{best}" if best else ""

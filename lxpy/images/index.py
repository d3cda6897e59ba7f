"""What is stored: the records of images, by the project that holds them, and the files behind them.

Records (`Store.images`) are documents with the fields of the API's image object and beside them ``kind``,
``hashes`` and, for built ones, ``recipe``. Files are shared by the projects that have the same image; they go with
its last record.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api.errors import BadRequest, InternalError, NotFound
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.api.notices import IMAGE_DAMAGED, IMAGE_LOST, Notice
from lxpy.images import files, metadata
from lxpy.images.aliases import Emit
from lxpy.images.files import Hashes
from lxpy.images.metadata import Archive, utc
from lxpy.images.wire import NEVER
from lxpy.state.store import Document, Store

Home = Callable[[str], str]
# Inside the class, `all` is the method.
Names = list[str]
_PARTS = (
    ("", ".rootfs"),
    ("",),
)  # what follows the fingerprint in the files' names: of a split image, of a unified one


class Index:
    """Args:
    home: the project that holds a project's images: itself, or ``default`` where it has none of its own.
    """

    def __init__(self, store: Store, layout: Layout, emit: Emit, warn: Callable[[str], None], home: Home) -> None:
        self.store, self.directory, self._warn, self.home = store, layout.images, warn, home
        self._emit = emit
        self.on_delete: list[Callable[[str], Awaitable[None]]] = []
        self._deleting: dict[str, asyncio.Event] = {}
        self._archives: dict[str, Archive] = {}

    async def start(self) -> None:
        """Drops records without files and files without records: what a crash left. Reports files that are damaged."""
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        known: set[str] = set()
        for project in self.projects():
            for fingerprint, doc in self.all(project).items():
                whole = self.complete(fingerprint, doc["kind"])
                damage = self.damage(fingerprint, doc) if whole else ""
                # Fetched for a launch, it is fetched again by the next one; what somebody put here is his to replace.
                if whole and not (damage and doc["cached"] and doc.get("update_source")):
                    known.add(fingerprint)
                    if damage:
                        self._warn(Notice(damage, IMAGE_DAMAGED, f"/1.0/images/{fingerprint}", project))
                    continue
                self.store.images.delete(project, fingerprint)
                self._warn(
                    Notice(
                        f"Image {fingerprint[:12]} of project {project} has lost its files and is no longer listed"
                        if not whole
                        else f"The files of image {fingerprint[:12]} were damaged: the next launch fetches it again",
                        IMAGE_LOST,
                        f"/1.0/images/{fingerprint}",
                        project,
                    )
                )
        await asyncio.to_thread(files.sweep, self.directory, known)

    # -- records -------------------------------------------------------------------------------------------------------

    def projects(self) -> Names:
        """The projects that hold images."""
        return [name for name in self.store.projects.all() if self.home(name) == name]

    def all(self, project: str) -> dict[str, Document]:
        return self.store.images.all(self.home(project))

    def get(self, project: str, fingerprint: str) -> Document | None:
        return self.store.images.get(self.home(project), fingerprint)

    def put(self, project: str, fingerprint: str, doc: Document) -> None:
        self.store.images.put(self.home(project), fingerprint, doc)

    def change(self, project: str, fingerprint: str, **fields: Any) -> None:
        """Changes fields of a record that may have gone meanwhile."""
        doc = self.get(project, fingerprint)
        if doc is not None:
            self.put(project, fingerprint, doc | fields)

    def find(self, project: str, prefix: str) -> tuple[str, Document]:
        """The image whose fingerprint starts so.

        Raises:
            NotFound: none does. BadRequest: several do.
        """
        doc = self.get(project, prefix)
        if doc is not None:
            return prefix, doc
        if not prefix or set(prefix) - set("0123456789abcdef"):
            raise NotFound("Image not found")
        found = [item for item in self.all(project).items() if item[0].startswith(prefix)]
        if not found:
            raise NotFound("Image not found")
        if len(found) > 1:
            raise BadRequest(f"More than one image has a fingerprint starting with {prefix}")
        return found[0]

    def elsewhere(self, fingerprint: str) -> Document | None:
        """The record of an image in whichever project has it."""
        for project in self.projects():
            doc = self.get(project, fingerprint)
            if doc is not None:
                return doc
        return None

    def from_server(self, project: str, server: str, alias: str) -> str | None:
        """The newest image here that came from that server by that alias."""
        found = [
            (doc["uploaded_at"], fingerprint)
            for fingerprint, doc in self.all(project).items()
            if (origin := doc.get("update_source")) and (origin["server"], origin["alias"]) == (server, alias)
        ]
        return max(found)[1] if found else None

    def emit(self, what: str, project: str, fingerprint: str, context: dict[str, Any] | None = None) -> None:
        self._emit(f"image-{what}", f"/1.0/images/{fingerprint}", self.home(project), context)

    # -- files ---------------------------------------------------------------------------------------------------------

    def files(self, project: str, prefix: str) -> ImageFiles:
        """Where the files of an image lie."""
        fingerprint, doc = self.find(project, prefix)
        path = f"{self.directory}/{fingerprint}"
        return ImageFiles(fingerprint, doc["kind"], path if doc["kind"] == "unified" else f"{path}.rootfs", path)

    def sound(self, project: str, prefix: str) -> ImageFiles:
        """As `files`, of an image whose files have the size they should. Raises `InternalError` with what to do."""
        fingerprint, doc = self.find(project, prefix)
        if damage := self.damage(fingerprint, doc):
            raise InternalError(damage)
        return self.files(project, fingerprint)

    def damage(self, fingerprint: str, doc: Document) -> str:
        """What is wrong with the files of an image, by their size, and what to do; empty when nothing is."""
        place = self.directory
        try:
            size = sum(os.stat(f"{place}/{fingerprint}{end}").st_size for end in _PARTS[doc["kind"] == "unified"])
        except OSError as error:
            found = f"{error.filename}: {error.strerror}"
        else:
            if size == doc["size"]:
                return ""
            found = f"they have {size} bytes instead of {doc['size']}"
        return (
            f"The files of image {fingerprint[:12]} in {place} are damaged ({found}): delete the image and get it again"
        )

    def metadata(self, project: str, prefix: str) -> dict[str, Any]:
        """``metadata.yaml``, parsed and checked."""
        fingerprint, _ = self.find(project, prefix)
        if fingerprint not in self._archives:
            if len(self._archives) >= 32:
                self._archives.clear()
            self._archives[fingerprint] = metadata.load(f"{self.directory}/{fingerprint}")
        return self._archives[fingerprint].metadata

    def complete(self, fingerprint: str, kind: str) -> bool:
        """Whether the files are there."""
        path = f"{self.directory}/{fingerprint}"
        return os.path.exists(path) and (kind == "unified" or os.path.exists(f"{path}.rootfs"))

    async def settled(self, fingerprint: str) -> None:
        """Waits while the image is being deleted."""
        if fingerprint in self._deleting:
            await self._deleting[fingerprint].wait()

    async def install(
        self, project: str, fingerprint: str, meta: str, rootfs: str | None, archive: Archive, doc: Document
    ) -> None:
        """Files first, record last: a crash in between leaves files that `start` sweeps."""
        await self.settled(fingerprint)
        if not self.complete(fingerprint, doc["kind"]) or not self.elsewhere(fingerprint):
            await asyncio.to_thread(files.install, self.directory, fingerprint, meta, rootfs)
            await asyncio.to_thread(metadata.save, f"{self.directory}/{fingerprint}", archive)
        self.put(project, fingerprint, doc)
        self.emit("created", project, fingerprint, {"type": "container"})

    async def delete(self, project: str, prefix: str) -> None:
        """Takes an image, its aliases and (with its last record) its files away.

        The record goes first: a crash later on leaves files without one, which `start` sweeps.
        """
        fingerprint, _ = self.find(project, prefix)
        self.store.images.delete(self.home(project), fingerprint)
        self._archives.pop(fingerprint, None)
        self.emit("deleted", project, fingerprint)
        if self.elsewhere(fingerprint):
            return
        self._deleting[fingerprint] = asyncio.Event()
        try:
            for hook in self.on_delete:
                await hook(fingerprint)
            await asyncio.to_thread(files.remove, self.directory, fingerprint)
        finally:
            self._deleting.pop(fingerprint).set()


def document(archive: Archive, kind: str, hashes: Hashes, properties: dict[str, str], flags: Document) -> Document:
    """The record of a new image; `flags` are the fields that differ from those of a plain import."""
    return {
        "kind": kind,
        "hashes": {"metadata": hashes.metadata, "rootfs": hashes.rootfs},
        "filename": "",
        "size": hashes.size,
        "type": "container",
        "architecture": archive.metadata["architecture"],
        "public": False,
        "cached": False,
        "auto_update": False,
        "properties": archive.metadata["properties"] | properties,
        "profiles": [],
        "created_at": utc(archive.metadata["creation_date"]),
        "expires_at": utc(archive.metadata["expiry_date"]),
        "last_used_at": NEVER,
        "uploaded_at": utc(time.time()),
        "update_source": None,
    } | flags

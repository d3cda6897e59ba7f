"""The image manager: what the API's image routes and the instances ask for. Its parts do the work.

`index` has records and files, `fetch` gets images from servers and recipes, `uploads` takes in files, `upkeep` updates
and expires.
"""

import asyncio
import json
import os
import shutil
import time
from collections.abc import Callable
from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.api.objects import Image
from lxpy.images import builtin, files, metadata, uploads, wire
from lxpy.images.aliases import Aliases, Emit, Pairs
from lxpy.images.fetch import Fetcher, silent
from lxpy.images.index import Home, Index, Names
from lxpy.images.metadata import Archive, utc
from lxpy.images.servers import Probed
from lxpy.images.upkeep import Upkeep
from lxpy.images.work import Progress as Progress
from lxpy.state.store import Store

# Inside the class, `list` is the method.
Images = list[Image]


class ImageManager:
    """Args:
    emit: turns (action, source URL, project, context) into a lifecycle event.
    warn: told what went wrong without failing anything.
    home: the project that holds a project's images; every method takes any project's name.
    """

    def __init__(
        self,
        store: Store,
        layout: Layout,
        emit: Emit,
        warn: Callable[[str], None],
        home: Home = lambda project: project,
    ) -> None:
        self._layout = layout
        self._index = Index(store, layout, emit, warn, home)
        self.on_delete = self._index.on_delete
        self.aliases = Aliases(store, emit, lambda project, prefix: self._index.find(project, prefix)[0], home)
        self.create_alias, self.get_alias, self.list_aliases = self.aliases.create, self.aliases.get, self.aliases.list
        self.update_alias, self.rename_alias = self.aliases.update, self.aliases.rename
        self.delete_alias = self.aliases.delete
        self._fetcher = Fetcher(self._index, self.aliases, layout, store.config.all, warn)
        self._http = self._fetcher.http
        self.upkeep = Upkeep(
            self._index, self.aliases, self._fetcher, store.config.all, f"{layout.cache}/images-updated", warn
        )
        self.expire, self.auto_update = self.upkeep.expire, self.upkeep.auto_update

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Removes what a crash left, then begins the hourly upkeep."""
        os.makedirs(self._layout.cache, mode=0o700, exist_ok=True)
        await self._index.start()
        await asyncio.to_thread(shutil.rmtree, f"{self._layout.cache}/build", True)
        await asyncio.to_thread(_sweep_old, f"{self._layout.cache}/downloads", time.time() - 7 * 86400)
        self.upkeep.start()

    async def close(self) -> None:
        """Cancels downloads and builds; a partial download is taken up again next time."""
        await self.upkeep.close()
        await self._fetcher.close()

    # -- what is here --------------------------------------------------------------------------------------------------

    def list(self, project: str) -> Images:
        """Every image of a project, by fingerprint."""
        aliases = self.aliases.by_fingerprint(project)
        return [
            wire.stored(fingerprint, doc, aliases.get(fingerprint, []))
            for fingerprint, doc in self._index.all(project).items()
        ]

    def get(self, project: str, prefix: str) -> Image:
        """The image whose fingerprint starts so.

        Raises:
            NotFound: none does. BadRequest: several do.
        """
        fingerprint, doc = self._index.find(project, prefix)
        return wire.stored(fingerprint, doc, self.aliases.by_fingerprint(project).get(fingerprint, []))

    def profiles(self, project: str, source: dict[str, Any]) -> Names:
        """The profiles that go with the image of a launch's source; none where it is not here by that name."""
        if source.get("type") != "image" or source.get("server") or source.get("protocol"):
            return []
        try:
            found = self._fetcher.find(project, str(source.get("alias") or ""), str(source.get("fingerprint") or ""))
            return list(self._index.find(project, found)[1]["profiles"])
        except (BadRequest, NotFound):
            return []

    def files(self, project: str, prefix: str) -> ImageFiles:
        """Where the files of an image lie."""
        return self._index.files(project, prefix)

    export = files

    def sound(self, project: str, prefix: str) -> ImageFiles:
        """As `files`, of an image whose files are not damaged, as far as their size tells. Raises `InternalError`."""
        return self._index.sound(project, prefix)

    def hashes(self, project: str, prefix: str) -> dict[str, str]:
        """sha256 of the files: ``{"metadata", "rootfs"}``; rootfs is empty for a unified image."""
        return dict(self._index.find(project, prefix)[1]["hashes"])

    def metadata(self, project: str, prefix: str) -> dict[str, Any]:
        """``metadata.yaml``, parsed and checked."""
        return self._index.metadata(project, prefix)

    def touch(self, project: str, fingerprint: str) -> None:
        """Notes that an instance was made of it now."""
        self._index.change(project, fingerprint, last_used_at=utc(time.time()))

    def known(self, fingerprint: str) -> bool:
        """Whether any project has it."""
        return self._index.elsewhere(fingerprint) is not None

    # -- changing and removing -----------------------------------------------------------------------------------------

    def update(
        self,
        project: str,
        prefix: str,
        public: bool | None = None,
        auto_update: bool | None = None,
        properties: dict[str, str] | None = None,
        expires_at: str | None = None,
        profiles: Names | None = None,
    ) -> None:
        """Changes what is not None."""
        fingerprint, _ = self._index.find(project, prefix)
        if (
            expires_at
            and not metadata.parse_utc(expires_at)
            and not expires_at.startswith(("0001-01-01", "1970-01-01"))
        ):
            raise BadRequest(f"Invalid expiry date {expires_at!r}: write it as 2026-12-31T00:00:00Z")
        changes = {"public": public, "auto_update": auto_update, "properties": properties,
                   "expires_at": expires_at, "profiles": profiles}  # fmt: skip
        self._index.change(project, fingerprint, **{k: v for k, v in changes.items() if v is not None})
        self._index.emit("updated", project, fingerprint)

    async def delete(self, project: str, prefix: str) -> None:
        """Takes an image, its aliases and (with its last record) its files away."""
        await self._index.delete(project, prefix)

    # -- getting one ---------------------------------------------------------------------------------------------------

    async def ensure(
        self,
        source: dict[str, Any],
        project: str,
        progress: Progress = silent,
        *,
        cached: bool = True,
        auto_update: bool | None = None,
        public: bool = False,
    ) -> str:
        """The fingerprint of an image that is now stored here, downloaded or built first if need be.

        Args:
            source: as in ``POST /1.0/instances``: ``alias`` or ``fingerprint``, with ``server`` and ``protocol`` for
                another place than the local store.
            cached: a new record is marked as a by-product of a launch: it expires unused.
            auto_update: None: ``images.auto_update_cached`` decides for cached images, else off.

        Raises:
            NotFound: no such image; the message has the nearest names. Unavailable: the server is away.
        """
        return await self._fetcher.ensure(
            source, project, progress, cached=cached, auto_update=auto_update, public=public
        )

    async def build(self, recipe: str, project: str, progress: Progress = silent, aliases: Names | None = None) -> str:
        """Builds a recipe anew, even if an image of it is here, and gives it `aliases` (taking them from older ones).

        Raises:
            NotFound: no such recipe. Unavailable: a program or mirror is missing. InternalError: a program failed.
        """
        found = self._fetcher.recipes.find(recipe)
        fingerprint = await self._fetcher.build(found, project, progress, {"cached": False}, anew=True)
        for alias in aliases or []:
            self.aliases.give(project, alias, fingerprint)
        return fingerprint

    async def import_upload(
        self,
        project: str,
        metadata_path: str,
        rootfs_path: str | None,
        headers: dict[str, str],
        progress: Progress = silent,
        more: dict[str, Any] | None = None,
    ) -> str:
        """Takes in an uploaded image: a unified tarball, or a metadata tarball and a root file system.

        Args:
            metadata_path, rootfs_path: temporary files; they are the store's from here on, also on failure.
            headers: of the request: ``X-LXD-filename``, ``-public``, ``-properties`` (URL-encoded), ``-fingerprint``,
                or the same with ``X-Incus-``; any case.
            more: fields of the record beside those the headers say.

        Raises:
            BadRequest: no image, corrupt, truncated. Conflict: it is here already.
        """
        return await uploads.take_in(self._index, project, metadata_path, rootfs_path, headers, progress, more)

    async def adopt(
        self, project: str, path: str, archive: Archive, fields: dict[str, Any], progress: Progress = silent
    ) -> str:
        """Takes in a unified image that lxpy itself has just made, without looking into it.

        Args:
            path: a temporary file; it is the store's from here on, also on failure.
            archive: what its metadata says.
            fields: of the record, where they differ from those of a plain import.

        Raises:
            Conflict: it is here already.
        """
        return await uploads.adopt(self._index, project, path, archive, fields, progress)

    async def import_address(
        self, url: str, project: str, progress: Progress, public: bool, auto_update: bool, properties: dict[str, str]
    ) -> str:
        """Takes in the image at an https address; see `PeerImages.by_address`."""
        flags = {"public": public, "auto_update": auto_update}
        return await self._fetcher.peers.by_address(url, project, progress, flags, properties)

    async def push(self, project: str, fingerprint: str, target: dict[str, Any], progress: Progress) -> None:
        """Uploads an image to another server that expects it.

        Args:
            target: as in ``POST /1.0/images/{fingerprint}/export``: ``target`` (https address), ``certificate``,
                ``secret``, ``project``, ``profiles``.
        """
        from lxpy.images.peers import Peer

        full, doc = self._index.find(project, fingerprint)
        peer = Peer(
            self._http, str(target.get("target") or ""), str(target.get("certificate") or ""),
            str(target.get("project") or ""),
        )  # fmt: skip
        profiles = [str(name) for name in target.get("profiles") or ()]
        await peer.push(self._index.sound(project, full), doc, str(target.get("secret") or ""), profiles, progress)

    async def source_aliases(self, source: dict[str, Any], project: str) -> Pairs:
        """The aliases an image has at its source (``copy_aliases``): ``[{"name", "description"}]``."""
        return await self._fetcher.source_aliases(source, project)

    # -- other places --------------------------------------------------------------------------------------------------

    async def catalogue(self, server: str, protocol: str, project: str) -> Images:
        """The images of a server, or of the built-in recipes, as image objects.

        A recipe not built yet has its key for a fingerprint (stable, and good for `ensure`), size 0 and the property
        ``lxpy.built`` = ``false``.
        """
        if protocol == "builtin":
            records = self._index.all(project)
            result = []
            for recipe in self._fetcher.recipes.all().values():
                aliases = [{"name": name, "description": ""} for name in (recipe.name, *recipe.aliases)]
                existing = builtin.existing(recipe, records)
                doc = records[existing] if existing else builtin.unbuilt(recipe)
                result.append(wire.stored(existing or recipe.key(), doc, aliases))
            return result
        images = await self._fetcher.servers().images(server)
        return [wire.listed(image, server.rstrip("/")) for image in images if image.preferred]

    async def catalogue_json(self, server: str, protocol: str, project: str) -> bytes:
        """`catalogue`, as JSON; that of an image server lies ready for an hour."""
        if protocol == "builtin":
            return json.dumps(await self.catalogue(server, protocol, project)).encode()
        from lxpy.images.catalogue import rendered

        return await rendered(self._fetcher.servers(), server, self._http.kept(server.rstrip("/")))

    async def probe(self, server: str) -> Probed:
        """Whether an image server answers, and how soon; see `Servers.probe`."""
        return await self._fetcher.servers().probe(server)

    async def refresh(self, project: str, prefix: str, progress: Progress = silent) -> str:
        """Looks for a newer version where the image came from; aliases move over and the old one goes.

        Returns:
            The new fingerprint, or the old one when there is nothing newer or no source.
        """
        return await self.upkeep.refresh(project, prefix, progress)


def _sweep_old(directory: str, before: float) -> None:
    """Partial downloads nobody came back for."""
    if os.path.isdir(directory):
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    files.unlink(entry.path)

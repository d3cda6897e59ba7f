"""The image manager: what is stored, and how more gets in. The parts do the work; this keeps the records.

Records (`Store.images`) are documents with the fields of the API's image object and beside them ``kind``,
``hashes`` and, for built ones, ``recipe``. Files are shared by the projects that have the same image; they go with
its last record.
"""

import asyncio
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl

from lxpy.api.errors import ApiError, BadRequest, Conflict, InternalError, NotFound, Unavailable
from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.api.objects import Image
from lxpy.images import builtin, files, metadata, wire
from lxpy.images.aliases import Aliases, Emit
from lxpy.images.architectures import native
from lxpy.images.files import Hashes
from lxpy.images.http import Http
from lxpy.images.metadata import Archive, utc
from lxpy.images.servers import Servers
from lxpy.images.wire import NEVER
from lxpy.images.work import Progress as Progress
from lxpy.images.work import SharedWork
from lxpy.state.store import Document, Store

# Inside the class, `list` is the method.
Images = list[Image]
Names = list[str]


def silent(key: str, text: str) -> None:
    """Progress nobody looks at."""


class ImageManager:
    """Args:
    emit: turns (action, source URL, project, context) into a lifecycle event.
    warn: told what went wrong without failing anything.
    """

    def __init__(self, store: Store, layout: Layout, emit: Emit, warn: Callable[[str], None]) -> None:
        self._store, self._layout, self._emit, self._warn = store, layout, emit, warn
        self.on_delete: list[Callable[[str], Awaitable[None]]] = []
        self.aliases = Aliases(store, emit, lambda project, prefix: self._find(project, prefix)[0])
        self.create_alias, self.get_alias, self.list_aliases = self.aliases.create, self.aliases.get, self.aliases.list
        self.update_alias, self.rename_alias = self.aliases.update, self.aliases.rename
        self.delete_alias = self.aliases.delete
        self._http = Http(layout, store.config.all, warn)
        self._work = SharedWork()
        self._recipes = builtin.Recipes(layout)
        self._upkeep: asyncio.Task[None] | None = None
        self._deleting: dict[str, asyncio.Event] = {}
        self._archives: dict[str, Archive] = {}

    # -- life --------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Removes what a crash left, then begins the hourly upkeep."""
        for path in (self._layout.images, self._layout.cache):
            os.makedirs(path, mode=0o700, exist_ok=True)
        known: set[str] = set()
        for project in self._projects():
            for fingerprint, doc in self._store.images.all(project).items():
                if self._complete(fingerprint, doc["kind"]):
                    known.add(fingerprint)
                    continue
                self._store.images.delete(project, fingerprint)
                self._warn(
                    f"Image {fingerprint[:12]} of project {project} has lost its files and was removed from the list"
                )
        await asyncio.to_thread(files.sweep, self._layout.images, known)
        await asyncio.to_thread(shutil.rmtree, f"{self._layout.cache}/build", True)
        await asyncio.to_thread(_sweep_old, f"{self._layout.cache}/downloads", time.time() - 7 * 86400)
        self._upkeep = asyncio.create_task(self._hourly(), name="images:upkeep")

    async def close(self) -> None:
        """Cancels downloads and builds; a partial download is taken up again next time."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.wait([self._upkeep])
        await self._work.close()
        await self._http.close()

    # -- what is here --------------------------------------------------------------------------------------------------

    def list(self, project: str) -> Images:
        """Every image of a project, by fingerprint."""
        aliases = self.aliases.by_fingerprint(project)
        return [
            wire.stored(fingerprint, doc, aliases.get(fingerprint, []))
            for fingerprint, doc in self._store.images.all(project).items()
        ]

    def get(self, project: str, prefix: str) -> Image:
        """The image whose fingerprint starts so.

        Raises:
            NotFound: none does. BadRequest: several do.
        """
        fingerprint, doc = self._find(project, prefix)
        return wire.stored(fingerprint, doc, self.aliases.by_fingerprint(project).get(fingerprint, []))

    def files(self, project: str, fingerprint: str) -> ImageFiles:
        """Where the files of an image lie."""
        fingerprint, doc = self._find(project, fingerprint)
        path = f"{self._layout.images}/{fingerprint}"
        return ImageFiles(fingerprint, doc["kind"], path if doc["kind"] == "unified" else f"{path}.rootfs", path)

    export = files

    def hashes(self, project: str, fingerprint: str) -> dict[str, str]:
        """sha256 of the files: ``{"metadata", "rootfs"}``; rootfs is empty for a unified image."""
        return dict(self._find(project, fingerprint)[1]["hashes"])

    def metadata(self, project: str, fingerprint: str) -> dict[str, Any]:
        """``metadata.yaml``, parsed and checked."""
        fingerprint, _ = self._find(project, fingerprint)
        if fingerprint not in self._archives:
            if len(self._archives) >= 32:
                self._archives.clear()
            self._archives[fingerprint] = metadata.load(f"{self._layout.images}/{fingerprint}")
        return self._archives[fingerprint].metadata

    def touch(self, project: str, fingerprint: str) -> None:
        """Notes that an instance was made of it now."""
        doc = self._store.images.get(project, fingerprint)
        if doc is not None:
            self._store.images.put(project, fingerprint, doc | {"last_used_at": utc(time.time())})

    def _find(self, project: str, prefix: str) -> tuple[str, Document]:
        doc = self._store.images.get(project, prefix)
        if doc is not None:
            return prefix, doc
        if not prefix or set(prefix) - set("0123456789abcdef"):
            raise NotFound("Image not found")
        found = [item for item in self._store.images.all(project).items() if item[0].startswith(prefix)]
        if not found:
            raise NotFound("Image not found")
        if len(found) > 1:
            raise BadRequest(f"More than one image has a fingerprint starting with {prefix}")
        return found[0]

    # -- changing and removing -----------------------------------------------------------------------------------------

    def update(
        self,
        project: str,
        fingerprint: str,
        public: bool | None = None,
        auto_update: bool | None = None,
        properties: dict[str, str] | None = None,
        expires_at: str | None = None,
        profiles: Names | None = None,
    ) -> None:
        """Changes what is not None."""
        fingerprint, doc = self._find(project, fingerprint)
        if (
            expires_at
            and not metadata.parse_utc(expires_at)
            and not expires_at.startswith(("0001-01-01", "1970-01-01"))
        ):
            raise BadRequest(f"Invalid expiry date {expires_at!r}: write it as 2026-12-31T00:00:00Z")
        changes = {"public": public, "auto_update": auto_update, "properties": properties,
                   "expires_at": expires_at, "profiles": profiles}  # fmt: skip
        self._store.images.put(project, fingerprint, doc | {k: v for k, v in changes.items() if v is not None})
        self._emit("image-updated", f"/1.0/images/{fingerprint}", project, None)

    async def delete(self, project: str, fingerprint: str) -> None:
        """Takes an image, its aliases and (with its last record) its files away.

        The record goes first: a crash later on leaves files without one, which `start` sweeps.
        """
        fingerprint, _ = self._find(project, fingerprint)
        self._store.images.delete(project, fingerprint)
        self._archives.pop(fingerprint, None)
        self._emit("image-deleted", f"/1.0/images/{fingerprint}", project, None)
        if any(self._store.images.get(other, fingerprint) for other in self._projects()):
            return
        self._deleting[fingerprint] = asyncio.Event()
        try:
            for hook in self.on_delete:
                await hook(fingerprint)
            await asyncio.to_thread(files.remove, self._layout.images, fingerprint)
        finally:
            self._deleting.pop(fingerprint).set()

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
        alias, fingerprint = str(source.get("alias") or ""), str(source.get("fingerprint") or "")
        server, protocol = str(source.get("server") or ""), str(source.get("protocol") or "")
        if protocol == "builtin":
            found = await self._ensure_builtin(alias or fingerprint, project, progress, cached)
        elif not server:
            return self._local(project, alias, fingerprint)
        elif protocol not in ("simplestreams", ""):
            raise BadRequest(f"Images cannot be fetched by the protocol {protocol!r}: use simplestreams or builtin")
        else:
            by_default = cached and self._store.config.all().get("images.auto_update_cached", "true") == "true"
            update = by_default if auto_update is None else auto_update
            flags = {"cached": cached, "auto_update": update, "public": public}
            found = await self._ensure_remote(server.rstrip("/"), alias, fingerprint, project, progress, flags)
        doc = self._store.images.get(project, found)
        if doc is not None and not cached and doc["cached"]:
            # Fetched for a launch before, asked for by name now: from here on it is meant to stay.
            kept = {"cached": False, "public": public or doc["public"]}
            self._store.images.put(project, found, doc | kept | {"auto_update": bool(auto_update)})
        return found

    def _local(self, project: str, alias: str, fingerprint: str) -> str:
        if fingerprint:
            return self._find(project, fingerprint)[0]
        if not alias:
            raise BadRequest("The source names neither an image's alias nor its fingerprint")
        found = self.aliases.resolve(project, alias)
        if found:
            return found
        try:
            return self._find(project, alias)[0]
        except NotFound:
            import difflib

            known = [row["name"] for row in self.aliases.list(project)]
            close = difflib.get_close_matches(alias, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(close)}" if close else 'name a server too, as in "images:alpine/3.20"'
            raise NotFound(f"Image {alias!r} not found among the local images; {hint}") from None

    async def _ensure_remote(
        self, server: str, alias: str, fingerprint: str, project: str, progress: Progress, flags: Document
    ) -> str:
        known = self._from_server(project, server, alias) if alias else None
        # LXD's rule: what updates itself in the background need not be asked after at each launch.
        if known and self._store.images.all(project)[known]["auto_update"]:
            return known
        if fingerprint:
            try:
                return self._find(project, fingerprint)[0]
            except NotFound:
                pass
        servers = self._servers()
        try:
            image = await servers.resolve(server, fingerprint or alias)
        except Unavailable as error:
            if known is None:
                raise
            self._warn(f"{error}; using the image fetched from there earlier")
            return known
        flags = flags | {
            "update_source": {
                "server": server, "protocol": "simplestreams", "alias": alias,
                "certificate": "", "image_type": "container",
            }
        } if alias else flags | {"auto_update": False}  # fmt: skip

        async def fetch(report: Progress) -> str:
            fetched = await servers.fetch(server, image, report)
            # Checked against the server's list: no need to read the whole root file system once more.
            archive = await asyncio.to_thread(metadata.read_archive, fetched.metadata, image.kind != "unified")
            _check_architecture(archive.metadata["architecture"])
            doc = self._document(archive, image.kind, fetched.hashes, image.properties(), flags)
            doc |= {"filename": os.path.basename(image.metadata.path), "expires_at": utc(image.expires)}
            await self._install(project, image.fingerprint, fetched.metadata, fetched.rootfs, archive, doc)
            return image.fingerprint

        return await self._obtain(project, image.fingerprint, fetch, progress, flags)

    async def _obtain(
        self,
        project: str,
        fingerprint: str,
        fetch: Callable[[Progress], Awaitable[str]],
        progress: Progress,
        flags: Document,
    ) -> str:
        """The image, from this project, from another one's files, or by `fetch`."""
        if fingerprint in self._deleting:
            await self._deleting[fingerprint].wait()
        if not self._store.images.get(project, fingerprint) and not self._elsewhere(fingerprint):
            await self._work.run(fingerprint, fetch, progress)
        if not self._store.images.get(project, fingerprint):
            doc = self._elsewhere(fingerprint)
            if doc is None:
                raise Conflict(f"Image {fingerprint[:12]} was deleted while it was fetched: try again")
            fresh: Document = {"public": False, "auto_update": False, "update_source": None, "profiles": []} | flags
            doc |= fresh | {"uploaded_at": utc(time.time()), "last_used_at": NEVER}
            self._store.images.put(project, fingerprint, doc)
            self._emit("image-created", f"/1.0/images/{fingerprint}", project, None)
        return fingerprint

    def _elsewhere(self, fingerprint: str) -> Document | None:
        for project in self._projects():
            doc = self._store.images.get(project, fingerprint)
            if doc is not None:
                return doc
        return None

    def _from_server(self, project: str, server: str, alias: str) -> str | None:
        """The newest image here that came from that server by that alias."""
        found = [
            (doc["uploaded_at"], fingerprint)
            for fingerprint, doc in self._store.images.all(project).items()
            if (origin := doc.get("update_source")) and (origin["server"], origin["alias"]) == (server, alias)
        ]
        return max(found)[1] if found else None

    # -- built-in ------------------------------------------------------------------------------------------------------

    async def build(self, recipe: str, project: str, progress: Progress = silent, aliases: Names | None = None) -> str:
        """Builds a recipe anew, even if an image of it is here, and gives it `aliases` (taking them from older ones).

        Raises:
            NotFound: no such recipe. Unavailable: a program or mirror is missing. InternalError: a program failed.
        """
        found = self._recipes.find(recipe)
        fingerprint = await self._build(found, project, progress, {"cached": False}, anew=True)
        for alias in aliases or []:
            if self.aliases.resolve(project, alias) is None:
                self.aliases.create(project, alias, fingerprint)
            else:
                self.aliases.update(project, alias, target=fingerprint)
        return fingerprint

    async def _ensure_builtin(self, wanted: str, project: str, progress: Progress, cached: bool) -> str:
        recipe = self._recipes.find(wanted)
        existing = builtin.existing(recipe, self._store.images.all(project))
        return existing or await self._build(recipe, project, progress, {"cached": cached}, anew=False)

    async def _build(self, recipe: Any, project: str, progress: Progress, flags: Document, anew: bool) -> str:
        origin = {
            "server": "",
            "protocol": "builtin",
            "alias": recipe.name,
            "certificate": "",
            "image_type": "container",
        }
        flags = {"auto_update": False, "public": False, "update_source": origin} | flags

        async def build(report: Progress) -> str:
            identity = builtin.identity(recipe)
            async with builtin.made(recipe, self._layout, self._environment(), report, anew) as image:
                hashes = await asyncio.to_thread(files.hash_image, image.metadata, image.rootfs)
                archive = await asyncio.to_thread(metadata.read_archive, image.metadata, True)
                doc = self._document(archive, "squashfs", hashes, archive.metadata["properties"], flags)
                doc["recipe"] = {"name": recipe.name, "key": recipe.key(), "identity": identity}
                await self._install(project, hashes.fingerprint, image.metadata, image.rootfs, archive, doc)
                return hashes.fingerprint

        key = f"recipe:{recipe.name}:{'anew' if anew else ''}"
        fingerprint = await self._work.run(key, build, progress)
        return await self._obtain(project, fingerprint, build, progress, flags)

    # -- uploads -------------------------------------------------------------------------------------------------------

    async def import_upload(
        self,
        project: str,
        metadata_path: str,
        rootfs_path: str | None,
        headers: dict[str, str],
        progress: Progress = silent,
    ) -> str:
        """Takes in an uploaded image: a unified tarball, or a metadata tarball and a root file system.

        Args:
            metadata_path, rootfs_path: temporary files; they are the store's from here on, also on failure.
            headers: of the request: ``X-LXD-filename``, ``-public``, ``-properties`` (URL-encoded), ``-fingerprint``,
                or the same with ``X-Incus-``; any case.

        Raises:
            BadRequest: no image, corrupt, truncated, for another machine. Conflict: it is here already.
        """
        given = {
            key.lower().removeprefix("x-lxd-").removeprefix("x-incus-"): value
            for key, value in headers.items()
            if key.lower().startswith(("x-lxd-", "x-incus-"))
        }
        temporary = [path for path in (metadata_path, rootfs_path) if path]
        try:
            progress("create_image_from_upload_progress", "checking the image")
            if os.stat(metadata_path).st_size == 0:
                raise BadRequest("The image is empty")
            kind, archive = await asyncio.to_thread(_inspect, metadata_path, rootfs_path)
            _check_architecture(archive.metadata["architecture"])
            hashes = await asyncio.to_thread(files.hash_image, metadata_path, rootfs_path)
            expected = given.get("fingerprint", "")
            if expected and not hashes.fingerprint.startswith(expected.lower()):
                raise BadRequest(
                    f"The image's fingerprint is {hashes.fingerprint}, expected was {expected}: the upload is damaged"
                )
            properties = archive.metadata["properties"] | dict(parse_qsl(given.get("properties", "")))
            flags: Document = {"public": given.get("public", "").lower() in ("1", "true", "yes", "on")}
            flags |= {"profiles": given["profiles"].split(",")} if given.get("profiles") else {}
            doc = self._document(archive, kind, hashes, properties, flags)
            doc["filename"] = os.path.basename(given.get("filename", ""))
            if self._store.images.get(project, hashes.fingerprint):
                raise Conflict("Image with same fingerprint already exists")
            await self._install(project, hashes.fingerprint, metadata_path, rootfs_path, archive, doc)
            return hashes.fingerprint
        except OSError as error:
            full = files.disk_full(error, "Importing the image", self._layout.images)
            raise full or InternalError(f"Importing the image: {error.strerror}: {error.filename}") from None
        finally:
            for path in temporary:
                files.unlink(path)

    async def _install(
        self, project: str, fingerprint: str, meta: str, rootfs: str | None, archive: Archive, doc: Document
    ) -> None:
        """Files first, record last: a crash in between leaves files that `start` sweeps."""
        if fingerprint in self._deleting:
            await self._deleting[fingerprint].wait()
        if not self._complete(fingerprint, doc["kind"]) or not self._elsewhere(fingerprint):
            await asyncio.to_thread(files.install, self._layout.images, fingerprint, meta, rootfs)
            await asyncio.to_thread(metadata.save, f"{self._layout.images}/{fingerprint}", archive)
        self._store.images.put(project, fingerprint, doc)
        self._emit("image-created", f"/1.0/images/{fingerprint}", project, {"type": "container"})

    def _document(
        self, archive: Archive, kind: str, hashes: Hashes, properties: dict[str, str], flags: Document
    ) -> Document:
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

    # -- other places --------------------------------------------------------------------------------------------------

    async def catalogue(self, server: str, protocol: str, project: str) -> Images:
        """The images of a server, or of the built-in recipes, as image objects.

        A recipe not built yet has its key for a fingerprint (stable, and good for `ensure`), size 0 and the property
        ``lxpy.built`` = ``false``.
        """
        if protocol == "builtin":
            records = self._store.images.all(project)
            result = []
            for recipe in self._recipes.all().values():
                aliases = [{"name": name, "description": ""} for name in (recipe.name, *recipe.aliases)]
                existing = builtin.existing(recipe, records)
                doc = records[existing] if existing else builtin.unbuilt(recipe)
                result.append(wire.stored(existing or recipe.key(), doc, aliases))
            return result
        images = await self._servers().images(server)
        return [wire.listed(image, server.rstrip("/")) for image in images if image.preferred]

    async def refresh(self, project: str, fingerprint: str, progress: Progress = silent) -> str:
        """Looks for a newer version where the image came from; aliases move over and the old one goes.

        Returns:
            The new fingerprint, or the old one when there is nothing newer or no source.
        """
        fingerprint, doc = self._find(project, fingerprint)
        origin = doc.get("update_source")
        if not origin:
            return fingerprint
        flags = {key: doc[key] for key in ("cached", "auto_update", "public", "profiles")}
        if origin["protocol"] == "builtin":
            new = await self._build(self._recipes.find(origin["alias"]), project, progress, flags, anew=True)
        else:
            image = await self._servers().resolve(origin["server"], origin["alias"])
            if image.fingerprint == fingerprint:
                return fingerprint
            # The record that is here would be taken for the answer: by fingerprint, then.
            new = await self._ensure_remote(origin["server"], "", image.fingerprint, project, progress, flags)
            fresh = self._store.images.get(project, new)
            if fresh is not None:
                kept = flags | {"update_source": origin, "last_used_at": doc["last_used_at"]}
                self._store.images.put(project, new, fresh | kept)
        if new != fingerprint and self._store.images.get(project, fingerprint):
            self.aliases.move_all(project, fingerprint, new)
            await self.delete(project, fingerprint)
        self._emit("image-refreshed", f"/1.0/images/{new}", project, {"old_fingerprint": fingerprint})
        return new

    async def expire(self) -> Names:
        """Deletes cached images not used for ``images.remote_cache_expiry`` days (10; 0: never); their fingerprints."""
        days = _number(self._store.config.all().get("images.remote_cache_expiry", ""), 10)
        gone = []
        for project in self._projects() if days else []:
            for fingerprint, doc in self._store.images.all(project).items():
                used = max(metadata.parse_utc(doc["last_used_at"]), metadata.parse_utc(doc["uploaded_at"]))
                if doc["cached"] and time.time() - used > days * 86400:
                    await self.delete(project, fingerprint)
                    gone.append(fingerprint)
        return gone

    async def auto_update(self) -> None:
        """Refreshes every image that asks for it; what fails is a warning and is tried again next time."""
        for project in self._projects():
            for fingerprint, doc in self._store.images.all(project).items():
                # Built-in images are rebuilt on request only: that is minutes of work, and nobody asked for it.
                if doc["auto_update"] and (doc.get("update_source") or {}).get("protocol") == "simplestreams":
                    try:
                        await self.refresh(project, fingerprint)
                    except ApiError as error:
                        self._warn(f"Image {fingerprint[:12]} could not be updated: {error}")

    async def _hourly(self) -> None:
        hours = 0
        while True:
            await asyncio.sleep(3600)
            hours += 1
            try:
                await self.expire()
                interval = _number(self._store.config.all().get("images.auto_update_interval", ""), 6)
                if interval and hours % interval == 0:
                    await self.auto_update()
            except Exception as error:
                self._warn(f"Looking after images failed: {error}")

    def _projects(self) -> Names:
        return list(self._store.projects.all())

    def _servers(self) -> Servers:
        return Servers(self._layout, self._http, [name for name in self._recipes.names() if name])

    def _complete(self, fingerprint: str, kind: str) -> bool:
        path = f"{self._layout.images}/{fingerprint}"
        return os.path.exists(path) and (kind == "unified" or os.path.exists(f"{path}.rootfs"))

    def _environment(self) -> dict[str, str]:
        """How builds reach the network: the configured proxies, else the daemon's own environment."""
        config, result = self._store.config.all(), {}
        for name, key in (("http_proxy", "http"), ("https_proxy", "https"), ("no_proxy", "ignore_hosts")):
            value = config.get(f"core.proxy_{key}") or os.environ.get(name) or os.environ.get(name.upper())
            if value:
                result[name] = value
        return result


def _inspect(meta: str, rootfs: str | None) -> tuple[str, Archive]:
    """Kind and content of an upload, everything read to the end; blocking."""
    if rootfs is None:
        return "unified", metadata.read_archive(meta, whole=True, unified=True)
    archive = metadata.read_archive(meta, whole=True)
    if os.stat(rootfs).st_size == 0:
        raise BadRequest("The root file system is empty")
    if files.sniff(rootfs) == "squashfs":
        files.check_squashfs(rootfs)
        return "squashfs", archive
    metadata.check_tar(rootfs)
    return "tar", archive


def _check_architecture(architecture: str) -> None:
    if architecture not in native():
        raise BadRequest(f"The image is for {architecture}; this machine runs {' and '.join(native())}")


def _sweep_old(directory: str, before: float) -> None:
    """Partial downloads nobody came back for."""
    if os.path.isdir(directory):
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_mtime < before:
                    files.unlink(entry.path)


def _number(text: str, default: int) -> int:
    return int(text) if text.isdigit() else default

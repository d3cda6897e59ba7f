"""Getting an image: from the local store, an image server or a recipe; downloaded or built at most once at a time."""

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api.errors import BadRequest, Conflict, NotFound, Unavailable
from lxpy.api.layout import Layout
from lxpy.api.notices import IMAGE_SERVER, Notice
from lxpy.images import builtin, files, metadata
from lxpy.images.aliases import Aliases
from lxpy.images.architectures import check_runs
from lxpy.images.http import Http
from lxpy.images.index import Index, document
from lxpy.images.metadata import utc
from lxpy.images.peerimages import PeerImages
from lxpy.images.recipes import Recipe
from lxpy.images.servers import Servers
from lxpy.images.wire import NEVER
from lxpy.images.work import Progress, SharedWork
from lxpy.state.store import Document

_FINGERPRINT = re.compile(r"[0-9a-f]{12,64}")


def silent(key: str, text: str) -> None:
    """Progress nobody looks at."""


class Fetcher:
    """Args:
    config: the server's configuration as it is now.
    warn: told what went wrong without failing anything.
    """

    def __init__(
        self,
        index: Index,
        aliases: Aliases,
        layout: Layout,
        config: Callable[[], dict[str, str]],
        warn: Callable[[str], None],
    ) -> None:
        self._index, self._aliases, self._layout, self._config, self._warn = index, aliases, layout, config, warn
        self.http = Http(layout, config, warn)
        self.recipes = builtin.Recipes(layout)
        self._work = SharedWork()
        self.peers = PeerImages(index, self.http, self.obtain)

    async def close(self) -> None:
        """Cancels downloads and builds; a partial download is taken up again next time."""
        await self._work.close()
        await self.http.close()

    def servers(self) -> Servers:
        return Servers(self._layout, self.http, [name for name in self.recipes.names() if name])

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
        """See `ImageManager.ensure`."""
        alias, fingerprint = str(source.get("alias") or ""), str(source.get("fingerprint") or "")
        server, protocol = str(source.get("server") or ""), str(source.get("protocol") or "")
        by_default = cached and self._config().get("images.auto_update_cached", "true") == "true"
        update = by_default if auto_update is None else auto_update
        flags: Document = {"cached": cached, "auto_update": update, "public": public}
        if fingerprint and not alias and not _FINGERPRINT.fullmatch(fingerprint):
            alias, fingerprint = fingerprint, ""  # LXD's client puts either there
        if protocol == "builtin":
            found = await self._builtin(alias or fingerprint, project, progress, cached)
        elif not server:
            found = await self._local(project, alias, fingerprint, source, flags)
        elif protocol == "simplestreams":
            found = await self.remote(server.rstrip("/"), alias, fingerprint, project, progress, flags)
        elif protocol in ("lxd", "incus", ""):
            found = await self.peers.ensure(source | {"alias": alias, "fingerprint": fingerprint}, project,
                                             progress, flags, strict=bool(auto_update))  # fmt: skip
        else:
            raise BadRequest(
                f"Images cannot be fetched by the protocol {protocol!r}: use simplestreams, lxd or builtin"
            )
        doc = self._index.get(project, found)
        if doc is not None and cached:
            check_runs(doc["architecture"])
        if doc is not None and not cached and doc["cached"]:
            # Fetched for a launch before, asked for by name now: from here on it is meant to stay.
            kept = {"cached": False, "public": public or doc["public"]}
            self._index.put(project, found, doc | kept | {"auto_update": bool(auto_update)})
        return found

    async def _local(self, project: str, alias: str, fingerprint: str, source: dict[str, Any], flags: Document) -> str:
        """An image that is here; of another project (``source.project``) it gets a record of its own in this one."""
        origin = str(source.get("project") or project)
        if self._index.home(origin) == self._index.home(project):
            return self.find(project, alias, fingerprint)
        if origin not in self._index.store.projects.all():
            raise NotFound(f"Project {origin!r} not found")
        found = self.find(origin, alias, fingerprint)

        async def gone(report: Progress) -> str:
            raise NotFound("Image not found")

        return await self.obtain(project, found, gone, silent, flags | {"auto_update": False})

    def find(self, project: str, alias: str, fingerprint: str) -> str:
        """The fingerprint of an image that is here. Raises `NotFound` with the nearest names, `BadRequest`."""
        if fingerprint:
            return self._index.find(project, fingerprint)[0]
        if not alias:
            raise BadRequest("The source names neither an image's alias nor its fingerprint")
        found = self._aliases.resolve(project, alias)
        if found:
            return found
        try:
            return self._index.find(project, alias)[0]
        except NotFound:
            import difflib

            known = [row["name"] for row in self._aliases.list(project)]
            close = difflib.get_close_matches(alias, known, n=3, cutoff=0.5)
            hint = f"nearest: {', '.join(close)}" if close else 'name a server too, as in "images:alpine/3.20"'
            raise NotFound(f"Image {alias!r} not found among the local images; {hint}") from None

    async def remote(
        self, server: str, alias: str, fingerprint: str, project: str, progress: Progress, flags: Document
    ) -> str:
        """An image of a simplestreams server; `flags` are fields of its record."""
        known = self._index.from_server(project, server, alias) if alias else None
        # LXD's rule: what updates itself in the background need not be asked after at each launch.
        if known and self._index.all(project)[known]["auto_update"]:
            return known
        if fingerprint:
            try:
                return self._index.find(project, fingerprint)[0]
            except NotFound:
                pass
        servers = self.servers()
        try:
            image = await servers.resolve(server, fingerprint or alias)
        except Unavailable as error:
            if known is None:
                raise
            self._warn(Notice(f"{error}; using the image fetched from there earlier", IMAGE_SERVER, server))
            return known
        flags = flags | {
            "update_source": {
                "server": server, "protocol": "simplestreams", "alias": alias,
                "certificate": "", "image_type": "container",
            }
        } if alias else flags | {"auto_update": False}  # fmt: skip

        if flags.get("cached"):
            check_runs(image.architecture)

        async def fetch(report: Progress) -> str:
            fetched = await servers.fetch(server, image, report)
            # Checked against the server's list: no need to read the whole root file system once more.
            archive = await asyncio.to_thread(metadata.read_archive, fetched.metadata, image.kind != "unified")
            doc = document(archive, image.kind, fetched.hashes, image.properties(), flags)
            doc |= {"filename": os.path.basename(image.metadata.path), "expires_at": utc(image.expires)}
            await self._index.install(project, image.fingerprint, fetched.metadata, fetched.rootfs, archive, doc)
            return image.fingerprint

        return await self.obtain(project, image.fingerprint, fetch, progress, flags)

    async def obtain(
        self,
        project: str,
        fingerprint: str,
        fetch: Callable[[Progress], Awaitable[str]],
        progress: Progress,
        flags: Document,
    ) -> str:
        """The image, from this project, from another one's files, or by `fetch`."""
        await self._index.settled(fingerprint)
        if not self._index.get(project, fingerprint) and not self._index.elsewhere(fingerprint):
            await self._work.run(fingerprint, fetch, progress)
        if not self._index.get(project, fingerprint):
            doc = self._index.elsewhere(fingerprint)
            if doc is None:
                raise Conflict(f"Image {fingerprint[:12]} was deleted while it was fetched: try again")
            fresh: Document = {"public": False, "auto_update": False, "update_source": None, "profiles": []} | flags
            doc |= fresh | {"uploaded_at": utc(time.time()), "last_used_at": NEVER}
            self._index.put(project, fingerprint, doc)
            self._index.emit("created", project, fingerprint)
        return fingerprint

    async def latest(self, fingerprint: str, doc: Document, project: str, progress: Progress, flags: Document) -> str:
        """The image that is now where `doc` came from, fetched or built; `fingerprint` while it is still the one."""
        origin = doc["update_source"]
        if origin["protocol"] == "builtin":
            return await self.build(self.recipes.find(origin["alias"]), project, progress, flags, anew=True)
        if origin["protocol"] != "simplestreams":
            return await self.peers.latest(fingerprint, origin, project, progress, flags)
        image = await self.servers().resolve(origin["server"], origin["alias"])
        if image.fingerprint == fingerprint:
            return fingerprint
        # The record that is here would be taken for the answer: by fingerprint, then.
        return await self.remote(origin["server"], "", image.fingerprint, project, progress, flags)

    async def source_aliases(self, source: dict[str, Any], project: str) -> list[dict[str, str]]:
        """See `ImageManager.source_aliases`."""
        wanted = str(source.get("alias") or source.get("fingerprint") or "")
        server, protocol = str(source.get("server") or ""), source.get("protocol")
        if protocol == "builtin":
            recipe = self.recipes.find(wanted)
            return [{"name": name, "description": ""} for name in (recipe.name, *recipe.aliases)]
        if protocol == "simplestreams":
            image = await self.servers().resolve(server, wanted)
            return [{"name": name, "description": ""} for name in image.aliases]
        if server:
            return await self.peers.aliases(source)
        origin = str(source.get("project") or project)
        found = self.find(origin, str(source.get("alias") or ""), str(source.get("fingerprint") or ""))
        return self._aliases.by_fingerprint(origin).get(found, [])

    # -- built-in ------------------------------------------------------------------------------------------------------

    async def _builtin(self, wanted: str, project: str, progress: Progress, cached: bool) -> str:
        recipe = self.recipes.find(wanted)
        existing = builtin.existing(recipe, self._index.all(project))
        return existing or await self.build(recipe, project, progress, {"cached": cached}, anew=False)

    async def build(self, recipe: Recipe, project: str, progress: Progress, flags: Document, anew: bool) -> str:
        """An image of a recipe, built now; `anew` even where a shared cache has one."""
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
                doc = document(archive, "squashfs", hashes, archive.metadata["properties"], flags)
                doc["recipe"] = {"name": recipe.name, "key": recipe.key(), "identity": identity}
                await self._index.install(project, hashes.fingerprint, image.metadata, image.rootfs, archive, doc)
                return hashes.fingerprint

        key = f"recipe:{recipe.name}:{'anew' if anew else ''}"
        fingerprint = await self._work.run(key, build, progress)
        return await self.obtain(project, fingerprint, build, progress, flags)

    def _environment(self) -> dict[str, str]:
        """How builds reach the network: the configured proxies, else the daemon's own environment."""
        config, result = self._config(), {}
        for name, key in (("http_proxy", "http"), ("https_proxy", "https"), ("no_proxy", "ignore_hosts")):
            value = config.get(f"core.proxy_{key}") or os.environ.get(name) or os.environ.get(name.upper())
            if value:
                result[name] = value
        return result

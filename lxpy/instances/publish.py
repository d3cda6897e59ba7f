"""Making an image of an instance: a unified tarball, as LXD makes it and imports it."""

import contextlib
import os
import tempfile
import time
from typing import Any

import yaml

from lxpy.api import values
from lxpy.api.errors import BadRequest, InternalError
from lxpy.api.layout import qualified
from lxpy.images import files, metadata
from lxpy.images.manager import Progress
from lxpy.images.metadata import Archive
from lxpy.instances import idmaps
from lxpy.instances.parts import Parts
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import compression, tarwriter
from lxpy.storage.backupfiles import DEFAULT_COMPRESSION
from lxpy.storage.tarwriter import File, Tree

_PROGRESS = "create_image_from_container_pack_progress"


class Publishing:
    """Makes images of instances."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def check(self, project: str, body: dict[str, Any]) -> None:
        """The faults of a request that can be told before any work.

        Args:
            body: as in ``POST /1.0/images``, its source of the type ``instance`` or ``snapshot``.

        Raises:
            NotFound: no such instance. BadRequest: it is running, or something in the request is wrong.
        """
        name, _, snapshot = str(body["source"].get("name") or "").partition("/")
        row = self._parts.records.get(project, name)
        if snapshot:
            self._parts.snapshots.document(row, snapshot)
        else:
            self._stopped(row)
        self._compression(body)
        _expiry(body)
        if body.get("format") not in (None, "", "unified"):
            raise BadRequest(f"Image format {body['format']!r} is not supported: images of instances are unified")

    def _stopped(self, row: InstanceRow) -> None:
        if self._parts.life.live(row):
            raise BadRequest(f"Instance {row.name!r} is running: stop it first, or publish it with --force")

    def _compression(self, body: dict[str, Any]) -> str:
        asked = str(body.get("compression_algorithm") or "")
        if asked:
            compression.check("compression_algorithm", asked)
        return asked or self._parts.store.config.all().get("images.compression_algorithm") or DEFAULT_COMPRESSION

    async def publish(self, project: str, home: str, body: dict[str, Any], progress: Progress) -> str:
        """The fingerprint of the new image; nothing is left of one that fails or is cancelled.

        Args:
            project: of the instance. home: that of the image.
            body: see `check`.
        """
        self.check(project, body)
        name, _, snapshot = str(body["source"]["name"]).partition("/")
        row = self._parts.records.get(project, name)
        async with contextlib.AsyncExitStack() as held:
            if not snapshot:
                why = f"Instance {name!r} is being published: wait for it, or cancel it (lxpy operation list)"
                await held.enter_async_context(self._parts.life.lock(row).held_long(why))
                row = self._parts.records.get(row.project, row.name)
                self._stopped(row)
                await self._parts.life.release(row)
            archive = self._archive(row, snapshot, body)
            os.makedirs(self._parts.layout.images, mode=0o700, exist_ok=True)
            # A name that the image store sweeps at its start.
            fd, path = tempfile.mkstemp(prefix=".publish-", dir=self._parts.layout.images)
            with contextlib.ExitStack() as undo:
                undo.callback(files.unlink, path)
                undo.callback(os.close, fd)
                pool = self._parts.storage.pool(row.pool)
                volume = qualified(row.project, row.name)
                root = held.enter_context(pool.open_snapshot(volume, snapshot) if snapshot else pool.open_root(volume))
                await self._pack(row, archive, root, fd, self._compression(body), progress)
                undo.pop_all()
                os.close(fd)
        name = f"{row.name}.tar{compression.suffix(self._compression(body))}"
        return await self._parts.images.adopt(home, path, archive, _fields(body) | {"filename": name}, progress)

    async def _pack(
        self, row: InstanceRow, archive: Archive, root: int, output: int, compress: str, progress: Progress
    ) -> None:
        doing = f"Publish instance {row.name}"

        def tell(size: int) -> None:
            progress(_PROGRESS, f"Image pack: {values.human_bytes(size)}")

        try:
            config = self._parts.records.expanded(row)[0]
            devices = idmaps.privileged(config)
            await tarwriter.write(
                doing, image_files(archive), [Tree(root, "rootfs")], output, compress, tell, devices=devices
            )
        except OSError as error:
            full = files.disk_full(error, doing, self._parts.layout.images)
            raise full or InternalError(f"{doing}: {error.strerror}") from None

    def _archive(self, row: InstanceRow, snapshot: str, body: dict[str, Any]) -> Archive:
        """The metadata of the image that the instance comes from, made the new one's."""
        doc = self._parts.snapshots.document(row, snapshot) if snapshot else row.doc
        kept = self._parts.templates.metadata(row, snapshot, doc)
        given = {str(key): str(value) for key, value in (body.get("properties") or {}).items() if value != ""}
        document = {
            "architecture": row.doc["architecture"],
            "creation_date": int(time.time()),
            "expiry_date": _expiry(body),
            "properties": kept.metadata["properties"] | given,
            "templates": kept.metadata["templates"],
        }
        return Archive(metadata.validate(document), kept.templates)


def image_files(archive: Archive) -> list[File]:
    """``metadata.yaml`` and the templates, as members of an image's tarball."""
    text = yaml.dump(archive.metadata, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=True)
    found = [File("metadata.yaml", text.encode())]
    if archive.templates:
        found.append(File("templates", None, 0o755))
        found += [
            File(f"templates/{name}", text.encode(errors="surrogateescape"))
            for name, text in sorted(archive.templates.items())
        ]
    return found


def _expiry(body: dict[str, Any]) -> int:
    text = str(body.get("expires_at") or "")
    if not text or text.startswith(("0001-", "1970-01-01")):
        return 0
    moment = int(metadata.parse_utc(text))
    if not moment:
        raise BadRequest(f"Invalid expiry date {text!r}: write it as 2026-12-31T00:00:00Z")
    return moment


def _fields(body: dict[str, Any]) -> Document:
    fields: Document = {"public": bool(body.get("public"))}
    if body.get("profiles"):
        fields["profiles"] = [str(name) for name in body["profiles"]]
    return fields

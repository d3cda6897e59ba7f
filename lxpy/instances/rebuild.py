"""Giving an instance a new root: that of an image, or an empty one. Its configuration and devices stay.

The row is marked ``rebuilding`` (to what) first: a daemon that was killed does it again at its next start.
"""

import platform
from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.api.layout import qualified
from lxpy.api.notices import LEFTOVERS, Notice
from lxpy.images.manager import Progress
from lxpy.instances import rootsize
from lxpy.instances.parts import Parts
from lxpy.state.store import InstanceRow
from lxpy.storage.trees import finish

_OF_THE_IMAGE = ("image.", "volatile.base_image", "volatile.apply_template")


class Rebuilding:
    """Rebuilds instances."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def validate(self, project: str, name: str, body: dict[str, Any]) -> InstanceRow:
        """The instance, if it can be rebuilt.

        Raises:
            NotFound, BadRequest: it cannot, or the request is wrong.
        """
        row = self._parts.records.get(project, name)
        source = body.get("source")
        if not isinstance(source, dict) or source.get("type") not in ("image", "none"):
            raise BadRequest("No source to rebuild from: an image, or none for an empty root")
        if self._parts.life.live(row):
            raise BadRequest(f"Instance {name!r} is running: stop it first, or rebuild it with --force")
        if snapshots := self._parts.snapshots.of(row):
            raise BadRequest(
                f"Instance {name!r} has snapshots ({', '.join(list(snapshots)[:3])}): delete them before rebuilding it"
            )
        return row

    async def rebuild(self, project: str, name: str, body: dict[str, Any], progress: Progress) -> None:
        """Raises as `validate`, and what getting an image raises."""
        row, parts = self.validate(project, name, body), self._parts
        fingerprint: str | None = None
        if body["source"]["type"] == "image":
            fingerprint = await parts.images.ensure(body["source"], project, progress)
            await parts.storage.pool(row.pool).ensure_image(parts.images.files(project, fingerprint))
        async with parts.life.lock(row):
            row = self.validate(project, name, body)
            await parts.life.release(row)
            row = parts.records.change(row, rebuilding={"fingerprint": fingerprint})
            await finish(self._rebuild(row, fingerprint))  # from here on nobody can take it back
        parts.save(parts.records.get(project, name))
        parts.emit("instance-rebuilt", f"/1.0/instances/{name}", project, None)

    async def _rebuild(self, row: InstanceRow, fingerprint: str | None) -> None:
        try:
            await self._work(row, fingerprint)
        except BaseException:
            self._parts.records.change(self._parts.records.get(row.project, row.name), rebuilding=None)
            raise

    async def settle(self, row: InstanceRow) -> InstanceRow:
        """Finish at the start of a daemon what the one before had begun."""
        if not (wanted := row.doc.get("rebuilding")):
            return row
        parts, fingerprint = self._parts, wanted["fingerprint"]
        try:
            if fingerprint:
                await parts.storage.pool(row.pool).ensure_image(parts.images.files(row.project, fingerprint))
            row = await self._work(row, fingerprint)
        except NotFound as error:
            text = f"Rebuilding {row.name!r} was cut off, and cannot be finished ({error}): rebuild it again"
            parts.warn(Notice(text, LEFTOVERS, f"/1.0/instances/{row.name}", row.project))
            return parts.records.change(row, rebuilding=None)
        parts.save(row)
        return row

    async def _work(self, row: InstanceRow, fingerprint: str | None) -> InstanceRow:
        """Safe to repeat."""
        parts = self._parts
        pool, volume = parts.storage.pool(row.pool), qualified(row.project, row.name)
        config = {key: value for key, value in row.doc["config"].items() if not key.startswith(_OF_THE_IMAGE)}
        architecture = platform.machine()
        if fingerprint:
            image = parts.images.get(row.project, fingerprint)
            architecture = image["architecture"] or architecture
            config |= {f"image.{key}": str(value) for key, value in image["properties"].items()}
            config["volatile.base_image"] = fingerprint
        await pool.rebuild_instance(volume, fingerprint)
        await rootsize.apply(parts.storage, row, parts.records.expanded(row)[1])
        # The mark goes last of all.
        row = parts.records.change(row, config=config, architecture=architecture)
        if fingerprint:
            if parts.templates.keep(row):
                row = parts.records.set_volatile(row, apply_template="create")
            parts.images.touch(row.project, fingerprint)
        return parts.records.change(row, rebuilding=None)

"""The image's templates, rendered into an instance's root at create, start, copy and rename."""

import json
import os
from collections.abc import Callable

from lxpy.api.errors import NotFound
from lxpy.api.layout import qualified
from lxpy.api.notices import TEMPLATES, Notice
from lxpy.images import metadata
from lxpy.images.manager import ImageManager
from lxpy.images.metadata import Archive
from lxpy.images.templates import render_templates
from lxpy.instances import idmaps, seeds
from lxpy.instances.records import Records
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import files
from lxpy.storage.manager import StorageManager


class Templates:
    """Renders templates.

    Args:
        warn: told of a template that could not be rendered; the instance goes on without it.
    """

    def __init__(
        self, records: Records, images: ImageManager, storage: StorageManager, warn: Callable[[str], None]
    ) -> None:
        self._records, self._images, self._storage, self._warn = records, images, storage, warn

    def keep(self, row: InstanceRow) -> bool:
        """Put a copy of the image's metadata beside the root, to outlive the image. Whether it has templates."""
        try:
            archive = self._images.files(row.project, row.doc["config"].get("volatile.base_image", "")).metadata
        except NotFound:
            return False
        found = metadata.load(archive)
        if found.metadata["templates"]:
            self.save(row, found)
        return bool(found.metadata["templates"])

    def save(self, row: InstanceRow, content: Archive, snapshot: str = "") -> None:
        """Put metadata and templates beside the root (of a snapshot), in the place of the image's."""
        path, pool = self._kept(row, snapshot), self._storage.pool(row.pool)
        with files.disk_errors(f"Keep the templates of instance {row.name}", pool.name, pool.source):
            # Always the same name: what a daemon that was killed has left of it is written over.
            with open(f"{path}.new", "w", encoding="utf-8", opener=_private) as file:
                json.dump(content._asdict(), file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            os.rename(f"{path}.new", path)

    def metadata(self, row: InstanceRow, snapshot: str = "", doc: Document | None = None) -> Archive:
        """Metadata and templates of an instance: its own, its image's, or what can be told without either.

        Args:
            snapshot: one of its snapshots instead, with that one's document.
        """
        doc = doc or row.doc
        if archive := self._archive(row, snapshot, doc):
            return metadata.load(archive)
        properties = {k[len("image.") :]: v for k, v in doc["config"].items() if k.startswith("image.")}
        created = int(metadata.parse_utc(doc["created_at"])) or 1
        document = {
            "architecture": doc["architecture"],
            "creation_date": created,
            "properties": properties,
        }
        return Archive(metadata.validate(document), {})

    def apply(self, row: InstanceRow, *triggers: str) -> None:
        """Render the templates of those triggers, in their order, into the stopped instance's root."""
        archive = self._archive(row)
        if not archive:
            return
        entries = metadata.load(archive).metadata["templates"].values()
        triggers = tuple(trigger for trigger in triggers if any(trigger in entry["when"] for entry in entries))
        if not triggers:
            return
        config, devices = self._records.expanded(row)
        instance = {
            "name": row.name,
            "type": "container",
            "architecture": row.doc["architecture"],
            "privileged": str(idmaps.privileged(config)).lower(),
            "ephemeral": str(row.doc["ephemeral"]).lower(),
        }
        properties = {key[len("image.") :]: value for key, value in config.items() if key.startswith("image.")}
        context = {
            "instance": instance,
            "config": seeds.effective(config),
            "devices": devices,
            "properties": properties,
        }
        with self._storage.pool(row.pool).open_root(qualified(row.project, row.name)) as root_fd:
            for trigger in triggers:
                for problem in render_templates(archive, trigger, context, root_fd):
                    self._warn(
                        Notice(
                            f"Instance {row.name!r}: {problem}", TEMPLATES, f"/1.0/instances/{row.name}", row.project
                        )
                    )

    def before_start(self, row: InstanceRow) -> InstanceRow:
        """Render what waits for the first start (``volatile.apply_template``), then those with the trigger ``start``.

        The first waits, as in LXD, so that what is set between ``create`` and ``start`` reaches the guest's seed.
        """
        pending = row.doc["config"].get("volatile.apply_template", "")
        self.apply(row, *filter(None, (pending, "start")))
        return self._records.set_volatile(row, apply_template=None) if pending else row

    def _kept(self, row: InstanceRow, snapshot: str = "") -> str:
        return (
            f"{self._storage.pool(row.pool).instance_layers(qualified(row.project, row.name), snapshot)}/metadata.json"
        )

    def _archive(self, row: InstanceRow, snapshot: str = "", doc: Document | None = None) -> str:
        """Where the templates are; "" for none."""
        kept = self._kept(row, snapshot)
        if os.path.exists(kept):
            return kept
        try:
            return self._images.files(row.project, (doc or row.doc)["config"].get("volatile.base_image", "")).metadata
        except NotFound:
            return ""


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)

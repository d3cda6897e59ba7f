"""The image's templates, rendered into an instance's root at create, start, copy and rename."""

from collections.abc import Callable

from lxpy.api.errors import ApiError, NotFound
from lxpy.api.layout import qualified
from lxpy.images.manager import ImageManager
from lxpy.images.templates import render_templates
from lxpy.instances import idmaps
from lxpy.instances.records import Records
from lxpy.state.store import InstanceRow
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

    def apply(self, row: InstanceRow, trigger: str) -> None:
        """Render the image's templates of that trigger into the stopped instance's root."""
        fingerprint = row.doc["config"].get("volatile.base_image", "")
        try:
            archive = self._images.files(row.project, fingerprint).metadata
        except NotFound:
            return  # the image is gone; its templates with it
        config, devices = self._records.expanded(row)
        instance = {
            "name": row.name,
            "architecture": row.doc["architecture"],
            "privileged": str(idmaps.privileged(config)).lower(),
            "ephemeral": str(row.doc["ephemeral"]).lower(),
        }
        properties = {key[len("image.") :]: value for key, value in config.items() if key.startswith("image.")}
        context = {"instance": instance, "config": config, "devices": devices, "properties": properties}
        with self._storage.pool(row.pool).open_root(qualified(row.project, row.name)) as root_fd:
            for problem in render_templates(archive, trigger, context, root_fd):
                self._warn(f"Instance {row.name!r}: {problem}")

    def at_start(self, row: InstanceRow) -> None:
        """Render those with the trigger ``start``, where the image has any."""
        try:
            metadata = self._images.metadata(row.project, row.doc["config"].get("volatile.base_image", ""))
        except ApiError:
            return
        templates = metadata.get("templates") or {}
        if any("start" in (template.get("when") or ()) for template in templates.values()):
            self.apply(row, "start")

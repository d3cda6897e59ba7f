"""Creating an instance: from a request to its record and its root file system."""

import contextlib
import platform
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict
from lxpy.api.layout import qualified
from lxpy.api.objects import Config, Devices
from lxpy.images.manager import ImageManager, Progress
from lxpy.instances import boot, changes, idmaps, keys, names, rootsize
from lxpy.instances import devices as device_rules
from lxpy.instances.projectrules import ProjectRules
from lxpy.instances.records import Records, now
from lxpy.instances.templating import Templates
from lxpy.profiles.manager import ProfileManager
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import retention
from lxpy.storage.manager import StorageManager


class Creation:
    """Makes instances.

    Args:
        check_references: takes expanded devices and the project; raises `NotFound` for a pool, network or volume
            that they name and that is not there.
    """

    def __init__(
        self,
        records: Records,
        images: ImageManager,
        storage: StorageManager,
        profiles: ProfileManager,
        templates: Templates,
        check_references: Callable[[Devices, str], None],
        rules: ProjectRules,
    ) -> None:
        self._records, self._images, self._storage, self._profiles = records, images, storage, profiles
        self._templates, self._check_references, self._rules = templates, check_references, rules
        self._creating: set[tuple[str, str]] = set()

    def taken(self, project: str, name: str) -> bool:
        """Whether an instance has the name, or is being made with it."""
        return self._records.find(project, name) is not None or (project, name) in self._creating

    def validate(self, project: str, body: dict[str, Any]) -> None:
        """The faults of a create request that can be told before any work; fills in a name when there is none.

        Raises:
            BadRequest, NotFound, Conflict: the request cannot succeed.
            Forbidden: the project does not allow it.
        """
        taken = self._records.names(project) | {name for owner, name in self._creating if owner == project}
        if not body.get("name"):
            body["name"] = names.generate(taken)
        name = values.instance_name(str(body["name"]))
        if name in taken:
            raise Conflict(f"Instance {name!r} already exists")
        if body.get("type") not in (None, "", "container"):
            raise BadRequest(f"Instance type {body['type']!r} is not supported: lxpy runs containers")
        source = body.get("source") or {}
        if not isinstance(source, dict) or source.get("type") not in ("image", "none"):
            raise BadRequest(f"Instance source type {source.get('type', '')!r} is not supported: use image or none")
        if body.get("profiles") is None:
            body["profiles"] = self._images.profiles(project, source) or ["default"]
        body["devices"] = values.stated(body.get("devices") or {})
        config, devices = self._wanted(project, body)
        keys.validate_config(config)
        retention.check_plans(config)
        boot.check_circle(self._records, project, name, config)
        device_rules.validate(devices, expanded=True)
        self._check_references(devices, project)
        self._rules.check(project, name, config, devices)
        self._rules.check_volatile(project, name, config, {})
        rootsize.check(self._storage, device_rules.root_pool(devices), devices)

    def _wanted(self, project: str, body: dict[str, Any]) -> tuple[Config, Devices]:
        profiles = body["profiles"]
        changes.check_profiles(profiles)
        keys.validate_config(body.get("config") or {})
        keys.check_volatile(body.get("config") or {}, {})
        device_rules.validate(body.get("devices") or {})
        return self._profiles.expand(project, profiles, body.get("config") or {}, body.get("devices") or {})

    async def create(self, project: str, body: dict[str, Any], progress: Progress) -> InstanceRow:
        """From a request to the record of a stopped instance. Undone whole when a step fails."""
        self.validate(project, body)
        name: str = body["name"]
        with self.claimed(project, name):
            return await self._create(project, name, body, progress)

    @contextlib.contextmanager
    def claimed(self, project: str, name: str) -> Iterator[None]:
        """Nobody else makes an instance of that name meanwhile. Raises `Conflict` when somebody does."""
        if (project, name) in self._creating:
            raise Conflict(f"Instance {name!r} already exists")
        self._creating.add((project, name))
        try:
            yield
        finally:
            self._creating.discard((project, name))

    async def _create(self, project: str, name: str, body: dict[str, Any], progress: Progress) -> InstanceRow:
        _, devices = self._wanted(project, body)
        source = body.get("source") or {}
        fingerprint: str | None = None
        config: Config = {key: str(value) for key, value in (body.get("config") or {}).items() if value != ""}
        architecture = body.get("architecture") or platform.machine()
        if source["type"] == "image":
            fingerprint = await self._images.ensure(source, project, progress)
            image = self._images.get(project, fingerprint)
            architecture = image["architecture"] or architecture
            config.update({f"image.{key}": str(value) for key, value in image["properties"].items()})
            config["volatile.base_image"] = fingerprint
        config.setdefault("volatile.uuid", str(uuid.uuid4()))
        config.setdefault("volatile.cloud-init.instance-id", str(uuid.uuid4()))
        config["volatile.last_state.power"] = "STOPPED"
        pool = self._storage.pool(device_rules.root_pool(devices))
        volume = qualified(project, name)
        if rootsize.given(devices) is None and (size := self._storage.defaults(pool.name).get("size")):
            config[rootsize.DEFAULT] = size
        doc: Document = {
            "creating": True,
            "type": "container",
            "architecture": architecture,
            "description": str(body.get("description") or ""),
            "ephemeral": bool(body.get("ephemeral")),
            "created_at": now(),
            "last_used_at": "1970-01-01T00:00:00Z",
            "profiles": body["profiles"],
            "config": config,
            "devices": body.get("devices") or {},
        }
        if fingerprint is not None:
            await pool.ensure_image(self._images.sound(project, fingerprint))
        async with contextlib.AsyncExitStack() as undo:
            self._check_references(devices, project)  # fetching the image may have taken long
            row = self.insert(project, name, pool.name, doc)
            undo.callback(self._records.delete, row)
            undo.push_async_callback(pool.delete_instance, volume)
            await pool.create_instance(volume, fingerprint)
            await rootsize.apply(self._storage, row, devices)
            if fingerprint is not None:
                if self._templates.keep(row):
                    row = self._records.set_volatile(row, apply_template="create")
                self._images.touch(project, fingerprint)
            row = self._records.change(row, creating=False)
            undo.pop_all()
        return row

    def insert(self, project: str, name: str, pool: str, doc: Document) -> InstanceRow:
        """The record of a new instance, with an id map of its own. Raises `Forbidden`, `Conflict`."""
        config, devices = self._profiles.expand(project, doc["profiles"], doc["config"], doc["devices"])
        self._rules.check(project, name, config, devices)  # others may have been made since the request came
        base = None if idmaps.privileged(config) else idmaps.allocate(self._records.idmap_bases())["base"]
        return self._records.insert(project, name, pool, base, doc)

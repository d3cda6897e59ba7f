"""Copying instances: within a pool, to others, into other projects; bringing an earlier copy up to date."""

import contextlib
import secrets
import uuid
from collections.abc import AsyncIterator
from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict, InternalError, NotFound
from lxpy.api.layout import qualified
from lxpy.api.objects import Config, Devices
from lxpy.images.manager import Progress
from lxpy.instances import boot, changes, keys, lineage, names, rootsize
from lxpy.instances import devices as device_rules
from lxpy.instances.parts import Parts
from lxpy.instances.records import now
from lxpy.instances.snapshots import Snapshots
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import retention
from lxpy.storage.pool import Pool

_PROGRESS = "create_instance_from_copy_progress"


class Copies:
    """Makes instances of others, and of their snapshots."""

    def __init__(self, parts: Parts, snapshots: Snapshots) -> None:
        self._parts, self._snapshots = parts, snapshots

    # -- the request -----------------------------------------------------------------------------------------------

    def validate(self, project: str, body: dict[str, Any]) -> str:
        """The faults of a request that can be told before any work; what it leaves open is filled in by the source.

        Args:
            project: of the copy.
            body: as in ``POST /1.0/instances``, its source of the type ``copy``.

        Returns:
            The name of the copy.

        Raises:
            BadRequest, NotFound, Conflict, Forbidden: it cannot succeed.
        """
        parts = self._parts
        source, snapshot = self._source(project, body)
        if snapshot:
            self._snapshots.document(source, snapshot)
        if not body.get("name"):
            body["name"] = names.generate(parts.records.names(project))
        name = values.instance_name(str(body["name"]))
        if body.get("type") not in (None, "", "container"):
            raise BadRequest(f"Instance type {body['type']!r} is not supported: lxpy runs containers")
        # ``live`` is what stock clients send for any running source; as in LXD it means nothing within one server.
        if self._refreshes(project, body):
            self._check_refresh(project, name, source)
            return name
        if parts.creation.taken(project, name):
            raise Conflict(f"Instance {name!r} already exists (bring it up to date with --refresh)")
        doc = self._document(body, source, snapshot)
        config, devices = parts.profiles.expand(project, doc["profiles"], doc["config"], doc["devices"])
        keys.validate_config(doc["config"])
        keys.validate_config(config)
        retention.check_plans(config)
        boot.check_circle(parts.records, project, name, config)
        device_rules.validate(doc["devices"])
        device_rules.validate(devices, expanded=True)
        parts.check_references(devices, project)
        parts.rules.check(project, name, config, devices)
        pool = device_rules.root_pool(devices)
        rootsize.check_arriving(parts.storage, pool, devices)
        if self._taken_along(body, source, snapshot):
            parts.rules.check_snapshot(project)
        return name

    def _source(self, project: str, body: dict[str, Any]) -> tuple[InstanceRow, str]:
        """The instance, and the snapshot of it ("": as it is now)."""
        source = body["source"]
        if source.get("location") or body.get("location"):
            raise BadRequest("There is no cluster: leave location away")
        name, _, snapshot = str(source.get("source") or "").partition("/")
        if not name:
            raise BadRequest("The source of the copy has no name")
        return self._parts.records.get(str(source.get("project") or project), name), snapshot

    def _refreshes(self, project: str, body: dict[str, Any]) -> bool:
        return bool(body["source"].get("refresh")) and self._parts.records.find(project, body["name"]) is not None

    def _taken_along(self, body: dict[str, Any], source: InstanceRow, snapshot: str) -> dict[str, Document]:
        """The snapshots that go along."""
        only = body["source"].get("instance_only") or body["source"].get("container_only")
        return {} if only or snapshot else self._snapshots.of(source)

    def _document(self, body: dict[str, Any], source: InstanceRow, snapshot: str) -> Document:
        """The copy's: what the request says, and else what the source has but for its ``volatile.*`` keys."""
        past = self._snapshots.document(source, snapshot) if snapshot else source.doc
        taken = self._taken_along(body, source, snapshot)
        asked = {"config": body.get("config") or {}, "devices": body.get("devices") or {}}
        profiles = past["profiles"] if body.get("profiles") is None else body["profiles"]
        # The types are checked as those of a change are.
        wanted = changes.merged(
            {"description": "", "ephemeral": False, "profiles": [], "config": kept(past["config"]), "devices": {}},
            {
                "description": body.get("description") or source.doc["description"],
                "ephemeral": bool(body.get("ephemeral")),
                "profiles": profiles,
                "config": kept(past["config"]) | kept(asked["config"]),
                "devices": past["devices"] | asked["devices"],
            },
            patch=False,
        )
        return {
            "creating": True,
            "type": "container",
            "architecture": past["architecture"],
            "created_at": now(),
            "last_used_at": "1970-01-01T00:00:00Z",
            **wanted,
            "config": wanted["config"]
            | {
                "volatile.uuid": str(uuid.uuid4()),
                "volatile.cloud-init.instance-id": str(uuid.uuid4()),
                "volatile.last_state.power": "STOPPED",
                "volatile.apply_template": "copy",
            }
            # The snapshots that go along are as much the copy's past as they are the source's.
            | ({lineage.BASE: found} if (found := lineage.base(past["config"])) in taken else {}),
        }

    # -- the work --------------------------------------------------------------------------------------------------

    async def copy(self, project: str, body: dict[str, Any], progress: Progress) -> dict[str, Any]:
        """Make, or refresh, the copy. Undone whole when a step fails.

        Returns:
            What is worth telling: ``frozen_ms``, for how long a running source stood still.
        """
        name = self.validate(project, body)
        source = self._source(project, body)[0]
        progress(_PROGRESS, "Copying")
        if self._refreshes(project, body):
            target = self._parts.records.get(project, name)
            # In the order of their numbers: two refreshes the other way round must not wait for each other.
            first, second = sorted((source, target), key=lambda row: row.id)
            async with self._parts.life.lock(first), self._parts.life.lock(second):
                self.validate(project, body)
                stood = await self._refresh(self._parts.records.get(project, name), body)
            event = "instance-updated"
        else:
            with self._parts.creation.claimed(project, name):
                async with self._parts.life.lock(source):
                    stood = await self._create(project, name, body)
            event = "instance-created"
        self._parts.save(self._parts.records.get(project, name))
        self._snapshots.changed()
        self._parts.emit(event, f"/1.0/instances/{name}", project, None)
        return {"frozen_ms": round(stood * 1000, 1)} if stood else {}

    async def _create(self, project: str, name: str, body: dict[str, Any]) -> float:
        parts = self._parts
        source, snapshot = self._source(project, body)
        taken = self._taken_along(body, source, snapshot)
        doc = self._document(body, source, snapshot)
        devices = parts.profiles.expand(project, doc["profiles"], doc["config"], doc["devices"])[1]
        old, old_volume = parts.storage.pool(source.pool), qualified(source.project, source.name)
        pool, volume = parts.storage.pool(device_rules.root_pool(devices)), qualified(project, name)
        await self._ensure_images(pool, old, source, snapshot, taken)
        async with contextlib.AsyncExitStack() as undo:
            parts.check_references(devices, project)
            row = parts.creation.insert(project, name, pool.name, doc)
            undo.callback(parts.records.delete, row)
            undo.callback(self._snapshots.forget, row)
            undo.push_async_callback(pool.delete_instance, volume)
            async with self._still(source, snapshot, direct=pool is old and not taken and not pool.copies_slowly) as (
                origin,
                stood,
            ):
                if pool is old:
                    await pool.copy_instance(old_volume, volume, snapshots=list(taken), from_snapshot=origin or None)
                else:
                    await pool.receive_instance(
                        volume, old, old_volume, snapshots=list(taken), from_snapshot=origin or None
                    )
            await rootsize.apply(parts.storage, row, devices)
            with parts.store.transaction():
                for one, past in taken.items():
                    self._snapshots.put(row, one, on_pool(past, pool.name, self._snapshots.expanded(source, past)[1]))
                parts.records.change(row, creating=False)
            undo.pop_all()
        return stood[0]

    @contextlib.asynccontextmanager
    async def _still(
        self, source: InstanceRow, snapshot: str, *, direct: bool
    ) -> AsyncIterator[tuple[str, list[float]]]:
        """What of the source to copy, a snapshot ("": the root), that does not change meanwhile.

        A running instance stands still only while a snapshot of it is taken, that goes when the copy is made.

        Args:
            direct: the copy itself takes no longer than such a snapshot would.
        """
        if snapshot:
            yield snapshot, [0.0]
            return
        if not self._snapshots.stands_still(source):
            await self._parts.life.release(source)
        if direct or not self._snapshots.stands_still(source):
            async with self._snapshots.standing_still(source) as stood:
                yield "", stood
            return
        pool, volume = self._parts.storage.pool(source.pool), qualified(source.project, source.name)
        passing = f"{Snapshots.PASSING}{secrets.token_hex(4)}"
        try:
            stood = [await self._snapshots.keep(source, passing)]
            yield passing, stood
        finally:
            await pool.delete_instance_snapshot(volume, passing)

    async def _ensure_images(
        self, pool: Pool, old: Pool, source: InstanceRow, snapshot: str, taken: "dict[str, Document]"
    ) -> None:
        """Have the images that the source lies over on the other pool, too, where they are still known."""
        if pool is old or pool.driver != "overlay":
            return
        volume = qualified(source.project, source.name)
        for fingerprint in {old.instance_image(volume, one) for one in (snapshot, *taken)} - {None}:
            assert fingerprint is not None
            with contextlib.suppress(NotFound):
                await pool.ensure_image(self._parts.images.files(source.project, fingerprint))

    # -- refreshing ------------------------------------------------------------------------------------------------

    def _check_refresh(self, project: str, name: str, source: InstanceRow) -> None:
        target = self._parts.records.get(project, name)
        if target.id == source.id:
            raise BadRequest(f"Instance {name!r} cannot be refreshed from itself")
        if self._parts.life.live(target):
            raise BadRequest(f"Instance {name!r} is running: stop it before it is refreshed")

    async def _refresh(self, target: InstanceRow, body: dict[str, Any]) -> float:
        """The root becomes the source's, and so do the snapshots; the configuration stays, as in LXD."""
        parts = self._parts
        source, snapshot = self._source(target.project, body)
        old, old_volume = parts.storage.pool(source.pool), qualified(source.project, source.name)
        pool, volume = parts.storage.pool(target.pool), qualified(target.project, target.name)
        taken = self._taken_along(body, source, snapshot)
        have = self._snapshots.of(target)
        only = body["source"].get("instance_only") or body["source"].get("container_only") or snapshot
        stale = [] if only else [
            one for one, doc in have.items() if one not in taken or doc["created_at"] != taken[one]["created_at"]
        ]  # fmt: skip
        for one in stale:
            target = await self._snapshots.remove(target, one)
        missing = {one: past for one, past in taken.items() if one not in have or one in stale}
        await self._ensure_images(pool, old, source, snapshot, missing)
        for one, past in missing.items():
            doc = on_pool(past, pool.name, self._snapshots.expanded(source, past)[1])
            self._snapshots.put(target, one, doc | {"creating": True})
            try:
                await pool.receive_instance_snapshot(volume, old, old_volume, one)
            except BaseException:
                await self._snapshots.remove(target, one)
                raise
            self._snapshots.put(target, one, doc)
        async with self._still(source, snapshot, direct=False) as (origin, stood):
            await pool.refresh_instance(volume, old, old_volume, from_snapshot=origin or None)
        await rootsize.apply(parts.storage, target, parts.records.expanded(target)[1])
        before = lineage.base(parts.records.get(source.project, source.name).doc["config"])
        base = before if before in self._snapshots.of(target) and not snapshot else None
        parts.records.set_keys(target, {"volatile.apply_template": "copy", lineage.BASE: base})
        return stood[0]


def kept(config: Config) -> Config:
    """What of an instance's configuration goes along: no ``volatile.*`` key but the image it was made from."""
    return {
        key: value for key, value in config.items() if not key.startswith("volatile.") or key == "volatile.base_image"
    }  # fmt: skip


def on_pool(past: Document, pool: str, expanded: Devices) -> Document:
    """A snapshot's document on another pool: its root disk lies there."""
    if device_rules.root_pool(expanded) == pool:
        return past
    return past | {"devices": past["devices"] | rooted(expanded, pool)}


def rooted(expanded: Devices, pool: str) -> Devices:
    """The root disk of expanded devices, on that pool, as a device of the instance's own."""
    for name, device in expanded.items():
        if device_rules.is_root(device):
            return {name: device | {"pool": pool}}
    raise InternalError("An instance without a root disk")

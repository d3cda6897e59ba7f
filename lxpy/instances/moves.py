"""Moving instances: another name, another pool, another project.

A mark on the row says where an instance is going (``moving``: pool, project, name; ``copied`` once the row is there and
only the old volume is left to go). A daemon that was killed in between finds it at its next start.
"""

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lxpy.api import values
from lxpy.api.errors import ApiError, BadRequest, Conflict
from lxpy.api.layout import qualified
from lxpy.api.objects import Devices
from lxpy.instances import boot, changes, keys, rootsize
from lxpy.instances import devices as device_rules
from lxpy.instances.copies import on_pool, rooted
from lxpy.instances.parts import Parts
from lxpy.instances.snapshots import Snapshots
from lxpy.state.store import Document, InstanceRow
from lxpy.storage import retention


class Moves:
    """Renames instances and moves them.

    Args:
        release: takes what an instance has of its (expanded) devices on networks away.
    """

    def __init__(
        self, parts: Parts, snapshots: Snapshots, release: Callable[[InstanceRow, Devices], None]
    ) -> None:  # fmt: skip
        self._parts, self._snapshots, self._release = parts, snapshots, release

    # -- the request -----------------------------------------------------------------------------------------------

    def validate(self, project: str, name: str, body: dict[str, Any]) -> InstanceRow:
        """The instance, if it can go there.

        Args:
            body: of ``POST /1.0/instances/NAME``: name, pool, project, instance_only; as in LXD 6 config, devices,
                profiles.

        Raises:
            BadRequest, NotFound, Conflict, Forbidden: it cannot.
        """
        row = self._parts.records.get(project, name)
        place = self._place(row, body)
        values.instance_name(place["name"])
        doing = "renaming it" if place["pool"] == row.pool and place["project"] == project else "moving it"
        if self._parts.life.live(row):
            raise BadRequest(f"Instance {name!r} is running: stop it before {doing}")
        if (place["project"], place["name"]) != (project, name) and self._parts.creation.taken(
            place["project"], place["name"]
        ):
            raise Conflict(f"Instance {place['name']!r} already exists")
        if place == _here(row) and not self._changes(body):
            raise Conflict(f"Instance {name!r} already exists")
        if place["project"] != project or place["pool"] != row.pool or self._changes(body):
            self._check(row, place, self._document(row, place, body))
        return row

    def _place(self, row: InstanceRow, body: dict[str, Any]) -> dict[str, str]:
        place = _here(row)
        for key in ("name", "project"):
            place[key] = str(body.get(key) or place[key])
        pool = str(body.get("pool") or "")
        if not pool and isinstance(body.get("devices"), dict):
            roots = [one for one in body["devices"].values() if isinstance(one, dict) and device_rules.is_root(one)]
            pool = str(roots[0].get("pool") or "") if roots else ""
        place["pool"] = pool or row.pool
        self._parts.storage.pool(place["pool"])
        return place

    def _changes(self, body: dict[str, Any]) -> bool:
        return any(body.get(key) is not None for key in ("config", "devices", "profiles"))

    def _document(self, row: InstanceRow, place: dict[str, str], body: dict[str, Any]) -> Document:
        """As it is to be there: with what the request changes, its root disk on the pool."""
        asked = {key: body.get(key) for key in ("config", "devices", "profiles") if body.get(key) is not None}
        doc = {**row.doc, **changes.merged(row.doc, asked, patch=True)}
        if place["pool"] != row.pool:
            expanded = self._parts.profiles.expand(row.project, row.doc["profiles"], {}, row.doc["devices"])[1]
            if not any(device_rules.is_root(one) for one in (body.get("devices") or {}).values()):
                doc["devices"] = doc["devices"] | rooted(expanded, place["pool"])
        return doc

    def _check(self, row: InstanceRow, place: dict[str, str], doc: Document) -> None:
        parts, project = self._parts, place["project"]
        keys.validate_config(doc["config"])
        device_rules.validate(doc["devices"])
        config, devices = parts.profiles.expand(project, doc["profiles"], doc["config"], doc["devices"])
        keys.validate_config(config)
        retention.check_plans(config)
        boot.check_circle(parts.records, project, place["name"], config)
        device_rules.validate(devices, expanded=True)
        if device_rules.root_pool(devices) != place["pool"]:
            raise BadRequest(
                f"The root disk of {row.name!r} would be on the pool {device_rules.root_pool(devices)!r} there: "
                f"name the pool, too (-s {place['pool']})"
            )
        parts.check_references(devices, project)
        parts.rules.check(project, place["name"], config, devices, instead_of=row)
        rootsize.check_arriving(parts.storage, place["pool"], devices)
        if project != row.project and self._snapshots.of(row):
            parts.rules.check_snapshot(project)

    # -- the work --------------------------------------------------------------------------------------------------

    async def move(self, project: str, name: str, body: dict[str, Any]) -> None:
        """Raises as `validate`. An instance that cannot be moved stays as and where it was."""
        row = self._parts.records.get(project, name)
        async with self._parts.life.lock(row):
            row = self.validate(project, name, body)
            await self._parts.life.release(row)
            place, doc = self._place(row, body), self._document(row, self._place(row, body), body)
            with self._parts.creation.claimed(place["project"], place["name"]):
                if place["pool"] == row.pool:
                    row = await self._rename(row, place, doc)
                else:
                    row = await self._carry(row, place, doc, only=bool(body.get("instance_only")))
        self._parts.save(row)
        self._snapshots.changed()
        context = {"old_name": name} | ({"old_project": project} if row.project != project else {})
        self._parts.emit("instance-renamed", f"/1.0/instances/{row.name}", row.project, context)

    async def _rename(self, row: InstanceRow, place: dict[str, str], doc: Document) -> InstanceRow:
        before = row
        row = self._parts.records.change(row, moving=place | {"doc": _of(doc)})
        try:
            return await self._settle_rename(row)
        except BaseException:
            # Once the volume has its new name the next start goes on from there.
            current = self._parts.records.current(before)
            if current is not None and _volume(place) not in self._parts.storage.pool(before.pool).volumes():
                self._parts.records.change(current, moving=None)
            raise

    async def _settle_rename(self, row: InstanceRow) -> InstanceRow:
        """The steps, each of which may have been taken by a daemon that was killed; the mark goes last."""
        parts, place = self._parts, row.doc["moving"]
        if (row.project, row.name) != (place["project"], place["name"]):
            pool = parts.storage.pool(row.pool)
            if _volume(place) not in pool.volumes():
                await pool.rename_instance(qualified(row.project, row.name), _volume(place))
            row = self._take_place(row, place, place["doc"], place)
        # LXD's images list only create and copy; a renamed guest should know its name all the same.
        parts.templates.apply(row, "copy", "rename")
        return parts.records.change(row, **place["doc"], moving=None)

    async def _carry(self, row: InstanceRow, place: dict[str, str], doc: Document, *, only: bool) -> InstanceRow:
        """To another pool: a copy is made there, the row follows, and the old volume goes."""
        parts = self._parts
        old, old_volume = parts.storage.pool(row.pool), qualified(row.project, row.name)
        pool, volume = parts.storage.pool(place["pool"]), _volume(place)
        taken = {} if only else self._snapshots.of(row)
        if pool.driver == "overlay":
            for fingerprint in {old.instance_image(old_volume, one) for one in ("", *taken)} - {None}:
                assert fingerprint is not None
                with contextlib.suppress(ApiError):
                    await pool.ensure_image(parts.images.files(row.project, fingerprint))
        row = parts.records.change(row, moving=place)
        try:
            await pool.receive_instance(volume, old, old_volume, snapshots=list(taken))
            devices = parts.profiles.expand(place["project"], doc["profiles"], doc["config"], doc["devices"])[1]
            await rootsize.apply(
                parts.storage, replace(row, project=place["project"], name=place["name"], pool=pool.name), devices
            )
        except BaseException:
            await pool.delete_instance(volume)
            parts.records.change(parts.records.get(row.project, row.name), moving=None)
            raise
        with parts.store.transaction():
            for one, past in self._snapshots.of(row).items():
                if one in taken:
                    self._snapshots.put(row, one, on_pool(past, pool.name, self._snapshots.expanded(row, past)[1]))
                else:
                    self._snapshots.drop(row, one)
            row = self._take_place(row, place, _of(doc), _here(row) | {"copied": True})
        parts.templates.apply(row, "copy", "rename")
        await old.delete_instance(old_volume)
        return parts.records.change(row, moving=None)

    def _take_place(self, row: InstanceRow, place: dict[str, str], doc: Document, mark: dict[str, Any]) -> InstanceRow:
        parts = self._parts
        layout = parts.layout
        with contextlib.suppress(OSError):
            os.rename(layout.instance_log(row.project, row.name), layout.instance_log(place["project"], place["name"]))
        if (row.project, row.name) != (place["project"], place["name"]):
            self._release(row, parts.records.expanded(row)[1])
        return parts.records.move(
            row, place["project"], place["name"], place["pool"], {**row.doc, **doc, "moving": mark}
        )

    # -- after a crash ---------------------------------------------------------------------------------------------

    async def settle(self, row: InstanceRow) -> InstanceRow:
        """Finish or undo what a daemon that was killed had begun."""
        if new := row.doc.get("renaming"):  # of a daemon before this one
            row = self._parts.records.change(row, renaming="", moving=_here(row) | {"name": new, "doc": _of(row.doc)})
        mark = row.doc.get("moving")
        if not mark:
            return row
        if mark.get("copied"):
            await self._parts.storage.pool(mark["pool"]).delete_instance(_volume(mark))
            self._parts.templates.apply(row, "copy", "rename")
        elif mark["pool"] == row.pool:
            row = await self._settle_rename(row)
            self._parts.save(row)
            return row
        else:
            await self._parts.storage.pool(mark["pool"]).delete_instance(_volume(mark))
        return self._parts.records.change(row, moving=None)


def _here(row: InstanceRow) -> dict[str, str]:
    return {"pool": row.pool, "project": row.project, "name": row.name}


def _volume(place: dict[str, str]) -> str:
    return qualified(place["project"], place["name"])


def _of(doc: Document) -> Document:
    return {key: doc[key] for key in changes.MUTABLE}

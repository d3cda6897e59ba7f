"""What a project lets its instances, profiles and volumes have: the rules of `lxpy.projects.rules` over what there is.

Every check is made where nothing waits between it and the change, so two changes at once cannot share the same room.
"""

from dataclasses import replace

from lxpy.api import values
from lxpy.api.errors import Forbidden
from lxpy.api.objects import Config, Devices
from lxpy.instances import idmaps
from lxpy.instances.records import Records
from lxpy.projects import rules
from lxpy.projects.rules import Holding, Member
from lxpy.state.store import InstanceRow, Store
from lxpy.state.volumes import VolumeRow


class ProjectRules:
    """Checks changes against the project they are made in. A project without limits costs one look-up."""

    def __init__(self, records: Records, store: Store) -> None:
        self._records, self._store = records, store

    def _config(self, project: str) -> Config:
        """The keys of a project that limit or forbid something."""
        config: Config = (self._store.projects.get(project) or {}).get("config", {})
        return {key: value for key, value in config.items() if key.startswith(("limits.", "restricted"))}

    def check(
        self, project: str, name: str, config: Config, devices: Devices, instead_of: InstanceRow | None = None
    ) -> None:
        """An instance that is to be made, or to be as it is given here (expanded), in the place of another.

        Raises:
            Forbidden: the project does not allow it, with the key that forbids it.
        """
        if not (limits := self._config(project)):
            return
        asked = _member(name, config, devices)
        rules.check_restrictions(project, limits, asked)
        limits.pop("restricted", None)  # the others have passed that before
        holding = self._holding(project)
        gone = {name, instead_of.name} if instead_of and instead_of.project == project else {name}
        others = [one for one in holding.instances if one.name not in gone]
        rules.check(project, limits, replace(holding, instances=[*others, asked]), asked.label)

    def check_project(self, project: str, config: Config | None = None, asks: str = "") -> None:
        """All that a project holds, against its configuration or the one it is to have. Raises `Forbidden`."""
        limits = self._config(project) if config is None else config
        if any(key.startswith(("limits.", "restricted")) for key in limits):
            rules.check(project, limits, self._holding(project), asks)

    def check_profile(self, project: str, name: str, config: Config, devices: Devices) -> None:
        """A profile that is to be made. Raises `Forbidden`."""
        rules.check_restrictions(project, self._config(project), _member(name, config, devices, "profile"))

    def check_volatile(self, project: str, name: str, asked: Config, had: Config) -> None:
        """A restricted project's clients do not write what the daemon notes for itself.

        The image's fingerprint is left out: copies bring it along.

        Raises:
            Forbidden: a ``volatile.*`` key differs.
        """
        limits = self._config(project)
        if rules.restricted(limits) and rules.answer(limits, "restricted.containers.lowlevel") == "block":
            for key in asked.keys() | had.keys():
                if key.startswith("volatile.") and key != "volatile.base_image" and asked.get(key) != had.get(key):
                    raise rules.refusal(project, limits, key, Member(name, {}, {}), "restricted.containers.lowlevel")

    def check_networks(self, count: int) -> None:
        """Whether the server may have so many networks. Raises `Forbidden`."""
        rules.check_networks(self._config("default"), count)

    def check_snapshot(self, project: str) -> None:
        """Raises `Forbidden` where a project has no snapshots of instances and volumes."""
        limits = self._config(project)
        if rules.restricted(limits) and rules.answer(limits, "restricted.snapshots") == "block":
            raise Forbidden(f"Snapshots are forbidden in project {project!r}: restricted.snapshots is block")

    def check_backup(self, project: str) -> None:
        """Raises `Forbidden` where a project makes no backups of instances and volumes."""
        limits = self._config(project)
        if rules.restricted(limits) and rules.answer(limits, "restricted.backups") == "block":
            raise Forbidden(f"Backups are forbidden in project {project!r}: restricted.backups is block")

    def disk_paths(self, project: str) -> list[str]:
        """The directories of the host that disks have to lie in; none: anywhere (or nowhere, by `check`)."""
        return rules.disk_paths(self._config(project))

    def check_volume(self, project: str, pool: str, name: str, size: int | None, instead_of: VolumeRow | None) -> None:
        """A custom volume that is to be, with its size in bytes, in the place of another. Raises `Forbidden`."""
        limits = self._config(project)
        if not limits.get("limits.disk"):
            return
        holding = self._holding(project)
        if instead_of is not None and instead_of.project == project:
            holding.volumes.pop(f"{instead_of.pool}/{instead_of.name}", None)
        holding.volumes[f"{pool}/{name}"] = size
        rules.check(project, {"limits.disk": limits["limits.disk"]}, holding, f"volume '{pool}/{name}'")

    def usage(self, project: str) -> dict[str, dict[str, int]]:
        """LXD's state of a project: ``{resource: {"Limit", "Usage"}}``, bytes or numbers; a limit of -1 is none."""
        return rules.usage(self._config(project), self._holding(project))

    def _holding(self, project: str) -> Holding:
        instances = [_member(row.name, *self._records.expanded(row)) for row in self._records if row.project == project]
        profiles = [
            _member(name, doc["config"], doc["devices"], "profile")
            for name, doc in self._store.profiles.all(project).items()
        ]
        sizes = {
            f"{row.pool}/{row.name}": row.doc["config"].get("size") for row in self._store.volumes.all(None, project)
        }
        volumes = {name: values.size_bytes("size", size) if size else None for name, size in sizes.items()}
        return Holding(instances, profiles, volumes, len(self._store.networks.all()) if project == "default" else 0)


def _member(name: str, config: Config, devices: Devices, kind: str = "instance") -> Member:
    reached = idmaps.raw(config.get("raw.idmap", ""))
    ids = tuple((which, host, host + count - 1) for which, _, host, count in reached)
    return Member(name, config, devices, kind, ids)

"""What uses a network, a pool or a volume: the ``used_by`` of their objects."""

from typing import TYPE_CHECKING

from lxpy.daemon.envelope import url

if TYPE_CHECKING:
    from lxpy.daemon.daemon import Daemon
    from lxpy.state.volumes import VolumeRow


def of_place(daemon: "Daemon", kind: str, name: str) -> list[str]:
    """URLs of the instances, profiles and volumes that a ``network`` or ``storage-pool`` has."""
    found = list(daemon.instances.used_by(kind, name))
    for project in daemon.store.projects.all():
        for profile, doc in daemon.store.profiles.all(project).items():
            for device in doc["devices"].values():
                uses = name in (device.get("network"), device.get("parent")) if kind == "network" else (
                    device.get("type") == "disk" and device.get("pool") == name
                )  # fmt: skip
                if uses:
                    found.append(url("profiles", profile, project))
                    break
    if kind == "storage-pool":
        found += [url(f"storage-pools/{name}/volumes/custom", row.name, row.project)
                  for row in daemon.store.volumes.all(name)]  # fmt: skip
    return found


def of_volume(daemon: "Daemon", row: "VolumeRow") -> list[str]:
    """URLs of the instances and profiles that a custom volume is attached to."""
    from lxpy.instances.disks import names

    found = [url("instances", one.name, one.project) for one in daemon.instances.using_volume(row)]
    for project in daemon.store.projects.all():
        # A profile's devices mean the volumes of the instances that use it; alone, those of its own project.
        if daemon.volumes.home(project) == row.project:
            found += [
                url("profiles", profile, project)
                for profile, doc in daemon.store.profiles.all(project).items()
                if any(names(device, row) for device in doc["devices"].values())
            ]
    return found

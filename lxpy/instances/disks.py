"""The disks of an instance besides its root: what the runtime is to mount, and where."""

import os

from lxpy.api import values
from lxpy.api.errors import NotFound
from lxpy.api.objects import Devices
from lxpy.instances import devices as device_rules
from lxpy.runtime.spec import Mount


def mounts(devices: Devices) -> list[Mount]:
    """What to mount of the expanded devices. Raises `NotFound` for a required source that is not there."""
    return [_mount(device) for device in devices.values() if _is_bind(device)]


def _is_bind(device: dict[str, str]) -> bool:
    return device.get("type") == "disk" and not device_rules.is_root(device)


def _mount(device: dict[str, str]) -> Mount:
    def flag(key: str, default: str) -> bool:
        return values.boolean(key, device.get(key) or default)

    source, required = device["source"], flag("required", "true")
    if required and not os.path.exists(source):
        raise NotFound(f"Missing source path {source!r} for the disk at {device['path']}")
    return {
        "source": source,
        "target": device["path"],
        "readonly": flag("readonly", "false"),
        "recursive": flag("recursive", "false"),
        "required": required,
        "shift": flag("shift", "true"),
    }

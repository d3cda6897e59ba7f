"""Devices as the app shows them. No Textual."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


class DeviceRow:
    """One device as it is in force.

    Attributes:
        owner: the instance's or profile's row.
        origin: ``own``, or ``profile NAME``.
        over: ``profile NAME`` where an own device is there instead of a profile's, else "".
    """

    __slots__ = ("device", "key", "name", "origin", "over", "owner")

    def __init__(self, owner: Any, name: str, device: Mapping[str, str], origin: str, over: str = "") -> None:
        self.owner, self.origin, self.over = owner, origin, over
        self.key = self.name = name
        self.device = dict(device)

    @property
    def own(self) -> bool:
        return self.origin == "own"

    @property
    def kind(self) -> str:
        """``nic`` with what kind of one; else the type."""
        return self.device.get("nictype") or self.device.get("type", "")


def summary(found: Mapping[str, str]) -> str:
    """A device in a few words: what it connects."""
    kind, way = found.get("type", ""), " → "
    if kind == "disk":
        source = f"{found['pool']}/{found['source']}" if found.get("pool") and found.get("source") else (
            found.get("source") or f"pool {found.get('pool', '')}"
        )  # fmt: skip
        text = f"{source}{way}{found.get('path', '')}"
        return text + (" (read-only)" if found.get("readonly", "").lower() in ("true", "1", "yes", "on") else "")
    if kind == "proxy":
        back = found.get("bind", "host") != "host"
        return f"{'inside ' if back else ''}{found.get('listen', '')}{way}{'host ' if back else ''}" + found.get(
            "connect", ""
        )
    if kind == "nic":
        return " ".join(found.get(key, "") for key in ("nictype", "network", "parent", "ipv4.address")).strip()
    if kind == "none":
        return "masked: the profile's device is not there"
    names = ("source", "path", "subsystem", "vendorid", "productid", "id", "pci")
    return " ".join(found[key] for key in names if found.get(key))


def volume_path(device: Mapping[str, str]) -> str:
    """Where the API tells of the volume that a disk is; "" of another disk."""
    if device.get("type") != "disk" or not device.get("pool") or not device.get("source"):
        return ""
    return f"/1.0/storage-pools/{quote(device['pool'])}/volumes/custom/{quote(device['source'])}"

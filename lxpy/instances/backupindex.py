"""``index.yaml`` of an instance's backup: its configuration in LXD's shape, written and read."""

import re
from typing import Any

from lxpy.api.errors import BadRequest
from lxpy.api.expiry import NEVER
from lxpy.api.objects import Config, Devices
from lxpy.state.store import Document, InstanceRow
from lxpy.storage.backupyaml import moment, text

# Of the volatile keys those that mean something on another host. LXD refuses a key it does not know.
_KEPT = re.compile(
    r"volatile\.(?:base_image|uuid|apply_template|cloud-init\.instance-id|last_state\.power|[^.]+\.hwaddr)\Z"
)
# What the owners on LXD's disk are shifted by; ours begin at 0, which it writes so.
DISK_IDMAP = "volatile.last_state.idmap"

Expanded = tuple[Config, Devices]


def build(
    row: InstanceRow,
    expanded: Expanded,
    snapshots: dict[str, tuple[Document, Expanded]],
    pool: Document,
    profiles: dict[str, Document],
) -> Document:
    """The index.

    Args:
        expanded: configuration and devices with the profiles merged in.
        snapshots: their documents (fields as those of an instance's) and the same, by name, oldest first.
        pool: the document of the pool. profiles: those of the profiles.
    """
    container = _common(row.doc, expanded) | {
        "name": row.name,
        "description": row.doc["description"],
        "status": "Stopped",
        "status_code": 102,
        "location": "none",
        "type": "container",
        "project": row.project,
    }
    config: Document = {"container": container}
    volume: Document = {
        "config": {}, "description": "", "name": row.name, "type": "container", "used_by": [], "location": "none",
        "content_type": "filesystem", "project": row.project, "created_at": NEVER,
    }  # fmt: skip
    if snapshots:
        config["snapshots"] = [
            _common(doc, both) | {"name": name, "expires_at": doc.get("expires_at") or NEVER, "size": -1}
            for name, (doc, both) in snapshots.items()
        ]
        config["volume_snapshots"] = [
            {"name": name, "description": "", "expires_at": NEVER, "config": {}, "content_type": "filesystem",
             "created_at": NEVER} for name in snapshots
        ]  # fmt: skip
    config["pool"] = {
        "name": row.pool, "driver": pool.get("driver", ""), "description": pool.get("description", ""),
        "config": pool.get("config", {}), "used_by": [], "status": "Created", "locations": ["none"],
    }  # fmt: skip
    config["profiles"] = [
        {"name": name, "description": doc.get("description", ""), "config": doc.get("config", {}),
         "devices": doc.get("devices", {}), "used_by": []} for name, doc in profiles.items()
    ]  # fmt: skip
    config["volume"] = volume
    index: Document = {"name": row.name, "backend": pool.get("driver", ""), "pool": row.pool}
    if snapshots:
        index["snapshots"] = list(snapshots)
    return index | {"optimized": False, "optimized_header": False, "type": "container", "config": config}


def _common(doc: Document, expanded: Expanded) -> Document:
    return {
        "architecture": doc["architecture"],
        "config": exported(doc["config"]),
        "devices": doc["devices"],
        "ephemeral": doc["ephemeral"],
        "profiles": doc["profiles"],
        "stateful": False,
        "created_at": doc["created_at"],
        "last_used_at": doc.get("last_used_at") or NEVER,
        "expanded_config": exported(expanded[0]),
        "expanded_devices": expanded[1],
    }


def exported(config: Config) -> Config:
    """The keys that go along, and how the owners lie on the disk."""
    kept = {k: v for k, v in config.items() if not k.startswith("volatile.") or _KEPT.match(k)}
    return kept | {DISK_IDMAP: "[]", "volatile.last_state.power": "STOPPED"}


class Described:
    """An instance or a snapshot as an index describes it, checked as far as types go.

    Attributes:
        idmap: what the owners on the disk are shifted by, see `storage.owners`.
        doc: the fields of a record.
    """

    def __init__(self, what: str, given: Any) -> None:
        if not isinstance(given, dict):
            raise BadRequest(f"{what}: its index.yaml does not describe it")
        config, devices, profiles = (given.get(key) or kind() for key, kind in _TYPES.items())
        if not (
            isinstance(config, dict) and isinstance(devices, dict) and isinstance(profiles, list)
            and all(isinstance(one, dict) for one in devices.values()) and all(isinstance(p, str) for p in profiles)
        ):  # fmt: skip
            raise BadRequest(f"{what}: its index.yaml has config, devices or profiles of a wrong type")
        texts = {str(key): text(value) for key, value in config.items()}
        self.name = str(given.get("name") or "")
        self.idmap = texts.get(DISK_IDMAP, "")
        self.doc: Document = {
            "type": "container",
            "architecture": str(given.get("architecture") or ""),
            "description": str(given.get("description") or ""),
            "ephemeral": given.get("ephemeral") is True,
            "created_at": moment(given.get("created_at")),
            "last_used_at": moment(given.get("last_used_at")),
            "expires_at": moment(given.get("expires_at")),
            "profiles": profiles,
            "config": {
                key: value for key, value in texts.items()
                if value != "" and (not key.startswith("volatile.") or _KEPT.match(key))
            },
            "devices": {str(n): {str(k): text(v) for k, v in one.items()} for n, one in devices.items()},
        }  # fmt: skip


_TYPES: dict[str, type] = {"config": dict, "devices": dict, "profiles": list}

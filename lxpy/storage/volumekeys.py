"""The configuration keys of custom volumes that lxpy honours, and how their values are checked; LXD's names."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lxpy.api import expiry, values
from lxpy.api.errors import BadRequest
from lxpy.storage import retention

if TYPE_CHECKING:
    from lxpy.storage.pool import Pool

_NOT_HERE = {
    "security.unmapped": "owners always go through the id map; share a host directory with shift=false instead",
    "security.shared": "only block volumes know it",
    "block.filesystem": "volumes are directories on the pool's own file system",
    "block.mount_options": "volumes are directories on the pool's own file system",
}


def checked(config: Any) -> dict[str, str]:
    """The configuration of a volume, empty values left out. Raises `BadRequest`."""
    kept: dict[str, str] = {}
    for key, value in plain(config).items():
        if value in ("", None):
            continue
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if key == "size":
            if not values.size_bytes(key, text):
                continue
        elif key == "snapshots.expiry":
            expiry.check(key, text)
        elif key == "snapshots.pattern":
            retention.check_pattern(key, text)
        elif key == "snapshots.schedule":
            retention.check_schedule(key, text)
        elif key.startswith(retention.SCHEDULES):
            retention.check_schedules(key, text)
        elif key == "security.shifted":
            if not values.boolean(key, text):
                raise BadRequest("security.shifted cannot be false: volumes are always mounted through the id map")
        elif key in _NOT_HERE:
            raise BadRequest(f"{key} is not supported by this version of lxpy: {_NOT_HERE[key]}")
        elif not key.startswith(("user.", "volatile.")):
            known = "size, snapshots.expiry, .pattern, .schedule, .schedules.NAME, security.shifted, user.*"
            raise BadRequest(f"Unknown key {key!r} of a custom volume; known: {known}")
        kept[key] = text
    retention.check_plans(kept)
    return kept


def plain(config: Any) -> dict[str, Any]:
    """Raises `BadRequest` unless it is a set of keys and values."""
    if not isinstance(config, dict):
        raise BadRequest("config must be a set of keys and values")
    return config


def defaults(pool: dict[str, str]) -> dict[str, str]:
    """What a new volume has unless it is told otherwise: the ``volume.*`` keys of its pool's configuration."""
    return {key.removeprefix("volume."): value for key, value in pool.items() if key.startswith("volume.")}


def fitting(config: dict[str, str], pool: "Pool", note: Callable[[str], None]) -> dict[str, str]:
    """The configuration of a volume that comes to a pool from elsewhere, without a size that this cannot keep."""
    try:
        pool.check_size(size(config))
    except BadRequest as error:
        note(f"The volume's size, {config['size']}, is left out: {error}")
        return {key: value for key, value in config.items() if key != "size"}
    return config


def size(config: dict[str, str]) -> int | None:
    """Bytes it may hold; None for no limit."""
    return values.size_bytes("size", config["size"]) if config.get("size") else None

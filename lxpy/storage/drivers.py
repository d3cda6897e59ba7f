"""Which drivers there are, what their pools may be configured with, and whether a file system will do for them."""

import os

from lxpy.api.errors import BadRequest
from lxpy.linux import idmap
from lxpy.storage import backing, files, volumekeys
from lxpy.storage.btrfsdriver import BtrfsPool
from lxpy.storage.dirdriver import DirPool
from lxpy.storage.overlaydriver import OverlayPool, mount_overlay
from lxpy.storage.pool import DirectoryPool

DRIVERS: dict[str, type[DirectoryPool]] = {"overlay": OverlayPool, "dir": DirPool, "btrfs": BtrfsPool}
# What clients keep for themselves, and what LXD's own clients send back of a pool they have read.
_FREE_PREFIXES = ("user.", "volatile.")


def usable() -> list[str]:
    """The drivers that this host has everything for, sorted."""
    return sorted(name for name in DRIVERS if name != "btrfs" or backing.available())


def known(driver: str) -> type[DirectoryPool]:
    """Raises `BadRequest`."""
    if driver not in DRIVERS:
        raise BadRequest(
            f"Storage driver {driver!r} is not supported{' yet' if driver in ('zfs', 'lvm') else ''}; "
            f"drivers: {', '.join(DRIVERS)}"
        )
    return DRIVERS[driver]


def check_keys(kind: type[DirectoryPool], config: dict[str, str]) -> None:
    """Raises `BadRequest` for a key that pools of a kind do not have."""
    for key, value in config.items():
        if key.startswith("volume."):
            _check_default(kind, key, value)
            continue
        if key == "size" and key not in kind.keys:
            raise BadRequest(
                f"size cannot be set on a {kind.driver} pool: it shares the file system its source lies on; "
                "make a file system of that size and give its mount point as source"
            )
        if key not in kind.keys and not key.startswith(_FREE_PREFIXES):
            raise BadRequest(
                f"Unknown key {key!r} of a {kind.driver} pool; known: {', '.join(kind.keys)}, volume.*, user.*"
            )


def _check_default(kind: type[DirectoryPool], key: str, value: str) -> None:
    inner = key.removeprefix("volume.")
    if inner == "size" and value and not kind.keeps_sizes:
        raise BadRequest(f"volume.size cannot be set on a {kind.driver} pool: the driver keeps no quotas")
    try:
        volumekeys.checked({inner: value})
    except BadRequest as error:
        raise BadRequest(f"{key}: {error}") from None


def probe(pool: DirectoryPool) -> None:
    """Refuses a file system on which no instance could start. Blocks; 20 ms the first time per file system."""
    if not idmap.supports_idmap(pool.source):
        raise BadRequest(
            f"{pool.source} will not do for a storage pool: this kernel cannot mount its file system id-mapped; "
            "use a directory on ext4, xfs or btrfs as source"
        )
    if not isinstance(pool, OverlayPool):
        return
    layers = f"{pool.source}/tmp/probe"
    try:
        for part in ("lower", "upper", "work"):
            os.makedirs(f"{layers}/{part}", mode=0o700, exist_ok=True)
        os.close(mount_overlay(f"{layers}/lower", layers))
    except OSError as error:
        raise BadRequest(
            f"{pool.source} will not do for an overlay pool: the kernel says {error.strerror!r}; "
            "use the driver dir, or a directory on ext4, xfs or btrfs as source"
        ) from None
    finally:
        files.remove_tree(layers, f"{pool.source}/tmp")

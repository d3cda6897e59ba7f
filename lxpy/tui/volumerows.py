"""What uses the space of a pool, as the app shows it: volumes, their snapshots, instances, images. No Textual."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from lxpy.tui.rows import epoch

_ORDER = ("custom", "container", "virtual-machine", "image")


class VolumeRow:
    """One volume or snapshot of one.

    Attributes:
        pool: the pool's name; `driver` its driver.
        volume, snapshot: the parts of its name; `snapshot` is "" of a volume.
        used, total: bytes; -1 where it is not known, a total of 0 is the whole pool.
        type: ``custom``, or of what it comes and goes with.
        users: who has it, as ``instance web1``.
    """

    __slots__ = ("created", "driver", "expires", "key", "last", "name", "pool", "raw", "snapshot", "snapshots",
                 "total", "type", "used", "users", "volume")  # fmt: skip
    kind = "volumes"

    def __init__(self, pool: str, driver: str, raw: dict[str, Any]) -> None:
        self.pool, self.driver, self.raw = pool, driver, raw
        self.type: str = raw["type"]
        self.name: str = raw["name"]
        self.volume, _, self.snapshot = self.name.partition("/")
        self.key = f"{self.type} {self.name}"
        self.created, self.expires = epoch(raw.get("created_at", "")), epoch(raw.get("expires_at", ""))
        self.used = self.total = -1
        self.snapshots, self.last = 0, False
        self.users = users(raw.get("used_by") or [])

    @property
    def custom(self) -> bool:
        return self.type == "custom"

    @property
    def path(self) -> str:
        """Where the API has it."""
        whole = volume_url(self.pool, self.volume)
        return f"{whole}/snapshots/{quote(self.snapshot)}" if self.snapshot else whole


def volume_url(pool: str, volume: str = "") -> str:
    """Of a custom volume; of all of them without a name."""
    return f"/1.0/storage-pools/{quote(pool)}/volumes/custom" + (f"/{quote(volume)}" if volume else "")


def users(urls: Iterable[str]) -> list[str]:
    """``instance web1`` of each URL of a ``used_by``; with the project where it is another one."""
    found = []
    for url in urls:
        path, _, query = url.partition("?")
        kind, _, name = path.removeprefix("/1.0/").partition("/")
        project = query.partition("project=")[2]
        found.append(f"{kind.removesuffix('s')} {name}" + (f" ({project})" if project else ""))
    return found


def rows(
    pool: str, driver: str, raws: Iterable[dict[str, Any]], spaces: Mapping[str, tuple[int, int]]
) -> list[VolumeRow]:
    """Everything in a pool: custom volumes with their snapshots below them, then what comes with instances and images.

    Args:
        spaces: used and total bytes by `VolumeRow.key`, as far as they are known.
    """
    found = [VolumeRow(pool, driver, raw) for raw in raws if raw.get("type") in _ORDER]
    found.sort(key=lambda row: (_ORDER.index(row.type), row.volume, bool(row.snapshot), row.created, row.snapshot))
    for row, after in itertools.zip_longest(found, found[1:]):
        row.used, row.total = spaces.get(row.key, (-1, -1))
        row.last = after is None or not after.snapshot
        if not row.snapshot:
            row.snapshots = sum(bool(one.snapshot) for one in found if (one.type, one.volume) == (row.type, row.volume))
    return found

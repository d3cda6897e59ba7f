"""The `size` of an instance's root disk: a limit that its pool keeps.

Without one an instance has what ``volume.size`` of its pool was when it was made.
"""

import contextlib
from collections.abc import AsyncIterator

from lxpy.api import values
from lxpy.api.errors import ApiError, BadRequest
from lxpy.api.layout import qualified
from lxpy.api.objects import Devices
from lxpy.instances.devices import is_root
from lxpy.state.store import InstanceRow
from lxpy.storage.manager import StorageManager
from lxpy.storage.pool import Pool

DEFAULT = "volatile.root.size"


def given(devices: Devices) -> str | None:
    """What expanded devices say; None where they say nothing."""
    return next((device.get("size") for device in devices.values() if is_root(device)), None)


def _bytes(text: str | None) -> int | None:
    """Of a size; None for no limit."""
    return values.size_bytes("size", text) or None if text else None


def _wanted(pool: Pool, row: InstanceRow, devices: Devices) -> int | None:
    said = given(devices)
    if said is not None:
        return _bytes(said)
    with contextlib.suppress(BadRequest):
        size = _bytes(row.doc["config"].get(DEFAULT))
        pool.check_size(size)
        return size
    return None  # it has come from another pool


def usage(storage: StorageManager, row: InstanceRow, devices: Devices) -> dict[str, dict[str, int]]:
    """The ``disk`` of an instance's state: bytes its root takes, where the pool can tell without walking it."""
    with contextlib.suppress(ApiError, OSError):  # a pool that is away
        used = storage.pool(row.pool).usage(qualified(row.project, row.name))
        name = next((name for name, device in devices.items() if is_root(device)), "root")
        return {} if used is None else {name: {"usage": used}}
    return {}


def check(storage: StorageManager, pool: str, devices: Devices) -> None:
    """Raises `BadRequest` where the pool keeps no limits."""
    storage.pool(pool).check_size(_bytes(given(devices)))


def check_arriving(storage: StorageManager, pool: str, devices: Devices) -> None:
    """The same of a root that comes from another pool, and may have been limited there."""
    try:
        check(storage, pool, devices)
    except BadRequest as error:
        name = next(name for name, device in devices.items() if is_root(device))
        raise BadRequest(f"{error}, or leave the size out (-d {name},size=)") from None


async def apply(storage: StorageManager, row: InstanceRow, devices: Devices) -> None:
    """Have the root limited as its (expanded) devices say.

    Raises:
        BadRequest: the pool keeps no limits, or the root holds more already.
    """
    pool, volume = storage.pool(row.pool), qualified(row.project, row.name)
    size = _wanted(pool, row, devices)
    if pool.instance_limit(volume) != size:
        await pool.limit_instance(volume, size)


@contextlib.asynccontextmanager
async def applied(storage: StorageManager, row: InstanceRow, devices: Devices) -> AsyncIterator[None]:
    """As `apply`; when the body fails the old limit comes back. A crash in between: the next start applies again."""
    pool, volume = storage.pool(row.pool), qualified(row.project, row.name)
    old = pool.instance_limit(volume)
    await apply(storage, row, devices)
    try:
        yield
    except BaseException:
        if pool.instance_limit(volume) != old:
            await pool.limit_instance(volume, old)
        raise

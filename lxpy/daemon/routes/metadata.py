"""``/1.0/metadata/configuration``: which keys there are, and what for (LXD's); and, ours, what is wrong with values."""

from typing import Any

from lxpy.api.errors import Forbidden
from lxpy.api.keytexts import group
from lxpy.daemon import envelope, vetting
from lxpy.daemon.call import Call, Route
from lxpy.daemon.lean import web


def configs() -> dict[str, Any]:
    """All keys, by the object they belong to."""
    # Not held while nobody asks: an idle daemon has no use for the texts.
    from lxpy.instances import devicetexts, keytexts
    from lxpy.networks.keytexts import BRIDGE
    from lxpy.projects import keytexts as projecttexts
    from lxpy.storage import keytexts as storagetexts
    from lxpy.storage.drivers import DRIVERS

    return {
        "instance": keytexts.configs(),
        "network-bridge": {"network-conf": group(BRIDGE)},
        "project": {
            "features": group(projecttexts.FEATURES), "limits": group(projecttexts.LIMITS),
            "restricted": group(projecttexts.RESTRICTED), "specific": group(projecttexts.OWN),
        },
        **{f"device-{name}": {"device-conf": group(keys)} for name, keys in devicetexts.DEVICES.items()},
        **{
            f"storage-{driver}": {
                "pool-conf": group(storagetexts.pool(driver)), "volume-conf": group(storagetexts.volume(driver)),
            }
            for driver in DRIVERS
        },
    }  # fmt: skip


async def configuration(call: Call) -> web.StreamResponse:
    return envelope.sync({"configs": configs()})


async def check(call: Call) -> web.StreamResponse:
    body = await call.body()
    if call.allowed is not None and body.get("kind") == "project":
        raise Forbidden("not authorized: this client is restricted, and projects that it may not see would be told of")
    if call.allowed is not None and body.get("kind") == "storage-pool":
        raise Forbidden("not authorized: this client is restricted, and a pool's source is looked at")
    return envelope.sync(await vetting.check(call.daemon, body))


ROUTES: list[Route] = [
    ("GET", "/1.0/metadata/configuration", configuration),
    ("POST", "/1.0/metadata/check", check),
]

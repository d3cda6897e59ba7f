"""``/internal/recover``: what of a lost database can be read back from the pools. For clients on this machine only."""

from typing import Any

from lxpy.api.errors import BadRequest, Forbidden
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation


def _check(call: Call) -> None:
    # Sources are paths and devices of the host, and what is read from them is believed.
    if call.der is not None:
        raise Forbidden("not authorized: pools are recovered on the server itself")


async def _wanted(call: Call) -> list[dict[str, Any]]:
    pools = (await call.body()).get("pools") or []
    if not isinstance(pools, list) or not all(isinstance(one, dict) for one in pools):
        raise BadRequest("pools must be a list of pools: name, driver, config")
    return pools


async def strays(call: Call) -> web.StreamResponse:
    """Pools in the daemon's own directory that it does not know: as `LostPools.strays`."""
    _check(call)
    return envelope.sync(await call.daemon.storage.lost.strays_now())


async def validate(call: Call) -> web.StreamResponse:
    """``{"pools": [...]}``: what would be recovered from them, and from the pools there are."""
    _check(call)
    return envelope.sync(await call.daemon.instances.recovery.look(await _wanted(call)))


async def recover(call: Call) -> web.StreamResponse:
    """The same, done; the operation's metadata tell as ``validate`` does."""
    _check(call)
    pools = await _wanted(call)

    async def work(operation: Operation) -> None:
        operation.metadata["recovery"] = await call.daemon.instances.recovery.recover(pools)

    return call.run("Recovering storage pools", "", [], work)


ROUTES: list[Route] = [
    ("GET", "/internal/recover", strays),
    ("POST", "/internal/recover/validate", validate),
    ("POST", "/internal/recover/import", recover),
]

"""What running instances use, and what keeps them in: ``/1.0/usage``, ``/1.0/instances/{name}/isolation``; ours."""

import asyncio

from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.lean import web
from lxpy.instances.isolation import read as read_isolation


async def usage(call: Call) -> web.StreamResponse:
    """One reading of all running instances: see `lxpy.instances.usage`."""
    project, everywhere = call.project, call.all_projects

    def wanted(name: str) -> bool:
        return (everywhere or name == project) and call.may_see(name)

    return envelope.sync(call.daemon.instances.meter.read(wanted))


async def isolation(call: Call) -> web.StreamResponse:
    """What keeps a running instance in: see `lxpy.instances.isolation`."""
    live = call.daemon.instances.meter.running(call.project, call.part("name"))
    return envelope.sync(await asyncio.to_thread(read_isolation, live))


ROUTES: list[Route] = [
    ("GET", "/1.0/usage", usage),
    ("GET", "/1.0/instances/{name}/isolation", isolation),
]

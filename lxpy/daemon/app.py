"""The web application: every route, behind errors and authentication."""

import asyncio
import weakref
from collections.abc import Awaitable, Callable

from lxpy.api.errors import Conflict, Forbidden
from lxpy.daemon import access, envelope
from lxpy.daemon.call import Call, is_https
from lxpy.daemon.daemon import Daemon
from lxpy.daemon.lean import web

_MAX_BODY = 16 << 20  # bytes of a JSON body; uploads are streamed and have no limit
# Without a trusted certificate. The handlers of images then show public ones only, or want a secret.
_PUBLIC = {
    ("GET", "/"), ("GET", "/1.0"), ("POST", "/1.0/certificates"), ("GET", "/1.0/operations/{id}/wait"),
    ("GET", "/1.0/images"), ("POST", "/1.0/images"), ("GET", "/1.0/images/{fingerprint}"),
    ("GET", "/1.0/images/{fingerprint}/export"), ("GET", "/1.0/images/aliases"),
    ("GET", "/1.0/images/aliases/{name:.+}"),
}  # fmt: skip


def build(daemon: Daemon) -> web.Application:
    """The application: every route table, behind errors and authentication."""
    from lxpy.daemon.routes import (
        acls,
        backups,
        certificates,
        files,
        images,
        insight,
        instances,
        metadata,
        networks,
        operations,
        processes,
        profiles,
        rebuilds,
        recover,
        server,
        snapshots,
        storage,
        storage_volumes,
        volume_backups,
        warnings,
    )

    changing: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
    app = web.Application(middlewares=[envelope.errors], client_max_size=_MAX_BODY)
    modules = (
        server,
        instances,
        snapshots,
        backups,
        rebuilds,
        processes,
        files,
        insight,
        images,
        networks,
        acls,
        storage,
        storage_volumes,
        volume_backups,
        profiles,
        operations,
        certificates,
        warnings,
        recover,
        metadata,
    )
    for module in modules:
        for method, path, handler in module.ROUTES:
            public = (method, path) in _PUBLIC
            app.router.add_route(method, path, _bound(daemon, handler, public, changing))
    return app


def _bound(
    daemon: Daemon,
    handler: Callable[[Call], Awaitable[web.StreamResponse]],
    public: bool,
    changing: weakref.WeakValueDictionary[str, asyncio.Lock],
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        client, der = None, None
        if is_https(request):
            assert request.transport is not None
            der = request.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
            client = daemon.trust.client(der)
        call = Call(daemon, request, client, der)
        if not call.trusted and not public:
            raise Forbidden("not authorized: this client's certificate is not trusted by the server")
        if daemon.shutting_down and request.method in ("POST", "PUT"):
            raise Conflict("The server is shutting down")
        access.check(call)
        if request.method not in access.READS:
            await daemon.storage.watch.revive()
        if request.method not in ("PUT", "PATCH"):
            return await handler(call)
        await request.read()  # here: who sends slowly holds nobody up
        # What an object is compared with (If-Match) or merged into has to be the same until it is written.
        async with changing.setdefault(request.path, asyncio.Lock()):
            return await handler(call)

    return serve

"""``/1.0/instances/{name}/rebuild``, ``…/metadata`` and ``…/metadata/templates``."""

from lxpy.api.errors import BadRequest
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation

_METADATA = ("architecture", "creation_date", "expiry_date", "properties", "templates")


async def rebuild(call: Call) -> web.StreamResponse:
    rebuilding, project, name = call.daemon.instances.rebuilding, call.project, call.part("name")
    body = await call.body()
    rebuilding.validate(project, name, body)

    async def work(op: Operation) -> None:
        await rebuilding.rebuild(project, name, body, op.progress)

    return call.run("Rebuilding instance", "instances", [name], work, may_cancel=True)


async def get(call: Call) -> web.StreamResponse:
    found = call.daemon.instances.image_files.metadata(call.project, call.part("name"))
    return envelope.sync(found, etag=etag(found, _METADATA))


async def put(call: Call) -> web.StreamResponse:
    files, project, name = call.daemon.instances.image_files, call.project, call.part("name")
    check(call.if_match, files.metadata(project, name), _METADATA)
    await files.change(project, name, await call.body(), call.request.method == "PATCH")
    return envelope.sync({})


def _path(call: Call) -> str:
    path = call.request.query.get("path", "")
    if not path:
        raise BadRequest("No template named: ?path=NAME")
    return path


async def templates(call: Call) -> web.StreamResponse:
    """The names, or with ``path`` the text of one."""
    files, project, name = call.daemon.instances.image_files, call.project, call.part("name")
    if "path" not in call.request.query:
        return envelope.sync(files.templates(project, name))
    text = files.template(project, name, _path(call))
    return web.Response(body=text.encode(errors="surrogateescape"), content_type="application/octet-stream")


async def write(call: Call) -> web.StreamResponse:
    files, project, name, path = call.daemon.instances.image_files, call.project, call.part("name"), _path(call)
    try:
        text = (await call.request.read()).decode()
    except UnicodeDecodeError:
        raise BadRequest(f"Template {path!r} is not text in UTF-8") from None
    await files.write(project, name, path, text)
    return envelope.sync({}, location=f"{url('instances', name)}/metadata/templates?path={path}")


async def delete(call: Call) -> web.StreamResponse:
    await call.daemon.instances.image_files.delete(call.project, call.part("name"), _path(call))
    return envelope.sync({})


def _routes() -> list[Route]:
    routes: list[Route] = []
    for base in ("/1.0/instances/{name}", "/1.0/containers/{name}"):
        routes += [
            ("POST", base + "/rebuild", rebuild),
            ("GET", base + "/metadata", get),
            ("PUT", base + "/metadata", put),
            ("PATCH", base + "/metadata", put),
            ("GET", base + "/metadata/templates", templates),
            ("POST", base + "/metadata/templates", write),
            ("PUT", base + "/metadata/templates", write),
            ("DELETE", base + "/metadata/templates", delete),
        ]
    return routes


ROUTES = _routes()

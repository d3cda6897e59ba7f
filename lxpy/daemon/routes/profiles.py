"""``/1.0/profiles`` and ``/1.0/projects``."""

from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.envelope import url
from lxpy.daemon.etag import CONFIGURED, PROFILE, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation
from lxpy.daemon.routes.common import listing


async def list_profiles(call: Call) -> web.StreamResponse:
    return listing(call, "profiles", call.daemon.profiles.list(call.project), project=call.project)


async def create_profile(call: Call) -> web.StreamResponse:
    name = call.daemon.profiles.create(call.project, await call.body())
    return envelope.sync({}, location=url("profiles", name, call.project))


async def get_profile(call: Call) -> web.StreamResponse:
    profile = call.daemon.profiles.get(call.project, call.part("name"))
    return envelope.sync(profile, etag=etag(profile, PROFILE))


async def put_profile(call: Call) -> web.StreamResponse:
    project, name = call.project, call.part("name")
    check(call.if_match, call.daemon.profiles.get(project, name), PROFILE)
    body = await call.body()
    await call.daemon.profiles.update(project, name, body, patch=call.request.method == "PATCH")
    return envelope.sync({})


async def rename_profile(call: Call) -> web.StreamResponse:
    new = str((await call.body()).get("name") or "")
    call.daemon.profiles.rename(call.project, call.part("name"), new)
    return envelope.sync({}, location=url("profiles", new, call.project))


async def delete_profile(call: Call) -> web.StreamResponse:
    call.daemon.profiles.delete(call.project, call.part("name"))
    return envelope.sync({})


async def list_projects(call: Call) -> web.StreamResponse:
    found = [one for one in call.daemon.projects.list() if call.may_see(one["name"])]
    return listing(call, "projects", found)


async def create_project(call: Call) -> web.StreamResponse:
    name = call.daemon.projects.create(await call.body())
    call.daemon.profiles.ensure_default(name)
    return envelope.sync({}, location=url("projects", name))


async def get_project(call: Call) -> web.StreamResponse:
    project = call.daemon.projects.get(call.part("name"))
    return envelope.sync(project, etag=etag(project, CONFIGURED))


async def put_project(call: Call) -> web.StreamResponse:
    name = call.part("name")
    check(call.if_match, call.daemon.projects.get(name), CONFIGURED)
    call.daemon.projects.update(name, await call.body(), patch=call.request.method == "PATCH")
    call.daemon.profiles.ensure_default(name)
    return envelope.sync({})


async def delete_project(call: Call) -> web.StreamResponse:
    call.daemon.projects.delete(call.part("name"))
    call.daemon.profiles.forget(call.part("name"))
    return envelope.sync({})


async def rename_project(call: Call) -> web.StreamResponse:
    name = call.part("name")
    new = str((await call.body()).get("name") or "")
    daemon = call.daemon
    daemon.projects.validate_rename(name, new)

    async def work(op: Operation) -> None:  # LXD's clients expect an operation
        daemon.projects.rename(name, new)
        daemon.profiles.forget(name)

    return call.run("Renaming project", "projects", [name], work)


async def project_state(call: Call) -> web.StreamResponse:
    """What the project may hold and holds."""
    name = call.part("name")
    call.daemon.projects.get(name)
    return envelope.sync({"resources": call.daemon.instances.rules.usage(name)})


ROUTES: list[Route] = [
    ("GET", "/1.0/profiles", list_profiles),
    ("POST", "/1.0/profiles", create_profile),
    ("GET", "/1.0/profiles/{name}", get_profile),
    ("PUT", "/1.0/profiles/{name}", put_profile),
    ("PATCH", "/1.0/profiles/{name}", put_profile),
    ("POST", "/1.0/profiles/{name}", rename_profile),
    ("DELETE", "/1.0/profiles/{name}", delete_profile),
    ("GET", "/1.0/projects", list_projects),
    ("POST", "/1.0/projects", create_project),
    ("GET", "/1.0/projects/{name}", get_project),
    ("PUT", "/1.0/projects/{name}", put_project),
    ("PATCH", "/1.0/projects/{name}", put_project),
    ("POST", "/1.0/projects/{name}", rename_project),
    ("DELETE", "/1.0/projects/{name}", delete_project),
    ("GET", "/1.0/projects/{name}/state", project_state),
]

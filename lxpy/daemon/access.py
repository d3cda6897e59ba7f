"""What a restricted client may do: its own projects, and nothing of the server's.

One rule for every route, looked up by the path, so that a route nobody thought of here is closed to such a client.
"""

from typing import TYPE_CHECKING, Any

from lxpy.api.errors import Forbidden

if TYPE_CHECKING:
    from lxpy.daemon.call import Call

READS = ("GET", "HEAD", "OPTIONS")
# Kinds that lie in a project, and the feature without which they are the default project's.
_IN_PROJECTS = {
    "instances": "", "containers": "", "virtual-machines": "", "operations": "", "events": "",
    "images": "images", "profiles": "profiles",
}  # fmt: skip
# Of the whole server; a client of a project needs to see them to use them.
_READABLE = ("networks", "network-acls", "storage-pools", "resources", "cluster")


def check(call: "Call") -> None:
    """Whether a restricted client may make this call.

    Raises:
        Forbidden: it may not, with what it may use.
    """
    parts = call.request.path.strip("/").split("/")[1:]
    method, allowed = call.request.method, call.allowed
    if allowed is None:
        return
    kind = parts[0] if parts else ""
    if kind == "storage-pools" and len(parts) > 2 and parts[2] in ("volumes", "buckets"):
        _in_project(call, "storage.volumes")
    elif kind in _IN_PROJECTS:
        _in_project(call, _IN_PROJECTS[kind])
    elif kind == "projects" and method in READS:
        if len(parts) > 1 and parts[1] not in allowed:
            raise _forbidden(call, f"project {parts[1]!r}")
    elif kind == "metadata":
        return  # what the rules are; nothing is changed there
    elif not (method in READS and kind in ("", "certificates", *_READABLE)):
        raise _forbidden(call, "the server's own settings")


def _in_project(call: "Call", feature: str) -> None:
    assert call.allowed is not None
    # Of all projects a list shows those that it may see.
    if not (call.all_projects and call.request.method in READS):
        _permit(call, call.request.query.get("project") or "default")
    if call.request.method in READS:
        return
    if feature:
        _permit(call, call.daemon.projects.home(call.project, feature))
    for key in ("target-project", "target_project"):
        if name := call.request.query.get(key):
            _permit(call, name)


def check_body(call: "Call", body: dict[str, Any]) -> None:
    """A copy or a move names another project in its body. Raises `Forbidden`.

    The project of an image on another server is that server's affair.
    """
    source = body.get("source")
    source = source if isinstance(source, dict) else {}
    pushed = call.request.path.startswith("/1.0/images/") and call.request.path.endswith("/export")
    if source.get("type") == "image" and source.get("server"):
        source = {}
    for place in ({} if pushed else body, source):
        for key in ("project", "target_project"):
            if name := place.get(key):
                _permit(call, str(name))


def _permit(call: "Call", project: str) -> None:
    if not call.may_see(project):
        raise _forbidden(call, f"project {project!r}")


def _forbidden(call: "Call", what: str) -> Forbidden:
    allowed = ", ".join(sorted(call.allowed or ())) or "none"
    return Forbidden(f"not authorized: this client is restricted (projects: {allowed}) and may not use {what}")


def visible(call: "Call", urls: list[str]) -> list[str]:
    """Of the URLs in a ``used_by`` those whose project the client may see."""
    if call.allowed is None:
        return urls
    return [url for url in urls if call.may_see(_project(url))]


def _project(url: str) -> str:
    from urllib.parse import parse_qs, urlsplit

    return parse_qs(urlsplit(url).query).get("project", ["default"])[0]


def projects_of(client: dict[str, Any] | None) -> frozenset[str] | None:
    """The projects of a restricted client; None for one that may do everything."""
    return frozenset(client["projects"]) if client is not None and client["restricted"] else None

"""One request, as the routes see it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.daemon import access, envelope, shapes
from lxpy.daemon.daemon import Daemon
from lxpy.daemon.lean import web
from lxpy.daemon.operations import Operation, Work


class Call:
    """A request, who makes it, and what it may see."""

    def __init__(self, daemon: Daemon, request: web.Request, client: dict[str, Any] | None, der: bytes | None) -> None:
        self.daemon = daemon
        self.request = request
        self.der = der  # the client's certificate, over HTTPS
        self.client = client  # the record of that certificate, if it is trusted
        self.trusted = client is not None or not is_https(request)
        self.allowed = access.projects_of(client)  # the projects of a restricted client; None: everything

    def may_see(self, project: str) -> bool:
        return self.allowed is None or project in self.allowed

    @property
    def query(self) -> "dict[str, str]":
        return self.request.query  # type: ignore[return-value]

    @property
    def project(self) -> str:
        """The project asked for. Raises `NotFound` when there is none of that name."""
        name = self.request.query.get("project") or "default"
        if name != "default" and not self.daemon.projects.exists(name):
            raise NotFound(f"Project {name!r} not found")
        return name

    @property
    def all_projects(self) -> bool:
        return self.request.query.get("all-projects", "").lower() in ("true", "1", "yes")

    @property
    def recursion(self) -> int:
        try:
            return int(self.request.query.get("recursion") or 0)
        except ValueError:
            raise BadRequest("recursion must be 0, 1 or 2") from None

    @property
    def if_match(self) -> str | None:
        return self.request.headers.get("If-Match")

    def part(self, name: str) -> str:
        """A variable part of the path."""
        return self.request.match_info[name]

    def header(self, name: str) -> str:
        """``X-LXD-{name}`` or ``X-Incus-{name}``."""
        headers = self.request.headers
        return headers.get(f"X-LXD-{name}") or headers.get(f"X-Incus-{name}") or ""

    async def body(self) -> dict[str, Any]:
        """The JSON object of the request; an empty body of a POST is an empty object.

        Raises:
            BadRequest: it is none, a field is of another kind than it always is (`shapes`), or a PUT or PATCH says
                nothing: that would empty the object, or do nothing and look as if it had.
        """
        data = await self.request.read()
        if not data.strip():
            if self.request.method in ("PUT", "PATCH"):
                raise BadRequest(f"The request has no body: {self.request.method} needs the object as JSON")
            return {}
        try:
            body = json.loads(data)
        except ValueError as error:
            raise BadRequest(f"The request's body is not JSON: {error}") from None
        if not isinstance(body, dict):
            raise BadRequest("The request's body must be a JSON object")
        shapes.check(body)
        access.check_body(self, body)
        return body

    def run(
        self, description: str, kind: str, names: list[str], work: Work, *, may_cancel: bool = False
    ) -> web.Response:
        """Start an operation on objects of a kind and answer 202."""
        return envelope.accepted(self.start(description, kind, names, work, may_cancel=may_cancel))

    def start(
        self, description: str, kind: str, names: list[str], work: Work, *, may_cancel: bool = False, **more: Any
    ) -> Operation:
        """Start an operation; `class_` and `metadata` may be among `more`."""
        suffix = "" if self.project == "default" else f"?project={self.project}"
        resources = {kind: [f"/1.0/{kind}/{name}{suffix}" for name in names]} if names else {}
        if kind == "instances":  # older clients look for these
            resources["containers"] = [url.replace("/instances/", "/containers/") for url in resources["instances"]]
        class_ = more.pop("class_", "task")
        return self.daemon.operations.run(
            class_, description, resources, work, self.project, may_cancel=may_cancel, **more
        )


def is_https(request: web.Request) -> bool:
    transport = request.transport
    return transport is not None and transport.get_extra_info("ssl_object") is not None


Route = tuple[str, str, Callable[[Call], Awaitable[web.StreamResponse]]]

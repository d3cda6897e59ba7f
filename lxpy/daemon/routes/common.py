"""What every list has in common: project, recursion, filter."""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from lxpy.api.errors import BadRequest
from lxpy.daemon import access, envelope, filter
from lxpy.daemon.call import Call
from lxpy.daemon.lean import web


def url(kind: str, name: str, project: str = "default") -> str:
    """``/1.0/kind/name``, with the project unless it is the default one."""
    suffix = "" if project == "default" else f"?project={quote(project)}"
    return f"/1.0/{kind}/{quote(name, safe='')}{suffix}"


def texts(what: str, given: Mapping[Any, Any]) -> dict[str, str]:
    """A set of keys and values of a request as texts, JSON's booleans as ``true`` and ``false``; null is left out.

    Raises:
        BadRequest: a value is a list or a set of its own; `what` names the field it is in.
    """
    for key, value in given.items():
        if isinstance(value, (dict, list)):
            raise BadRequest(f"Invalid value for {key} in {what}: {value!r} is not text")
    return {
        str(key): str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in given.items() if value is not None
    }  # fmt: skip


def listing(
    call: Call, kind: str, objects: Iterable[Mapping[str, Any]], key: str = "name", project: str = "default"
) -> web.Response:
    """URLs without recursion, else the objects; the filter applies to both."""
    holds = filter.parse(call.request.query.get("filter", ""))
    chosen = [one for one in objects if holds is None or holds(one)]
    if call.recursion:
        return envelope.sync(chosen)
    return envelope.sync([url(kind, one[key], one.get("project") or project) for one in chosen])


def with_users(call: Call, kind: str, document: Any) -> dict[str, Any]:
    """A network's or pool's object with what uses it: instances and profiles."""
    daemon, name = call.daemon, document["name"]
    users = list(daemon.instances.used_by(kind, name))
    for project in daemon.store.projects.all():
        for profile, doc in daemon.store.profiles.all(project).items():
            for device in doc["devices"].values():
                uses = name in (device.get("network"), device.get("parent")) if kind == "network" else (
                    device.get("type") == "disk" and device.get("pool") == name
                )  # fmt: skip
                if uses:
                    users.append(url("profiles", profile, project))
                    break
    if kind == "storage-pool":
        users += [url(f"storage-pools/{name}/volumes/custom", row.name, row.project)
                  for row in daemon.store.volumes.all(name)]  # fmt: skip
    return {**document, "used_by": access.visible(call, users)}

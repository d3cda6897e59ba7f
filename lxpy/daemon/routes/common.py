"""What every list has in common: project, recursion, filter."""

from collections.abc import Iterable, Mapping
from typing import Any

from lxpy.api.errors import BadRequest
from lxpy.daemon import access, envelope, filter, users
from lxpy.daemon.call import Call
from lxpy.daemon.envelope import url
from lxpy.daemon.lean import web


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
    """A network's or pool's object with what uses it, as far as the client may see."""
    return {**document, "used_by": access.visible(call, users.of_place(call.daemon, kind, document["name"]))}

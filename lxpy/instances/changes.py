"""From the body of a PUT or PATCH to what an instance is to have: types, merging, what stays."""

from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest
from lxpy.state.store import Document

MUTABLE = ("description", "ephemeral", "profiles", "config", "devices")
_TYPES: dict[str, tuple[type, str]] = {
    "description": (str, "a text"),
    "ephemeral": (bool, "true or false"),
    "profiles": (list, "a list of names"),
    "config": (dict, "a set of keys and values"),
    "devices": (dict, "a set of devices by name"),
}


def merged(old: Document, body: dict[str, Any], patch: bool) -> Document:
    """The `MUTABLE` parts of an instance after a request; what else is in the body is not the client's to change.

    Args:
        patch: what is left out stays, and keys of ``config`` and ``devices`` are added to those there are. Without
            it what is left out goes: LXD's rule, and how its client takes all profiles away.

    Raises:
        BadRequest: a part is of the wrong type.
    """
    new: Document = {}
    for key, (kind, words) in _TYPES.items():
        value = body.get(key)
        if value is None:
            new[key] = old[key] if patch else kind()
        elif not isinstance(value, kind):
            raise BadRequest(f"{key} must be {words}")
        else:
            new[key] = {**old[key], **value} if patch and isinstance(value, dict) else value
    check_profiles(new["profiles"])
    new["devices"] = values.stated(new["devices"])
    # A client that sends back what a user wrote leaves our own keys out; they stay.
    kept = {key: value for key, value in old["config"].items() if key.startswith("volatile.")}
    new["config"] = {key: _text(key, value) for key, value in (kept | new["config"]).items() if value not in ("", None)}
    return new


def asked(doc: Document) -> Document:
    """The `MUTABLE` parts without ``volatile.*`` keys: those change whenever an instance starts or ends."""
    config = {key: value for key, value in doc["config"].items() if not key.startswith("volatile.")}
    return {key: doc[key] for key in MUTABLE} | {"config": config}


def without_known(body: dict[str, Any], read: Document) -> dict[str, Any]:
    """The body without the ``volatile.*`` keys that are in it as they were read: they stay what they are now."""
    known = read["config"]
    if not isinstance(body.get("config"), dict):
        return body
    config = {
        key: value for key, value in body["config"].items()
        if not (key.startswith("volatile.") and known.get(key) == value)
    }  # fmt: skip
    return body | {"config": config}


def check_profiles(profiles: Any) -> None:
    """Raises `BadRequest` for what is no list of names, and for a name that is there twice."""
    if not isinstance(profiles, list) or not all(isinstance(name, str) for name in profiles):
        raise BadRequest("profiles must be a list of names")
    for name in profiles:
        if profiles.count(name) > 1:
            raise BadRequest(f"Profile {name!r} is in the list twice")


def _text(key: str, value: Any) -> str:
    """YAML gives numbers and booleans where the API wants text."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int, float)):
        return str(value)
    raise BadRequest(f"Invalid value for {key}: {value!r} is not text")

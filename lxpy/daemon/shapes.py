"""What kind of value a field of a request's body is: said once, for every route.

Only what has the same kind wherever it stands at the top of a body. None and what a client repeats of an answer are
fine everywhere; what a value may be beyond its kind is the managers' business.
"""

from typing import Any

from lxpy.api.errors import BadRequest

_TEXTS = frozenset(
    {"architecture", "certificate", "content_type", "description", "driver", "expires_at", "fingerprint",
     "listen_address", "name", "target", "type"}
)  # fmt: skip
_MAPPINGS = {
    "config": "a set of keys and values",
    "devices": "a set of devices by name",
    "environment": "a set of names and values",
    "properties": "a set of keys and values",
}
_NAMES = frozenset({"profiles", "projects"})
_LISTS = frozenset({"aliases", "egress", "ingress", "ports"})
_BOOLEANS = frozenset({"auto_update", "ephemeral", "public", "restricted", "start"})


def check(body: dict[str, Any]) -> None:
    """Raises `BadRequest` for the first field that is of another kind than it always is."""
    for key, value in body.items():
        if value is None:
            continue
        if key in _TEXTS and not isinstance(value, str):
            raise BadRequest(f"{key} must be text, not {value!r}")
        if key in _MAPPINGS and not isinstance(value, dict):
            raise BadRequest(f"{key} must be {_MAPPINGS[key]}")
        if key in _NAMES and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise BadRequest(f"{key} must be a list of names")
        if key in _LISTS and not (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
            raise BadRequest(f"{key} must be a list of entries, each a set of keys and values")
        if key in _BOOLEANS and not isinstance(value, bool):
            raise BadRequest(f"{key} must be true or false, not {value!r}")

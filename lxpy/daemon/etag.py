"""ETags: the SHA-256 of an object's mutable fields, so that a read-modify-write notices another writer."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from lxpy.api.errors import CHANGED, PreconditionFailed

# The fields a client may change, by object kind (LXD hashes the same ones).
INSTANCE = ("architecture", "config", "description", "devices", "ephemeral", "profiles")
PROFILE = ("config", "description", "devices")
CONFIGURED = ("config", "description")
SNAPSHOT = ("expires_at",)
IMAGE = ("auto_update", "expires_at", "profiles", "properties", "public")
ALIAS = ("description", "target")
CERTIFICATE = ("name", "projects", "restricted", "type")


def etag(document: Any, fields: Iterable[str]) -> str:
    """The ETag (64 hex digits) of `document`, counting only `fields`."""
    chosen = {key: document.get(key) for key in fields}
    return hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()


def check(if_match: str | None, document: Any, fields: Iterable[str]) -> None:
    """Raises `PreconditionFailed` when the client's ``If-Match`` is another than the object's."""
    if not if_match or if_match == "*":
        return
    given = if_match.removeprefix("W/").strip('"')
    if given != etag(document, fields):
        raise PreconditionFailed(CHANGED)

"""Records and finds as image objects of the API."""

import os

from lxpy.api.objects import Image
from lxpy.images.metadata import utc
from lxpy.images.streams import StreamImage
from lxpy.state.store import Document

NEVER = "0001-01-01T00:00:00Z"


def stored(fingerprint: str, doc: Document, aliases: list[dict[str, str]]) -> Image:
    """The object of a stored image."""
    image: Image = {
        "fingerprint": fingerprint,
        "filename": doc["filename"],
        "size": doc["size"],
        "type": doc["type"],
        "architecture": doc["architecture"],
        "public": doc["public"],
        "cached": doc["cached"],
        "auto_update": doc["auto_update"],
        "aliases": aliases,
        "properties": doc["properties"],
        "profiles": doc["profiles"] or ["default"],
        "created_at": doc["created_at"],
        "expires_at": doc["expires_at"],
        "last_used_at": doc["last_used_at"],
        "uploaded_at": doc["uploaded_at"],
    }
    if doc.get("update_source"):
        image["update_source"] = doc["update_source"]
    return image


def listed(image: StreamImage, server: str) -> Image:
    """The object of an image on a server."""
    aliases = [{"name": name, "description": ""} for name in image.aliases] if image.newest else []
    created = utc(image.created)
    return {
        "fingerprint": image.fingerprint,
        "filename": os.path.basename(image.metadata.path),
        "size": image.size,
        "type": "container",
        "architecture": image.architecture,
        "public": True,
        "cached": False,
        "auto_update": False,
        "aliases": aliases,
        "properties": image.properties(),
        "profiles": [],
        "created_at": created,
        "expires_at": utc(image.expires),
        "last_used_at": NEVER,
        "uploaded_at": created,
        "update_source": {"server": server, "protocol": "simplestreams"},
    }

"""An image server's list as the API gives it, kept ready as JSON: making it of 3000 entries anew takes 0.25 s."""

import asyncio
import json
import os
import time

import lxpy
from lxpy.images import files, wire
from lxpy.images.http import FRESH_SECONDS
from lxpy.images.servers import Servers


async def rendered(servers: Servers, server: str, directory: str) -> bytes:
    """The image objects of a server, a JSON list.

    Args:
        directory: where the server's documents are kept (`Http.kept`); the list lies beside them and is good while all
            of them are fresh and older than it.

    Raises:
        Unavailable, BadRequest: see `Servers.images`.
    """
    name = f"{directory}/list-{lxpy.__version__}.json"
    if found := await asyncio.to_thread(_ready, name, directory):
        return found
    images = await servers.images(server)

    def render() -> bytes:
        listed = [wire.listed(image, server.rstrip("/")) for image in images if image.preferred]
        data = json.dumps(listed, separators=(",", ":")).encode()
        try:
            files.write_atomically(name, data)
        except OSError:
            pass  # a full disk: it is made again next time
        return data

    return await asyncio.to_thread(render)


def _ready(name: str, directory: str) -> bytes | None:
    now = time.time()
    try:
        made = os.stat(name).st_mtime_ns
        with os.scandir(directory) as entries:
            for entry in entries:
                if not entry.name.startswith("list-"):
                    changed = entry.stat().st_mtime
                    if entry.stat().st_mtime_ns >= made or not 0 <= now - changed < FRESH_SECONDS:
                        return None
        with open(name, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None

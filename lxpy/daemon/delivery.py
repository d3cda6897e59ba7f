"""The files of an image, sent to who asks: servers, clients and guests."""

import os
from typing import TYPE_CHECKING

from lxpy.daemon.lean import web

if TYPE_CHECKING:
    from lxpy.api.objects import Image
    from lxpy.daemon.daemon import Daemon


async def deliver(
    daemon: "Daemon", project: str, image: "Image", request: web.BaseRequest, *, whole: bool = False
) -> web.StreamResponse:
    """Sends the files of an image; with `whole` it returns when all of it has gone."""
    from lxpy.images.multipart import framed

    files = daemon.images.sound(project, image["fingerprint"])
    daemon.images.touch(project, image["fingerprint"])
    headers = {}
    if files.kind == "unified":
        name = os.path.basename(image["filename"] or image["fingerprint"])
        headers = {"Content-Disposition": f"inline;filename={name}", "Content-Type": "application/octet-stream"}
        found = web.FileResponse(files.rootfs, headers=headers)
        if whole:
            await found.prepare(request)
        return found
    body = framed(files)
    response = web.StreamResponse(headers={"Content-Type": body.content_type} | headers)
    response.content_length = body.length
    await response.prepare(request)
    async for block in body.blocks():
        await response.write(block)
    await response.write_eof()
    return response

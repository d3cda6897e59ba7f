"""Taking in an uploaded image: what it is, whether it is whole, what its sender says of it."""

import asyncio
import os
from urllib.parse import parse_qsl

from lxpy.api.errors import BadRequest, Conflict, InternalError
from lxpy.images import files, metadata
from lxpy.images.index import Index, document
from lxpy.images.metadata import Archive
from lxpy.images.work import Progress
from lxpy.state.store import Document


async def take_in(
    index: Index,
    project: str,
    metadata_path: str,
    rootfs_path: str | None,
    headers: dict[str, str],
    progress: Progress,
    more: Document | None = None,
) -> str:
    """See `ImageManager.import_upload`.

    Args:
        more: fields of the record beside those the headers say.
    """
    given = {
        key.lower().removeprefix("x-lxd-").removeprefix("x-incus-"): value
        for key, value in headers.items()
        if key.lower().startswith(("x-lxd-", "x-incus-"))
    }
    temporary = [path for path in (metadata_path, rootfs_path) if path]
    try:
        progress("create_image_from_upload_progress", "checking the image")
        if os.stat(metadata_path).st_size == 0:
            raise BadRequest("The image is empty")
        kind, archive = await asyncio.to_thread(inspect, metadata_path, rootfs_path)
        hashes = await asyncio.to_thread(files.hash_image, metadata_path, rootfs_path)
        expected = given.get("fingerprint", "")
        if expected and not hashes.fingerprint.startswith(expected.lower()):
            raise BadRequest(
                f"The image's fingerprint is {hashes.fingerprint}, expected was {expected}: the upload is damaged"
            )
        properties = archive.metadata["properties"] | dict(parse_qsl(given.get("properties", "")))
        flags: Document = {"public": given.get("public", "").lower() in ("1", "true", "yes", "on")}
        if profiles := given.get("profiles", ""):
            flags["profiles"] = [name for _, name in parse_qsl(profiles)] or profiles.split(",")
        flags |= more or {}
        doc = document(archive, kind, hashes, properties, flags)
        doc["filename"] = os.path.basename(given.get("filename", ""))
        if index.get(project, hashes.fingerprint):
            raise Conflict("Image with same fingerprint already exists")
        await index.install(project, hashes.fingerprint, metadata_path, rootfs_path, archive, doc)
        return hashes.fingerprint
    except OSError as error:
        full = files.disk_full(error, "Importing the image", index.directory)
        raise full or InternalError(f"Importing the image: {error.strerror}: {error.filename}") from None
    finally:
        for path in temporary:
            files.unlink(path)


async def adopt(index: Index, project: str, path: str, archive: Archive, fields: Document, progress: Progress) -> str:
    """See `ImageManager.adopt`."""
    try:
        progress("create_image_from_container_pack_progress", "hashing the image")
        hashes = await asyncio.to_thread(files.hash_image, path, None)
        if index.get(project, hashes.fingerprint):
            raise Conflict("Image with same fingerprint already exists")
        doc = document(archive, "unified", hashes, archive.metadata["properties"], fields)
        await index.install(project, hashes.fingerprint, path, None, archive, doc)
        return hashes.fingerprint
    except OSError as error:
        full = files.disk_full(error, "Storing the image", index.directory)
        raise full or InternalError(f"Storing the image: {error.strerror}: {error.filename}") from None
    finally:
        files.unlink(path)


def inspect(meta: str, rootfs: str | None) -> tuple[str, Archive]:
    """Kind and content of an upload, everything read to the end; blocking."""
    if rootfs is None:
        return "unified", metadata.read_archive(meta, whole=True, unified=True)
    archive = metadata.read_archive(meta, whole=True)
    if os.stat(rootfs).st_size == 0:
        raise BadRequest("The root file system is empty")
    if files.sniff(rootfs) == "squashfs":
        files.check_squashfs(rootfs)
        return "squashfs", archive
    metadata.check_tar(rootfs)
    return "tar", archive

"""image export: to one file, or a split image's two; the fingerprint is checked before they get their names."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, BinaryIO

from lxpy.api.errors import ApiError

if TYPE_CHECKING:
    from lxpy.client.client import Client


def export_image(client: Client, fingerprint: str, target: str) -> list[str]:
    """Write the image to directory `target`, or to files that begin with `target`; their paths."""
    import hashlib

    folder, base = (target, "") if os.path.isdir(target) else os.path.split(target)
    if folder and not os.path.isdir(folder):
        raise ApiError(f"There is no directory {folder}: make it first")
    temporary = f"{folder or '.'}/.lxpy-export-{os.getpid()}"
    written: list[tuple[str, str]] = []
    try:
        with open(temporary, "w+b") as file:
            response = client.download(f"/1.0/images/{fingerprint}/export", file.fileno())
            kind = response.headers.get("content-type", "")
            disposition = response.headers.get("content-disposition", "")
            boundary = re.search(r'boundary="?([^";]+)', kind)
            digest = hashlib.sha256()
            parts = (
                _split(file, boundary[1].encode())
                if boundary
                else [(_filename(disposition) or fingerprint, 0, file.seek(0, 2))]
            )
            for number, (name, start, end) in enumerate(parts):
                name = os.path.basename(name)
                if base:
                    suffix = "." + name.partition(".")[2] if "." in name else ""
                    name = base + (".root" if number and not name.startswith("meta") else "") + suffix
                path = f"{folder or '.'}/{name}"
                with open(f"{temporary}-{number}", "wb") as part:
                    written.append((f"{temporary}-{number}", path))
                    file.seek(start)
                    while start < end:
                        data = file.read(min(1 << 20, end - start))
                        if not data:
                            raise ApiError("The server sent less than it announced: try again")
                        digest.update(data)
                        part.write(data)
                        start += len(data)
            if digest.hexdigest() != fingerprint:
                raise ApiError(f"The exported image does not have the fingerprint {fingerprint[:12]}: nothing was kept")
        for source, path in written:
            os.rename(source, path)
        return [path for _, path in written]
    finally:
        for leftover in [temporary, *(source for source, _ in written)]:
            if os.path.exists(leftover):
                os.unlink(leftover)


def _filename(disposition: str) -> str:
    found = re.search(r'filename="?([^";]+)', disposition)
    return found[1] if found else ""


def _split(file: BinaryIO, boundary: bytes) -> list[tuple[str, int, int]]:
    """The parts of a multipart body: (file name, start, end)."""
    import mmap

    parts: list[tuple[str, int, int]] = []
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        mark = b"--" + boundary
        at = data.find(mark)
        while at >= 0 and data[at + len(mark) : at + len(mark) + 2] == b"\r\n":
            head_end = data.find(b"\r\n\r\n", at)
            end = data.find(b"\r\n" + mark, head_end)
            if head_end < 0 or end < 0:
                raise ApiError("The server's multipart answer is cut short: try again")
            head = data[at:head_end].decode("latin-1")
            parts.append((_filename(head) or f"part{len(parts)}", head_end + 4, end))
            at = end + 2
    if not parts:
        raise ApiError("The server's multipart answer has no parts: try again")
    return parts

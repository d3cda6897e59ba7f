"""A stored image as the body of an answer or of an upload: one file, or two in a multipart form."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import NamedTuple

from lxpy.api.imagefiles import ImageFiles
from lxpy.images.files import sniff

_BLOCK = 1 << 20


class Body(NamedTuple):
    """Attributes:
    parts: what is sent, in order: bytes, or the path of a file whose content it is.
    length: bytes in all.
    """

    content_type: str
    parts: list[bytes | str]
    length: int

    async def blocks(self) -> AsyncIterator[bytes]:
        """The body, in pieces of at most 1 MiB."""
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
                continue
            with open(part, "rb", buffering=0) as file:
                while chunk := await asyncio.to_thread(file.read, _BLOCK):
                    yield chunk


def suffix(path: str) -> str:
    """``squashfs``, ``tar``, ``tar.xz`` ...: by what the file is."""
    kind = sniff(path)
    return kind if kind in ("squashfs", "tar") else f"tar.{kind}"


def framed(files: ImageFiles) -> Body:
    """`files` as LXD's clients and servers send them: a split image has the parts ``metadata`` and ``rootfs``."""
    if files.kind == "unified":
        return Body("application/octet-stream", [files.rootfs], os.path.getsize(files.rootfs))
    boundary = os.urandom(16).hex()
    parts: list[bytes | str] = []
    for field, name, path in (
        ("metadata", f"meta-{files.fingerprint}.{suffix(files.metadata)}", files.metadata),
        ("rootfs", f"{files.fingerprint}.{suffix(files.rootfs)}", files.rootfs),
    ):
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        parts += [head.encode(), path, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    length = sum(len(part) if isinstance(part, bytes) else os.path.getsize(part) for part in parts)
    return Body(f"multipart/form-data; boundary={boundary}", parts, length)

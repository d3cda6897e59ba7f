"""The files of the image store: what they are, their hashes, how they get in and how leftovers go.

``<images>/<fingerprint>`` is the metadata tarball (or the whole unified image), ``<fingerprint>.rootfs`` the root
file system of a split image, ``<fingerprint>.json`` what was read from the tarball once (`metadata.py`). Anything else
in the directory is a leftover of a crash.
"""

import errno
import hashlib
import os
import re
import shutil
import struct
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple

from lxpy.api.errors import ApiError, BadRequest, Unavailable
from lxpy.api.values import human_bytes

_CHUNK = 1 << 20
_STORED = re.compile(r"([0-9a-f]{64})(?:\.rootfs|\.json)?\Z")
_MAGIC: list[tuple[bytes, str]] = [
    (b"hsqs", "squashfs"),
    (b"\x1f\x8b", "gz"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"BZh", "bz2"),
    (b"\x5d\x00\x00", "lzma"),
]


class Hashes(NamedTuple):
    """sha256 of an image and of its files, in hex; `rootfs` is empty for a unified image."""

    fingerprint: str
    metadata: str
    rootfs: str
    size: int


def sniff(path: str) -> str:
    """``squashfs``, ``gz``, ``xz``, ``zst``, ``bz2``, ``lzma``, ``tar`` or ``""`` (none): by the first bytes."""
    with open(path, "rb") as file:
        head = file.read(512)
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    return "tar" if head[257:262] == b"ustar" else ""


def check_squashfs(path: str) -> None:
    """Raises `BadRequest` when the superblock speaks of more bytes than there are, or of a version nobody reads.

    The superblock's layout is that of the kernel's ``fs/squashfs/squashfs_fs.h``.
    """
    with open(path, "rb") as file:
        head = file.read(96)
    if len(head) < 96:
        raise BadRequest("The root file system is a truncated squashfs: even its superblock is incomplete")
    major, minor = struct.unpack_from("<HH", head, 28)
    (used,) = struct.unpack_from("<Q", head, 40)
    if (major, minor) != (4, 0):
        raise BadRequest(f"The root file system is squashfs {major}.{minor}; only 4.0 can be mounted")
    size = os.stat(path).st_size
    if used > size:
        raise BadRequest(f"The root file system is a truncated squashfs: {size} of {used} bytes are there")


def hash_image(metadata: str, rootfs: str | None, read: Callable[[int, int], None] | None = None) -> Hashes:
    """All hashes of an image in one pass; blocking, meant for a thread.

    Args:
        read: called with (bytes done, bytes in all) after each chunk.
    """
    total = os.stat(metadata).st_size + (os.stat(rootfs).st_size if rootfs else 0)
    combined, done, parts = hashlib.sha256(), 0, []
    for path in (metadata, rootfs) if rootfs else (metadata,):
        one = hashlib.sha256()
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                combined.update(chunk)
                if rootfs:
                    one.update(chunk)
                done += len(chunk)
                if read:
                    read(done, total)
        parts.append(one.hexdigest() if rootfs else combined.hexdigest())
    return Hashes(combined.hexdigest(), parts[0], parts[1] if rootfs else "", total)


def install(directory: str, fingerprint: str, metadata: str, rootfs: str | None) -> None:
    """Moves an image's files to their place; `metadata` last, so that where it is, both are."""
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if rootfs:
        _move(rootfs, f"{directory}/{fingerprint}.rootfs")
    _move(metadata, f"{directory}/{fingerprint}")
    sync_directory(directory)


def remove(directory: str, fingerprint: str) -> None:
    """Deletes an image's files; those that are gone already do not matter."""
    for suffix in ("", ".rootfs", ".json"):
        unlink(f"{directory}/{fingerprint}{suffix}")


def sweep(directory: str, wanted: Iterable[str]) -> list[str]:
    """Deletes every file that belongs to none of the `wanted` fingerprints; returns their names."""
    keep, gone = set(wanted), []
    with os.scandir(directory) as entries:
        for entry in entries:
            match = _STORED.match(entry.name)
            if match and match[1] in keep:
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                unlink(entry.path)
            gone.append(entry.name)
    return gone


def write_atomically(path: str, data: bytes, mode: int = 0o600) -> None:
    """Writes a temporary file beside `path`, syncs and renames it."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        unlink(temporary)
        raise


def sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def disk_full(error: OSError, doing: str, directory: str) -> ApiError | None:
    """The clear error for a full disk or quota; None when `error` is something else."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    free = shutil.disk_usage(directory).free if os.path.isdir(directory) else 0
    return Unavailable(f"{doing}: no space left in {directory} ({human_bytes(free)} free): make room and try again")


def _move(source: str, target: str) -> None:
    with open(source, "rb") as file:
        os.fsync(file.fileno())
    os.chmod(source, 0o600)
    try:
        os.rename(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    temporary = f"{target}.{os.getpid()}.tmp"
    try:
        with open(source, "rb") as reader, open(temporary, "wb") as writer:
            _copy(reader, writer)
        os.chmod(temporary, 0o600)
        os.rename(temporary, target)
    except BaseException:
        unlink(temporary)
        raise
    os.unlink(source)


def _copy(reader: BinaryIO, writer: BinaryIO) -> None:
    while os.sendfile(writer.fileno(), reader.fileno(), None, 1 << 30):
        pass
    os.fsync(writer.fileno())

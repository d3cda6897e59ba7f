"""Image tarballs for tests, good and bad."""

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from typing import Any

import yaml

METADATA: dict[str, Any] = {
    "architecture": os.uname().machine,
    "creation_date": 1700000000,
    "properties": {"os": "Test", "release": "1", "description": "A test"},
    "templates": {"/etc/hostname": {"when": ["create"], "template": "hostname.tpl"}},
}
COMPRESS = {
    "tar": lambda data: data,
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
    "zst": lambda data: subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout,
}


def tarball(entries: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    """A plain tar of files (bytes) and of whatever else, given as a TarInfo; names ending in / are directories."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
                continue
            info = tarfile.TarInfo(name.rstrip("/"))
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def metadata_tar(compression: str = "xz", **changes: Any) -> bytes:
    """A good metadata tarball, or one with changed keys (None takes one out)."""
    document = {key: value for key, value in (METADATA | changes).items() if value is not None}
    text = yaml.safe_dump(document).encode()
    return COMPRESS[compression](tarball({"metadata.yaml": text, "templates/hostname.tpl": b"{{ container.name }}\n"}))


def unified_tar(compression: str = "gz", size: int = 100_000, **changes: Any) -> bytes:
    """A good unified image with one file of `size` random bytes."""
    document = {key: value for key, value in (METADATA | changes).items() if value is not None}
    entries: dict[str, bytes | tarfile.TarInfo] = {
        "metadata.yaml": yaml.safe_dump(document).encode(),
        "rootfs/": b"",
        "rootfs/etc/": b"",
        "rootfs/blob": os.urandom(size),
    }
    return COMPRESS[compression](tarball(entries))


def squashfs(size: int = 200_000) -> bytes:
    """Bytes that begin with a believable squashfs superblock; nobody mounts them."""
    head = bytearray(96)
    head[:4] = b"hsqs"
    head[28:32] = b"\x04\x00\x00\x00"
    head[40:48] = size.to_bytes(8, "little")
    return bytes(head) + os.urandom(size - 96)

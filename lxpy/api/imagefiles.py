"""The files of one stored image, as the image store hands them to a storage pool."""

from typing import NamedTuple


class ImageFiles(NamedTuple):
    """Attributes:
    fingerprint: sha256 of the image, 64 hex digits.
    kind: ``squashfs`` or ``tar`` (split image: `rootfs` is that file), ``unified`` (`rootfs` is the tarball
        with ``metadata.yaml``, ``templates/`` and ``rootfs/``).
    rootfs: path of the root file system's file.
    metadata: path of the tarball that holds ``metadata.yaml`` and ``templates/`` (for ``unified`` the same file).
    """

    fingerprint: str
    kind: str
    rootfs: str
    metadata: str

"""The `overlay` driver: a volume is an empty upper layer over its image, made in 0.3 to 1.5 ms."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager

from lxpy.api.errors import Conflict, InternalError
from lxpy.linux import libc, mounts
from lxpy.runtime.spec import Root
from lxpy.storage.customvolumes import open_directory
from lxpy.storage.pool import DirectoryPool, plain_root

_IMAGES = "../../images/"
_ATTRIBUTES = libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NOEXEC


class OverlayPool(DirectoryPool):
    """Volumes without an image are plain directories, as there is nothing to lay them over."""

    driver = "overlay"
    mounts_images = True

    def _build(self, directory: str, fingerprint: str | None) -> None:
        if not fingerprint:
            os.mkdir(f"{directory}/rootfs", 0o755)
            return
        os.mkdir(f"{directory}/upper", 0o755)
        os.mkdir(f"{directory}/work", 0o755)
        # The merged root shows the upper directory's owner, mode and times.
        image = os.stat(self.images.tree(fingerprint))
        os.chown(f"{directory}/upper", image.st_uid, image.st_gid)
        os.chmod(f"{directory}/upper", stat.S_IMODE(image.st_mode))
        os.utime(f"{directory}/upper", ns=(image.st_mtime_ns, image.st_mtime_ns))
        os.symlink(f"{_IMAGES}{fingerprint}", f"{directory}/lower")

    def _uses_image(self, directory: str) -> str | None:
        try:
            return os.readlink(f"{directory}/lower").removeprefix(_IMAGES)
        except FileNotFoundError:
            return None

    def root(self, volume: str) -> Root:
        directory = self._existing(volume)
        fingerprint = self._image_of[volume]
        if not fingerprint:
            return plain_root(f"{directory}/rootfs")
        return {
            "kind": "overlay",
            "lower": self.images.tree(fingerprint),
            "upper": f"{directory}/upper",
            "work": f"{directory}/work",
            "path": "",
        }

    def open_root(self, volume: str) -> AbstractContextManager[int]:
        root = self.root(volume)
        if root["kind"] == "dir":
            return open_directory(root["path"])
        return self._open_overlay(volume, root)

    @contextlib.contextmanager
    def _open_overlay(self, volume: str, root: Root) -> Iterator[int]:
        try:
            mount_fd = mount_overlay(root["lower"], os.path.dirname(root["upper"]))
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Conflict(f"The root of {volume!r} is in use: stop the instance first") from None
            raise InternalError(f"Open the root of {volume!r} on pool {self.name}: {error.strerror}") from None
        try:
            # fsmount gives an O_PATH descriptor; callers want to list and sync, too.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount_fd)
            try:
                yield fd
            finally:
                os.close(fd)
        finally:
            os.close(mount_fd)


def mount_overlay(lower: str, layers: str) -> int:
    """A detached overlay of the host's own, owners 0-based: `lower` below ``layers/upper``, with ``layers/work``.

    Raises:
        OSError: EBUSY while a running instance has the same upper layer.
    """
    with contextlib.ExitStack() as stack:
        lower_fd = os.open(lower, os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, lower_fd)
        layers_fd = os.open(layers, os.O_PATH | os.O_DIRECTORY)
        stack.callback(os.close, layers_fd)
        # Through descriptors: fsconfig takes 256 bytes, and a path may hold the ":" that separates layers.
        options = {
            "lowerdir": f"/proc/self/fd/{lower_fd}",
            "upperdir": f"/proc/self/fd/{layers_fd}/upper",
            "workdir": f"/proc/self/fd/{layers_fd}/work",
        }
        if any(name.startswith("user.overlay.") for name in os.listxattr(f"{layers}/upper")):
            # The runtime had to make its overlay inside the user namespace; go on with its kind of marks.
            return mounts.new("overlay", options | {"userxattr": ""}, _ATTRIBUTES)
        options["redirect_dir"] = "on"
        try:
            return mounts.new("overlay", options | {"index": "on"}, _ATTRIBUTES)
        except OSError as error:
            # Without the index the kernel would let two overlays share an upper layer: never after EBUSY.
            if error.errno not in (errno.ESTALE, errno.EINVAL):
                raise
            return mounts.new("overlay", options | {"index": "off"}, _ATTRIBUTES)

"""The `overlay` driver: a volume is an empty upper layer over its image, made in 0.3 to 1.5 ms."""

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from lxpy.api.errors import Conflict, InternalError
from lxpy.linux import libc, mounts
from lxpy.runtime.spec import Root
from lxpy.storage import files, treesync
from lxpy.storage.instancetrees import InstanceSource
from lxpy.storage.pool import DirectoryPool

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
            return os.path.basename(os.readlink(f"{directory}/lower"))
        except FileNotFoundError:
            return None

    def _root_copy(self, source: str, target: str, *, frozen: bool = False) -> None:
        fingerprint = self._uses_image(source)
        if not fingerprint:
            super()._root_copy(source, target, frozen=frozen)
            return
        os.mkdir(f"{target}/work", 0o755)
        index = f"{source}/work/index"  # second names of files in upper, so that hard links of the image stay whole
        if _filled(index):
            files.copy_trees([f"{source}/upper", index], target)
            os.rename(f"{target}/index", f"{target}/work/index")
            _forget_origin(f"{target}/work/index")
        else:
            files.copy_tree(f"{source}/upper", f"{target}/upper")
        _forget_origin(f"{target}/upper")
        os.symlink(f"{_IMAGES}{fingerprint}", f"{target}/lower")

    def _root_update(self, source: str, target: str, base: str) -> None:
        fingerprint = self._uses_image(source)
        if not fingerprint:
            super()._root_update(source, target, base)
        elif _filled(f"{source}/work/index") or not os.path.isdir(f"{base}/upper"):
            self._root_copy(source, target)
        else:
            os.mkdir(f"{target}/work", 0o755)
            os.mkdir(f"{target}/upper", 0o755)
            treesync.build(f"{source}/upper", f"{target}/upper", f"{base}/upper")
            _forget_origin(f"{target}/upper")
            os.symlink(f"{_IMAGES}{fingerprint}", f"{target}/lower")

    def _shared_image(self, source: InstanceSource, volume: str, snapshot: str) -> str | None:
        fingerprint = source.instance_image(volume, snapshot)
        return fingerprint if fingerprint in self.images.list() else None

    def root(self, volume: str) -> Root:
        directory = self._existing(volume)
        fingerprint = self._image_of[volume]
        if not fingerprint:
            return super().root(volume)
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
            return super().open_root(volume)
        what = f"the root of {volume!r}"
        return self._open_overlay(what, lambda: mount_overlay(root["lower"], os.path.dirname(root["upper"])))

    def open_snapshot(self, volume: str, snapshot: str) -> AbstractContextManager[int]:
        directory = self._snapshot_dir(volume, snapshot)
        fingerprint = self._uses_image(directory)
        if not fingerprint:
            return super().open_snapshot(volume, snapshot)
        lower = self.images.tree(fingerprint)
        # Only as an upper layer with its index are the image's hard links whole; and that only one may have at a time.
        mount = mount_overlay if _filled(f"{directory}/work/index") else mount_layers
        return self._open_overlay(f"snapshot {snapshot!r} of {volume!r}", lambda: mount(lower, directory))

    @contextlib.contextmanager
    def _open_overlay(self, what: str, mount: Callable[[], int]) -> Iterator[int]:
        try:
            mount_fd = mount()
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise Conflict(f"{what[0].upper()}{what[1:]} is in use: {_wait(what)}") from None
            raise InternalError(f"Open {what} on pool {self.name}: {error.strerror}") from None
        try:
            # fsmount gives an O_PATH descriptor; callers want to list and sync, too.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=mount_fd)
            try:
                yield fd
            finally:
                os.close(fd)
        finally:
            os.close(mount_fd)


def _wait(what: str) -> str:
    return "try again when that is done" if what.startswith("snapshot") else "stop the instance first"


def _filled(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:
        return False


def _forget_origin(path: str) -> None:
    """A copied layer is tied to that it was copied from: the kernel would not take it for itself (ESTALE)."""
    for name in os.listxattr(path):
        if name.rpartition(".")[2] in ("origin", "upper", "uuid") and ".overlay." in name:
            os.removexattr(path, name)


def mount_layers(lower: str, layers: str) -> int:
    """As `mount_overlay`, only to be read; any number may be mounted at once."""
    with contextlib.ExitStack() as stack:
        fds = []
        for path in (f"{layers}/upper", lower):
            fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY))
            stack.callback(os.close, fds[-1])
        options = {"lowerdir": ":".join(f"/proc/self/fd/{fd}" for fd in fds)}
        if any(name.startswith("user.overlay.") for name in os.listxattr(f"{layers}/upper")):
            return mounts.new("overlay", options | {"userxattr": ""}, _ATTRIBUTES | libc.MOUNT_ATTR_RDONLY)
        return mounts.new("overlay", options | {"redirect_dir": "follow"}, _ATTRIBUTES | libc.MOUNT_ATTR_RDONLY)


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

"""The `btrfs` driver: images, volumes and snapshots are subvolumes that share what they have in common.

A pool lies in a file of ours with a file system in it, on a block device, or in a directory of a btrfs that is there.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager

from lxpy.api import values
from lxpy.api.errors import BadRequest, Conflict
from lxpy.api.layout import Layout
from lxpy.linux import btrfs, btrfsquota
from lxpy.storage import backing, files
from lxpy.storage.backing import Backing
from lxpy.storage.pool import DirectoryPool

_GIB = 1 << 30
_SCARCE = 10  # with less than a tenth free, the room of what is deleted is wanted at once
_UUID = "volatile.uuid"


class BtrfsPool(DirectoryPool):
    """Images are read-only subvolumes, roots of instances snapshots of them.

    Args:
        source: the pool's directory.
        disk: what is mounted there, None for a directory of a file system of the user's.
    """

    driver = "btrfs"
    keys = ("source", "size", "btrfs.mount_options", "source.wipe")
    keeps_sizes = True

    def __init__(
        self, name: str, source: str, warn: Callable[[str], None], config: dict[str, str], disk: Backing | None = None
    ) -> None:
        super().__init__(name, source, warn, config)
        self._disk = disk

    # Which pool a configuration means.

    @classmethod
    def plan(cls, name: str, config: dict[str, str], layout: Layout) -> dict[str, str]:
        source, wanted = config.get("source", ""), config.get("size", "")
        if source and not source.startswith("/"):
            raise BadRequest(f"Invalid source {source!r}: an absolute path is expected")
        file = _loop_file(layout, name)
        kept = {key: value for key, value in config.items() if key != "source.wipe"}
        backing.mount_options(config.get("btrfs.mount_options", ""))
        if values.boolean("source.wipe", config.get("source.wipe", "false")) and not source.startswith("/dev/"):
            raise BadRequest("source.wipe is for a block device as source (such as /dev/sdb)")
        if source in ("", file):
            if os.path.lexists(file):
                raise Conflict(f"{file} holds an earlier pool: move it away first")
            size = values.size_bytes("size", wanted) if wanted else _default_size(layout)
            if size < backing.SMALLEST:
                raise BadRequest(f"Invalid value for size: {wanted!r} is too small for a btrfs: at least 256MiB")
            return kept | {"source": file, "size": wanted or f"{size // _GIB}GiB", _UUID: str(uuid.uuid4())}
        if wanted:
            raise BadRequest("size is for a pool in a file of lxpy's own: leave source away, or leave size away")
        if source.startswith("/dev/"):
            backing.check_device(source)
            return kept | {_UUID: str(uuid.uuid4())}
        if config.get("btrfs.mount_options"):
            raise BadRequest("btrfs.mount_options cannot be set on a pool in a directory: its file system is mounted")
        with contextlib.suppress(OSError):
            btrfs.filesystem_uuid(source)
            return kept
        if os.path.isdir(source):
            raise BadRequest(
                f"Invalid source {source!r}: it is not on a btrfs; leave source away for a file of its own"
            )
        return kept  # and the manager says what is wrong with it

    @classmethod
    def plan_recovered(cls, name: str, config: dict[str, str], layout: Layout) -> dict[str, str]:
        source, file = config["source"], _loop_file(layout, name)
        backing.mount_options(config.get("btrfs.mount_options", ""))
        if os.path.isdir(source):
            if config.get("btrfs.mount_options"):
                raise BadRequest(
                    "btrfs.mount_options cannot be set on a pool in a directory: its file system is mounted"
                )
            with contextlib.suppress(OSError):
                btrfs.filesystem_uuid(source)
                return config
            raise BadRequest(f"Invalid source {source!r}: it is not on a btrfs")
        if source != file and not source.startswith("/dev/"):
            raise BadRequest(f"Invalid source {source!r}: the file of a pool lies at {file}; move it there first")
        try:
            number = backing.filesystem_on(source)
        except OSError as error:
            raise BadRequest(f"Invalid source {source!r}: {error.strerror}") from None
        if not number:
            raise BadRequest(f"Invalid source {source!r}: there is no btrfs on it")
        kept = {key: value for key, value in config.items() if key not in ("size", "source.wipe")} | {_UUID: number}
        return kept if source != file else kept | {"size": _size_word(os.stat(file).st_size)}

    @classmethod
    def of(cls, name: str, config: dict[str, str], layout: Layout, warn: Callable[[str], None]) -> "BtrfsPool":
        source = config["source"]
        if source != _loop_file(layout, name) and not source.startswith("/dev/"):
            return cls(name, os.path.normpath(source), warn, config)
        point = f"{layout.pools}/{name}"
        options = config.get("btrfs.mount_options", "")
        return cls(name, point, warn, config, Backing(source, point, options, config.get(_UUID, "")))

    # The life of the pool.

    def prepare(self, given: dict[str, str]) -> None:
        if self._disk is not None:
            size = values.size_bytes("size", self.config["size"]) if self._disk.is_file else 0
            self._disk.make(self.name, size, values.boolean("source.wipe", given.get("source.wipe", "false")))
            try:
                self._disk.mount()
            except OSError as error:
                options = self.config.get("btrfs.mount_options", "")
                if error.errno != errno.EINVAL or not options:
                    raise
                raise BadRequest(f"The kernel refuses to mount a btrfs with the options {options!r}") from None
            with contextlib.suppress(OSError):  # before Linux 6.7
                btrfsquota.enable(self.source, simple=True)
        super().prepare(given)

    def _attach(self) -> None:
        if self._disk is None:
            return
        self._disk.mount()
        if self._disk.is_file:
            # A growth that was cut off is finished here: its size is written down first.
            wanted, there = values.size_bytes("size", self.config["size"]), os.statvfs(self.source)
            if max(wanted, self._disk.size()) > there.f_blocks * there.f_frsize:
                self._disk.grow(wanted)

    def returns_by_itself(self) -> bool:
        # Who unmounts it, to have it checked perhaps, does not want it back before it is used.
        return self._disk is None or self._identity == (0, 0) or self._disk.mounted()

    def check_change(self, new: dict[str, str]) -> None:
        super().check_change(new)
        old = self.config
        if "source.wipe" in new:
            raise BadRequest("source.wipe is only for the creation of a pool")
        if old.get("btrfs.mount_options") != new.get("btrfs.mount_options"):
            if self._disk is None:
                raise BadRequest(
                    "btrfs.mount_options cannot be set on a pool in a directory: its file system is mounted"
                )
            backing.mount_options(new.get("btrfs.mount_options", ""))
        if old.get("size") == new.get("size"):
            return
        if self._disk is None or not self._disk.is_file:
            raise BadRequest(f"size cannot be set on pool {self.name}: only pools in a file of lxpy's own have a size")
        if not new.get("size"):
            raise BadRequest("size cannot be unset: the file of the pool has one")
        wanted, now = values.size_bytes("size", new["size"]), self._disk.size()
        if wanted < now:
            raise BadRequest(
                f"Pool {self.name} cannot shrink from {values.human_bytes(now)} to {new['size']}: "
                "make a smaller pool and move what is on this one"
            )

    def change(self, new: dict[str, str]) -> None:
        if self._disk is not None:
            if self.config.get("btrfs.mount_options") != new.get("btrfs.mount_options"):
                self._disk.remount(new.get("btrfs.mount_options", ""))
            if self.config.get("size") != new.get("size"):
                with files.disk_errors("Resize", self.name, self._disk.source):
                    self._disk.grow(values.size_bytes("size", new["size"]))
        super().change(new)

    def look(self) -> AbstractContextManager[str]:
        return super().look() if self._disk is None or self._disk.mounted() else self._disk.look()

    def _release(self) -> None:
        super()._release()
        if self._disk is not None:
            self._disk.unmount()

    def _clear(self, keep_source: bool) -> None:
        if self._disk is not None:
            self._disk.remove()
        else:
            super()._clear(keep_source)

    # Volumes.

    def _build(self, directory: str, fingerprint: str | None) -> None:
        rootfs = f"{directory}/rootfs"
        if fingerprint:
            btrfs.snapshot(self.images.tree(fingerprint), rootfs)
        else:
            btrfs.create(rootfs)
            os.chmod(rootfs, 0o755)

    def instance_limit(self, volume: str) -> int | None:
        return btrfsquota.limit_of(f"{self._existing(volume)}/rootfs")

    def usage(self, volume: str) -> int | None:
        return btrfsquota.usage(f"{self._existing(volume)}/rootfs")

    def _root_update(self, source: str, target: str, base: str) -> None:
        self._root_copy(source, target)

    # Trees.

    def _tree_make(self, path: str) -> None:
        btrfs.create(path)
        os.chmod(path, 0o711)

    def _tree_copy(self, source: str, target: str) -> None:
        btrfs.snapshot_family(source, target)
        btrfsquota.lift(target)  # qgroups give a snapshot the limit of its source

    def _tree_update(self, source: str, target: str, base: str) -> None:
        if source.startswith(f"{self.source}/"):
            self._tree_copy(source, target)
        else:
            super()._tree_update(source, target, base)

    def _tree_freeze(self, path: str) -> None:
        btrfs.set_readonly(path, True)

    def _tree_thaw(self, path: str) -> None:
        if btrfs.is_subvolume(path):
            btrfs.set_readonly(path, False)

    def _tree_remove(self, path: str, spare: str = "") -> None:
        # Subvolumes hold all that guests make: above them there are only the few directories of ours.
        for subvolume in _subvolumes(path):
            btrfsquota.lift(subvolume)
            btrfs.destroy(subvolume)
        super()._tree_remove(path, spare)
        room = os.statvfs(self.source)
        if room.f_bavail * _SCARCE < room.f_blocks:
            btrfs.clean(self.source)

    def check_size(self, size: int | None) -> None:
        if size is not None and self._disk is None and not btrfsquota.mode(self.source):
            raise BadRequest(
                f"size is not supported on pool {self.name}: quotas are off on the btrfs at {self.source}; "
                f"turn them on with: btrfs quota enable {self.source}"
            )

    def _tree_limit(self, path: str, size: int | None) -> None:
        self.check_size(size)
        mode = btrfsquota.mode(path)
        if not mode:
            if size is None:
                return
            btrfsquota.enable(path, simple=False)
            mode = "qgroup"
        if size is not None:
            files.sync(path)  # what has been written counts once it is on the disk
            held = btrfsquota.referenced(path) or 0
            if held > size:
                raise BadRequest(f"size {values.human_bytes(size)} is too small: {values.human_bytes(held)} are in use")
        btrfsquota.limit(path, size, mode)

    def _tree_replaces(self, path: str, old: str) -> None:
        size = btrfsquota.limit_of(old)
        if size is not None:
            btrfsquota.limit(path, size, btrfsquota.mode(path))

    def _tree_usage(self, path: str) -> int | None:
        return btrfsquota.usage(path)


def _subvolumes(path: str) -> list[str]:
    """The subvolumes at or below `path`, not those within them."""
    if btrfs.is_subvolume(path):
        return [path]
    try:
        with os.scandir(path) as entries:
            below = [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [found for one in below for found in _subvolumes(one)]


def _loop_file(layout: Layout, name: str) -> str:
    return f"{layout.disks}/{name}.img"


def _size_word(size: int) -> str:
    unit = next((unit for unit in ("GiB", "MiB", "B") if size % values.size_bytes("size", f"1{unit}") == 0), "B")
    return f"{size // values.size_bytes('size', f'1{unit}')}{unit}"


def _default_size(layout: Layout) -> int:
    # LXD's rule: a fifth of what is free, between 5 and 30 GiB.
    found = os.statvfs(layout.root)
    return max(5, min(30, found.f_bavail * found.f_frsize // 5 // _GIB)) * _GIB

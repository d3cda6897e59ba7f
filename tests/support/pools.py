"""A storage manager alone, and small images for its pools."""

import os
import pathlib
import struct
import subprocess

from lxpy.api.imagefiles import ImageFiles
from lxpy.api.layout import Layout
from lxpy.state.store import Store
from lxpy.storage.manager import StorageManager
from lxpy.storage.pool import DirectoryPool

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # VFS_CAP_REVISION_2, effective: cap_net_raw
FINGERPRINT = {"squashfs": "5a" * 32, "tar": "7a" * 32, "unified": "1f" * 32}


def image_tree(root: pathlib.Path) -> None:
    (root / "etc").mkdir(parents=True)
    (root / "etc/hostname").write_text("image")
    (root / "bin").mkdir()
    (root / "bin/ping").write_bytes(b"x" * 100_000)
    os.setxattr(root / "bin/ping", "security.capability", CAPABILITY)
    (root / "bin/one").write_text("same file")
    os.link(root / "bin/one", root / "bin/two")
    (root / "home/user").mkdir(parents=True)
    os.chown(root / "home/user", 1000, 1000)
    root.chmod(0o751)


def run(command: list[str | pathlib.Path]) -> None:
    subprocess.run(command, check=True, capture_output=True)


class Lab:
    """A storage manager that can be stopped, killed in effect, and started again."""

    def __init__(self, root: pathlib.Path) -> None:
        self.layout = Layout(str(root))
        self.warnings: list[str] = []
        self.store = Store(self.layout.database)
        self.manager = StorageManager(self.store, self.layout, self.warnings.append)

    async def restart(self) -> DirectoryPool:
        """A new manager over the same store, as after ``kill -9``."""
        self.manager = StorageManager(self.store, self.layout, self.warnings.append)
        await self.manager.start()
        return self.pool

    @property
    def pool(self) -> DirectoryPool:
        pool = self.manager.pool("p")
        assert isinstance(pool, DirectoryPool)
        return pool


async def with_c1(lab: Lab, images: dict[str, ImageFiles], kind: str = "squashfs") -> DirectoryPool:
    await lab.pool.ensure_image(images[kind])
    await lab.pool.create_instance("c1", images[kind].fingerprint)
    return lab.pool


def leftovers(pool: DirectoryPool) -> list[str]:
    return os.listdir(f"{pool.source}/tmp")


def unmount_all(under: str) -> None:
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(under):
            subprocess.run(["umount", line.split()[4]], check=True)

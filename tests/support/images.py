"""The images of the tests, built once per recipe and kept.

`python -m tests.support.images` builds what is missing. Debian's is built from the package mirror, which only the
host's network reaches: hence before the tests enter their namespace.
"""

import asyncio
import fcntl
import hashlib
import pathlib
import shutil
import sys
import tempfile

from lxpy.api.layout import Layout
from tests.support.namespace import CACHE

RECIPES = pathlib.Path(__file__).parents[2] / "images"
OWN = pathlib.Path(__file__).parent / "recipes"  # of the tests
ALL = ("busybox", "debian/12")


def files(recipe: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The metadata tarball and the root file system of a recipe's image, built now when they are missing."""
    source = RECIPES / f"{recipe.replace('/', '-')}.yaml"
    if (OWN / source.name).exists():
        source = OWN / source.name
    elif not source.exists():  # a variant
        source = RECIPES / f"{recipe.rpartition('/')[0].replace('/', '-')}.yaml"
    text = source.read_bytes()
    folder = CACHE / f"{recipe.replace('/', '-')}-{hashlib.sha256(text).hexdigest()[:12]}"
    metadata, rootfs = folder / "metadata.tar.xz", folder / "rootfs.squashfs"
    if not rootfs.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not rootfs.exists():
                asyncio.run(_build(recipe, folder))
    return metadata, rootfs


async def _build(recipe: str, folder: pathlib.Path) -> None:
    from lxpy.images.manager import ImageManager
    from lxpy.state.store import Store

    work = pathlib.Path(tempfile.mkdtemp(prefix="build-", dir=CACHE))
    try:
        layout = Layout(str(work))
        shutil.copytree(OWN, work / "recipes")
        store = Store(layout.database)
        store.projects.put("default", {"name": "default", "config": {}, "description": ""})
        manager = ImageManager(store, layout, lambda *_: None, print)
        await manager.start()
        try:
            fingerprint = await manager.build(recipe, "default", lambda *_: None, [])
            image = manager.files("default", fingerprint)
            done = work / "done"
            done.mkdir()
            shutil.copy(image.metadata, done / "metadata.tar.xz")
            shutil.copy(image.rootfs, done / "rootfs.squashfs")
        finally:
            await manager.close()
            store.close()
        shutil.rmtree(folder, ignore_errors=True)
        done.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(layout.run, ignore_errors=True)


if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        print(f"{name}: {files(name)[1].stat().st_size >> 10} KiB", flush=True)

"""Building a recipe into a split image: a tree, its metadata tarball and its squashfs, in a directory of its own."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from lxpy.api.errors import Unavailable
from lxpy.images import files, systems, tree
from lxpy.images.architectures import native
from lxpy.images.recipes import Recipe, offered
from lxpy.images.work import Progress

# A minimal Debian's tree and squashfs take 350 MB.
_ROOM = {"busybox": 8 << 20, "mmdebstrap": 800 << 20, "alpine": 100 << 20}


class BuiltImage(NamedTuple):
    """Paths of a built image's two files; gone when the builder's context ends."""

    metadata: str
    rootfs: str


@asynccontextmanager
async def built(
    recipe: Recipe, directory: str, environment: dict[str, str], progress: Progress
) -> AsyncIterator[BuiltImage]:
    """Builds `recipe` below `directory`; whatever happens, nothing of the work stays behind.

    Progress comes as ``build_progress``.

    Raises:
        Unavailable: not for this machine, no room, a program or mirror is missing.
        InternalError: a program failed; the message has its last lines.
    """
    doing = f"Building {recipe.name}"
    if not offered(recipe):
        raise Unavailable(f"{doing}: the recipe is for {', '.join(recipe.architectures)}, not for {native()[0]}")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    if shutil.disk_usage(directory).free < _ROOM[recipe.kind]:
        raise Unavailable(f"{doing} needs {_ROOM[recipe.kind] >> 20} MiB in {directory}: make room and try again")
    work = tempfile.mkdtemp(prefix=f"{recipe.name.replace('/', '-')}-", dir=directory)
    try:
        root, metadata, rootfs = f"{work}/rootfs", f"{work}/metadata.tar.xz", f"{work}/rootfs.squashfs"
        os.mkdir(root, 0o755)

        def say(text: str) -> None:
            progress("build_progress", f"{recipe.name}: {text}")

        try:
            tree_built = await systems.build_tree(recipe, root, environment, say)
            say("packing the root file system")
            await tree.write_squashfs(rootfs, root, tree_built.epoch, doing)
            properties = recipe.properties() | tree_built.properties
            document = tree.metadata_document(recipe, native()[0], tree_built.epoch, properties)
            tree.write_metadata(metadata, recipe, document, tree_built.epoch)
        except OSError as error:
            full = files.disk_full(error, doing, directory)
            if full is None:
                raise
            raise full from None
        yield BuiltImage(metadata, rootfs)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, work, True))

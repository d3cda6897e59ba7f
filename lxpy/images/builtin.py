"""The built-in remote: its recipes, which are built already, and building one (or taking it from a shared cache)."""

import asyncio
import glob
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from lxpy.api.layout import Layout
from lxpy.images import builder, files, recipes, systems
from lxpy.images.architectures import native
from lxpy.images.builder import BuiltImage
from lxpy.images.recipes import Recipe
from lxpy.images.work import Progress
from lxpy.state.store import Document


class Recipes:
    """The recipe files, read when first asked for and again when one of them has changed."""

    def __init__(self, layout: Layout) -> None:
        self._root = layout.root
        self._found: dict[str, Recipe] = {}
        self._stamp: tuple[tuple[str, int], ...] = ()

    def all(self) -> dict[str, Recipe]:
        """Every recipe, by name."""
        paths = [path for place in recipes.directories(self._root) for path in glob.glob(f"{place}/*.yaml")]
        stamp = tuple((path, os.stat(path).st_mtime_ns) for path in sorted(paths))
        if stamp != self._stamp or not self._found:
            self._found, self._stamp = recipes.load_all(self._root), stamp
        return self._found

    def names(self) -> list[str]:
        """Names of what can be built here, without an error for a bad file: it is for hints."""
        try:
            return [recipe.name for recipe in self.all().values() if recipes.offered(recipe)]
        except Exception:
            return []

    def find(self, wanted: str) -> Recipe:
        return recipes.find(self.all(), wanted)


def identity(recipe: Recipe) -> str:
    """What an image of it made now would be known by: recipe, machine, and the programs' versions."""
    return hashlib.sha256(f"{recipe.key()} {systems.tool_identity(recipe)}".encode()).hexdigest()


def existing(recipe: Recipe, records: dict[str, Document]) -> str | None:
    """The fingerprint of the newest image made of exactly this recipe.

    One made by other versions of the programs counts only while these programs are not here to make a new one.
    """
    key, now = recipe.key(), identity(recipe)
    made = [(doc, fp) for fp, doc in records.items() if (doc.get("recipe") or {}).get("key") == key]
    exact = [(doc["uploaded_at"], fp) for doc, fp in made if doc["recipe"]["identity"] == now]
    if exact:
        return max(exact)[1]
    needed = {"busybox": ["busybox"], "mmdebstrap": ["mmdebstrap"], "alpine": ["apk.static", "apk"]}[recipe.kind]
    able = shutil.which("mksquashfs") and any(map(shutil.which, needed))
    older = [(doc["uploaded_at"], fp) for doc, fp in made]
    return max(older)[1] if older and not able else None


def unbuilt(recipe: Recipe) -> Document:
    """The record a recipe would have, for listing it."""
    never = "1970-01-01T00:00:00Z"
    properties = recipe.properties() | {"lxpy.built": "false"}
    if recipe.untested:
        properties["lxpy.untested"] = recipe.untested
    return {
        "filename": "", "size": 0, "type": "container", "architecture": native()[0], "public": True,
        "cached": False, "auto_update": False, "properties": properties, "profiles": [],
        "created_at": never, "expires_at": never, "last_used_at": never, "uploaded_at": never,
        "update_source": {"server": "", "protocol": "builtin", "alias": recipe.name},
    }  # fmt: skip


@asynccontextmanager
async def made(
    recipe: Recipe, layout: Layout, environment: dict[str, str], progress: Progress, anew: bool
) -> AsyncIterator[BuiltImage]:
    """The recipe's image, built; the files may be moved away.

    ``LXPY_BUILD_CACHE`` may name a directory that several daemons share (those of a test run do): what one has
    built the others copy. `anew` leaves it unread, and replaces what it has.
    """
    shared = os.environ.get("LXPY_BUILD_CACHE", "")
    kept = f"{shared}/{identity(recipe)}"
    work = f"{layout.cache}/build"
    if shared and not anew and os.path.exists(f"{kept}/complete"):
        os.makedirs(work, mode=0o700, exist_ok=True)
        copy = tempfile.mkdtemp(prefix="copy-", dir=work)
        try:
            for name in ("metadata", "rootfs"):
                await asyncio.to_thread(shutil.copyfile, f"{kept}/{name}", f"{copy}/{name}")
            yield BuiltImage(f"{copy}/metadata", f"{copy}/rootfs")
        finally:
            shutil.rmtree(copy, ignore_errors=True)
        return
    async with builder.built(recipe, work, environment, progress) as image:
        if shared:
            await asyncio.to_thread(_keep, kept, image)
        yield image


def _keep(directory: str, image: BuiltImage) -> None:
    os.makedirs(directory, mode=0o755, exist_ok=True)
    for name, path in (("metadata", image.metadata), ("rootfs", image.rootfs)):
        temporary = f"{directory}/{name}.{os.getpid()}"
        shutil.copyfile(path, temporary)
        os.rename(temporary, f"{directory}/{name}")
    files.write_atomically(f"{directory}/complete", b"")

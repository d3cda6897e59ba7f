"""Making a recipe's tree into an image: files put in and taken out, metadata and squashfs packed, reproducibly."""

import contextlib
import io
import os
import shutil
from typing import Any

from lxpy.images import tools
from lxpy.images.recipes import Recipe, RecipeFile
from lxpy.linux import safe_path


def apply_files(root: str, entries: tuple[RecipeFile, ...]) -> None:
    """Puts a recipe's files into the tree at `root`; links in the tree never lead out of it."""
    root_fd = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for entry in entries:
            parent, name = os.path.split(entry.path.rstrip("/"))
            if not name:
                continue
            if entry.remove:
                _remove(root_fd, parent, name)
                continue
            safe_path.make_dirs(root_fd, parent)
            if entry.link is not None:
                _remove(root_fd, parent, name)
                dir_fd = safe_path.open_dir(root_fd, parent)
                try:
                    os.symlink(entry.link, name, dir_fd=dir_fd)
                finally:
                    os.close(dir_fd)
            elif entry.content is None:
                safe_path.make_dirs(root_fd, entry.path, mode=entry.mode if entry.mode is not None else 0o755)
            else:
                mode = entry.mode if entry.mode is not None else 0o644
                safe_path.write_file(root_fd, entry.path, entry.content.encode(), mode=mode)
    finally:
        os.close(root_fd)


def _remove(root_fd: int, parent: str, name: str) -> None:
    try:
        dir_fd = safe_path.open_dir(root_fd, parent)
    except FileNotFoundError:
        return
    try:
        with contextlib.suppress(FileNotFoundError):
            try:
                os.unlink(name, dir_fd=dir_fd)
            except IsADirectoryError:
                shutil.rmtree(name, dir_fd=dir_fd)
    finally:
        os.close(dir_fd)


def metadata_document(recipe: Recipe, architecture: str, epoch: int, properties: dict[str, str]) -> dict[str, Any]:
    """``metadata.yaml`` of a recipe's image."""
    return {
        "architecture": architecture,
        "creation_date": epoch,
        "properties": properties,
        "templates": {
            template.path: {
                "when": list(template.when),
                "template": f"{number}-{os.path.basename(template.path)}.tpl",
                "create_only": template.create_only,
            }
            for number, template in enumerate(recipe.templates)
        },
    }


def write_metadata(path: str, recipe: Recipe, document: dict[str, Any], epoch: int) -> None:
    """The metadata tarball, ``.tar.xz``; the same bytes for the same content."""
    import lzma
    import tarfile

    import yaml

    entries = {"metadata.yaml": yaml.safe_dump(document, sort_keys=True)}
    for template in recipe.templates:
        entries[f"templates/{document['templates'][template.path]['template']}"] = template.content
    with (
        lzma.open(path, "wb", preset=6) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, text in entries.items():
            info, raw = tarfile.TarInfo(name), text.encode()
            info.size, info.mtime, info.mode = len(raw), epoch, 0o644
            tar.addfile(info, io.BytesIO(raw))


async def write_squashfs(path: str, root: str, epoch: int, doing: str) -> None:
    """Packs the tree at `root`. zstd: it unpacks several times faster than xz for a tenth more bytes.

    Times later than `epoch` (files made by the build itself) become `epoch`, mksquashfs's own reading of
    SOURCE_DATE_EPOCH; packages' files keep theirs, which ``make`` and Python in the guest may rely on.
    """
    mksquashfs = tools.need("mksquashfs", "squashfs-tools", doing)
    command = [mksquashfs, root, path, "-noappend", "-comp", "zstd", "-Xcompression-level", "12", "-b", "128K"]
    command += ["-xattrs", "-no-progress", "-quiet", "-no-exports", "-wildcards", "-e"]
    command += ["dev/*", "proc/*", "sys/*", "run/*", "tmp/*"]
    await tools.run(doing, command, {"SOURCE_DATE_EPOCH": str(epoch)})

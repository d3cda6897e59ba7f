"""What an instance says of itself to images made of it: ``metadata.yaml`` and templates, to look at and change."""

import asyncio
from typing import Any

from lxpy.api.errors import BadRequest, NotFound
from lxpy.images import metadata
from lxpy.images.metadata import Archive
from lxpy.instances.parts import Parts

_KEYS = ("architecture", "creation_date", "expiry_date", "properties", "templates")


class ImageFiles:
    """Metadata and templates of instances; those of the image until they are changed, then the instance's own."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def _archive(self, project: str, name: str) -> Archive:
        return self._parts.templates.metadata(self._parts.records.get(project, name))

    def metadata(self, project: str, name: str) -> dict[str, Any]:
        """``metadata.yaml``, parsed. Raises `NotFound`: no such instance."""
        found = self._archive(project, name).metadata
        return {key: found[key] for key in _KEYS}

    async def change(self, project: str, name: str, body: dict[str, Any], patch: bool) -> None:
        """Replace the metadata, or with `patch` the keys that are given.

        Raises:
            BadRequest: it is none, or names a template that is not there.
        """
        row = self._parts.records.get(project, name)
        async with self._parts.life.lock(row):
            old = self._archive(project, name)
            document = {key: body[key] for key in _KEYS if body.get(key) is not None}
            if unknown := body.keys() - set(_KEYS):
                raise BadRequest(f"Unknown key {min(unknown)!r} of an instance's metadata; known: {', '.join(_KEYS)}")
            fresh = metadata.validate({**old.metadata, **document} if patch else document)
            for path, entry in fresh["templates"].items():
                if entry["template"] not in old.templates:
                    raise BadRequest(
                        f"The template for {path} is {entry['template']!r}, which is not there: create it first"
                    )
            await self._save(project, name, Archive(fresh, old.templates))

    def templates(self, project: str, name: str) -> list[str]:
        """The names of the template files, sorted."""
        return sorted(self._archive(project, name).templates)

    def template(self, project: str, name: str, file: str) -> str:
        """Raises `NotFound`."""
        found = self._archive(project, name).templates.get(file)
        if found is None:
            raise NotFound(f"Template {file!r} of instance {name!r} not found")
        return found

    async def write(self, project: str, name: str, file: str, text: str) -> None:
        """Make or replace a template file. Raises `BadRequest`: a bad name, or it is too long."""
        if not file or "/" in file or "\0" in file or file.startswith(".") or len(file.encode()) > 255:
            raise BadRequest(f"Invalid template name {file!r}: a file name is expected, such as hosts.tpl")
        row = self._parts.records.get(project, name)
        async with self._parts.life.lock(row):
            old = self._archive(project, name)
            fresh = {**old.templates, file: text}
            if len(text.encode()) > metadata.TEMPLATE_LIMIT or sum(map(len, fresh.values())) > metadata.TEMPLATES_LIMIT:
                raise BadRequest(f"Template {file!r} is too long (64 KiB, and 4 MiB for all of an instance)")
            await self._save(project, name, Archive(old.metadata, fresh))

    async def delete(self, project: str, name: str, file: str) -> None:
        """Raises `NotFound`, and `BadRequest` while the metadata names it."""
        row = self._parts.records.get(project, name)
        async with self._parts.life.lock(row):
            self.template(project, name, file)
            old = self._archive(project, name)
            if users := [path for path, entry in old.metadata["templates"].items() if entry["template"] == file]:
                raise BadRequest(
                    f"Template {file!r} is what {users[0]} is made of: take that out of the metadata first"
                )
            kept = {name: text for name, text in old.templates.items() if name != file}
            await self._save(project, name, Archive(old.metadata, kept))

    async def _save(self, project: str, name: str, content: Archive) -> None:
        row = self._parts.records.get(project, name)
        await asyncio.to_thread(self._parts.templates.save, row, content)
        self._parts.emit("instance-metadata-updated", f"/1.0/instances/{name}", project, None)

"""An image manager of its own, for the tests of images."""

import pathlib
from typing import Any

from lxpy.api.layout import Layout
from lxpy.images.manager import ImageManager
from lxpy.state.store import Store
from tests.support.streams import StreamServer


class World:
    """A manager with its store, what it warned of and what it emitted."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.layout = Layout(str(path))
        self.store = Store(self.layout.database)
        for project in ("default", "other"):
            self.store.projects.put(project, {})
        self.warnings: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.manager = ImageManager(self.store, self.layout, self._emit, self.warnings.append)
        self.manager._http.backoff = 0.02

    def _emit(self, action: str, source: str, project: str, context: dict[str, Any] | None) -> None:
        self.events.append((action, source))

    def source(self, server: StreamServer, alias: str) -> dict[str, str]:
        """The source of a launch from that server."""
        return {"type": "image", "mode": "pull", "protocol": "simplestreams", "server": server.url, "alias": alias}

    def stored(self) -> list[str]:
        """Names in the image store."""
        return sorted(path.name for path in (self.path / "images").iterdir())

    def parts(self) -> list[str]:
        """Names of partial downloads."""
        folder = self.path / "cache" / "downloads"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def upload(self, name: str, data: bytes) -> str:
        """A temporary file as the daemon makes one of a request's body."""
        path = self.path / name
        path.write_bytes(data)
        return str(path)

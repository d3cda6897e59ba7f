"""Looking after images: newer versions come, cached ones nobody uses go. Rules and defaults are LXD's."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable

from lxpy.api.errors import ApiError
from lxpy.api.notices import IMAGE_UPDATE, Notice, Over
from lxpy.images import files, metadata
from lxpy.images.aliases import Aliases
from lxpy.images.fetch import Fetcher, silent
from lxpy.images.index import Index
from lxpy.images.work import Progress

_TICK = 3600.0
_UPDATE_HOURS = 6
_EXPIRY_DAYS = 10


class Upkeep:
    """Args:
    config: the server's configuration as it is now.
    stamp: path of the file whose time says when images were last updated: a restart does not put that off.
    """

    def __init__(
        self,
        index: Index,
        aliases: Aliases,
        fetcher: Fetcher,
        config: Callable[[], dict[str, str]],
        stamp: str,
        warn: Callable[[str], None],
    ) -> None:
        self._index, self._aliases, self._fetcher = index, aliases, fetcher
        self._config, self._stamp, self._warn = config, stamp, warn
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._failing: set[str] = set()

    def start(self) -> None:
        """Begins the hourly look."""
        if not os.path.exists(self._stamp):
            files.write_atomically(self._stamp, b"")
        self._task = asyncio.create_task(self._hourly(), name="images:upkeep")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def configured(self) -> None:
        """The server's configuration has changed: look now, not in an hour."""
        self._changed.set()

    async def tick(self, now: float) -> None:
        """What is due at `now` (seconds since 1970): expiry at every tick, updates when their interval has passed."""
        await self.expire(now)
        hours = _number(self._config().get("images.auto_update_interval", ""), _UPDATE_HOURS)
        # Half a tick of grace, or an interval of 6 hours would act at the 7th tick.
        if hours and now - os.stat(self._stamp).st_mtime >= hours * 3600 - _TICK / 2:
            os.utime(self._stamp, (now, now))
            await self.auto_update()

    async def refresh(self, project: str, prefix: str, progress: Progress = silent) -> str:
        """See `ImageManager.refresh`."""
        fingerprint, doc = self._index.find(project, prefix)
        origin = doc.get("update_source")
        if not origin:
            return fingerprint
        flags = {key: doc[key] for key in ("cached", "auto_update", "public", "profiles")}
        new = await self._fetcher.latest(fingerprint, doc, project, progress, flags)
        if new == fingerprint:
            return fingerprint
        await self._replace(project, fingerprint, new, flags | {"update_source": origin})
        self._index.emit("refreshed", project, new, {"old_fingerprint": fingerprint})
        return new

    async def _replace(self, project: str, old: str, new: str, kept: dict[str, object]) -> None:
        """`new` takes over from `old`. One transaction: after a crash it is the one or the other."""
        if new == old:
            return
        with self._index.store.transaction():
            before = self._index.get(project, old)
            if before is None:
                return
            self._index.change(project, new, **kept, last_used_at=before["last_used_at"])
            self._aliases.move_all(project, old, new)
        await self._index.delete(project, old)

    async def expire(self, now: float | None = None) -> list[str]:
        """Deletes cached images not used for ``images.remote_cache_expiry`` days (10; 0: never); their fingerprints."""
        days = _number(self._config().get("images.remote_cache_expiry", ""), _EXPIRY_DAYS)
        gone = []
        for project in self._index.projects() if days else []:
            for fingerprint, doc in self._index.all(project).items():
                used = max(metadata.parse_utc(doc["last_used_at"]), metadata.parse_utc(doc["uploaded_at"]))
                if doc["cached"] and (now or time.time()) - used > days * 86400:
                    await self._index.delete(project, fingerprint)
                    gone.append(fingerprint)
        return gone

    async def auto_update(self) -> None:
        """Refreshes every image that asks for it; what fails is a warning and is tried again next time."""
        for project in self._index.projects():
            for fingerprint, doc in self._index.all(project).items():
                # Built-in images are rebuilt on request only: that is minutes of work, and nobody asked for it.
                if doc["auto_update"] and (doc.get("update_source") or {}).get("protocol") != "builtin":
                    try:
                        await self.refresh(project, fingerprint)
                        if fingerprint in self._failing:
                            self._failing.discard(fingerprint)
                            self._warn(Over(IMAGE_UPDATE, f"/1.0/images/{fingerprint}", project))
                    except ApiError as error:
                        self._failing.add(fingerprint)
                        self._warn(
                            Notice(
                                f"Image {fingerprint[:12]} could not be updated: {error}",
                                IMAGE_UPDATE,
                                f"/1.0/images/{fingerprint}",
                                project,
                            )
                        )

    async def _hourly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _TICK)
            self._changed.clear()
            try:
                await self.tick(time.time())
            except Exception as error:
                self._warn(Notice(f"Looking after images failed: {error}", IMAGE_UPDATE))


def _number(text: str, default: int) -> int:
    return int(text) if text.isdigit() else default

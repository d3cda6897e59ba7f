"""The lock of an instance, which may say why it is held."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from lxpy.api.errors import Conflict


class InstanceLock(asyncio.Lock):
    """What changes an instance waits for what is changing it; but not for what may take hours: then it is refused."""

    why = ""

    async def acquire(self) -> "bool":  # type: ignore[override]
        """Raises `Conflict` while it is held for long."""
        if self.why:
            raise Conflict(self.why)
        return await super().acquire()

    @contextlib.asynccontextmanager
    async def held_long(self, why: str) -> AsyncIterator[None]:
        """Held while the body runs; whoever wants it meanwhile hears `why` not.

        Raises:
            Conflict: it is held so already.
        """
        async with self:
            self.why = why
            try:
                yield
            finally:
                self.why = ""

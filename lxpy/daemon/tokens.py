"""Unused certificate tokens as operations, which is where LXD's clients look for them and revoke them."""

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from lxpy.daemon.operations import Operation, Operations
from lxpy.daemon.trust import TrustStore

_FOREVER = 10 * 366 * 86400.0


class Tokens:
    """One running operation of class ``token`` for each token of the `trust` store."""

    def __init__(self, operations: Operations, trust: TrustStore) -> None:
        self._operations, self._trust = operations, trust
        self._used: dict[str, asyncio.Event] = {}
        for doc in trust.tokens():
            self.show(doc)

    def show(self, doc: dict[str, Any]) -> Operation:
        """The operation of a new token; cancelling it revokes the token."""
        name, used = doc["request"]["name"], asyncio.Event()
        left = _FOREVER
        if doc["expires_at"]:
            left = (datetime.fromisoformat(doc["expires_at"]) - datetime.now(UTC)).total_seconds()

        async def work(operation: Operation) -> None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(used.wait(), max(left, 0))
            self._used.pop(name, None)

        metadata = {"secret": doc["secret"], "request": doc["request"], "fingerprint": doc["fingerprint"],
                    "addresses": doc["addresses"]}  # fmt: skip
        if doc["expires_at"]:
            metadata["expiresAt"] = doc["expires_at"]
        operation = self._operations.run("token", "Certificate add token", {}, work, may_cancel=True, metadata=metadata)
        operation.on_cancel = lambda: self._revoke(name)
        self._used[name] = used
        return operation

    def _revoke(self, name: str) -> None:
        self._trust.revoke(name)
        self._used.pop(name, None)

    def used(self, name: str) -> None:
        """Its operation ends."""
        if event := self._used.pop(name, None):
            event.set()

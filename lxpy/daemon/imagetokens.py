"""Secrets that let somebody the server does not trust read, or bring, one image; each an operation of class token."""

import asyncio
import contextlib
import hmac
import secrets
import time
from collections.abc import Iterator
from typing import Any

from lxpy.daemon.call import Call
from lxpy.daemon.operations import Operation

_UNUSED = 3600.0  # seconds a secret waits for its use
_USED = 5.0  # seconds it stays good after a use, as LXD's do, unless all has been sent: another attempt may be needed


class Token:
    """Attributes:
    request: for an upload that is expected: ``aliases``, ``properties``, ``public``, ``expires_at``, ``profiles``.
    """

    def __init__(self, fingerprint: str, project: str, request: dict[str, Any] | None) -> None:
        self.fingerprint, self.project, self.request = fingerprint, project, request
        self.used, self.served = asyncio.Event(), asyncio.Event()
        self._busy, self._last = 0, time.monotonic()

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """While the image is sent: the secret stays good, for somebody whose line is cut."""
        self.used.set()
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._last = time.monotonic()

    async def ended(self) -> None:
        """Waits until the secret has been of use, or can be no longer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.used.wait(), _UNUSED)
        while not self.served.is_set() and (self._busy or time.monotonic() - self._last < _USED):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.served.wait(), 0.5)


_tokens: dict[str, Token] = {}


def issue(
    call: Call, project: str, fingerprint: str, description: str, request: dict[str, Any] | None = None
) -> Operation:
    """An operation whose metadata has the ``secret``; cancelling it ends the secret.

    Args:
        request: for an upload that is expected; None for a download.
    """
    secret, token = secrets.token_hex(32), Token(fingerprint, project, request)

    async def work(op: Operation) -> None:
        try:
            await token.ended()
        finally:
            del _tokens[secret]

    _tokens[secret] = token
    metadata = {"secret": secret}
    return call.start(description, "images", [fingerprint], work, may_cancel=True, class_="token", metadata=metadata)


def find(secret: str, project: str, fingerprint: str, upload: bool = False) -> Token | None:
    """The token of a secret, when it is for this image."""
    for known, token in _tokens.items():
        if hmac.compare_digest(known.encode(), secret.encode()) and (token.request is not None) == upload:
            if (token.project, token.fingerprint) == (project, fingerprint):
                return token
    return None

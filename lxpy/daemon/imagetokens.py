"""Secrets that let somebody the server does not trust read, or bring, one image; each an operation of class token."""

import asyncio
import hmac
import secrets
from typing import Any

from lxpy.daemon.app import Call
from lxpy.daemon.operations import Operation

_UNUSED = 3600.0  # seconds a secret waits for its use
_USED = 5.0  # seconds it stays good once used, as LXD's do, unless all has been sent: another attempt may be needed


class Token:
    """Attributes:
    request: for an upload that is expected: ``aliases``, ``properties``, ``public``, ``expires_at``, ``profiles``.
    """

    def __init__(self, fingerprint: str, project: str, request: dict[str, Any] | None) -> None:
        self.fingerprint, self.project, self.request = fingerprint, project, request
        self.used, self.served = asyncio.Event(), asyncio.Event()


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
            try:
                await asyncio.wait_for(token.used.wait(), _UNUSED)
                await asyncio.wait_for(token.served.wait(), _USED)
            except TimeoutError:
                pass
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

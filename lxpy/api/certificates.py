"""Certificates as both sides need them, and the tokens by which a client comes to be trusted."""

from __future__ import annotations

import binascii

from lxpy.api.errors import BadRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BEGIN, _END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
_COMMON_NAME = b"\x06\x03\x55\x04\x03"  # OBJECT IDENTIFIER 2.5.4.3
_TIMES = ((b"\x17\x0d", 13), (b"\x18\x0f", 15))  # UTCTime and GeneralizedTime, tag and length


def der_of(text: str) -> bytes:
    """A certificate from PEM or (as clients send it) bare base64.

    Raises:
        BadRequest: it is neither, or what is inside is no certificate.
    """
    body = text.partition(_BEGIN)[2].partition(_END)[0] if _BEGIN in text else text
    try:
        der = binascii.a2b_base64("".join(body.split()), strict_mode=True)
    except ValueError:
        raise BadRequest("The certificate is neither PEM nor base64") from None
    import ssl

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ssl.SSLError, ValueError):
        raise BadRequest("The certificate cannot be read: it is damaged, or something else") from None
    return der


def fingerprint(der: bytes) -> str:
    """SHA-256, 64 hex digits."""
    import hashlib

    return hashlib.sha256(der).hexdigest()


def common_name(der: bytes) -> str:
    """The subject's CN; empty when there is none."""
    at = der.rfind(_COMMON_NAME)  # of issuer and subject, the subject comes last
    if at < 0 or at + 7 > len(der) or der[at + 6] > 127:
        return ""
    start = at + 7
    text = der[start : start + der[at + 6]].decode("utf-8", "replace")
    return "".join(character for character in text if character.isprintable())


def validity(der: bytes) -> tuple[str, str]:
    """Not before and not after, RFC 3339; empty when they cannot be found."""
    for tag, length in _TIMES:
        at = der.find(tag)
        while at >= 0:
            first, second = der[at + 2 : at + 2 + length], der[at + 2 + length :]
            for other, size in _TIMES:
                if second.startswith(other) and first.endswith(b"Z"):
                    return _time(first), _time(second[2 : 2 + size])
            at = der.find(tag, at + 1)
    return "", ""


def _time(raw: bytes) -> str:
    text = raw.decode("ascii", "replace").rstrip("Z")
    if len(text) == 12:
        text = ("19" if text >= "50" else "20") + text
    return f"{text[:4]}-{text[4:6]}-{text[6:8]}T{text[8:10]}:{text[10:12]}:{text[12:14]}Z"


class Token:
    """What a server hands out so that one client, by whoever bears it, becomes trusted.

    Attributes:
        name: the client's, once it is trusted.
        fingerprint: of the server's certificate, so that the client knows whom it talks to.
        addresses: ``host:port`` where the server may be reached.
        secret: known to the server alone.
        expires_at: RFC 3339; empty: never.
    """

    def __init__(self, name: str, fingerprint: str, addresses: list[str], secret: str, expires_at: str = "") -> None:
        self.name, self.fingerprint, self.addresses, self.secret = name, fingerprint, addresses, secret
        self.expires_at = expires_at

    def encode(self) -> str:
        """As it is shown and typed: base64 of LXD's JSON."""
        import json

        body: dict[str, Any] = {
            "client_name": self.name, "fingerprint": self.fingerprint, "addresses": self.addresses,
            "secret": self.secret, "expires_at": self.expires_at or "0001-01-01T00:00:00Z",
        }  # fmt: skip
        return binascii.b2a_base64(json.dumps(body, separators=(",", ":")).encode(), newline=False).decode()


def decode_token(text: str) -> Token | None:
    """The token that `text` is, or None."""
    import json

    try:
        body = json.loads(binascii.a2b_base64(text.strip().encode(), strict_mode=True))
        addresses = [str(one) for one in body["addresses"]]
        expires = str(body.get("expires_at") or "")
        token = Token(str(body["client_name"]), str(body["fingerprint"]), addresses, str(body["secret"]), expires)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return token if token.secret and token.fingerprint else None

"""Who may use the HTTPS API: client certificates pinned by fingerprint, and the trust password."""

import base64
import hashlib
import hmac
import json
import os
import secrets
import ssl
from typing import Any

from lxpy.api.errors import BadRequest, Conflict, NotFound

_ROUNDS = 1 << 14  # scrypt's cost, OWASP's advice for 16 MiB


class TrustStore:
    """Trusted certificates, in one JSON file.

    Args:
        path: created at the first addition, mode 0600.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._certificates: dict[str, dict[str, Any]] = {}
        try:
            with open(path, encoding="utf-8") as file:
                self._certificates = json.load(file)
        except FileNotFoundError:
            pass

    def all(self) -> list[dict[str, Any]]:
        return list(self._certificates.values())

    def trusts(self, der: bytes | None) -> bool:
        return der is not None and hashlib.sha256(der).hexdigest() in self._certificates

    def find(self, prefix: str) -> dict[str, Any]:
        """By fingerprint or its unique beginning. Raises `NotFound`, `BadRequest` when several match."""
        found = [doc for fingerprint, doc in self._certificates.items() if fingerprint.startswith(prefix)]
        if not found:
            raise NotFound("Certificate not found")
        if len(found) > 1:
            raise BadRequest(f"Certificate fingerprint {prefix!r} matches {len(found)} certificates: give more of it")
        return found[0]

    def add(self, der: bytes, name: str, type_: str) -> str:
        """Raises `Conflict` when it is trusted already. Returns the fingerprint."""
        fingerprint = hashlib.sha256(der).hexdigest()
        if fingerprint in self._certificates:
            raise Conflict("Client is already trusted")
        self._certificates[fingerprint] = {
            "name": name,
            "type": type_,
            "restricted": False,
            "projects": [],
            "certificate": ssl.DER_cert_to_PEM_cert(der),
            "fingerprint": fingerprint,
        }
        self._save()
        return fingerprint

    def rename(self, fingerprint: str, name: str) -> None:
        self._certificates[fingerprint]["name"] = name
        self._save()

    def remove(self, fingerprint: str) -> None:
        del self._certificates[fingerprint]
        self._save()

    def _save(self) -> None:
        fd = os.open(f"{self._path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="utf-8") as file:
            json.dump(self._certificates, file)
            file.flush()
            os.fsync(fd)
        os.rename(f"{self._path}.new", self._path)


def der_of(text: str) -> bytes:
    """A certificate from PEM or (as LXD's clients send it) bare base64. Raises `BadRequest`."""
    try:
        if "BEGIN CERTIFICATE" in text:
            return ssl.PEM_cert_to_DER_cert(text.strip())
        der = base64.b64decode(text, validate=True)
        if der[:1] != b"\x30":  # ASN.1 SEQUENCE
            raise ValueError
        return der
    except ValueError:
        raise BadRequest("The certificate is neither PEM nor base64") from None


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{hashlib.scrypt(password.encode(), salt=salt, n=_ROUNDS, r=8, p=1).hex()}"


def password_matches(password: str, hashed: str) -> bool:
    salt, _, digest = hashed.partition(":")
    again = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=_ROUNDS, r=8, p=1)
    return hmac.compare_digest(again.hex(), digest)

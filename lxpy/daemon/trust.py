"""Who may use the HTTPS API: client certificates pinned by fingerprint, tokens for new ones, the trust password."""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import ssl
from datetime import UTC, datetime
from typing import Any

from lxpy.api import values
from lxpy.api.certificates import Token, common_name, decode_token, fingerprint
from lxpy.api.errors import BadRequest, Conflict, NotFound
from lxpy.daemon.events import timestamp
from lxpy.state.store import Store

_ROUNDS = 1 << 14  # scrypt's cost, OWASP's advice for 16 MiB

Document = dict[str, Any]


class TrustStore:
    """Trusted certificates and the tokens not used yet, in the database.

    Args:
        store: the daemon's memory.
        old: the JSON file where versions before schema 4 kept certificates; taken over once.
    """

    def __init__(self, store: Store, old: str) -> None:
        self._store = store
        self._take_over(old)
        projects = set(store.projects.all()) | {"default"}
        self._certificates: dict[str, Document] = {}
        for key, doc in store.certificates.all().items():
            if set(doc["projects"]) <= projects:
                self._certificates[key] = doc
            else:  # a project went while nobody could say so: another one of its name is another one
                self._put({**doc, "projects": [one for one in doc["projects"] if one in projects]})

    def _take_over(self, old: str) -> None:
        try:
            with open(old, encoding="utf-8") as file:
                found: dict[str, Document] = json.load(file)
        except FileNotFoundError:
            return
        with self._store.transaction():
            for key, doc in found.items():
                if doc.get("name") in ("", "unnamed"):
                    doc["name"] = common_name(ssl.PEM_cert_to_DER_cert(doc["certificate"])) or key[:12]
                self._store.certificates.put(key, doc)
        os.rename(old, f"{old}.imported")

    # -- certificates --------------------------------------------------------------------------------------------

    def all(self) -> list[Document]:
        return list(self._certificates.values())

    def client(self, der: bytes | None) -> Document | None:
        """The record of a trusted client's certificate."""
        return None if der is None else self._certificates.get(fingerprint(der))

    def find(self, prefix: str) -> Document:
        """By fingerprint or its unique beginning. Raises `NotFound`, `BadRequest` when several match."""
        found = [doc for key, doc in self._certificates.items() if key.startswith(prefix.lower())]
        if not found:
            raise NotFound(f"No trusted certificate has the fingerprint {prefix!r}")
        if len(found) > 1:
            raise BadRequest(f"Certificate fingerprint {prefix!r} matches {len(found)} certificates: give more of it")
        return found[0]

    def add(self, der: bytes, request: Document) -> str:
        """Trust a certificate; its fingerprint.

        Args:
            request: ``name``, ``type``, ``restricted``, ``projects``.

        Raises:
            Conflict: it is trusted already. BadRequest: the request makes no sense.
        """
        key = fingerprint(der)
        if key in self._certificates:
            raise Conflict("Client is already trusted")
        doc = {**self.checked(request), "certificate": ssl.DER_cert_to_PEM_cert(der), "fingerprint": key}
        self._put({**doc, "name": doc["name"] or common_name(der) or key[:12]})
        return key

    def update(self, key: str, request: Document) -> None:
        """Change name, type, restriction and projects."""
        doc = self._certificates[key]
        changed = self.checked(request)
        self._put({**doc, **changed, "name": changed["name"] or doc["name"]})

    def remove(self, key: str) -> None:
        self._store.certificates.delete(key)
        del self._certificates[key]

    def _put(self, doc: Document) -> None:
        self._store.certificates.put(doc["fingerprint"], doc)
        self._certificates[doc["fingerprint"]] = doc

    def checked(self, request: Document) -> Document:
        """``name``, ``type``, ``restricted``, ``projects`` of a request. Raises `BadRequest`."""
        name, type_ = str(request.get("name") or ""), str(request.get("type") or "client")
        if type_ != "client":
            raise BadRequest(f"Certificate type {type_!r} is not supported: lxpy serves no metrics; use client")
        if len(name) > 255 or not name.isprintable():
            raise BadRequest("The certificate's name must be printable and no longer than 255 characters")
        projects = request.get("projects") or []
        if not isinstance(projects, list) or not all(isinstance(one, str) for one in projects):
            raise BadRequest("projects must be a list of names")
        restricted = values.boolean("restricted", str(request.get("restricted") or False).lower())
        if projects and not restricted:
            raise BadRequest("Projects say something of restricted certificates only: set restricted, too")
        for one in projects:
            if one != "default" and self._store.projects.get(one) is None:
                raise BadRequest(f"Project {one!r} not found")
        return {"name": name, "type": type_, "restricted": restricted, "projects": sorted(set(projects))}

    def happened(self, action: str, source: str, context: Document | None) -> None:
        """A lifecycle event: certificates follow a project that is renamed, and forget one that is deleted."""
        if action not in ("project-renamed", "project-deleted"):
            return
        new = source.rpartition("/")[2]
        old = str((context or {}).get("old_name")) if action == "project-renamed" else new
        after = [new] if action == "project-renamed" else []
        for doc in [one for one in self._certificates.values() if old in one["projects"]]:
            self._put({**doc, "projects": sorted([one for one in doc["projects"] if one != old] + after)})

    # -- tokens ----------------------------------------------------------------------------------------------------

    def tokens(self) -> list[Document]:
        """Those that can be used: ``id``, ``request``, ``fingerprint``, ``addresses``, ``secret``, ``expires_at``."""
        for name, doc in self._store.certificate_tokens.all().items():
            if doc["expires_at"] and doc["expires_at"] < timestamp():
                self._store.certificate_tokens.delete(name)
        return list(self._store.certificate_tokens.all().values())

    def issue(self, request: Document, server: str, addresses: list[str], expires_at: str) -> Document:
        """Make a token for a client of the name in `request`.

        Args:
            server: fingerprint of our certificate.
            expires_at: RFC 3339, empty for never.

        Raises:
            BadRequest: without a name. Conflict: there is one of that name.
        """
        wanted = self.checked(request)
        if not wanted["name"]:
            raise BadRequest("A token needs the name of the client that will use it")
        if any(doc["request"]["name"] == wanted["name"] for doc in self.tokens()):
            raise Conflict(f"There is a token for client {wanted['name']!r} already: use it, or revoke it first")
        doc = {"request": wanted, "fingerprint": server, "addresses": addresses, "secret": secrets.token_hex(32),
               "expires_at": expires_at, "created_at": datetime.now(UTC).isoformat()}  # fmt: skip
        self._store.certificate_tokens.put(wanted["name"], doc)
        return doc

    def revoke(self, name: str) -> None:
        self._store.certificate_tokens.delete(name)

    def redeem(self, text: str, der: bytes) -> tuple[str, str] | None:
        """Trust the bearer of a token, which is used up by that: one transaction.

        Returns:
            The certificate's fingerprint and the token's name; None when `text` is no token of ours.

        Raises:
            Conflict: the certificate is trusted already; the token stays.
        """
        token = decode_token(text)
        if token is None:
            return None
        for doc in self.tokens():
            if hmac.compare_digest(doc["secret"].encode(), token.secret.encode()) and (
                doc["request"]["name"] == token.name
            ):
                with self._undone(der), self._store.transaction():
                    self._store.certificate_tokens.delete(token.name)
                    return self.add(der, doc["request"]), token.name
        return None

    @contextlib.contextmanager
    def _undone(self, der: bytes) -> Any:
        """What the database takes back goes from our memory, too."""
        before = dict(self._certificates)
        try:
            yield
        except BaseException:
            self._certificates = before
            raise


def as_token(doc: Document) -> Token:
    """The token of a record."""
    return Token(doc["request"]["name"], doc["fingerprint"], doc["addresses"], doc["secret"], doc["expires_at"])


def hash_password(password: str) -> str:
    salt = secrets.token_bytes(16)
    return f"{salt.hex()}:{hashlib.scrypt(password.encode(), salt=salt, n=_ROUNDS, r=8, p=1).hex()}"


def password_matches(password: str, hashed: str) -> bool:
    salt, _, digest = hashed.partition(":")
    again = hashlib.scrypt(password.encode(), salt=bytes.fromhex(salt), n=_ROUNDS, r=8, p=1)
    return hmac.compare_digest(again.hex(), digest)

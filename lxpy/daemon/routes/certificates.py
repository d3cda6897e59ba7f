"""``/1.0/certificates``: whom the HTTPS API trusts."""

import asyncio

from lxpy.api.errors import BadRequest, Forbidden
from lxpy.daemon import envelope
from lxpy.daemon.app import Call, Route
from lxpy.daemon.etag import CERTIFICATE, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing
from lxpy.daemon.trust import der_of, password_matches


async def list_certificates(call: Call) -> web.StreamResponse:
    return listing(call, "certificates", call.daemon.trust.all(), key="fingerprint")


async def add(call: Call) -> web.StreamResponse:
    """A trusted client may add any; an untrusted one adds its own with the trust password."""
    daemon, body = call.daemon, await call.body()
    if body.get("token"):
        raise BadRequest("Certificate tokens are not supported by this version of lxpy")
    if not call.trusted:
        hashed = daemon.store.config.all().get("core.trust_password", "")
        given = str(body.get("password") or body.get("trust_token") or "")
        if not hashed or not given or not await asyncio.to_thread(password_matches, given, hashed):
            await asyncio.sleep(1)  # makes guessing dear
            raise Forbidden("not authorized: wrong or no trust password")
    der = der_of(str(body["certificate"])) if body.get("certificate") else call.der
    if der is None:
        raise BadRequest("No certificate given")
    if body.get("restricted"):
        raise BadRequest("Restricting a client to projects is not supported by this version of lxpy")
    type_ = str(body.get("type") or "client")
    if type_ != "client":
        raise BadRequest(f"Certificate type {type_!r} is not supported: use client")
    fingerprint = daemon.trust.add(der, str(body.get("name") or "unnamed"), type_)
    daemon.happened("certificate-created", f"/1.0/certificates/{fingerprint}", "default", None)
    return envelope.sync({}, location=f"/1.0/certificates/{fingerprint}")


async def get(call: Call) -> web.StreamResponse:
    found = call.daemon.trust.find(call.part("fingerprint"))
    return envelope.sync(found, etag=etag(found, CERTIFICATE))


async def put(call: Call) -> web.StreamResponse:
    found = call.daemon.trust.find(call.part("fingerprint"))
    check(call.if_match, found, CERTIFICATE)
    body = await call.body()
    if body.get("restricted"):
        raise BadRequest("Restricting a client to projects is not supported by this version of lxpy")
    call.daemon.trust.rename(found["fingerprint"], str(body.get("name") or found["name"]))
    return envelope.sync({})


async def delete(call: Call) -> web.StreamResponse:
    fingerprint = call.daemon.trust.find(call.part("fingerprint"))["fingerprint"]
    call.daemon.trust.remove(fingerprint)
    call.daemon.happened("certificate-deleted", f"/1.0/certificates/{fingerprint}", "default", None)
    return envelope.sync({})


ROUTES: list[Route] = [
    ("GET", "/1.0/certificates", list_certificates),
    ("POST", "/1.0/certificates", add),
    ("GET", "/1.0/certificates/{fingerprint}", get),
    ("PUT", "/1.0/certificates/{fingerprint}", put),
    ("PATCH", "/1.0/certificates/{fingerprint}", put),
    ("DELETE", "/1.0/certificates/{fingerprint}", delete),
]

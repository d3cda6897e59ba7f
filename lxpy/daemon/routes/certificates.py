"""``/1.0/certificates``: whom the HTTPS API trusts."""

import asyncio
from datetime import UTC, datetime

from lxpy.api.certificates import der_of
from lxpy.api.errors import BadRequest, Forbidden
from lxpy.daemon import envelope
from lxpy.daemon.call import Call, Route
from lxpy.daemon.etag import CERTIFICATE, check, etag
from lxpy.daemon.lean import web
from lxpy.daemon.routes.common import listing
from lxpy.daemon.trust import password_matches


async def list_certificates(call: Call) -> web.StreamResponse:
    """All of them; a restricted client sees its own."""
    found = call.daemon.trust.all()
    if call.allowed is not None:
        found = [one for one in found if one is call.client]
    return listing(call, "certificates", found, key="fingerprint")


async def add(call: Call) -> web.StreamResponse:
    """A trusted client adds any, or gets a token for one; an untrusted one adds its own by token or password."""
    daemon, body = call.daemon, await call.body()
    if body.get("token"):
        if not call.trusted:
            raise Forbidden("not authorized: only a trusted client can ask for a token")
        return await _issue(call, body)
    der = der_of(str(body["certificate"])) if body.get("certificate") else call.der
    if der is None:
        raise BadRequest("No certificate given")
    if call.trusted:
        fingerprint = daemon.trust.add(der, body)
    else:
        fingerprint = await _introduce(call, body, der)
    daemon.happened("certificate-created", f"/1.0/certificates/{fingerprint}", "default", None)
    return envelope.sync({}, location=f"/1.0/certificates/{fingerprint}")


async def _introduce(call: Call, body: dict[str, object], der: bytes) -> str:
    daemon = call.daemon
    given = str(body.get("trust_token") or body.get("password") or "")
    if redeemed := daemon.trust.redeem(given, der):
        daemon.tokens.used(redeemed[1])
        return redeemed[0]
    hashed = daemon.store.config.all().get("core.trust_password", "")
    if not hashed or not given or not await asyncio.to_thread(password_matches, given, hashed):
        await asyncio.sleep(1)  # makes guessing dear
        raise Forbidden("not authorized: wrong, used or expired token, or wrong password")
    # Who comes by the password is a client like the administrator's own: it names itself, and no more.
    return daemon.trust.add(der, {"name": body.get("name")})


async def _issue(call: Call, body: dict[str, object]) -> web.StreamResponse:
    daemon = call.daemon
    daemon.trust.checked(body)
    config = daemon.store.config.all()
    addresses = await daemon.addresses()
    if not config.get("core.https_address") or not daemon.fingerprint():
        raise BadRequest("A token can only be given by a server on the network: set core.https_address first")
    from lxpy.api.expiry import NEVER, expires

    until = expires("core.remote_token_expiry", config.get("core.remote_token_expiry", ""), datetime.now(UTC))
    doc = daemon.trust.issue(body, daemon.fingerprint(), addresses, "" if until == NEVER else until)
    return envelope.accepted(daemon.tokens.show(doc))


async def get(call: Call) -> web.StreamResponse:
    found = call.daemon.trust.find(call.part("fingerprint"))
    if call.allowed is not None and found is not call.client:
        raise Forbidden("not authorized: a restricted client sees its own certificate only")
    return envelope.sync(found, etag=etag(found, CERTIFICATE))


async def put(call: Call) -> web.StreamResponse:
    """PUT replaces name, type, restriction and projects; PATCH merges into them."""
    found = call.daemon.trust.find(call.part("fingerprint"))
    check(call.if_match, found, CERTIFICATE)
    body = await call.body()
    if call.request.method == "PATCH":
        kept = {key: found[key] for key in CERTIFICATE}
        if body.get("restricted") is False:
            kept["projects"] = []
        body = {**kept, **body}
    if (given := body.get("certificate")) and der_of(str(given)) != der_of(found["certificate"]):
        raise BadRequest("A certificate cannot be exchanged for another: add the new one and remove this one")
    call.daemon.trust.update(found["fingerprint"], body)
    call.daemon.happened("certificate-updated", f"/1.0/certificates/{found['fingerprint']}", "default", None)
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

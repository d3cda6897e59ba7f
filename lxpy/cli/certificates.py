"""config trust: whose certificates the HTTPS API accepts, and tokens for those that come."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError, NotFound
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context, edit_document
from lxpy.cli.objects import FORMAT, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client

_WRITABLE = ("name", "type", "restricted", "projects")
_ZERO = "0001-01-01T00:00:00Z"


def _found(context: Context, ref: str) -> tuple[Client, str]:
    """Client and URL of a certificate, by the beginning of its fingerprint or by its name."""
    client, word = context.resolve(ref)
    if not word:
        raise UsageError("missing the certificate's fingerprint or name")
    try:
        client.get(f"/1.0/certificates/{quote(word)}")
    except NotFound:
        named = [one for one in client.get("/1.0/certificates", recursion="1") or [] if one["name"] == word]
        if not named:
            raise ApiError(f"No trusted certificate has the fingerprint or name {word!r}") from None
        if len(named) > 1:
            raise ApiError(f"{len(named)} certificates are named {word!r}: give the fingerprint") from None
        word = named[0]["fingerprint"]
    return client, f"/1.0/certificates/{quote(word)}"


def _list(context: Context, args: Args) -> None:
    from lxpy.api.certificates import common_name, der_of, validity

    client, _ = context.resolve(args.at(0) or ":")
    found = sorted(client.get("/1.0/certificates", recursion="1") or [], key=lambda one: str(one["name"]))
    rows = []
    for one in found:
        der = der_of(one["certificate"])
        begins, ends = validity(der)
        rows.append([
            one["type"], one["name"], common_name(der), one["fingerprint"][:12], render.date(begins), render.date(ends),
        ])  # fmt: skip
    header = ["TYPE", "NAME", "COMMON NAME", "FINGERPRINT", "ISSUE DATE", "EXPIRY DATE"]
    sys.stdout.write(render.show(args.value("format"), header, rows, found))


def _add(context: Context, args: Args) -> None:
    words = list(args.rest)
    client, _ = context.resolve(words.pop(0) if words and words[0].endswith(":") else ":")
    if len(words) > 1:
        raise UsageError(f"too many arguments: {' '.join(words[1:])}")
    name = args.value("name")
    projects = [word for value in args.values("projects") for word in value.split(",") if word]
    body: dict[str, Any] = {
        "type": args.value("type"), "restricted": args.flag("restricted") or bool(projects), "projects": projects,
    }  # fmt: skip
    if words:
        with open(words[0], encoding="ascii", errors="replace") as file:
            text = file.read()
        mark, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
        inner, found, _ = text.partition(mark)[2].partition(end)
        if not found:
            raise ApiError(f"{words[0]} is not a certificate in PEM form (a client's is in its client.crt)")
        name = name or os.path.basename(words[0]).removesuffix(".crt").removesuffix(".pem")
        client.post("/1.0/certificates", {**body, "name": name, "certificate": "".join(inner.split())})
        context.say(f"Certificate {name} is trusted now")
        return
    if not name and sys.stdin.isatty():
        sys.stdout.write("Please provide client name: ")
        sys.stdout.flush()
        name = sys.stdin.readline().strip()
    if not name:
        raise UsageError("missing argument: a certificate file, or --name for a token")
    operation = client.post("/1.0/certificates", {**body, "name": name, "token": True})
    if not context.quiet:
        sys.stdout.write(f"Client {name} certificate add token:\n")
    sys.stdout.write(_token(operation["metadata"]) + "\n")


def _token(metadata: dict[str, Any]) -> str:
    from lxpy.api.certificates import Token

    expires = str(metadata.get("expiresAt") or "")
    name = metadata["request"]["name"]
    return Token(name, metadata["fingerprint"], metadata["addresses"], metadata["secret"], expires).encode()


def _tokens(client: Client) -> list[dict[str, Any]]:
    running = (client.get("/1.0/operations", recursion="1") or {}).get("running") or []
    found = [one for one in running if one["class"] == "token" and (one["metadata"] or {}).get("request")]
    return sorted(found, key=lambda one: str(one["metadata"]["request"]["name"]))


def _list_tokens(context: Context, args: Args) -> None:
    client, _ = context.resolve(args.at(0) or ":")
    shown = [
        {
            "ClientName": one["metadata"]["request"]["name"], "Token": _token(one["metadata"]),
            "ExpiresAt": one["metadata"].get("expiresAt") or _ZERO,
        }
        for one in _tokens(client)
    ]  # fmt: skip
    rows = [[one["ClientName"], one["Token"], render.date(one["ExpiresAt"])] for one in shown]
    sys.stdout.write(render.show(args.value("format"), ["NAME", "TOKEN", "EXPIRES AT"], rows, shown))


def _revoke(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, name = context.resolve(ref)
        for one in _tokens(client):
            if one["metadata"]["request"]["name"] == name:
                client.delete(f"/1.0/operations/{one['id']}")
                context.say(f"Token for client {name} revoked")
                break
        else:
            raise ApiError(f"No certificate add token for client {name!r} (see lxpy config trust list-tokens)")


def _remove(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, url = _found(context, ref)
        client.delete(url)


def _show(context: Context, args: Args) -> None:
    client, url = _found(context, args.rest[0])
    sys.stdout.write(render.yaml(client.get(url)))


def _rename(context: Context, args: Args) -> None:
    client, url = _found(context, args.rest[0])
    client.patch(url, {"name": args.rest[1]})


def _edit(context: Context, args: Args) -> None:
    client, url = _found(context, args.rest[0])
    document, etag = client.get_etag(url)
    shown = {key: document[key] for key in (*_WRITABLE, "certificate", "fingerprint")}
    head = "### The certificate as YAML: name, restricted and projects can be changed. Lines with # are ignored.\n"
    tag = etag if sys.stdin.isatty() else ""

    def save(changed: dict[str, Any]) -> None:
        client.put(url, {key: changed[key] for key in (*_WRITABLE, "certificate") if key in changed}, tag)

    edit_document(head + render.yaml(shown), save, known=document)


_WHICH = "[<remote>:]<fingerprint or name>"

TRUST = {
    "add": Command(
        _add, "[<remote>:] [<certificate file>]", "Trust a client's certificate, or make a token for a client",
        (
            Option("--name", "NAME", "Name of the client (default the file's)"),
            Option("--restricted", help="Restrict the client to the projects of --projects"),
            Option("--projects", "NAME,...", "Projects the client is restricted to", many=True),
            Option("--type", "TYPE", "Type of certificate", "client"),
        ), 0, 2,
        text="Without a file a token is printed, good once: lxpy remote add NAME TOKEN on the client's machine.\n"
        "A client's certificate is client.crt in its ~/.config/lxpy (lxc: ~/.config/lxc). Clients that know\n"
        "core.trust_password add themselves: lxpy remote add NAME ADDRESS --password PASSWORD",
    ),
    "edit": Command(_edit, _WHICH, "Edit a trusted certificate as YAML (editor, or standard input)", (), 1, 1),
    "list": Command(_list, "[<remote>:]", "List trusted certificates", (FORMAT,), 0, 1),
    "list-tokens": Command(_list_tokens, "[<remote>:]", "List tokens that have not been used", (FORMAT,), 0, 1),
    "remove": Command(_remove, f"{_WHICH}...", "Stop trusting clients", (), 1, None),
    "rename": Command(_rename, f"{_WHICH} <new name>", "Rename a trusted certificate", (), 2, 2),
    "revoke-token": Command(_revoke, "[<remote>:]<name>...", "Revoke tokens", (), 1, None),
    "show": Command(_show, _WHICH, "Show a trusted certificate", (), 1, 1),
}  # fmt: skip

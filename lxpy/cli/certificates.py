"""config trust: whose certificates the HTTPS API accepts."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.cli.objects import FORMAT, quote


def _list(context: Context, args: Args) -> None:
    client, _ = context.resolve(args.at(0) or ":")
    found = client.get("/1.0/certificates", recursion="1") or []
    rows = [[one["type"], one["name"], one["fingerprint"][:12]] for one in sorted(found, key=lambda one: one["name"])]
    sys.stdout.write(render.show(args.value("format"), ["TYPE", "NAME", "FINGERPRINT"], rows, found))


def _add(context: Context, args: Args) -> None:
    words = list(args.rest)
    client, _ = context.resolve(words.pop(0) if words[0].endswith(":") else ":")
    if len(words) != 1:
        raise UsageError("missing argument: <certificate file>")
    with open(words[0], encoding="ascii", errors="replace") as file:
        text = file.read()
    mark, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    body, found, _ = text.partition(mark)[2].partition(end)
    if not found:
        raise ApiError(f"{words[0]} is not a certificate in PEM form (a client's is in its client.crt)")
    name = args.value("name") or words[0].rpartition("/")[2].removesuffix(".crt").removesuffix(".pem")
    client.post("/1.0/certificates", {"type": "client", "name": name, "certificate": "".join(body.split())})
    context.say(f"Certificate {name} is trusted now")


def _remove(context: Context, args: Args) -> None:
    for ref in args.rest:
        client, fingerprint = context.resolve(ref)
        client.delete(f"/1.0/certificates/{quote(fingerprint)}")


def _show(context: Context, args: Args) -> None:
    client, fingerprint = context.resolve(args.rest[0])
    sys.stdout.write(render.yaml(client.get(f"/1.0/certificates/{quote(fingerprint)}")))


TRUST = {
    "add": Command(
        _add, "[<remote>:] <certificate file>", "Trust a client's certificate",
        (Option("--name", "NAME", "Name of the client (default the file's)"),), 1, 2,
        text="A client's certificate is client.crt in its ~/.config/lxpy (lxc: ~/.config/lxc). Clients that know\n"
        "core.trust_password add themselves: lxpy remote add NAME ADDRESS --password PASSWORD",
    ),
    "list": Command(_list, "[<remote>:]", "List trusted certificates", (FORMAT,), 0, 1),
    "remove": Command(_remove, "[<remote>:]<fingerprint>...", "Stop trusting clients", (), 1, None),
    "show": Command(_show, "[<remote>:]<fingerprint>", "Show a trusted certificate", (), 1, 1),
}  # fmt: skip

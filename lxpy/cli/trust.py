"""Getting to know an HTTPS server: its certificate is shown and pinned, ours is made and handed over."""

from __future__ import annotations

import os
import subprocess
import sys

from lxpy.api.certificates import decode_token
from lxpy.api.errors import ApiError
from lxpy.cli.args import Args
from lxpy.cli.context import Context
from lxpy.client import https
from lxpy.client.remotes import Remote, config_dir


def introduce(context: Context, remote: Remote, args: Args) -> None:
    """Pin the server's certificate and, unless it serves public things only, be trusted by it."""
    given = args.value("token") or args.value("password")
    token = decode_token(given) if given else None
    pem = https.server_certificate(remote.url)
    found = https.fingerprint(pem)
    if token is not None:
        if found != token.fingerprint:
            raise ApiError(f"{remote.url} is not the server that gave the token: its certificate is {found[:12]}")
    elif not args.flag("accept-certificate"):
        print(f"Certificate fingerprint: {found}")
        sys.stdout.write("ok (y/n)? ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes", found[:12], found):
            raise ApiError("Server certificate NACKed by user")
    path = https.certificate_path(remote.name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(pem)
    try:
        if not remote.public:
            _be_trusted(context, remote, given)
            _choose_project(context, remote, args)
    except BaseException:
        os.unlink(path)
        raise


def _be_trusted(context: Context, remote: Remote, secret: str) -> None:
    client_certificate()
    client = context.client_of(remote)
    if client.get("/1.0").get("auth") == "trusted":
        return
    if not secret and sys.stdin.isatty():
        import getpass

        secret = getpass.getpass(f"Admin password (or token) for {remote.name}: ")
    if not secret:
        raise ApiError(
            f"{remote.url} does not know this client: give a token (lxpy config trust add --name NAME there) or its "
            "trust password"
        )
    client.post("/1.0/certificates", {"type": "client", "password": secret})
    client.close()  # the server looks at the certificate when the connection opens
    if client.get("/1.0").get("auth") != "trusted":
        raise ApiError(f"{remote.url} does not trust us: is the token right?")


def _choose_project(context: Context, remote: Remote, args: Args) -> None:
    """A client that is restricted to projects begins in one of them."""
    remote.project = args.value("project")
    if remote.project:
        return
    projects = [str(one["name"]) for one in context.client_of(remote).get("/1.0/projects", recursion="1")]
    if projects and "default" not in projects:
        remote.project = projects[0]
        context.say(f"Commands on {remote.name} use its project {remote.project} (lxpy project switch changes that)")


def by_token(context: Context, name: str, text: str, args: Args) -> Remote:
    """The remote that a token leads to: the first of its addresses that answers as the token says."""
    token = decode_token(text)
    assert token is not None
    tried = []
    for address in token.addresses:
        remote = Remote(name, f"https://{address}")
        try:
            pem = https.server_certificate(remote.url, 5)
        except ApiError as error:
            tried.append(str(error))
            continue
        if https.fingerprint(pem) != token.fingerprint:
            tried.append(f"{address} is another server")
            continue
        args._values["token"] = [text]
        introduce(context, remote, args)
        return remote
    raise ApiError("None of the token's addresses leads to its server: " + ("; ".join(tried) or "it names none"))


def client_certificate() -> None:
    """Make ``client.crt`` and ``client.key`` when missing (ECDSA P-384, ten years)."""
    folder = config_dir()
    if os.path.exists(f"{folder}/client.crt"):
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    user = f"{os.environ.get('USER', 'root')}@{os.uname().nodename}"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384", "-nodes",
               "-days", "3650", "-subj", f"/O=lxpy/CN={user}",
               "-keyout", f"{folder}/client.key", "-out", f"{folder}/client.crt"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        raise ApiError("A client certificate is made with openssl, which is not installed: install openssl") from None
    if done.returncode:
        raise ApiError(f"openssl could not make the client certificate: {done.stderr.strip().splitlines()[-1:]}")
    os.chmod(f"{folder}/client.key", 0o600)

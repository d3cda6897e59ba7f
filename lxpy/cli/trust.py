"""Getting to know an HTTPS server: its certificate is shown and pinned, ours is made and handed over."""

from __future__ import annotations

import os
import subprocess
import sys

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args
from lxpy.cli.context import Context
from lxpy.client import https
from lxpy.client.remotes import Remote, config_dir


def introduce(context: Context, remote: Remote, args: Args) -> None:
    """Pin the server's certificate and, unless it serves public things only, be trusted by it."""
    pem = https.server_certificate(remote.url)
    if not args.flag("accept-certificate"):
        print(f"Certificate fingerprint: {https.fingerprint(pem)}")
        sys.stdout.write("ok (y/n)? ")
        sys.stdout.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ApiError("Server certificate NACKed by user")
    path = https.certificate_path(remote.name)
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        file.write(pem)
    if remote.public:
        return
    try:
        client_certificate()
        client = context.client_of(remote)
        if client.get("/1.0").get("auth") == "trusted":
            return
        secret = args.value("token") or args.value("password")
        if not secret and sys.stdin.isatty():
            import getpass

            secret = getpass.getpass(f"Admin password or token for {remote.name}: ")
        client.post("/1.0/certificates", {"type": "client", "password": secret})
        client.close()  # the server looks at the certificate when the connection opens
        if client.get("/1.0").get("auth") != "trusted":
            raise ApiError(f"{remote.url} does not trust us: is the token right?")
    except BaseException:
        os.unlink(path)
        raise


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

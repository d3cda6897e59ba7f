"""HTTPS remotes: the server's certificate is pinned, ours is the client certificate beside the remotes file."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable

from lxpy.api.errors import Unavailable
from lxpy.client.remotes import Remote, config_dir


def certificate_path(remote: str) -> str:
    """Where the pinned certificate of a remote lies."""
    return f"{config_dir()}/servercerts/{remote}.crt"


def address(url: str) -> tuple[str, int]:
    """(host, port) of ``https://host[:port]``; 8443 is LXD's port."""
    rest = url.removeprefix("https://").partition("/")[0]
    if rest.startswith("["):
        host, _, port = rest[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = rest.partition(":")
    return host, int(port) if port.isdigit() else 8443


def server_certificate(url: str, patience: float = 10) -> str:
    """The certificate a server shows, PEM. Raises `Unavailable`, after `patience` seconds at the latest."""
    try:
        return ssl.get_server_certificate(address(url), timeout=patience)
    except OSError as error:
        raise Unavailable(f"Cannot reach {url}: {error.strerror or error}") from None


def fingerprint(pem: str) -> str:
    """sha256 of a certificate."""
    import hashlib

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()


def dialler(remote: Remote) -> tuple[Callable[[], socket.socket], str]:
    """The function that connects to `remote`, and its Host header."""
    host, port = address(remote.url)

    def dial() -> socket.socket:
        pinned = certificate_path(remote.name)
        context = ssl.create_default_context()
        if os.path.exists(pinned):
            # The pinned certificate itself is the trust, whatever name it bears.
            context = ssl.create_default_context(cafile=pinned)
            context.check_hostname = False
        own = config_dir()
        if not remote.public and os.path.exists(f"{own}/client.crt"):  # strangers need not say who they are
            context.load_cert_chain(f"{own}/client.crt", f"{own}/client.key")
        try:
            plain = socket.create_connection((host, port), timeout=10)
            sock = context.wrap_socket(plain, server_hostname=host)  # who accepts and then says nothing is not there
            sock.settimeout(None)
            return sock
        except ssl.SSLCertVerificationError as error:
            raise Unavailable(f"{remote.url} shows a certificate that is not trusted: {error.verify_message}") from None
        except OSError as error:
            raise Unavailable(f"Cannot reach {remote.url}: {error.strerror or error}") from None

    return dial, f"{host}:{port}"

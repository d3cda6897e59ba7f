"""The HTTPS listener: a self-signed server certificate, client certificates of any issuer.

Clients present self-signed certificates and are known by fingerprint, so the handshake must ask for a certificate
and accept each; the request decides. Python's ssl can only verify or not ask at all, hence one call into OpenSSL.
"""

import ctypes
import ipaddress
import os
import socket
import ssl
import subprocess

from lxpy.api.errors import InternalError

_VERIFY_PEER = 1
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_accept_any = _Callback(lambda ok, store: 1)


def ensure_certificate(directory: str) -> tuple[str, str]:
    """Paths of ``server.crt`` and ``server.key`` (P-384, ten years); made with ``openssl`` when missing.

    Raises:
        InternalError: the openssl program is missing or failed.
    """
    crt, key = f"{directory}/server.crt", f"{directory}/server.key"
    if os.path.exists(crt) and os.path.exists(key):
        return crt, key
    name = socket.gethostname()
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp384r1", "-nodes", "-sha384",
        "-days", "3650", "-subj", f"/O=lxpy/CN=root@{name[:50]}",
        "-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1,IP:::1", "-keyout", f"{key}.new", "-out", f"{crt}.new",
    ]  # fmt: skip
    mask = os.umask(0o077)
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except FileNotFoundError:
        raise InternalError("Making the server's certificate needs the openssl program: install it") from None
    except subprocess.CalledProcessError as error:
        raise InternalError(f"Making the server's certificate: openssl said {error.stderr.decode()[-200:]!r}") from None
    finally:
        os.umask(mask)
    os.chmod(f"{crt}.new", 0o644)
    os.rename(f"{key}.new", key)
    os.rename(f"{crt}.new", crt)
    return crt, key


def reachable(host: str, port: int) -> list[str]:
    """``host:port`` of what a listener on `host` can be reached at; for a wildcard the host's global addresses."""
    if host not in ("", "0.0.0.0", "::"):
        return [_joined(host, port)]
    from lxpy.linux.rtnetlink import Rtnetlink

    with Rtnetlink() as netlink:
        found = [ipaddress.ip_address(one.address) for one in netlink.addresses()]
    usable = [one for one in found if not (one.is_loopback or one.is_link_local or one.is_multicast)]
    # The IPv4 wildcard is IPv4 alone; the others are both.
    return [_joined(str(one), port) for one in dict.fromkeys(usable) if one.version == 4 or host != "0.0.0.0"]


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def server_context(crt: str, key: str) -> ssl.SSLContext:
    """A TLS 1.2+ context that asks every client for a certificate and refuses none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(crt, key)
    context.verify_mode = ssl.CERT_OPTIONAL
    _accept_every_certificate(context)
    return context


def _accept_every_certificate(context: ssl.SSLContext) -> None:
    import _ssl

    library = ctypes.CDLL(_ssl.__file__)  # its own OpenSSL, whichever that is
    # PySSLContext begins with the object header and the SSL_CTX pointer (CPython 3.11 to 3.14).
    pointer = ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value
    get_mode, set_verify = library.SSL_CTX_get_verify_mode, library.SSL_CTX_set_verify
    get_mode.argtypes, get_mode.restype = [ctypes.c_void_p], ctypes.c_int
    set_verify.argtypes, set_verify.restype = [ctypes.c_void_p, ctypes.c_int, _Callback], None
    # A wrong guess about the layout shows here, before anything is written.
    if get_mode(pointer) != _VERIFY_PEER:
        raise InternalError("This Python's ssl module is laid out differently: core.https_address cannot be served")
    set_verify(pointer, _VERIFY_PEER, _accept_any)

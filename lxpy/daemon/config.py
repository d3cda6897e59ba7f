"""The server's configuration keys."""

import difflib
from collections.abc import Callable
from typing import Any

from lxpy.api import values
from lxpy.api.errors import BadRequest

Check = Callable[[str, str], Any]


def _number(key: str, value: str) -> int:
    if not value.isdigit():
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a number")
    return int(value)


def _text(key: str, value: str) -> str:
    return value


def _expiry(key: str, value: str) -> None:
    from lxpy.api.expiry import check as check_expiry

    check_expiry(key, value)


def _compression(key: str, value: str) -> None:
    from lxpy.storage.compression import check

    check(key, value)


def address(key: str, value: str) -> tuple[str, int]:
    """Host and port of ``:8443``, ``0.0.0.0:8443``, ``[::1]:8443`` or a bare host; the port defaults to 8443."""
    if value.startswith("["):
        host, _, rest = value[1:].partition("]")
        port = rest.removeprefix(":")
    elif value.count(":") > 1:
        host, port = value, ""
    else:
        host, _, port = value.partition(":")
    if port and not (port.isdigit() and 0 <= int(port) < 65536):
        raise BadRequest(f"Invalid value for {key}: {value!r} has no port after the colon (0 to 65535)")
    return host, int(port or 8443)


KEYS: dict[str, Check] = {
    "backups.compression_algorithm": _compression,
    "core.https_address": address,
    "core.proxy_http": _text,
    "core.proxy_https": _text,
    "core.proxy_ignore_hosts": _text,
    "core.remote_token_expiry": _expiry,
    "core.trust_password": _text,
    "images.auto_update_cached": values.boolean,
    "images.auto_update_interval": _number,  # hours
    "images.compression_algorithm": _compression,
    "images.remote_cache_expiry": _number,  # days
}


# LXD has these; nothing is accepted and then ignored.
_REFUSED = {
    "acme.": "lxpy makes a certificate of its own",
    "candid.": "clients are known by their certificates", "cluster.": "lxpy is not clustered",
    "core.bgp_": "lxpy does not speak BGP", "core.debug_address": "lxpy has no debug listener",
    "core.dns_address": "lxpy serves no DNS zones", "core.https_allowed_": "browsers are no clients of lxpy",
    "core.https_trusted_proxy": "clients connect directly, so that their certificates are seen",
    "core.metrics_": "lxpy has no metrics listener",
    "core.shutdown_timeout": "an instance's boot.host_shutdown_timeout bounds its stop",
    "core.storage_buckets_address": "lxpy serves no buckets",
    "core.trust_ca_certificates": "each client is trusted by itself (lxpy config trust), not by its issuer",
    "images.default_architecture": "instances have the host's architecture",
    "instances.": "interfaces are named by lxpy or by a nic's host_name", "loki.": "lxpy does not send to Loki",
    "maas.": "MAAS is not supported", "network.ovn.": "lxpy has no OVN networks",
    "oidc.": "OpenID Connect is not supported", "rbac.": "clients are restricted by their certificates",
    "storage.": "images and backups lie in lxpy's own directory",
}  # fmt: skip


def checked(config: Any) -> dict[str, str]:
    """Every key known and every value of its syntax; empty values mean unset and are kept as "".

    Raises:
        BadRequest: naming the key.
    """
    if not isinstance(config, dict):
        raise BadRequest("config must be a set of keys and values")
    result: dict[str, str] = {}
    for key, value in config.items():
        text = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        if not key.startswith("user."):
            if key not in KEYS:
                for prefix, reason in _REFUSED.items():
                    if key.startswith(prefix):
                        raise BadRequest(f"The server configuration key {key!r} is not supported: {reason}")
                near = difflib.get_close_matches(key, KEYS, 1)
                raise BadRequest(
                    f"Unknown server configuration key {key!r}" + (f": did you mean {near[0]}?" if near else "")
                )
            if text:
                KEYS[key](key, text)
        result[key] = text
    return result

"""remote: the list of servers."""

from __future__ import annotations

import sys

from lxpy.api.errors import ApiError, Conflict, NotFound
from lxpy.cli import render
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.cli.objects import FORMAT
from lxpy.client import remotes
from lxpy.client.remotes import Remote

_PROTOCOLS = ("lxd", "simplestreams")


def _list(context: Context, args: Args) -> None:
    config = remotes.load()
    rows, raw = [], {}
    for name, one in sorted(config.remotes.items()):
        auth = "file access" if one.url.startswith("unix:") else "none" if one.is_image_server else "tls"
        shown = f"{name} (current)" if name == config.default else name
        public, static = ("YES" if flag else "NO" for flag in (one.public, one.static))
        rows.append([shown, one.url, one.protocol, auth, public, static, "NO"])
        raw[name] = {
            "Addr": one.url, "AuthType": auth, "Global": False, "Project": one.project,
            "Protocol": one.protocol, "Public": one.public, "Static": one.static,
        }  # fmt: skip
    header = ["NAME", "URL", "PROTOCOL", "AUTH TYPE", "PUBLIC", "STATIC", "GLOBAL"]
    sys.stdout.write(render.show(args.value("format"), header, rows, raw))


def _add(context: Context, args: Args) -> None:
    config = remotes.load()
    name, url = (args.rest[0], args.rest[1]) if len(args.rest) > 1 else ("", args.rest[0])
    if not url:
        raise UsageError("the server's address or token is empty")
    token = url if _is_token(url) else ""
    if token and not name:
        raise UsageError("a remote that is added by a token needs a name: lxpy remote add <remote> <token>")
    if args.value("auth-type") not in ("", "tls"):
        raise UsageError(f"Authentication type {args.value('auth-type')!r} is not supported: use tls")
    if not name:
        name = url.partition("://")[2].partition("/")[0].partition(":")[0] or url
    _check_name(name)
    if name in config.remotes:
        raise Conflict(f"Remote {name} exists as <{config.remotes[name].url}>")
    protocol = args.value("protocol") or "lxd"
    if protocol not in _PROTOCOLS:
        raise UsageError(f"Invalid protocol {protocol!r}: use {' or '.join(_PROTOCOLS)}")
    url = url if token else _address(url, protocol)
    remote = Remote(name, url, protocol, args.flag("public") or protocol == "simplestreams")
    if token:
        from lxpy.cli.trust import by_token

        remote = by_token(context, name, token, args)
    elif url.startswith("https://") and protocol == "lxd":
        from lxpy.cli.trust import introduce

        introduce(context, remote, args)
    remote.project = remote.project or args.value("project")
    config.remotes[name] = remote
    remotes.save(config)


def _address(url: str, protocol: str) -> str:
    """The whole address of what the user wrote. Raises `UsageError`."""
    if "://" not in url and not url.startswith("unix:"):
        url = f"unix:{url}" if url.startswith("/") else f"https://{url}"
    if protocol == "simplestreams" and not url.startswith(("https://", "http://")):
        raise UsageError("A simplestreams remote needs an http or https URL")
    if protocol == "lxd" and not url.startswith(("https://", "unix:")):
        raise UsageError(f"Invalid address {url!r}: a server is reached by https://HOST:PORT or unix://PATH")
    if not url.startswith("unix:"):
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
            host.encode("idna")
        except ValueError:  # a port that is none, half an IPv6 address, a label too long or empty
            host = ""
        if not host or any(character.isspace() for character in host):
            shown = url if len(url) <= 60 else f"{url[:57]}..."
            raise UsageError(f"Invalid address {shown!r}: it names no host and port, and it is no token as a whole")
    return url.rstrip("/")


def _check_name(name: str) -> None:
    if not name or any(character in name for character in ":/ "):
        raise UsageError(f"Invalid remote name {name!r}: no colons, slashes or spaces")


def _is_token(text: str) -> bool:
    if not text.startswith("eyJ"):  # base64 of {"
        return False
    from lxpy.api.certificates import decode_token

    return decode_token(text) is not None


def _remove(context: Context, args: Args) -> None:
    config = remotes.load()
    for name in args.rest:
        _changeable(config, name, "removed")
        if name == config.default:
            raise ApiError(f"Can't remove the default remote {name}: switch to another one first (lxpy remote switch)")
        del config.remotes[name]
    remotes.save(config)
    for name in args.rest:
        remotes.unpin(name)


def _rename(context: Context, args: Args) -> None:
    config = remotes.load()
    old, new = args.rest
    _check_name(new)
    one = _changeable(config, old, "renamed")
    if new in config.remotes:
        raise Conflict(f"Remote {new} already exists")
    del config.remotes[old]
    remotes.repin(old, new)
    config.remotes[new] = Remote(new, one.url, one.protocol, one.public, False, one.project)
    if config.default == old:
        config.default = new
    remotes.save(config)


def _set_url(context: Context, args: Args) -> None:
    config = remotes.load()
    one = _changeable(config, args.rest[0], "modified")
    config.remotes[one.name] = Remote(
        one.name, _address(args.rest[1], one.protocol), one.protocol, one.public, False, one.project
    )
    remotes.save(config)


def _switch(context: Context, args: Args) -> None:
    config = remotes.load()
    one = config.get(args.rest[0])
    if one.is_image_server:
        raise ApiError(f"Can't use {one.name} as the default remote: it serves images only")
    config.default = one.name
    remotes.save(config)


def _get_default(context: Context, args: Args) -> None:
    sys.stdout.write(remotes.load().default + "\n")


def _changeable(config: remotes.Remotes, name: str, verb: str) -> Remote:
    if name not in config.remotes:
        raise NotFound(f"Remote {name} doesn't exist")
    if config.remotes[name].static:
        raise ApiError(f"Remote {name} is static and cannot be {verb}")
    return config.remotes[name]


COMMANDS = {
    "remote": {
        "add": Command(
            _add, "[<remote>] <IP|FQDN|URL|path|token>", "Add a remote server",
            (
                Option("--protocol", "PROTOCOL", "Server protocol (lxd or simplestreams)"),
                Option("--public", help="Public image server"),
                Option("--accept-certificate", help="Accept the certificate without asking"),
                Option("--password", "PASSWORD", "Trust password or token of the server"),
                Option("--token", "TOKEN", "Token that the server gave for this client"),
                Option("--auth-type", "TYPE", "Server authentication type (tls)"),
            ), 1, 2,
            text="A token (lxpy config trust add --name NAME, on the server) holds the server's addresses and the\n"
            "fingerprint of its certificate: lxpy remote add NAME TOKEN asks nothing.",
        ),
        "get-default": Command(_get_default, "", "Show the default remote"),
        "list": Command(_list, "", "List the available remotes", (FORMAT,)),
        "remove": Command(_remove, "<remote>...", "Remove remotes", (), 1, None),
        "rename": Command(_rename, "<remote> <new name>", "Rename a remote", (), 2, 2),
        "set-url": Command(_set_url, "<remote> <URL>", "Set the URL of a remote", (), 2, 2),
        "switch": Command(_switch, "<remote>", "Switch the default remote", (), 1, 1),
    }
}  # fmt: skip

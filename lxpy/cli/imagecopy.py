"""Images between servers: image copy, and the source of a launch from another server's image."""

from __future__ import annotations

from lxpy.api.errors import ApiError, NotFound, Unavailable
from lxpy.cli.args import Args, UsageError
from lxpy.cli.context import Context
from lxpy.client.wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxpy.client.client import Client
    from lxpy.client.remotes import Remote

_MODES = ("pull", "push", "relay")


def reachable(client: Client) -> tuple[list[str], str]:
    """Addresses under which other servers find this one, and the certificate it shows (PEM; "" for an authority's).

    A server that is asked through its Unix socket says itself where it listens; there may be nothing.
    """
    remote = client.remote
    if remote.url.startswith("https://"):
        from lxpy.client.https import certificate_path

        try:
            with open(certificate_path(remote.name), encoding="ascii") as file:
                return [remote.url], file.read()
        except FileNotFoundError:
            return [remote.url], ""
    environment = client.get("/1.0").get("environment") or {}
    addresses = [str(one) for one in environment.get("addresses") or ()]
    usable = [one for one in addresses if not one.startswith((":", "0.0.0.0", "[::]"))]
    return [f"https://{one}" for one in usable], str(environment.get("certificate") or "")


def find(client: Client, name: str) -> dict[str, Any]:
    """The image of an alias or fingerprint on a server. Raises `NotFound`."""
    where = client.remote.name
    if not name:
        raise UsageError("missing the image")
    try:
        fingerprint = str(client.get(f"/1.0/images/aliases/{quote(name)}")["target"])
    except NotFound:
        fingerprint = name
    try:
        image: dict[str, Any] = client.get(f"/1.0/images/{quote(fingerprint)}")
        return image
    except NotFound:
        raise NotFound(f'Image "{name}" not found on {where} (see lxpy image list {where}:)') from None


def source(client: Client, image: dict[str, Any], name: str) -> dict[str, Any]:
    """The ``source`` with which another server fetches an image of `client`; all but its ``server``.

    A private image gets a secret, which is good for one download.
    """
    _, certificate = reachable(client)
    found: dict[str, Any] = {
        "type": "image", "mode": "pull", "protocol": "lxd", "certificate": certificate,
        "project": client.project or "default",
    }  # fmt: skip
    if image["public"]:
        alias = not image["fingerprint"].startswith(name)
        return found | ({"alias": name} if alias else {"fingerprint": image["fingerprint"]})
    token = client.post(f"/1.0/images/{image['fingerprint']}/secret", {})
    return found | {"fingerprint": image["fingerprint"], "secret": token["metadata"]["secret"]}


def launch_source(context: Context, remote: Remote, name: str) -> dict[str, Any]:
    """The ``source`` of an instance that is made elsewhere of an image of `remote`."""
    client = context.client_of(remote)
    image = find(client, name)
    addresses, _ = reachable(client)
    if not addresses:
        raise ApiError(
            f"The server {remote.name} isn't listening on the network (its core.https_address): "
            f"copy the image first: lxpy image copy {remote.name}:{name} REMOTE: --mode relay"
        )
    return source(client, image, name) | {"server": addresses[0]}


def copy(context: Context, args: Args) -> None:
    """image copy"""
    remote, name = context.remotes.parse_ref(args.rest[0])
    target, rest = context.resolve(args.rest[1])
    mode = args.value("mode")
    if rest:
        raise UsageError("The target is a remote (local:); name the copy with --alias")
    if mode and mode not in _MODES:
        raise UsageError(f"Invalid mode {mode!r}: use {', '.join(_MODES)}")
    if args.flag("vm"):
        raise ApiError("Images of virtual machines cannot be copied: lxpy runs containers")
    body: dict[str, Any] = {
        "public": args.flag("public"), "auto_update": args.flag("auto-update"),
        "aliases": [{"name": alias, "description": ""} for alias in aliases(args)],
    }  # fmt: skip
    query = {"project": args.value("target-project")} if args.value("target-project") else {}
    if remote.is_image_server:
        if mode in ("push", "relay"):
            raise ApiError(f"{remote.name} is an image server: servers pull from it (--mode pull)")
        body["source"] = {"type": "image", "mode": "pull", "server": remote.url, "protocol": remote.protocol,
                          "alias": name}  # fmt: skip
        if args.flag("copy-aliases"):
            body["source"]["copy_aliases"] = True
        context.wait(target, target.post("/1.0/images", body, **query), "Copying the image")
        context.say("Image copied successfully!")
        return
    origin = context.client_of(remote)
    image = find(origin, name)
    if args.flag("copy-aliases"):
        body["aliases"] = [*(image.get("aliases") or []), *body["aliases"]]
    if origin is target:
        if not query or query["project"] == (origin.project or "default"):
            raise ApiError("The source and target servers must be different (or name another --target-project)")
        body["source"] = {"type": "image", "mode": "pull", "fingerprint": image["fingerprint"],
                          "project": origin.project or "default"}  # fmt: skip
        context.wait(target, target.post("/1.0/images", body, **query), "Copying the image")
    else:
        transfer(context, origin, target, image, name, body, query, mode)
    context.say("Image copied successfully!")


def transfer(
    context: Context,
    origin: Client,
    target: Client,
    image: dict[str, Any],
    name: str,
    body: Any,
    query: dict[str, str] | None = None,
    mode: str = "",
) -> None:
    """Have an image of one server on another.

    Args:
        name: its alias or fingerprint at the origin.
        body: ``public``, ``auto_update`` and ``aliases`` that it is to have.
    """
    query = query or {}
    if not body["auto_update"] and _keep(target, image["fingerprint"], body, query):
        return
    if mode == "push":
        _push(context, origin, target, image, body, query)
    elif mode == "relay" or (not mode and not reachable(origin)[0]):
        _relay(context, origin, target, image, body, query)
    else:
        _pull(context, origin, target, image, name, body, query)


def _pull(
    context: Context, origin: Client, target: Client, image: dict[str, Any], name: str, body: Any, query: dict[str, str]
) -> None:
    addresses, _ = reachable(origin)
    if not addresses:
        raise ApiError(
            f"The source server {origin.remote.name} isn't listening on the network (its core.https_address): "
            "use --mode push or relay"
        )
    if body["auto_update"] and (not image["public"] or image["fingerprint"].startswith(name)):
        raise ApiError("--auto-update needs a public image, named by an alias")
    body["source"] = source(origin, image, name)
    for address in addresses:
        body["source"]["server"] = address
        try:
            context.wait(target, target.post("/1.0/images", body, **query), "Copying the image")
            return
        except ApiError as error:
            if address == addresses[-1] or "cannot be reached" not in str(error):
                raise


def _push(
    context: Context, origin: Client, target: Client, image: dict[str, Any], body: Any, query: dict[str, str]
) -> None:
    if body["auto_update"]:
        raise ApiError("--auto-update needs an image that is pulled (--mode pull)")
    addresses, certificate = reachable(target)
    if not addresses:
        raise ApiError(
            f"The target server {target.remote.name} isn't listening on the network (its core.https_address): "
            "use --mode pull or relay"
        )
    expected = body | {
        "source": {"type": "image", "mode": "push", "fingerprint": image["fingerprint"]},
        "properties": image["properties"], "expires_at": image["expires_at"],
    }  # fmt: skip
    token = target.post("/1.0/images", expected, **query)
    try:
        request = {
            "target": addresses[0], "certificate": certificate, "secret": token["metadata"]["secret"],
            "project": query.get("project") or target.project or "default", "profiles": [],
        }  # fmt: skip
        operation = origin.post(f"/1.0/images/{image['fingerprint']}/export", request)
        context.wait(origin, operation, "Copying the image")
    finally:
        target.cancel(token, 0)


def _relay(
    context: Context, origin: Client, target: Client, image: dict[str, Any], body: Any, query: dict[str, str]
) -> None:
    """The image passes through this process, and is nowhere as a whole."""
    from urllib.parse import urlencode

    if body["auto_update"]:
        raise ApiError("--auto-update needs an image that is pulled (--mode pull)")
    context.show("Copying the image")
    response, blocks = origin.download_blocks(f"/1.0/images/{image['fingerprint']}/export")
    headers = {
        "Content-Type": response.headers.get("content-type", "application/octet-stream"),
        "X-LXD-filename": image.get("filename") or image["fingerprint"],
        "X-LXD-public": "true" if body["public"] else "false",
        "X-LXD-properties": urlencode(image["properties"]),
    }
    if not headers["Content-Type"].startswith("multipart/"):
        headers["Content-Type"] = "application/octet-stream"
    try:
        operation = target.upload_blocks("POST", "/1.0/images", blocks, headers, source=-1, **query)
    except EOFError:
        raise Unavailable(f"The server {origin.remote.name} closed the connection during the transfer") from None
    ended = context.wait(target, operation, "Copying the image")
    found = str((ended.get("metadata") or {}).get("fingerprint", ""))
    if found != image["fingerprint"]:
        target.wait(target.delete(f"/1.0/images/{quote(found)}", **query))
        raise Unavailable(f"The image arrived with the fingerprint {found[:12]}: the copy is damaged, nothing was kept")
    give_aliases(target, [one["name"] for one in body["aliases"]], found, **query)


def _keep(target: Client, fingerprint: str, body: Any, query: dict[str, str]) -> bool:
    """Whether the image is there already; then it gets the aliases, and stays also where it came for a launch only."""
    try:
        there = target.get(f"/1.0/images/{fingerprint}", **query)
    except NotFound:
        return False
    if there["cached"]:
        kept = {"source": {"type": "image", "mode": "pull", "fingerprint": fingerprint}, "public": body["public"]}
        target.wait(target.post("/1.0/images", kept, **query))
    give_aliases(target, [one["name"] for one in body["aliases"]], fingerprint, **query)
    return True


def aliases(args: Args) -> list[str]:
    """Those of ``--alias``. Raises `BadRequest` for what none can be called: the image would be there by then."""
    from lxpy.api import values

    return [values.image_alias(name) for name in args.values("alias")]


def give_aliases(client: Client, names: list[str], fingerprint: str, **query: str) -> None:
    """Lets aliases stand for an image, taking them from those that have them."""
    from lxpy.api.errors import Conflict

    for name in names:
        try:
            client.post("/1.0/images/aliases", {"name": name, "target": fingerprint, "description": ""}, **query)
        except Conflict:
            client.put(f"/1.0/images/aliases/{quote(name)}", {"target": fingerprint, "description": ""}, **query)

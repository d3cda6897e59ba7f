"""copy and move to another server: a backup leaves the one and comes into the other, by way of here, kept nowhere."""

from __future__ import annotations

import sys
import time

from lxpy.api import status, values
from lxpy.api.errors import ApiError, BadRequest, Conflict, NotFound
from lxpy.cli import render
from lxpy.cli.args import Args, UsageError
from lxpy.cli.backup import received
from lxpy.cli.config import INSTANCE
from lxpy.cli.context import Context
from lxpy.client.wire import dumps, query_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lxpy.cli.volume import Place
    from lxpy.client.client import Client

_SHOW_EVERY = 0.2  # seconds
_LARGEST = 60_000  # bytes of a header; the server takes a little more


def relay(
    context: Context, source: Client, url: str, body: dict[str, Any], target: Client, to: str,
    headers: dict[str, str], project: str, what: str,
) -> None:  # fmt: skip
    """Has a backup made at `url` on `source`, and an object of it at `to` on `target`, undone whole if it fails.

    Args:
        headers: of the import. project: of the target; "" for its client's. what: for the line of progress.

    Raises:
        ApiError: of either server.
    """
    extensions = source.get("/1.0").get("api_extensions") or ()
    with received(context, source, url, body, extensions) as response:
        blocks = _counted(context, source.blocks(response), what)
        sent = {key: value for key, value in headers.items() if value} | {"Content-Type": "application/octet-stream"}
        try:
            operation = target.upload_blocks("POST", to, blocks, sent, project=project)
        except KeyboardInterrupt:
            context.clear()
            print(f"{what}: cancelled, nothing of it stays on {target.remote.name}", file=sys.stderr)
            raise
        finally:
            blocks.close()
            context.clear()
    context.wait(target, operation, what)


def _counted(context: Context, blocks: Iterator[bytes], what: str) -> Any:
    total, shown = 0, 0.0
    try:
        for block in blocks:
            total += len(block)
            if (now := time.monotonic()) - shown >= _SHOW_EVERY:
                context.show(f"{what}: {render.size(total)}")
                shown = now
            yield block
    finally:
        blocks.close()  # type: ignore[attr-defined]


def instance(
    context: Context, args: Args, source: Client, name: str, target: Client, new: str, overrides: dict[str, Any],
    *, move: bool,
) -> None:  # fmt: skip
    """An instance of `source`, copied or moved to `target`.

    Args:
        new: its name there.
        overrides: config, devices, profiles of a request, as far as they were asked for.

    Raises:
        ApiError: of either server; it runs and is to be moved; the target cannot make it so.
    """
    if "/" in name:
        raise BadRequest("A snapshot does not go to another server: copy it to an instance first, and that there")
    if not move and args.flag("refresh"):
        raise BadRequest("A copy on another server cannot be refreshed: delete it there, and copy again")
    project = args.value("target-project")
    there = source.get(INSTANCE.url(name))
    if move:
        _check_movable(there)
    try:
        target.get(INSTANCE.url(new), **({"project": project} if project else {}))
    except NotFound:
        pass
    else:
        raise Conflict(f"Instance {new!r} already exists on {target.remote.name}: give another name")
    more: dict[str, Any] = {key: overrides[key] for key in ("config", "profiles") if key in overrides}
    if not move:
        more |= {"ephemeral": args.flag("ephemeral"), "fresh": True}
    extensions = target.get("/1.0").get("api_extensions") or ()
    headers = {"X-LXD-name": new, "X-LXD-pool": args.value("storage")}
    if devices := overrides.get("devices"):
        _require(extensions, "import_instance_devices", target, "other devices")
        headers["X-LXD-devices"] = query_string({key: query_string(one)[1:] for key, one in devices.items()})[1:]
    if "lxpy_import_overrides" in extensions:
        headers["X-LXPY-Overrides"] = dumps(more)
    elif overrides.keys() & {"config", "profiles"}:
        _require(extensions, "lxpy_import_overrides", target, "another configuration or other profiles")
    if any(len(value) > _LARGEST for value in headers.values()):
        raise UsageError("What is to be different does not fit into a request: copy it, then set the large keys there")
    only = args.flag("instance-only")
    body = {"instance_only": only, "container_only": only, "compression_algorithm": "zstd"}
    doing = f"{'Moving' if move else 'Copying'} {name}"
    relay(context, source, f"{INSTANCE.url(name)}/backups", body, target, "/1.0/instances", headers, project, doing)
    if move:
        _leave(context, source, INSTANCE.url(name), f"{name} is on {target.remote.name} now")


def volume(context: Context, args: Args, source: Place, target: Place, *, move: bool) -> None:
    """A custom volume, copied or moved to another server.

    Raises:
        ApiError: of either server; it is in use and is to be moved.
    """
    if source.snapshot:
        raise BadRequest("A snapshot does not go to another server: copy it to a volume first, and that there")
    if source.type != "custom" or target.type != "custom":
        raise BadRequest("Only custom volumes can be copied or moved")
    if not move and args.flag("refresh"):
        raise BadRequest("A copy on another server cannot be refreshed: delete it there, and copy again")
    project = args.value("target-project")
    there = source.client.get(source.volume)
    if move and there["used_by"]:
        users = ", ".join(one.partition("?")[0].rpartition("/")[2] for one in there["used_by"])
        raise BadRequest(f"Storage volume {source.name!r} is used by {users}: detach it first")
    try:
        target.client.get(target.volume, **({"project": project} if project else {}))
    except NotFound:
        pass
    else:
        raise Conflict(f"Storage volume {target.name!r} already exists on {target.client.remote.name}")
    body = {"volume_only": not move and args.flag("volume-only"), "compression_algorithm": "zstd"}
    doing = f"{'Moving' if move else 'Copying'} {source.name}"
    relay(
        context, source.client, f"{source.volume}/backups", body, target.client, target.volumes,
        {"X-LXD-name": target.name}, project, doing,
    )  # fmt: skip
    if move:
        _leave(context, source.client, source.volume, f"{source.name} is on {target.client.remote.name} now")


def _check_movable(there: dict[str, Any]) -> None:
    name = there["name"]
    if there["status_code"] in status.UP:
        raise BadRequest(f"Instance {name!r} runs: stop it first (lxpy stop {name}); a copy may be made while it runs")
    key = "security.protection.delete"
    if values.boolean(key, (there.get("expanded_config") or {}).get(key) or "false"):
        raise BadRequest(f"Instance {name!r} is protected: unset {key} to move it away")


def _leave(context: Context, source: Client, url: str, said: str) -> None:
    """Takes away what is elsewhere now."""
    try:
        context.wait(source, source.delete(url))
    except ApiError as error:
        raise ApiError(f"{said}, and still on {source.remote.name}: {error}") from None


def _require(extensions: Any, wanted: str, target: Client, what: str) -> None:
    if wanted not in extensions:
        raise BadRequest(f"{target.remote.name} cannot give what comes in {what} (no {wanted}): do that there")

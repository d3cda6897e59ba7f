"""export and import of instances."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError
from lxpy.cli.args import Args, Command, Option, UsageError
from lxpy.cli.context import Context
from lxpy.client.wire import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from lxpy.client.client import Client

_STREAM = "lxpy_backup_stream"
_BLOCK = 1 << 18


def _export(context: Context, args: Args) -> None:
    client, name = context.resolve(args.rest[0])
    if not name:
        raise UsageError("missing the instance's name")
    only = args.flag("instance-only")
    body: dict[str, Any] = {
        "instance_only": only, "container_only": only, "optimized_storage": args.flag("optimized-storage"),
    }  # fmt: skip
    url = f"/1.0/instances/{quote(name)}/backups"
    fetch(context, client, url, body, args.at(1), args.value("compression"), name)


def fetch(
    context: Context, client: Client, url: str, body: dict[str, Any], target: str, compression: str, name: str
) -> None:
    """Have a backup made at `url` and write it to a file, or to standard output for ``-``.

    Args:
        target: the file; "" for what the server calls it, or `name`.
    """
    import re

    if compression:
        body["compression_algorithm"] = compression
    if target != "-" and target and os.path.isdir(target):
        raise ApiError(f"{target} is a directory: name the file")
    extensions = client.get("/1.0").get("api_extensions") or ()
    wanted = "custom_volume_backup" if "/volumes/" in url else "container_backup"
    if wanted not in extensions:
        raise ApiError(f"The server does not make backups (it has no {wanted})")
    # Somewhere to put it comes first: a fifo waits for its reader, a folder is missing, and nothing is held meanwhile.
    if target == "-":
        with received(context, client, url, body, extensions) as response:
            client.read_into(1, response)
        return
    if os.path.exists(target) and not os.path.isfile(target):
        # A tape, a fifo, /dev/null: it stays what it is.
        with open(target, "wb") as file, received(context, client, url, body, extensions) as response:
            client.read_into(file.fileno(), response)
    else:
        # The file gets its name when it is whole, and on the disk.
        temporary = f"{target or name}.{os.getpid()}.part"
        try:
            with _new_file(temporary, target) as file, received(context, client, url, body, extensions) as response:
                client.read_into(file.fileno(), response)
                os.fsync(file.fileno())
            found = re.search(r'filename="?([^";/]+)', response.headers.get("content-disposition", ""))
            target = target or (found[1] if found else f"{name}.tar.gz")
            os.rename(temporary, target)
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)
    context.say(f"Backup exported successfully to {target}")


def _new_file(path: str, shown: str) -> BinaryIO:
    try:
        return open(path, "xb", opener=lambda path, flags: os.open(path, flags, 0o600))
    except OSError as error:
        raise OSError(error.errno, error.strerror, shown or path) from None


def received(context: Context, client: Client, url: str, body: dict[str, Any], extensions: Any) -> Any:
    """A context with the head of the answer that brings the backup."""
    import contextlib
    import datetime

    @contextlib.contextmanager
    def streamed() -> Any:
        response = client.begin_download("POST", url, body, {"Accept": "application/octet-stream"})
        yield response

    @contextlib.contextmanager
    def kept() -> Any:
        # It is taken away in any case, by us or by its expiry.
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
        operation = context.begin(client, url, {**body, "expires_at": expiry.strftime("%Y-%m-%dT%H:%M:%SZ")})
        ended = context.wait(client, operation, "Backing up")
        backup = ended["resources"]["backups"][0].partition("?")[0].rpartition("/")[2]
        try:
            yield client.begin_download("GET", f"{url}/{backup}/export")
        finally:
            client.wait(client.delete(f"{url}/{backup}"))

    return streamed() if _STREAM in extensions else kept()


def _import(context: Context, args: Args) -> None:
    words = list(args.rest)
    client = context.client()
    if len(words) > 1 and words[0].endswith(":") and not os.path.exists(words[0]):
        client = context.client(words.pop(0)[:-1])
    headers = {"X-LXD-name": words[1] if len(words) > 1 else "", "X-LXD-pool": args.value("storage")}
    if len(words) > 2:
        raise UsageError(f"too many arguments: {' '.join(words[2:])}")
    send(context, client, "/1.0/instances", words[0], headers)


def send(context: Context, client: Client, url: str, source: str, headers: dict[str, str]) -> None:
    """Upload a backup from a file, or from standard input for ``-``, and wait for what is made of it."""
    sent = {key: value for key, value in headers.items() if value} | {"Content-Type": "application/octet-stream"}
    context.show("Importing the backup")
    if source == "-":
        if sys.stdin.isatty():
            raise UsageError("standard input is a terminal: name a file, or pipe the backup in")
        blocks = iter(lambda: os.read(0, _BLOCK), b"")
        operation = client.upload_blocks("POST", url, blocks, sent, source=0)
    else:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            operation = client.upload("POST", url, [fd], sent)
        finally:
            os.close(fd)
    context.wait(client, operation, "Importing the backup")


COMPRESSION = Option("--compression", "ALGORITHM", "gzip (default), zstd, xz, bzip2, lzma or none; a level may follow")

COMMANDS = {
    "export": Command(
        _export, "[<remote>:]<instance> [<file>|-]", "Export instance backups",
        (
            COMPRESSION,
            Option("--instance-only", help="Export the instance without its snapshots"),
            Option("--optimized-storage", help="In a storage driver's own format (not possible)"),
        ), 1, 2,
        "The file defaults to the instance's name with .tar.gz, or what the compression ends in; - is standard output.",
    ),
    "import": Command(
        _import, "[<remote>:] <file>|- [<instance name>]", "Import instance backups",
        (Option("-s --storage", "POOL", "Storage pool name"),), 1, 3,
        "The file is a backup made by lxpy, LXD or Incus; - is standard input.",
    ),
}  # fmt: skip

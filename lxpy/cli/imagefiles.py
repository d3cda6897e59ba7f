"""image import: from files, a directory, standard input or an https address; image export."""

from __future__ import annotations

import os
import sys

from lxpy.api.errors import ApiError, Unavailable
from lxpy.cli.args import Args, UsageError
from lxpy.cli.context import Context, pairs
from lxpy.cli.imagecopy import aliases, give_aliases
from lxpy.client.wire import query_string

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from lxpy.client.client import Client

_BLOCK = 1 << 18


def import_image(context: Context, args: Args) -> None:
    """image import"""
    words = list(args.rest)
    paths = [words.pop(0)]
    if words and "=" not in words[0] and not words[0].endswith(":"):
        paths.append(words.pop(0))
    remote = words.pop(0) if words and words[0].endswith(":") else ":"
    client, _ = context.resolve(remote)
    names = aliases(args)
    properties = pairs(words, "property")
    if paths[0].startswith("http://"):
        raise ApiError("Only https:// is supported for remote image import")
    if paths[0].startswith("https://"):
        if len(paths) > 1:
            raise UsageError("An address is the whole image: name no second file")
        body = {
            "source": {"type": "url", "mode": "pull", "protocol": "direct", "url": paths[0]},
            "public": args.flag("public"), "properties": properties,
        }  # fmt: skip
        operation = client.post("/1.0/images", body)
    else:
        headers = {
            "Content-Type": "application/octet-stream",
            "X-LXD-filename": os.path.basename(os.path.abspath(paths[0])) if paths[0] != "-" else "stdin",
            "X-LXD-public": "true" if args.flag("public") else "false",
        }
        if properties:
            headers["X-LXD-properties"] = query_string(properties)[1:]
        context.show("Transferring image")
        operation = _upload(client, paths, headers)
    ended = context.wait(client, operation, "Importing the image")
    fingerprint = str((ended.get("metadata") or {}).get("fingerprint", ""))
    give_aliases(client, names, fingerprint)
    context.say(f"Image imported with fingerprint: {fingerprint}")


def _upload(client: Client, paths: list[str], headers: dict[str, str]) -> Any:
    if len(paths) > 1 and ("-" in paths or any(map(os.path.isdir, paths))):
        raise UsageError("A split image is two files: metadata and root file system")
    if paths == ["-"]:
        if sys.stdin.isatty():
            raise UsageError("Standard input is a terminal: pipe an image into it")
        return client.upload_blocks("POST", "/1.0/images", _read(0), headers, source=0)
    if os.path.isdir(paths[0]):
        headers["X-LXD-filename"] += ".tar.gz"
        return client.upload_blocks("POST", "/1.0/images", _packed(paths[0]), headers)
    files: list[int] = []
    try:
        for path in paths:
            files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        parts: list[bytes | int] = [files[0]]
        if len(files) > 1:
            mark = f"lxpy-{os.urandom(12).hex()}"
            headers["Content-Type"] = f"multipart/form-data; boundary={mark}"
            parts = []
            for name, path, file in zip(("metadata", "rootfs"), paths, files, strict=True):
                parts += [
                    f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; '
                    f'filename="{os.path.basename(path)}"\r\nContent-Type: application/octet-stream\r\n\r\n'.encode(),
                    file, b"\r\n",
                ]  # fmt: skip
            parts.append(f"--{mark}--\r\n".encode())
        return client.upload("POST", "/1.0/images", parts, headers)
    except OSError as error:
        raise ApiError(f"Cannot read the image: {error.strerror}: {error.filename}") from None
    finally:
        for file in files:
            os.close(file)


def _read(fd: int) -> Iterator[bytes]:
    while block := os.read(fd, _BLOCK):
        yield block


def _packed(directory: str) -> Iterator[bytes]:
    """A directory with ``metadata.yaml``, ``rootfs`` and perhaps ``templates``, as a tarball on its way.

    gzip, since every LXD reads it and xz would take minutes; metadata first, so that nobody has to read to the end.
    """
    import subprocess

    if not os.path.isfile(f"{directory}/metadata.yaml") or not os.path.isdir(f"{directory}/rootfs"):
        raise ApiError(f"{directory} is no image: it needs a file metadata.yaml and a directory rootfs")
    if os.geteuid():
        raise ApiError("Must be root to import from directory: only root can read and keep every file's owner")
    names = ["metadata.yaml", *(["templates"] if os.path.isdir(f"{directory}/templates") else []), "rootfs"]
    command = ["tar", "--numeric-owner", "--format=posix", "--xattrs", "--xattrs-include=*", "--sparse",
               "-C", directory, "-cz", *names]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tar:
        assert tar.stdout is not None and tar.stderr is not None
        try:
            yield from _read(tar.stdout.fileno())
        except BaseException:
            tar.kill()
            raise
        said = tar.stderr.read().decode(errors="replace").strip().splitlines()
        # 1: a file changed while it was read; a live directory is the user's own decision, but a cut file is not.
        if tar.wait():
            raise ApiError(f"Packing {directory} failed: {said[-1] if said else 'tar says nothing'}")


def export_image(context: Context, client: Client, fingerprint: str, target: str) -> None:
    """image export: to files, a directory or (``-``, whole images only) standard output."""
    if target != "-":
        from lxpy.cli.download import export_image as to_files

        for path in to_files(client, fingerprint, target):
            context.say(f"Image exported to {path}")
        return
    import hashlib

    if sys.stdout.isatty():
        raise UsageError("Standard output is a terminal: redirect it, or name a file")
    response, blocks = client.download_blocks(f"/1.0/images/{fingerprint}/export")
    if response.headers.get("content-type", "").startswith("multipart/"):
        client.close()
        raise ApiError("The image is split in two files: export it to a directory")
    digest = hashlib.sha256()
    try:
        for block in blocks:
            digest.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(1, view) :]
    except EOFError:
        raise Unavailable("The server closed the connection during the transfer") from None
    if digest.hexdigest() != fingerprint:
        raise ApiError(f"What was written does not have the fingerprint {fingerprint[:12]}: do not use it")

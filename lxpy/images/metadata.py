"""What an image's tarball says of it: ``metadata.yaml`` and the templates; read from any compression, trusting nothing.

Tarballs come from servers and users, so nothing is unpacked here: the few small files wanted are read into memory,
with limits. What was read is kept as JSON beside the stored tarball: a launch then needs neither YAML nor xz.
"""

import contextlib
import datetime
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from lxpy.api.errors import BadRequest, InternalError, Unavailable
from lxpy.images import files
from lxpy.images.architectures import kernel_name

if TYPE_CHECKING:
    import tarfile

METADATA_LIMIT = 1 << 20
TEMPLATE_LIMIT = 64 << 10
TEMPLATES_LIMIT = 4 << 20
_TRIGGERS = {"create", "copy", "start", "rename"}


class Archive(NamedTuple):
    """Attributes:
    metadata: ``metadata.yaml`` as it stands, checked by `validate`.
    templates: name (below ``templates/``) -> text.
    """

    metadata: dict[str, Any]
    templates: dict[str, str]


def load(archive: str) -> Archive:
    """What the stored image at `archive` says: from the JSON beside it, else from the tarball (and then kept as JSON).

    `archive` may also be such a JSON file itself: an instance keeps a copy to outlive its image.
    """
    kept = archive if archive.endswith(".json") else f"{archive}.json"
    try:
        with open(kept, "rb") as file:
            read = json.load(file)
        return Archive(read["metadata"], read["templates"])
    except (FileNotFoundError, ValueError, KeyError):
        if kept == archive:
            raise InternalError(f"{archive} is missing or damaged: the templates of its image are lost") from None
    found = read_archive(archive, whole=False)
    save(archive, found)
    return found


def save(archive: str, content: Archive) -> None:
    """Keeps `content` beside the tarball `archive`."""
    files.write_atomically(f"{archive}.json", json.dumps(content._asdict(), separators=(",", ":")).encode())


def read_archive(path: str, whole: bool, unified: bool = False) -> Archive:
    """Reads and checks a metadata tarball or a unified image; blocking, meant for a thread.

    Args:
        whole: read to the end, so that a truncated or corrupt file is found even behind what is wanted.
        unified: a ``rootfs/`` directory has to be there.

    Raises:
        BadRequest: no tarball, corrupt, truncated, no usable ``metadata.yaml``.
    """
    import tarfile

    raw: bytes | None = None
    templates: dict[str, str] = {}
    size, rootfs = 0, False
    try:
        with open_tar(path) as tar:
            for member in tar:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps every header of a whole distribution
                name = member.name.removeprefix("./").rstrip("/")
                if name == "metadata.yaml":
                    if not member.isreg() or member.size > METADATA_LIMIT:
                        raise BadRequest("The image's metadata.yaml is no regular file of at most 1 MiB")
                    raw = _content(tar, member)
                elif name.startswith("templates/") and member.isreg():
                    size += member.size
                    if member.size > TEMPLATE_LIMIT or size > TEMPLATES_LIMIT:
                        raise BadRequest(f"The image's {name} is too long for a template (64 KiB, 4 MiB in all)")
                    templates[name.removeprefix("templates/")] = _content(tar, member).decode(errors="replace")
                elif name == "rootfs" or name.startswith("rootfs/"):
                    rootfs = True
                    if not whole and raw is not None:
                        # Ours and LXD's writers put the root file system last.
                        break
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise BadRequest(f"The image is corrupt or truncated: {_reason(error)}") from None
    except Exception as error:
        # zlib.error, lzma.LZMAError: imported by tarfile itself only when the file asks for them.
        if type(error).__module__ in ("zlib", "_lzma", "lzma", "_bz2"):
            raise BadRequest(f"The image is corrupt or truncated: {_reason(error)}") from None
        raise
    if raw is None:
        raise BadRequest("The image has no metadata.yaml: it is no LXD or Incus image")
    if unified and not rootfs:
        raise BadRequest("The image has no rootfs directory: upload its root file system as the second file")
    return Archive(validate(parse_yaml(raw)), templates)


def check_tar(path: str) -> None:
    """Reads a root file system's tarball to its end; `BadRequest` when it is corrupt, truncated or empty."""
    import tarfile

    count = 0
    try:
        with open_tar(path) as tar:
            for _ in tar:
                tar.members.clear()  # type: ignore[attr-defined]
                count += 1
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BadRequest(f"The root file system is corrupt or truncated: {_reason(error)}") from None
    except OSError as error:
        if error.errno:
            raise
        raise BadRequest(f"The root file system is corrupt or truncated: {_reason(error)}") from None
    except Exception as error:
        if type(error).__module__ in ("zlib", "_lzma", "lzma", "_bz2"):
            raise BadRequest(f"The root file system is corrupt or truncated: {_reason(error)}") from None
        raise
    if not count:
        raise BadRequest("The root file system's tarball is empty")


@contextlib.contextmanager
def open_tar(path: str) -> Iterator["tarfile.TarFile"]:
    """The tarball as a stream, read strictly forwards; zstd by the ``zstd`` program (Python has it from 3.14)."""
    import tarfile

    kind = files.sniff(path)
    if kind == "squashfs":
        raise BadRequest("The file is a squashfs, not a tarball with metadata.yaml: upload both, metadata first")
    if not kind:
        raise BadRequest("The file is neither a tarball (plain, gzip, xz, zstd, bzip2) nor a squashfs")
    with contextlib.ExitStack() as stack:
        reader: IO[bytes]
        raw = stack.enter_context(open(path, "rb"))
        process: subprocess.Popen[bytes] | None = None
        if kind == "gz":
            import gzip

            reader = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
        elif kind in ("xz", "lzma"):
            import lzma

            reader = cast(IO[bytes], stack.enter_context(lzma.LZMAFile(raw)))
        elif kind == "bz2":
            import bz2

            reader = cast(IO[bytes], stack.enter_context(bz2.BZ2File(raw)))
        elif kind == "zst":
            program = shutil.which("zstd")
            if program is None:
                raise Unavailable("The image is compressed with zstd: install the package zstd")
            process = subprocess.Popen([program, "-dcq"], stdin=raw, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)
            assert process.stdout is not None
            reader = stack.enter_context(process.stdout)
        else:
            reader = raw
        whole = _Whole(reader)
        tar = stack.enter_context(tarfile.open(fileobj=whole, mode="r|", bufsize=1 << 18))  # type: ignore[call-overload]
        yield tar
        # The end marker may come before the compressed data's own end and checksum. A caller that stopped early
        # has not seen the marker and does not care.
        if tar._loaded:
            while whole.read(1 << 18):
                pass
            if tar.offset > whole.count:
                raise EOFError("it ends in the middle")
            if process is not None and process.wait():
                raise ValueError("zstd reports bad or missing data")


class _Whole:
    """A reader whose end of file inside the archive is an error: tarfile takes a missing end marker for the end."""

    def __init__(self, reader: IO[bytes]) -> None:
        self._reader = reader
        self._last = b""
        self.count = 0

    def read(self, size: int) -> bytes:
        data = self._reader.read(size)
        if not data and any(self._last[-512:]):
            raise EOFError("it ends in the middle")
        if data:
            self._last = data
            self.count += len(data)
        return data


def parse_yaml(raw: bytes) -> dict[str, Any]:
    """A YAML mapping, read safely; `BadRequest` for anything else."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # Aliases could unfold one kilobyte into gigabytes; no writer of image metadata uses them.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(raw, Loader=loader)):
            raise BadRequest("The image's metadata.yaml uses YAML aliases, which are not accepted")
        data = yaml.load(raw, Loader=loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise BadRequest(f"The image's metadata.yaml cannot be read: {problem}") from None
    if not isinstance(data, dict):
        raise BadRequest("The image's metadata.yaml is no mapping")
    return data


def validate(data: dict[str, Any]) -> dict[str, Any]:
    """Checks what every user of the metadata relies on and returns it in plain JSON types.

    Raises:
        BadRequest: architecture or creation_date missing or unknown, malformed properties or templates.
    """
    architecture = data.get("architecture")
    if not isinstance(architecture, str) or not architecture:
        raise BadRequest("The image's metadata.yaml has no architecture")
    if kernel_name(architecture) is None:
        raise BadRequest(f"The image's architecture {architecture!r} is unknown")
    result: dict[str, Any] = {
        "architecture": kernel_name(architecture),
        "creation_date": _timestamp("creation_date", data.get("creation_date")),
        "expiry_date": _timestamp("expiry_date", data.get("expiry_date") or 0, required=False),
    }
    properties = data.get("properties") or {}
    if not isinstance(properties, dict):
        raise BadRequest("The image's properties are no mapping")
    result["properties"] = {str(key): _text(value) for key, value in properties.items()}
    templates = data.get("templates") or {}
    if not isinstance(templates, dict):
        raise BadRequest("The image's templates are no mapping")
    result["templates"] = {str(path): _template(str(path), entry) for path, entry in templates.items()}
    return result


def _template(path: str, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or not isinstance(entry.get("template"), str):
        raise BadRequest(f"The image's template for {path} names no template file")
    if not path.startswith("/"):
        raise BadRequest(f"The image's template path {path!r} is not absolute")
    when = entry.get("when") or []
    if not isinstance(when, list) or not _TRIGGERS.issuperset(map(str, when)):
        raise BadRequest(f"The image's template for {path} has an unknown trigger (create, copy, start, rename)")
    properties = entry.get("properties") or {}
    if not isinstance(properties, dict):
        raise BadRequest(f"The properties of the image's template for {path} are no mapping")
    result: dict[str, Any] = {
        "when": [str(trigger) for trigger in when],
        "template": entry["template"],
        "create_only": entry.get("create_only") is True,
        "properties": {str(key): _text(value) for key, value in properties.items()},
    }
    for key in ("uid", "gid", "mode"):
        value = entry.get(key)
        if value not in (None, ""):
            try:
                # Incus writes all three as strings, the mode octal with or without a leading 0.
                number = int(str(value).removeprefix("0o"), 8 if key == "mode" and isinstance(value, str) else 10)
            except ValueError:
                raise BadRequest(f"The {key} of the image's template for {path} is no number: {value!r}") from None
            if not 0 <= number <= (0o7777 if key == "mode" else 0xFFFFFFFE):
                raise BadRequest(f"The {key} of the image's template for {path} is out of range: {value!r}")
            result[key] = number
    return result


def _timestamp(key: str, value: Any, required: bool = True) -> int:
    if isinstance(value, datetime.datetime):
        value = value.timestamp()
    if isinstance(value, datetime.date):
        value = datetime.datetime.combine(value, datetime.time(), datetime.UTC).timestamp()
    try:
        seconds = int(value)
    except (TypeError, ValueError, OverflowError):
        seconds = -1
    # The year 9999: what datetime, and so our dates on the wire, can say.
    if not 0 <= seconds < 253402300800 or (required and not seconds):
        raise BadRequest(f"The image's metadata.yaml has no usable {key} (seconds since 1970)")
    return seconds


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _content(tar: "tarfile.TarFile", member: "tarfile.TarInfo") -> bytes:
    file = tar.extractfile(member)
    assert file is not None
    data = file.read()
    if len(data) != member.size:
        raise EOFError("it ends in the middle")
    return data


def _reason(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def utc(seconds: float) -> str:
    """RFC 3339, as LXD writes dates; LXD's "never" for 0."""
    if not seconds:
        return "1970-01-01T00:00:00Z"
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def parse_utc(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 date; 0 for "never" and for what is no date."""
    try:
        moment = datetime.datetime.fromisoformat(text)
        if moment.year < 1970:
            return 0.0
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def size_of(*paths: str) -> int:
    return sum(os.stat(path).st_size for path in paths)

"""Compressing and decompressing: by programs, each with a core of its own. Names are LXD's."""

import re
import shutil

from lxpy.api.errors import BadRequest, Unavailable

# By the name: the command, the suffix of a file, and the options for a level that it takes.
_COMMANDS: dict[str, tuple[list[str], str]] = {
    "none": ([], ""),
    "gzip": (["gzip", "-cn"], ".gz"),
    "zstd": (["zstd", "-qc", "-T0"], ".zst"),
    "xz": (["xz", "-c", "-T0"], ".xz"),
    "bzip2": (["bzip2", "-c"], ".bz2"),
    "lzma": (["xz", "-c", "--format=lzma"], ".lzma"),
}
_LEVEL = re.compile(r"-(?:[1-9]|1[0-9])\Z|--(?:fast|best)\Z")
# By the first bytes: the command that writes the plain data to its output.
_MAGIC: list[tuple[bytes, list[str]]] = [
    (b"\xfd7zXZ\0", ["xz", "-T0", "-dc"]),
    (b"\x1f\x8b", ["gzip", "-dc"]),
    (b"\x28\xb5\x2f\xfd", ["zstd", "-qdc"]),
    (b"BZh", ["bzip2", "-dc"]),
    (b"\x5d\0\0", ["xz", "--format=lzma", "-dc"]),
]
MAGIC_LENGTH = 6


def check(key: str, value: str) -> list[str]:
    """The command of a compression such as ``zstd``, ``zstd -19`` or ``none`` (then an empty one).

    Raises:
        BadRequest: there is none of that name, or it takes no such option.
    """
    name, *options = value.split() or [""]
    if name not in _COMMANDS:
        raise BadRequest(f"Invalid value for {key}: {value!r} is none of {', '.join(_COMMANDS)}")
    command = _COMMANDS[name][0]
    if options and (not command or not all(_LEVEL.match(option) for option in options)):
        raise BadRequest(f"Invalid value for {key}: {value!r}: only a level may follow the name, such as zstd -19")
    return [*command, *options]


def command(value: str, what: str) -> list[str]:
    """As `check`, of a program that is there.

    Raises:
        Unavailable: it is not installed; the message begins with `what`.
    """
    found = check("compression_algorithm", value)
    if found and not shutil.which(found[0]):
        raise Unavailable(f"{what}: {found[0]} is missing (install {_package(found[0])})")
    return found


def suffix(value: str) -> str:
    """Of the name of a file so compressed: ``.gz``."""
    return _COMMANDS[value.split()[0]][1]


def decompressor(start: bytes, what: str) -> list[str]:
    """The command for data that begins with these bytes (`MAGIC_LENGTH` of them), empty for what is not compressed.

    Raises:
        BadRequest: its program is not installed.
    """
    found = next((words for magic, words in _MAGIC if start.startswith(magic)), [])
    if found and not shutil.which(found[0]):
        raise BadRequest(f"{what}: {found[0]} is missing (install {_package(found[0])})")
    return found


def _package(program: str) -> str:
    return {"xz": "xz-utils"}.get(program, program)

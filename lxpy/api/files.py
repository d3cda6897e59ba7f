"""The files of an instance on the wire: what their errors mean."""

from __future__ import annotations

from lxpy.api.errors import ApiError, BadRequest, Conflict, Forbidden, InternalError, NoSpace, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# By errno (include/uapi/asm-generic/errno-base.h, errno.h): what it is for the user, and what to say.
_FAULTS: dict[int, tuple[type[ApiError], str]] = {
    2: (NotFound, "it is not there"),
    1: (Forbidden, "the kernel does not permit it there"),
    13: (Forbidden, "the kernel does not permit it there"),
    16: (Conflict, "it is in use, or something is mounted there"),
    17: (Conflict, "something else is there already"),
    18: (BadRequest, "it would lead to another file system"),
    20: (BadRequest, "a part of the path is no directory"),
    21: (BadRequest, "it is a directory"),
    22: (BadRequest, ""),
    26: (Conflict, "it is a program that is running"),
    27: (NoSpace, "it would be larger than that file system allows"),
    28: (NoSpace, "no space is left on that file system"),
    30: (Forbidden, "that file system is read-only"),
    36: (BadRequest, "the name is too long"),
    39: (Conflict, "the directory is not empty"),
    40: (BadRequest, "too many symbolic links on the way"),
    122: (NoSpace, "the disk quota is used up"),
}


def fault(answer: dict[str, Any], doing: str) -> ApiError:
    """The error of a file process's answer.

    Args:
        answer: ``error`` (text), ``errno``, ``path``.
        doing: what was tried, up to the colon.
    """
    number, said = int(answer.get("errno") or 0), str(answer.get("error") or "")
    kind, text = _FAULTS.get(number, (InternalError, said))
    if number == 22 and said in ("", "Invalid argument"):
        text = "an owner or mode that is not possible there"
    return kind(f"{doing}: {text or said}")

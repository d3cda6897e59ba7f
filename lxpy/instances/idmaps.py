"""Which host ids an instance's own map takes: 65536 of root's subordinate range, the lowest free."""

import os
import re

from lxpy.api import values
from lxpy.api.errors import BadRequest, Unavailable
from lxpy.api.objects import Config
from lxpy.runtime.spec import IdMap

SIZE = 65536
# 2^30 up to the end of what systemd reserves for containers (0x6FFFFFFF): 12287 maps, clear of users' subordinate ids
# and of LXD's own default (1000000 to 1001000000).
_DEFAULT = (1 << 30, 0x7000_0000 - (1 << 30))
# A smaller range was made for another tool (LXD's package gives root 152 maps' worth); root needs no delegation.
_ENOUGH = 1024


def host_range() -> tuple[int, int]:
    """First id and count of the range for containers.

    ``$LXPY_IDMAP`` (``base:size``) wins; then root's ranges in both ``/etc/subuid`` and ``/etc/subgid`` (the largest);
    if it holds 1024 maps; then 2^30 up to 0x6FFFFFFF.
    """
    if given := os.environ.get("LXPY_IDMAP"):
        base, _, size = given.partition(":")
        return int(base), int(size)
    common = _ranges("/etc/subuid") & _ranges("/etc/subgid")
    largest = max(common, key=lambda r: r[1], default=_DEFAULT)
    return largest if largest[1] >= _ENOUGH * SIZE else _DEFAULT


def allocate(taken: set[int], size: int = SIZE) -> IdMap:
    """The lowest free map.

    Args:
        taken: first host ids of the maps in use, and of every further 65536 of larger ones: see `slots`.
        size: how many ids.

    Raises:
        Unavailable: the range is used up.
    """
    first, count = host_range()
    steps = -(-size // SIZE)
    for base in range(first, first + count - steps * SIZE + 1, SIZE):
        if not any(base + step * SIZE in taken for step in range(steps)):
            return {"base": base, "size": size}
    raise Unavailable(
        f"All {count // SIZE} id maps of the range {first}+{count} are in use: "
        "give root a larger range in /etc/subuid and /etc/subgid, or delete instances"
    )


def slots(base: int, size: int) -> set[int]:
    """The places of the host's range that a map covers, wholly or in part."""
    first, _ = host_range()
    return {first + number * SIZE for number in range((base - first) // SIZE, (base + size - 1 - first) // SIZE + 1)}


def wanted(config: Config) -> tuple[int | None, int]:
    """The base that expanded configuration asks for (None: any), and the size."""
    base, size = config.get("security.idmap.base"), config.get("security.idmap.size")
    return int(base) if base else None, int(size) if size else SIZE


def spec(base: int | None, config: Config) -> IdMap | None:
    """The map of an instance for the runtime; None for a privileged one. Raises `BadRequest` as `pieces`."""
    if base is None or privileged(config):
        return None
    found: IdMap = {"base": base, "size": wanted(config)[1]}
    if extra := raw(config.get("raw.idmap", "")):
        found["uids"], found["gids"] = (pieces(kind, base, found["size"], extra) for kind in ("uid", "gid"))
    return found


def check(key: str, value: str) -> int:
    """A ``security.idmap.base`` or ``.size``. Raises `BadRequest`."""
    least, most = (SIZE, 0x7FFF0000) if key.endswith("base") else (SIZE, 1 << 30)
    if not (value.isascii() and value.isdigit() and least <= int(value) <= most):
        why = "lower ids are the host's own" if key.endswith("base") else "systems have users up to 65534"
        raise BadRequest(f"Invalid value for {key}: {value!r} is no number from {least} to {most}; {why}")
    return int(value)


def check_isolated(key: str, value: str) -> bool:
    """Raises `BadRequest` for anything but true."""
    if not values.boolean(key, value):
        raise BadRequest(
            f"{key}=false is not supported: every instance has an id map of its own, which costs nothing here"
        )
    return True


# -- raw.idmap ---------------------------------------------------------------------------------------------------------

_LINE = re.compile(r"(both|uid|gid)\s+(\d{1,10})(?:-(\d{1,10}))?\s+(\d{1,10})(?:-(\d{1,10}))?\Z")


def raw(value: str) -> list[tuple[str, int, int, int]]:
    """The lines of a ``raw.idmap``: uid or gid, first inside, first of the host, how many.

    Raises:
        BadRequest: a line that is none, root on either side, or ids that overlap.
    """
    found: list[tuple[str, int, int, int]] = []
    for line in filter(None, (part.strip() for part in value.splitlines())):
        match = _LINE.match(line)
        if not match:
            raise BadRequest(
                f"Invalid value for raw.idmap: {line!r} is no line of the form uid|gid|both HOST[-HOST] INSIDE[-INSIDE]"
            )
        kind, host, inside = match[1], int(match[2]), int(match[4])
        count = int(match[3] or host) - host + 1
        if count < 1 or count != int(match[5] or inside) - inside + 1:
            raise BadRequest(f"Invalid value for raw.idmap: {line!r} has ranges that are not of one length")
        if host == 0 or inside == 0:
            raise BadRequest(
                f"Invalid value for raw.idmap: {line!r} maps root: root inside has an id of its own on the host; "
                "security.privileged=true is what makes it the host's"
            )
        for one in ("uid", "gid") if kind == "both" else (kind,):
            for other, first, outside, number in found:
                if other == one and (
                    (first < inside + count and inside < first + number)
                    or (outside < host + count and host < outside + number)
                ):
                    raise BadRequest(f"Invalid value for raw.idmap: {line!r} overlaps with another line")
            found.append((one, inside, host, count))
    return found


def check_raw(key: str, value: str) -> str:
    """Raises `BadRequest`."""
    del key
    raw(value)
    return value


def pieces(kind: str, base: int, size: int, extra: list[tuple[str, int, int, int]]) -> list[list[int]]:
    """The map of ``uid`` or ``gid``: the whole of it, with the pieces of ``raw.idmap`` in their places.

    Raises:
        BadRequest: a piece lies outside of the map, or on the host within it.
    """
    found, at = [], 0
    for _, inside, host, count in sorted((one for one in extra if one[0] == kind), key=lambda one: one[1]):
        if inside + count > size:
            raise BadRequest(f"raw.idmap maps {kind}s up to {inside + count - 1}, the instance has {size}")
        if host < base + size and base < host + count:
            raise BadRequest(
                f"raw.idmap maps {kind}s that the instance has on the host already ({base}-{base + size - 1})"
            )
        if inside > at:
            found.append([at, base + at, inside - at])
        found.append([inside, host, count])
        at = inside + count
    if at < size:
        found.append([at, base + at, size - at])
    return found


def _ranges(path: str) -> set[tuple[int, int]]:
    found = set()
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                owner, _, numbers = line.strip().partition(":")
                base, _, count = numbers.partition(":")
                if owner in ("root", "0") and base.isdigit() and count.isdigit():
                    found.add((int(base), int(count)))
    except OSError:
        pass
    return found


def privileged(config: Config) -> bool:
    """Whether expanded configuration asks for no id map at all."""
    return values.boolean("security.privileged", config.get("security.privileged") or "false")

"""Which host ids an instance's own map takes: 65536 of root's subordinate range, the lowest free."""

import os

from lxpy.api import values
from lxpy.api.errors import Unavailable
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


def allocate(taken: set[int]) -> IdMap:
    """The lowest free map.

    Args:
        taken: first host ids of the maps in use.

    Raises:
        Unavailable: the range is used up.
    """
    first, count = host_range()
    for base in range(first, first + count - SIZE + 1, SIZE):
        if base not in taken:
            return {"base": base, "size": SIZE}
    raise Unavailable(
        f"All {count // SIZE} id maps of the range {first}+{count} are in use: "
        "give root a larger range in /etc/subuid and /etc/subgid, or delete instances"
    )


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

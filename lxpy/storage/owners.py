"""Owners on the disks of others: LXD 5 shifts them there by the id map of the instance; ours begin at 0."""

import json
import struct
from typing import Any, NamedTuple

from lxpy.api.errors import BadRequest

_NOBODY = 65534
_NO_ID = 0xFFFFFFFF
_LARGEST = 0xFFFFFFFE
# struct vfs_ns_cap_data of include/uapi/linux/capability.h: the revision in the first byte from above.
_CAP_V2, _CAP_V3, _CAP_REVISION = 0x02000000, 0x03000000, 0xFF000000


class _Range(NamedTuple):
    users: bool
    groups: bool
    disk: int
    guest: int
    length: int


class Owners:
    """The way back from a map as LXD writes it in ``volatile.last_state.idmap``.

    Args:
        text: JSON, a list of ``{"Isuid", "Isgid", "Hostid", "Nsid", "Maprange"}``; "" or ``[]`` for no shift.

    Raises:
        BadRequest: it is something else.
    """

    def __init__(self, text: str) -> None:
        try:
            entries = json.loads(text or "[]") or []
            self._ranges = [_range(entry) for entry in entries]
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BadRequest("volatile.last_state.idmap is no id map") from None

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def user(self, number: int) -> int:
        """The guest's user of an id on the disk; nobody for one that the guest does not have."""
        return self._find(number, 0)

    def group(self, number: int) -> int:
        return self._find(number, 1)

    def _find(self, number: int, which: int, default: int = _NOBODY) -> int:
        for one in self._ranges:
            if one[which] and one.disk <= number < one.disk + one.length:
                return one.guest + number - one.disk
        return default

    def acl(self, packed: bytes) -> bytes:
        """A ``system.posix_acl_*`` attribute with the guest's owners."""
        head, entries = packed[:4], packed[4:]
        if len(packed) < 4 or len(entries) % 8:
            return packed  # and the kernel refuses it
        done = [head]
        for tag, permissions, number in struct.iter_unpack("<HHI", entries):
            if number != _NO_ID:
                number = self.group(number) if tag == 0x08 else self.user(number)
            done.append(struct.pack("<HHI", tag, permissions, number))
        return b"".join(done)

    def capability(self, packed: bytes) -> bytes | None:
        """A ``security.capability`` attribute as the guest's root has it; None when it is another's."""
        if len(packed) != 24:
            return packed
        (magic,) = struct.unpack_from("<I", packed)
        (root,) = struct.unpack_from("<I", packed, 20)
        if magic & _CAP_REVISION != _CAP_V3:
            return packed
        if self._find(root, 0, -1) != 0:
            return None
        return struct.pack("<I", magic & ~_CAP_REVISION | _CAP_V2) + packed[4:20]


def _range(entry: Any) -> _Range:
    numbers = [entry["Hostid"], entry["Nsid"], entry["Maprange"]]
    if not all(isinstance(one, int) and 0 <= one <= _LARGEST for one in numbers):
        raise ValueError("an id out of range")
    return _Range(bool(entry["Isuid"]), bool(entry["Isgid"]), *numbers)

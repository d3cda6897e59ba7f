"""POSIX access lists as tar writes them (text) and as the kernel takes them (include/uapi/linux/posix_acl_xattr.h)."""

import struct

_TAGS = {"user": 0x02, "group": 0x08, "mask": 0x10, "other": 0x20}
_OWNER_TAGS = {"user": 0x01, "group": 0x04}
_NO_ID = 0xFFFFFFFF
_VERSION = 2


def from_text(text: str) -> bytes | None:
    """The attribute's value for ``user::rw-,user:1000:r--,group::r--,mask::r--,other::---``.

    Owners count as numbers only: ``user:1000:r--`` or star's ``user:name:r--:1000``. None for a list that says
    something else: a name of another system means nothing in this image.
    """
    entries = []
    for part in text.replace("\n", ",").split(","):
        fields = part.strip().split(":")
        if fields == [""]:
            continue
        if len(fields) < 3 or fields[0] not in _TAGS or set(fields[2]) - set("rwx-"):
            return None
        tag, number = _TAGS[fields[0]], _NO_ID
        if fields[0] in _OWNER_TAGS:
            if not fields[1]:
                tag = _OWNER_TAGS[fields[0]]
            else:
                digits = fields[3] if len(fields) > 3 else fields[1]
                if not (digits.isascii() and digits.isdigit()) or int(digits) >= _NO_ID:
                    return None
                number = int(digits)
        permissions = sum(bit for letter, bit in (("r", 4), ("w", 2), ("x", 1)) if letter in fields[2])
        entries.append((tag, number, permissions))
    packed = (struct.pack("<HHI", tag, permissions, number) for tag, number, permissions in sorted(entries))
    return struct.pack("<I", _VERSION) + b"".join(packed)

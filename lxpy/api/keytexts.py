"""What is said of a configuration key, and the shape of ``GET /1.0/metadata/configuration`` (LXD's). No I/O.

The texts lie beside the rules: `instances/keytexts.py`, `instances/devicetexts.py`, `networks/keytexts.py`,
`storage/keytexts.py`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Key(NamedTuple):
    """Attributes:
    type: ``bool``, ``integer`` or ``string``, as LXD names them.
    text: what it does, one line; `default`: what is so without it, in words or as a value.
    values: the only ones there are, or those that are usual.
    """

    type: str
    text: str
    default: str = ""
    values: tuple[str, ...] = ()


Keys = Mapping[str, Key]


def group(keys: Keys) -> dict[str, Any]:
    """One group of keys as the wire has it."""
    return {"keys": [{name: _told(key)} for name, key in sorted(keys.items())]}


def _told(key: Key) -> dict[str, Any]:
    told: dict[str, Any] = {"type": key.type, "shortdesc": key.text, "longdesc": "", "defaultdesc": key.default}
    values = key.values or (("true", "false") if key.type == "bool" else ())
    return told | ({"lxpy_values": list(values)} if values else {})

"""The syntax of values users type: names, sizes, booleans, CPU sets. Pure functions; `BadRequest` on a fault."""

import re
from typing import Any

from lxpy.api.errors import BadRequest

# A host name (RFC 1123) that does not start with a digit or dash, as LXD asks for: the guest's hostname is its name.
_INSTANCE_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\Z")
_OBJECT_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\Z")
_SIZE = re.compile(r"(\d+)\s*(B|bit|kB|MB|GB|TB|PB|EB|KiB|MiB|GiB|TiB|PiB|EiB)?\Z")
_UNITS = {
    None: 1, "B": 1, "bit": 1,
    "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15, "EB": 10**18,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50, "EiB": 2**60,
}  # fmt: skip


def instance_name(value: str) -> str:
    """`value` if it may name an instance, else `BadRequest` with the rule."""
    if not _INSTANCE_NAME.match(value):
        raise BadRequest(
            f"Invalid instance name {value!r}: use 1 to 63 letters, digits and dashes, "
            "starting with a letter and not ending with a dash"
        )
    return value


def object_name(kind: str, value: str) -> str:
    """`value` if it may name a pool, network, profile or project, else `BadRequest` with the rule."""
    if not _OBJECT_NAME.match(value) or ".." in value:
        raise BadRequest(
            f"Invalid {kind} name {value!r}: use 1 to 63 letters, digits, dots, dashes and underscores, "
            "starting and ending with a letter or digit"
        )
    return value


def image_alias(value: str) -> str:
    """`value`, if an alias of an image may be called so. Raises `BadRequest`."""
    if not value or len(value) > 255 or not value.isprintable() or any(char in " ?#:" for char in value):
        raise BadRequest(f"Invalid image alias {value!r}: use up to 255 visible characters without spaces, ?, # and :")
    if any(part in ("", ".", "..") for part in value.split("/")):
        raise BadRequest(f"Invalid image alias {value!r}: between its slashes there has to be a name")
    return value


def stated(devices: Any) -> Any:
    """Devices without the keys whose value is empty: such a key is not set, as in LXD. What is no device stays."""
    if not isinstance(devices, dict):
        return devices
    return {
        name: {key: value for key, value in device.items() if value != ""} if isinstance(device, dict) else device
        for name, device in devices.items()
    }


def boolean(key: str, value: str) -> bool:
    """LXD's booleans: true/1/yes/on and false/0/no/off, any case."""
    low = value.lower()
    if low in ("true", "1", "yes", "on"):
        return True
    if low in ("false", "0", "no", "off", ""):
        return False
    raise BadRequest(f"Invalid value for {key}: {value!r} is not a boolean (true or false)")


def size_bytes(key: str, value: str) -> int:
    """Bytes of a size such as ``512MiB``, ``2GB`` or ``1048576`` (LXD: kB is 1000, KiB is 1024)."""
    match = _SIZE.match(value.strip())
    if not match:
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a size (examples: 512MiB, 2GB, 1048576)")
    return int(match[1]) * _UNITS[match[2]]


def bit_rate(key: str, value: str) -> int:
    """Bytes per second of a rate such as ``10Mbit`` (bits per second; kbit is 1000, Kibit 1024)."""
    match = re.fullmatch(r"(\d{1,12})(bit|kbit|Mbit|Gbit|Tbit|Kibit|Mibit|Gibit|Tibit)?", value.strip())
    if not match or int(match[1]) == 0:
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a rate (examples: 100Mbit, 1Gbit, 512kbit)")
    unit = (match[2] or "bit").removesuffix("bit")
    factor: int = (1024 if unit.endswith("i") else 1000) ** ("kmgt".find(unit[:1].lower()) + 1 if unit else 0)
    return max(1, int(match[1]) * factor // 8)


def cpu_set(key: str, value: str) -> list[int]:
    """The CPUs of a set such as ``0-3,5``, sorted."""
    cpus: set[int] = set()
    for part in value.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise BadRequest(f"Invalid value for {key}: {value!r} is not a CPU set (examples: 0-3, 0,2)")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise BadRequest(f"Invalid value for {key}: {value!r} runs backwards")
        cpus.update(range(first, last + 1))
    return sorted(cpus)


def human_bytes(count: float) -> str:
    """``1.50GiB``: two decimals, binary units, as LXD prints sizes."""
    if count < 1024:
        return f"{int(count)}B"
    units = iter(("KiB", "MiB", "GiB", "TiB", "PiB", "EiB"))
    unit = next(units)
    count /= 1024
    while count >= 1024:
        count, unit = count / 1024, next(units)
    return f"{count:.2f}{unit}"

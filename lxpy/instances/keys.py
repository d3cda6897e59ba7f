"""The instance configuration keys lxpy honours, and how their values are checked; the devices are in `devices`.

A key that LXD has and lxpy does not honour yet is refused with that reason: nothing is accepted and then ignored.
Key names and their meaning: LXD's instance options.
"""

import difflib
import re
from collections.abc import Callable

from lxpy.api import expiry, values
from lxpy.api.errors import BadRequest
from lxpy.api.objects import Config
from lxpy.instances import apparmor, boot, confinement, idmaps, limits, refusals, seeds
from lxpy.linux import libc
from lxpy.networks.config import mac_address
from lxpy.storage import retention

Check = Callable[[str, str], object]


def _count(key: str, value: str) -> int:
    if not value.isdigit():
        raise BadRequest(f"Invalid value for {key}: {value!r} is not a whole number")
    return int(value)


def _positive(key: str, value: str) -> int:
    if _count(key, value) == 0:
        raise BadRequest(f"Invalid value for {key}: it must be at least 1")
    return int(value)


def _cpu(key: str, value: str) -> object:
    if value.isdigit():
        return _positive(key, value)
    return values.cpu_set(key, value)


def _memory(key: str, value: str) -> object:
    if percent := re.fullmatch(r"(\d+)%", value):
        if not 1 <= int(percent[1]) <= 100:
            raise BadRequest(f"Invalid value for {key}: {value!r} is not between 1% and 100%")
        return value
    if values.size_bytes(key, value) < 1 << 20:
        raise BadRequest(f"Invalid value for {key}: {value!r} is below 1MiB, too little for any init")
    return value


def _allowance(key: str, value: str) -> object:
    if percent := re.fullmatch(r"(\d+)%", value):
        if 1 <= int(percent[1]) <= 100:
            return value
    elif quota := re.fullmatch(r"(\d+)ms/(\d+)ms", value):
        # The kernel takes periods of 1 ms to 1 s and quotas of at least 1 ms.
        if int(quota[1]) >= 1 and 1 <= int(quota[2]) <= 1000:
            return value
    raise BadRequest(f"Invalid value for {key}: {value!r} is neither a share (50%) nor a quota (25ms/100ms)")


def _priority(key: str, value: str) -> int:
    if not re.fullmatch(r"\d|10", value):
        raise BadRequest(f"Invalid value for {key}: {value!r} is no priority, 0 to 10")
    return int(value)


def _pages(key: str, value: str) -> int:
    number, size = values.size_bytes(key, value), key.rpartition(".")[2]
    if number % limits.PAGE_SIZES[size]:
        raise BadRequest(f"Invalid value for {key}: {value!r} is no whole number of pages of {size}")
    return number


def _one_of(*words: str) -> Check:
    def check(key: str, value: str) -> str:
        if value not in words:
            raise BadRequest(f"Invalid value for {key}: {value!r} is none of {', '.join(words)}")
        return value

    return check


def _text(key: str, value: str) -> str:
    if "\0" in value:
        raise BadRequest(f"Invalid value for {key}: it holds a NUL byte")
    return value


def _seed(key: str, value: str) -> None:
    seeds.check_data(key, _text(key, value))


KEYS: dict[str, Check] = {
    "boot.autorestart": values.boolean,
    "boot.autorestart.delay": _count,
    "boot.autorestart.limit": _count,
    "boot.autostart": values.boolean,
    "boot.autostart.delay": _count,
    "boot.autostart.priority": _count,
    "boot.host_shutdown_timeout": _count,
    "boot.requires": boot.check,
    "boot.requires.timeout": _count,
    "boot.stop.priority": _count,
    "cloud-init.network-config": _seed,
    "cloud-init.user-data": _seed,
    "cloud-init.vendor-data": _seed,
    "limits.cpu": _cpu,
    "limits.cpu.allowance": _allowance,
    "limits.cpu.nodes": values.cpu_set,
    "limits.cpu.priority": _priority,
    "limits.disk.priority": _priority,
    **{f"limits.hugepages.{size}": _pages for size in limits.PAGE_SIZES},
    **{f"limits.kernel.{name}": limits.check_rlimit for name in libc.RLIMITS},
    "limits.memory": _memory,
    "limits.memory.enforce": _one_of("hard", "soft"),
    "limits.memory.swap": values.boolean,
    "limits.memory.swap.priority": _priority,
    "limits.network.priority": _priority,
    "limits.processes": _positive,
    "linux.kernel_modules": confinement.check_modules,
    "raw.apparmor": apparmor.check_raw,
    "raw.idmap": idmaps.check_raw,
    "raw.lxc": confinement.check_raw,
    "security.devlxd": values.boolean,
    "security.devlxd.images": values.boolean,
    "security.idmap.base": idmaps.check,
    "security.idmap.isolated": idmaps.check_isolated,
    "security.idmap.size": idmaps.check,
    "security.nesting": values.boolean,
    "security.privileged": values.boolean,
    "security.protection.delete": values.boolean,
    "security.protection.shift": values.boolean,  # owners on disk are never shifted here
    "security.protection.start": values.boolean,
    "security.syscalls.allow": confinement.check_syscalls,
    "security.syscalls.deny": confinement.check_syscalls,
    "security.syscalls.deny_compat": values.boolean,
    "security.syscalls.deny_default": values.boolean,
    "snapshots.expiry": expiry.check,
    "snapshots.pattern": retention.check_pattern,
    "snapshots.schedule": retention.check_schedule,
    "snapshots.schedule.stopped": values.boolean,
}
# Keys whose last part is the user's to choose.
FAMILIES: dict[str, Check] = {
    seeds.KEYS_PREFIX: seeds.check_ssh_key,
    "linux.sysctl.": confinement.check_sysctl,
    retention.SCHEDULES: retention.check_schedules,
}
PREFIXES = ("environment.", "image.", "user.", "volatile.")

_VOLATILE = re.compile(
    r"volatile\.(apply_template|autorestart\.(count|due)|base_image|base_snapshot|cloud-init\.instance-id|idmap\..+"
    r"|last_state\..+|root\.size|uuid|uuid\.generation|.+\.(apply_quota|host_name|hwaddr|last_state\..+|mount|name|nodes))"
    r"\Z"
)

# LXD has these; lxpy does not honour them yet.
_NOT_YET = re.compile(
    r"(cluster|limits|linux|migration|nvidia|raw|security|snapshots|boot|cloud-init)\.[a-zA-Z0-9_.-]+\Z"
)


def validate_config(config: Config) -> None:
    """Raises `BadRequest` for the first key that is unknown, not honoured yet, or has a bad value."""
    for key, value in config.items():
        if not isinstance(value, str):
            raise BadRequest(f"Invalid value for {key}: it must be a string")
        if key.startswith(PREFIXES):
            if key.startswith("environment.") and ("=" in key or len(key) == len("environment.")):
                raise BadRequest(f"Invalid configuration key {key!r}: environment.NAME needs a plain name")
            _text(key, value)
            continue
        check = KEYS.get(key) or next((FAMILIES[f] for f in FAMILIES if key.startswith(f)), None)
        if check is None and refusals.refuse(key, value):
            continue
        if check is None:
            raise unknown_key(key, KEYS)
        if value:
            check(key, value)
    seeds.check(config)
    confinement.check_together(config)


def check_volatile(config: Config, had: Config) -> None:
    """Raises `BadRequest` for a ``volatile.*`` key that is written and does not exist, or could not be gone by."""
    for key, value in config.items():
        if not key.startswith("volatile.") or value == had.get(key) or not value:
            continue
        if not _VOLATILE.match(key):
            raise BadRequest(f"Unknown configuration key {key!r}: volatile.* keys are the server's own notes")
        if key.endswith(".hwaddr"):
            mac_address(key, value)
        elif key == "volatile.root.size":
            values.size_bytes(key, value)


def unknown_key(key: str, known: "dict[str, Check] | frozenset[str]") -> BadRequest:
    """The error for a key that is not among `known`, with the nearest one that is."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.8)
    if near:
        return BadRequest(f"Unknown configuration key {key!r}: did you mean {near[0]!r}?")
    if _NOT_YET.match(key):
        return BadRequest(f"Configuration key {key!r} is not supported by this version of lxpy")
    return BadRequest(f"Unknown configuration key {key!r}")

"""What shuts a running instance in, read from the kernel and not from the configuration: extension ``lxpy_isolation``.

``GET /1.0/instances/{name}/isolation``. It is about the instance's init; what ``lxpy exec`` starts gets the
same.
"""

import os
import re
from typing import Any, TypedDict

from lxpy.api.errors import BadRequest
from lxpy.instances.live import Live
from lxpy.linux import apparmor, caps, cgroups, devices, seccomp

NAMESPACES = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
_SECCOMP = {"0": "none", "1": "strict", "2": "filter"}
# What of a cgroup says a limit; the rest is use, or knobs nobody turns.
_LIMIT_FILE = re.compile(
    r"(memory\.(limit_in_bytes|memsw\.limit_in_bytes|soft_limit_in_bytes|swappiness|max|high|swap\.max)"
    r"|pids\.max|cpuset\.cpus|cpu\.(shares|cfs_quota_us|weight|max)|io\.(max|weight|bfq\.weight)"
    r"|blkio\.(weight|bfq\.weight|throttle\.(read|write)_(bps|iops)_device)|hugetlb\.[^.]+\.(limit_in_bytes|max))\Z"
)
_UNLIMITED = {"", "max", "-1", "9223372036854771712", "9223372036854775807", "max 100000"}
_USUAL = {
    "cpu.shares": "1024", "cpu.weight": "100", "memory.swappiness": "60", "blkio.bfq.weight": "100",
    "blkio.weight": "500", "io.weight": "default 100", "io.bfq.weight": "default 100",
}  # fmt: skip


class Isolation(TypedDict):
    """The answer; `docs/security.md` tells what each part is good for."""

    namespaces: list[dict[str, Any]]  # name, inode, host: whether it is the host's own
    idmap: dict[str, list[list[int]]]  # uid and gid: first inside, first outside, how many
    cgroups: list[dict[str, Any]]  # path, version, controllers, limits (file: value; only what limits)
    processes: list[dict[str, Any]]  # pid and uid of the host, inside and uid_inside, name
    capabilities: dict[str, list[str]]  # bounding, effective, and missing: what root of a host has beside
    seccomp: dict[str, Any]  # mode, filters, refused: what its filter refuses
    no_new_privs: bool
    apparmor: str  # the profile; empty for none
    devices: list[str]  # kind, major:minor, may
    rlimits: dict[str, list[str]]  # soft, hard
    mounts: list[dict[str, Any]]  # target, type, source, flags, options


def read(live: Live) -> Isolation:
    """Raises `BadRequest` when the instance has just ended."""
    pid = live.supervisor.init_pid
    try:
        status = _status(pid)
        found: Isolation = {
            "namespaces": [one for name in NAMESPACES if (one := _namespace(pid, name))],
            "idmap": {kind: _map(f"/proc/{pid}/{kind}_map") for kind in ("uid", "gid")},
            "cgroups": _cgroups(live),
            "processes": _processes(live),
            "capabilities": _capabilities(status),
            "seccomp": {
                "mode": _SECCOMP.get(status.get("Seccomp", "0"), "unknown"),
                "filters": int(status.get("Seccomp_filters", "0")),
                "refused": live.supervisor.confine.get("refuses", list(seccomp.REFUSED)),
            },
            "no_new_privs": status.get("NoNewPrivs") == "1",
            "apparmor": apparmor.label(pid),
            "devices": _devices(live),
            "rlimits": _rlimits(pid),
            "mounts": _mounts(pid),
        }  # fmt: skip
    except (FileNotFoundError, ProcessLookupError):
        raise BadRequest(f"Instance {live.supervisor.name!r} has just stopped") from None
    return found


def _status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}


def _namespace(pid: int, name: str) -> dict[str, Any] | None:
    try:
        inside = os.stat(f"/proc/{pid}/ns/{name}").st_ino
    except FileNotFoundError:
        if not os.path.exists(f"/proc/{pid}"):
            raise
        return None  # a kernel without it
    return {"name": name, "inode": inside, "host": inside == os.stat(f"/proc/self/ns/{name}").st_ino}


def _map(path: str) -> list[list[int]]:
    with open(path, encoding="ascii") as file:
        return [[int(word) for word in line.split()] for line in file]


def _cgroups(live: Live) -> list[dict[str, Any]]:
    there, found = cgroups.hierarchies(), []
    for root in [*there.v1_roots, *([there.unified] if there.unified else [])]:
        path = f"{root}/{live.cgroup.payload}"
        unified = root == there.unified
        limits = {}
        try:
            for name in sorted(os.listdir(path)):
                if _LIMIT_FILE.match(name):
                    value = cgroups.read(f"{path}/{name}")
                    if value not in _UNLIMITED and value != _USUAL.get(name):
                        limits[name] = value
            controllers = cgroups.read(f"{path}/cgroup.controllers").split() if unified else []
        except FileNotFoundError:
            continue  # made by nobody: a controller that came up later
        controllers = controllers or [name for name, at in there.v1.items() if at == root and not unified]
        found.append({"path": path, "version": 2 if unified else 1, "controllers": controllers, "limits": limits})
    return found


def _processes(live: Live) -> list[dict[str, Any]]:
    found = []
    uids = _map(f"/proc/{live.supervisor.init_pid}/uid_map")
    for pid in sorted(live.cgroup.pids()):
        try:
            status = _status(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
        uid = int(status["Uid"].split()[1])
        inside = next((uid - out + first for first, out, count in uids if out <= uid < out + count), -1)
        found.append(
            {"pid": pid, "inside": int(status.get("NSpid", "0").split()[-1]), "name": status["Name"], "uid": uid,
             "uid_inside": inside}
        )  # fmt: skip
    return found


def _capabilities(status: dict[str, str]) -> dict[str, list[str]]:
    bounding, effective = int(status["CapBnd"], 16), int(status["CapEff"], 16)
    return {
        "bounding": caps.names(bounding),
        "effective": caps.names(effective),
        "missing": caps.names(caps.known() & ~bounding),
    }


def _devices(live: Live) -> list[str]:
    path = live.cgroup.v1("devices")
    if path:
        return cgroups.read(f"{path}/devices.list").splitlines()
    # A BPF program cannot be read back as a list; it is made of this one and the disks that are devices.
    return [f"{kind} {major}:{'*' if minor < 0 else minor} rwm" for kind, major, minor in devices.ALLOWED]


def _rlimits(pid: int) -> dict[str, list[str]]:
    found = {}
    with open(f"/proc/{pid}/limits", encoding="ascii") as file:
        for line in list(file)[1:]:
            name, soft, hard = line[:25].strip(), line[25:46].strip(), line[46:67].strip()
            found[name.removeprefix("Max ")] = [soft, hard]
    return found


def _mounts(pid: int) -> list[dict[str, Any]]:
    found = []
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.rstrip("\n").partition(" - ")
            fields, (kind, source, options) = left.split(" "), right.split(" ", 2)
            target = re.sub(r"\\(\d{3})", lambda match: chr(int(match[1], 8)), fields[4])
            found.append(
                {"target": target, "type": kind, "source": source, "flags": fields[5].split(","),
                 "options": options.split(",")}
            )  # fmt: skip
    return found

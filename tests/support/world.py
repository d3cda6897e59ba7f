"""Everything that a daemon of the tests says there is, and everything of it that can be seen on the host."""

import collections
import http.client
import json
import pathlib
import re
import socket
import subprocess
from typing import Any

from tests.support import leftovers
from tests.support.daemon import Lxpyd

World = dict[str, Any]
_LIMITS = {
    "memory": ("memory.limit_in_bytes", "memory.max"), "processes": ("pids.max",),
    "disk": ("blkio.throttle.write_bps_device", "io.max"), "CPU": ("cpu.shares", "cpu.weight"),
}  # fmt: skip
_VOLATILE = {"created_at", "last_used_at", "uploaded_at", "used_by", "state"}


def world(daemon: Lxpyd) -> World:
    """What can be compared: without times, random addresses and numbers. In a network of the daemon's own."""
    layout = daemon.layout
    asked = _Unix(layout.socket)

    def get(path: str) -> Any:
        asked.request("GET", f"/1.0{path}{'&' if '?' in path else '?'}recursion=1")
        return _plain(json.loads(asked.getresponse().read())["metadata"])

    networks = [one for one in get("/networks") if one["managed"]]
    pools = get("/storage-pools")
    found: World = {
        "instances": get("/instances?all-projects=true"), "images": get("/images"), "aliases": get("/images/aliases"),
        "networks": networks, "acls": get("/network-acls"), "pools": pools, "profiles": get("/profiles"),
        "projects": {
            one["name"]: [one, get(f"/profiles?project={one['name']}")] for one in get("/projects")
        },
        "backups": {
            one["name"]: [get(f"/instances/{one['name']}/{kind}") for kind in ("backups", "metadata/templates")]
            for one in get("/instances")
        },
        "certificates": get("/certificates"), "config": get("")["config"],
        "forwards": {one["name"]: get(f"/networks/{one['name']}/forwards") for one in networks},
        "volumes": {one["name"]: get(f"/storage-pools/{one['name']}/volumes/custom") for one in pools},
    }  # fmt: skip
    running = get("/operations").get("running") or []
    found["tokens"] = sorted(one["metadata"]["request"]["name"] for one in running if one["class"] == "token")
    found["snapshots"] = {
        one["name"]: get(f"/instances/{one['name']}/snapshots?project={one['project']}") for one in found["instances"]
    }  # fmt: skip
    asked.close()
    for folder in (
        "storage-pools/*/*",
        "storage-pools/*/instances/*",
        "storage-pools/*/instances/*/snapshots",
        "storage-pools/*/custom/*/*",
        "images",
        "networks",
        "disks",
        "backups/*/*",
    ):
        paths = (path for place in daemon.dir.glob(folder) for path in place.glob("*"))
        found[f"files in {folder}"] = sorted(str(path.relative_to(daemon.dir)) for path in paths)
    # Half written when the daemon ended, it is written over.
    found["files in storage-pools/*/instances/*"] = [
        one for one in found["files in storage-pools/*/instances/*"] if not one.endswith((".yaml.new", ".json.new"))
    ]
    # The notes of nics, and one half written, stay when they are empty; a pin is called by chance.
    found["files in networks"] = [one for one in found["files in networks"] if ".json" not in one]
    found["pins"] = len(list(pathlib.Path(layout.run, "netns").glob("*")))
    found["runs"] = len(list(pathlib.Path(layout.instances).glob("*")))
    # A supervisor that was killed, or could not leave its own cgroup, leaves that empty for the next start.
    cgroups = pathlib.Path("/sys/fs/cgroup")
    tops = [path for place in ("", "*/") for path in cgroups.glob(f"{place}{layout.cgroup_prefix}.payload.*")]
    found["cgroups"] = dict(collections.Counter(path.name for path in tops))
    for what, names in _LIMITS.items():
        found[what] = {
            path.name: value.read_text() for path in tops for name in names for value in path.glob(name)
        }  # fmt: skip
    mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [re.sub(r"/i/\d+", "/i/N", re.sub(r"/_(phys|macv)[0-9a-f]{8}$", "/PIN", one)) for one in mounts]
    found["mounts"] = sorted(one for one in mounts if one.startswith((f"{layout.root}/", f"{layout.run}/")))
    commands = [line.partition(" ")[2].strip() for line in leftovers.processes(daemon)]
    found["processes"] = sorted(one for one in commands if "lxpyd" not in one and "spawner" not in one)
    links = json.loads(_run("ip", "-j", "-d", "address"))
    found["links"] = sorted(json.dumps(_link(link)) for link in links if link["ifname"] != "lo")
    found["routes"] = sorted(_names(_run("ip", "route")).replace(" linkdown", "").split(" \n"))
    rules = re.sub(r"packets \d+ bytes \d+", "", _names(_run("nft", "list", "ruleset")))
    rules = re.sub(r"table \w+ \w+ \{\s*\}", "", rules)  # an empty table is as good as none
    # Sorted: chains of nics come in the order of the nics' beginnings.
    found["rules"] = sorted(" ".join(line.split()) for line in rules.splitlines() if line.strip())
    return found


def difference(one: World, other: World) -> str:
    """One line for each thing that is not the same."""
    lines = []
    for key in sorted(one.keys() | other.keys()):
        left, right = one.get(key), other.get(key)
        if left != right:
            both = isinstance(left, list) and isinstance(right, list)
            gone = [item for item in left if item not in right] if both else left  # type: ignore[union-attr]
            new = [item for item in right if item not in left] if both else right  # type: ignore[union-attr]
            lines.append(f"{key}: - {gone}\n{' ' * len(key)}  + {new}")
    return "\n".join(lines)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("lxpy")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(self._path)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: _plain(one) for key, one in sorted(value.items())
            if key not in _VOLATILE and not key.startswith("volatile.")
        }  # fmt: skip
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value


def _link(link: dict[str, Any]) -> list[Any]:
    """A link without what is random: a veth's name, addresses made of that of the hardware."""
    veth = (link.get("linkinfo") or {}).get("info_kind") == "veth" and link["ifname"].startswith("veth")
    addresses = [f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"]
    mac = "" if veth else link["address"]
    up = "UP" in link["flags"]
    return ["veth" if veth else link["ifname"], link.get("master", ""), sorted(addresses), mac, link["mtu"], up]


def _names(text: str) -> str:
    return re.sub(r"\bveth[0-9a-f]{4,}\b", "VETH", text)


def _run(*line: str) -> str:
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout

"""A daemon of the imagination for layout and error paths: the wire's shapes, no containers behind them."""

import asyncio
import hashlib
import itertools
import json
import queue
import threading
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from lxpy.api.errors import ApiError, BadRequest, Conflict, NotFound, from_status
from lxpy.daemon import vetting
from lxpy.daemon.routes.metadata import configs
from lxpy.projects import rules
from lxpy.tui.gateway import Gateway, RemoteInfo

REMOTES = [
    RemoteInfo("builtin", "builtin://", "builtin", True, False),
    RemoteInfo("images", "https://images.linuxcontainers.org", "simplestreams", True, False),
    RemoteInfo("local", "unix://", "lxd", False, True),
    RemoteInfo("ubuntu", "https://cloud-images.ubuntu.com/releases", "simplestreams", True, False),
]


def instance(name: str, status: str = "Running", ip: int = 0, memory: int = 0, **config: str) -> dict[str, Any]:
    """An instance as recursion gives it."""
    network = {
        "lo": {"addresses": [{"family": "inet", "address": "127.0.0.1", "netmask": "8", "scope": "local"}]},
        "eth0": {
            "addresses": [
                {"family": "inet", "address": f"10.71.4.{ip}", "netmask": "24", "scope": "global"},
                {"family": "inet6", "address": f"fd42:9c1a::{ip:x}", "netmask": "64", "scope": "global"},
                {"family": "inet6", "address": f"fe80::{ip:x}", "netmask": "64", "scope": "link"},
            ],
            "hwaddr": f"00:16:3e:00:00:{ip:02x}",
            "host_name": f"veth{ip:04x}",
            "state": "up",
            "counters": {"bytes_received": 91_000, "packets_received": 120, "bytes_sent": 4100, "packets_sent": 38},
        },
    }
    image = {"image.os": "Debian", "image.release": "trixie", "image.description": "Debian trixie amd64"}
    return {
        "name": name, "project": "default", "type": "container", "status": status, "status_code": 103,
        "architecture": "x86_64", "description": "", "ephemeral": False, "created_at": "2020-01-01T00:00:00Z",
        "last_used_at": "2020-01-01T00:00:00Z", "profiles": ["default"], "config": dict(config), "devices": {},
        "expanded_config": image | config,
        "expanded_devices": {
            "eth0": {"type": "nic", "network": "lxpybr0", "name": "eth0"},
            "root": {"type": "disk", "pool": "default", "path": "/"},
        },
        "state": {
            "status": status, "processes": 14,
            "memory": {"usage": memory or 42_000_000}, "network": network if ip else None,
        } if status != "Stopped" else None,
    }  # fmt: skip


def image(alias: str, description: str, fingerprint: str, size: int = 54_000_000) -> dict[str, Any]:
    return {
        "fingerprint": fingerprint * 8, "aliases": [{"name": alias, "description": ""}] if alias else [],
        "properties": {"description": description, "os": description.split()[0]}, "architecture": "x86_64",
        "size": size, "type": "container", "uploaded_at": "2020-01-01T00:00:00Z", "public": False,
    }  # fmt: skip


INHERITED = {"eth0": {"type": "nic", "network": "lxpybr0", "name": "eth0"}}
USERS = ["/1.0/instances/web1"]
ROOT = {"type": "disk", "path": "/", "pool": "default"}
PROFILES = [
    {"name": name, "description": about, "config": config, "devices": {**INHERITED, "root": ROOT}, "used_by": USERS}
    for name, about, config in (("default", "Default LXD profile", {}), ("small", "", {"limits.memory": "64MiB"}))
]
POOLS = [
    {
        "name": "default", "driver": "overlay", "description": "", "status": "Created", "used_by": USERS,
        "config": {"source": "/var/lib/lxpy/storage-pools/default"},
    },
    {
        "name": "fast", "driver": "btrfs", "description": "the fast one", "status": "Created", "used_by": [],
        "config": {"source": "/dev/sdb", "size": "20GiB"},
    },
]  # fmt: skip
NETWORKS = [
    {
        "name": "lxpybr0", "type": "bridge", "managed": True, "status": "Created", "description": "", "used_by": USERS,
        "config": {"ipv4.address": "10.71.4.1/24", "ipv4.nat": "true", "ipv6.address": "fd42:9c1a::1/64",
                   "security.acls": "web"},
    },
    {
        "name": "eth0", "type": "physical", "managed": False, "status": "", "description": "", "used_by": [],
        "config": {},
    },
]  # fmt: skip
GIB = 2**30
_PLAIN = {"description": "", "config": {}, "used_by": [], "created_at": "2020-01-01T01:00:00Z", "pool": "fast"}
VOLUMES = [
    {**_PLAIN, "type": "container", "name": "web1", "used_by": USERS},
    {**_PLAIN, "type": "image", "name": "3fa9c1e0" * 8, "used_by": ["/1.0/images/" + "3fa9c1e0" * 8]},
    {
        **_PLAIN, "type": "custom", "name": "data", "description": "what the shop knows", "config": {"size": "10GiB"},
        "used_by": ["/1.0/instances/web1", "/1.0/instances/db?project=lab"],
    },
    {**_PLAIN, "type": "custom", "name": "data/before", "expires_at": "2020-01-03T01:00:00Z"},
    {**_PLAIN, "type": "custom", "name": "data/later", "created_at": "2020-01-01T02:00:00Z"},
    {**_PLAIN, "type": "custom", "name": "attic", "config": {"size": "1GiB"}},
]  # fmt: skip
SPACES = {"data": (7 * GIB, 10 * GIB), "attic": (GIB - 2**25, GIB)}
FORWARDS = [
    {
        "listen_address": "192.0.2.7", "description": "the shop", "config": {"target_address": "10.71.4.12"},
        "ports": [
            {"protocol": "tcp", "listen_port": "80,443", "target_port": "8080", "target_address": "10.71.4.11"},
            {"protocol": "udp", "listen_port": "53", "target_address": "10.71.4.12", "description": "names"},
        ],
    },
]  # fmt: skip
ACLS = [
    {
        "name": "web", "description": "what a web server needs", "config": {}, "used_by": ["/1.0/networks/lxpybr0"],
        "ingress": [{"action": "allow", "protocol": "tcp", "destination_port": "80,443", "state": "enabled"}],
        "egress": [{"action": "reject", "destination": "10.0.0.0/8", "state": "logged", "description": "not inwards"}],
    },
    {"name": "none", "description": "", "config": {}, "used_by": [], "ingress": [], "egress": []},
]  # fmt: skip
WARNINGS = [
    {
        "uuid": "0b1c", "type": "Unable to start the instance", "status": "new", "severity": "moderate", "count": 3,
        "last_message": "Instance 'db' could not be started: no space left", "entity_url": "/1.0/instances/db",
        "last_seen_at": "2020-01-01T02:00:00Z",
    },
]  # fmt: skip


def listed(
    system: str,
    release: str,
    variant: str = "default",
    arch: str = "amd64",
    *aliases: str,
    serial: str = "20191201_05:24",
) -> dict[str, Any]:
    """An image as an image server's list has it."""
    key = f"{system}/{release}/{variant}/{arch}/{serial}"
    kernel = {"amd64": "x86_64", "arm64": "aarch64"}.get(arch, arch)
    return {
        "fingerprint": hashlib.sha256(key.encode()).hexdigest(), "architecture": kernel, "type": "container",
        "aliases": [{"name": alias, "description": ""} for alias in aliases], "public": True, "filename": "lxd.tar.xz",
        "size": 54_000_000 + len(key) * 1_000_000, "uploaded_at": f"{serial[:4]}-{serial[4:6]}-{serial[6:8]}T00:00:00Z",
        "properties": {
            "os": system, "release": release, "variant": variant, "architecture": arch, "serial": serial,
            "description": f"{system} {release} {arch} ({serial})",
        },
    }  # fmt: skip


def lists() -> list[dict[str, Any]]:
    """A small image server's: two distributions, a foreign machine's, an older version."""
    found = []
    for arch in ("amd64", "arm64"):
        for release, number in (("bookworm", "12"), ("trixie", "13")):
            for variant in ("cloud", "default"):
                more = [f"debian/{number}/{variant}", *([f"debian/{number}"] if variant == "default" else [])]
                found.append(listed("Debian", release, variant, arch, *more))
        found.append(listed("Alpine", "3.20", "default", arch, "alpine/3.20/default", "alpine/3.20"))
        found.append(listed("Alpine", "3.12", "default", arch, "alpine/3.12/default", "alpine/3.12"))
    found.append(listed("Alpine", "3.20", serial="20191101_13:00"))
    found.append(listed("openSUSE 日本", "tumbleweed", "default", "amd64", "opensuse/tumbleweed"))
    return found


class FakeDaemon:
    """State, operations and events; `fail` makes requests fail by (method, path prefix)."""

    def __init__(self) -> None:
        self.instances = {
            raw["name"]: raw
            for raw in (
                instance("web1", ip=11, memory=180_000_000, **{"limits.memory": "256MiB", "limits.cpu": "2"}),
                instance("web2", ip=12, memory=61_000_000),
                instance("db", "Frozen", ip=13),
                instance("build", "Stopped"),
            )
        }
        self.images = [
            image("debian/13", "Debian trixie amd64", "3fa9c1e0"),
            image("bb", "Busybox 1.35", "9be07d12", 1_100_000),
        ]
        self.catalogue = [
            image("alpine/3.20", "Alpine 3.20 amd64", "aa11bb22"),
            image("debian/12", "Debian bookworm", "cc33dd44"),
        ]
        self.snapshots: dict[str, list[dict[str, Any]]] = {}  # by instance
        self.catalogues: dict[str, Any] = {}  # by server, where one has another
        self.slow: threading.Event | None = None  # lists of image servers wait for it
        self.operations: dict[str, dict[str, Any]] = {}
        self.log = "booting\nlogin: \n"
        self.logs: dict[str, str] = {}  # by instance, where one has another
        self.requests: list[tuple[str, str, Any]] = []
        self.fail: dict[tuple[str, str], Exception] = {}
        self.away: Exception | None = None
        self.hold = False  # operations stay running until `finish`
        self._ids = itertools.count(1)
        self._readings = 0
        self._sockets: list[queue.SimpleQueue[bytes | None]] = []

    def connect(self) -> "FakeClient":
        if self.away:
            raise self.away
        return FakeClient(self)

    def gateway(self, remote: str = "") -> Gateway:
        return Gateway(lambda remote, project: self.connect(), lambda: REMOTES, remote)

    def usage(self) -> dict[str, Any]:
        """One reading; two seconds and 3 % of a CPU after the one before."""
        self._readings += 1
        return {
            "at": self._readings * 2_000_000_000, "cpus": 2, "memory": 2**34,
            "instances": [
                {
                    "name": name, "project": "default", "status": raw["status"], "pid": 100 + n, "cpus": 2,
                    "cpu_ns": self._readings * 60_000_000, "memory": raw["state"]["memory"]["usage"], "swap": 0,
                    "memory_limit": 0, "processes": 14, "processes_limit": 0, "started_at": 0.0,
                    "disk_read": 0, "disk_written": self._readings * 40_000, "network_received": self._readings * 9000,
                    "network_sent": self._readings * 1000,
                }
                for n, (name, raw) in enumerate(self.instances.items()) if raw.get("state")
            ],
        }  # fmt: skip

    # Events

    def emit(self, type_: str, metadata: dict[str, Any]) -> None:
        data = json.dumps({"type": type_, "metadata": metadata}).encode()
        for box in self._sockets:
            box.put(data)

    def lifecycle(self, action: str, name: str, kind: str = "instances") -> None:
        self.emit("lifecycle", {"action": action, "source": f"/1.0/{kind}/{name}", "context": {}})

    def drop(self, away: Exception | None = None) -> None:
        """The daemon goes: connections end; `away` is what reconnecting meets until `come_back`."""
        self.away = away
        sockets, self._sockets = self._sockets, []
        for box in sockets:
            box.put(None)

    def come_back(self) -> None:
        self.away = None

    def operation(
        self, description: str, name: str, done: Callable[[], None], kind: str = "instances"
    ) -> dict[str, Any]:
        ident = f"op-{next(self._ids)}"
        op: dict[str, Any] = {
            "id": ident, "class": "task", "description": description, "status_code": 103, "status": "Running",
            "resources": {kind: [f"/1.0/{kind}/{name}"]}, "metadata": {}, "err": "", "created_at": "",
        }  # fmt: skip
        self.operations[ident] = op
        self.emit("operation", op)
        op["_done"] = done
        if not self.hold:
            self.finish(ident)
        return {k: v for k, v in op.items() if k != "_done"} | {"status_code": 103}

    def download(self, body: dict[str, Any]) -> dict[str, Any]:
        """An image of `catalogues` comes here."""
        source = body["source"]
        listed = self.catalogues.get(source["server"], self.catalogue)
        found = next(i for i in listed if source["alias"] in [a["name"] for a in i["aliases"]] + [i["fingerprint"]])

        def done() -> None:
            self.images.append(
                found | {"aliases": body["aliases"] + (found["aliases"] if source.get("copy_aliases") else [])}
            )
            self.lifecycle("image-created", found["fingerprint"], "images")

        return self.operation("Downloading image", found["fingerprint"], done, "images")

    def image(self, path: str, body: Any) -> Any:
        """Aliases and refreshing."""
        if path.endswith("/refresh"):
            return self.operation("Refreshing image", path.split("/")[3], lambda: None, "images")
        taken = {alias["name"]: image for image in self.images for alias in image["aliases"]}
        if body["name"] in taken:
            raise Conflict(f"Alias {body['name']!r} already exists")
        if path == "/1.0/images/aliases":
            image = next(i for i in self.images if i["fingerprint"] == body["target"])
            image["aliases"] = [*image["aliases"], {"name": body["name"], "description": ""}]
        else:
            old = unquote(path.rpartition("/")[2])
            taken[old]["aliases"] = [a for a in taken[old]["aliases"] if a["name"] != old] + [{"name": body["name"]}]
        self.lifecycle("image-alias-updated", body["name"], "images/aliases")
        return None

    def cancel(self, ident: str) -> None:
        if (op := self.operations.get(ident)) is None:
            return
        op.pop("_done", None)
        op |= {"status_code": 401, "status": "Cancelled", "err": "Operation cancelled"}
        self.emit("operation", op)

    def finish(self, ident: str) -> None:
        op = self.operations[ident]
        try:
            op.pop("_done")()
            op |= {"status_code": 200, "status": "Success"}
        except ApiError as error:
            op |= {"status_code": 400, "status": "Failure", "err": str(error)}
        self.emit("operation", op)


class FakeResponse:
    def __init__(self, body: bytes, start: int = 0, total: int = 0) -> None:
        self.body, self.status = body, 206 if total else 200
        self.headers = {"content-range": f"bytes {start}-{start + len(body) - 1}/{total}"} if total else {}


class FakeSocket:
    def __init__(self, box: "queue.SimpleQueue[bytes | None]") -> None:
        self._box = box
        self.sock = self

    def shutdown(self, how: int) -> None:
        self._box.put(None)

    def close(self) -> None: ...

    def pending(self) -> bool:
        return not self._box.empty()

    def receive(self) -> tuple[int, bytes] | None:
        data = self._box.get()
        return None if data is None else (1, data)


class _Pool:
    """What the rules ask of a pool."""

    def __init__(self, name: str) -> None:
        self.name = name

    def check_size(self, size: int | None) -> None:
        if size and self.name != "fast":
            raise BadRequest(f"size cannot be set on a volume of {self.name}: its driver keeps no quotas")


class _Rules:
    """What the rules ask of the daemon."""

    class storage:
        pool = staticmethod(_Pool)

        @staticmethod
        def changed(name: str, config: dict[str, str]) -> None:
            if "size" in config and name != "fast":
                raise BadRequest("size cannot be set on an overlay pool: it shares the file system its source lies on")

        @staticmethod
        def planned(name: str, driver: str, config: dict[str, str]) -> None:
            if config.get("source", "/").startswith("/") is False:
                raise BadRequest(f"Invalid source {config['source']!r}: an absolute path is expected")

    class projects:
        @staticmethod
        def free(name: str) -> None:
            if name in ("default", "lab"):
                raise Conflict(f"Project {name!r} already exists")

        @staticmethod
        def checked(name: str, config: dict[str, str]) -> None:
            for key, value in config.items():
                if not key.startswith(("features.", "user.")) and not rules.check_key(key, value):
                    raise BadRequest(f"Unknown project configuration key {key!r}")

        @staticmethod
        def fits(name: str, config: dict[str, str]) -> None: ...

    class networks:
        @staticmethod
        def get(name: str) -> Any:
            return next(one for one in NETWORKS if one["name"] == name)

    class store:
        class networks:
            @staticmethod
            def all() -> dict[str, Any]:
                return {}

        class network_acls:
            @staticmethod
            def get(name: str) -> Any:
                return next((one for one in ACLS if one["name"] == name), None)


class FakeClient:
    """What the app uses of the client."""

    def __init__(self, daemon: FakeDaemon) -> None:
        self.daemon = daemon

    def close(self) -> None: ...

    def hang_up(self) -> None: ...

    def websocket(self, path: str, **query: str) -> FakeSocket:
        self._enter("GET", path, query)
        box: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.daemon._sockets.append(box)
        return FakeSocket(box)

    def _enter(self, method: str, path: str, body: Any) -> None:
        daemon = self.daemon
        daemon.requests.append((method, path, body))
        if daemon.away:
            raise daemon.away
        for (wanted, prefix), error in daemon.fail.items():
            if wanted == method and path.startswith(prefix):
                raise error

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None) -> FakeResponse:
        self._enter(method, path, headers)
        name = unquote(path.split("/")[3])
        log = self.daemon.logs.get(path.rpartition("/")[2] if "/logs/" in path else name, self.daemon.log).encode()
        if not log or not headers:
            return FakeResponse(log)
        first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(log) - int(last))
        if start >= len(log):
            raise from_status(416, "Range Not Satisfiable")
        return FakeResponse(log[start : int(last) + 1 if first else None], start, len(log))

    def get(self, path: str, **query: str) -> Any:
        self._enter("GET", path, query)
        daemon = self.daemon
        parts = [unquote(part) for part in path.split("/")[2:]]
        match parts:
            case []:
                return {"environment": {"server_name": "lab", "architectures": ["x86_64"]}}
            case ["instances"]:
                return json.loads(json.dumps(list(daemon.instances.values())))
            case ["instances", name]:
                if name not in daemon.instances:
                    raise NotFound("Instance not found")
                return json.loads(json.dumps(daemon.instances[name]))
            case ["instances", name, "snapshots"]:
                return json.loads(json.dumps(daemon.snapshots.get(name, [])))
            case ["instances", name, "logs"]:
                return [f"/1.0/instances/{name}/logs/lxc.log"]
            case ["instances", name, "logs", "exec-output"]:
                return []
            case ["images"]:
                return daemon.images
            case ["images", fingerprint]:
                return next(i for i in daemon.images if i["fingerprint"] == fingerprint)
            case ["operations"]:
                return {}
            case ["operations", ident]:
                return {k: v for k, v in daemon.operations[ident].items() if k != "_done"}
            case ["profiles"]:
                if query.get("recursion"):
                    return PROFILES
                return ["/1.0/profiles/default", "/1.0/profiles/small"]
            case ["profiles", name]:
                return next(p for p in PROFILES if p["name"] == name)
            case ["storage-pools"]:
                return POOLS
            case ["storage-pools", _, "resources"]:
                return {"space": {"used": 12_000_000_000, "total": 80_000_000_000}}
            case ["networks"]:
                return NETWORKS
            case ["storage-pools", pool, "volumes"]:
                return [volume for volume in VOLUMES if volume["pool"] == pool]
            case ["storage-pools", _, "volumes", "custom", name, "state"]:
                used, total = SPACES[name]
                return {"usage": {"used": used, "total": total}}
            case ["storage-pools", pool, "volumes", "custom", name]:
                return next(volume for volume in VOLUMES if volume["name"] == name)
            case ["networks", _, "forwards"]:
                return FORWARDS
            case ["networks", _, "forwards", _]:
                return json.loads(json.dumps(FORWARDS[0]))
            case ["network-acls"]:
                return ACLS
            case ["network-acls", name]:
                return json.loads(json.dumps(next(acl for acl in ACLS if acl["name"] == name)))
            case ["networks", _, "leases"]:
                return [{"hostname": "web1", "address": "10.71.4.11", "hwaddr": "00:16:3e:00:00:01", "type": "dynamic"}]
            case ["warnings"]:
                return WARNINGS
            case ["metadata", "configuration"]:
                return {"configs": configs()}
            case ["instances", name, "state"]:
                return daemon.instances[name].get("state")
            case ["networks", name]:
                return next(n for n in NETWORKS if n["name"] == name)
            case ["storage-pools", name]:
                return next(p for p in POOLS if p["name"] == name)
            case ["projects"]:
                return [{"name": "default", "description": ""}, {"name": "lab", "description": "for trying"}]
            case ["projects", _, "state"]:
                kinds = {"cpu": (4, 8), "disk": (9 * GIB, 50 * GIB), "instances": (4, -1), "memory": (GIB, GIB)}
                return {"resources": {name: {"Usage": used, "Limit": most} for name, (used, most) in kinds.items()}}
            case ["projects", name]:
                return {"name": name, "description": "", "config": {"features.images": "true"}, "used_by": []}
            case ["usage"]:
                return daemon.usage()
            case ["image-servers", "probe"]:
                return {"milliseconds": 41.7, "products": 7}
            case ["images", fingerprint]:
                found = next((i for i in daemon.images if i["fingerprint"] == fingerprint), None)
                if found is None:
                    raise NotFound("Image not found")
                return found
            case ["image-servers", "catalogue"]:
                if daemon.slow:
                    daemon.slow.wait(20)
                if query["protocol"] == "simplestreams":
                    return daemon.catalogues.get(query["server"], daemon.catalogue)
                return [image("busybox", "Busybox", "ee55")]
            case ["storage-pools" | "networks" | "warnings" as kind, name]:
                known = {"storage-pools": POOLS, "networks": NETWORKS, "warnings": WARNINGS}[kind]
                return next(one for one in known if name in (one.get("name"), one.get("uuid")))
        raise AssertionError(path)

    def post(self, path: str, body: Any = None) -> Any:
        self._enter("POST", path, body)
        daemon = self.daemon
        if path == "/1.0/metadata/check":
            return asyncio.run(vetting.check(_Rules, body))  # type: ignore[arg-type]  # the real rules
        if path.startswith(("/1.0/storage-pools", "/1.0/networks", "/1.0/network-acls")):
            return {}
        if "/snapshots" in path:
            return daemon.operation("Snapshotting instance", path.split("/")[3], lambda: None)
        if path == "/1.0/images":
            return daemon.download(body)
        if path.startswith("/1.0/images/"):
            return daemon.image(path, body)
        name = body["name"] or "clever-otter"
        if name in daemon.instances:
            raise Conflict(f"Instance {name!r} exists already")

        def done() -> None:
            daemon.instances[name] = instance(name, "Stopped")
            daemon.lifecycle("instance-created", name)

        return daemon.operation("Creating instance", name, done)

    def get_etag(self, path: str) -> tuple[Any, str]:
        return self.get(path), "etag"

    def patch(self, path: str, body: Any = None, etag: str = "") -> Any:
        self._enter("PATCH", path, body)

    def put(self, path: str, body: Any = None, etag: str = "") -> Any:
        self._enter("PUT", path, body)
        parts = path.split("/")
        if len(parts) == 4 and parts[2] == "instances":
            return self._update(unquote(parts[3]), body)
        if not path.endswith("/state"):
            return None
        daemon, name = self.daemon, unquote(path.split("/")[3])
        status = {
            "start": "Running",
            "restart": "Running",
            "stop": "Stopped",
            "freeze": "Frozen",
            "unfreeze": "Running",
        }

        def done() -> None:
            if name == "broken":
                raise BadRequest("Start of broken failed: its image has no /sbin/init; set `raw.init`")
            fresh = instance(name, status[body["action"]], ip=40 if body["action"] != "stop" else 0)
            daemon.instances[name] = daemon.instances[name] | {k: fresh[k] for k in ("status", "state")}
            daemon.lifecycle(f"instance-{body['action']}", name)

        words = {
            "start": "Starting",
            "stop": "Stopping",
            "restart": "Restarting",
            "freeze": "Freezing",
            "unfreeze": "Unfreezing",
        }
        return daemon.operation(f"{words[body['action']]} instance", name, done)

    def _update(self, name: str, body: Any) -> Any:
        raw = self.daemon.instances[name]

        def done() -> None:
            profile = PROFILES[0]
            raw.update(json.loads(json.dumps(body)))
            raw["expanded_devices"] = {**INHERITED, **profile["devices"], **raw["devices"]}  # type: ignore[dict-item]
            raw["expanded_config"] = {k: v for k, v in raw["expanded_config"].items() if k[:6] == "image."} | raw[
                "config"
            ]
            self.daemon.lifecycle("instance-updated", name)

        return self.daemon.operation("Updating instance", name, done)

    def delete(self, path: str, body: Any = None) -> Any:
        self._enter("DELETE", path, body)
        daemon = self.daemon
        kind, name = path.split("/")[2:4]
        if kind == "operations":
            return daemon.cancel(name)
        if name == "aliases":
            for found in daemon.images:
                found["aliases"] = [a for a in found["aliases"] if a["name"] != unquote(path.rpartition("/")[2])]
            return daemon.lifecycle("image-alias-deleted", name, "images/aliases")
        if kind not in ("images", "instances"):
            return {}

        def done() -> None:
            if "/snapshots/" in path:
                return
            if kind == "images":
                daemon.images = [i for i in daemon.images if i["fingerprint"] != name]
                daemon.lifecycle("image-deleted", name, "images")
            else:
                del daemon.instances[name]
                daemon.lifecycle("instance-deleted", name)

        return daemon.operation("Deleting", name, done)

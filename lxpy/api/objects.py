"""The objects of the REST API as they lie on the wire: typed dictionaries, keys exactly LXD's.

Import this under ``TYPE_CHECKING`` on the command-line path: the names are needed by the type checker only.
"""

from typing import Any, NotRequired, TypedDict

Config = dict[str, str]
Devices = dict[str, dict[str, str]]


class Instance(TypedDict):
    """``/1.0/instances/{name}``; `state`, `snapshots` and `backups` come with ``recursion=2``."""

    name: str
    project: str
    type: str
    status: str
    status_code: int
    architecture: str
    description: str
    ephemeral: bool
    stateful: bool
    location: str
    created_at: str
    last_used_at: str
    profiles: list[str]
    config: Config
    devices: Devices
    expanded_config: Config
    expanded_devices: Devices
    state: NotRequired["InstanceState | None"]
    snapshots: NotRequired[list[dict[str, Any]] | None]
    backups: NotRequired[list[dict[str, Any]] | None]


class InstanceState(TypedDict):
    """``/1.0/instances/{name}/state``. Bytes and nanoseconds, as LXD counts them."""

    status: str
    status_code: int
    pid: int
    processes: int
    cpu: dict[str, int]  # {"usage": ns}
    memory: dict[str, int]  # usage, usage_peak, total, swap_usage, swap_usage_peak: bytes
    disk: dict[str, dict[str, int]]
    network: "dict[str, NetworkState] | None"
    lxpy_limits: NotRequired[dict[str, Any]]  # ours: `runtime.spec.Limits` in force, and `unmet`


class Address(TypedDict):
    family: str  # inet, inet6
    address: str
    netmask: str  # prefix length
    scope: str  # global, link, local


class NetworkState(TypedDict):
    addresses: list[Address]
    counters: dict[str, int]
    hwaddr: str
    host_name: str
    mtu: int
    state: str  # up, down
    type: str  # broadcast, loopback, ...


class Image(TypedDict):
    """``/1.0/images/{fingerprint}``."""

    fingerprint: str
    filename: str
    size: int
    type: str
    architecture: str
    public: bool
    cached: bool
    auto_update: bool
    aliases: list[dict[str, str]]  # {"name", "description"}
    properties: dict[str, str]
    profiles: list[str]
    created_at: str
    expires_at: str
    last_used_at: str
    uploaded_at: str
    update_source: NotRequired[dict[str, Any]]


class Network(TypedDict):
    """``/1.0/networks/{name}``."""

    name: str
    type: str
    managed: bool
    status: str
    locations: list[str]
    description: str
    config: Config
    used_by: list[str]


class Lease(TypedDict):
    hostname: str
    hwaddr: str
    address: str
    type: str  # static, dynamic, gateway
    location: str


class StoragePool(TypedDict):
    """``/1.0/storage-pools/{name}``."""

    name: str
    driver: str
    description: str
    status: str
    locations: list[str]
    config: Config
    used_by: list[str]


class Profile(TypedDict):
    """``/1.0/profiles/{name}``."""

    name: str
    description: str
    config: Config
    devices: Devices
    used_by: list[str]


class Operation(TypedDict):
    """``/1.0/operations/{id}``."""

    id: str
    description: str
    created_at: str
    updated_at: str
    status: str
    status_code: int
    resources: dict[str, list[str]]
    metadata: dict[str, Any] | None
    may_cancel: bool
    err: str
    location: str


class Event(TypedDict):
    """One frame of ``/1.0/events``."""

    type: str  # operation, logging, lifecycle
    timestamp: str
    metadata: dict[str, Any]
    location: str
    project: str

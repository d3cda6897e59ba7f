"""What is asked of the runtime: plain JSON shapes, so that the spawner imports nothing for them.

Paths are absolute, sizes bytes, ids host ids.
"""

from typing import NotRequired, Required, TypedDict


class IdMap(TypedDict):
    """Ids 0 .. `size` of the guest are `base` .. `base + size` of the host.

    `uids` and `gids`, where they are given, say it in pieces: first inside, first outside, how many.
    """

    base: int
    size: int
    uids: NotRequired[list[list[int]]]
    gids: NotRequired[list[list[int]]]


class Root(TypedDict):
    """The root file system, owners 0-based on disk.

    ``kind`` is ``overlay`` (`lower`, and `upper` and `work` in one directory) or ``dir`` (`path`).
    """

    kind: str
    lower: str
    upper: str
    work: str
    path: str


class Mount(TypedDict):
    """A bind mount.

    `shift`: owners through the id map; `required`: a missing source is an error; `options`: of `MOUNT_OPTIONS`;
    `beneath`: directories that the source has to lie in, whatever links a guest has laid out in them; `owner`: uid and
    gid in the guest of what belongs to the source's owner; `propagation` slave: what the host mounts below it later
    appears.
    """

    source: str
    target: str
    readonly: bool
    shift: bool
    recursive: bool
    required: bool
    options: NotRequired[list[str]]
    beneath: NotRequired[list[str]]
    owner: NotRequired[list[int]]
    propagation: NotRequired[str]


class Node(TypedDict):
    """A device node. `path` is the guest's, `source` the host's (empty: none); `kind` c or b; ids are the guest's.

    `event`: what the guest is told when it comes and goes while it runs, as `linux.uevents.send` takes it.
    """

    path: str
    source: str
    kind: str
    major: int
    minor: int
    uid: int
    gid: int
    mode: int
    event: NotRequired[str]


class Throttle(TypedDict, total=False):
    """How fast a block device may be read and written: bytes and operations per second; absent: as fast as it can.

    `device` is ``major:minor``.
    """

    device: Required[str]
    rbps: int
    wbps: int
    riops: int
    wiops: int


class ProxyAddress(TypedDict):
    """`kind` tcp, udp or unix; `host` an IP address, a path or ``@name``; `spans`: first and last of its ports."""

    kind: str
    host: str
    spans: list[tuple[int, int]]


class ProxySpec(TypedDict):
    """A proxy device. `instance` is the qualified name, `prefix` of its cgroups.

    `inside`: it listens inside and connects on the host. `uid`, `gid`, `mode` are of a unix socket that is listened
    on, `as_uid`, `as_gid` of the process, each as its side counts them. `header`: send the PROXY protocol's.
    """

    instance: str
    device: str
    prefix: str
    inside: bool
    listen: ProxyAddress
    connect: ProxyAddress
    uid: int
    gid: int
    mode: int
    as_uid: int
    as_gid: int
    header: bool


class Limits(TypedDict, total=False):
    """Absent means without limit. `memory_soft`: reclaim towards `memory` under pressure instead of a hard limit.

    `swappiness`: 0 to 100. `cpu_shares`: 1024 for one that asks for nothing. `io_weight`: 1 to 1000, 100 likewise.
    `hugepages`: bytes by size of page, as the kernel writes it (``2MB``).
    """

    memory: int
    memory_soft: bool
    swap: bool
    swappiness: int
    cpuset: str
    cpu_quota: tuple[int, int]
    cpu_shares: int
    processes: int
    io_weight: int
    throttles: list[Throttle]
    hugepages: dict[str, int]


class Confine(TypedDict, total=False):
    """What holds for init and for every command executed inside later, beyond what holds for every guest.

    `rlimits`: resource limits by the kernel's name (``nofile``), soft and hard; -1: none. `seccomp`: the filter to
    use instead of the usual one, as hexadecimal digits, and `refuses` what it refuses, in words. `drop`: numbers of
    capabilities that it has not. `uids`, `gids`: its id map, where that has several pieces.
    """

    rlimits: dict[str, tuple[int, int]]
    seccomp: str
    refuses: list[str]
    drop: list[int]
    uids: list[list[int]]
    gids: list[list[int]]


class InstanceSpec(TypedDict):
    """One start of one instance; `idmap` None is a privileged one. `apparmor`: a loaded profile; empty: none."""

    name: str
    hostname: str
    run_dir: str
    console_log: str
    idmap: IdMap | None
    root: Root
    mounts: list[Mount]
    nodes: NotRequired[list[Node]]
    init: list[str]
    environment: dict[str, str]
    limits: Limits
    confine: NotRequired[Confine]
    sysctls: NotRequired[dict[str, str]]
    nesting: bool
    apparmor: NotRequired[str]
    cgroup_prefix: str


class ExecRequest(TypedDict):
    """One command in a running instance. `cwd` empty: ``HOME``, else ``/``. `interactive`: on a terminal."""

    command: list[str]
    environment: dict[str, str]
    cwd: str
    user: int
    group: int
    interactive: bool
    width: NotRequired[int]
    height: NotRequired[int]

"""Which cgroup hierarchies this host has, and the few file operations on them."""

import os
import time

DELEGATE = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")
_V1_CONTROLLERS = frozenset(
    "cpu cpuacct cpuset memory devices freezer blkio pids net_cls net_prio perf_event hugetlb rdma misc".split()
)
CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids")


class Hierarchies:
    """The mounted hierarchies.

    Attributes:
        unified: mount point of the cgroup2 hierarchy; empty when there is none.
        v1: mount point of each v1 controller (or ``name=...``); several names may share one.
    """

    def __init__(self, unified: str, v1: dict[str, str]) -> None:
        self.unified, self.v1 = unified, v1

    @property
    def v1_roots(self) -> list[str]:
        return list(dict.fromkeys(self.v1.values()))

    def has_v2(self, controller: str) -> bool:
        return bool(self.unified) and controller not in self.v1


def _detect() -> Hierarchies:
    unified = ""
    v1: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            fstype, _, options = right.split(" ", 2)
            if fstype not in ("cgroup", "cgroup2"):
                continue
            point = left.split(" ")[4]
            if fstype == "cgroup2":
                unified = unified or point
                continue
            for name in options.strip().split(","):
                if name.startswith("name=") or name in _V1_CONTROLLERS:
                    v1.setdefault(name, point)
    return Hierarchies(unified, v1)


_found: Hierarchies | None = None


def hierarchies() -> Hierarchies:
    """The hierarchies of this mount namespace, looked up once."""
    global _found
    if _found is None:
        _found = _detect()
    return _found


def delegated_files() -> tuple[str, ...]:
    """The files of a cgroup that its guest may own (/sys/kernel/cgroup/delegate)."""
    try:
        return tuple(read("/sys/kernel/cgroup/delegate").split())
    except OSError:
        return DELEGATE


def write(path: str, value: str) -> None:
    """One write, as the kernel wants it."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        os.close(fd)


def read(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, 65536).decode().strip()
    finally:
        os.close(fd)


def read_keyed(path: str) -> dict[str, int]:
    """A file of ``key value`` lines."""
    pairs = (line.split() for line in read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}


def enable_controllers(unified: str, wanted: tuple[str, ...] = CONTROLLERS) -> None:
    """Lets the children of the hierarchy's root have the controllers that exist. Others may have taken them away."""
    try:
        available = read(f"{unified}/cgroup.controllers").split()
        enabled = read(f"{unified}/cgroup.subtree_control").split()
        for name in wanted:
            if name in available and name not in enabled:
                write(f"{unified}/cgroup.subtree_control", f"+{name}")
    except OSError:
        pass  # inside a container of somebody else's; limits that cannot be set say so themselves


def remove(path: str, patience: float = 1.0) -> bool:
    """Removes a cgroup and what a guest made below it; EBUSY is waited out, for processes leave late.

    Returns:
        Whether it is gone.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            os.rmdir(path)
            return True
        except FileNotFoundError:
            return True
        except OSError:
            try:
                children = [entry.path for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
            except OSError:
                children = []
            for child in children:
                remove(child, 0)
            if time.monotonic() >= deadline:
                return False
            if not children:
                time.sleep(0.002)

"""What this host can do: kernel features that were tried out, tools with their versions.

Nothing here needs the daemon, and nothing here changes the host: what is tried is tried on detached mounts and in
child processes that end at once. The answers are what `GET /1.0` reports and what `doctor` explains.
"""

import ctypes
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple

from lxpy.linux import apparmor, cgroups, idmap

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 21, 24


class Kernel(NamedTuple):
    """Attributes:
    release: as `uname -r` prints it.
    architecture: as `uname -m` prints it.
    namespaces: those of the seven that this kernel has.
    file_systems: of ``overlay``, ``squashfs``, ``btrfs``: what it knows now (a module counts once it is loaded).
    seccomp: whether filters can be installed.
    seccomp_actions: what a filter may answer (``user_notif`` among them on any kernel since 5.0).
    bpf: whether programs can be loaded (cgroup v2 guards devices with one).
    apparmor: whether AppArmor is on.
    capabilities: root's own, as a bit set; containers and some virtual hosts lack a few.
    """

    release: str
    architecture: str
    namespaces: tuple[str, ...]
    file_systems: tuple[str, ...]
    seccomp: bool
    seccomp_actions: tuple[str, ...]
    bpf: bool
    apparmor: bool
    capabilities: int


class Cgroups(NamedTuple):
    """Attributes:
    layout: ``v2``, ``hybrid`` (v1 controllers and an extra cgroup2) or ``v1``.
    controllers: those that can limit containers, of either version.
    kill, freeze: whether the unified hierarchy has ``cgroup.kill`` (5.14) and ``cgroup.freeze`` (5.2).
    """

    layout: str
    controllers: tuple[str, ...]
    kill: bool
    freeze: bool


class Tool(NamedTuple):
    """A program that lxpy calls.

    Attributes:
        name, package: the command and the Debian package that has it.
        path: where it is; empty when it is missing.
        version: what it says, bare numbers; empty when it does not say.
        purpose: what goes without it.
        required: whether lxpy is of little use without it.
    """

    name: str
    package: str
    path: str
    version: str
    purpose: str
    required: bool


# Versions are asked for by the first word here that is a flag; the pattern takes the first number of that output.
_TOOLS = (
    ("dnsmasq", "dnsmasq-base", "--version", "addresses and names on managed bridges", True),
    ("nft", "nftables", "--version", "NAT and the firewall of managed bridges", True),
    ("unsquashfs", "squashfs-tools", "-version", "images on kernels that cannot id-map squashfs", True),
    ("mksquashfs", "squashfs-tools", "-version", "publishing and building images", False),
    ("busybox", "busybox-static", "--help", "the image builtin:busybox", False),
    ("mmdebstrap", "mmdebstrap", "--version", "the images builtin:debian/12 and builtin:debian/13", False),
    ("xz", "xz-utils", "--version", "packing images with xz", False),
    ("zstd", "zstd", "--version", "images packed with zstd", False),
    ("xdelta3", "xdelta3", "-V", "downloads of only what has changed of an image", False),
    ("openssl", "openssl", "version", "certificates of clients and of the server, for the API over the network", False),
    ("btrfs", "btrfs-progs", "--version", "btrfs pools", False),
    ("lxcfs", "lxcfs", "--version", "containers that see their own memory and CPUs in /proc", False),
    ("apparmor_parser", "apparmor", "--version", "AppArmor profiles of containers", False),
)


def kernel() -> Kernel:
    """Takes well under a millisecond."""
    uname = os.uname()
    known = {line.split()[-1] for line in _read("/proc/filesystems").splitlines() if line.strip()}
    capabilities = re.search(r"CapEff:\s*([0-9a-f]+)", _read("/proc/self/status"))
    return Kernel(
        release=uname.release,
        architecture=uname.machine,
        namespaces=tuple(name for name in NAMESPACES if os.path.exists(f"/proc/self/ns/{name}")),
        file_systems=tuple(name for name in ("overlay", "squashfs", "btrfs") if name in known),
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        seccomp_actions=tuple(_read("/proc/sys/kernel/seccomp/actions_avail").split()),
        bpf=os.path.exists("/proc/sys/kernel/unprivileged_bpf_disabled"),
        apparmor=apparmor.enabled(),
        capabilities=int(capabilities[1], 16) if capabilities else 0,
    )


def cgroup_layout() -> Cgroups:
    """Of this mount namespace."""
    found = cgroups.hierarchies()
    v2 = _read(f"{found.unified}/cgroup.controllers").split() if found.unified else []
    v1 = [name for name in found.v1 if not name.startswith("name=")]
    layout = ("hybrid" if found.unified else "v1") if v1 else "v2"
    # The root cgroup has neither file: any other cgroup shows what the kernel knows.
    child = ""
    if found.unified:
        with os.scandir(found.unified) as entries:
            child = next((entry.path for entry in entries if entry.is_dir()), "")
    kernel_version = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    return Cgroups(
        layout=layout,
        controllers=tuple(sorted({*v1, *v2})),
        kill=os.path.exists(f"{child}/cgroup.kill") if child else bool(found.unified) and kernel_version >= (5, 14),
        freeze=os.path.exists(f"{child}/cgroup.freeze") if child else bool(found.unified) and kernel_version >= (5, 2),
    )


def apparmor_off() -> str:
    """Why instances run without AppArmor profiles here; empty when they have them."""
    if os.environ.get("LXPY_SECURITY_APPARMOR", "").lower() in ("false", "0", "no", "off"):
        return "LXPY_SECURITY_APPARMOR turns it off"
    if not apparmor.enabled():
        return "this host's kernel has no AppArmor, or has it off"
    if not apparmor.controllable():
        return "AppArmor's control files in /sys/kernel/security cannot be written here"
    if not which("apparmor_parser"):
        return "apparmor_parser is missing (apt install apparmor)"
    return ""


def clock_synchronised() -> bool:
    """Whether something (timesyncd, chronyd, ntpd) keeps the clock: the kernel knows of it (adjtimex(2))."""
    buffer = ctypes.create_string_buffer(256)  # struct timex; modes 0: nothing is changed
    libc = ctypes.CDLL(None)
    return libc.adjtimex(buffer) >= 0 and not struct.unpack_from("i", buffer, 40)[0] & 0x40  # status, STA_UNSYNC


def hardware_clock() -> float | None:
    """Seconds since the epoch by the hardware's clock; None where there is none (containers, some virtual machines)."""
    text = _read("/sys/class/rtc/rtc0/since_epoch").strip()
    return float(text) if text else None


def idmapped_mounts(path: str) -> bool:
    """Whether the file system at `path` takes an id-mapped mount: tried out, 20 ms; remembered per file system."""
    try:
        return idmap.supports_idmap(path)
    except OSError:
        return False


_OVERLAY = """
import os, sys
sys.path.append(sys.argv[1])
from lxpy.linux import libc, mounts
libc.unshare(0x20000)
libc.mount("", "/", "", 0x4000 | 0x40000)
libc.mount("tmpfs", sys.argv[2], "tmpfs", 0)
for name in ("lower", "upper", "work"):
    os.mkdir(f"{sys.argv[2]}/{name}")
lower = os.open(f"{sys.argv[2]}/lower", os.O_PATH)
options = {"lowerdir": f"/proc/self/fd/{lower}", "upperdir": f"{sys.argv[2]}/upper", "workdir": f"{sys.argv[2]}/work"}
for name, value in (("", ""), ("redirect_dir", "on"), ("index", "on"), ("userxattr", "")):
    try:
        os.close(mounts.new("overlay", options | ({name: value} if name else {}), libc.MOUNT_ATTR_NODEV))
        print(name or "overlay")
    except OSError:
        pass
"""


def overlay_options() -> frozenset[str]:
    """Of ``overlay``, ``redirect_dir``, ``index``, ``userxattr``: what an overlay can be mounted with. Root; 30 ms.

    Tried on a tmpfs in a mount namespace of a child process.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _OVERLAY, _package_parent(), "/mnt"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return frozenset(done.stdout.split())


def tools(names: Iterable[str] = ()) -> list[Tool]:
    """The programs lxpy calls, all or those named. Runs each once for its version (2-20 ms each)."""
    wanted = set(names)
    found = []
    for name, package, flag, purpose, required in _TOOLS:
        if wanted and name not in wanted:
            continue
        path = which(name)
        found.append(Tool(name, package, path, _version(path, flag) if path else "", purpose, required))
    return found


def which(name: str) -> str:
    """Where a command is, the administrator's directories included (a user's PATH may lack them); empty if nowhere."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin") or ""


def has_capability(number: int) -> bool:
    """Whether this process has an effective capability (root in a container or a guest may lack some)."""
    return bool(kernel().capabilities >> number & 1)


def kernel_features(path: str = "/") -> dict[str, str]:
    """The ``kernel_features`` of `GET /1.0`: LXD's names, each ``"true"`` or ``"false"``.

    Args:
        path: where the storage pools lie; id-mapped mounts are a matter of the file system.
    """
    facts, groups = kernel(), cgroup_layout()
    features = {
        "idmapped_mounts": idmapped_mounts(path),
        "seccomp_listener": "user_notif" in facts.seccomp_actions,
        "unpriv_fscaps": True,  # since Linux 4.14
        "netnsid_getifaddrs": True,  # since Linux 4.20
        "cgroup2": groups.layout == "v2",
        "cgroup_kill": groups.kill,
        "bpf_devices": facts.bpf and groups.layout == "v2",
        "apparmor": facts.apparmor,
    }
    return {name: "true" if value else "false" for name, value in features.items()}


def _version(path: str, flag: str) -> str:
    try:
        done = subprocess.run(
            [path, flag], capture_output=True, text=True, errors="replace", timeout=5, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    match = re.search(r"\d+(?:\.\d+)+", done.stdout + done.stderr)
    return match[0] if match else ""


def _package_parent() -> str:
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""

"""What `lxpy doctor` looks at: the host's own side, with the daemon dead or alive.

Every check gives findings: what was seen, why it matters, what to do. Kernel features are tried in children that end
at once, on detached mounts or in namespaces that go with them; nothing of the host changes. Only addresses of our own
bridges are asked anything.
"""

import errno
import os
import pwd
import re
import shutil
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from lxpy.api.layout import Layout
from lxpy.host import firewalls, leftovers, probes, sysctls
from lxpy.linux import devices, libc, rtnetlink, seccomp

OK, NOTE, WARNING, STOPS = "ok", "note", "warning", "stops"
_GIB = 1 << 30
_LXCFS = "/var/lib/lxcfs"  # of `runtime/container.py`


class Finding(NamedTuple):
    """Attributes:
    id: stable, for scripts.
    subject: the heading it stands under.
    status: ``ok``, ``note`` (good to know), ``warning`` (something will not work), ``stops`` (lxpy cannot work).
    seen: what is there.
    why: what it is for; empty when that is plain.
    todo: what to type or change; empty when nothing has to be done.
    """

    id: str
    subject: str
    status: str
    seen: str
    why: str = ""
    todo: str = ""


def everything(layout: Layout, pools: Mapping[str, str] | None = None) -> Iterator[Finding]:
    """All findings in the order they are read; under two seconds. Needs root for some: those say so.

    Args:
        pools: storage pools, and where each keeps its data, as the daemon says; those of lxpy's own directory are
            found without it.
    """
    places = _places(layout, pools or {})
    checks: tuple[Callable[[Layout], Iterator[Finding]], ...] = (
        _kernel, _cgroups, partial(_file_systems, places), _tools, _limits, _ids, _security, _firewall, _names,
        _leftovers, partial(_resources, places),
    )  # fmt: skip
    for check in checks:
        try:
            yield from check(layout)
        except OSError as error:
            what = getattr(check, "func", check).__name__.strip("_").replace("_", " ")
            yield Finding(f"{what}.error", what, WARNING, f"cannot be looked at: {error.strerror} ({error.filename})")


def _places(layout: Layout, pools: Mapping[str, str]) -> dict[str, str]:
    """Where instances and images lie, one directory for each file system; by "" lxpy's own, else by a pool's name."""
    try:
        inside = {entry.name: entry.path for entry in os.scandir(layout.pools) if entry.is_dir()}
    except OSError:
        inside = {}
    found = {"": layout.root if os.path.isdir(layout.root) else "/var/lib"}
    seen = {os.stat(found[""]).st_dev}
    for name, path in sorted({**inside, **{name: path for name, path in pools.items() if os.path.isdir(path)}}.items()):
        try:
            device = os.stat(path).st_dev
        except OSError:
            continue
        if device not in seen:
            seen.add(device)
            found[name] = path
    return found


def _root() -> bool:
    return os.geteuid() == 0


def _tried(work: Callable[[], object]) -> str:
    """What went wrong when a child process did `work`; empty when nothing did."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except OSError as error:
            os.write(write, (error.strerror or str(error)).encode())
        finally:
            os._exit(code)
    os.close(write)
    with open(read, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(pid, 0)
    return said or ("" if status == 0 else f"it ended with status {status}")


def _kernel(layout: Layout) -> Iterator[Finding]:
    subject, facts = "kernel", probes.kernel()
    version = tuple(int(part) for part in re.findall(r"\d+", facts.release)[:2])
    if version >= (5, 15):
        yield Finding("kernel.version", subject, OK, f"Linux {facts.release}, {facts.architecture}")
    else:
        yield Finding(
            "kernel.version", subject, STOPS, f"Linux {facts.release}",
            "id-mapped mounts and cgroup.kill need 5.15", "install a newer kernel",
        )  # fmt: skip
    missing = [name for name in probes.NAMESPACES if name not in facts.namespaces]
    flags = {"ipc": 0x08000000, "mnt": 0x20000, "net": 0x40000000, "user": 0x10000000, "uts": 0x04000000}
    flags |= {"cgroup": 0x02000000, "pid": 0x20000000}
    wrong = {name: said for name, flag in flags.items() if (said := _tried(lambda flag=flag: libc.unshare(flag)))}  # type: ignore[misc]
    if not _root():
        yield Finding("kernel.namespaces", subject, NOTE, "not tried", "", "run as root: sudo lxpy doctor")
    elif missing or wrong:
        seen = "; ".join([*(f"no {name} namespaces" for name in missing), *(f"{n}: {s}" for n, s in wrong.items())])
        yield Finding(
            "kernel.namespaces", subject, STOPS, seen, "a container is made of all seven",
            "check sysctl user.max_*_namespaces and, inside another container, that nesting is allowed",
        )  # fmt: skip
    else:
        yield Finding("kernel.namespaces", subject, OK, "all seven kinds of namespaces can be made")

    def filtered() -> None:
        libc.prctl(38, 1)  # PR_SET_NO_NEW_PRIVS
        seccomp.install()

    if said := _tried(filtered):
        yield Finding(
            "kernel.seccomp", subject, STOPS, f"no seccomp filter: {said}", "it guards the kernel from guests"
        )
    else:
        yield Finding("kernel.seccomp", subject, OK, "a seccomp filter can be installed")
    for number, name, status, why in (
        (probes.CAP_SYS_ADMIN, "CAP_SYS_ADMIN", STOPS, "nothing can be mounted without it"),
        (probes.CAP_SYS_RESOURCE, "CAP_SYS_RESOURCE", NOTE, "resource limits cannot be raised above root's own"),
    ):
        if _root() and not facts.capabilities >> number & 1:
            yield Finding(f"kernel.{name.lower()}", subject, status, f"root has no {name} here", why)


def _cgroups(layout: Layout) -> Iterator[Finding]:
    subject, found = "cgroups", probes.cgroup_layout()
    yield Finding("cgroups.layout", subject, OK, f"{found.layout}, with {', '.join(found.controllers) or 'nothing'}")
    if absent := [name for name in ("memory", "cpu", "cpuset", "pids") if name not in found.controllers]:
        yield Finding(
            "cgroups.controllers", subject, WARNING, f"no {', '.join(absent)} controller",
            "these limits of instances cannot act", "remove cgroup_disable= from the kernel's command line",
        )  # fmt: skip
    if not (found.kill and found.freeze):
        yield Finding(
            "cgroups.unified", subject, STOPS, "no cgroup2 hierarchy with cgroup.kill and cgroup.freeze",
            "instances are stopped and frozen by it", "mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        )  # fmt: skip
    if "devices" in found.controllers:  # of v1; v2 has none
        yield Finding("cgroups.devices", subject, OK, "the devices controller guards devices")
    elif _root() and (said := _tried(lambda: devices.load(devices.ALLOWED))):
        seen, why = f"no BPF program can be loaded: {said}", "it guards devices where there is no devices controller"
        yield Finding("cgroups.devices", subject, STOPS, seen, why, "use a kernel with CONFIG_CGROUP_BPF")
    elif _root():
        yield Finding("cgroups.devices", subject, OK, "a BPF program that guards devices can be loaded")


def _file_systems(places: dict[str, str], layout: Layout) -> Iterator[Finding]:
    subject = "file systems"
    if not _root():
        yield Finding("fs.tried", subject, NOTE, "not tried", "", "run as root: sudo lxpy doctor")
        return
    for name, place in places.items():
        id = f"fs.idmap.{name}" if name else "fs.idmap"
        if probes.idmapped_mounts(place):
            yield Finding(id, subject, OK, f"{place} takes id-mapped mounts")
        else:
            yield Finding(
                id, subject, WARNING if name else STOPS, f"the file system of {place} takes no id-mapped mounts",
                "each container has its own user ids by them", "keep pools on ext4, xfs or btrfs",
            )  # fmt: skip
    options = probes.overlay_options()
    if {"overlay", "redirect_dir", "index"} <= options:
        yield Finding("fs.overlay", subject, OK, "overlay with redirect_dir and index")
    elif "userxattr" in options:
        yield Finding(
            "fs.overlay", subject, NOTE, "overlay with userxattr only", "directories of images cannot be renamed inside"
        )
    else:
        yield Finding(
            "fs.overlay", subject, WARNING, "no overlay", "pools of the driver overlay cannot be used",
            "modprobe overlay, or use the driver dir",
        )  # fmt: skip
    if "squashfs" not in probes.kernel().file_systems:
        yield Finding(
            "fs.squashfs", subject, NOTE, "squashfs is not loaded", "images are unpacked", "modprobe squashfs"
        )


def _unmounted(place: str) -> str:
    """What is wrong with the file system that is to be mounted there; empty when nothing is."""
    try:
        if os.path.ismount(place) and os.listdir(place):
            return ""
        os.stat(place)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            return (
                f"lxcfs has died, and is still mounted at {place}: instances that had it read errors from /proc/meminfo"
            )
    return f"lxcfs is installed, but not mounted at {place}"


def _tools(layout: Layout) -> Iterator[Finding]:
    for tool in probes.tools():
        if tool.name == "apparmor_parser" and not probes.kernel().apparmor:
            continue
        if tool.path:
            yield Finding(f"tool.{tool.name}", "tools", OK, f"{tool.name} {tool.version}".strip())
        else:
            status = STOPS if tool.required else NOTE
            yield Finding(
                f"tool.{tool.name}", "tools", status, f"{tool.name} is missing", tool.purpose,
                f"apt install {tool.package}",
            )  # fmt: skip
        if tool.name == "lxcfs" and tool.path and (seen := _unmounted(_LXCFS)):
            yield Finding(
                "tool.lxcfs.mounted", "tools", NOTE, seen, f"{tool.purpose}; those that start from then on",
                f"systemctl restart lxcfs, or where there is no systemd: mkdir -p {_LXCFS}; lxcfs {_LXCFS}",
            )  # fmt: skip


def _limits(layout: Layout) -> Iterator[Finding]:
    low = [found for found in sysctls.found() if found.low]
    for found in low:
        sysctl = found.sysctl
        yield Finding(
            f"limit.{sysctl.name}", "limits", WARNING, f"{sysctl.name} is {found.value}, below {sysctl.wanted}",
            sysctl.why, "lxpy doctor --fix raises it",
        )  # fmt: skip
    if not low:
        yield Finding("limits", "limits", OK, "high enough for hundreds of containers")


def _ids(layout: Layout) -> Iterator[Finding]:
    with open("/proc/self/uid_map", encoding="ascii") as file:
        if int(file.read().split()[2]) < 0xFFFFFFFF:
            yield Finding(
                "ids.mapped", "user ids", STOPS, "root here is not the host's root: this is an unprivileged container",
                "only the host's root can make id-mapped mounts",
                "set security.privileged=true and security.nesting=true of the container, on its host",
            )  # fmt: skip
            return
    # The range of `instances/idmaps.py`; another user's subordinate ids in it would be shared with guests.
    first, last = 1 << 30, 0x6FFFFFFF
    given = os.environ.get("LXPY_IDMAP", "").split(":")
    if len(given) == 2 and all(map(str.isdigit, given)):
        first, last = int(given[0]), int(given[0]) + int(given[1]) - 1
    taken = []
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read().split()
        except FileNotFoundError:
            continue
        for line in lines:
            name, _, rest = line.partition(":")
            base, _, count = rest.partition(":")
            own = name in ("root", "0")
            if not own and base.isdigit() and count.isdigit() and int(base) <= last and int(base) + int(count) > first:
                taken.append(f"{path}: {line}")
    if any(first <= user.pw_uid <= last for user in pwd.getpwall()):
        taken.append("a user of this host")
    if taken:
        yield Finding(
            "ids", "user ids", WARNING, f"ids of containers belong to others too: {', '.join(taken)}",
            "they could read each other's files",
            "give lxpy a range of its own: LXPY_IDMAP=base:size for lxpyd and doctor",
        )  # fmt: skip
    else:
        yield Finding("ids", "user ids", OK, f"{first} to {last} is nobody else's")


def _security(layout: Layout) -> Iterator[Finding]:
    subject, guard = "security", "id maps, capabilities, seccomp and the device list guard the host all the same"
    if not probes.kernel().apparmor:
        yield Finding("apparmor", subject, OK, "no AppArmor here; id maps, capabilities and seccomp guard the host")
    elif _root() and (reason := probes.apparmor_off()):
        todo = "apt install apparmor, then restart lxpyd" if "apparmor_parser" in reason else ""
        yield Finding("apparmor", subject, NOTE, f"instances run without AppArmor: {reason}", guard, todo)
    else:
        yield Finding("apparmor", subject, OK, "AppArmor is on; instances run under profiles of their own")


def _bridges(layout: Layout) -> list[str]:
    """Bridges of ours, by their directories: known without the daemon."""
    try:
        return sorted(entry.name for entry in os.scandir(layout.networks) if entry.is_dir())
    except FileNotFoundError:
        return []


def _firewall(layout: Layout) -> Iterator[Finding]:
    subject, bridges = "firewall", _bridges(layout)
    if not (_root() and bridges):
        return
    rules = firewalls.read()
    quiet = True
    for hook, what, why in (
        ("forward", "what is forwarded", "instances on {} cannot reach other networks"),
        ("input", "what comes in", "instances on {} get no addresses and no names from this host"),
    ):
        for number, (wall, silent) in enumerate(firewalls.shut_out(rules.walls, hook, bridges)):
            quiet = False
            by = {"docker": " (Docker does this)", "ufw": " (ufw does this)"}.get(wall.owner, "")
            fixed = "; lxpyd does it while it runs, or: lxpy doctor --fix"
            yield Finding(
                f"firewall.{hook}" + (f".{number + 1}" if number else ""), subject, WARNING,
                f"{wall.name} drops {what}{by}", why.format(", ".join(silent)),
                firewalls.remedy(wall, silent[0]) + (fixed if hook == "forward" and wall.owner == "docker" else ""),
            )  # fmt: skip
    firewalld = rules.tables.get("inet firewalld")
    if firewalld is not None and (strange := [one for one in bridges if f'"{one}"' not in firewalld]):
        quiet = False
        yield Finding(
            "firewall.firewalld", subject, WARNING, f"firewalld runs and does not know {', '.join(strange)}",
            "it refuses DHCP and DNS there",
            f"firewall-cmd --permanent --zone=trusted --add-interface={strange[0]} && firewall-cmd --reload",
        )  # fmt: skip
    if f"inet {layout.nft_table}" not in rules.tables:
        yield Finding(
            "firewall.table", subject, WARNING, f"the table inet {layout.nft_table} is gone",
            "NAT and the rules of the bridges are in it", "restart lxpyd, which makes it again",
        )  # fmt: skip
    elif quiet:
        yield Finding("firewall", subject, OK, "nothing here drops what instances send")


def open_docker(layout: Layout) -> list[str]:
    """Lets the bridges of `layout` through Docker's rules; see `firewalls.open_docker`."""
    return firewalls.open_docker(layout.nft_table, _bridges(layout))


def _names(layout: Layout) -> Iterator[Finding]:
    """Asks each bridge's own DNS server, on its own address."""
    with rtnetlink.Rtnetlink() as netlink:
        links = {link.ifindex: link.name for link in netlink.links()}
        addresses = [(links.get(one.ifindex, ""), one.address) for one in netlink.addresses() if ":" not in one.address]
    for bridge in _bridges(layout):
        mine = [address for name, address in addresses if name == bridge]
        if bridge not in links.values():
            yield Finding(
                f"bridge.{bridge}", "networks", WARNING, f"the bridge {bridge} is gone",
                "its instances have no network", "restart lxpyd, which makes it again",
            )  # fmt: skip
        elif mine and not _answers(mine[0]):
            yield Finding(
                f"dns.{bridge}", "networks", WARNING, f"nothing answers DNS on {mine[0]} ({bridge})",
                "instances get no names, and perhaps no addresses", "restart lxpyd, or see dnsmasq in its log",
            )  # fmt: skip
        else:
            yield Finding(
                f"bridge.{bridge}", "networks", OK, f"{bridge} is there" + (" and answers DNS" if mine else "")
            )


def _answers(address: str) -> bool:
    """Whether a DNS server answers a question for its root name servers, within half a second."""
    question = struct.pack(">HHHHHH", 0x1A2B, 0, 1, 0, 0, 0) + b"\x09localhost\0" + struct.pack(">HH", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(0.5)
        try:
            asked.connect((address, 53))
            asked.send(question)
            return asked.recv(512)[:2] == question[:2]
        except OSError:
            return False


def _leftovers(layout: Layout) -> Iterator[Finding]:
    subject = "leftovers"
    cleared, rest = leftovers.find(layout), leftovers.by_hand(layout, firewalls.read().tables if _root() else {})
    if cleared:
        todo = "the next start of lxpyd clears them away"
        yield Finding("leftovers", subject, NOTE, ", ".join(cleared), "of a crash, or of work that goes on", todo)
    if rest:
        seen, todo = ", ".join(what for what, _ in rest), "; ".join(command for _, command in rest)
        yield Finding("leftovers.strangers", subject, NOTE, seen, "nothing of lxpy's uses them", todo)
    if not (cleared or rest):
        yield Finding("leftovers", subject, OK, "none")


def _resources(places: dict[str, str], layout: Layout) -> Iterator[Finding]:
    for name, place in places.items():
        yield _space(f"disk.{name}" if name else "disk", name, place)
    yield _clock()


def _space(id: str, pool: str, place: str) -> Finding:
    subject, space = "resources", shutil.disk_usage(place)
    seen = f"{space.free / _GIB:.1f} GiB of {space.total / _GIB:.1f} are free in {place}"
    todo = f"make room, or make the pool larger: lxpy storage info {pool}" if pool else "make room"
    if space.free < 100 << 20:
        where = f" in pool {pool}" if pool else ""
        return Finding(id, subject, WARNING if pool else STOPS, seen, f"nothing can be launched{where}", todo)
    if (not pool and space.free < 2 * _GIB) or space.free * 20 < space.total:
        return Finding(id, subject, WARNING, seen, "images and instances will soon not fit", todo)
    return Finding(id, subject, OK, seen)


def _clock() -> Finding:
    """Compared with what else knows the time: who installed lxpy, the hardware's clock, NTP."""
    subject, now = "resources", time.time()
    seen = f"the clock says {time.strftime('%Y-%m-%d %H:%M', time.localtime(now))}"
    why, todo = "certificates and image lists look invalid", "set the clock (timedatectl set-ntp true)"
    if now < os.stat(__file__).st_mtime - 86400:
        return Finding("clock", subject, WARNING, f"{seen}, before lxpy was installed", why, todo)
    if probes.clock_synchronised():
        return Finding("clock", subject, OK, f"{seen}, kept by NTP")
    hardware = probes.hardware_clock()
    # It may run in local time, up to 14 hours off.
    if hardware is not None and abs(hardware - now) > 15 * 3600:
        other = time.strftime("%Y-%m-%d %H:%M", time.localtime(hardware))
        return Finding("clock", subject, WARNING, f"{seen}, the hardware's says {other}", why, todo)
    return Finding("clock", subject, OK, f"{seen}; nothing keeps it by NTP")

"""How a guest comes to be: two short-lived roles of forked processes, and nothing of them stays.

::

    supervisor ── fork ──> helper ── clone3(CLONE_PARENT, all namespaces, into the cgroup) ──> init
        ^                    │  host side: id map, id-mapped layers, overlay, disks              │ inside: proc, sys,
        │ netns, "go"        └── root file system by SCM_RIGHTS ────────────────────────────────>│ dev, pivot, exec
        └──────────────────────────────────────────────────────────────── init is its child ─────┘

The helper hangs the root (nodev) into a mount namespace of its own that init shares at first. When init then unshares
it from inside its user namespace, the kernel locks the flags of everything there: the guest's root cannot take nodev
or read-only away again (fs/namespace.c, lock_mnt_tree).
"""

import os
import signal
import socket
import stat
import sys

from lxpy.linux import apparmor, caps, libc, mounts, namespaces, seccomp
from lxpy.linux.devices import ALLOWED, Device
from lxpy.runtime import binds, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

    from lxpy.runtime.cgroup import InstanceCgroup
    from lxpy.runtime.spec import Confine, InstanceSpec, Node

    OwnNodes = list[tuple[Node, int]]

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "net/tun")
_LXCFS = "/var/lib/lxcfs"
_LXCFS_FILES = (
    "proc/cpuinfo", "proc/diskstats", "proc/loadavg", "proc/meminfo", "proc/slabinfo", "proc/stat", "proc/swaps",
    "proc/uptime", "sys/devices/system/cpu",
)  # fmt: skip
_MASKED = ("proc/kcore", "proc/timer_list", "proc/sched_debug", "proc/latency_stats", "proc/scsi", "sys/firmware")
_SAFE = libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV | libc.MOUNT_ATTR_NOEXEC
# What overlayfs or the kernel says when it cannot do id-mapped layers: EPERM, EINVAL, EROFS, EOPNOTSUPP.
_UNABLE = (1, 22, 30, 95)
_MAX_NOFILE = 1048576

_doing = ""  # for the error message: what this process is about to do


def _step(what: str) -> None:
    global _doing
    _doing = what


def _describe(error: BaseException) -> str:
    if isinstance(error, OSError):
        where = f" ({os.fsdecode(error.filename)})" if error.filename and str(error.filename) not in _doing else ""
        return f"{_doing}: {error.strerror}{where}"
    return f"{_doing}: {error or type(error).__name__}"


def allowed_devices(spec: "InstanceSpec") -> "tuple[Device, ...]":
    """The devices of every guest, those mounted into this one and those it has nodes of."""
    extra: list[Device] = [(node["kind"], node["major"], node["minor"]) for node in spec.get("nodes", ())]
    for mount in spec["mounts"]:
        try:
            status = os.stat(binds.source_of(mount))
        except OSError:
            continue
        if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            kind = "c" if stat.S_ISCHR(status.st_mode) else "b"
            extra.append((kind, os.major(status.st_rdev), os.minor(status.st_rdev)))
    return ALLOWED + tuple(extra)


def run_helper(spec: "InstanceSpec", cgroup: "InstanceCgroup", slave: int, setup: socket.socket) -> "NoReturn":
    """The helper's life. Tells `setup` init's pid; an error goes there as ``{"error": ...}``."""
    try:
        _helper(spec, cgroup, slave, setup)
    except BaseException as error:
        wire.send(setup, {"error": _describe(error)})
    finally:
        os._exit(0)


def _helper(spec: "InstanceSpec", cgroup: "InstanceCgroup", slave: int, setup: socket.socket) -> None:
    _step("making its cgroups")
    if cgroup.unified and os.path.exists(cgroup.unified):
        cgroup.kill()  # what a killed supervisor left behind
        cgroup.remove()
    cgroup.create(spec["idmap"]["base"] if spec["idmap"] else None, allowed_devices(spec))
    _step("setting its limits")
    cgroup.apply(spec["limits"], fresh=True)
    _step("joining its cgroups")
    cgroup.join_v1()
    cgroup_fd = cgroup.open_unified()
    _step("making a mount namespace")
    libc.unshare(libc.CLONE_NEWNS)
    following = binds.clone_following(spec["mounts"])
    libc.mount("", "/", "", libc.MS_REC | libc.MS_PRIVATE)
    _step("collecting devices")
    nodes = [("dev/console", mounts.clone(os.ttyname(slave)))]
    nodes += [(f"dev/{name}", fd) for name in _DEVICES if (fd := _clone_if_there(f"/dev/{name}")) >= 0]
    if os.path.ismount(_LXCFS):
        nodes += [(name, fd) for name in _LXCFS_FILES if (fd := _clone_if_there(f"{_LXCFS}/{name}")) >= 0]
    base, place = spec["idmap"]["base"] if spec["idmap"] else 0, f"{spec['run_dir']}/root"
    own = [(node, binds.device_node(node, base, place)) for node in spec.get("nodes", ())]

    idmap = spec["idmap"]
    raise_limits(spec.get("confine", {}).get("rlimits", {}))
    os.setgroups([])
    flags = namespaces.AT_CLONE | libc.CLONE_PARENT
    if idmap is not None:
        # The user namespace's creator pays for its inotify instances and keys, so let that be the mapped root.
        _step("becoming the mapped root")
        libc.prctl(libc.PR_SET_KEEPCAPS, 1)
        os.setresgid(idmap["base"], idmap["base"], idmap["base"])
        os.setresuid(idmap["base"], idmap["base"], idmap["base"])
        caps.raise_all()
        flags |= libc.CLONE_NEWUSER
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    ours, theirs = wire.pair()
    _step("making its namespaces")
    pid = libc.clone(flags, cgroup_fd)
    if pid == 0:
        ours.close()
        run_init(spec, theirs, setup, nodes, own)
    theirs.close()
    userns = -1
    if idmap is not None:
        _step("writing its id map")
        whole = [[0, idmap["base"], idmap["size"]]]
        namespaces.write_map(pid, idmap.get("uids", whole), idmap.get("gids", whole))
        userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    # Not before the map is written: a nic put in earlier belongs to the host's root in /sys, the guest's udev may not
    # write its uevent file, and networkd waits for udev for ever (net_ns_get_ownership).
    wire.send(setup, {"pid": pid})
    _step("mounting its root file system")
    root = spec["root"]
    attributes = libc.MOUNT_ATTR_NODEV if idmap is not None else 0
    nested = False
    if root["kind"] == "dir":
        tree = mounts.idmapped(root["path"], userns, attributes) if idmap is not None else mounts.clone(root["path"])
    elif idmap is None or root.get("fallback") is None:
        try:
            tree = _overlay(spec, userns)
        except OSError as error:
            if idmap is None or error.errno not in _UNABLE:
                raise
            nested = True
    else:
        nested = True
    if nested:
        _step("mounting its root file system from inside its user namespace")
        tree = _layers_only(spec, userns)
    point = os.open(f"{spec['run_dir']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    stage, targets = tree, list[str]()
    if spec["mounts"]:
        stage = mounts.new("tmpfs", {"mode": "755", "size": "64k"}, _SAFE)
        os.mkdir("root", 0o755, dir_fd=stage)
        libc.move_mount(stage, point)
        libc.move_mount(tree, stage, "root")
    else:
        libc.move_mount(tree, point)
    if nested:
        _attach_layers(spec, userns, tree)
    for mount in sorted(spec["mounts"], key=lambda mount: mount["target"].count("/")):
        _step(f"mounting {mount['source']} at {mount['target']}")
        fd = binds.disk(mount, userns, pid, following.get(mount["target"], -1))
        if fd >= 0:
            binds.put_on_stage(stage, str(len(targets)), fd)
            targets.append(mount["target"])
    _step("handing over its root file system")
    wire.send(ours, {"nested": nested, "staged": stage != tree, "disks": targets}, [stage])


def _clone_if_there(path: str) -> int:
    try:
        return mounts.clone(path)
    except OSError:  # not on this host, or lxcfs has died
        return -1


def _overlay(spec: "InstanceSpec", userns: int) -> int:
    """The overlay made host-side: layers mounted over their own paths in this private namespace, then used by fd."""
    root = spec["root"]
    pool = os.path.dirname(root["upper"])
    fds = []
    for path in (root["lower"], pool):
        fd = mounts.idmapped(path, userns) if userns >= 0 else mounts.clone(path)
        target = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        libc.move_mount(fd, target)
        os.close(target)
        fds.append(fd)
    lower, base = fds
    upper = f"/proc/self/fd/{base}/{os.path.basename(root['upper'])}"
    work = f"/proc/self/fd/{base}/{os.path.relpath(root['work'], pool)}"
    return mounts.overlay(lower, upper, work, libc.MOUNT_ATTR_NODEV if userns >= 0 else 0)


def _layers_only(spec: "InstanceSpec", userns: int) -> int:
    base = str(spec["idmap"]["base"]) if spec["idmap"] else "0"
    tree = mounts.new("tmpfs", {"mode": "755", "uid": base, "gid": base, "size": "64k"}, _SAFE)
    for name in ("lower", "pool"):
        os.mkdir(name, 0o755, dir_fd=tree)
    return tree


def _attach_layers(spec: "InstanceSpec", userns: int, tree: int) -> None:
    root = spec["root"]
    for name, path in (("lower", root["lower"]), ("pool", os.path.dirname(root["upper"]))):
        # A clone of the path would take the mount that a failed first attempt left above it.
        fd = mounts.clone(path)
        try:
            libc.mount_setattr(fd, libc.MOUNT_ATTR_IDMAP, userns)
        except OSError as error:
            if error.errno not in (1, 22):  # EPERM: it is that id-mapped one already
                raise
        libc.move_mount(fd, tree, name)


def raise_limits(own: "Mapping[str, tuple[int, int]]") -> None:
    """Resource limits of a guest: as high as this host lets us. A user namespace caps its users by its creator's.

    `own`: those of the instance itself, soft and hard, -1 for none. They are only made possible here: `confine` sets
    them when this program needs nothing more.
    """
    privileged = caps.effective() >> caps.SYS_RESOURCE & 1
    for resource in (libc.RLIMIT_NPROC, libc.RLIMIT_SIGPENDING, libc.RLIMIT_MSGQUEUE, libc.RLIMIT_MEMLOCK):
        hard = libc.INFINITY if privileged else libc.rlimit(resource)[1]
        libc.set_rlimit(resource, hard, hard)
    hard = _MAX_NOFILE if privileged else min(_MAX_NOFILE, libc.rlimit(libc.RLIMIT_NOFILE)[1])
    libc.set_rlimit(libc.RLIMIT_NOFILE, min(1024, hard), hard)
    for name, (_, hard) in own.items():
        number, now = libc.RLIMITS[name], libc.rlimit(libc.RLIMITS[name])
        if _rlimit(hard) > now[1]:
            libc.set_rlimit(number, now[0], _rlimit(hard))


def _rlimit(number: int) -> int:
    return libc.INFINITY if number < 0 else number


def run_init(
    spec: "InstanceSpec", inner: socket.socket, setup: socket.socket, nodes: "list[tuple[str, int]]", own: "OwnNodes"
) -> "NoReturn":
    """Init before its exec: process 1 of the new namespaces."""
    try:
        _init(spec, inner, setup, nodes, own)
    except BaseException as error:
        wire.send(setup, {"error": _describe(error)})
    finally:
        os._exit(1)


def _init(
    spec: "InstanceSpec", inner: socket.socket, setup: socket.socket, nodes: "list[tuple[str, int]]", own: "OwnNodes"
) -> None:
    _step("waiting for its root file system")
    message, fds = wire.receive(inner)
    if message is None:
        os._exit(1)  # the helper failed and said so
    root, disks = fds[0], list[int]()
    profile, label = spec.get("apparmor", ""), -1
    if profile:
        _step("preparing for AppArmor")
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the host's, for the last time
        label = apparmor.open_exec(proc)
        os.close(proc)
    os.setsid()
    libc.join_new_session_keyring()
    # The descriptor points into the helper's mount namespace; the working directory follows into the new one.
    _step("entering its root file system")
    os.fchdir(root)
    libc.unshare(libc.CLONE_NEWNS | libc.CLONE_NEWCGROUP)
    if message["staged"]:
        disks = [mounts.clone(str(number), recursive=True) for number in range(len(message["disks"]))]
        os.chdir("root")
    if message["nested"]:
        lower = os.open("lower", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        pool = os.open("pool", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        layers, base = spec["root"], os.path.dirname(spec["root"]["upper"])
        names = [f"/proc/self/fd/{pool}/{os.path.relpath(layers[key], base)}" for key in ("upper", "work")]
        tree = mounts.overlay(lower, names[0], names[1], libc.MOUNT_ATTR_NODEV, userxattr=True)
    else:
        tree = mounts.clone(".", recursive=True)
    libc.move_mount(tree, libc.AT_FDCWD, ".")
    os.fchdir(tree)
    privileged = spec["idmap"] is None
    _mount_kernel_files(spec, privileged)
    _make_dev(nodes, tree)
    if spec["nesting"]:
        _show_full_kernel_files()
    else:
        _mask(privileged)
    for target, fd in zip(message["disks"], disks, strict=True):
        _step(f"mounting at {target}")
        binds.attach_in(tree, target, fd)
    for node, fd in own:
        _step(f"mounting the device node {node['path']}")
        binds.attach_in(tree, node["path"], fd)
    _step("changing its root")
    libc.pivot_root(".", ".")
    libc.umount2(".", libc.MNT_DETACH)
    os.chdir("/")
    _step("setting its host name")
    libc.sethostname(spec["hostname"])
    namespaces.loopback_up()
    _step("opening /dev/console")
    console = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    # No controlling terminal: ^C typed on the console is for the shell there, not for process 1.
    for number in (0, 1, 2):
        os.dup2(console, number)
    _step("waiting for its network")
    if not (wire.receive(setup)[0] or {}).get("go"):
        os._exit(1)
    _set_sysctls(spec, "/proc/sys", net=True)
    command = spec["init"] or ["/sbin/init"]
    _step(f"starting {command[0]}")
    os.dup2(setup.fileno(), 3, inheritable=False)
    report = socket.socket(fileno=3) if setup.fileno() != 3 else setup
    environment = {"container": "lxc", "PATH": PATH, "TERM": "linux", **spec["environment"]}
    if profile:
        apparmor.at_exec(label, profile)
    confine(spec.get("confine", {}))
    wire.send(report, {"exec": True})
    try:
        os.execve(command[0], command, environment)
    except OSError as error:
        wire.send(report, {"error": _describe(error)})
    os._exit(1)


def confine(own: "Confine") -> None:
    """The last steps before guest code runs: descriptors, signals, resource limits, capabilities, system calls.

    Keeps descriptors 0 to 3; 3 must be close-on-exec.
    """
    libc.close_range(4)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)  # the rest the spawner has reset for all
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.umask(0o022)
    for name, (soft, hard) in own.get("rlimits", {}).items():
        libc.set_rlimit(libc.RLIMITS[name], _rlimit(soft), _rlimit(hard))
    caps.clear_inheritable()
    caps.drop_from_bounding_set(own.get("drop", []))
    seccomp.install(bytes.fromhex(own.get("seccomp", "")))


def _attach(mount_fd: int, name: str) -> None:
    """Attaches on the real directory `name` of the working directory, made when missing."""
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(name, flags)
    except FileNotFoundError:
        os.mkdir(name, 0o755)
        fd = os.open(name, flags)
    libc.move_mount(mount_fd, fd)
    os.close(fd)


def _mount_kernel_files(spec: "InstanceSpec", privileged: bool) -> None:
    _step("mounting /proc")
    proc = mounts.new("proc", {}, _SAFE)
    _attach(proc, "proc")
    _set_sysctls(spec, "proc/sys", net=False)
    _step("mounting /sys")
    sysfs = mounts.new("sysfs", {}, _SAFE | (libc.MOUNT_ATTR_RDONLY if privileged else 0))
    _attach(sysfs, "sys")
    try:
        point = os.open("fs/cgroup", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=sysfs)
    except FileNotFoundError:
        point = -1
    if point >= 0:
        _step("mounting /sys/fs/cgroup")
        cgroup = mounts.new("cgroup2", {}, _SAFE)
        libc.move_mount(cgroup, point)
        os.close(cgroup)
        os.close(point)
    if privileged:
        # As LXC's proc:mixed and sys:mixed: the host's knobs read-only, the guest's network ones not.
        _step("making kernel files read-only")
        net = mounts.clone("net", dir_fd=os.open("sys", os.O_PATH, dir_fd=proc))
        for name in ("sys", "sysrq-trigger"):
            try:
                fd = mounts.clone(name, dir_fd=proc)
            except FileNotFoundError:
                continue  # a kernel without the magic key
            libc.mount_setattr(fd, libc.MOUNT_ATTR_RDONLY)
            libc.move_mount(fd, proc, name)
        libc.move_mount(net, proc, "sys/net")
        try:
            virtual = mounts.new("sysfs", {}, _SAFE)
            fd = mounts.clone("devices/virtual/net", dir_fd=virtual)
            libc.move_mount(fd, sysfs, "devices/virtual/net")
        except OSError:
            pass  # a convenience: LXC has it so that bridges can be tuned
    os.close(proc)
    os.close(sysfs)


def _set_sysctls(spec: "InstanceSpec", top: str, net: bool) -> None:
    """Sets what the instance has of its own: the ones of its network when its nics are there, the rest before."""
    for name, value in spec.get("sysctls", {}).items():
        # As sysctl(8): with a slash first, dots belong to the names.
        dot, slash = name.find("."), name.find("/")
        path = name if slash >= 0 and (dot < 0 or slash < dot) else name.translate(str.maketrans("./", "/."))
        if path.startswith("net/") == net:
            _step(f"setting linux.sysctl.{name}={value}")
            fd = os.open(f"{top}/{path}", os.O_WRONLY | os.O_CLOEXEC)
            os.write(fd, value.encode())
            os.close(fd)


def _make_dev(nodes: "list[tuple[str, int]]", root: int) -> None:
    _step("making /dev")
    dev = mounts.new("tmpfs", {"mode": "755", "size": "512k"}, libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NOEXEC)
    _attach(dev, "dev")
    for name in ("pts", "shm", "mqueue", "net"):
        os.mkdir(name, 0o755, dir_fd=dev)
    for target, link in (
        ("/proc/self/fd", "fd"), ("/proc/self/fd/0", "stdin"), ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"), ("/proc/kcore", "core"), ("pts/ptmx", "ptmx"),
    ):  # fmt: skip
        os.symlink(target, link, dir_fd=dev)
    _step("mounting /dev/pts")
    options = {"newinstance": "", "ptmxmode": "0666", "mode": "0620", "gid": "5"}
    libc.move_mount(mounts.new("devpts", options, libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NOEXEC), dev, "pts")
    libc.move_mount(mounts.new("tmpfs", {"mode": "1777"}, libc.MOUNT_ATTR_NOSUID | libc.MOUNT_ATTR_NODEV), dev, "shm")
    try:
        libc.move_mount(mounts.new("mqueue", {}, _SAFE), dev, "mqueue")
    except OSError as error:
        if error.errno != 19:  # ENODEV: a kernel without POSIX message queues
            raise
    for name, fd in nodes:
        _step(f"mounting /{name}")
        if name.startswith("dev/"):
            os.close(os.open(name[4:], os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o666, dir_fd=dev))
            libc.move_mount(fd, dev, name[4:])
        else:
            try:
                binds.attach_in(root, name, fd)
            except OSError:
                pass  # lxcfs serves a file that this kernel does not have
        os.close(fd)
    os.close(dev)


def _mask(privileged: bool) -> None:
    """Hides files that tell about, or change, the host."""
    _step("masking kernel files")
    for name in _MASKED:
        try:
            status = os.stat(name, follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                fd = mounts.new("tmpfs", {"size": "4k", "mode": "555"}, _SAFE | libc.MOUNT_ATTR_RDONLY)
            else:
                fd = mounts.clone("dev/null")
            libc.move_mount(fd, libc.AT_FDCWD, name)
            os.close(fd)
        except FileNotFoundError:
            continue


def _show_full_kernel_files() -> None:
    """A nested container may mount proc and sysfs only where an unmasked one is visible (mount_too_revealing)."""
    _step("preparing for nesting")
    os.mkdir("dev/.lxc", 0o755)
    for fstype, name in (("proc", "dev/.lxc/proc"), ("sysfs", "dev/.lxc/sys")):
        os.mkdir(name, 0o755)
        libc.move_mount(mounts.new(fstype, {}, _SAFE), libc.AT_FDCWD, name)


assert sys.maxsize > 2**32, "64-bit machines only: seccomp and clone3 structures here know no other"

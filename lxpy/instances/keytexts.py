"""What the configuration keys of an instance are for, for `GET /1.0/metadata/configuration`; the rules are in `keys`.

A name that ends with a word in capitals is a family: that word is the user's to choose.
"""

from lxpy.api.keytexts import Key, group
from lxpy.instances.limits import PAGE_SIZES
from lxpy.linux.libc import RLIMITS

_RLIMITS = {
    "as": "address space in bytes", "core": "size of core dumps in bytes", "cpu": "CPU time in seconds",
    "data": "data segment in bytes", "fsize": "size of a file it writes, in bytes", "locks": "file locks",
    "memlock": "locked memory in bytes", "nice": "how far nice may be lowered", "nofile": "open files",
    "nproc": "processes of one user", "rtprio": "real-time priority", "sigpending": "queued signals",
}  # fmt: skip
_SEEDED = "for images with cloud-init, at the first boot"

KEYS: dict[str, Key] = {
    "boot.autorestart": Key("bool", "Start it again when it ends by itself", "false"),
    "boot.autorestart.delay": Key("integer", "Seconds before the first restart; twice as long each time", "1"),
    "boot.autorestart.limit": Key("integer", "How many restarts in a row before it is given up; 0: without end", "10"),
    "boot.autostart": Key("bool", "Start it with the host", "as it was when the host went down"),
    "boot.autostart.delay": Key("integer", "Seconds to wait after its start before the next one's", "0"),
    "boot.autostart.priority": Key("integer", "The highest starts first", "0"),
    "boot.host_shutdown_timeout": Key("integer", "Seconds a stop may take before it is ended by force", "30"),
    "boot.requires": Key("string", "Instances that must be there first: db, db:running, db:address, db:ready"),
    "boot.requires.timeout": Key("integer", "Seconds to wait for those; then it starts all the same", "60"),
    "boot.stop.priority": Key("integer", "The highest is stopped first when the host goes down", "0"),
    "cloud-init.network-config": Key("string", f"Network configuration, {_SEEDED}"),
    "cloud-init.user-data": Key("string", f"User data, {_SEEDED}", "#cloud-config"),
    "cloud-init.vendor-data": Key("string", f"Vendor data, {_SEEDED}", "#cloud-config"),
    "cloud-init.ssh-keys.NAME": Key("string", "An SSH key to let in: USER:KEY; for images with cloud-init"),
    "environment.NAME": Key("string", "A variable in the environment of exec and of init"),
    "limits.cpu": Key("string", "How many CPUs (2), or which (0-1,3)", "all"),
    "limits.cpu.allowance": Key("string", "A share when CPUs are short (50%), or a quota (25ms/100ms)", "100%"),
    "limits.cpu.nodes": Key("string", "NUMA nodes that its CPUs are taken from (0, 0-1)", "all"),
    "limits.cpu.priority": Key("integer", "0 to 10: each step down is one of nice", "10"),
    "limits.disk.priority": Key("integer", "0 to 10: weight among those who wait for a disk", "5"),
    **{
        f"limits.hugepages.{size}": Key("string", f"Bytes of huge pages of {size}", "no limit") for size in PAGE_SIZES
    },
    **{
        f"limits.kernel.{name}": Key(
            "string", f"Resource limit, inherited by all: {_RLIMITS[name]} (N, SOFT:HARD)"
        )
        for name in RLIMITS
    },
    "limits.memory": Key("string", "Bytes (512MiB) or a share of the host's memory (10%)", "no limit"),
    "limits.memory.enforce": Key("string", "hard: above it the kernel kills; soft: it is taken back when others need "
                                 "it", "hard", ("hard", "soft")),
    "limits.memory.swap": Key("bool", "Whether its memory may be swapped out", "true"),
    "limits.memory.swap.priority": Key("integer", "0 to 10: the lower, the sooner it is swapped out (cgroup v1)", "10"),
    "limits.network.priority": Key("integer", "0 to 10: priority of what its nics send", "0"),
    "limits.processes": Key("integer", "How many processes it may have", "no limit"),
    "linux.kernel_modules": Key("string", "Modules to load into the host's kernel first, separated by commas"),
    "linux.sysctl.NAME": Key("string", "A setting of its own kernel namespaces: net.*, kernel.shm*, fs.mqueue.* …"),
    "raw.apparmor": Key("string", "Further rules for its AppArmor profile"),
    "raw.idmap": Key("string", "Ids of the host inside, one piece a line: both 1000 1000"),
    "raw.lxc": Key("string", "Lines of lxc.prlimit.*, lxc.sysctl.*, lxc.environment, lxc.cap.drop, lxc.init.cmd"),
    "security.devlxd": Key("bool", "Whether the guest may ask its host, at /dev/lxd", "true"),
    "security.devlxd.images": Key("bool", "Whether the guest may fetch images there", "false"),
    "security.idmap.base": Key("integer", "From which id of the host on its ids are", "chosen"),
    "security.idmap.isolated": Key("bool", "Ids of its own: always so", "true"),
    "security.idmap.size": Key("integer", "How many ids it has", "65536"),
    "security.nesting": Key("bool", "Containers inside", "false"),
    "security.privileged": Key("bool", "Root inside is root of the host: only for what you trust", "false"),
    "security.protection.delete": Key("bool", "It is not deleted until this is unset", "false"),
    "security.protection.shift": Key("bool", "Owners on disk are never changed: always so", "true"),
    "security.protection.start": Key("bool", "It is not started until this is unset", "false"),
    "security.syscalls.allow": Key("string", "The only system calls there are, one a line"),
    "security.syscalls.deny": Key("string", "System calls that are refused, one a line: mount, mkdirat errno 13"),
    "security.syscalls.deny_compat": Key("bool", "Nothing for 32-bit programs", "false"),
    "security.syscalls.deny_default": Key("bool", "Refuse the usual dangerous calls", "true"),
    "snapshots.expiry": Key("string", "How long new snapshots are kept: 1H 2d 3w 4m 5y", "for ever"),
    "snapshots.pattern": Key("string", "Names of snapshots: %d, {{ creation_date }}", "snap%d"),
    "snapshots.schedule": Key("string", "When snapshots are made: cron's five fields, or @hourly, @daily …"),
    "snapshots.schedule.stopped": Key("bool", "Of a stopped instance, too", "false"),
    "snapshots.schedules.NAME": Key("string", "A further schedule with a name; .expiry, .keep and .pattern go with it"),
    "user.NAME": Key("string", "Yours: kept, and shown to the guest"),
}  # fmt: skip
_GROUPS = {"limits": "resource-limits", "linux": "miscellaneous", "environment": "miscellaneous",
           "user": "miscellaneous"}  # fmt: skip


def configs() -> dict[str, object]:
    """The groups, named as LXD names them."""
    found: dict[str, dict[str, Key]] = {}
    for name, key in KEYS.items():
        head = name.partition(".")[0]
        found.setdefault(_GROUPS.get(head, head), {})[name] = key
    return {name: group(keys) for name, keys in found.items()}

"""Keys of LXD's and Incus's that lxpy does not honour: why, and what to do instead.

Nothing is accepted and then ignored. A value that says what is so anyway is no harm and is taken.
"""

from lxpy.api.errors import BadRequest

_MACHINE = "it is for virtual machines, and lxpy runs containers"
_INTERCEPT = "lxpy intercepts no system calls"
_NVIDIA = "NVIDIA's hook is not run; give the device files by unix-char devices and install the libraries inside"
_MOUNT = f"{_INTERCEPT}; mount on the host and give the directory by a disk device, or use FUSE inside"
_NESTED = f"{_INTERCEPT}; the device rules of a nested container need none here"
_BPF = "no BPF file system is delegated; programs inside cannot load BPF programs for the host"
_CRIU = "lxpy does not move running memory between hosts; stop the instance, then copy or move it"
_OCI = "lxpy runs whole systems with an init of their own, no application images"

# A key ending in a dot stands for all below it.
REFUSED: dict[str, str] = {
    "agent.": _MACHINE,
    "cluster.evacuate": "there are no clusters, so nothing is ever evacuated",
    "limits.memory.hugepages": f"{_MACHINE}; limits.hugepages.* limit the huge pages of containers",
    "limits.memory.hotplug": _MACHINE,
    "limits.memory.oom_priority": "the kernel chooses; a limits.memory keeps an instance from taking others' memory",
    "linux.sysctl": "name the setting: linux.sysctl.net.ipv4.ip_forward=1",
    "migration.": _CRIU,
    "nvidia.": _NVIDIA,
    "oci.": _OCI,
    "placement.": "there are no clusters",
    "raw.apparmor.": "there is only raw.apparmor",
    "raw.qemu": _MACHINE,
    "raw.qemu.": _MACHINE,
    "raw.seccomp": "write what is to be refused or allowed into security.syscalls.deny or security.syscalls.allow",
    "security.agent.": _MACHINE,
    "security.bpffs.": _BPF,
    "security.csm": _MACHINE,
    "security.delegate_bpf": _BPF,
    "security.delegate_bpf.": _BPF,
    "security.guestapi": "it is called security.devlxd here, as in LXD",
    "security.guestapi.": "it is called security.devlxd.images here, as in LXD",
    "security.iommu": _MACHINE,
    "security.secureboot": _MACHINE,
    "security.sev": _MACHINE,
    "security.sev.": _MACHINE,
    "security.syscalls.blacklist": "it is called security.syscalls.deny now",
    "security.syscalls.blacklist_compat": "it is called security.syscalls.deny_compat now",
    "security.syscalls.blacklist_default": "it is called security.syscalls.deny_default now",
    "security.syscalls.intercept.bpf": _NESTED,
    "security.syscalls.intercept.bpf.": _NESTED,
    "security.syscalls.intercept.mknod": f"{_INTERCEPT}; give devices by unix-char and unix-block",
    "security.syscalls.intercept.mount": _MOUNT,
    "security.syscalls.intercept.mount.": _MOUNT,
    "security.syscalls.intercept.sched_setscheduler": f"{_INTERCEPT}; limits.kernel.rtprio and .nice allow priorities",
    "security.syscalls.intercept.setxattr": f"{_INTERCEPT}; overlay mounts inside work with userxattr",
    "security.syscalls.intercept.sysinfo": f"{_INTERCEPT}; lxcfs makes /proc/meminfo tell the truth",
    "security.syscalls.whitelist": "it is called security.syscalls.allow now",
}  # fmt: skip
_HARMLESS = ("", "false", "0", "no", "off")
_STEMS = ("agent.", "migration.", "nvidia.runtime", "security.", "limits.memory.hugepages")


def refuse(key: str, value: str) -> bool:
    """Whether a key is one of those, and its value says nothing but that it is off.

    Raises:
        BadRequest: with the reason.
    """
    for name, why in REFUSED.items():
        if key == name or (name.endswith(".") and key.startswith(name)):
            if key.startswith(_STEMS) and value.lower() in _HARMLESS:
                return True
            raise BadRequest(f"Configuration key {key!r} is not supported: {why}")
    return False

"""Capabilities of this process: the effective set and the bounding set (include/uapi/linux/capability.h)."""

import ctypes
import errno

from lxpy.linux import libc

SYS_MODULE, SYS_RAWIO, SYS_TIME, MAC_OVERRIDE, MAC_ADMIN = 16, 17, 25, 32, 33
SYS_RESOURCE = 24
DAC_OVERRIDE = 1

# Kept from every guest, as plain LXC does: with them systemd starts units that then fail (DESIGN.md, section 3).
DENIED = (SYS_MODULE, SYS_RAWIO, SYS_TIME, MAC_ADMIN, MAC_OVERRIDE)


# In the order of their numbers.
NAMES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Sets(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("e0", "p0", "i0", "e1", "p1", "i1")]


def _get() -> tuple[_Header, _Sets]:
    header, sets = _Header(0x20080522, 0), _Sets()
    libc.syscall(libc.NUMBERS["capget"], ctypes.addressof(header), ctypes.addressof(sets), what="capget")
    return header, sets


def effective() -> int:
    """The effective set of this thread, one bit per capability."""
    sets = _get()[1]
    return int(sets.e0) | int(sets.e1) << 32


def raise_all() -> None:
    """Makes every permitted capability effective again (an id change lowers them)."""
    header, sets = _get()
    sets.e0, sets.e1 = sets.p0, sets.p1
    libc.syscall(libc.NUMBERS["capset"], ctypes.addressof(header), ctypes.addressof(sets), what="capset")


def keep_only(*capabilities: int) -> None:
    """Gives up all others for good, but for what an exec of a set-uid program would bring."""
    header, sets = _get()
    mask = sum(1 << one for one in capabilities)
    sets.e0, sets.e1 = sets.e0 & mask & 0xFFFFFFFF, sets.e1 & mask >> 32
    sets.p0, sets.p1 = sets.p0 & mask & 0xFFFFFFFF, sets.p1 & mask >> 32
    sets.i0 = sets.i1 = 0
    libc.syscall(libc.NUMBERS["capset"], ctypes.addressof(header), ctypes.addressof(sets), what="capset")


def clear_inheritable() -> None:
    header, sets = _get()
    sets.i0 = sets.i1 = 0
    libc.syscall(libc.NUMBERS["capset"], ctypes.addressof(header), ctypes.addressof(sets), what="capset")


def drop_from_bounding_set(more: "list[int] | tuple[int, ...]" = ()) -> None:
    """Drops `DENIED` and `more`: no exec of this process or its children gets them again."""
    for capability in (*DENIED, *more):
        try:
            libc.prctl(libc.PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel without this capability
                raise


def names(capabilities: int) -> list[str]:
    """The names of a set."""
    return [NAMES[number] if number < len(NAMES) else str(number) for number in range(64) if capabilities >> number & 1]


def known() -> int:
    """All that this kernel has."""
    with open("/proc/sys/kernel/cap_last_cap", encoding="ascii") as file:
        return (1 << int(file.read()) + 1) - 1

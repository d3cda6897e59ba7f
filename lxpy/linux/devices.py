"""Which devices a guest may use: the v1 ``devices`` cgroup, or a BPF program on its v2 cgroup."""

import ctypes
import os
import struct

from lxpy.linux import libc

Device = tuple[str, int, int]  # "c" or "b", major, minor; -1: any

ALLOWED: tuple[Device, ...] = (
    ("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9),  # null zero full random urandom
    ("c", 5, 0), ("c", 5, 1), ("c", 5, 2), ("c", 136, -1),  # tty console ptmx pts/*
    ("c", 10, 229), ("c", 10, 200),  # fuse net/tun
)  # fmt: skip

_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE = 15, 6
_BPF_F_ALLOW_MULTI = 2


def restrict_v1(cgroup: str, devices: tuple[Device, ...]) -> None:
    """Denies all devices but these to a cgroup of the v1 ``devices`` hierarchy."""
    fd = os.open(f"{cgroup}/devices.deny", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, b"a")
    finally:
        os.close(fd)
    fd = os.open(f"{cgroup}/devices.allow", os.O_WRONLY | os.O_CLOEXEC)
    try:
        for kind, major, minor in devices:
            os.write(fd, f"{kind} {major}:{'*' if minor < 0 else minor} rwm".encode())
    finally:
        os.close(fd)


def program(devices: tuple[Device, ...]) -> bytes:
    """eBPF for ``BPF_PROG_TYPE_CGROUP_DEVICE``: 1 for a device of the list, else 0.

    The context (struct bpf_cgroup_dev_ctx) is access type, of which the low 16 bits are the kind, major, minor.
    """

    def op(code: int, dst: int, src: int, offset: int, value: int) -> bytes:
        return struct.pack("<BBhi", code, src << 4 | dst, offset, value)

    code = [
        op(0x61, 2, 1, 0, 0),  # r2 = access_type
        op(0x57, 2, 0, 0, 0xFFFF),  # r2 &= 0xffff: 1 block, 2 char
        op(0x61, 3, 1, 4, 0),  # r3 = major
        op(0x61, 4, 1, 8, 0),  # r4 = minor
    ]
    for kind, major, minor in devices:
        tests = [(2, 2 if kind == "c" else 1), (3, major)]
        if minor >= 0:
            tests.append((4, minor))
        # Each "not equal" jumps over the remaining tests and the two instructions of "allow".
        code += [op(0x55, reg, 0, len(tests) - i + 1, value) for i, (reg, value) in enumerate(tests)]
        code += [op(0xB7, 0, 0, 0, 1), op(0x95, 0, 0, 0, 0)]  # r0 = 1; exit
    code += [op(0xB7, 0, 0, 0, 0), op(0x95, 0, 0, 0, 0)]
    return b"".join(code)


def load(devices: tuple[Device, ...]) -> int:
    """Hands the program to the kernel, which checks it; its descriptor. Needs CAP_SYS_ADMIN on the host."""
    code = ctypes.create_string_buffer(program(devices))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = ctypes.create_string_buffer(
        struct.pack(
            "IIQQ", _BPF_PROG_TYPE_CGROUP_DEVICE, (len(code) - 1) // 8,
            ctypes.addressof(code), ctypes.addressof(licence),
        ), 48,
    )  # fmt: skip
    return libc.syscall(libc.NUMBERS["bpf"], _BPF_PROG_LOAD, ctypes.addressof(attributes), 48, what="BPF_PROG_LOAD")


def restrict_v2(cgroup_fd: int, devices: tuple[Device, ...]) -> None:
    """Attaches the program to a cgroup of the unified hierarchy. Needs CAP_SYS_ADMIN on the host."""
    fd = load(devices)
    try:
        attach = ctypes.create_string_buffer(
            struct.pack("IIII", cgroup_fd, fd, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI), 16
        )
        libc.syscall(libc.NUMBERS["bpf"], _BPF_PROG_ATTACH, ctypes.addressof(attach), 16, what="BPF_PROG_ATTACH")
    finally:
        os.close(fd)

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
_BPF_PROG_GET_FD_BY_ID, _BPF_OBJ_GET_INFO_BY_FD, _BPF_PROG_QUERY = 13, 15, 16
_BPF_PROG_TYPE_CGROUP_DEVICE, _BPF_CGROUP_DEVICE = 15, 6
_BPF_F_ALLOW_MULTI, _BPF_F_REPLACE = 2, 4
_NAME = b"lxpy_devices"  # of the program: a guest may have attached others


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


def change_v1(cgroup: str, devices: tuple[Device, ...]) -> None:
    """Brings the list of a cgroup of `restrict_v1` to these devices; what stays on it is allowed all along."""
    fd = os.open(f"{cgroup}/devices.list", os.O_RDONLY | os.O_CLOEXEC)
    try:
        listed = os.read(fd, 65536).decode().split("\n")
    finally:
        os.close(fd)
    old = {line.rpartition(" ")[0] for line in listed if line}
    new = {f"{kind} {major}:{'*' if minor < 0 else minor}" for kind, major, minor in devices}
    for name, changes in (("deny", old - new), ("allow", new - old)):
        fd = os.open(f"{cgroup}/devices.{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for change in changes:
                os.write(fd, f"{change} rwm".encode())
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
    attributes = struct.pack(
        "IIQQ24x16s", _BPF_PROG_TYPE_CGROUP_DEVICE, (len(code) - 1) // 8,
        ctypes.addressof(code), ctypes.addressof(licence), _NAME,
    )  # fmt: skip
    return _bpf(_BPF_PROG_LOAD, attributes, "BPF_PROG_LOAD")[0]


def restrict_v2(cgroup_fd: int, devices: tuple[Device, ...]) -> None:
    """Attaches the program to a cgroup of the unified hierarchy. Needs CAP_SYS_ADMIN on the host."""
    fd = load(devices)
    try:
        _attach(cgroup_fd, fd, _BPF_F_ALLOW_MULTI)
    finally:
        os.close(fd)


def change_v2(cgroup_fd: int, devices: tuple[Device, ...]) -> None:
    """Puts a program for these devices into the place of that of `restrict_v2`, in one step (Linux 5.6)."""
    fd = load(devices)
    try:
        old = _attached(cgroup_fd)
        if old < 0:
            _attach(cgroup_fd, fd, _BPF_F_ALLOW_MULTI)
            return
        try:
            _attach(cgroup_fd, fd, _BPF_F_ALLOW_MULTI | _BPF_F_REPLACE, old)
        finally:
            os.close(old)
    finally:
        os.close(fd)


def _attach(cgroup_fd: int, program_fd: int, flags: int, replaced_fd: int = 0) -> None:
    attributes = struct.pack("IIIII", cgroup_fd, program_fd, _BPF_CGROUP_DEVICE, flags, replaced_fd)
    _bpf(_BPF_PROG_ATTACH, attributes, "BPF_PROG_ATTACH")


def _attached(cgroup_fd: int) -> int:
    """A descriptor of our program on a cgroup; -1 when there is none. One from before it had a name counts, too."""
    ids = (ctypes.c_uint32 * 64)()
    attributes = struct.pack("IIIIQI", cgroup_fd, _BPF_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids))
    _, answer = _bpf(_BPF_PROG_QUERY, attributes, "BPF_PROG_QUERY")
    nameless = -1
    for number in ids[: struct.unpack_from("I", answer, 24)[0]]:
        fd, _ = _bpf(_BPF_PROG_GET_FD_BY_ID, struct.pack("I", number), "BPF_PROG_GET_FD_BY_ID")
        info = ctypes.create_string_buffer(80)  # struct bpf_prog_info up to its name, which begins at 64
        request = struct.pack("IIQ", fd, len(info), ctypes.addressof(info))
        _bpf(_BPF_OBJ_GET_INFO_BY_FD, request, "BPF_OBJ_GET_INFO_BY_FD")
        name = info.raw[64:80].rstrip(b"\0")
        if name == _NAME:
            if nameless >= 0:
                os.close(nameless)
            return fd
        if not name and nameless < 0:
            nameless = fd
        else:
            os.close(fd)
    return nameless


def _bpf(command: int, attributes: bytes, what: str) -> tuple[int, bytes]:
    """The call's result, and the attributes as the kernel has left them."""
    buffer = ctypes.create_string_buffer(attributes, max(48, len(attributes)))
    result = libc.syscall(libc.NUMBERS["bpf"], command, ctypes.addressof(buffer), len(buffer), what=what)
    return result, buffer.raw

"""The seccomp filter of every guest: classic BPF, written out here.

A deny list, as system containers need nearly everything. Refused: loading kernels and modules and opening by file
handle (ENOSYS, so that programs take them for not built in) and forced unmounts (EACCES). A second ABI of the machine
has its own numbers and its own list; x32 and any ABI unknown here get ENOSYS for every call. ``TIOCSTI`` stays
allowed: no terminal of the host ever reaches a guest. Keys are per user namespace and stay allowed too.
"""

import ctypes
import errno
import struct

from lxpy.linux import libc

_LD_ABS, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_NR, _ARCH, _ARG1 = 0, 4, 24  # offsets in struct seccomp_data; the low half of the second argument (little endian)
_MNT_FORCE = 1
_X32_BIT = 0x40000000

# AUDIT_ARCH: (numbers that do not exist for a guest, the number of umount2).
# kexec_load kexec_file_load open_by_handle_at init_module finit_module delete_module
_ABIS: dict[str, dict[int, tuple[tuple[int, ...], int]]] = {
    "x86_64": {
        0xC000003E: ((246, 320, 304, 175, 313, 176), 166),
        0x40000003: ((283, 342, 128, 350, 129), 52),  # i386 has no kexec_file_load
    },
    "aarch64": {
        0xC00000B7: ((104, 294, 265, 105, 273, 106), 39),
        0x40000028: ((347, 401, 371, 128, 379, 129), 52),
    },
}


# What it refuses, as `program` has it.
REFUSED = (
    "kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module", "delete_module",
    "umount2 with MNT_FORCE", "calls of unknown ABIs (x32)",
)  # fmt: skip


def program(machine: str = libc.MACHINE) -> bytes:
    """The filter as an array of ``struct sock_filter``; empty for a machine without a list."""
    abis = _ABIS.get(machine, {})
    code: list[tuple[int, int, int, int]] = [(_LD_ABS, 0, 0, _ARCH)]
    for arch, (missing, umount2) in abis.items():
        body = [(_LD_ABS, 0, 0, _NR)]
        if arch == 0xC000003E:
            body += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]
        for number in missing:
            body += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]
        body += [
            (_JEQ, 0, 3, umount2),
            (_LD_ABS, 0, 0, _ARG1),
            (_JSET, 0, 1, _MNT_FORCE),
            (_RET, 0, 0, _ERRNO | errno.EACCES),
            (_RET, 0, 0, _ALLOW),
        ]
        code += [(_JEQ, 0, len(body), arch), *body]
    code.append((_RET, 0, 0, _ERRNO | errno.ENOSYS))
    return b"".join(struct.pack("HBBI", *line) for line in code) if abis else b""


_PROGRAM = program()


class _Fprog(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def install(own: bytes = b"") -> None:
    """Puts the filter, or `own` instead, on this process for good.

    Needs CAP_SYS_ADMIN in its user namespace, and no no_new_privs.
    """
    if code := own or _PROGRAM:
        buffer = ctypes.create_string_buffer(code, len(code))
        fprog = _Fprog(len(code) // 8, ctypes.addressof(buffer))
        libc.prctl(libc.PR_SET_SECCOMP, 2, ctypes.addressof(fprog))

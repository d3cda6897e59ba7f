"""Filters of system calls that a user has written: LXD's ``security.syscalls.*`` as classic BPF.

Daemon's side only; what comes out is handed to `seccomp.install` as bytes.
"""

import errno
import re
import struct
from dataclasses import dataclass, field

from lxpy.linux import libc, seccomp, syscalls

# struct sock_filter: load, jump if equal, jump if at least, jump always, and, return.
_LD_ABS, _JEQ, _JGE, _JA, _JSET, _RET = 0x20, 0x15, 0x35, 0x05, 0x45, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NR, _ARCH, _ARG1 = 0, 4, 24
_X32_BIT, _MNT_FORCE = 0x40000000, 1
# The ABIs of a machine, its own first.
_ABIS = {"x86_64": (syscalls.X86_64, syscalls.I386), "aarch64": (syscalls.AARCH64,)}
USUAL = ("kexec_load", "kexec_file_load", "open_by_handle_at", "init_module", "finit_module", "delete_module")

_LINE = re.compile(r"([a-z0-9_]+)(?:\s+(errno\s+\d{1,4}|kill|allow))?\Z")


@dataclass(frozen=True)
class Policy:
    """What a filter does.

    Attributes:
        usual: whether the calls that every guest is refused are refused.
        deny: calls that are refused, with what happens (a seccomp return value).
        allow: the only calls there are; None: all.
        compat: whether programs of the machine's second ABI (32 bit) may call anything.
    """

    usual: bool = True
    deny: dict[str, int] = field(default_factory=dict)
    allow: frozenset[str] | None = None
    compat: bool = True


def parse(text: str) -> dict[str, int]:
    """The calls of a ``security.syscalls.deny``: a name each line, with ``errno N`` or ``kill`` behind it.

    Raises:
        ValueError: with what is wrong.
    """
    found = {}
    known = {name for arch in (syscalls.X86_64, syscalls.I386, syscalls.AARCH64) for name in syscalls.numbers(arch)}
    for line in re.split(r"[\n,]", text):
        line = line.partition("#")[0].strip()
        if not line:
            continue
        match = _LINE.match(line)
        if not match:
            raise ValueError(f"{line!r} is no line of it: give a name each line, with errno NUMBER or kill behind it")
        if match[1] not in known:
            raise ValueError(f"there is no system call {match[1]!r}")
        action = match[2] or ""
        number = int(action.split()[1]) if action.startswith("errno") else errno.ENOSYS
        found[match[1]] = _KILL if action == "kill" else _ERRNO | number
    return found


def program(policy: Policy, machine: str = libc.MACHINE) -> bytes:
    """The filter. Raises `ValueError` for a machine that this program has no numbers of."""
    if machine not in _ABIS:
        raise ValueError(f"the numbers of system calls of {machine} are not known here")
    code: list[tuple[int, int, int, int]] = [(_LD_ABS, 0, 0, _ARCH)]
    for place, arch in enumerate(_ABIS[machine]):
        body = _body(policy, arch) if place == 0 or policy.compat else [(_RET, 0, 0, _ERRNO | errno.ENOSYS)]
        # Jumps that depend on something reach 255 instructions, this one all.
        code += [(_JEQ, 1, 0, arch), (_JA, 0, 0, len(body)), *body]
    code.append((_RET, 0, 0, _ERRNO | errno.ENOSYS))
    return b"".join(struct.pack("HBBI", *line) for line in code)


def _body(policy: Policy, arch: int) -> list[tuple[int, int, int, int]]:
    numbers = syscalls.numbers(arch)
    body: list[tuple[int, int, int, int]] = [(_LD_ABS, 0, 0, _NR)]
    if arch == syscalls.X86_64:
        body += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]
    for name, action in policy.deny.items():
        if name in numbers:
            body += [(_JEQ, 0, 1, numbers[name]), (_RET, 0, 0, action)]
    if policy.usual:
        for name in USUAL:
            if name in numbers:
                body += [(_JEQ, 0, 1, numbers[name]), (_RET, 0, 0, _ERRNO | errno.ENOSYS)]
        body += [
            (_JEQ, 0, 4, numbers["umount2"]),
            (_LD_ABS, 0, 0, _ARG1),
            (_JSET, 0, 1, _MNT_FORCE),
            (_RET, 0, 0, _ERRNO | errno.EACCES),
            (_LD_ABS, 0, 0, _NR),
        ]
    if policy.allow is not None:
        for name in sorted(policy.allow):
            if name in numbers:
                body += [(_JEQ, 0, 1, numbers[name]), (_RET, 0, 0, _ALLOW)]
        body.append((_RET, 0, 0, _ERRNO | errno.ENOSYS))
    else:
        body.append((_RET, 0, 0, _ALLOW))
    return body


def described(policy: Policy) -> list[str]:
    """What it refuses, in words."""
    found = list(policy.deny)
    if policy.usual:
        found += [name for name in seccomp.REFUSED if name not in found]
    if policy.allow is not None:
        found.append(f"everything but {len(policy.allow)} calls that are allowed")
    if not policy.compat:
        found.append("all of 32-bit programs")
    return found

"""Namespaces of a guest: which, and the small things done inside them."""

import fcntl
import os
import signal
import socket
import struct

from lxpy.linux import libc

# What clone() makes for a guest. The mount namespace follows once the root file system hangs in its parent
# (so that its flags get locked), the cgroup namespace once the process is in its cgroup.
AT_CLONE = libc.CLONE_NEWPID | libc.CLONE_NEWNET | libc.CLONE_NEWIPC | libc.CLONE_NEWUTS
# What a process joining a guest takes over before it forks. The user namespace comes after, and so does the cgroup
# namespace: where cgroup2 is mounted with nsdelegate (systemd does), a process inside one cannot fork into a cgroup
# while it is itself in a cgroup outside (ENOENT; kernel/cgroup/cgroup.c, cgroup_procs_write_permission).
FOR_ATTACH = AT_CLONE | libc.CLONE_NEWNS

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def write_map(pid: int, uids: "list[list[int]]", gids: "list[list[int]]") -> None:
    """Writes the id maps of the process's user namespace: first inside, first outside, how many. Once only."""
    for name, pieces in (("uid_map", uids), ("gid_map", gids)):
        line = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in pieces).encode()
        path = f"/proc/{pid}/{name}"
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, line)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(fd)


def read_map(pid: int, name: str) -> "list[list[int]]":
    """The ``uid_map`` or ``gid_map`` of a process's user namespace, in pieces as `write_map` takes them."""
    with open(f"/proc/{pid}/{name}", encoding="ascii") as file:
        return [[int(number) for number in line.split()] for line in file]


def mapped(uids: "list[list[int]]", gids: "list[list[int]]") -> int:
    """A descriptor of a new user namespace with these maps, for an id-mapped mount. Forks: for a single thread."""
    pid = libc.clone(libc.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()
    try:
        write_map(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def loopback_up() -> None:
    """Brings ``lo`` of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        request = bytearray(struct.pack("16sH22x", b"lo", 0))
        fcntl.ioctl(sock, _SIOCGIFFLAGS, request)
        flags = struct.unpack_from("H", request, 16)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))

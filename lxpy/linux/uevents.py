"""What the kernel tells about devices that come and go (lib/kobject_uevent.c), and what udev tells afterwards."""

import os
import socket
import struct

NETLINK_KOBJECT_UEVENT = 15
_KERNEL, _UDEV = 1, 2  # multicast groups: udev repeats events once its links in /dev are made
_ROOM = 1 << 20
_UEVENT_SEND, _NLM_F_REQUEST, _NLM_F_ACK, _NLMSG_ERROR = 16, 1, 4, 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr


def listen() -> socket.socket:
    """A non-blocking socket that hears them; in a network namespace that the initial user namespace owns.

    A full buffer gives ENOBUFS once: then everything is to be looked at anew.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
        sock.setblocking(False)
        sock.bind((0, _KERNEL | _UDEV))
    except BaseException:
        sock.close()
        raise
    return sock


def send(action: str, variables: str) -> None:
    """Tells everybody in this network namespace of a device, as the kernel tells in those of the host's.

    The kernel adds SEQNUM itself; it asks for CAP_SYS_ADMIN over the namespace (Linux 4.18).

    Args:
        variables: lines of ``KEY=VALUE``, DEVPATH among them.
    """
    devpath = next(line[8:] for line in variables.splitlines() if line.startswith("DEVPATH="))
    text = "\0".join([f"{action}@{devpath}", f"ACTION={action}", *variables.splitlines(), ""]).encode()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT) as sock:
        length = _HEADER.size + len(text)
        header = _HEADER.pack(length, _UEVENT_SEND, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
        sock.sendto(header + text + bytes(-length % 4), (0, 0))
        answer = sock.recv(4096)
        kind, error = struct.unpack_from("=4xH10xi", answer)
        if kind == _NLMSG_ERROR and error:
            raise OSError(-error, os.strerror(-error), "uevent")


def parse(data: bytes) -> dict[str, str]:
    """The variables of a kernel's message (ACTION, DEVPATH, SUBSYSTEM, DEVNAME ...); of udev's only ACTION, "udev"."""
    if data.startswith(b"libudev\0"):
        return {"ACTION": "udev"}
    pairs = (os.fsdecode(part).partition("=") for part in data.split(b"\0")[1:])
    return {key: value for key, separator, value in pairs if separator}

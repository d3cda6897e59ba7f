"""What the kernel tells about devices that come and go (lib/kobject_uevent.c), and what udev tells afterwards."""

import os
import socket

NETLINK_KOBJECT_UEVENT = 15
_KERNEL, _UDEV = 1, 2  # multicast groups: udev repeats events once its links in /dev are made
_ROOM = 1 << 20


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


def parse(data: bytes) -> dict[str, str]:
    """The variables of a kernel's message (ACTION, DEVPATH, SUBSYSTEM, DEVNAME ...); of udev's only ACTION, "udev"."""
    if data.startswith(b"libudev\0"):
        return {"ACTION": "udev"}
    pairs = (os.fsdecode(part).partition("=") for part in data.split(b"\0")[1:])
    return {key: value for key, separator, value in pairs if separator}

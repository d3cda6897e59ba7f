"""Devices of this host by what they are: vendor, product, bus. Read from sysfs, which knows no more than the kernel."""

import os
from typing import NamedTuple

_SYS = "/sys"


class HostNode(NamedTuple):
    """A device with a node: `name` below /dev, kind ``c`` or ``b``, and its numbers.

    `event`: what the kernel tells of it when it comes or goes, as lines of ``KEY=VALUE``; empty where not asked for.
    """

    name: str
    kind: str
    major: int
    minor: int
    event: str = ""


def numbers(path: str) -> HostNode | None:
    """What a node of the host is; None when there is none.

    Raises:
        OSError: there is something else at that path (ENOTSUP), or it cannot be looked at.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    kind = {0o020000: "c", 0o060000: "b"}.get(status.st_mode & 0o170000)
    if kind is None:
        raise OSError(95, "not a device node", path)
    return HostNode(path, kind, os.major(status.st_rdev), os.minor(status.st_rdev))


def by_ids(vendor: str = "", product: str = "", subsystem: str = "", sys: str = _SYS) -> list[HostNode]:
    """The nodes of every device that has these; an empty one matches any.

    Args:
        vendor, product: four hexadecimal digits, of the device or the nearest above it that has them (USB, PCI,
            virtio).
        subsystem: as the kernel names it: ``tty``, ``hidraw``, ``block`` ...
    """
    found = []
    for kind in ("char", "block"):
        top = f"{sys}/dev/{kind}"
        for entry in _listed(top):
            path = os.path.realpath(f"{top}/{entry}")
            if subsystem and _subsystem(path) != subsystem:
                continue
            if (vendor or product) and not _same(_ids(path, sys), (vendor, product)):
                continue
            if node := _node(path, kind[0], sys):
                found.append(node)
    return sorted(found)


def usb(
    vendor: str = "", product: str = "", serial: str = "", bus: str = "", number: str = "", sys: str = _SYS
) -> list[HostNode]:
    """The nodes of the USB devices that have these; an empty one matches any. `bus`, `number`: decimal."""
    found = []
    top = f"{sys}/bus/usb/devices"
    for entry in _listed(top):
        path = os.path.realpath(f"{top}/{entry}")
        if not os.path.exists(f"{path}/devnum"):
            continue  # an interface of a device
        if not _same((_read(f"{path}/idVendor"), _read(f"{path}/idProduct")), (vendor, product)):
            continue
        if serial and _read(f"{path}/serial") != serial:
            continue
        if any(
            want and int(want) != int(_read(f"{path}/{name}") or -1)
            for name, want in (("busnum", bus), ("devnum", number))
        ):
            continue
        if node := _node(path, "c", sys):
            found.append(node)
    return sorted(found)


def gpus(card: str = "", pci: str = "", vendor: str = "", product: str = "", sys: str = _SYS) -> list[HostNode]:
    """The nodes (card and render) of the graphics cards that have these; an empty one matches any.

    Args:
        card: the number in ``/dev/dri/cardN``.
        pci: the address ``0000:01:00.0``.
    """
    found = set()
    top = f"{sys}/class/drm"
    for entry in _listed(top):
        number = entry.removeprefix("card")
        if not (entry.startswith("card") and number.isdigit()) or (card and int(card) != int(number)):
            continue
        device = os.path.realpath(f"{top}/{entry}/device")
        if pci and os.path.basename(device) != pci:
            continue
        if not _same((_hex(f"{device}/vendor"), _hex(f"{device}/device")), (vendor, product)):
            continue
        for name in _listed(f"{device}/drm"):
            if node := _node(f"{device}/drm/{name}", "c", sys):
                found.add(node)
    return sorted(found)


def _node(path: str, kind: str, sys: str) -> HostNode | None:
    major, colon, minor = _read(f"{path}/dev").partition(":")
    event = _read(f"{path}/uevent")
    lines = (line.partition("=") for line in event.splitlines())
    name = next((value for key, _, value in lines if key == "DEVNAME"), "")
    if not colon or not name:
        return None
    event = f"DEVPATH={path.removeprefix(sys)}\nSUBSYSTEM={_subsystem(path)}\n{event}"
    return HostNode(name, kind, int(major), int(minor), event)


def _ids(path: str, sys: str) -> tuple[str, str]:
    """Vendor and product of a device, or of the nearest above it."""
    while path.startswith(f"{sys}/devices/"):
        if usb_vendor := _read(f"{path}/idVendor"):
            return usb_vendor, _read(f"{path}/idProduct")
        if vendor := _hex(f"{path}/vendor"):
            return vendor, _hex(f"{path}/device")
        path = os.path.dirname(path)
    return "", ""


def _same(found: tuple[str, str], wanted: tuple[str, str]) -> bool:
    return all(not want or want.lower() == have.lower() for have, want in zip(found, wanted, strict=True))


def _hex(path: str) -> str:
    """The four digits of ``0x1af4``; empty when it is no such number."""
    text = _read(path)
    try:
        return f"{int(text, 16):04x}" if text.startswith("0x") else ""
    except ValueError:
        return ""


def _subsystem(path: str) -> str:
    try:
        return os.path.basename(os.readlink(f"{path}/subsystem"))
    except OSError:
        return ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []

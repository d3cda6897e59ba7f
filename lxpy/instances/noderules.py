"""What may be written on devices that are device nodes of the host: unix-char, unix-block, unix-hotplug, usb, gpu."""

import posixpath
import re

from lxpy.api import values
from lxpy.api.errors import BadRequest

_OWNER = frozenset({"type", "uid", "gid", "mode"})
KEYS = {
    "unix-char": _OWNER | {"source", "path", "major", "minor", "required"},
    "unix-block": _OWNER | {"source", "path", "major", "minor", "required"},
    "unix-hotplug": _OWNER | {"vendorid", "productid", "subsystem", "required"},
    "usb": _OWNER | {"vendorid", "productid", "serial", "busnum", "devnum", "required"},
    "gpu": _OWNER | {"gputype", "id", "pci", "vendorid", "productid"},
}
# LXD has these types; why they are refused here.
REFUSED = {
    "tpm": "lxpy runs no software TPM; give a real one by type=unix-char source=/dev/tpmrm0",
    "pci": "it is for virtual machines; a container gets the node of its driver by unix-char, unix-block or gpu",
    "infiniband": "lxpy does not manage InfiniBand; give an IPoIB interface by type=nic nictype=physical",
}
_GPU_REFUSED = {
    "mdev": "it is for virtual machines",
    "mig.ci": "lxpy does not manage NVIDIA's MIG; use gputype=physical",
    "mig.gi": "lxpy does not manage NVIDIA's MIG; use gputype=physical",
    "mig.uuid": "lxpy does not manage NVIDIA's MIG; use gputype=physical",
}
_GPUTYPES = {
    "mdev": "it is for virtual machines",
    "mig": "lxpy does not manage NVIDIA's MIG; use gputype=physical",
    "sriov": "lxpy does not manage SR-IOV cards; give a virtual function by gputype=physical pci=ADDRESS",
}
_PCI = re.compile(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\Z")
_MOST = {"uid": 0xFFFFFFFE, "gid": 0xFFFFFFFE, "major": 0xFFF, "minor": 0xFFFFF, "busnum": 255, "devnum": 255}


def refused_keys(where: str, device: dict[str, str]) -> None:
    """Raises `BadRequest` for a key of LXD's that is known and not honoured."""
    if device["type"] == "gpu":
        for key, why in _GPU_REFUSED.items():
            if key in device:
                raise BadRequest(f"{key} on {where} is not supported: {why}")


def check(where: str, device: dict[str, str]) -> None:
    """Raises `BadRequest` for a value that cannot be honoured; that the keys are known has been checked."""
    kind = device["type"]
    for key, most in _MOST.items():
        value = device.get(key, "")
        if value and not (value.isascii() and value.isdigit() and len(value) < 12 and int(value) <= most):
            raise BadRequest(f"Invalid {key} {value!r} on {where}: a whole number up to {most}")
    if (mode := device.get("mode", "")) and not re.fullmatch(r"0?[0-7]{3}", mode):
        raise BadRequest(f"Invalid mode {mode!r} on {where}: three octal digits such as 0660")
    for key in ("vendorid", "productid"):
        if (value := device.get(key, "")) and not re.fullmatch(r"[0-9a-fA-F]{4}", value):
            raise BadRequest(f"Invalid {key} {value!r} on {where}: four hexadecimal digits such as 1d6b")
    if "required" in device:
        values.boolean(f"required on {where}", device["required"])
    if kind in ("unix-char", "unix-block"):
        _check_unix(where, device)
    elif kind == "unix-hotplug":
        if not any(device.get(key) for key in ("vendorid", "productid", "subsystem")):
            raise BadRequest(f"Missing vendorid, productid or subsystem on {where}: it would be every device there is")
        if (name := device.get("subsystem", "")) and not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise BadRequest(f"Invalid subsystem {name!r} on {where}: the kernel's name, such as tty or hidraw")
    elif kind == "gpu":
        _check_gpu(where, device)


def _check_unix(where: str, device: dict[str, str]) -> None:
    if not device.get("source") and not device.get("path"):
        raise BadRequest(f"Missing source or path on {where}: the host's node, such as /dev/ttyUSB0")
    for key in ("source", "path"):
        value = device.get(key, "")
        if value and (not value.startswith("/") or ".." in value.split("/") or "\0" in value or not value.strip("/")):
            raise BadRequest(f"Invalid {key} {value!r} on {where}: an absolute path without ..")
        if len(value) > 1024:
            raise BadRequest(f"Invalid {key} on {where}: longer than 1024 characters")
    if bool(device.get("major")) != bool(device.get("minor")):
        raise BadRequest(f"Give both major and minor on {where}, or neither")


def _check_gpu(where: str, device: dict[str, str]) -> None:
    kind = device.get("gputype", "physical")
    if kind != "physical":
        raise BadRequest(f"gputype={kind} on {where} is not supported: {_GPUTYPES.get(kind, 'use physical')}")
    if (number := device.get("id", "")) and not re.fullmatch(r"[0-9]{1,3}", number):
        raise BadRequest(f"Invalid id {number!r} on {where}: the number of a card, as in /dev/dri/card0")
    if (pci := device.get("pci", "")) and not _PCI.match(pci):
        raise BadRequest(f"Invalid pci {pci!r} on {where}: an address such as 0000:01:00.0")
    both = [key for key in ("pci", "vendorid", "productid") if device.get(key)]
    if device.get("id") and both:
        raise BadRequest(f"Both id and {both[0]} on {where}: give one of them")
    if device.get("pci") and (device.get("vendorid") or device.get("productid")):
        raise BadRequest(f"Both pci and vendorid or productid on {where}: give one of them")


def source(device: dict[str, str]) -> str:
    """The host's node of a unix-char or unix-block."""
    return posixpath.normpath(device.get("source") or device["path"])


def path(device: dict[str, str]) -> str:
    """Where that is to be in the instance."""
    return posixpath.normpath(device.get("path") or device["source"])


def required(device: dict[str, str]) -> bool:
    """Whether an instance without it does not start."""
    default = {"unix-hotplug": "false", "usb": "false"}.get(device["type"], "true")
    return values.boolean("required", device.get("required") or default)

"""The devices that may be added, with the questions about each: what the dialogs of devices are made of. No Textual."""

import shlex
from collections.abc import Mapping
from typing import NamedTuple

from lxpy.api.errors import ApiError

Device = dict[str, str]


class Asked(NamedTuple):
    """One question about a device.

    Attributes:
        key: of the device; `label` and `hint` as in a form; `value` is the answer at first.
        choices: the only answers; ``networks`` and ``pools`` stand for those that there are.
        flag: whether it is a box to tick, which gives ``true``.
    """

    key: str
    label: str
    hint: str = ""
    value: str = ""
    choices: tuple[str, ...] = ()
    flag: bool = False


class Guide(NamedTuple):
    """One kind of device.

    Attributes:
        label, about: as the menu shows it.
        name: what the device is called at first.
        fixed: the keys that make it that kind.
        asked: the questions.
        entity: whose keys `Rules.keys` explains.
    """

    label: str
    about: str
    name: str
    fixed: Mapping[str, str]
    asked: tuple[Asked, ...]
    entity: str


NETWORKS, POOLS = ("networks",), ("pools",)
_INSIDE = Asked("path", "Inside", "where it is in the instance, such as /srv/data")
_READONLY = Asked("readonly", "Read-only", "nobody inside can write", flag=True)
_NAME = Asked("name", "Inside", "name of the interface there, such as eth1; left empty: the next one")
_PARENT = Asked("parent", "Interface", "of the host, such as eno1")
_SOURCE = Asked("source", "Node", "of the host, such as /dev/ttyUSB0")
_MODE = (Asked("gid", "Group", "inside; left empty: root"), Asked("mode", "Mode", "inside; left empty: 0660"))
_VENDOR = Asked("vendorid", "Vendor", "four hexadecimal digits, as lsusb shows them")
_PRODUCT = Asked("productid", "Product", "four hexadecimal digits")

GUIDES: tuple[Guide, ...] = (
    Guide("share", "a directory or file of the host", "share", {"type": "disk"}, (
        Asked("source", "Host path", "such as /home/me/project"), _INSIDE,
        Asked("owner", "Owner", "as whose it appears inside; left empty: every id as it is", "0"), _READONLY,
    ), "device-disk"),
    Guide("volume", "a storage volume of a pool", "data", {"type": "disk"}, (
        Asked("pool", "Pool", choices=POOLS), Asked("source", "Volume", "its name"), _INSIDE, _READONLY,
    ), "device-disk"),
    Guide("proxy", "a port or socket, led in or out", "web", {"type": "proxy"}, (
        Asked("listen", "Listen", "tcp:0.0.0.0:8080, udp:…, unix:/PATH"), Asked("connect", "Lead to",
                                                                               "tcp:127.0.0.1:80, udp:…, unix:/PATH"),
        Asked("bind", "Listen at", choices=("host", "instance")),
    ), "device-proxy"),
    Guide("nic", "a network card of a managed network", "eth1", {"type": "nic"}, (
        Asked("network", "Network", choices=NETWORKS), _NAME,
        Asked("ipv4.address", "IPv4", "a fixed address; left empty: by DHCP"),
    ), "device-nic-bridged"),
    Guide("macvlan", "a card beside the host's on its network", "lan", {"type": "nic", "nictype": "macvlan"},
          (_PARENT, _NAME), "device-nic-macvlan"),
    Guide("physical", "an interface of the host itself", "card", {"type": "nic", "nictype": "physical"},
          (_PARENT, _NAME), "device-nic-physical"),
    Guide("routed", "addresses that the host routes", "single", {"type": "nic", "nictype": "routed"}, (
        Asked("ipv4.address", "IPv4", "its addresses, with commas"),
        Asked("parent", "Interface", "of the host that answers for them; left empty: none"), _NAME,
    ), "device-nic-routed"),
    Guide("p2p", "a cable between host and instance", "cable", {"type": "nic", "nictype": "p2p"}, (
        Asked("host_name", "Host end", "its name; left empty: chosen"), _NAME,
    ), "device-nic-p2p"),
    Guide("unix-char", "a device node of the host", "serial", {"type": "unix-char"}, (
        _SOURCE, Asked("path", "Inside", "left empty: the same"), *_MODE,
    ), "device-unix-char"),
    Guide("unix-block", "a block device of the host", "blocks", {"type": "unix-block"}, (
        _SOURCE, Asked("path", "Inside", "left empty: the same"), *_MODE,
    ), "device-unix-block"),
    Guide("unix-hotplug", "nodes of what is plugged in", "plugged", {"type": "unix-hotplug"}, (
        Asked("subsystem", "Kind", "the kernel's name: tty, hidraw, video4linux"), _VENDOR, _PRODUCT,
    ), "device-unix-hotplug"),
    Guide("usb", "USB devices, while they are there", "usb", {"type": "usb"}, (
        _VENDOR, _PRODUCT, Asked("serial", "Serial", "left empty: any"), *_MODE,
    ), "device-usb"),
    Guide("gpu", "graphics cards", "gpu", {"type": "gpu"}, (
        Asked("id", "Card", "the N of /dev/dri/cardN; left empty: all"), Asked("pci", "Address", "or 0000:01:00.0"),
        *_MODE,
    ), "device-gpu"),
)  # fmt: skip
BY_LABEL = {guide.label: guide for guide in GUIDES}


def entity(device: Mapping[str, str]) -> str:
    """Whose keys `Rules.keys` explains for a device."""
    kind = device.get("type", "")
    return f"device-{kind}" + (f"-{device.get('nictype') or 'bridged'}" if kind == "nic" else "")


def free_name(wanted: str, taken: Mapping[str, object]) -> str:
    """`wanted`, or with another number where there is such a device."""
    stem = wanted.rstrip("0123456789")
    number = int(wanted[len(stem) :] or 1)
    while wanted in taken:
        number += 1
        wanted = f"{stem}{number}"
    return wanted


def device(guide: Guide, answers: Mapping[str, str]) -> Device:
    """What the answers come to, ``more`` among them.

    Raises:
        ApiError: a word of ``more`` is no ``key=value``.
    """
    found = dict(guide.fixed)
    for one in guide.asked:
        if value := answers.get(one.key, ""):
            found[one.key] = "true" if one.flag else value
    if found.get("bind") == "host":
        del found["bind"]  # it is the default
    return found | pairs(answers.get("more", ""))


def pairs(text: str) -> dict[str, str]:
    """``key=value key="two words"`` as a set. Raises `ApiError`."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise ApiError(f"{text!r}: a quotation mark is missing") from None
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise ApiError(f"{word!r} is not key=value")
        found[key] = value
    return found


def words(found: Mapping[str, str]) -> list[str]:
    """``key=value`` words, the type left out."""
    return [f"{key}={value}" for key, value in found.items() if key != "type"]

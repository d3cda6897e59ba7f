"""The questions of the first set-up, once, as data: the command line asks them, and so can any other face.

`QUESTIONS` come in order; one is asked when its `asked` says so of the answers before it. `preseed` makes of the
answers the document that ``lxpy init --preseed`` takes. Wording and order follow ``lxd init``.
"""

from __future__ import annotations

import contextlib
import os
import stat

from lxpy.api import values
from lxpy.api.errors import BadRequest, NotFound
from lxpy.api.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxpy.client.client import Client

    Document = dict[str, Any]

Answers = dict[str, str]
_GIB = 1 << 30

# Storage drivers, best first, and a word on each.
DRIVERS = {
    "btrfs": "subvolumes with snapshots and sizes, in a file, a disk or a btrfs directory",
    "overlay": "launches in milliseconds on any file system; a pool is a directory",
    "dir": "plain copies, slow but simple; a pool is a directory",
}


class Facts:
    """What the server says before the first question.

    Attributes:
        drivers: storage drivers usable there, best first.
        pools, networks: names that are there; `networks` are the managed ones, `interfaces` all of the host.
        bridges: interfaces of the host that are bridges and not ours.
        devices: of the default profile.
        config: the server's configuration.
        low: how many of the host's limits could be raised; 0 where that is not ours to do.
        free: bytes free where pools go, 0 when not known.
        local: whether its files can be looked at from here.
    """

    def __init__(self) -> None:
        self.drivers: list[str] = []
        self.pools: list[str] = []
        self.networks: list[str] = []
        self.interfaces: list[str] = []
        self.bridges: list[str] = []
        self.devices: dict[str, dict[str, str]] = {}
        self.config: dict[str, str] = {}
        self.low = 0
        self.free = 0
        self.local = False


def facts(client: Client) -> Facts:
    """Asks the server; four requests."""
    found = Facts()
    server = client.get("/1.0")
    usable = [str(one["Name"]) for one in server["environment"].get("storage_supported_drivers") or []]
    # A driver that keeps whole pools as directories is the better default on a host's own file system.
    order = ["overlay", "btrfs", "dir"]
    found.drivers = sorted(usable, key=lambda name: order.index(name) if name in order else len(order))
    found.config = server.get("config") or {}
    found.pools = [one["name"] for one in client.get("/1.0/storage-pools", recursion="1")]
    networks = client.get("/1.0/networks", recursion="1")
    found.networks = [one["name"] for one in networks if one["managed"]]
    found.interfaces = [one["name"] for one in networks]
    found.bridges = [one["name"] for one in networks if one["type"] == "bridge" and not one["managed"]]
    if client.local:
        found.local = os.geteuid() == 0
        with contextlib.suppress(OSError):
            space = os.statvfs(Layout().root)
            found.free = space.f_bavail * space.f_frsize
    try:
        found.devices = client.get("/1.0/profiles/default")["devices"]
    except NotFound:
        pass
    return found


class Question:
    """One question.

    Args:
        id: the key of its answer.
        text: without the default and the question mark's brackets.
        explain: what ``?`` shows.
        default: of the answers so far.
        check: the answer as it is kept; raises `BadRequest` with what is wrong.
        asked: whether it is asked at all.
        choices: names and a word on each, for a choice; yes/no questions have none.
        boolean: answered by yes or no.
    """

    def __init__(
        self,
        id: str,
        text: str,
        explain: str,
        default: Callable[[Answers, Facts], str],
        check: Callable[[str, Answers, Facts], str] | None = None,
        asked: Callable[[Answers, Facts], bool] = lambda answers, facts: True,
        choices: Callable[[Facts], dict[str, str]] | None = None,
    ) -> None:
        self.id, self.text, self.explain = id, text, explain
        self.default, self.asked, self.choices = default, asked, choices
        self.boolean = check is None and choices is None
        self._check = check

    def check(self, answer: str, answers: Answers, facts: Facts) -> str:
        """The answer as it is kept ("yes" and "no" for booleans). Raises `BadRequest`."""
        if self.boolean:
            word = answer.strip().lower()
            if word in ("y", "yes", "true", "1"):
                return "yes"
            if word in ("n", "no", "false", "0"):
                return "no"
            raise BadRequest(f"{answer!r} is neither yes nor no")
        if self.choices is not None:
            offered = self.choices(facts)
            if answer not in offered:
                raise BadRequest(f"{answer!r} is none of {', '.join(offered)}")
            return answer
        assert self._check is not None
        return self._check(answer, answers, facts)


def _yes(condition: bool) -> str:
    return "yes" if condition else "no"


def free_name(base: str, taken: list[str]) -> str:
    """`base`, or with the lowest number behind it that is free."""
    number, name = 1, base
    while name in taken:
        number += 1
        name = f"{base.rstrip('0123456789')}{number}"
    return name


def free_bridge(taken: list[str]) -> str:
    """The first of lxpybr0, lxpybr1, ... that is no interface yet."""
    number = 0
    while f"lxpybr{number}" in taken:
        number += 1
    return f"lxpybr{number}"


def _pool_name(answer: str, answers: Answers, facts: Facts) -> str:
    if answer in facts.pools:
        raise BadRequest(f"A storage pool {answer!r} exists already: choose another name")
    return values.object_name("storage pool", answer)


def _bridge_name(answer: str, answers: Answers, facts: Facts) -> str:
    if answer in facts.interfaces:
        raise BadRequest(f"An interface {answer!r} exists already: choose another name")
    import re

    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,14}", answer):
        raise BadRequest(f"{answer!r} is no interface name: 2 to 15 letters, digits, dots, dashes and underscores")
    return answer


def _existing_bridge(answer: str, answers: Answers, facts: Facts) -> str:
    if answer not in facts.bridges:
        known = f"there are {', '.join(facts.bridges)}" if facts.bridges else "this host has none"
        raise BadRequest(f"{answer!r} is no bridge of this host: {known}")
    return answer


def _path(answer: str, answers: Answers, facts: Facts) -> str:
    if answer == "none":
        return answer
    if not answer.startswith("/"):
        raise BadRequest(f"{answer!r} is no absolute path: type one, or none")
    if facts.local and not os.path.isdir(answer):
        raise BadRequest(f"There is no directory {answer}: make it first, or type none")
    if facts.local and set(os.listdir(answer)) - {"lost+found"}:
        raise BadRequest(f"{answer} is not empty: name an empty directory, or none")
    return answer


def _device(answer: str, answers: Answers, facts: Facts) -> str:
    if not answer.startswith("/"):
        raise BadRequest(f"{answer!r} is no path of a block device, such as /dev/sdb or /dev/disk/by-id/...")
    if facts.local:
        try:
            kind = os.stat(answer).st_mode
        except OSError as error:
            raise BadRequest(f"{answer}: {error.strerror}") from None
        if not stat.S_ISBLK(kind):
            raise BadRequest(f"{answer} is no block device (lsblk shows those of this host)")
    return answer


def _gib(answer: str, answers: Answers, facts: Facts) -> str:
    word = answer.lower().removesuffix("gib").removesuffix("gb").strip()
    if not word.isdigit() or int(word) < 1:
        raise BadRequest(f"{answer!r} is no whole number of GiB of at least 1")
    if facts.free and int(word) * _GIB > facts.free:
        raise BadRequest(f"{word}GiB is more than the {values.human_bytes(facts.free)} that are free")
    return word


def _default_gib(answers: Answers, facts: Facts) -> str:
    # LXD's rule: a fifth of what is free, between 5 and 30 GiB.
    return str(max(5, min(30, facts.free // 5 // _GIB))) if facts.free else "30"


def _address(answer: str, answers: Answers, facts: Facts) -> str:
    if answer in ("all", "0.0.0.0", "::", "[::]"):
        return "all"
    import ipaddress

    try:
        return str(ipaddress.ip_address(answer.strip("[]")))
    except ValueError:
        raise BadRequest(f"{answer!r} is no IP address: type one of this host's, or all") from None


def _port(answer: str, answers: Answers, facts: Facts) -> str:
    if not answer.isdigit() or not 1 <= int(answer) <= 65535:
        raise BadRequest(f"{answer!r} is no port: 1 to 65535")
    return str(int(answer))


def _subnet(version: int) -> Callable[[str, Answers, Facts], str]:
    def check(answer: str, answers: Answers, facts: Facts) -> str:
        if answer in ("auto", "none"):
            return answer
        import ipaddress

        example = "10.98.7.1/24" if version == 4 else "fd42:1:2:3::1/64"
        try:
            found = ipaddress.ip_interface(answer)
        except ValueError:
            raise BadRequest(f"{answer!r} is no address with prefix (such as {example}), auto or none") from None
        if found.version != version or "/" not in answer or found.ip == found.network.network_address:
            raise BadRequest(f"{answer!r} is not the bridge's own IPv{version} address with prefix, such as {example}")
        return answer

    return check


def _yes_to(key: str) -> Callable[[Answers, Facts], bool]:
    return lambda answers, facts: answers.get(key) == "yes"


def _own_subnet(version: int) -> Callable[[Answers, Facts], bool]:
    return lambda answers, facts: answers.get(f"bridge.ipv{version}", "none") not in ("auto", "none")


def _loop(answers: Answers) -> bool:
    return answers.get("pool.driver") == "btrfs" and answers["pool.device"] == "no" and answers["pool.path"] == "none"


QUESTIONS: tuple[Question, ...] = (
    Question(
        "pool", "Do you want to configure a new storage pool?",
        "A storage pool holds the file systems of instances, images and volumes. One is enough to begin with.",
        lambda answers, facts: _yes(not facts.pools),
    ),
    Question(
        "pool.name", "Name of the new storage pool",
        "How it is called in -s POOL and in disk devices.",
        lambda answers, facts: free_name("default", facts.pools), _pool_name, _yes_to("pool"),
    ),
    Question(
        "pool.driver", "Name of the storage backend to use",
        "How the pool keeps its file systems. It cannot be changed later, but a second pool can be added.",
        lambda answers, facts: facts.drivers[0], None, _yes_to("pool"),
        lambda facts: {name: DRIVERS.get(name, "") for name in facts.drivers},
    ),
    Question(
        "pool.device", "Would you like to use an existing empty block device (e.g. a disk or partition)?",
        "The whole device becomes the pool; what it holds is lost. Otherwise the pool lies in a directory or a file.",
        lambda answers, facts: "no", None,
        lambda answers, facts: answers.get("pool.driver") == "btrfs",
    ),
    Question(
        "pool.source", "Path to the existing block device",
        "Such as /dev/sdb; a name below /dev/disk/by-id stays the same after a reboot.",
        lambda answers, facts: "", _device, _yes_to("pool.device"),
    ),
    Question(
        "pool.path", "Path of an existing empty directory for it, or none for a place of lxpy's own",
        "A directory on another file system, for example. btrfs wants one that lies on btrfs; with none it makes a "
        "file of a fixed size that holds a file system.",
        lambda answers, facts: "none", _path,
        lambda answers, facts: answers["pool"] == "yes" and answers.get("pool.device") != "yes",
    ),
    Question(
        "pool.size", "Size in GiB of the new loop device (1GiB minimum)",
        "The file grows with its content up to this size; it can be made larger later.",
        _default_gib, _gib, lambda answers, facts: _loop(answers) if answers["pool"] == "yes" else False,
    ),
    Question(
        "https", "Would you like the server to be available over the network?",
        "Other machines may then manage this one, once you trust their certificate (lxpy config trust).",
        lambda answers, facts: _yes(bool(facts.config.get("core.https_address"))),
    ),
    Question(
        "https.address", "Address to bind to (not including port)",
        "An address of this host, or all for every one of them.",
        lambda answers, facts: "all", _address, _yes_to("https"),
    ),
    Question(
        "https.port", "Port to bind to", "8443 is what clients expect.",
        lambda answers, facts: "8443", _port, _yes_to("https"),
    ),
    Question(
        "bridge", "Would you like to create a new local network bridge?",
        "Instances on it get addresses and names, and reach the network through this host.",
        lambda answers, facts: _yes(not facts.networks),
    ),
    Question(
        "bridge.name", "What should the new bridge be called?", "The name of an interface of this host.",
        lambda answers, facts: free_bridge(facts.interfaces), _bridge_name, _yes_to("bridge"),
    ),
    Question(
        "bridge.ipv4", "What IPv4 address should be used? (CIDR subnet notation, auto or none)",
        "The bridge's own address with the size of its subnet: 10.98.7.1/24. auto finds a subnet that no route of this "
        "host overlaps, without sending a packet.",
        lambda answers, facts: "auto", _subnet(4), _yes_to("bridge"),
    ),
    Question(
        "bridge.ipv4.nat", "Would you like to NAT IPv4 traffic on your bridge?",
        "Instances then use this host's address outside. Without it your router must know the subnet.",
        lambda answers, facts: "yes", None, _own_subnet(4),
    ),
    Question(
        "bridge.ipv6", "What IPv6 address should be used? (CIDR subnet notation, auto or none)",
        "As for IPv4: fd42:1:2:3::1/64. auto takes a random private /64.",
        lambda answers, facts: "auto", _subnet(6), _yes_to("bridge"),
    ),
    Question(
        "bridge.ipv6.nat", "Would you like to NAT IPv6 traffic on your bridge?",
        "Instances then use this host's address outside. Without it your router must know the subnet.",
        lambda answers, facts: "yes", None, _own_subnet(6),
    ),
    Question(
        "host_bridge", "Would you like to use an existing bridge of this host?",
        "Instances then get their addresses from whoever serves that network.",
        lambda answers, facts: "no", None,
        lambda answers, facts: answers["bridge"] == "no" and not facts.networks and bool(facts.bridges),
    ),
    Question(
        "host_bridge.name", "Name of the existing bridge", "One of the host's bridges.",
        lambda answers, facts: facts.bridges[0], _existing_bridge, _yes_to("host_bridge"),
    ),
    Question(
        "images", "Would you like stale cached images to be updated automatically?",
        "Images that a launch has fetched are kept up to date with their server; instances that exist do not change.",
        lambda answers, facts: _yes(facts.config.get("images.auto_update_cached", "true") == "true"),
    ),
    Question(
        "sysctls", "Would you like the host's limits to be raised for many containers?",
        "Inotify instances, kernel keys, process ids and others run out after some ten containers of a full system. "
        "They are only ever raised; lxpy doctor shows them, and uninstalling puts them back.",
        lambda answers, facts: "yes", None, lambda answers, facts: facts.low > 0,
    ),
    Question(
        "print", "Would you like a YAML \"lxpy init\" preseed to be printed?",
        "The same set-up for another machine: lxpy init --preseed FILE.",
        lambda answers, facts: "no",
    ),
)  # fmt: skip


def preseed(answers: Answers, facts: Facts) -> Document:
    """What the answers ask for, as ``init --preseed`` takes it."""
    document: Document = {"config": {}, "networks": [], "storage_pools": [], "profiles": [], "projects": []}
    devices: dict[str, dict[str, str]] = {name: dict(device) for name, device in facts.devices.items()}
    if answers["pool"] == "yes":
        config: dict[str, str] = {}
        if answers.get("pool.device") == "yes":
            config["source"] = answers["pool.source"]
        elif answers.get("pool.path", "none") != "none":
            config["source"] = answers["pool.path"]
        elif "pool.size" in answers:
            config["size"] = f"{answers['pool.size']}GiB"
        name = answers["pool.name"]
        document["storage_pools"].append({"name": name, "driver": answers["pool.driver"], "config": config})
    pool = answers.get("pool.name") or ("default" if "default" in facts.pools else "".join(facts.pools[:1]))
    if pool and not any(one.get("type") == "disk" and one.get("path") == "/" for one in devices.values()):
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    if answers["https"] == "yes":
        address = answers["https.address"]
        host = "" if address == "all" else f"[{address}]" if ":" in address else address
        document["config"]["core.https_address"] = f"{host}:{answers['https.port']}"
    elif facts.config.get("core.https_address"):
        document["config"]["core.https_address"] = ""
    if answers["bridge"] == "yes":
        config = {}
        for family in ("ipv4", "ipv6"):
            config[f"{family}.address"] = answers[f"bridge.{family}"]
            if f"bridge.{family}.nat" in answers:
                config[f"{family}.nat"] = "true" if answers[f"bridge.{family}.nat"] == "yes" else "false"
        document["networks"].append({"name": answers["bridge.name"], "type": "bridge", "config": config})
    if not any(one.get("type") == "nic" for one in devices.values()):
        network = answers.get("bridge.name") or "".join(facts.networks[:1])
        if network:
            devices["eth0"] = {"type": "nic", "name": "eth0", "network": network}
        elif answers.get("host_bridge") == "yes":
            devices["eth0"] = {
                "type": "nic", "name": "eth0", "nictype": "bridged", "parent": answers["host_bridge.name"],
            }  # fmt: skip
    if (answers["images"] == "yes") != (facts.config.get("images.auto_update_cached", "true") == "true"):
        document["config"]["images.auto_update_cached"] = "true" if answers["images"] == "yes" else "false"
    if devices != facts.devices:
        document["profiles"].append({"name": "default", "devices": devices})
    return document

"""What the keys of devices are for, for ``GET /1.0/metadata/configuration``; the rules are in `devices` and beside it.

`DEVICES` has the types under LXD's names: of a nic by its nictype. ``type`` and ``nictype`` themselves are left out.
"""

from lxpy.api.keytexts import Key
from lxpy.linux.links import MACVLAN_MODES

_NAME = {
    "boot.priority": Key("integer", "Nics with a higher number are connected first", "0"),
    "hwaddr": Key("string", "MAC address", "chosen once"),
    "mtu": Key("integer", "MTU in bytes", "the parent's"),
    "name": Key("string", "Name of the interface inside", "eth0, eth1 …"),
}  # fmt: skip
_CABLE = _NAME | {
    "host_name": Key("string", "Name of the host's end", "chosen at each start"),
    "limits.egress": Key("string", "What the guest may send: 512kbit, 100Mbit, 1Gbit", "no limit"),
    "limits.ingress": Key("string", "What the guest gets: 512kbit, 100Mbit, 1Gbit", "no limit"),
    "limits.max": Key("string", "Both directions at once: 100Mbit", "no limit"),
    "limits.priority": Key("integer", "Priority in the host's queues of what it sends, 0 to 65535", "0"),
    "queue.tx.length": Key("integer", "Packets in the transmit queue of the host's end"),
    "ipv4.routes": Key("string", "IPv4 subnets that the host routes to it, separated by commas"),
    "ipv6.routes": Key("string", "IPv6 subnets that the host routes to it, separated by commas"),
}  # fmt: skip
_VLAN = {"vlan": Key("integer", "A VLAN of the parent, made where it is missing")}
_PARENT = {"parent": Key("string", "The interface of the host")}
_ACTION = ("allow", "reject", "drop")
_BRIDGED = _CABLE | {
    "network": Key("string", "The managed network it is plugged into"),
    "parent": Key("string", "Instead of network: a bridge of the host's own, with nictype=bridged"),
    "ipv4.address": Key("string", "A fixed IPv4 address from the network's DHCP, or none", "from DHCP"),
    "ipv6.address": Key("string", "A fixed IPv6 address from the network's DHCP, or none", "from the network"),
    "security.acls": Key("string", "Network ACLs, separated by commas"),
    "security.acls.default.egress.action": Key("string", "What becomes of sent traffic no rule names", "reject",
                                               _ACTION),
    "security.acls.default.egress.logged": Key("bool", "Log that", "false"),
    "security.acls.default.ingress.action": Key("string", "What becomes of traffic to it that no rule names", "reject",
                                                _ACTION),
    "security.acls.default.ingress.logged": Key("bool", "Log that", "false"),
    "security.ipv4_filtering": Key("bool", "Drop other IPv4 source addresses than ipv4.address", "false"),
    "security.ipv6_filtering": Key("bool", "Drop other IPv6 source addresses than ipv6.address", "false"),
    "security.mac_filtering": Key("bool", "Drop frames with another MAC address than its own", "false"),
    "security.port_isolation": Key("bool", "Reach the host, and no other isolated nic of the bridge", "false"),
    "vlan": Key("string", "The VLAN of what has no tag, or none"),
    "vlan.tagged": Key("string", "VLANs it may tag: 5,10-12"),
}  # fmt: skip
_ROUTED = _CABLE | {
    "parent": Key("string", "The interface of the host that answers for its addresses"),
    "ipv4.address": Key("string", "Its IPv4 addresses, separated by commas"),
    "ipv6.address": Key("string", "Its IPv6 addresses, separated by commas"),
    "ipv4.gateway": Key("string", "Whether it gets a default route", "auto", ("auto", "none")),
    "ipv6.gateway": Key("string", "Whether it gets a default route", "auto", ("auto", "none")),
    "ipv4.host_address": Key("string", "The host's address on the cable", "169.254.0.1"),
    "ipv6.host_address": Key("string", "The host's address on the cable", "fe80::1"),
}  # fmt: skip
_RATE = "such as 20MB, 1MiB or 500iops, per second"
_DISK = {
    "limits.max": Key("string", f"Reads and writes at most, {_RATE}", "no limit"),
    "limits.read": Key("string", f"Reads at most, {_RATE}", "no limit"),
    "limits.write": Key("string", f"Writes at most, {_RATE}", "no limit"),
    "owner": Key("string", "UID[:GID]: as whose the files of the source's owner appear inside"),
    "path": Key("string", "Where it is inside; made when it is missing"),
    "pool": Key("string", "The pool of the volume that source names; of a root disk, where it lies"),
    "propagation": Key("string", "Whether what the host mounts below later appears inside", "private",
                       ("private", "rprivate", "slave", "rslave")),
    "raw.mount.options": Key("string", "Of ro, nosuid, nodev, noexec, separated by commas"),
    "readonly": Key("bool", "Nobody inside can write", "false"),
    "recursive": Key("bool", "With what is mounted below the host's directory", "false"),
    "required": Key("bool", "Not to start without it", "true"),
    "shift": Key("bool", "false: owners as the host's numbers say", "true"),
    "size": Key("string", "Of a root disk: what it may hold, where the pool can limit it", "no limit"),
    "source": Key("string", "A directory or file of the host, or with pool a volume's name"),
}  # fmt: skip
_OWNER = {
    "gid": Key("integer", "Its group inside", "0"),
    "mode": Key("string", "Its mode inside", "0660"),
    "uid": Key("integer", "Its owner inside", "0"),
}  # fmt: skip
_UNIX = _OWNER | {
    "major": Key("integer", "Its number, where the host has no node of it"),
    "minor": Key("integer", "Its number, where the host has no node of it"),
    "path": Key("string", "Where it is inside", "as source"),
    "required": Key("bool", "false: start without it, and get it as soon as the host has it", "true"),
    "source": Key("string", "The host's node, such as /dev/ttyUSB0", "as path"),
}  # fmt: skip
_WHICH = {
    "productid": Key("string", "Four hexadecimal digits, as lsusb and lspci -n show them"),
    "vendorid": Key("string", "Four hexadecimal digits, as lsusb and lspci -n show them"),
}  # fmt: skip
_PRESENT = {"required": Key("bool", "Not to start while the host has none", "false")}
_PROXY = {
    "bind": Key("string", "Where it listens", "host", ("host", "instance")),
    "connect": Key("string", "Where it leads: tcp:127.0.0.1:80, udp:IP:PORT or unix:/PATH"),
    "gid": Key("integer", "Group of the unix socket that is listened on", "0"),
    "listen": Key("string", "Where it listens: tcp:0.0.0.0:8080, udp:IP:PORTS, unix:/PATH or unix:@NAME"),
    "mode": Key("string", "Mode of the unix socket that is listened on", "0644"),
    "nat": Key("bool", "The kernel leads packets on, without a process; the nic needs a fixed address", "false"),
    "proxy_protocol": Key("bool", "First tell the server who connects, in HAProxy's PROXY protocol", "false"),
    "security.gid": Key("integer", "The group it connects as", "0"),
    "security.uid": Key("integer", "The user it connects as", "0"),
    "uid": Key("integer", "Owner of the unix socket that is listened on", "0"),
}  # fmt: skip

DEVICES: dict[str, dict[str, Key]] = {
    "disk": _DISK,
    "gpu": _OWNER | _WHICH | {
        "gputype": Key("string", "Kind of card", "physical", ("physical",)),
        "id": Key("integer", "The N of /dev/dri/cardN", "all cards"),
        "pci": Key("string", "The card's address, such as 0000:01:00.0"),
    },
    "nic-bridged": _BRIDGED,
    "nic-macvlan": _NAME | _PARENT | _VLAN | {"mode": Key("string", "How it talks to others of the parent", "bridge",
                                                          tuple(MACVLAN_MODES))},
    "nic-p2p": _CABLE,
    "nic-physical": _NAME | _PARENT | _VLAN,
    "nic-routed": _ROUTED,
    "none": {},
    "proxy": _PROXY,
    "unix-block": _UNIX,
    "unix-char": _UNIX,
    "unix-hotplug": _OWNER | _WHICH | _PRESENT | {
        "subsystem": Key("string", "The kernel's name of its kind: tty, hidraw, video4linux, block …"),
    },
    "usb": _OWNER | _WHICH | _PRESENT | {
        "busnum": Key("integer", "The bus it is at"),
        "devnum": Key("integer", "Its number at the bus"),
        "serial": Key("string", "Its serial number"),
    },
}  # fmt: skip

"""What the configuration keys of projects are for, for ``GET /1.0/metadata/configuration``; the rules: `rules`."""

from lxpy.api.keytexts import Key
from lxpy.projects.rules import RESTRICTIONS

FEATURES: dict[str, Key] = {
    "features.images": Key("bool", "Images of its own; otherwise those of default", "true"),
    "features.networks": Key("bool", "Always false but in default: networks are the server's", "false"),
    "features.networks.zones": Key("bool", "Always false but in default: networks are the server's", "false"),
    "features.profiles": Key("bool", "Profiles of its own; otherwise those of default", "true"),
    "features.storage.buckets": Key("bool", "Kept for LXD's clients: there are no buckets", "true"),
    "features.storage.volumes": Key("bool", "Custom volumes of its own; otherwise those of default", "true"),
}  # fmt: skip
LIMITS: dict[str, Key] = {
    "limits.containers": Key("integer", "How many containers there may be", "any number"),
    "limits.cpu": Key("integer", "Sum of its instances' limits.cpu, which each must have", "no limit"),
    "limits.disk": Key("string", "Sum of sizes of root disks and volumes, which each must have", "no limit"),
    "limits.instances": Key("integer", "How many instances there may be", "any number"),
    "limits.memory": Key("string", "Sum of its instances' limits.memory, which each must have", "no limit"),
    "limits.networks": Key("integer", "How many networks the server may have; of default only", "any number"),
    "limits.processes": Key("integer", "Sum of its instances' limits.processes, which each must have", "no limit"),
    "limits.virtual-machines": Key("integer", "Kept for LXD's clients: there are no virtual machines", "any number"),
}  # fmt: skip
_RESTRICTED: dict[str, str] = {
    "restricted.backups": "Whether instances and volumes may be exported",
    "restricted.containers.lowlevel": "raw.*, kernel limits, system calls and swap of instances",
    "restricted.containers.nesting": "security.nesting",
    "restricted.containers.privilege": "security.privileged",
    "restricted.devices.disk": "Disks: of pools only (managed), none but the root disk, or any",
    "restricted.devices.gpu": "Graphics cards",
    "restricted.devices.infiniband": "InfiniBand devices",
    "restricted.devices.nic": "Network cards: on managed networks only, none, or any",
    "restricted.devices.pci": "PCI devices",
    "restricted.devices.proxy": "Proxies",
    "restricted.devices.unix-block": "Block devices of the host",
    "restricted.devices.unix-char": "Character devices of the host",
    "restricted.devices.unix-hotplug": "Hotplugged devices of the host",
    "restricted.devices.usb": "USB devices",
    "restricted.snapshots": "Whether snapshots may be taken",
}
RESTRICTED: dict[str, Key] = {
    "restricted": Key("bool", "Whether the restricted.* keys count", "false"),
    **{name: Key("string", text, RESTRICTIONS[name][0], RESTRICTIONS[name]) for name, text in _RESTRICTED.items()},
    "restricted.cluster.target": Key("string", "Always block: there are no clusters", "block", ("block",)),
    "restricted.containers.interception": Key("string", "Always block: no system call is intercepted", "block",
                                              ("block",)),
    "restricted.devices.disk.paths": Key("string", "Directories that disks may be of, where any are allowed", "any"),
    "restricted.idmap.gid": Key("string", "Group ids of the host that raw.idmap may reach: 1000,2000-2999", "none"),
    "restricted.idmap.uid": Key("string", "User ids of the host that raw.idmap may reach: 1000,2000-2999", "none"),
    "restricted.networks.access": Key("string", "Networks that may be used, separated by commas", "all"),
    "restricted.virtual-machines.lowlevel": Key("string", "Always block: there are no virtual machines", "block",
                                                ("block",)),
}  # fmt: skip
OWN: dict[str, Key] = {"user.NAME": Key("string", "Yours: only kept")}

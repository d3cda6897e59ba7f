"""What the managers tell the administrator: a line of text that knows its kind and the object it is about.

Managers are handed one callable for all of it, ``warn(text)``; a bare string is told, too, as of no kind.
"""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of warning; where LXD has the same, the name is LXD's.

    Attributes:
        severity: ``low``, ``moderate`` or ``high``.
        ends: lifecycle actions of the object after which the warning is over; its deletion ends every warning of it.
    """

    name: str
    severity: str
    ends: tuple[str, ...] = ()


NETWORK_UNAVAILABLE = Kind("Network unavailable", "moderate", ("network-updated",))
NETWORK_MENDED = Kind("Network mended", "moderate")
DNSMASQ = Kind("dnsmasq failed", "moderate", ("network-updated",))
FIREWALL = Kind("Firewall rules mended", "moderate")
FORWARDING = Kind("Forwarding not possible", "moderate")
NAMES = Kind("Host cannot resolve instance names", "low", ("network-updated",))
ACLS = Kind("Network ACLs incomplete", "moderate")
NIC = Kind("Nic incomplete", "moderate", ("instance-stopped", "instance-shutdown"))
POOL_UNAVAILABLE = Kind("Storage pool unavailable", "high", ("storage-pool-updated",))
ORPHANS = Kind("Storage volumes without a record", "moderate")
CUSTOM_ORPHANS = Kind("Custom volumes without a record", "moderate")
EXPIRY = Kind("Expired snapshot not deleted", "low")
SCHEDULE = Kind("Scheduled snapshot not made", "low", ("instance-snapshot-created",))
VOLUME = Kind("Storage volume damaged", "high", ("storage-volume-updated",))
IMAGE_UPDATE = Kind("Image update failed", "low", ("image-refreshed", "image-updated"))
IMAGE_SERVER = Kind("Image server unavailable", "low")
IMAGE_LOST = Kind("Image files missing", "moderate")
IMAGE_DAMAGED = Kind("Image files damaged", "moderate")
AUTOSTART = Kind("Failed to autostart instance", "low", ("instance-started",))
AUTORESTART = Kind("Instance ended by itself", "moderate", ("instance-started",))
REQUIRES = Kind("Instance started before what it requires", "low", ("instance-stopped", "instance-shutdown"))
ADOPTION = Kind("Instance not taken over", "high", ("instance-started",))
LIMITS = Kind("Limits not applied", "moderate", ("instance-updated", "instance-stopped", "instance-shutdown"))
UNMET = Kind("Limits that cannot be kept", "low", ("instance-stopped", "instance-shutdown"))
DISK = Kind("Disk not taken away cleanly", "low", ("instance-stopped", "instance-shutdown"))
DEVICE = Kind("Device not given", "low", ("instance-stopped", "instance-shutdown", "instance-updated"))
PROXY = Kind("Proxy not running", "moderate", ("instance-stopped", "instance-shutdown", "instance-updated"))
LEFTOVERS = Kind("Leftovers removed", "low")
BACKUP_FILE = Kind("backup.yaml not written", "moderate", ("instance-updated",))
TEMPLATES = Kind("Templates failed", "low")
HTTPS = Kind("HTTPS address unavailable", "high", ("config-updated",))
CGROUP = Kind("Couldn't find the CGroup {} controller", "low")
APPARMOR = Kind("AppArmor support has been disabled", "low")
UNKNOWN = Kind("Undefined warning", "moderate")


class Notice(str):
    """The line of a warning.

    Args:
        text: what happened, and to what.
        kind: one of this module's.
        url: of the object as lifecycle events name it, ``/1.0/networks/lxpybr0``; empty for the server itself.
        project: the object's; empty where objects of that kind belong to no project.
    """

    kind: Kind
    url: str
    project: str

    def __new__(cls, text: str, kind: Kind, url: str = "", project: str = "") -> "Notice":
        self = super().__new__(cls, text)
        self.kind, self.url, self.project = kind, url, project
        return self


class Over(Notice):
    """Not a warning but its end: what was told of this kind about this object holds no longer."""

    def __new__(cls, kind: Kind, url: str = "", project: str = "") -> "Over":
        self = str.__new__(cls, f"{kind.name}: over")
        self.kind, self.url, self.project = kind, url, project
        return self

"""Where things are: every path, cgroup, table and id range that follows from ``LXPY_DIR``. Computed, never read.

Two daemons with different directories never share a name: all but the default directory's names carry a
tag made from the directory's path.
"""

import os

DEFAULT_DIR = "/var/lib/lxpy"


class Layout:
    """The names that follow from one ``LXPY_DIR``.

    Args:
        root: absolute directory; default ``$LXPY_DIR``, else ``/var/lib/lxpy``.
    """

    def __init__(self, root: str = "") -> None:
        self.root = os.path.abspath(root or os.environ.get("LXPY_DIR", "") or DEFAULT_DIR)
        self.tag = "" if self.root == DEFAULT_DIR else _tag(self.root)
        # Sockets. `sun_path` holds 108 bytes, so a deep LXPY_DIR (a test's) is reached through /run.
        self.socket = f"{self.root}/unix.socket"
        self.local_socket = f"{self.root}/local.socket"
        self.database = f"{self.root}/lxpy.db"
        self.pid_file = f"{self.root}/lxpyd.pid"
        self.log = f"{self.root}/lxpyd.log"
        # 0700, on /run: everything in it is gone after a host reboot, and that is meant.
        self.run = "/run/lxpy" if not self.tag else f"/run/lxpy-{self.tag}"
        self.instances = f"{self.run}/i"
        self.logs = f"{self.root}/logs"
        self.images = f"{self.root}/images"
        self.backups = f"{self.root}/backups"
        self.pools = f"{self.root}/storage-pools"
        self.disks = f"{self.root}/disks"  # files that hold the file systems of pools
        self.networks = f"{self.root}/networks"
        self.cache = f"{self.root}/cache"
        self.cgroup_prefix = f"lxpy-{self.tag}" if self.tag else "lxpy"
        # A group of NFLOG (16 bits) for what network ACLs log; the tag of another directory gives another one.
        self.nflog_group = 1024 + int(self.tag or "0", 16) % 60000
        self.acl_log = f"{self.logs}/network-acls.log"
        self.nft_table = f"lxpy_{self.tag}" if self.tag else "lxpy"
        self.nft_nic_table = f"{self.nft_table}_nic"  # ACLs of nics, family bridge
        self.nft_proxy_table = f"{self.nft_table}_proxy"  # proxies with nat, family inet
        self.nft_nics_table = f"{self.nft_table}_nics"  # filters and limits of nics, family netdev

    def instance_run(self, instance_id: int) -> str:
        """The run directory of one instance: supervisor socket, exit record, mount points. Short on purpose."""
        return f"{self.instances}/{instance_id}"

    def instance_log(self, project: str, name: str) -> str:
        """The log directory of one instance (``console.log`` survives the container)."""
        return f"{self.logs}/{qualified(project, name)}"


def qualified(project: str, name: str) -> str:
    """LXD's name of an instance outside its project: bare in ``default``, else ``project_name``."""
    return name if project == "default" else f"{project}_{name}"


def _tag(path: str) -> str:
    # FNV-1a, 32 bits: hashlib would cost every command 2 ms, and this only has to differ between a few directories.
    value = 0x811C9DC5
    for byte in path.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return f"{value:08x}"[:6]

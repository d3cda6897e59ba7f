"""What ``GET /1.0`` and ``GET /1.0/resources`` tell about the host."""

import os
import platform
from typing import Any

import lxpy
from lxpy.host import probes

# Only what works. (lxd-map 2.4 lists what the stock clients ask for.)
EXTENSIONS = (
    "api_filtering", "etag", "patch", "entity_description", "operation_wait",
    "instances", "container_full", "instance_get_full", "instance_all_projects", "instance_create_start",
    "instance_bulk_state_change", "container_exec_user_group_cwd", "container_exec_recording",
    "container_exec_signal_handling", "console", "directory_manipulation", "file_delete", "file_append",
    "file_symlinks", "instances_files_modify_permissions", "instance_nic_network",
    "snapshot_expiry", "snapshot_expiry_creation",
    "container_only_migration", "container_incremental_copy", "container_copy_project",
    "instance_allow_inconsistent_copy", "instance_project_move", "instance_pool_move",
    "container_backup", "container_backup_override_pool", "backup_override_name", "backup_compression",
    "backup_compression_algorithm", "image_compression_algorithm", "container_edit_metadata", "instances_rebuild",
    "image_create_aliases", "image_force_refresh", "image_copy_profile", "images_push_relay",
    "network", "network_leases", "network_state", "network_forward",
    "network_acl", "network_acl_log",
    "usb_devices", "usb_optional_vendorid", "gpu_devices", "unix_device_rename", "unix_device_hotplug",
    "unix_hotplug_devices",
    "proxy", "proxy_unix", "proxy_udp", "proxy_tcp_udp_multi_port_handling", "proxy_unix_dac_properties",
    "proxy_priv_drop", "proxy_haproxy_protocol", "proxy_nat",
    "storage", "storage_api_volume_rename", "storage_api_volume_snapshots", "storage_api_local_volume_handling",
    "storage_volume_state", "storage_volumes_all_projects", "custom_volume_snapshot_expiry", "custom_volume_backup",
    "instance_protection_start", "devlxd_events", "devlxd_images", "cloud_init", "cloud_init_ssh_keys",
    "resources", "resources_v2", "projects", "project_usage",
    "certificate_update", "certificate_project", "certificate_token", "warnings",
    "metadata_configuration", "import_instance_devices",
    "lxpy_backup_stream",
    "lxpy_catalogue", "lxpy_check", "lxpy_disk_owner", "lxpy_files", "lxpy_import_overrides", "lxpy_isolation",
    "lxpy_preseed", "lxpy_recipes", "lxpy_state_fields", "lxpy_usage",
)  # fmt: skip
_NAMESPACES = ("user", "pid", "cgroup")


def environment(addresses: list[str], certificate: str, fingerprint: str, drivers: list[str]) -> dict[str, Any]:
    """The ``environment`` object."""
    uname = platform.uname()
    release = _os_release()
    features = {f"{name}_namespaces": str(os.path.exists(f"/proc/self/ns/{name}")).lower() for name in _NAMESPACES}
    features["cgroup2"] = str(os.path.exists("/sys/fs/cgroup/cgroup.controllers")).lower()
    features["idmapped_mounts"] = str(_version(uname.release) >= (5, 12)).lower()
    features["seccomp_listener"] = str(os.path.exists("/proc/sys/kernel/seccomp")).lower()
    features["apparmor"] = str(not probes.apparmor_off()).lower()
    return {
        "addresses": addresses,
        "architectures": [uname.machine],
        "certificate": certificate,
        "certificate_fingerprint": fingerprint,
        "driver": "lxpy",
        "driver_version": lxpy.__version__,
        "firewall": "nftables",
        "kernel": uname.system,
        "kernel_architecture": uname.machine,
        "kernel_features": features,
        "kernel_version": uname.release,
        "lxc_features": {},
        "os_name": release.get("NAME", ""),
        "os_version": release.get("VERSION_ID", ""),
        "project": "default",
        "server": "lxpy",
        "server_clustered": False,
        "server_event_mode": "full-mesh",
        "server_name": uname.node,
        "server_pid": os.getpid(),
        "server_version": lxpy.__version__,
        "storage": " | ".join(drivers),
        "storage_version": " | ".join("1" for _ in drivers),
        "storage_supported_drivers": [{"Name": name, "Version": "1", "Remote": False} for name in drivers],
    }


def _version(release: str) -> tuple[int, int]:
    major, minor, *_ = (*release.split("."), "0")
    return int(major), int("".join(c for c in minor if c.isdigit()) or 0)


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def resources() -> dict[str, Any]:
    """CPUs and memory, from ``/proc`` and ``/sys``."""
    memory = _meminfo()
    used = memory.get("MemTotal", 0) - memory.get("MemAvailable", 0)
    sockets = _cpus()
    return {
        "cpu": {
            "architecture": platform.machine(),
            "sockets": sockets,
            "total": sum(len(core["threads"]) for socket in sockets for core in socket["cores"]),
        },
        "memory": {
            "nodes": None,
            "hugepages_total": memory.get("HugePages_Total", 0),
            "hugepages_used": memory.get("HugePages_Total", 0) - memory.get("HugePages_Free", 0),
            "hugepages_size": memory.get("Hugepagesize", 0),
            "used": used,
            "total": memory.get("MemTotal", 0),
        },
        "gpu": {"cards": [], "total": 0},
        "network": {"cards": [], "total": 0},
        "storage": {"disks": [], "total": 0},
        "usb": {"devices": [], "total": 0},
        "pci": {"devices": [], "total": 0},
        "system": {"uuid": "", "vendor": "", "product": "", "family": "", "version": "", "sku": "", "serial": "",
                   "type": "", "firmware": None, "chassis": None, "motherboard": None},
    }  # fmt: skip


def _meminfo() -> dict[str, int]:
    """Bytes (HugePages_*: counts)."""
    found: dict[str, int] = {}
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            key, _, rest = line.partition(":")
            number, *unit = rest.split()
            found[key] = int(number) * (1024 if unit else 1)
    return found


def _cpus() -> list[dict[str, Any]]:
    sockets: dict[int, dict[str, Any]] = {}
    processor: dict[str, str] = {}
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        for line in [*file, "\n"]:
            if line.strip():
                key, _, value = line.partition(":")
                processor[key.strip()] = value.strip()
                continue
            if "processor" in processor:
                number = int(processor.get("physical id", 0))
                socket = sockets.setdefault(number, {
                    "name": processor.get("model name", ""), "vendor": processor.get("vendor_id", ""),
                    "socket": number, "cache": [], "cores": {},
                    "frequency": int(float(processor.get("cpu MHz", 0))),
                })  # fmt: skip
                core_id = int(processor.get("core id", processor["processor"]))
                core = socket["cores"].setdefault(
                    core_id, {"core": core_id, "die": 0, "frequency": socket["frequency"], "threads": []}
                )
                core["threads"].append(
                    {"id": int(processor["processor"]), "thread": len(core["threads"]), "online": True,
                     "numa_node": 0, "isolated": False}
                )  # fmt: skip
            processor = {}
    return [{**socket, "cores": list(socket["cores"].values())} for socket in sockets.values()]

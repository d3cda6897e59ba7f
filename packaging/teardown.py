"""Takes what lxpy holds on this host away, before its program goes: `teardown.py keep` or `teardown.py purge`.

`keep` stops the containers and removes what a reboot would remove (bridges, dnsmasq, nft table, mounts); `purge`
deletes containers, images, networks and pools through the API first. Run by install.sh with the installed interpreter.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from typing import Any

from lxpy.api.errors import ApiError
from lxpy.api.layout import DEFAULT_DIR, Layout
from lxpy.client import connect
from lxpy.host import sysctls
from lxpy.linux import apparmor
from lxpy.networks.host import delete_link


def main(keep: bool) -> None:
    layout = Layout()
    client = connect()
    networks = [n for n in client.get("/1.0/networks", recursion="1") if n["managed"]]
    _stop_instances(client)
    if not keep:
        _delete_all(client, networks)
    _end_daemon(layout)
    _clean_host(layout, [n["name"] for n in networks])


def _instances(client: Any) -> list[dict[str, Any]]:
    found = []
    for project in client.get("/1.0/projects", recursion="1"):
        for instance in client.get("/1.0/instances", recursion="1", project=project["name"]):
            found.append({**instance, "project": project["name"]})
    return found


def _url(instance: dict[str, Any], tail: str = "") -> str:
    return f"/1.0/instances/{instance['name']}{tail}?project={instance['project']}"


def _stop_instances(client: Any) -> None:
    running = [i for i in _instances(client) if i["status"] not in ("Stopped", "Error")]
    stops = []
    for instance in running:
        print(f"  stopping {instance['name']}")
        stops.append((instance, client.put(_url(instance, "/state"), {"action": "stop", "timeout": 30})))
    for instance, stop in stops:
        try:
            client.wait(stop)
        except ApiError:
            client.wait(client.put(_url(instance, "/state"), {"action": "stop", "force": True, "timeout": -1}))


def _delete_all(client: Any, networks: list[dict[str, Any]]) -> None:
    for instance in _instances(client):
        if instance["config"].get("security.protection.delete") in ("true", "1", "yes", "on"):
            config = {**instance["config"], "security.protection.delete": "false"}
            client.wait(client.patch(_url(instance), {"config": config}))
        client.wait(client.delete(_url(instance)))
    for project in client.get("/1.0/projects", recursion="1"):
        for image in client.get("/1.0/images", recursion="1", project=project["name"]):
            client.wait(client.delete(f"/1.0/images/{image['fingerprint']}?project={project['name']}"))
        for profile in client.get("/1.0/profiles", recursion="1", project=project["name"]):
            url = f"/1.0/profiles/{profile['name']}?project={project['name']}"
            client.put(url, {"config": {}, "devices": {}, "description": profile["description"]})
    for network in networks:
        client.delete(f"/1.0/networks/{network['name']}")
    for pool in client.get("/1.0/storage-pools", recursion="1"):
        path = f"/1.0/storage-pools/{pool['name']}/volumes/custom"
        for volume in client.get(path, **{"recursion": "1", "all-projects": "true"}):
            if "/" not in volume["name"]:
                client.delete(f"{path}/{volume['name']}?project={volume.get('project') or 'default'}")
        client.delete(f"/1.0/storage-pools/{pool['name']}")


def _end_daemon(layout: Layout) -> None:
    if pathlib.Path("/run/systemd/system").is_dir():
        subprocess.run(["systemctl", "-q", "stop", "lxpy.socket", "lxpy.service"], check=False, capture_output=True)
    with contextlib.suppress(OSError, ValueError):
        _end(int(pathlib.Path(layout.pid_file).read_text()), "lxpy")


def _clean_host(layout: Layout, bridges: list[str]) -> None:
    """What outlives the daemon: dnsmasq, bridges, the nft table, mounts, empty cgroups, the run directory."""
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().split(b"\0")
            if command[0].endswith(b"dnsmasq") and any(layout.networks.encode() in word for word in command):
                _end(int(entry.name), "dnsmasq")
    for bridge in bridges:
        if pathlib.Path(f"/sys/class/net/{bridge}/bridge").exists():
            delete_link(bridge)
    for family, table in (
        ("inet", layout.nft_table), ("inet", layout.nft_proxy_table), ("bridge", layout.nft_nic_table),
        ("netdev", layout.nft_nics_table),
    ):  # fmt: skip
        subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)
    mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed(mounts):
        if mount.startswith((f"{layout.root}/", f"{layout.run}/")) or mount == layout.run:
            subprocess.run(["umount", mount], check=False)
    top = pathlib.Path("/sys/fs/cgroup")
    for group in [*top.glob(f"{layout.cgroup_prefix}.*"), *top.glob(f"*/{layout.cgroup_prefix}.*")]:
        for folder, _, _ in os.walk(group, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
    for profile in apparmor.loaded(f"{layout.cgroup_prefix}_"):
        with contextlib.suppress(OSError):
            apparmor.remove(profile)
    subprocess.run(["rm", "-rf", "--one-file-system", layout.run], check=False)
    if layout.root == DEFAULT_DIR:  # another directory's lxpy has not raised them
        for change in sysctls.undo():
            print(
                f"  {change.name} is {change.after} again" if not change.error else f"  {change.name}: {change.error}"
            )


def _end(pid: int, name: str) -> None:
    pidfd = os.pidfd_open(pid)
    try:
        if name.encode() not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
            return
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        end = time.monotonic() + 15
        while pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() and time.monotonic() < end:
            time.sleep(0.05)
    except OSError:
        pass
    finally:
        os.close(pidfd)


if __name__ == "__main__":
    try:
        main(keep=sys.argv[1:] != ["purge"])
    except (ApiError, OSError) as error:
        sys.exit(f"Error: {error}")

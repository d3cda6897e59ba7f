"""What crashes have left on the host, of one ``LXPY_DIR``; looked for without the daemon, which clears it away."""

import json
import os

from lxpy.api.layout import Layout
from lxpy.linux import cgroups, pidfd, rtnetlink


def find(layout: Layout) -> list[str]:
    """What the next start clears, one phrase for each. What a daemon or an instance that runs may use is not named."""
    found, runs, serving = [], False, _serves(layout)
    unified = cgroups.hierarchies().unified
    for entry in sorted(os.listdir(unified)) if unified else ():
        if entry.startswith(f"{layout.cgroup_prefix}.payload."):
            populated = cgroups.read_keyed(f"{unified}/{entry}/cgroup.events").get("populated")
            runs = runs or populated == 1
            if populated == 0:
                found.append(f"the empty cgroup {entry}")
    for device in os.listdir("/sys/block"):
        backing = _text(f"/sys/block/{device}/loop/backing_file")
        if backing.startswith(f"{layout.root}/") and backing.endswith(" (deleted)"):
            found.append(f"/dev/{device} of a deleted file")
    if not os.access(layout.run, os.R_OK) and os.geteuid() != 0:
        return found
    for entry in _entries(layout.instances):
        if not _supervised(f"{layout.instances}/{entry}"):
            found.append(f"the run directory {layout.instances}/{entry} of an instance that does not run")
    for pool in _entries(layout.pools):
        if count := len(_entries(f"{layout.pools}/{pool}/tmp")):
            found.append(f"{count} in {layout.pools}/{pool}/tmp")
    if not (serving or runs):
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            mounts = [line.split()[4] for line in file]
        below = (f"{layout.pools}/", f"{layout.run}/")
        found += [f"the mount {mount}" for mount in mounts if mount.startswith(below)]
    return found


def by_hand(layout: Layout, tables: dict[str, str]) -> list[tuple[str, str]]:
    """What no start clears away: each with the command that does.

    Args:
        layout: whose.
        tables: nftables' tables, by family and name; empty when they could not be read.
    """
    with rtnetlink.Rtnetlink() as netlink:
        links = netlink.links(counters=False)
    networks = _entries(layout.networks)
    bridges = {link.ifindex: link.name for link in links if link.name in networks}
    # An instance's cable has its other end in another namespace, or has gone with that.
    found = [
        (
            f"the interface {link.name} in {bridges[link.master]}, with nobody at its other end",
            f"ip link delete {link.name}",
        )
        for link in links
        if link.master in bridges and link.kind == "veth" and link.peer_netns is None
    ]
    if not (_serves(layout) or bridges):
        ours = (f"inet {layout.nft_table}", f"inet {layout.nft_proxy_table}", f"bridge {layout.nft_nic_table}",
                f"netdev {layout.nft_table}_nics")  # fmt: skip
        found += [(f"the nftables table {name}, of no network", f"nft delete table {name}")
                  for name in ours if name in tables]  # fmt: skip
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""


def _entries(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _serves(layout: Layout) -> bool:
    """Whether a daemon lives; its lock is left alone."""
    pid = _text(layout.pid_file)
    return pid.isdigit() and "lxpyd" in _text(f"/proc/{pid}/cmdline")


def _supervised(run_dir: str) -> bool:
    """Whether a run directory is in use; one without a state is just being made, or its instance is."""
    try:
        with open(f"{run_dir}/state.json", encoding="utf-8") as file:
            state = json.load(file)
        os.kill(state["supervisor"], 0)
        return bool(pidfd.start_time(state["init"]) == state["start"])
    except (OSError, ValueError, KeyError):
        return not os.path.exists(f"{run_dir}/state.json")

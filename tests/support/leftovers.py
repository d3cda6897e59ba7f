"""What a daemon left on the host. Only names of its own are looked at: other daemons run beside it."""

import os
import pathlib
import subprocess
import time

from tests.support import namespace
from tests.support.daemon import Lxpyd


def check(daemon: Lxpyd, seconds: float = 15.0) -> None:
    """Raises `AssertionError` naming each leftover of a daemon that was destroyed.

    Loop devices detach asynchronously and cgroups empty when the kernel gets to it: hence `seconds` of patience.
    """
    end = time.monotonic() + seconds
    while found := search(daemon):
        if time.monotonic() > end:
            raise AssertionError("left behind:\n" + "\n".join(found))
        time.sleep(0.05)


def search(daemon: Lxpyd) -> list[str]:
    """One line per leftover."""
    layout = daemon.layout
    folders = (f"{layout.root}/", f"{layout.run}/")
    found = []
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if line.split()[4].startswith(folders):
            found.append(f"mount {line.split()[4]}")
    found += [f"cgroup {path}" for path in namespace.cgroups(layout.cgroup_prefix)]
    found += [f"loop device {device}" for device in namespace.loops(layout.root)]
    found += [f"link {link}" for link in os.listdir("/sys/class/net") if link == daemon.bridge]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += [
        line
        for line in tables.splitlines()
        if line.split()[-1] in (layout.nft_table, layout.nft_nics_table, layout.nft_proxy_table)
    ]
    found += [f"process {line}" for line in processes(daemon)]
    return found


def processes(daemon: Lxpyd) -> list[str]:
    """`pid command` of every process that names the daemon's directories or carries its ``LXPY_DIR``."""
    found = []
    needles = (daemon.layout.root.encode(), daemon.layout.run.encode())
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            command = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes()
            environment = pathlib.Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        if any(needle in command for needle in needles) or b"LXPY_DIR=" + needles[0] in environment:
            found.append(f"{entry} {command.replace(bytes(1), b' ').decode(errors='replace')}")
    return found

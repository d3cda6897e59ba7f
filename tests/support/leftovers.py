"""What a daemon left on the host. Only names of its own are looked at: other daemons run beside it."""

import contextlib
import os
import pathlib
import shutil
import signal
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
    found += [line for line in tables.splitlines() if line.split()[-1] in _tables(daemon)]
    found += [f"volume {path}" for path in pathlib.Path(layout.pools).glob("*/[ic]*/*")]
    found += [f"disk {path}" for path in pathlib.Path(layout.disks).glob("*")]
    found += [f"process {line}" for line in processes(daemon)]
    return found


def _tables(daemon: Lxpyd) -> tuple[str, ...]:
    layout = daemon.layout
    return layout.nft_table, layout.nft_nic_table, layout.nft_nics_table, layout.nft_proxy_table


def clear(daemon: Lxpyd) -> None:
    """Takes away by force what a daemon left, and all that it had: the next one of its number starts from nothing."""
    layout = daemon.layout
    daemon.process = None
    for line in processes(daemon):
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(line.split()[0]), signal.SIGKILL)
    namespace.remove_cgroups(layout.cgroup_prefix)
    mounts = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([point for point in mounts if point.startswith((f"{layout.root}/", f"{layout.run}/"))]):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)
    namespace.detach_loops(layout.root)
    subprocess.run(["ip", "link", "delete", daemon.bridge], check=False, capture_output=True)
    for table in _tables(daemon):
        for family in ("inet", "bridge", "netdev"):
            subprocess.run(["nft", "delete", "table", family, table], check=False, capture_output=True)
    for folder in (layout.root, layout.run):
        shutil.rmtree(folder, ignore_errors=True)


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

"""firewalld refuses what comes in on interfaces it does not know, DHCP and DNS too: bridges go into its zone trusted.

In its running configuration only, as Docker and libvirt do it: a reload or restart forgets, and nftables tells us.
A bridge that the administrator put into a zone stays there. Nothing happens on hosts without firewalld.
"""

import asyncio
import os
import shutil
from collections.abc import Callable
from typing import Any

from lxpy.api.notices import FIREWALL, Notice
from lxpy.networks import config as keys

TABLE = "firewalld"
_PROGRAMS = ("/usr/sbin/firewalld", "/usr/bin/firewalld", "/sbin/firewalld")
_BUS = "/run/dbus/system_bus_socket"
_ZONES = ("org.fedoraproject.FirewallD1", "/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.zone")
_TRUSTED = "trusted"
_TRIES, _PAUSE = 10, 0.5  # firewalld loads its rules some time before it answers


Documents = dict[str, dict[str, Any]]


class Firewalld:
    """Keeps our bridges in the trusted zone.

    Args:
        networks: the documents of all networks.
    """

    def __init__(self, networks: Callable[[], Documents], warn: Callable[[str], None]) -> None:
        self._networks, self._warn = networks, warn
        self._task: asyncio.Task[None] | None = None

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def changed(self) -> None:
        """Its rules changed: it may have started, or forgotten us. Looks in the background."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._settle())

    async def _settle(self) -> None:
        for _ in range(_TRIES):
            await asyncio.sleep(_PAUSE)
            if await self.trust(self._networks()):
                return

    async def trust(self, networks: Documents) -> bool:
        """Puts bridges that are in no zone into the trusted one; False when firewalld does not answer."""
        if not _installed():
            return True
        for name, document in networks.items():
            if not any(keys.enabled(document["config"], f"ipv{version}.firewall", True) for version in (4, 6)):
                continue
            zone = await _call("getZoneOfInterface", "s", name)
            if zone is None:
                return False
            if zone == 's ""' and await _call("addInterface", "ss", _TRUSTED, name) is None:
                self._warn(
                    Notice(
                        f"firewalld did not take the bridge {name!r} into its zone trusted: it refuses DHCP and DNS",
                        FIREWALL,
                        f"/1.0/networks/{name}",
                    )
                )
        return True

    async def forget(self, name: str) -> None:
        """Takes a bridge that is deleted out of the trusted zone."""
        if _installed() and await _call("getZoneOfInterface", "s", name) == f's "{_TRUSTED}"':
            await _call("removeInterface", "ss", _TRUSTED, name)


def _installed() -> bool:
    return os.path.exists(_BUS) and any(map(os.path.exists, _PROGRAMS)) and shutil.which("busctl") is not None


async def _call(method: str, signature: str, *arguments: str) -> str | None:
    """The answer of a method of firewalld's zones as busctl prints it; None when there is none."""
    process = await asyncio.create_subprocess_exec(
        "busctl", "--system", "--auto-start=no", "--timeout=5", "call", *_ZONES, method, signature, *arguments,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await process.communicate()
    return out.decode(errors="replace").strip() if process.returncode == 0 else None

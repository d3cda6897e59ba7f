"""Lets the host itself resolve instance names, where systemd-resolved runs: per-link DNS server and routing domain.

resolved keeps what it is told of a link over its own restarts (/run/systemd/resolve/netif) and forgets it with the
link.
Nothing happens on hosts without it.
"""

import asyncio
import os
from collections.abc import Callable

from lxpy.api.notices import NAMES, Notice
from lxpy.api.objects import Config
from lxpy.networks import config as keys

_SOCKET = "/run/systemd/resolve/io.systemd.Resolve"  # there while the service runs
_PATIENCE = 10.0  # seconds for one command and its repetitions


def commands(name: str, config: Config) -> list[list[str]]:
    """What resolvectl is told of a bridge; nothing to look up there means that it is told to forget."""
    servers = [str(one.ip) for one in (keys.interface4(config), keys.interface6(config)) if one]
    if not servers or config.get("dns.mode") == "none":
        return [["resolvectl", "revert", name]]
    domain = config.get("dns.domain") or keys.DEFAULT_DOMAIN
    # The tilde makes it a routing domain: only names below it are asked of the bridge's dnsmasq.
    return [["resolvectl", "dns", name, *servers], ["resolvectl", "domain", name, f"~{domain}"]]


async def register(name: str, config: Config, warn: Callable[[str], None]) -> None:
    """Tells resolved about a bridge that has been made or changed; idempotent."""
    if not os.path.exists(_SOCKET):
        return
    for command in commands(name, config):
        if fault := await _tell(command):
            warn(
                Notice(
                    f"This host cannot resolve names on network {name!r}: {command[0]} {command[1]}: {fault}",
                    NAMES,
                    f"/1.0/networks/{name}",
                )
            )
            return


async def _tell(command: list[str]) -> str:
    """As `_run`. A link that has just been made may reach us long before it reaches resolved on a busy host."""
    loop = asyncio.get_running_loop()
    end, pause = loop.time() + _PATIENCE, 0.1
    while True:
        fault = await _run(command, end - loop.time())
        if "not known" not in fault or loop.time() + pause > end:
            return fault
        await asyncio.sleep(pause)
        pause = min(2 * pause, 1.0)


async def _run(command: list[str], patience: float) -> str:
    """What went wrong, one line; empty when nothing did, or there is no resolvectl."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
    except FileNotFoundError:
        return ""
    try:
        _, err = await asyncio.wait_for(process.communicate(), patience)
    except TimeoutError:
        process.kill()
        await process.wait()
        return "no answer"
    lines = err.decode(errors="replace").strip().splitlines() or ["no reason given"]
    return lines[0] if process.returncode else ""

"""A database that is lost, and pools that are read back into an empty one."""

import pathlib
from typing import Any

import yaml

from tests.support.daemon import Lxpyd, until


def backup(daemon: Lxpyd, volume: str, pool: str = "default") -> dict[str, Any]:
    """What lies beside the root of an instance; empty before it is there."""
    path = pathlib.Path(daemon.dir, f"storage-pools/{pool}/instances/{volume}/backup.yaml")
    found: dict[str, Any] = yaml.safe_load(path.read_text()) if path.exists() else {}
    return found


def test_the_backup_beside_the_root_follows(own_lxpyd: Lxpyd) -> None:
    daemon = own_lxpyd
    daemon.cli("profile", "create", "p")
    daemon.cli("launch", "bb", "a", "-p", "default", "-p", "p")
    hwaddr = daemon.json("query", "/1.0/instances/a")["config"]["volatile.eth0.hwaddr"]
    until(lambda: backup(daemon, "a")["instance"]["config"].get("volatile.eth0.hwaddr") == hwaddr, 5, "no MAC")
    daemon.cli("profile", "set", "p", "user.k=v")
    until(lambda: backup(daemon, "a")["profiles"]["p"]["config"] == {"user.k": "v"}, 5, "the profile is old")
    assert backup(daemon, "a")["project"]["config"]["features.images"] == "true"
    # A daemon killed before it could write the file writes it at its next start.
    daemon.kill()
    pathlib.Path(daemon.dir, "storage-pools/default/instances/a/backup.yaml").unlink()
    daemon.start()
    until(lambda: backup(daemon, "a").get("instance", {}).get("name") == "a", 5, "no file")

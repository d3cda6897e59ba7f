"""firewalld, the real one: our bridges are let through, it may come, reload and go, and its own zones are kept."""

import subprocess

from tests.support import leftovers, namespace
from tests.support.daemon import Lxpyd, until
from tests.support.unpacked import FIREWALLD, bus, service, told


def test_bridges_in_its_zones() -> None:
    with namespace.own_network():
        daemon = Lxpyd("fw", 240)
        daemon.start()
        try:
            daemon.initialise()
            _lives_with(daemon)
        finally:
            daemon.destroy()
        leftovers.check(daemon)


def _lives_with(daemon: Lxpyd) -> None:
    daemon.cli("launch", "bb", "a")
    daemon.wait_address("a")
    bridge = daemon.bridge
    wall = ["/usr/sbin/firewalld", "--nofork", "--nopid"]
    with bus(FIREWALLD) as place, service(wall, place / "log", lambda: _asked("--state") == "running"):
        # It came after the daemon: noticed by its rules, and then DHCP and DNS go on.
        until(lambda: bridge in _asked("--get-active-zones").split(), 15, "the bridge is in no zone")
        assert _asked(f"--get-zone-of-interface={bridge}") == "trusted"
        daemon.cli("launch", "bb", "b")
        address = daemon.wait_address("b")
        assert address in daemon.sh("a", f"nslookup -type=a b.lxpy {daemon.address}").stdout
        doctor = {one["id"]: one["status"] for one in daemon.json("doctor", "-f", "json")}
        assert doctor["firewall"] == "ok" and "firewall.firewalld" not in doctor
        # A second network; one that the administrator has put elsewhere stays there.
        daemon.cli("network", "create", "lxf1", "ipv4.address=10.95.7.1/24", "ipv6.address=none")
        assert _asked("--get-zone-of-interface=lxf1") == "trusted"
        assert _asked("--zone=internal", "--change-interface=lxf1") == "success"
        daemon.cli("network", "set", "lxf1", "dns.domain=x.example")
        assert _asked("--get-zone-of-interface=lxf1") == "internal"
        # A reload forgets what was only running, and takes our rules for nobody's.
        assert _asked("--reload") == "success"
        until(lambda: _asked(f"--get-zone-of-interface={bridge}") == "trusted", 15, "forgotten by a reload")
        assert f"in.{bridge}" in _rules(daemon)
        daemon.cli("network", "delete", "lxf1")
        assert "lxf1" not in _asked("--get-active-zones").split()
        # The daemon comes back to a firewalld that runs.
        daemon.restart(kill=True)
        assert _asked(f"--get-zone-of-interface={bridge}") == "trusted"
    # It has gone, and its table with it: ours stays, and so does the network.
    assert "firewalld" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    assert f"in.{bridge}" in _rules(daemon)
    daemon.cli("restart", "-f", "b")
    daemon.wait_address("b")


def _asked(*words: str) -> str:
    return told("firewall-cmd", *words)


def _rules(daemon: Lxpyd) -> str:
    line = ["nft", "list", "table", "inet", daemon.layout.nft_table]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout

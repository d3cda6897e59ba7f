"""firewalld, the real one: our bridges are let through, it may come, reload and go, and its own zones are kept."""

import subprocess

from tests.support import firewalld, leftovers, namespace
from tests.support.daemon import Lxpyd, until


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
    with firewalld.running():
        # It came after the daemon: noticed by its rules, and then DHCP and DNS go on.
        until(lambda: bridge in firewalld.told("--get-active-zones").split(), 15, "the bridge is in no zone")
        assert firewalld.told(f"--get-zone-of-interface={bridge}") == "trusted"
        daemon.cli("launch", "bb", "b")
        address = daemon.wait_address("b")
        assert address in daemon.sh("a", f"nslookup -type=a b.lxpy {daemon.address}").stdout
        doctor = {one["id"]: one["status"] for one in daemon.json("doctor", "-f", "json")}
        assert doctor["firewall"] == "ok" and "firewall.firewalld" not in doctor
        # A second network; one that the administrator has put elsewhere stays there.
        daemon.cli("network", "create", "lxf1", "ipv4.address=10.95.7.1/24", "ipv6.address=none")
        assert firewalld.told("--get-zone-of-interface=lxf1") == "trusted"
        assert firewalld.told("--zone=internal", "--change-interface=lxf1") == "success"
        daemon.cli("network", "set", "lxf1", "dns.domain=x.example")
        assert firewalld.told("--get-zone-of-interface=lxf1") == "internal"
        # A reload forgets what was only running, and takes our rules for nobody's.
        assert firewalld.told("--reload") == "success"
        until(lambda: firewalld.told(f"--get-zone-of-interface={bridge}") == "trusted", 15, "forgotten by a reload")
        assert f"in.{bridge}" in _rules(daemon)
        daemon.cli("network", "delete", "lxf1")
        assert "lxf1" not in firewalld.told("--get-active-zones").split()
        # The daemon comes back to a firewalld that runs.
        daemon.restart(kill=True)
        assert firewalld.told(f"--get-zone-of-interface={bridge}") == "trusted"
    # It has gone, and its table with it: ours stays, and so does the network.
    assert "firewalld" not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    assert f"in.{bridge}" in _rules(daemon)
    daemon.cli("restart", "-f", "b")
    daemon.wait_address("b")


def _rules(daemon: Lxpyd) -> str:
    line = ["nft", "list", "table", "inet", daemon.layout.nft_table]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout

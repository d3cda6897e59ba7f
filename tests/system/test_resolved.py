"""systemd-resolved, the real one: this host resolves the names of instances, whatever becomes of bridge and service."""

import os
import pathlib
import signal
import subprocess
import time

from tests.support import leftovers, namespace
from tests.support.daemon import Lxpyd, until
from tests.support.unpacked import RESOLVED, bus, service, told

_SERVICE = ["/lib/systemd/systemd-resolved"]
_SOCKET = pathlib.Path("/run/systemd/resolve/io.systemd.Resolve")


def test_names_for_the_host_itself() -> None:
    with namespace.own_network(), bus(RESOLVED) as place:
        daemon = Lxpyd("rs", 241)
        with service(_SERVICE, place / "log", _SOCKET.exists) as resolved:
            daemon.start()
            daemon.initialise()
            _resolves(daemon, resolved)
        with service(_SERVICE, place / "log", _SOCKET.exists):  # it keeps what it was told
            _knows("a.lxpy", daemon.addresses("a")[0])
            daemon.cli("network", "set", daemon.bridge, "dns.mode=none")
            assert daemon.address not in told("resolvectl", "dns", daemon.bridge)
            daemon.cli("network", "unset", daemon.bridge, "dns.mode")
            _knows("a.lxpy", daemon.addresses("a")[0])
            daemon.destroy()
        leftovers.check(daemon)


def _resolves(daemon: Lxpyd, resolved: subprocess.Popen[bytes]) -> None:
    daemon.cli("network", "create", "lxr1", "ipv4.address=10.95.8.1/24", "ipv6.address=none", "dns.domain=lab.example")
    daemon.cli("launch", "bb", "a")
    daemon.cli("launch", "bb", "b", "-n", "lxr1")
    _knows("a.lxpy", daemon.wait_address("a"))
    _knows("b.lab.example", daemon.wait_address("b"))
    assert "~lxpy" in told("resolvectl", "domain", daemon.bridge)  # no other names are asked of it
    # A changed domain, a bridge that was removed while the service was busy, a daemon that was killed.
    daemon.cli("network", "set", "lxr1", "dns.domain=other.example")
    _knows("b.other.example", daemon.addresses("b")[0])
    resolved.send_signal(signal.SIGSTOP)
    subprocess.run(["ip", "link", "delete", daemon.bridge], check=True)
    time.sleep(6)
    resolved.send_signal(signal.SIGCONT)
    until(lambda: os.path.exists(f"/sys/class/net/{daemon.bridge}"), 5, "the bridge does not come back")
    _knows("a.lxpy", daemon.addresses("a")[0])
    daemon.restart(kill=True)
    _knows("a.lxpy", daemon.addresses("a")[0])
    daemon.cli("delete", "-f", "b")
    daemon.cli("network", "rename", "lxr1", "lxr2")
    assert "~other.example" in told("resolvectl", "domain", "lxr2")
    daemon.cli("network", "delete", "lxr2")


def _knows(name: str, address: str) -> None:
    until(lambda: address in told("resolvectl", "query", name), 30, f"{name} is not resolved to {address}")

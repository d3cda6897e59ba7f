"""Nics that are no port of a bridge."""

import contextlib
import ipaddress
import os
import pathlib
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, until


def _host(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _answers(address: str) -> bool:
    return subprocess.run(["busybox", "ping", "-c1", "-W1", address], capture_output=True).returncode == 0


@contextlib.contextmanager
def _links_go_down(name: str) -> Iterator[None]:
    """A host on which instances end all the time."""
    _host("ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p")
    script = f"while sleep 0.05; do ip link set {name} up; ip link set {name} down; done"
    churn = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    try:
        yield
        assert churn.poll() is None
    finally:
        os.killpg(churn.pid, signal.SIGKILL)
        churn.wait()
        _host("ip", "link", "del", name)


def test_routed(lxpyd: Lxpyd, busybox: str) -> None:
    """Reachable from the host and from a neighbour on the parent, gone without a trace, across a killed daemon."""
    subnet = lxpyd.address.rpartition(".")[0]
    address, six = f"{subnet}.240", "fd77::5"
    lxpyd.wait_address(busybox)
    nic = ("nic", "nictype=routed", f"parent={lxpyd.bridge}", "name=eth1", f"ipv4.address={address}")
    refused = lxpyd.cli("config", "device", "add", busybox, "r", *nic, f"ipv6.address={six}", check=False)
    assert refused.returncode == 1 and "proxy_ndp=1" in refused.stderr and len(refused.stderr.splitlines()) == 1
    lxpyd.sh(busybox, "ip addr flush dev eth0; ip link set eth0 down")
    lxpyd.cli("config", "device", "add", busybox, "r", *nic)
    until(lambda: _answers(address), 5, "no answer")
    assert "169.254.0.1" in lxpyd.sh(busybox, "ip route show default").stdout
    neighbour = f"{busybox}-n"
    lxpyd.cli("launch", "bb", neighbour)
    lxpyd.wait_address(neighbour)
    ping = ("exec", neighbour, "-n", "-T", "--", "ping", "-c1", "-W1", address)
    until(lambda: lxpyd.cli(*ping, check=False).returncode == 0, 5, "the host does not answer for it")
    lxpyd.restart(kill=True)
    assert lxpyd.cli(*ping, check=False).returncode == 0
    assert address in _host("ip", "neigh", "show", "proxy")
    lxpyd.cli("config", "device", "remove", busybox, "r")
    assert address not in _host("ip", "neigh", "show", "proxy") + _host("ip", "route", "show", "table", "all")


def test_routed_by_ipv6(lxpyd: Lxpyd, busybox: str) -> None:
    """As `test_routed`; the kernel's switches that the refusal names are enough."""
    one, two = (str(ipaddress.ip_address(f"fd42:97:{lxpyd.number:x}::{last}")) for last in ("f1", "f2"))
    behind = f"fd79:{lxpyd.number:x}::/64"
    nic = ("nic", "nictype=routed", f"parent={lxpyd.bridge}", "name=eth1", f"ipv6.address={one},{two}",
           f"ipv6.routes={behind}")  # fmt: skip
    switch = pathlib.Path(f"/proc/sys/net/ipv6/conf/{lxpyd.bridge}/proxy_ndp")
    switch.write_text("1")
    try:
        lxpyd.cli("config", "device", "add", busybox, "r", *nic)
        lxpyd.sh(busybox, "ip link set eth0 down")
        until(lambda: _answers(one) and _answers(two), 5, "no answer")
        assert "fe80::1" in lxpyd.sh(busybox, "ip -6 route show default").stdout
        assert f"via {one} " in _host("ip", "-6", "route", "show", behind)
        neighbour = f"{busybox}-n"
        lxpyd.cli("launch", "bb", neighbour)

        def addresses() -> str:
            return lxpyd.sh(neighbour, "ip -6 addr show dev eth0").stdout

        # A second or two each for the link's own address and the advertised one, one after the other.
        until(lambda: "global" in (now := addresses()) and "tentative" not in now, 20, "no IPv6 address")
        ping = ("exec", neighbour, "-n", "-T", "--", "ping", "-6", "-c1", "-W1", two)
        with _links_go_down(f"d{busybox}"):
            until(lambda: lxpyd.cli(*ping, check=False).returncode == 0, 5, "the host does not answer for it")
        lxpyd.restart(kill=True)
        assert lxpyd.cli(*ping, check=False).returncode == 0
        lxpyd.cli("config", "device", "remove", busybox, "r")
        until(lambda: one not in _host("ip", "-6", "neigh", "show", "proxy"), 3, "the host still answers for it")
        assert not _host("ip", "-6", "route", "show", behind)
    finally:
        switch.write_text("0")


def test_p2p(lxpyd: Lxpyd, busybox: str) -> None:
    nic = ("nic", "nictype=p2p", "name=eth1", f"host_name=p2p{busybox}", "ipv4.routes=10.66.0.7/32", "mtu=1400")
    lxpyd.cli("config", "device", "add", busybox, "p", *nic)
    lxpyd.sh(busybox, "ip addr add 10.66.0.7/32 dev eth1; ip route add 10.66.0.1 dev eth1")
    _host("ip", "addr", "add", "10.66.0.1/32", "dev", f"p2p{busybox}")
    until(lambda: _answers("10.66.0.7"), 5, "no answer")
    assert "mtu 1400" in _host("ip", "link", "show", f"p2p{busybox}")
    twice = lxpyd.cli("config", "device", "add", busybox, "q", *nic[:2], "name=eth2", nic[3], check=False)
    assert twice.returncode == 1 and "exists already" in twice.stderr and _answers("10.66.0.7")
    lxpyd.cli("restart", "-f", busybox)
    assert f"dev p2p{busybox}" in _host("ip", "route", "show", "10.66.0.7")
    lxpyd.cli("stop", "-f", busybox)
    until(lambda: f"p2p{busybox}" not in _host("ip", "link"), 5, "the host's end stayed")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("nictype=routed",), "Missing ipv4.address"),
        (("nictype=routed", "ipv4.address=10.0.0.0/24"), "'10.0.0.0/24'"),
        (("nictype=p2p", "security.mac_filtering=true"), "security.mac_filtering"),
    ],
)
def test_refused(lxpyd: Lxpyd, keys: tuple[str, ...], said: str) -> None:
    refused = lxpyd.cli("profile", "device", "add", "default", "bad", "nic", *keys, check=False)
    assert refused.returncode == 1 and said in refused.stderr and len(refused.stderr.splitlines()) == 1

"""What others take away of a network comes back at once, and what they have beside it is left alone.

In a network of its own: a flushed ruleset or a policy of Docker's would hit the daemons of other workers.
"""

import json
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.daemon import Lxpyd, until
from tests.support.outside import Outside, answering, ask


@pytest.fixture(scope="module")
def lxpyd(apart_lxpyd: Lxpyd) -> Lxpyd:
    return apart_lxpyd


@pytest.fixture
def outside(lxpyd: Lxpyd) -> Iterator[Outside]:
    one = Outside("rep", lxpyd.number + 51)
    yield one
    one.close()


def _run(*line: str, text: str = "") -> str:
    return subprocess.run(line, input=text, capture_output=True, text=True, check=True).stdout


def _warned(lxpyd: Lxpyd, text: str) -> bool:
    return any(text in one["last_message"] for one in lxpyd.json("query", "/1.0/warnings?recursion=1"))


def test_the_bridge_and_its_address_come_back(lxpyd: Lxpyd, busybox: str, outside: Outside) -> None:
    address = lxpyd.wait_address(busybox)
    lxpyd.sh(busybox, answering("alive", 80))
    _run("ip", "link", "del", lxpyd.bridge)
    begun = time.monotonic()
    until(lambda: outside.run(*ask(address, 80)).stdout == "alive\n", 5, "the container is cut off")
    print(f"mended after {time.monotonic() - begun:.2f} s")
    until(lambda: _warned(lxpyd, f"{lxpyd.bridge!r}: the bridge was removed"), 3, "no warning")
    lxpyd.sh(busybox, f"nslookup -type=a {busybox}.lxpy {lxpyd.address}")
    _run("ip", "addr", "flush", "dev", lxpyd.bridge)
    until(lambda: lxpyd.address in _run("ip", "addr", "show", "dev", lxpyd.bridge), 3, "the address stays away")
    until(lambda: outside.run(*ask(address, 80)).stdout == "alive\n", 5, "the container is cut off")
    # by a daemon that was away
    lxpyd.kill()
    _run("ip", "link", "del", lxpyd.bridge)
    lxpyd.start()
    until(lambda: outside.run(*ask(address, 80)).stdout == "alive\n", 5, "the container stays cut off")


def test_the_rules_come_back_and_foreign_ones_stay(lxpyd: Lxpyd, busybox: str) -> None:
    def rules() -> str:
        return _run("nft", "list", "table", "inet", lxpyd.layout.nft_table)

    before = rules()
    for script in (
        "flush ruleset",
        f"delete table inet {lxpyd.layout.nft_table}",
        f"flush chain inet {lxpyd.layout.nft_table} pstrt.{lxpyd.bridge}",
        "flush ruleset; table inet theirs { chain c { type filter hook forward priority 0; counter; }; }",
    ):
        _run("nft", "-f", "-", text=script)
        until(lambda: lxpyd.layout.nft_table in _run("nft", "list", "ruleset") and rules() == before, 3, script)
        time.sleep(0.15)
    assert "table inet theirs" in _run("nft", "list", "ruleset")
    _run("nft", "delete", "table", "inet", "theirs")
    assert _warned(lxpyd, "firewall rules of the networks were removed")


def test_filters_and_routes_of_nics_come_back(lxpyd: Lxpyd, busybox: str) -> None:
    """After a flushed ruleset, and after the bridge was removed by hand."""
    lxpyd.wait_address(busybox)
    own, other = (f"{lxpyd.address.rpartition('.')[0]}.{last}" for last in (91, 92))
    keys = (f"ipv4.address={own}", "security.ipv4_filtering=true", "security.port_isolation=true",
            "ipv4.routes=10.94.0.0/24")  # fmt: skip
    lxpyd.cli("config", "device", "override", busybox, "eth0", *keys)
    lxpyd.sh(busybox, f"ip addr flush dev eth0; ip addr add {own}/24 dev eth0; ip addr add {other}/24 dev eth0")
    host_name = lxpyd.instance(busybox)["config"]["volatile.eth0.host_name"]

    def rules() -> str:
        listing = ["nft", "list", "table", "netdev", lxpyd.layout.nft_nics_table]
        return subprocess.run(listing, capture_output=True, text=True, check=False).stdout

    def answers(address: str) -> bool:
        return subprocess.run(["busybox", "ping", "-c1", "-W1", address], capture_output=True).returncode == 0

    before = rules()
    assert "ip saddr" in before
    for script in ("flush ruleset", f"flush chain netdev {lxpyd.layout.nft_nics_table} nic.{host_name}"):
        _run("nft", "-f", "-", text=script)
        until(lambda: rules() == before, 3, script)
        time.sleep(0.15)
    until(lambda: answers(own), 5, "its own address is filtered")
    assert not answers(other)
    assert _warned(lxpyd, "Filters or limits of nics were removed")
    _run("ip", "link", "del", lxpyd.bridge)
    until(lambda: "isolated on" in _run("bridge", "-d", "link", "show", "dev", host_name), 5, "not isolated any more")
    until(lambda: _run("ip", "route", "show", "10.94.0.0/24"), 5, "the route stays away")
    until(lambda: answers(own), 5, "the container is cut off")


# What Docker's iptables-nft leaves: everything forwarded is dropped unless DOCKER-USER says otherwise.
_DOCKER = """
table ip filter {
  chain DOCKER-USER { }
  chain FORWARD { type filter hook forward priority 0; policy drop; jump DOCKER-USER; }
}
table ip nat { chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 172.17.0.0/16 masquerade; }; }
"""


@pytest.mark.parametrize("first", ["docker", "lxpy"])
def test_containers_reach_the_world_beside_docker(lxpyd: Lxpyd, busybox: str, outside: Outside, first: str) -> None:
    server = outside.spawn("sh", "-c", "exec busybox nc -ll -p 80 -e echo world")
    net = f"lxd{lxpyd.number}"
    script = f"echo | timeout 2 nc -w 1 {outside.there} 80"

    def reached() -> bool:
        return lxpyd.sh(busybox, script, check=False).stdout == "world\n"

    until(reached, 5, "no way out without Docker")
    try:
        _run("nft", "-f", "-", text=_DOCKER)
        until(reached, 3, "Docker's policy cuts containers off")
        if first == "docker":
            lxpyd.cli("network", "create", net, "ipv6.address=none", input="")
        _run("nft", "flush", "chain", "ip", "filter", "DOCKER-USER")
        until(reached, 3, "the exception did not come back")
        if first == "docker":
            assert net in _run("nft", "list", "chain", "ip", "filter", "DOCKER-USER")
            lxpyd.cli("network", "delete", net)
            assert net not in _run("nft", "list", "ruleset")
        docker = json.loads(_run("nft", "-j", "list", "chain", "ip", "nat", "POSTROUTING"))
        assert len(docker["nftables"]) == 3  # metainfo, chain, its one rule
    finally:
        _run("nft", "-f", "-", text="delete table ip filter\ndelete table ip nat\n")
        server.kill()
        server.wait()
